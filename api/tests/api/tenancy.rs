//! Changing many things at once changes nobody else's. What is asked for by name or in a list is walked: `walk`.

use serde_json::json;
use sqlx::PgPool;

use crate::support::Platform;

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn changing_many_jobs_changes_nobody_elses(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, other) = (platform.organization("acme").await, platform.organization("other").await);
    let job = acme.probe(None).await;
    let probes = json!({ "kind": "diagnostics.probe" });
    assert_eq!(other.post("/jobs/discard", &probes).await.expect(200)["count"], 0);
    assert_eq!(acme.post("/jobs/discard", &probes).await.expect(200)["count"], 1);
    assert_eq!(other.post("/jobs/retry", &probes).await.expect(200)["count"], 0);
    assert_eq!(acme.get(&format!("/jobs/{job}")).await.expect(200)["state"], "discarded");
}
