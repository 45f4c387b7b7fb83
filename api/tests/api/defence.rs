//! From where an organization may be asked.

use gantry_api::App;
use gantry_api::app::Surface;
use gantry_api::defence::Places;
use gantry_schema::memberships::Role;
use poem::Request;
use poem::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::places;
use crate::support::{Actor, Answer, Human, Platform, send};

/// An API behind a proxy on the same machine, that knows where addresses are.
fn behind_a_proxy(platform: &Platform, directory: &tempfile::TempDir) -> App {
    let path = directory.path().join("city.mmdb");
    std::fs::write(&path, places::cities()).unwrap();
    let surface = Surface { proxies: "unix".parse().unwrap(), ..Surface::default() };
    platform.app.clone().with(surface).locating(Places::open(path).unwrap())
}

fn asking(token: &str, method: Method, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Request {
    let mut request =
        Request::builder().method(method).uri_str(path).header("Authorization", format!("Bearer {token}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    match body {
        Some(body) => request.header("Content-Type", "application/json").body(body.to_string()),
        None => request.finish(),
    }
}

async fn from(app: &App, token: &str, address: &str) -> Answer {
    send(app, asking(token, Method::GET, "/jobs", &[("X-Forwarded-For", address)], None)).await
}

async fn set(app: &App, actor: &Actor, address: &str, body: &Value) -> Answer {
    let path = format!("/organizations/{}/defence", actor.organization);
    let headers = [("X-Forwarded-For", address), ("If-Match", "*")];
    send(app, asking(&actor.token, Method::PUT, &path, &headers, Some(body))).await
}

const VIENNA: &str = "203.0.113.1";
const MUNICH: &str = "203.0.113.17";
const NEW_YORK: &str = "203.0.113.33";

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn who_asks_from_elsewhere_is_refused_with_the_rule_recorded_and_told(pool: PgPool) {
    let (platform, directory) = (Platform::new(pool).await, tempfile::tempdir().unwrap());
    let app = behind_a_proxy(&platform, &directory);
    let (acme, other) = (platform.organization("acme").await, platform.organization("other").await);
    let policy = json!({ "networks": ["203.0.113.0/28"] });
    set(&app, &acme, VIENNA, &policy).await.expect(200);
    from(&app, &acme.token, VIENNA).await.expect(200);
    let refused = from(&app, &acme.token, MUNICH).await.problem(403, "source_not_allowed", None);
    assert_eq!(refused["reason"], "source_address");
    from(&app, &acme.token, MUNICH).await.problem(403, "source_not_allowed", None);
    from(&app, &other.token, MUNICH).await.expect(200);
    let headers = [("X-Forwarded-For", VIENNA)];
    let read = async |path: &str| send(&app, asking(&acme.token, Method::GET, path, &headers, None)).await.expect(200);
    let told = read("/events?types=security.access_refused").await["items"].clone();
    assert_eq!(told.as_array().unwrap().len(), 1, "once a minute: {told}");
    assert_eq!(told[0]["payload"]["address"], MUNICH);
    let recorded = read("/audit-entries?outcome=denied").await["items"].clone();
    assert_eq!(recorded[0]["actor"]["address"], MUNICH, "{recorded}");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_a_stranger_writes_into_headers_lets_him_in_nowhere(pool: PgPool) {
    let (platform, directory) = (Platform::new(pool).await, tempfile::tempdir().unwrap());
    let app = behind_a_proxy(&platform, &directory);
    let acme = platform.organization("acme").await;
    set(&app, &acme, VIENNA, &json!({ "networks": ["203.0.113.0/28"] })).await.expect(200);
    // Behind the proxy that is trusted, the nearest stranger counts, whatever he says of those before him.
    let spoofed: &[&[(&str, &str)]] = &[
        &[("X-Forwarded-For", "203.0.113.1, 198.51.100.1")],
        &[("X-Forwarded-For", "203.0.113.1"), ("X-Forwarded-For", "198.51.100.1")],
        &[("X-Forwarded-For", "198.51.100.1"), ("Forwarded", "for=203.0.113.1")],
        &[("X-Forwarded-For", "198.51.100.1"), ("X-Real-IP", "203.0.113.1")],
        &[("X-Forwarded-For", "198.51.100.1"), ("CF-Connecting-IP", "203.0.113.1"), ("True-Client-IP", "203.0.113.1")],
        &[("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-Host", "203.0.113.1"), ("Host", "203.0.113.1")],
        &[("X-Forwarded-For", "203.0.113.1; drop")],
        &[("X-Forwarded-For", "unknown")],
        &[],
    ];
    for headers in spoofed {
        let answer = send(&app, asking(&acme.token, Method::GET, "/jobs", headers, None)).await;
        assert_eq!((answer.status.as_u16(), answer.text.contains("source_address")), (403, true), "{headers:?}");
    }
    // Where nobody is trusted, headers say nothing at all.
    let direct = platform.app.clone();
    from(&direct, &acme.token, VIENNA).await.problem(403, "source_not_allowed", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_holds_above_holds_below_and_is_only_narrowed_there(pool: PgPool) {
    let (platform, directory) = (Platform::new(pool).await, tempfile::tempdir().unwrap());
    let app = behind_a_proxy(&platform, &directory);
    let acme = platform.organization("acme").await;
    let branch = platform.below(acme.organization, "branch").await;
    set(&app, &acme, VIENNA, &json!({ "countries_allowed": ["AT", "DE"] })).await.expect(200);
    from(&app, &branch.token, MUNICH).await.expect(200);
    let refused = from(&app, &branch.token, NEW_YORK).await.problem(403, "source_not_allowed", None);
    assert_eq!(refused["reason"], "source_country");
    // Nobody below lets in whom those above do not.
    set(&app, &branch, VIENNA, &json!({ "countries_allowed": ["AT", "US"] })).await.expect(200);
    from(&app, &branch.token, VIENNA).await.expect(200);
    from(&app, &branch.token, MUNICH).await.problem(403, "source_not_allowed", None);
    from(&app, &branch.token, NEW_YORK).await.problem(403, "source_not_allowed", None);
    from(&app, &acme.token, MUNICH).await.expect(200);
    // Of whom nobody knows where he is.
    from(&app, &acme.token, "198.51.100.1").await.expect(200);
    let strict = json!({ "countries_allowed": ["AT"], "refuses_unknown": true });
    set(&app, &acme, VIENNA, &strict).await.expect(200);
    from(&app, &acme.token, "198.51.100.1").await.problem(403, "source_not_allowed", None);
    from(&app, &branch.token, "198.51.100.1").await.problem(403, "source_not_allowed", None);
    let path = format!("/organizations/{}/defence", branch.organization);
    let shown =
        send(&app, asking(&branch.token, Method::GET, &path, &[("X-Forwarded-For", VIENNA)], None)).await.expect(200);
    let whose: Vec<&Value> =
        shown["policies"].as_array().unwrap().iter().map(|policy| &policy["organization_id"]).collect();
    assert_eq!(whose, [&json!(branch.organization), &json!(acme.organization)], "its own first");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn nobody_locks_himself_out_unless_he_insists(pool: PgPool) {
    let (platform, directory) = (Platform::new(pool).await, tempfile::tempdir().unwrap());
    let app = behind_a_proxy(&platform, &directory);
    let acme = platform.organization("acme").await;
    for body in [
        json!({ "networks": ["198.51.100.0/24"] }),
        json!({ "countries_denied": ["AT"] }),
        json!({ "countries_allowed": ["US"] }),
    ] {
        set(&app, &acme, VIENNA, &body).await.problem(409, "would_lock_out", None);
        from(&app, &acme.token, VIENNA).await.expect(200);
    }
    assert_eq!(platform.count("defence_policies").await, 0, "nothing of it is stored");
    for (body, field) in [
        (json!({ "networks": ["10.0.0.0/33"] }), "networks[0]"),
        (json!({ "countries_allowed": ["AT", "Austria"] }), "countries_allowed[1]"),
        (json!({ "countries_denied": ["at"] }), "countries_denied[0]"),
    ] {
        set(&app, &acme, VIENNA, &body).await.problem(422, "invalid_field", Some(field));
    }
    set(&platform.app, &acme, VIENNA, &json!({ "countries_denied": ["US"] })).await.problem(
        422,
        "invalid_field",
        Some("countries_denied"),
    );
    set(&app, &acme, VIENNA, &json!({ "networks": ["198.51.100.0/24"], "force": true })).await.expect(200);
    from(&app, &acme.token, VIENNA).await.problem(403, "source_not_allowed", None);
    from(&app, &acme.token, "198.51.100.7").await.expect(200);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn people_see_to_themselves_from_anywhere(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let directory = tempfile::tempdir().unwrap();
    let app = behind_a_proxy(&platform, &directory);
    let acme = platform.organization("acme").await;
    let ada: Human = platform.member("ada@example.com", acme.organization, Role::Owner).await;
    set(&app, &acme, VIENNA, &json!({ "networks": ["203.0.113.0/28"] })).await.expect(200);
    from(&app, &ada.access_token, VIENNA).await.expect(200);
    from(&app, &ada.access_token, MUNICH).await.problem(403, "source_not_allowed", None);
    let mine = asking(&ada.access_token, Method::GET, "/sessions", &[("X-Forwarded-For", MUNICH)], None);
    send(&app, mine).await.expect(200);
    let out = asking(&ada.access_token, Method::DELETE, "/sessions/current", &[("X-Forwarded-For", MUNICH)], None);
    assert_eq!(send(&app, out).await.status, 204);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_file_that_changes_is_read_anew_and_a_broken_one_is_not(pool: PgPool) {
    let (platform, directory) = (Platform::new(pool).await, tempfile::tempdir().unwrap());
    let path = directory.path().join("city.mmdb");
    std::fs::write(&path, b"nothing of the kind").unwrap();
    assert!(Places::open(&path).is_err());
    std::fs::write(&path, places::cities()).unwrap();
    let places = Places::open(&path).unwrap();
    assert!(!places.look().unwrap(), "it is the same");
    std::fs::write(&path, b"nothing of the kind").unwrap();
    assert!(places.look().is_err());
    let surface = Surface { proxies: "unix".parse().unwrap(), ..Surface::default() };
    let app = platform.app.clone().with(surface).locating(places.clone());
    let acme = platform.organization("acme").await;
    set(&app, &acme, VIENNA, &json!({ "countries_allowed": ["AT"] })).await.expect(200);
    from(&app, &acme.token, MUNICH).await.problem(403, "source_not_allowed", None);
    let moved = places::Placed {
        network: (std::net::Ipv4Addr::new(203, 0, 113, 16), 28),
        country: "AT",
        city: "Salzburg",
        spot: (47.8, 13.04, 10),
    };
    std::fs::write(&path, places::file(&[moved])).unwrap();
    assert!(places.look().unwrap());
    from(&app, &acme.token, MUNICH).await.expect(200);
}
