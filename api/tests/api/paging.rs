//! Pages of lists.

use serde_json::json;
use sqlx::PgPool;

use crate::support::Platform;

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_cursor_is_of_one_list_of_one_organization_for_a_week(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, other) = (platform.organization("acme").await, platform.organization("other").await);
    for _ in 0..3 {
        acme.probe(None).await;
    }
    let first = acme.get("/jobs?limit=2&kind=diagnostics.probe").await;
    let link = first.header("Link").to_owned();
    let page = first.expect(200);
    let cursor = page["next_cursor"].as_str().unwrap();
    assert_eq!(link, format!("</jobs?kind=diagnostics.probe&limit=2&cursor={cursor}>; rel=\"next\""));
    // What is made meanwhile changes nothing about the pages that follow.
    acme.probe(None).await;
    let second = acme.get(&format!("/jobs?kind=diagnostics.probe&limit=1&cursor={cursor}")).await;
    assert_eq!(second.header("Link"), "");
    assert_eq!(second.expect(200)["items"].as_array().unwrap().len(), 1);

    let refused = ("invalid_parameter", Some("cursor"));
    for path in ["/jobs?", "/jobs?kind=other&", "/jobs?kind=diagnostics.probe&state=running&", "/schedules?"] {
        acme.get(&format!("{path}cursor={cursor}")).await.problem(400, refused.0, refused.1);
    }
    other.get(&format!("/jobs?kind=diagnostics.probe&cursor={cursor}")).await.problem(400, refused.0, refused.1);
    platform.clock.advance(chrono::Duration::days(7));
    let old = acme.get(&format!("/jobs?kind=diagnostics.probe&cursor={cursor}")).await;
    let problem = old.problem(400, "cursor_expired", Some("cursor"));
    assert!(problem["detail"].as_str().unwrap().contains("begin again"), "{problem}");
    let last = acme.get("/api-keys").await;
    assert_eq!((last.header("Link"), json!(last.status.as_u16())), ("", json!(200)));
}
