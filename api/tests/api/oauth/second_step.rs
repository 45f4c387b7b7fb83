//! The second step of signing in on the pages: with a passkey, with a code that is sent once more, or with a passkey and
//! nothing else.

use serde_json::Value;
use sqlx::PgPool;

use super::{Scene, scene};
use crate::passkeys::{Authenticator, ORIGIN, enrolled};
use crate::sent_codes;
use crate::support::{Answer, PASSWORD};

const TO: (&str, &str) = ("to", "/oauth/device");

/// A page that is reached at a host name.
async fn named(pool: PgPool) -> Scene {
    let scene = scene(pool).await;
    let platform = scene.platform.reached_at(ORIGIN);
    Scene { platform, ..scene }
}

/// What a page has in a field, or in an attribute of one.
fn field(page: &Answer, before: &str) -> String {
    let (_, rest) = page.text.split_once(before).unwrap_or_else(|| panic!("{before}: {}", page.text));
    rest.split_once('"').unwrap().0.replace("&quot;", "\"").replace("&amp;", "&")
}

fn options(page: &Answer) -> Value {
    serde_json::from_str(&field(page, "data-options=\"")).unwrap()
}

async fn first_step(scene: &Scene) -> Answer {
    let page = scene.form("/oauth/sign-in", &[], &[("email", "ada@example.com"), ("password", PASSWORD), TO]).await;
    assert!(page.text.contains("One more step"), "{}", page.text);
    page
}

#[track_caller]
fn goes_on(answer: &Answer) {
    assert_eq!((answer.status.as_u16(), answer.header("location")), (303, TO.1), "{}", answer.text);
    assert!(answer.header("set-cookie").starts_with("__Host-gantry-session=gsc_"));
}

fn signed(passkey: &mut Authenticator, options: &Value) -> String {
    passkey.get(options).to_string()
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_passkey_signs_in_on_the_page_alone_and_as_a_second_step(pool: PgPool) {
    let scene = named(pool).await;
    let here = scene.platform.signed_in(scene.ada, "ada@example.com").await;
    let (mut passkey, _) = enrolled(&here, 1).await;
    let asked = scene.platform.post("/sessions/passkey-challenges", &serde_json::json!({})).await.expect(201);
    let credential = signed(&mut passkey, &asked["public_key"]);
    goes_on(&scene.form("/oauth/sign-in", &[], &[("credential", &credential), TO]).await);
    let again = scene.form("/oauth/sign-in", &[], &[("credential", &credential), TO]).await;
    assert_eq!(again.status, 401, "a challenge is good once: {}", again.text);
    for garbage in ["{", "{}", "[]"] {
        let page = scene.form("/oauth/sign-in", &[], &[("credential", garbage), TO]).await;
        assert!(page.status.is_client_error(), "{garbage}: {}", page.status);
    }

    let page = first_step(&scene).await;
    let policy = page.header("content-security-policy");
    assert!(policy.contains("script-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
    let token = field(&page, "name=\"token\" value=\"");
    let wrong = scene.form("/oauth/sign-in", &[], &[("token", &token), ("code", "123456"), TO]).await;
    assert!(wrong.text.contains("role=\"alert\"") && options(&wrong) != options(&page), "{}", wrong.text);
    let credential = signed(&mut passkey, &options(&wrong));
    goes_on(&scene.form("/oauth/sign-in", &[], &[("token", &token), ("credential", &credential), TO]).await);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn another_code_is_sent_where_somebody_asks_for_it_on_the_page(pool: PgPool) {
    let scene = named(pool).await;
    let here = scene.platform.signed_in(scene.ada, "ada@example.com").await;
    sent_codes::with_phone(&scene.platform, &here).await;
    let page = first_step(&scene).await;
    assert!(page.text.contains("Send a code to +43…67") && !page.text.contains("<script"), "{}", page.text);
    let first = sent_codes::newest(&scene.platform, "+436601234567").await;
    let (token, factor) = (field(&page, "name=\"token\" value=\""), field(&page, "name=\"send\" value=\""));
    let stranger = "fac_01h455vb4pex5vsknk084sn02q";
    let none = scene.form("/oauth/sign-in", &[], &[("token", &token), ("send", stranger), TO]).await;
    none.problem(404, "not_found", Some("factor_id"));
    let sent = scene.form("/oauth/sign-in", &[], &[("token", &token), ("send", &factor), TO]).await;
    assert!(sent.status == 200 && sent.text.contains("on its way"), "{}", sent.text);
    let second = sent_codes::newest(&scene.platform, "+436601234567").await;
    let old = scene.form("/oauth/sign-in", &[], &[("token", &token), ("code", &first), TO]).await;
    assert_eq!(old.status, 401, "those before are good for nothing: {}", old.text);
    goes_on(&scene.form("/oauth/sign-in", &[], &[("token", &token), ("code", &second), TO]).await);
    let over = scene.form("/oauth/sign-in", &[], &[("token", &token), ("send", &factor), TO]).await;
    assert!(over.text.contains("type=\"password\""), "{}", over.text);
}
