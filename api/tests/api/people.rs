//! People about themselves.

use serde_json::json;
use sqlx::PgPool;

use crate::support::{PASSWORD, Platform};

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn somebody_changes_what_he_is_called_and_what_he_is_written_to_in(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let id = platform.person("ada@example.com").await;
    let ada = platform.signed_in(id, "ada@example.com").await;
    let changed = ada.patch("/me", &json!({ "name": "Ada Lovelace", "locale": "en-GB" })).await.expect(200);
    assert_eq!((changed["name"].as_str(), changed["locale"].as_str()), (Some("Ada Lovelace"), Some("en-GB")));
    let me = ada.get("/me").await.expect(200);
    assert_eq!((me["person"]["name"].as_str(), &me["memberships"]), (Some("Ada Lovelace"), &json!([])));
    ada.patch("/me", &json!({ "locale": "english, please" })).await.problem(422, "invalid_field", Some("locale"));
    ada.patch("/me", &json!({ "name": "" })).await.problem(422, "invalid_field", Some("name"));
    ada.get("/jobs").await.problem(403, "forbidden", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_password_is_changed_by_who_knows_it_to_one_nobody_guesses_and_ends_other_sessions(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let id = platform.person("ada@example.com").await;
    let (here, there) =
        (platform.signed_in(id, "ada@example.com").await, platform.signed_in(id, "ada@example.com").await);
    let change = async |current: &str, new: &str| {
        here.put("/me/password", &json!({ "current_password": current, "new_password": new })).await
    };
    change("not the password", "another sentence nobody guesses").await.problem(
        401,
        "wrong_credentials",
        Some("current_password"),
    );
    for weak in
        ["short", "fourteen chars", "passwordpassword", "ada@example.com", &"ab1 ".repeat(100), "qqqqqqqqqqqqqqqqqqqq"]
    {
        change(PASSWORD, weak).await.problem(422, "weak_password", Some("new_password"));
    }
    change(PASSWORD, "another sentence nobody guesses").await.expect(204);
    here.get("/me").await.expect(200);
    there.get("/me").await.problem(401, "unauthenticated", Some("Authorization"));
    let sign_in = async |password: &str| {
        platform
            .post("/sessions", &json!({ "email": "Ada@Example.com", "password": password, "kind": "program" }))
            .await
    };
    sign_in(PASSWORD).await.problem(401, "wrong_credentials", None);
    sign_in("another sentence nobody guesses").await.expect(201);
}
