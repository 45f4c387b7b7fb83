//! What stands against whoever was not let: each by its name.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use poem::Request;
use poem::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Application, CALLBACK, VERIFIER, refused, scene, sent_on};
use crate::support::send;

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_replayed_code_takes_back_what_it_gave(pool: PgPool) {
    let scene = scene(pool).await;
    let code = scene.code().await;
    let tokens = scene.exchange(&code).await.expect(200);
    scene.get("/jobs", &tokens["access_token"]).await.expect(200);
    refused(scene.exchange(&code).await, 400, "invalid_grant");
    scene.get("/jobs", &tokens["access_token"]).await.problem(401, "unauthenticated", Some("Authorization"));
    refused(scene.refresh(&tokens).await, 400, "invalid_grant");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_code_is_good_for_a_minute_for_its_application_and_its_redirect_uri(pool: PgPool) {
    let scene = scene(pool).await;
    let code = scene.code().await;
    scene.platform.clock.advance(TimeDelta::seconds(60));
    refused(scene.exchange(&code).await, 400, "invalid_grant");

    let other = Application::registered(&scene.acme, &json!({})).await;
    let code = scene.code().await;
    let pairs = |code, redirect_uri| {
        [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", VERIFIER),
        ]
    };
    // Mixed up: it was given to another. That one can still use it.
    refused(scene.ask_as(&other, "/oauth/token", &pairs(&code, CALLBACK)).await, 400, "invalid_grant");
    scene.exchange(&code).await.expect(200);
    let code = scene.code().await;
    refused(scene.ask("/oauth/token", &pairs(&code, "https://books.example/other")).await, 400, "invalid_grant");
    refused(scene.exchange(&code).await, 400, "invalid_grant");
    for bad in ["x", "goc_", &format!("{code}A"), &"goc_".repeat(10_000)] {
        refused(scene.ask("/oauth/token", &pairs(bad, CALLBACK)).await, 400, "invalid_grant");
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_code_with_another_proof_key_is_used_up_and_gives_nothing(pool: PgPool) {
    let scene = scene(pool).await;
    let code = scene.code().await;
    let with = |verifier| {
        [
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", CALLBACK),
            ("code_verifier", verifier),
        ]
    };
    refused(scene.ask("/oauth/token", &with("")).await, 400, "invalid_request");
    refused(scene.ask("/oauth/token", &with(super::CHALLENGE)).await, 400, "invalid_grant");
    refused(scene.ask("/oauth/token", &with(VERIFIER)).await, 400, "invalid_grant");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn nobody_is_sent_where_the_application_did_not_register(pool: PgPool) {
    let scene = scene(pool).await;
    for redirect_uri in [
        "https://evil.example/callback",
        "https://books.example/callback/",
        "https://books.example/callback?next=https://evil.example",
        "https://books.example:443/callback",
        "https://books.example@evil.example/callback",
        "http://books.example/callback",
        "javascript:alert(1)",
        "//evil.example/callback",
        "",
    ] {
        let answer = scene.open(&[("redirect_uri", redirect_uri)]).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (400, ""), "{redirect_uri}");
        let answer = scene.decide(&[("redirect_uri", redirect_uri)], "allow").await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (400, ""), "{redirect_uri}");
    }
    for client_id in ["", "x", "ocl_01h455vb4pex5vsknk084sn02q", "<script>alert(1)</script>"] {
        let answer = scene.open(&[("client_id", client_id)]).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (400, ""), "{client_id}");
        assert!(!answer.text.contains("<script>"));
    }
    // The same parameter twice: two readers would take different ones.
    let path = format!(
        "/oauth/authorize?client_id={}&redirect_uri={CALLBACK}&redirect_uri=https://evil.example",
        scene.books.id
    );
    let request = Request::builder().uri_str(path).header("Cookie", &scene.browser.cookie).finish();
    let answer = send(&scene.platform.app, request).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (400, ""));
    assert_eq!(scene.platform.count("oauth_codes").await, 0);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn another_sites_page_allows_nothing(pool: PgPool) {
    let scene = scene(pool).await;
    let (query, organization) = (super::encoded(&scene.request(&[])), scene.acme.organization.to_string());
    let form = |csrf| {
        [
            ("request", query.as_str()),
            ("csrf_token", csrf),
            ("decision", "allow"),
            ("organization_id", organization.as_str()),
        ]
    };
    let cookie = ("Cookie", scene.browser.cookie.as_str());
    let right = scene.browser.csrf.as_str();
    for (headers, csrf) in [
        (vec![cookie], ""),
        (vec![cookie], "wrong"),
        (vec![cookie, ("Sec-Fetch-Site", "cross-site")], right),
        (vec![cookie, ("Sec-Fetch-Site", "same-site")], right),
        (vec![cookie, ("Origin", "https://evil.example")], right),
        (vec![cookie, ("Origin", "null")], right),
    ] {
        let answer = scene.form("/oauth/authorize", &headers, &form(csrf)).await;
        answer.problem(403, "cross_site_request", None);
    }
    // Without the session it is asked who it is.
    let answer = scene.form("/oauth/authorize", &[], &form(right)).await;
    assert!(answer.text.contains("type=\"password\""));
    assert_eq!((scene.platform.count("oauth_grants").await, scene.platform.count("oauth_codes").await), (0, 0));
    let same_origin = [cookie, ("Sec-Fetch-Site", "same-origin")];
    assert!(sent_on(&scene.form("/oauth/authorize", &same_origin, &form(right)).await)["code"].is_string());
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_application_is_who_it_says_or_gets_nothing(pool: PgPool) {
    let scene = scene(pool).await;
    let with = json!({ "flows": ["client_credentials", "authorization_code"], "scopes": ["jobs:read"] });
    let robot = Application::registered(&scene.acme, &with).await;
    let (id, secret) = (robot.id.as_str(), robot.secret.as_deref().unwrap());
    let grant = ("grant_type", "client_credentials");
    scene.form("/oauth/token", &[], &[grant, ("client_id", id), ("client_secret", secret)]).await.expect(200);

    let other = scene.books.secret.as_deref().unwrap();
    let huge = "gos_".repeat(10_000);
    for wrong in [other, "x", "gos_", &huge] {
        let pairs = [grant, ("client_id", id), ("client_secret", wrong)];
        refused(scene.form("/oauth/token", &[], &pairs).await, 401, "invalid_client");
    }
    refused(scene.form("/oauth/token", &[], &[grant, ("client_id", id)]).await, 401, "invalid_client");
    refused(scene.form("/oauth/token", &[], &[grant]).await, 401, "invalid_client");
    let unknown = Application { id: "ocl_01h455vb4pex5vsknk084sn02q".to_owned(), secret: robot.secret.clone() };
    let answer = scene.ask_as(&unknown, "/oauth/token", &[grant]).await;
    assert!(answer.header("www-authenticate").starts_with("Basic"));
    refused(answer, 401, "invalid_client");
    let twice = [grant, ("client_id", id), ("client_secret", secret)];
    refused(scene.ask_as(&robot, "/oauth/token", &twice).await, 400, "invalid_request");
    refused(
        scene.ask_as(&robot, "/oauth/token", &[grant, ("client_id", &scene.books.id)]).await,
        400,
        "invalid_request",
    );
    for header in ["Basic", "Basic !!!", "Bearer x", "Basic eA=="] {
        refused(scene.form("/oauth/token", &[("Authorization", header)], &[grant]).await, 401, "invalid_client");
    }

    let public = Application::registered(&scene.acme, &json!({ "confidential": false })).await;
    let pairs = [grant, ("client_id", public.id.as_str()), ("client_secret", secret)];
    refused(scene.form("/oauth/token", &[], &pairs).await, 401, "invalid_client");

    refused(
        scene.ask("/oauth/token", &[("grant_type", "password"), ("username", "ada")]).await,
        400,
        "unsupported_grant_type",
    );
    refused(scene.ask("/oauth/token", &[]).await, 400, "invalid_request");
    refused(scene.ask("/oauth/token", &[grant, grant]).await, 400, "invalid_request");
    let request = Request::builder()
        .method(Method::POST)
        .uri_str("/oauth/token")
        .header("Content-Type", "application/json")
        .body(json!({ "grant_type": "client_credentials" }).to_string());
    refused(send(&scene.platform.app, request).await, 400, "invalid_request");
}

/// A token with another header or other claims, and the signature as it was.
fn forged(token: &str, header: impl Fn(&mut Value), claims: impl Fn(&mut Value)) -> Value {
    let parts: Vec<&str> = token.split('.').collect();
    let change = |part: &str, change: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        change(&mut value);
        URL_SAFE_NO_PAD.encode(value.to_string())
    };
    json!(format!("{}.{}.{}", change(parts[0], &header), change(parts[1], &claims), parts[2]))
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn forged_tokens_open_nothing(pool: PgPool) {
    let scene = scene(pool).await;
    let tokens = scene.tokens().await;
    let token = tokens["access_token"].as_str().unwrap();
    let as_it_was = |_: &mut Value| {};
    let set = |name: &'static str, to: Value| move |value: &mut Value| value[name] = to.clone();
    let (unsigned, _) = token.rsplit_once('.').unwrap();
    let none = forged(token, set("alg", json!("none")), as_it_was);
    let none_unsigned = format!("{}.", none.as_str().unwrap().rsplit_once('.').unwrap().0);
    let forgeries = [
        none,
        json!(none_unsigned),
        json!(format!("{unsigned}.")),
        forged(token, set("alg", json!("HS256")), as_it_was),
        forged(token, set("kid", json!("sgk_01h455vb4pex5vsknk084sn02q")), as_it_was),
        forged(token, set("typ", json!("JWT")), as_it_was),
        forged(token, as_it_was, set("aud", json!("https://other.example"))),
        forged(token, as_it_was, set("iss", json!("https://other.example"))),
        forged(token, as_it_was, set("nbf", json!(4_000_000_000_i64))),
        forged(token, as_it_was, set("exp", json!(4_000_000_000_i64))),
        forged(token, as_it_was, set("scope", json!("api_keys:write"))),
        tokens["id_token"].clone(),
        json!(format!("{token}x")),
        json!("eyJ"),
        json!(format!("eyJ{}", "a".repeat(20_000))),
    ];
    for forgery in &forgeries {
        scene.get("/jobs", forgery).await.problem(401, "unauthenticated", Some("Authorization"));
        assert_eq!(scene.introspect(forgery).await, json!({ "active": false }));
        refused(scene.get("/oauth/userinfo", forgery).await, 401, "invalid_token");
    }
    // Neither do a refresh token and a code.
    scene.get("/jobs", &tokens["refresh_token"]).await.problem(401, "unauthenticated", Some("Authorization"));
    // The platform's own tokens are no application's.
    refused(scene.get("/oauth/userinfo", &json!(scene.acme.token)).await, 401, "invalid_token");
    scene.get("/jobs", &tokens["access_token"]).await.expect(200);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_refresh_token_is_good_for_its_application_only(pool: PgPool) {
    let scene = scene(pool).await;
    let tokens = scene.tokens().await;
    let other = Application::registered(&scene.acme, &json!({})).await;
    let token = tokens["refresh_token"].as_str().unwrap();
    let pairs = [("grant_type", "refresh_token"), ("refresh_token", token)];
    refused(scene.ask_as(&other, "/oauth/token", &pairs).await, 400, "invalid_grant");
    scene.refresh(&tokens).await.expect(200);
}
