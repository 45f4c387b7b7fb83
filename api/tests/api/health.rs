//! Health.

use poem::Request;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Platform, send};

async fn ready(platform: &Platform) -> (u16, Value) {
    let answer = send(&platform.app, Request::builder().uri_str("/health/ready").finish()).await;
    let status = answer.status.as_u16();
    (status, answer.expect(status))
}

fn is_ok<'a>(answer: &'a Value, name: &str) -> &'a Value {
    &answer["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap()["ok"]
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn readiness_names_each_dependency(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (status, answer) = ready(&platform).await;
    assert_eq!((status, &answer["code"]), (503, &json!("not_ready")));
    for (name, ok) in [("postgres", true), ("migrations", true), ("redis", false), ("process", true)] {
        assert_eq!(is_ok(&answer, name), ok, "{answer}");
    }

    sqlx::query("delete from _sqlx_migrations where version = 2").execute(&platform.pool).await.unwrap();
    platform.app.stop();
    let (_, answer) = ready(&platform).await;
    assert_eq!((is_ok(&answer, "migrations"), is_ok(&answer, "process")), (&json!(false), &json!(false)));

    platform.app.db.pool().close().await;
    assert_eq!(is_ok(&ready(&platform).await.1, "postgres"), false);
    let live = send(&platform.app, Request::builder().uri_str("/health/live").finish()).await;
    assert_eq!(live.expect(200), json!({ "status": "alive" }));
}
