//! People who are not signed in: accounts, new passwords, invitations, and the pages that links lead to.

use chrono::TimeDelta;
use gantry_api::accounts::SignUp;
use gantry_schema::memberships::Role;
use gantry_schema::messages::queries::{self, Message};
use gantry_schema::people::one_time::{self, NewToken, Purpose};
use gantry_schema::token::OneTimeToken;
use gantry_schema::{Order, OrganizationId, Window};
use poem::Request;
use poem::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Answer, Api, PASSWORD, Platform};

const CHOSEN: &str = "another sentence nobody guesses";

/// One where everybody may make an account.
async fn open(pool: PgPool) -> Platform {
    let mut platform = Platform::counting(pool).await;
    platform.app = platform.app.letting_in(SignUp::Open);
    platform.api = Api::of(&platform.app);
    platform
}

/// What waits to be sent for an organization, the oldest first, without what is to reach nobody.
pub async fn letters(platform: &Platform, organization: OrganizationId) -> Vec<Message> {
    let mut tx = platform.app.db.tenant(organization).await.unwrap();
    let window = Window::new(Order::Ascending, 100);
    let all = queries::list(&mut tx, &platform.app.sealing, None, window).await.unwrap();
    all.into_iter().filter(|message| message.expires_at != Some(message.created_at)).collect()
}

/// The link of the newest letter to an address, as a page and as a token.
pub async fn link(platform: &Platform, organization: OrganizationId, to: &str) -> (String, String) {
    let all = letters(platform, organization).await;
    let letter = all.iter().rev().find(|letter| letter.recipient == to).unwrap_or_else(|| panic!("no letter to {to}"));
    let text = &letter.content.as_ref().unwrap().text;
    let link = text.lines().find(|line| line.contains("/account/")).unwrap_or_else(|| panic!("no link in {text}"));
    let (url, token) = link.split_once("?token=").unwrap();
    (url.strip_prefix("http://127.0.0.1:8080").unwrap().to_owned(), token.to_owned())
}

fn account(token: &str) -> Value {
    json!({ "token": token, "name": "Grace", "password": CHOSEN })
}

fn credentials(email: &str, password: &str) -> Value {
    json!({ "email": email, "password": password, "kind": "program" })
}

async fn count(platform: &Platform, table: &'static str) -> i64 {
    platform.count(table).await
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn whoever_follows_the_link_in_his_mail_has_an_account_once(pool: PgPool) {
    let platform = open(pool).await;
    platform.post("/sign-up", &json!({ "email": "grace@example.com" })).await.expect(202);
    let (_, token) = link(&platform, OrganizationId::PLATFORM, "grace@example.com").await;
    let weak = json!({ "token": token, "name": "Grace", "password": "short" });
    platform.post("/sign-up/complete", &weak).await.problem(422, "weak_password", Some("password"));
    let made = platform.post("/sign-up/complete", &account(&token)).await.expect(201);
    assert_eq!(made["email"], "grace@example.com");
    let opened = platform.post("/sessions", &credentials("grace@example.com", CHOSEN)).await.expect(201);
    assert_eq!(opened["person_id"], made["person_id"]);
    assert!(opened["session"]["organization_id"].is_null(), "a member of nothing");
    // Replayed, truncated, of another kind, nobody's.
    for bad in [token.as_str(), token.get(..20).unwrap(), "gin_AAAA", &format!("got_{}", "A".repeat(43))] {
        platform.post("/sign-up/complete", &account(bad)).await.problem(410, "link_expired", Some("token"));
    }
    platform.post("/sign-up", &json!({ "email": "late@example.com" })).await.expect(202);
    let (_, token) = link(&platform, OrganizationId::PLATFORM, "late@example.com").await;
    platform.clock.advance(TimeDelta::hours(25));
    platform.post("/sign-up/complete", &account(&token)).await.problem(410, "link_expired", Some("token"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn against_user_enumeration_who_asks_learns_nothing_of_accounts_and_the_same_is_done(pool: PgPool) {
    let platform = open(pool).await;
    platform.person("ada@example.com").await;
    for path in ["/sign-up", "/password-resets"] {
        let mut seen = Vec::new();
        for email in ["ada@example.com", "nobody@example.com"] {
            let tables = ["one_time_tokens", "messages", "jobs", "audit_entries"];
            let mut before = Vec::new();
            for table in tables {
                before.push(count(&platform, table).await);
            }
            let answer = platform.post(path, &json!({ "email": email })).await;
            let mut done = Vec::new();
            for (table, before) in tables.iter().zip(before) {
                done.push(count(&platform, table).await - before);
            }
            seen.push((answer.status, answer.text, done));
        }
        assert_eq!(seen[0], seen[1], "{path}");
        assert_eq!(seen[0].2, [1, 1, 1, 1], "{path}");
    }
    let to: Vec<String> = letters(&platform, OrganizationId::PLATFORM).await.into_iter().map(|it| it.kind).collect();
    assert_eq!(to, ["reset_password", "sign_up", "reset_password"], "nothing is sent to who has no account to recover");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn against_mail_bombs_an_address_gets_few_links_an_hour(pool: PgPool) {
    let platform = open(pool).await;
    for number in 0..8 {
        let email = json!({ "email": "ada@example.com" });
        // From another network each time, so that what is counted by it lets everybody through.
        let request = crate::support::post("/password-resets", &email);
        let answer = platform.api.send(request).await;
        assert!(answer.status == 202 || answer.status == 429, "{number}: {}", answer.text);
    }
    assert!(count(&platform, "messages").await <= 5);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn where_sign_up_is_not_open_nobody_makes_an_account_by_himself(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let ask = json!({ "email": "grace@example.com" });
    platform.post("/sign-up", &ask).await.problem(403, "sign_up_closed", None);
    platform.post("/sign-up/complete", &account(&format!("got_{}", "A".repeat(43)))).await.problem(
        403,
        "sign_up_closed",
        None,
    );
    assert_eq!(count(&platform, "messages").await, 0);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn against_mass_assignment_nobody_gives_himself_a_role_or_an_organization(pool: PgPool) {
    let platform = open(pool).await;
    let acme = platform.organization("acme").await;
    for extra in
        [json!({ "role": "owner" }), json!({ "organization_id": acme.organization }), json!({ "state": "active" })]
    {
        for (path, body) in [
            ("/sign-up", json!({ "email": "grace@example.com" })),
            ("/sign-up/complete", account("got_x")),
            ("/invitations/sign-up", account("gin_x")),
            ("/bootstrap/complete", account("got_x")),
        ] {
            let mut body = body;
            body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let name = extra.as_object().unwrap().keys().next().unwrap();
            platform.post(path, &body).await.problem(422, "invalid_field", Some(name));
        }
    }
    assert_eq!(count(&platform, "people").await, 0);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_new_password_by_mail_ends_every_session_and_every_other_link(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let id = platform.person("ada@example.com").await;
    let ada = platform.signed_in(id, "ada@example.com").await;
    let ask = json!({ "email": "ADA@example.com" });
    platform.post("/password-resets", &ask).await.expect(202);
    let (_, first) = link(&platform, OrganizationId::PLATFORM, "ADA@example.com").await;
    platform.post("/password-resets", &ask).await.expect(202);
    let (_, token) = link(&platform, OrganizationId::PLATFORM, "ADA@example.com").await;
    let new = |token: &str, password: &str| json!({ "token": token, "password": password });
    platform.post("/password-resets/complete", &new(&first, CHOSEN)).await.problem(410, "link_expired", Some("token"));
    platform.post("/password-resets/complete", &new(&token, CHOSEN)).await.expect(204);
    platform.post("/password-resets/complete", &new(&token, CHOSEN)).await.problem(410, "link_expired", Some("token"));
    ada.get("/me").await.problem(401, "unauthenticated", Some("Authorization"));
    platform.post("/sessions", &credentials("ada@example.com", PASSWORD)).await.problem(401, "wrong_credentials", None);
    platform.post("/sessions", &credentials("ada@example.com", CHOSEN)).await.expect(201);
    let kinds: Vec<String> = letters(&platform, OrganizationId::PLATFORM).await.into_iter().map(|it| it.kind).collect();
    assert!(kinds.contains(&"password_changed".to_owned()), "{kinds:?}");
    // A link for one thing is good for nothing else.
    platform.post("/email-changes/complete", &json!({ "token": token })).await.problem(
        410,
        "link_expired",
        Some("token"),
    );
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_address_is_changed_once_mail_reaches_the_new_one_and_the_old_one_is_told(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    platform.person("eve@example.com").await;
    let id = platform.person("ada@example.com").await;
    let ada = platform.signed_in(id, "ada@example.com").await;
    let to = |email: &str, password: &str| json!({ "email": email, "password": password });
    ada.post("/me/email", &to("new@example.com", "a wrong one")).await.problem(
        401,
        "wrong_credentials",
        Some("password"),
    );
    ada.post("/me/email", &to("eve@example.com", PASSWORD)).await.expect(202);
    assert!(letters(&platform, OrganizationId::PLATFORM).await.is_empty(), "it is somebody else's");
    ada.post("/me/email", &to("new@example.com", PASSWORD)).await.expect(202);
    assert_eq!(ada.get("/me").await.expect(200)["person"]["email"], "ada@example.com", "not yet");
    let (_, token) = link(&platform, OrganizationId::PLATFORM, "new@example.com").await;
    platform.post("/email-changes/complete", &json!({ "token": token })).await.expect(204);
    assert_eq!(ada.get("/me").await.expect(200)["person"]["email"], "new@example.com");
    let last = letters(&platform, OrganizationId::PLATFORM).await.pop().unwrap();
    assert_eq!((last.kind.as_str(), last.recipient.as_str()), ("email_changed", "ada@example.com"));
    platform.post("/sessions", &credentials("new@example.com", PASSWORD)).await.expect(201);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn whoever_is_invited_joins_with_his_account_or_makes_one(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let globex = platform.organization("globex").await;
    let owner = platform.member("owner@example.com", acme.organization, Role::Owner).await;
    let path = format!("/organizations/{}/invitations", acme.organization);
    let invite = |email: &str, role: &str| json!({ "email": email, "role": role });
    let made = owner.post(&path, &invite("grace@example.com", "member")).await.expect(201);
    assert_eq!((made["role"].as_str(), made["email"].as_str()), (Some("member"), Some("grace@example.com")));
    assert!(!made.to_string().contains("gin_"), "the link is in the mail only");
    let (_, token) = link(&platform, acme.organization, "grace@example.com").await;
    let joined = platform.post("/invitations/sign-up", &account(&token)).await.expect(201);
    assert_eq!((joined["role"].as_str(), &joined["organization_id"]), (Some("member"), &json!(acme.organization)));
    platform.post("/invitations/sign-up", &account(&token)).await.problem(410, "link_expired", Some("token"));
    let opened = platform.post("/sessions", &credentials("grace@example.com", CHOSEN)).await.expect(201);
    assert_eq!(opened["session"]["organization_id"], json!(acme.organization));

    // She has an account now: another organization's invitation she accepts with it, and works in both.
    let other = format!("/organizations/{}/invitations", globex.organization);
    globex.post(&other, &invite("Grace@Example.com", "viewer")).await.expect(201);
    let (_, token) = link(&platform, globex.organization, "Grace@example.com").await;
    platform.post("/invitations/sign-up", &account(&token)).await.problem(409, "wrong_state", None);
    let eve = platform.member("eve@example.com", acme.organization, Role::Viewer).await;
    let acceptance = json!({ "token": token });
    eve.post("/invitations/accept", &acceptance).await.problem(409, "wrong_state", None);
    let grace = eve.with_access(opened["access_token"].as_str().unwrap());
    grace.post("/invitations/accept", &acceptance).await.expect(200);
    let switched =
        grace.post("/sessions/current/organization", &json!({ "organization_id": globex.organization })).await;
    assert_eq!(switched.expect(200)["session"]["organization_id"], json!(globex.organization));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn nobody_invites_above_himself_and_an_invitation_makes_no_member_less(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    platform.member("owner@example.com", acme.organization, Role::Owner).await;
    let admin = platform.member("admin@example.com", acme.organization, Role::Admin).await;
    let member = platform.member("member@example.com", acme.organization, Role::Member).await;
    let path = format!("/organizations/{}/invitations", acme.organization);
    let invite = |email: &str, role: &str| json!({ "email": email, "role": role });
    let refused = admin.post(&path, &invite("grace@example.com", "owner")).await.problem(403, "forbidden", None);
    assert_eq!(refused["reason"], "escalation");
    member.post(&path, &invite("grace@example.com", "viewer")).await.problem(403, "forbidden", None);
    assert_eq!(count(&platform, "invitations").await, 0);

    admin.post(&path, &invite("admin@example.com", "viewer")).await.expect(201);
    let (_, token) = link(&platform, acme.organization, "admin@example.com").await;
    let joined = admin.post("/invitations/accept", &json!({ "token": token })).await.expect(200);
    assert_eq!(joined["role"], "admin");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_invitation_that_was_taken_back_replaced_sent_again_or_is_too_old_is_good_for_nothing(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let path = format!("/organizations/{}/invitations", acme.organization);
    let invite = json!({ "email": "grace@example.com", "role": "viewer" });
    let expired = async |token: &str| {
        platform.post("/invitations/sign-up", &account(token)).await.problem(410, "link_expired", Some("token"));
    };
    let first = acme.post(&path, &invite).await.expect(201);
    let (_, replaced) = link(&platform, acme.organization, "grace@example.com").await;
    let second = acme.post(&path, &invite).await.expect(201);
    expired(&replaced).await;
    let of = |made: &Value| format!("{path}/{}", made["id"].as_str().unwrap());
    acme.post(&format!("{}/resend", of(&first)), &json!({})).await.problem(409, "wrong_state", None);
    let (_, before) = link(&platform, acme.organization, "grace@example.com").await;
    acme.post(&format!("{}/resend", of(&second)), &json!({})).await.expect(200);
    expired(&before).await;
    let (_, token) = link(&platform, acme.organization, "grace@example.com").await;
    assert_eq!(acme.get(&format!("{path}?standing=true")).await.expect(200)["items"].as_array().unwrap().len(), 1);
    acme.delete(&of(&second)).await.expect(204);
    expired(&token).await;
    acme.post(&path, &invite).await.expect(201);
    let (_, token) = link(&platform, acme.organization, "grace@example.com").await;
    platform.clock.advance(TimeDelta::days(8));
    expired(&token).await;
}

async fn page(platform: &Platform, method: Method, path: &str, form: Option<&[(&str, &str)]>) -> Answer {
    let request = Request::builder().method(method).uri_str(path).header("Sec-Fetch-Site", "same-origin");
    let request = match form {
        Some(pairs) => {
            let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
            request.header("Content-Type", "application/x-www-form-urlencoded").body(body)
        }
        None => request.finish(),
    };
    Answer::of(platform.api.answer(request).await).await
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn links_lead_to_pages_that_do_nothing_until_their_form_is_sent_and_lead_nowhere_else(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("<b>Acme</b>").await;
    let path = format!("/organizations/{}/invitations", acme.organization);
    acme.post(&path, &json!({ "email": "grace@example.com", "role": "viewer" })).await.expect(201);
    let (url, token) = link(&platform, acme.organization, "grace@example.com").await;
    assert_eq!(url, "/account/invitation");
    let shown = format!("{url}?token={token}&to=https://evil.example/&next=//evil.example");
    for _ in 0..2 {
        let answer = page(&platform, Method::GET, &shown, None).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(!answer.text.contains("evil.example") && !answer.text.contains("<b>"), "{}", answer.text);
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("form-action 'self';"), "{policy}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "the token stays here");
    }
    assert_eq!(count(&platform, "people").await, 0, "looking does nothing");
    let pairs = [("token", token.as_str()), ("name", "Grace"), ("password", "short")];
    let weak = page(&platform, Method::POST, &url, Some(&pairs)).await;
    assert!(weak.status == 422 && weak.text.contains("role=\"alert\""), "{}", weak.text);
    let pairs = [("token", token.as_str()), ("name", "Grace"), ("password", CHOSEN)];
    let elsewhere = Request::builder()
        .method(Method::POST)
        .uri_str(&url)
        .header("Sec-Fetch-Site", "cross-site")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body("token=x");
    assert_eq!(platform.api.answer(elsewhere).await.status(), 403);
    let done = page(&platform, Method::POST, &url, Some(&pairs)).await;
    assert_eq!((done.status.as_u16(), done.header("location")), (200, ""), "{}", done.text);
    assert_eq!(page(&platform, Method::POST, &url, Some(&pairs)).await.status, 410);
    platform.post("/sessions", &credentials("grace@example.com", CHOSEN)).await.expect(201);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn against_session_fixation_accepting_with_an_account_gives_a_session_of_its_own(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    platform.person("ada@example.com").await;
    let path = format!("/organizations/{}/invitations", acme.organization);
    acme.post(&path, &json!({ "email": "ada@example.com", "role": "viewer" })).await.expect(201);
    let (url, token) = link(&platform, acme.organization, "ada@example.com").await;
    let wrong =
        page(&platform, Method::POST, &url, Some(&[("token", &token), ("password", "not this one at all")])).await;
    assert!(wrong.status == 401 && wrong.header("set-cookie").is_empty(), "{}", wrong.text);
    let planted = format!("gsc_{}", "A".repeat(43));
    let body = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("token", token.as_str()), ("password", PASSWORD)])
        .finish();
    let request = Request::builder()
        .method(Method::POST)
        .uri_str(&url)
        .header("Cookie", format!("__Host-gantry-session={planted}"))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(body);
    let answer = Answer::of(platform.api.answer(request).await).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let cookie = answer.header("set-cookie");
    assert!(cookie.starts_with("__Host-gantry-session=gsc_") && !cookie.contains(&planted), "{cookie}");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_first_owner_is_made_by_the_link_that_the_command_printed(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let token = OneTimeToken::generate(&mut rand::rng());
    let email = "root@example.com".parse().unwrap();
    let new = NewToken { purpose: Purpose::Bootstrap, email: &email, person: None, name: None, locale: None };
    let mut tx = platform.app.db.tenant(OrganizationId::PLATFORM).await.unwrap();
    one_time::keep(&mut tx, &token, &new).await.unwrap();
    tx.commit().await.unwrap();
    let made = platform.post("/bootstrap/complete", &account(token.expose())).await.expect(201);
    let opened = platform.post("/sessions", &credentials("root@example.com", CHOSEN)).await.expect(201);
    assert_eq!(opened["person_id"], made["person_id"]);
    assert_eq!(opened["session"]["organization_id"], json!(OrganizationId::PLATFORM));
    platform.post("/bootstrap/complete", &account(token.expose())).await.problem(410, "link_expired", Some("token"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn somebody_is_told_of_a_device_that_was_not_seen_before_and_of_no_other(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    platform.person("ada@example.com").await;
    let sign_in = async |agent: &str| {
        let request = Request::builder()
            .method(Method::POST)
            .uri_str("/sessions")
            .header("Content-Type", "application/json")
            .header("User-Agent", agent)
            .body(credentials("ada@example.com", PASSWORD).to_string());
        platform.api.send(request).await.expect(201);
    };
    let told = async || letters(&platform, OrganizationId::PLATFORM).await;
    let firefox =
        |version: u32| format!("Mozilla/5.0 (X11; Linux x86_64; rv:{version}.0) Gecko/20100101 Firefox/{version}.0");
    sign_in(&firefox(120)).await;
    assert!(told().await.is_empty(), "the first device of all is no news");
    sign_in(&firefox(121)).await;
    assert!(told().await.is_empty(), "a newer browser on the same device");
    sign_in("deployer/1.2").await;
    let letters = told().await;
    assert_eq!((letters.len(), letters[0].kind.as_str()), (1, "new_device"));
    assert!(letters[0].content.as_ref().unwrap().text.contains("deployer/1.2"));
    sign_in("deployer/1.2").await;
    sign_in(&firefox(122)).await;
    assert_eq!(told().await.len(), 1);
}
