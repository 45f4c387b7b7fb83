//! What tokens allow, for how long, and how they end.

use chrono::TimeDelta;
use gantry_schema::memberships::Role;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Application, refused, said, scene};

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_refresh_token_is_good_once_and_one_that_comes_twice_ends_all_of_its_family(pool: PgPool) {
    let scene = scene(pool).await;
    let first = scene.tokens().await;
    let second = scene.refresh(&first).await.expect(200);
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    scene.get("/jobs", &second["access_token"]).await.expect(200);
    // Less than was allowed, and what was allowed again.
    let token = second["refresh_token"].as_str().unwrap();
    let narrow = [("grant_type", "refresh_token"), ("refresh_token", token), ("scope", "openid")];
    let third = scene.ask("/oauth/token", &narrow).await.expect(200);
    assert_eq!(third["scope"], "openid");
    scene.get("/jobs", &third["access_token"]).await.problem(403, "forbidden", None);
    let token = third["refresh_token"].as_str().unwrap();
    let wide = [("grant_type", "refresh_token"), ("refresh_token", token), ("scope", "openid jobs:write")];
    refused(scene.ask("/oauth/token", &wide).await, 400, "invalid_scope");
    let fourth = scene.refresh(&third).await.expect(200);
    assert_eq!(fourth["scope"], "openid email offline_access jobs:read");

    // Somebody has the second one too.
    refused(scene.refresh(&second).await, 400, "invalid_grant");
    refused(scene.refresh(&fourth).await, 400, "invalid_grant");
    for tokens in [&first, &second, &fourth] {
        scene.get("/jobs", &tokens["access_token"]).await.problem(401, "unauthenticated", Some("Authorization"));
        assert_eq!(scene.introspect(&tokens["access_token"]).await, json!({ "active": false }));
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn tokens_expire_and_a_refresh_token_that_nobody_used_for_a_month_too(pool: PgPool) {
    let scene = scene(pool).await;
    let tokens = scene.tokens().await;
    scene.platform.clock.advance(TimeDelta::minutes(15) - TimeDelta::seconds(1));
    scene.get("/jobs", &tokens["access_token"]).await.expect(200);
    scene.platform.clock.advance(TimeDelta::seconds(1));
    let problem = scene.get("/jobs", &tokens["access_token"]).await;
    let problem = problem.problem(401, "unauthenticated", Some("Authorization"));
    assert!(problem["detail"].as_str().unwrap().contains("expired"), "{problem}");
    assert_eq!(scene.introspect(&tokens["access_token"]).await, json!({ "active": false }));
    let next = scene.refresh(&tokens).await.expect(200);
    scene.platform.clock.advance(TimeDelta::days(30));
    refused(scene.refresh(&next).await, 400, "invalid_grant");
    // Without offline_access there is none.
    let again = super::Browser::signed_in(&scene.platform, "ada@example.com").await;
    let code =
        super::sent_on(&scene.decide_as(&again, &[("scope", "openid jobs:read")], "allow").await)["code"].clone();
    let tokens = scene.exchange(code.as_str().unwrap()).await.expect(200);
    assert!(tokens.get("refresh_token").is_none(), "{tokens}");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_token_allows_what_its_person_may_do_himself_at_this_moment(pool: PgPool) {
    let scene = scene(pool).await;
    let tokens = scene.tokens().await;
    scene.get("/jobs", &tokens["access_token"]).await.expect(200);
    let run = async |statement: &'static str| {
        sqlx::query(statement).execute(&scene.platform.pool).await.unwrap();
        scene.platform.clock.advance(TimeDelta::seconds(1));
    };
    run("update memberships set state = 'suspended'").await;
    scene.get("/jobs", &tokens["access_token"]).await.problem(401, "unauthenticated", Some("Authorization"));
    refused(scene.refresh(&tokens).await, 400, "invalid_grant");
    run("update memberships set state = 'active'").await;
    scene.get("/jobs", &tokens["access_token"]).await.expect(200);
    run("update people set state = 'suspended'").await;
    scene.get("/jobs", &tokens["access_token"]).await.problem(401, "unauthenticated", Some("Authorization"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_viewers_token_does_not_do_what_a_viewer_may_not(pool: PgPool) {
    let scene = scene(pool).await;
    let scopes = [("scope", "jobs:read jobs:write")];
    let bob = scene.platform.person("bob@example.com").await;
    scene.platform.join(bob, scene.acme.organization, Role::Viewer).await;
    let browser = super::Browser::signed_in(&scene.platform, "bob@example.com").await;
    let back = super::sent_on(&scene.decide_as(&browser, &scopes, "allow").await);
    let tokens = scene.exchange(back["code"].as_str().unwrap()).await.expect(200);
    scene.get("/jobs", &tokens["access_token"]).await.expect(200);
    let authorization = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    let request = poem::Request::builder()
        .method(poem::http::Method::POST)
        .uri_str("/jobs")
        .header("Authorization", authorization)
        .header("Content-Type", "application/json")
        .body(json!({ "kind": "diagnostics.probe" }).to_string());
    crate::support::send(&scene.platform.app, request).await.problem(403, "forbidden", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_given_back_does_not_work_any_more(pool: PgPool) {
    let scene = scene(pool).await;
    let other = Application::registered(&scene.acme, &json!({})).await;
    for which in ["access_token", "refresh_token"] {
        let tokens = scene.tokens().await;
        let token = tokens[which].as_str().unwrap();
        // By somebody else, nothing.
        scene.ask_as(&other, "/oauth/revoke", &[("token", token)]).await.expect(200);
        assert_eq!(scene.introspect(&tokens[which]).await["active"], true);
        scene.ask("/oauth/revoke", &[("token", token), ("token_type_hint", "whatever")]).await.expect(200);
        assert_eq!(scene.introspect(&tokens[which]).await, json!({ "active": false }));
        scene.get("/jobs", &tokens["access_token"]).await.problem(401, "unauthenticated", Some("Authorization"));
        refused(scene.refresh(&tokens).await, 400, "invalid_grant");
    }
    // What is no token is not needed either.
    for none in ["x", "gor_short", "eyJhbGciOiJub25lIn0.e30."] {
        scene.ask("/oauth/revoke", &[("token", none)]).await.expect(200);
    }
    refused(scene.ask("/oauth/revoke", &[]).await, 400, "invalid_request");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_token_is_described_to_the_applications_of_its_organization_and_to_nobody_else(pool: PgPool) {
    let scene = scene(pool).await;
    let tokens = scene.tokens().await;
    let access = scene.introspect(&tokens["access_token"]).await;
    assert_eq!((&access["active"], &access["client_id"]), (&json!(true), &json!(scene.books.id)));
    assert_eq!((&access["sub"], &access["token_type"]), (&json!(scene.ada), &json!("Bearer")));
    assert_eq!(access["organization"], json!(scene.acme.organization));
    assert_eq!(scene.introspect(&tokens["refresh_token"]).await["token_type"], "refresh_token");
    assert_eq!(scene.introspect(&tokens["id_token"]).await, json!({ "active": false }));

    let token = [("token", tokens["access_token"].as_str().unwrap())];
    let sibling = Application::registered(&scene.acme, &json!({})).await;
    assert_eq!(scene.ask_as(&sibling, "/oauth/introspect", &token).await.expect(200)["active"], true);
    let globex = scene.platform.organization("globex").await;
    let foreign = Application::registered(&globex, &json!({})).await;
    let told = scene.ask_as(&foreign, "/oauth/introspect", &token).await.expect(200);
    assert_eq!(told, json!({ "active": false }));
    let public = Application::registered(&scene.acme, &json!({ "confidential": false })).await;
    let by_id = [token[0], ("client_id", public.id.as_str())];
    refused(scene.form("/oauth/introspect", &[], &by_id).await, 401, "invalid_client");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_application_acts_for_itself_with_its_secret(pool: PgPool) {
    let scene = scene(pool).await;
    let with = json!({ "flows": ["client_credentials"], "redirect_uris": [], "scopes": ["openid", "jobs:read"] });
    let robot = Application::registered(&scene.acme, &with).await;
    let ask = [("grant_type", "client_credentials")];
    let tokens = scene.ask_as(&robot, "/oauth/token", &ask).await.expect(200);
    assert_eq!(tokens["scope"], "jobs:read");
    assert!(tokens.get("refresh_token").is_none() && tokens.get("id_token").is_none(), "{tokens}");
    assert_eq!(said(tokens["access_token"].as_str().unwrap())["sub"], robot.id.as_str());
    scene.get("/jobs", &tokens["access_token"]).await.expect(200);
    scene.get("/schedules", &tokens["access_token"]).await.problem(403, "forbidden", None);
    refused(scene.get("/oauth/userinfo", &tokens["access_token"]).await, 403, "insufficient_scope");
    let person = [ask[0], ("scope", "openid")];
    refused(scene.ask_as(&robot, "/oauth/token", &person).await, 400, "invalid_scope");
    refused(scene.ask("/oauth/token", &ask).await, 400, "unauthorized_client");

    // Disabled, its tokens stop within a second; removed, they are gone.
    let path = format!("/oauth-clients/{}", robot.id);
    scene.acme.patch(&path, &json!({ "enabled": false })).await.expect(200);
    scene.get("/jobs", &tokens["access_token"]).await.problem(401, "unauthenticated", Some("Authorization"));
    refused(scene.ask_as(&robot, "/oauth/token", &ask).await, 401, "invalid_client");
    scene.acme.patch(&path, &json!({ "enabled": true })).await.expect(200);
    scene.get("/jobs", &tokens["access_token"]).await.expect(200);
    scene.acme.patch(&path, &json!({ "scopes": ["schedules:read"] })).await.expect(200);
    scene.get("/jobs", &tokens["access_token"]).await.problem(403, "forbidden", None);
    scene.acme.delete(&path).await.expect(204);
    scene.get("/jobs", &tokens["access_token"]).await.problem(401, "unauthenticated", Some("Authorization"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn signing_keys_change_every_month_and_tokens_go_on(pool: PgPool) {
    let scene = scene(pool).await;
    let kid = |tokens: &Value| {
        use base64::Engine as _;
        let header = tokens["access_token"].as_str().unwrap().split('.').next().unwrap().to_owned();
        let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).unwrap();
        serde_json::from_slice::<Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
    };
    let shown = async || {
        let request = poem::Request::builder().uri_str("/oauth/jwks").finish();
        let set = crate::support::send(&scene.platform.app, request).await.expect(200);
        let keys = set["keys"].as_array().unwrap();
        keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let robot = json!({ "flows": ["client_credentials"], "redirect_uris": [], "scopes": ["jobs:read"] });
    let robot = Application::registered(&scene.acme, &robot).await;
    let ask = [("grant_type", "client_credentials")];
    let first = kid(&scene.ask_as(&robot, "/oauth/token", &ask).await.expect(200));
    assert_eq!(shown().await, std::slice::from_ref(&first));
    // A day before it signs, the next one is shown.
    scene.platform.clock.advance(TimeDelta::days(29));
    let both = shown().await;
    assert_eq!(both.len(), 2);
    scene.platform.clock.advance(TimeDelta::days(1) - TimeDelta::seconds(1));
    let last = scene.ask_as(&robot, "/oauth/token", &ask).await.expect(200);
    assert_eq!(kid(&last), first);
    scene.platform.clock.advance(TimeDelta::seconds(1));
    let next = scene.ask_as(&robot, "/oauth/token", &ask).await.expect(200);
    assert_eq!(kid(&next), both[1]);
    scene.get("/jobs", &last["access_token"]).await.expect(200);
    scene.platform.clock.advance(TimeDelta::minutes(31));
    assert_eq!(shown().await, [both[1].clone()]);
    assert_eq!(scene.platform.count("oauth_signing_keys").await, 2);
}
