//! Devices without a browser.

use chrono::TimeDelta;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Application, Scene, refused, scene};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

async fn begun(scene: &Scene, television: &Application) -> Value {
    let pairs = [("client_id", television.id.as_str()), ("scope", "openid offline_access jobs:read")];
    scene.form("/oauth/device_authorization", &[], &pairs).await.expect(200)
}

async fn polled(scene: &Scene, television: &Application, codes: &Value) -> crate::support::Answer {
    let code = codes["device_code"].as_str().unwrap();
    let pairs = [("grant_type", GRANT), ("client_id", &television.id), ("device_code", code)];
    scene.form("/oauth/token", &[], &pairs).await
}

async fn typed(scene: &Scene, codes: &Value, decision: &str) -> crate::support::Answer {
    let organization = scene.acme.organization.to_string();
    let code = codes["user_code"].as_str().unwrap().to_lowercase();
    let pairs = [
        ("user_code", code.as_str()),
        ("csrf_token", &scene.browser.csrf),
        ("organization_id", &organization),
        ("decision", decision),
    ];
    scene.form("/oauth/device", &[("Cookie", &scene.browser.cookie)], &pairs).await
}

async fn with_television(pool: PgPool) -> (Scene, Application) {
    let scene = scene(pool).await;
    let with = json!({ "confidential": false, "flows": ["device_code"], "redirect_uris": [] });
    let television = Application::registered(&scene.acme, &with).await;
    (scene, television)
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_device_waits_until_somebody_has_typed_its_code(pool: PgPool) {
    let (scene, television) = with_television(pool).await;
    let codes = begun(&scene, &television).await;
    assert_eq!((&codes["expires_in"], &codes["interval"]), (&json!(600), &json!(5)));
    refused(polled(&scene, &television, &codes).await, 400, "authorization_pending");
    // Too soon, and from then on less often.
    refused(polled(&scene, &television, &codes).await, 400, "slow_down");
    scene.platform.clock.advance(TimeDelta::seconds(9));
    refused(polled(&scene, &television, &codes).await, 400, "slow_down");
    scene.platform.clock.advance(TimeDelta::seconds(15));
    refused(polled(&scene, &television, &codes).await, 400, "authorization_pending");

    let question = typed(&scene, &codes, "").await;
    assert!(question.text.contains("See jobs.") && question.text.contains("device of your own"), "{}", question.text);
    refused(polled(&scene, &television, &codes).await, 400, "slow_down");
    assert_eq!(typed(&scene, &codes, "allow").await.status, 200);
    let tokens = polled(&scene, &television, &codes).await.expect(200);
    scene.get("/jobs", &tokens["access_token"]).await.expect(200);
    assert!(tokens["refresh_token"].is_string() && tokens["id_token"].is_string());
    // Once, and it cannot be decided again.
    refused(polled(&scene, &television, &codes).await, 400, "invalid_grant");
    assert_eq!(typed(&scene, &codes, "allow").await.status, 400);
    // A public application exchanges its refresh token without a secret, once.
    let token = tokens["refresh_token"].as_str().unwrap();
    let pairs = [("grant_type", "refresh_token"), ("client_id", &television.id), ("refresh_token", token)];
    scene.form("/oauth/token", &[], &pairs).await.expect(200);
    refused(scene.form("/oauth/token", &[], &pairs).await, 400, "invalid_grant");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn who_refuses_a_device_or_does_not_decide_gives_nothing(pool: PgPool) {
    let (scene, television) = with_television(pool).await;
    let codes = begun(&scene, &television).await;
    assert_eq!(typed(&scene, &codes, "deny").await.status, 200);
    refused(polled(&scene, &television, &codes).await, 400, "access_denied");
    assert_eq!(scene.platform.count("oauth_grants").await, 0);

    let codes = begun(&scene, &television).await;
    // Another application does not get what it waits for, and another site's page decides nothing.
    refused(polled(&scene, &scene.books, &codes).await, 401, "invalid_client");
    let pairs = [("user_code", codes["user_code"].as_str().unwrap()), ("decision", "allow")];
    let answer = scene.form("/oauth/device", &[("Cookie", &scene.browser.cookie)], &pairs).await;
    answer.problem(403, "cross_site_request", None);
    scene.platform.clock.advance(TimeDelta::minutes(10));
    refused(polled(&scene, &television, &codes).await, 400, "expired_token");
    assert_eq!(typed(&scene, &codes, "allow").await.status, 400);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn guessing_user_codes_is_slowed_down(pool: PgPool) {
    let (scene, _) = with_television(pool).await;
    let mut refused = false;
    for _ in 0..20 {
        let answer = typed(&scene, &json!({ "user_code": "BCDF-GHJK" }), "allow").await;
        if answer.status == 429 {
            refused = true;
            break;
        }
        assert_eq!(answer.status, 400);
    }
    assert!(refused, "twenty guesses in a moment");
}
