//! The authorization code, from the question to the tokens.

use gantry_schema::memberships::Role;
use gantry_schema::oauth::jwt::at_hash;
use poem::Request;
use poem::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Application, Browser, CALLBACK, CHALLENGE, ISSUER, said, scene, sent_on};
use crate::support::{PASSWORD, send};

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn where_everything_is_stands_in_the_metadata(pool: PgPool) {
    let scene = scene(pool).await;
    for path in ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"] {
        let answer = send(&scene.platform.app, Request::builder().uri_str(path).finish()).await;
        assert!(answer.header("cache-control").starts_with("public"));
        let metadata = answer.expect(200);
        assert_eq!(metadata["issuer"], ISSUER);
        assert_eq!(metadata["code_challenge_methods_supported"], json!(["S256"]));
        assert_eq!(metadata["authorization_response_iss_parameter_supported"], true);
        let scopes = metadata["scopes_supported"].as_array().unwrap();
        assert!(scopes.contains(&json!("openid")) && !scopes.contains(&json!("platform:operate")));
        for (name, value) in metadata.as_object().unwrap() {
            let Some(path) = value.as_str().and_then(|url| url.strip_prefix(ISSUER)) else { continue };
            if name == "issuer" {
                continue;
            }
            let answer = send(&scene.platform.app, Request::builder().uri_str(path).finish()).await;
            assert_ne!(answer.status, 404, "{name}: {path}");
        }
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn somebody_is_asked_in_words_and_his_code_becomes_tokens(pool: PgPool) {
    let scene = scene(pool).await;
    let page = scene.open(&[]).await;
    assert_eq!(page.status, 200, "{}", page.text);
    assert!(page.header("content-type").starts_with("text/html"));
    for words in
        ["See jobs.", "See your e-mail address.", "Go on doing all this", "ada@example.com", "acme", "Books &lt;b&gt;"]
    {
        assert!(page.text.contains(words), "{words}: {}", page.text);
    }
    assert!(!page.text.contains("<b>") && !page.text.contains("<script"));
    let policy = page.header("content-security-policy");
    assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("script-src"), "{policy}");
    assert!(policy.contains("form-action 'self' https://books.example;"), "{policy}");
    assert_eq!(page.header("x-frame-options"), "DENY");

    let answer = scene.decide(&[], "allow").await;
    assert!(answer.header("location").starts_with(&format!("{CALLBACK}?")));
    assert_eq!(answer.header("cache-control"), "no-store");
    let back = sent_on(&answer);
    assert_eq!((&back["state"], &back["iss"]), (&json!("a state & more"), &json!(ISSUER)));
    let tokens = scene.exchange(back["code"].as_str().unwrap()).await.expect(200);
    assert_eq!((&tokens["token_type"], &tokens["expires_in"]), (&json!("Bearer"), &json!(900)));
    assert_eq!(tokens["scope"], "openid email offline_access jobs:read");

    let access = said(tokens["access_token"].as_str().unwrap());
    assert_eq!((&access["iss"], &access["aud"]), (&json!(ISSUER), &json!(ISSUER)));
    assert_eq!((&access["sub"], &access["client_id"]), (&json!(scene.ada), &json!(scene.books.id)));
    let id = said(tokens["id_token"].as_str().unwrap());
    assert_eq!((&id["aud"], &id["nonce"]), (&json!(scene.books.id), &json!("a nonce")));
    assert_eq!(id["at_hash"], at_hash(tokens["access_token"].as_str().unwrap()));
    assert_eq!((&id["email"], &id["email_verified"]), (&json!("ada@example.com"), &json!(true)));
    assert_eq!((id.get("name"), &id["amr"]), (None, &json!(["pwd"])));

    let userinfo = scene.get("/oauth/userinfo", &tokens["access_token"]).await.expect(200);
    assert_eq!(userinfo, json!({ "sub": scene.ada, "email": "ada@example.com", "email_verified": true }));
    scene.get("/jobs", &tokens["access_token"]).await.expect(200);
    // A scope that it was not given, though she may do it.
    scene.get("/schedules", &tokens["access_token"]).await.problem(403, "forbidden", None);
    // What is about herself is not for applications.
    scene.get("/sessions", &tokens["access_token"]).await.problem(403, "forbidden", None);

    let mine = scene.acme.get("/oauth-grants").await.expect(200);
    assert_eq!(mine["items"][0]["client_name"], "Books <b>");
    assert_eq!(mine["items"][0]["scopes"][3]["description"], "See jobs.");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn who_refuses_gives_nothing(pool: PgPool) {
    let scene = scene(pool).await;
    let back = sent_on(&scene.decide(&[], "deny").await);
    assert_eq!((&back["error"], &back["state"]), (&json!("access_denied"), &json!("a state & more")));
    assert_eq!((scene.platform.count("oauth_grants").await, scene.platform.count("oauth_codes").await), (0, 0));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_was_allowed_before_is_not_asked_again_and_more_is(pool: PgPool) {
    let scene = scene(pool).await;
    let error = |back: &Value| back["error"].as_str().unwrap().to_owned();
    assert_eq!(error(&sent_on(&scene.open(&[("prompt", "none")]).await)), "consent_required");
    scene.tokens().await;
    assert!(sent_on(&scene.open(&[]).await)["code"].is_string());
    assert!(sent_on(&scene.open(&[("prompt", "none")]).await)["code"].is_string());
    assert_eq!(scene.open(&[("scope", "openid jobs:write")]).await.status, 200);
    assert_eq!(scene.open(&[("prompt", "consent")]).await.status, 200);
    assert_eq!(error(&sent_on(&scene.open(&[("prompt", "none login")]).await)), "invalid_request");

    // A program that keeps no secret may be another than it says.
    let with = json!({ "confidential": false, "redirect_uris": ["http://127.0.0.1/callback"] });
    let native = Application::registered(&scene.acme, &with).await;
    let request = [("client_id", native.id.as_str()), ("redirect_uri", "http://127.0.0.1:51234/callback")];
    assert!(sent_on(&scene.decide(&request, "allow").await)["code"].is_string());
    assert_eq!(scene.open(&request).await.status, 200);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn who_is_not_signed_in_or_not_lately_signs_in_first(pool: PgPool) {
    let scene = scene(pool).await;
    let nobody = Browser { cookie: "a=b".to_owned(), csrf: String::new() };
    let back = sent_on(&scene.open_as(&nobody, &[("prompt", "none")]).await);
    assert_eq!(back["error"], "login_required");
    let page = scene.open_as(&nobody, &[]).await;
    assert!(page.text.contains("type=\"password\""), "{}", page.text);

    scene.platform.clock.advance(chrono::TimeDelta::minutes(5));
    assert!(scene.open(&[("max_age", "600")]).await.text.contains("See jobs."));
    assert!(scene.open(&[("max_age", "299")]).await.text.contains("type=\"password\""));
    assert!(scene.open(&[("prompt", "login")]).await.text.contains("type=\"password\""));

    // The page's form: wrong, then right, and on to the question.
    let to = format!("/oauth/authorize?client_id={}&scope=openid", scene.books.id);
    let email = ("email", "ada@example.com");
    let wrong = [email, ("password", "not hers"), ("to", &to)];
    let answer = scene.form("/oauth/sign-in", &[], &wrong).await;
    assert_eq!(answer.status, 401);
    assert!(answer.text.contains("role=\"alert\""), "{}", answer.text);
    let right = [email, ("password", PASSWORD), ("to", &to)];
    let answer = scene.form("/oauth/sign-in", &[], &right).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (303, to.as_str()));
    assert!(answer.header("set-cookie").starts_with("__Host-gantry-session=gsc_"));
    // Nowhere else.
    for elsewhere in ["https://evil.example/", "//evil.example", "/oauth/authorizer", "/docs", ""] {
        let answer = scene.form("/oauth/sign-in", &[], &[email, ("password", PASSWORD), ("to", elsewhere)]).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (400, ""), "{elsewhere}");
    }
    // Another site's page does not sign anybody in.
    let answer = scene.form("/oauth/sign-in", &[("Sec-Fetch-Site", "cross-site")], &right).await;
    answer.problem(403, "cross_site_request", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_application_works_where_it_was_registered_and_below(pool: PgPool) {
    let scene = scene(pool).await;
    let other = scene.platform.organization("globex").await;
    let eve = scene.platform.person("eve@example.com").await;
    scene.platform.join(eve, other.organization, Role::Owner).await;
    let browser = Browser::signed_in(&scene.platform, "eve@example.com").await;
    assert_eq!(sent_on(&scene.open_as(&browser, &[]).await)["error"], "access_denied");
    // Nor by naming an organization that is not hers, or in which it does not work.
    assert_eq!(scene.decide_as(&browser, &[], "allow").await.status, 400);
    assert_eq!(scene.platform.count("oauth_grants").await, 0);

    let child = scene.platform.below(scene.acme.organization, "child").await;
    let bob = scene.platform.person("bob@example.com").await;
    scene.platform.join(bob, child.organization, Role::Viewer).await;
    let browser = Browser::signed_in(&scene.platform, "bob@example.com").await;
    let page = scene.open_as(&browser, &[]).await;
    assert!(page.text.contains("child") && page.text.contains("registered by acme"), "{}", page.text);
    let query = super::encoded(&scene.request(&[]));
    let organization = child.organization.to_string();
    let form = [
        ("request", query.as_str()),
        ("csrf_token", &browser.csrf),
        ("decision", "allow"),
        ("organization_id", &organization),
    ];
    let back = sent_on(&scene.form("/oauth/authorize", &[("Cookie", &browser.cookie)], &form).await);
    let tokens = scene.exchange(back["code"].as_str().unwrap()).await.expect(200);
    assert_eq!(said(tokens["access_token"].as_str().unwrap())["organization"], organization);
    scene.get("/jobs", &tokens["access_token"]).await.expect(200);
    // For one organization, whatever the header says.
    let authorization = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    let request = Request::builder()
        .method(Method::GET)
        .uri_str("/jobs")
        .header("Authorization", authorization)
        .header("X-Organization-Id", scene.acme.organization.to_string());
    send(&scene.platform.app, request.finish()).await.problem(404, "not_found", Some("X-Organization-Id"));
    // Its owner takes it back for everybody.
    let body = json!({ "client_id": scene.books.id });
    assert_eq!(child.post("/oauth-grants/revoke", &body).await.expect(200)["count"], 1);
    scene.get("/jobs", &tokens["access_token"]).await.problem(401, "unauthenticated", Some("Authorization"));
    child.post("/oauth-grants/revoke", &body).await.problem(404, "not_found", Some("client_id"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_request_that_is_not_in_order_is_told_to_the_application(pool: PgPool) {
    let scene = scene(pool).await;
    let long = "x".repeat(2_001);
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("response_type", "token")], "unsupported_response_type"),
        (&[("response_type", "code id_token")], "unsupported_response_type"),
        (&[("response_type", "")], "invalid_request"),
        (&[("response_mode", "fragment")], "invalid_request"),
        (&[("scope", "")], "invalid_scope"),
        (&[("scope", "openid everything")], "invalid_scope"),
        (&[("scope", "openid api_keys:write")], "invalid_scope"),
        (&[("scope", "platform:operate")], "invalid_scope"),
        (&[("code_challenge", "")], "invalid_request"),
        (&[("code_challenge", "short")], "invalid_request"),
        (&[("code_challenge_method", "")], "invalid_request"),
        (&[("code_challenge_method", "plain"), ("code_challenge", CHALLENGE)], "invalid_request"),
        (&[("nonce", &long)], "invalid_request"),
        (&[("prompt", "dance")], "invalid_request"),
        (&[("max_age", "-1")], "invalid_request"),
        (&[("request", "eyJhbGciOiJub25lIn0.e30.")], "request_not_supported"),
        (&[("request_uri", "https://evil.example/request")], "request_uri_not_supported"),
    ];
    for (with, error) in cases {
        let back = sent_on(&scene.open(with).await);
        assert_eq!(back["error"], *error, "{with:?}");
        assert_eq!((&back["iss"], &back["state"]), (&json!(ISSUER), &json!("a state & more")));
        assert!(back.get("code").is_none());
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_allowed_and_what_comes_of_it_is_on_record(pool: PgPool) {
    let scene = scene(pool).await;
    let tokens = scene.tokens().await;
    scene.refresh(&tokens).await.expect(200);
    scene.refresh(&tokens).await.expect(400);
    let entries: Vec<(String, String, String, Option<String>)> = sqlx::query_as(
        "select action, actor, outcome::text, target from audit_entries
          where organization_id = $1 and action like 'oauth_%' order by id",
    )
    .bind(scene.acme.organization.uuid())
    .fetch_all(&scene.platform.pool)
    .await
    .unwrap();
    let (ada, books) = (scene.ada.to_string(), scene.books.id.clone());
    let told: Vec<(&str, bool, bool, &str)> = entries
        .iter()
        .map(|(action, actor, outcome, _)| (action.as_str(), *actor == ada, *actor == books, outcome.as_str()))
        .collect();
    let expected = [
        ("oauth_client.create", false, false, "allowed"),
        ("oauth_client.authorize", true, false, "allowed"),
        ("oauth_token.issue", false, true, "allowed"),
        ("oauth_token.refresh", false, true, "allowed"),
        ("oauth_token.refresh", false, true, "denied"),
    ];
    assert_eq!(told, expected);
    assert_eq!(entries[1].3.as_ref(), Some(&books));
}
