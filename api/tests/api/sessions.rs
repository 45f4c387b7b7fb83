//! Signing in and out, and what stands against whoever tries without being allowed to.

use chrono::TimeDelta;
use gantry_schema::OrganizationId;
use gantry_schema::memberships::Role;
use poem::Request;
use poem::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Answer, Human, PASSWORD, Platform, post, send};

fn credentials(email: &str, password: &str, kind: &str) -> Value {
    json!({ "email": email, "password": password, "kind": kind })
}

/// A browser with what it keeps of its sign-in.
struct Browser<'a> {
    platform: &'a Platform,
    cookie: String,
    csrf: String,
}

impl<'a> Browser<'a> {
    async fn signed_in(platform: &'a Platform, email: &str) -> Self {
        Self::of(platform, platform.post("/sessions", &credentials(email, PASSWORD, "browser")).await)
    }

    fn of(platform: &'a Platform, answer: Answer) -> Self {
        let cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
        assert!(cookie.starts_with("__Host-gantry-session=gsc_"), "{cookie}");
        let opened: Value = serde_json::from_str(&answer.text).unwrap();
        assert!(opened.get("access_token").is_none() && opened.get("refresh_token").is_none());
        Self { platform, cookie, csrf: opened["csrf_token"].as_str().unwrap().to_owned() }
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> Answer {
        let mut request = Request::builder().method(method).uri_str(path).header("Cookie", &self.cookie);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = match body {
            Some(body) => request.header("Content-Type", "application/json").body(body.to_string()),
            None => request.finish(),
        };
        send(&self.platform.app, request).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], None).await
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_program_signs_in_acts_refreshes_and_signs_out(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let ada = platform.member("ada@example.com", acme.organization, Role::Admin).await;

    let me = ada.get("/me").await.expect(200);
    assert_eq!((me["person"]["email"].as_str(), me["role"].as_str()), (Some("ada@example.com"), Some("admin")));
    assert_eq!(me["organization_id"], acme.organization.to_string());
    assert_eq!(me["memberships"].as_array().unwrap().len(), 1);
    assert!(me["permissions"].as_array().unwrap().contains(&json!("jobs:write")));
    ada.post("/jobs", &json!({ "kind": "diagnostics.probe" })).await.expect(202);

    let opened = platform.post("/sessions/refresh", &json!({ "refresh_token": ada.refresh_token })).await.expect(200);
    assert_eq!(opened["session"]["id"], ada.get("/sessions/current").await.expect(200)["session"]["id"]);
    assert_eq!(opened["expires_in"], 900);
    let next = ada.with(&opened);
    next.get("/me").await.expect(200);
    platform.clock.advance(TimeDelta::minutes(15));
    next.get("/me").await.problem(401, "unauthenticated", Some("Authorization"));

    let opened = platform.post("/sessions/refresh", &json!({ "refresh_token": next.refresh_token })).await.expect(200);
    let last = next.with(&opened);
    last.delete("/sessions/current").await.expect(204);
    last.get("/me").await.problem(401, "unauthenticated", Some("Authorization"));
    let refresh = json!({ "refresh_token": opened["refresh_token"] });
    platform.post("/sessions/refresh", &refresh).await.problem(401, "invalid_refresh_token", Some("refresh_token"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn against_user_enumeration_every_failed_sign_in_is_answered_alike_and_does_the_same(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    platform.person("ada@example.com").await;
    platform.person("bob@example.com").await;
    sqlx::query("update people set state = 'suspended' where email = 'bob@example.com'")
        .execute(&platform.pool)
        .await
        .unwrap();
    sqlx::query("delete from passwords where person_id = (select id from people where email = 'bob@example.com')")
        .execute(&platform.pool)
        .await
        .unwrap();
    let mut answers = Vec::new();
    for email in ["ada@example.com", "bob@example.com", "nobody@example.com"] {
        let answer = platform.post("/sessions", &credentials(email, "not the password at all", "program")).await;
        let mut problem = answer.problem(401, "wrong_credentials", None);
        problem["request_id"] = Value::Null;
        answers.push(problem);
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_suspended_account_is_told_so_only_to_who_knows_its_password(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let id = platform.person("ada@example.com").await;
    let ada = platform.signed_in(id, "ada@example.com").await;
    sqlx::query("update people set state = 'suspended'").execute(&platform.pool).await.unwrap();
    platform.clock.advance(TimeDelta::seconds(1));
    ada.get("/me").await.problem(401, "unauthenticated", Some("Authorization"));
    let refresh = json!({ "refresh_token": ada.refresh_token });
    platform.post("/sessions/refresh", &refresh).await.problem(401, "invalid_refresh_token", Some("refresh_token"));
    let right = credentials("ada@example.com", PASSWORD, "program");
    platform.post("/sessions", &right).await.problem(403, "account_suspended", None);
    let wrong = credentials("ada@example.com", "something else entirely", "program");
    platform.post("/sessions", &wrong).await.problem(401, "wrong_credentials", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn against_brute_force_failures_are_counted_and_after_a_hundred_no_password_is_right(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    platform.person("ada@example.com").await;
    let failures = async || -> i32 {
        sqlx::query_scalar("select failures from passwords").fetch_one(&platform.pool).await.unwrap()
    };
    let attempt =
        async |password: &str| platform.post("/sessions", &credentials("ada@example.com", password, "program")).await;
    attempt("wrong password number one").await.problem(401, "wrong_credentials", None);
    attempt("wrong password number two").await.problem(401, "wrong_credentials", None);
    assert_eq!(failures().await, 2);
    attempt(PASSWORD).await.expect(201);
    assert_eq!(failures().await, 0);
    sqlx::query("update passwords set failures = 99").execute(&platform.pool).await.unwrap();
    attempt("wrong password number hundred").await.problem(401, "wrong_credentials", None);
    attempt(PASSWORD).await.problem(401, "wrong_credentials", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn against_stolen_refresh_tokens_one_that_comes_twice_ends_the_whole_session(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let id = platform.person("ada@example.com").await;
    let ada = platform.signed_in(id, "ada@example.com").await;
    let other = platform.signed_in(id, "ada@example.com").await;
    let first = json!({ "refresh_token": ada.refresh_token });
    let opened = platform.post("/sessions/refresh", &first).await.expect(200);
    let problem =
        platform.post("/sessions/refresh", &first).await.problem(401, "invalid_refresh_token", Some("refresh_token"));
    assert!(problem["detail"].as_str().unwrap().contains("somebody else has it too"));

    // Neither of the two who have it gets any further, by whichever token.
    let second = json!({ "refresh_token": opened["refresh_token"] });
    platform.post("/sessions/refresh", &second).await.problem(401, "invalid_refresh_token", Some("refresh_token"));
    for token in [opened["access_token"].as_str().unwrap(), &ada.access_token] {
        ada.with_access(token).get("/me").await.problem(401, "unauthenticated", Some("Authorization"));
    }
    other.get("/me").await.expect(200);
    let because: String = sqlx::query_scalar("select ended_because from sessions where ended_at is not null")
        .fetch_one(&platform.pool)
        .await
        .unwrap();
    assert_eq!(because, "refresh_token_reused");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn against_session_fixation_signing_in_makes_a_new_session_and_ends_the_one_it_came_with(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    platform.person("eve@example.com").await;
    platform.person("ada@example.com").await;
    let planted = Browser::signed_in(&platform, "eve@example.com").await;
    planted.get("/me").await.expect(200);

    let body = Some(credentials("ada@example.com", PASSWORD, "browser"));
    let answer = planted.send(Method::POST, "/sessions", &[("Sec-Fetch-Site", "same-origin")], body).await;
    let victim = Browser::of(&platform, answer);
    assert_ne!(victim.cookie, planted.cookie);
    assert_eq!(victim.get("/me").await.expect(200)["person"]["email"], "ada@example.com");
    planted.get("/me").await.problem(401, "unauthenticated", Some("Authorization"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn against_forged_requests_a_cookie_changes_nothing_without_token_and_from_no_other_origin(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    platform.person("ada@example.com").await;
    let browser = Browser::signed_in(&platform, "ada@example.com").await;
    let change = || Some(json!({ "name": "Eve" }));
    let own = platform.app.public_url().to_owned();
    let token = ("X-CSRF-Token", browser.csrf.as_str());
    for headers in [
        vec![],
        vec![("X-CSRF-Token", "")],
        vec![("X-CSRF-Token", "bm90IHRoZSB0b2tlbg")],
        vec![token, ("Sec-Fetch-Site", "cross-site")],
        vec![token, ("Sec-Fetch-Site", "same-site"), ("Origin", &own)],
        vec![token, ("Origin", "https://evil.example")],
        vec![token, ("Origin", "null")],
        vec![("Sec-Fetch-Site", "same-origin")],
    ] {
        let field = (!headers.iter().any(|header| header.0 == "X-CSRF-Token" && header.1 == browser.csrf))
            .then_some("X-CSRF-Token");
        browser.send(Method::PATCH, "/me", &headers, change()).await.problem(403, "cross_site_request", field);
    }
    for headers in [vec![token], vec![token, ("Sec-Fetch-Site", "same-origin")], vec![token, ("Origin", &own)]] {
        browser.send(Method::PATCH, "/me", &headers, Some(json!({ "name": "Ada L." }))).await.expect(200);
    }
    // A page that makes somebody work in the attacker's session.
    let login = |site: &str| {
        let request = post("/sessions", &credentials("ada@example.com", PASSWORD, "browser"));
        let (mut parts, body) = request.into_parts();
        parts.headers.insert("sec-fetch-site", site.parse().unwrap());
        Request::from_parts(parts, body)
    };
    send(&platform.app, login("cross-site")).await.problem(403, "cross_site_request", None);
    send(&platform.app, login("same-origin")).await.expect(201);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_browser_is_signed_out_with_its_cookie_and_when_nobody_uses_it(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    platform.person("ada@example.com").await;
    let browser = Browser::signed_in(&platform, "ada@example.com").await;
    assert_eq!(browser.get("/sessions/current").await.expect(200)["csrf_token"], browser.csrf.as_str());
    let token = ("X-CSRF-Token", browser.csrf.as_str());
    let answer = browser.send(Method::DELETE, "/sessions/current", &[token], None).await;
    assert!(answer.header("set-cookie").contains("Max-Age=0"), "{:?}", answer.headers);
    browser.get("/me").await.problem(401, "unauthenticated", Some("Authorization"));

    let idle = Browser::signed_in(&platform, "ada@example.com").await;
    for _ in 0..5 {
        platform.clock.advance(TimeDelta::minutes(59));
        idle.get("/me").await.expect(200);
    }
    platform.clock.advance(TimeDelta::minutes(60));
    idle.get("/me").await.problem(401, "unauthenticated", Some("Authorization"));

    let busy = Browser::signed_in(&platform, "ada@example.com").await;
    for _ in 0..24 {
        busy.get("/me").await.expect(200);
        platform.clock.advance(TimeDelta::minutes(59));
    }
    busy.get("/me").await.expect(200);
    platform.clock.advance(TimeDelta::minutes(24));
    busy.get("/me").await.problem(401, "unauthenticated", Some("Authorization"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn browsers_are_signed_in_where_nobody_on_the_way_sees_the_cookie(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    platform.person("ada@example.com").await;
    let at = async |url: &str| {
        let app = platform.app.clone().at(url);
        send(&app, post("/sessions", &credentials("ada@example.com", PASSWORD, "browser"))).await
    };
    at("https://gantry.example").await.expect(201);
    at("http://localhost:8080").await.expect(201);
    at("http://[::1]:8080").await.expect(201);
    at("http://gantry.example").await.problem(409, "wrong_state", None);
    at("http://192.0.2.1:8080").await.problem(409, "wrong_state", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn sessions_are_listed_with_what_they_are_used_on_and_ended_one_or_all(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let id = platform.person("ada@example.com").await;
    let (here, there) =
        (platform.signed_in(id, "ada@example.com").await, platform.signed_in(id, "ada@example.com").await);
    let firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0";
    let request = post("/sessions", &credentials("ada@example.com", PASSWORD, "browser"));
    let (mut parts, body) = request.into_parts();
    parts.headers.insert("user-agent", firefox.parse().unwrap());
    let browser = Browser::of(&platform, send(&platform.app, Request::from_parts(parts, body)).await);

    let list = here.get("/sessions").await.expect(200);
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 3);
    assert_eq!((items[0]["kind"].as_str(), items[0]["device"].as_str()), (Some("browser"), Some("Firefox on Linux")));
    assert_eq!(items.iter().filter(|item| item["current"] == true).count(), 1);
    assert_eq!(items[2]["current"], true);
    assert_eq!(items[0]["methods"], json!(["pwd"]));

    let path = format!("/sessions/{}", items[0]["id"].as_str().unwrap());
    here.delete(&path).await.expect(204);
    browser.get("/me").await.problem(401, "unauthenticated", Some("Authorization"));
    here.delete(&path).await.problem(404, "not_found", None);
    assert_eq!(here.delete("/sessions").await.expect(200)["count"], 1);
    there.get("/me").await.problem(401, "unauthenticated", Some("Authorization"));
    here.get("/me").await.expect(200);

    let eve = platform.person("eve@example.com").await;
    let eve = platform.signed_in(eve, "eve@example.com").await;
    let hers = eve.get("/sessions/current").await.expect(200)["session"]["id"].as_str().unwrap().to_owned();
    here.delete(&format!("/sessions/{hers}")).await.problem(404, "not_found", None);
    eve.get("/me").await.expect(200);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn sessions_are_bounded_and_the_longest_unused_make_room(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let id = platform.person("ada@example.com").await;
    let first = platform.signed_in(id, "ada@example.com").await;
    for _ in 0..100 {
        platform.clock.advance(TimeDelta::seconds(1));
        platform.signed_in(id, "ada@example.com").await;
    }
    assert_eq!(platform.count("sessions where ended_at is null").await, 100);
    first.get("/me").await.problem(401, "unauthenticated", Some("Authorization"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn somebody_acts_for_each_of_his_organizations_with_his_role_there_and_for_no_other(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let (acme, globex, other) = (
        platform.organization("acme").await,
        platform.organization("globex").await,
        platform.organization("other").await,
    );
    let ada = platform.member("ada@example.com", acme.organization, Role::Owner).await;
    platform.join(ada.id, globex.organization, Role::Viewer).await;
    let probe = json!({ "kind": "diagnostics.probe" });
    ada.post("/jobs", &probe).await.expect(202);

    let as_member_of = async |human: &Human, organization: &str, method: Method, path: &str, body: Option<&Value>| {
        let request = Request::builder()
            .method(method)
            .uri_str(path)
            .header("Authorization", format!("Bearer {}", human.access_token))
            .header("X-Organization-Id", organization)
            .header("Content-Type", "application/json");
        send(&platform.app, request.body(body.map_or_else(String::new, Value::to_string))).await
    };
    let there = globex.organization.to_string();
    assert_eq!(as_member_of(&ada, &there, Method::GET, "/jobs", None).await.expect(200), json!({ "items": [] }));
    as_member_of(&ada, &there, Method::POST, "/jobs", Some(&probe)).await.problem(403, "forbidden", None);
    for foreign in [other.organization, OrganizationId::PLATFORM, platform.app.db.ids().mint()] {
        let answer = as_member_of(&ada, &foreign.to_string(), Method::GET, "/jobs", None).await;
        answer.problem(404, "not_found", Some("X-Organization-Id"));
        let body = json!({ "organization_id": foreign });
        ada.post("/sessions/current/organization", &body).await.problem(404, "not_found", Some("organization_id"));
        let mut body = credentials("ada@example.com", PASSWORD, "program");
        body["organization_id"] = json!(foreign);
        platform.post("/sessions", &body).await.problem(404, "not_found", Some("organization_id"));
    }
    as_member_of(&ada, "acme", Method::GET, "/jobs", None).await.problem(
        400,
        "invalid_parameter",
        Some("X-Organization-Id"),
    );

    let body = json!({ "organization_id": globex.organization });
    let opened = ada.post("/sessions/current/organization", &body).await.expect(200);
    ada.get("/me").await.problem(401, "unauthenticated", Some("Authorization"));
    let switched = ada.with(&opened);
    assert_eq!(switched.get("/me").await.expect(200)["role"], "viewer");
    switched.post("/jobs", &probe).await.problem(403, "forbidden", None);
    // The next session begins where the last one was.
    let again = platform.signed_in(ada.id, "ada@example.com").await;
    assert_eq!(again.get("/me").await.expect(200)["organization_id"], there);

    sqlx::query("update memberships set state = 'suspended' where role = 'viewer'")
        .execute(&platform.pool)
        .await
        .unwrap();
    platform.clock.advance(TimeDelta::seconds(1));
    again.get("/jobs").await.problem(403, "forbidden", None);
    assert_eq!(again.get("/me").await.expect(200)["permissions"], json!([]));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn against_mass_assignment_nobody_gives_himself_a_role_or_an_organization(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let ada = platform.member("ada@example.com", acme.organization, Role::Viewer).await;
    for (field, value) in [
        ("role", json!("owner")),
        ("organization_id", json!(OrganizationId::PLATFORM)),
        ("state", json!("active")),
        ("email", json!("eve@example.com")),
        ("email_verified_at", json!("2026-01-01T00:00:00Z")),
        ("id", json!("usr_01h455vb4pex5vsknk084sn02q")),
        ("permissions", json!(["platform:operate"])),
    ] {
        let mut change = json!({ "name": "Ada" });
        change[field] = value.clone();
        ada.patch("/me", &change).await.problem(422, "invalid_field", Some(field));
        if field != "organization_id" && field != "email" {
            let mut body = credentials("ada@example.com", PASSWORD, "program");
            body[field] = value;
            platform.post("/sessions", &body).await.problem(422, "invalid_field", Some(field));
        }
    }
    assert_eq!(ada.get("/me").await.expect(200)["role"], "viewer");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn wrong_truncated_foreign_and_huge_tokens_open_nothing(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let id = platform.person("ada@example.com").await;
    let ada = platform.signed_in(id, "ada@example.com").await;
    let browser = Browser::signed_in(&platform, "ada@example.com").await;
    let cookie = browser.cookie.split_once('=').unwrap().1;
    let with = async |authorization: String| {
        let request = Request::builder().uri_str("/me").header("Authorization", authorization).finish();
        send(&platform.app, request).await
    };
    let token = ada.access_token.as_str();
    let truncated: String = token.chars().take(30).collect();
    for wrong in [
        format!("Bearer {truncated}"),
        format!("Bearer {token}x"),
        format!("Bearer gsa_{}", "A".repeat(43)),
        format!("Bearer gsa_{}", "A".repeat(7_000)),
        // Each opens one thing only.
        format!("Bearer {}", ada.refresh_token),
        format!("Bearer {cookie}"),
        format!("Bearer gsa_{}", cookie.trim_start_matches("gsc_")),
        format!("Basic {token}"),
        "Bearer ".to_owned(),
        String::new(),
    ] {
        with(wrong).await.problem(401, "unauthenticated", Some("Authorization"));
    }
    let stolen = Browser { platform: &platform, cookie: format!("__Host-gantry-session={token}"), csrf: String::new() };
    stolen.get("/me").await.problem(401, "unauthenticated", Some("Authorization"));
    for wrong in [token, cookie, &"gsr_".repeat(1_000), "x"] {
        let body = json!({ "refresh_token": wrong });
        platform.post("/sessions/refresh", &body).await.problem(401, "invalid_refresh_token", Some("refresh_token"));
    }
    let body = json!({ "refresh_token": "x".repeat(5_000) });
    platform.post("/sessions/refresh", &body).await.problem(422, "invalid_field", Some("refresh_token"));
    let body = credentials("ada@example.com", &"x".repeat(4_096), "program");
    platform.post("/sessions", &body).await.problem(401, "wrong_credentials", None);
    ada.get("/me").await.expect(200);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_api_key_is_nobody(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    for path in ["/me", "/sessions", "/sessions/current"] {
        acme.get(path).await.problem(403, "forbidden", None);
    }
    let request = acme.request(Method::GET, "/jobs", None);
    let (mut parts, body) = request.into_parts();
    parts.headers.insert("x-organization-id", OrganizationId::PLATFORM.to_string().parse().unwrap());
    let answer = send(&platform.app, Request::from_parts(parts, body)).await;
    answer.problem(404, "not_found", Some("X-Organization-Id"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_hash_that_was_made_more_cheaply_is_made_anew_when_its_owner_signs_in(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let id = platform.person("ada@example.com").await;
    let dearer = gantry_schema::people::hashing::Hasher::costing((16, 1, 1), None, &mut rand::rng()).unwrap();
    let app = platform.app.clone().hashing(dearer);
    let hash = async || -> String {
        sqlx::query_scalar("select hash from passwords").fetch_one(&platform.pool).await.unwrap()
    };
    assert!(hash().await.contains("m=8,"));
    send(&app, post("/sessions", &credentials("ada@example.com", "something else", "program"))).await.expect(401);
    assert!(hash().await.contains("m=8,"));
    send(&app, post("/sessions", &credentials("ada@example.com", PASSWORD, "program"))).await.expect(201);
    assert!(hash().await.contains("m=16,"));
    platform.signed_in(id, "ada@example.com").await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn who_proves_himself_anew_goes_on_with_other_tokens(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let id = platform.person("ada@example.com").await;
    let ada = platform.signed_in(id, "ada@example.com").await;
    platform.clock.advance(TimeDelta::minutes(11));
    ada.post("/sessions/current/proof", &json!({ "password": "not it at all" })).await.problem(
        401,
        "wrong_credentials",
        Some("password"),
    );
    let opened = ada.post("/sessions/current/proof", &json!({ "password": PASSWORD })).await.expect(200);
    assert_eq!(opened["session"]["authenticated_at"], "2026-01-15T12:11:00Z");
    ada.get("/me").await.problem(401, "unauthenticated", Some("Authorization"));
    let refresh = json!({ "refresh_token": ada.refresh_token });
    platform.post("/sessions/refresh", &refresh).await.problem(401, "invalid_refresh_token", Some("refresh_token"));
    let refresh = json!({ "refresh_token": opened["refresh_token"] });
    platform.post("/sessions/refresh", &refresh).await.expect(200);
}
