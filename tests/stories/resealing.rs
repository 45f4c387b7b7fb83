//! The installation's sealing key is replaced.

use gantry_jobs::maintenance::Reseal;
use gantry_schema::seal::{SealContext, SealingKey, SealingKeys};
use gantry_schema::webhooks::endpoints::Change;
use gantry_tests::{Platform, process};
use serde_json::json;
use sqlx::PgPool;

const NEW: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

fn new_key() -> SealingKey {
    SealingKey::from_base64("next", NEW).unwrap()
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn after_the_job_the_old_key_is_needed_no_more(pool: PgPool) {
    let mut platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let receiver = acme.endpoint("https://a.example/").await;
    let place = SealContext {
        organization: acme.id.uuid(),
        table: "webhook_endpoints",
        column: "headers",
        row: receiver.id.uuid(),
    };
    let sealed = platform.sealing_keys().seal(&place, br#"{"x-team":"blue"}"#).unwrap();
    let headers = Some(Some((sealed, vec!["x-team".to_owned()])));
    acme.change(receiver.id, &Change { headers, ..Change::default() }).await;

    let old = process::sealing_key().unwrap();
    platform.seal_with(SealingKeys::new(new_key(), vec![old]).unwrap());
    let job = platform.operator().enqueue(Reseal::default()).await;
    platform.run_jobs().await;
    assert_eq!(platform.operator().job(job).await.result, Some(json!({ "resealed": 2 })));
    let job = platform.operator().enqueue(Reseal::default()).await;
    platform.run_jobs().await;
    assert_eq!(
        platform.operator().job(job).await.result,
        Some(json!({ "resealed": 0 })),
        "a second time there is nothing"
    );

    platform.seal_with(SealingKeys::new(new_key(), Vec::new()).unwrap());
    acme.event("invoice.paid", json!({})).await;
    platform.run_jobs().await;
    let arrived = platform.hooks.deliveries_to(&receiver.url);
    assert_eq!(receiver.verify(&arrived[0].request, platform.now()), Ok(()));
    assert!(arrived[0].request.headers.contains(&("x-team".to_owned(), "blue".to_owned())));
}
