//! What was used under licenses, stated where nothing is connected, and what was revoked elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Duration, Utc};
use gantry_schema::licenses::claims::{ANY_INSTANCE, Claims, Delegation, Kind, VERSION};
use gantry_schema::licenses::revocations::{self, Revocations};
use gantry_schema::licenses::{SecretKey, chain, history, statements};
use gantry_schema::{LicenseId, OrganizationId};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::licenses::{give, install, limit, make_child, place};
use crate::support::{Actor, Api, Platform};

/// Notes what is used, as the job that watches licenses does.
async fn note(platform: &Platform, of: &Actor, license: &Value, used: u64) {
    let mut tx = platform.app.db.tenant(of.organization).await.unwrap();
    let usage = BTreeMap::from([("users".to_owned(), used)]);
    let limits = BTreeMap::from([("users".to_owned(), Some(10))]);
    history::note(&mut tx, license["id"].as_str().unwrap().parse().unwrap(), &usage, &limits).await.unwrap();
    tx.commit().await.unwrap();
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn of_each_day_the_most_is_listed_by_limit_license_and_time(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let license = give(&platform, &acme, json!({ "tier": "enterprise", "type": "perpetual" })).await;
    for used in [3, 7, 5] {
        note(&platform, &acme, &license, used).await;
    }
    platform.clock.advance(Duration::days(1));
    note(&platform, &acme, &license, 4).await;
    let second = give(&platform, &acme, json!({ "tier": "enterprise", "type": "perpetual" })).await;
    note(&platform, &acme, &second, 2).await;
    let path = format!("{}/usage", place(&acme));
    let list = async |query: &str| acme.get(&format!("{path}?{query}")).await.expect(200);
    let all = list("name=users&sort=created_at").await;
    let used = |page: &Value| -> Vec<u64> {
        page["items"].as_array().unwrap().iter().map(|item| item["used"].as_u64().unwrap()).collect()
    };
    assert_eq!(used(&all), [7, 4, 2]);
    assert_eq!((&all["items"][0]["day"], &all["items"][0]["most"]), (&json!("2026-01-15T00:00:00Z"), &json!(10)));
    assert_eq!(used(&list(&format!("license_id={}", second["id"].as_str().unwrap())).await), [2]);
    assert_eq!(used(&list("since=2026-01-16T00:00:00Z&sort=created_at").await), [4, 2]);
    assert_eq!(used(&list("until=2026-01-16T00:00:00Z").await), [7]);
    assert_eq!(used(&list("name=servers").await), [0_u64; 0]);
    // Page by page, in both directions.
    for (sort, expected) in [("created_at", [7, 4, 2]), ("-created_at", [2, 4, 7])] {
        let (mut seen, mut query) = (Vec::new(), format!("limit=1&sort={sort}"));
        loop {
            let page = list(&query).await;
            seen.extend(used(&page));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            query = format!("limit=1&sort={sort}&cursor={cursor}");
        }
        assert_eq!(seen, expected, "{sort}");
    }
    // It is kept for two years.
    platform.clock.advance(Duration::days(3 * 366));
    note(&platform, &acme, &second, 1).await;
    assert_eq!(used(&list("").await), [1]);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn statements_follow_one_another_and_are_believed_by_whoever_has_the_key(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let license = give(&platform, &acme, json!({ "tier": "enterprise", "type": "perpetual" })).await;
    let path = format!("{}/statements", place(&acme));
    note(&platform, &acme, &license, 7).await;
    let first = acme.post(&path, &json!({})).await.expect(201);
    note(&platform, &acme, &license, 9).await;
    platform.clock.advance(Duration::days(2));
    note(&platform, &acme, &license, 4).await;
    let second = acme.post(&path, &json!({})).await.expect(201);
    let text = |made: &Value| made["statement"].as_str().unwrap().to_owned();
    let texts = [text(&first), text(&second)];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    // The key of the record's checkpoints.
    let public: Vec<u8> =
        sqlx::query_scalar("select public_key from audit_keys").fetch_one(&platform.pool).await.unwrap();
    let key = gantry_schema::licenses::PublicKey::from_bytes(public.try_into().unwrap());
    let read = statements::verify(&texts, &[key]).unwrap();
    assert_eq!(read[1].prev.as_deref(), first["sha256"].as_str());
    assert_eq!(statements::highest(&read)["users"].used, 9, "what came later that day is in the next one");
    let listed = acme.get(&format!("{path}?sort=created_at")).await.expect(200);
    assert_eq!((&listed["items"][0], &listed["items"][1]), (&first, &second));
    // Another organization's are its own.
    let other = platform.organization("other").await;
    other.get(&path).await.problem(404, "not_found", None);
    assert_eq!(other.post(&format!("{}/statements", place(&other)), &json!({})).await.expect(201)["number"], 1);
}

/// A license that somebody signed elsewhere.
pub struct Vendor(pub SecretKey);

impl Vendor {
    pub fn claims(platform: &Platform, sub: OrganizationId, number: u64) -> Claims {
        let now = platform.app.db.now();
        Claims {
            ver: VERSION,
            jti: platform.app.db.ids().mint(),
            iss: "vendor".to_owned(),
            sub,
            aud: ANY_INSTANCE.to_owned(),
            iat: now,
            nbf: now,
            exp: Some(now + Duration::days(365)),
            typ: Kind::Subscription,
            tier: "custom".to_owned(),
            feat: BTreeSet::from(["api_access".to_owned(), "reselling".to_owned()]),
            lim: [("child_organizations".to_owned(), Some(5))].into(),
            dom: Vec::new(),
            grace: 7 * 86_400,
            deg: BTreeMap::new(),
            gra: BTreeSet::new(),
            seq: number,
            par: None,
            cld: None,
            off: None,
            epo: 0,
        }
    }

    pub fn sign(&self, claims: &Claims) -> Value {
        json!({ "key": chain::issue(None, claims, &self.0).unwrap() })
    }

    pub fn list(&self, made_at: DateTime<Utc>, number: u64, licenses: &[LicenseId]) -> Value {
        let rev = licenses.iter().copied().collect();
        let list = Revocations { ver: revocations::VERSION, iss: "vendor".to_owned(), iat: made_at, epo: number, rev };
        json!({ "list": list.sign(&self.0).unwrap() })
    }
}

async fn believing(pool: PgPool, vendors: &[&Vendor]) -> Platform {
    let mut platform = Platform::new(pool).await;
    platform.app = platform.app.clone().believing(vendors.iter().map(|vendor| vendor.0.public()).collect());
    platform.api = Api::of(&platform.app);
    platform
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_its_issuer_revoked_elsewhere_dies_with_the_list_and_does_not_come_back(pool: PgPool) {
    let (vendor, rival) = (Vendor(SecretKey::from_seed(&[7; 32])), Vendor(SecretKey::from_seed(&[8; 32])));
    let platform = believing(pool, &[&vendor, &rival]).await;
    let (acme, other) = (platform.organization("acme").await, platform.organization("other").await);
    let operator = platform.operator().await;
    // The API of another process.
    let process = Api::of(&platform.app.clone());
    let license = Vendor::claims(&platform, acme.organization, 1);
    operator.post(&install(&acme), &vendor.sign(&license)).await.expect(200);
    let others = Vendor::claims(&platform, other.organization, 1);
    operator.post(&install(&other), &vendor.sign(&others)).await.expect(200);
    make_child(&acme, "first").await.expect(201);
    let now = platform.app.db.now();
    // Nobody revokes what he did not give.
    let imported = operator.post("/license-revocations", &rival.list(now, 1, &[license.jti])).await.expect(200);
    assert_eq!(imported["organizations"], json!([]));
    assert_eq!(acme.get("/license").await.expect(200)["state"], "valid");
    let stranger = Vendor(SecretKey::from_seed(&[9; 32]));
    let unknown = operator.post("/license-revocations", &stranger.list(now, 1, &[license.jti])).await;
    unknown.problem(422, "invalid_field", Some("list"));
    acme.post("/license-revocations", &vendor.list(now, 7, &[])).await.problem(403, "forbidden", None);
    // The issuer does.
    let imported = operator.post("/license-revocations", &vendor.list(now, 7, &[license.jti])).await.expect(200);
    assert_eq!((&imported["added"], &imported["organizations"]), (&json!(1), &json!([acme.organization])));
    let new = json!({ "name": "second" });
    let ask = acme.request(poem::http::Method::POST, "/organizations", Some(poem::Body::from_string(new.to_string())));
    process.send(ask).await.problem(409, "license_state", None);
    assert_eq!(acme.get("/license").await.expect(200)["state"], "revoked");
    assert_eq!(other.get("/license").await.expect(200)["state"], "valid");
    // An older list does not come back, nor does what was revoked, by a list that does not name it or by its key.
    for number in [6, 7] {
        operator.post("/license-revocations", &vendor.list(now, number, &[])).await.problem(409, "wrong_state", None);
    }
    operator.post("/license-revocations", &vendor.list(now, 8, &[])).await.expect(200);
    let again = operator.post(&install(&acme), &vendor.sign(&license)).await;
    again.problem(422, "invalid_field", Some("key"));
    let listed = operator.get("/license-revocations").await.expect(200);
    assert_eq!((&listed[0]["licenses"], &listed[0]["number"]), (&json!(1), &json!(8)));
    // One whose issuer has revoked others since waits for his list.
    let newer = Claims { epo: 9, ..Vendor::claims(&platform, acme.organization, 2) };
    operator.post(&install(&acme), &vendor.sign(&newer)).await.problem(409, "wrong_state", None);
    operator.post("/license-revocations", &vendor.list(now, 9, &[])).await.expect(200);
    operator.post(&install(&acme), &vendor.sign(&newer)).await.expect(200);
    make_child(&acme, "second").await.expect(201);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_was_made_of_a_revoked_license_dies_with_it(pool: PgPool) {
    let vendor = Vendor(SecretKey::from_seed(&[7; 32]));
    let platform = believing(pool, &[&vendor]).await;
    // The reseller is not on this platform; his customer's license is made of his.
    let customer = platform.organization("customer").await;
    let operator = platform.operator().await;
    let resold = SecretKey::from_seed(&[3; 32]);
    let above = Claims {
        cld: Some(Delegation { key: resold.public(), depth: 1, lim: BTreeMap::new(), dom: Vec::new() }),
        ..Vendor::claims(&platform, OrganizationId::PLATFORM, 1)
    };
    let own = Claims { par: Some(above.jti), ..Vendor::claims(&platform, customer.organization, 1) };
    let top = chain::issue(None, &above, &vendor.0).unwrap();
    let key = chain::issue(Some(&top), &own, &resold).unwrap();
    operator.post(&install(&customer), &json!({ "key": key })).await.expect(200);
    make_child(&customer, "first").await.expect(201);
    let now = platform.app.db.now();
    let imported = operator.post("/license-revocations", &vendor.list(now, 1, &[above.jti])).await.expect(200);
    assert_eq!(imported["organizations"], json!([customer.organization]));
    assert_eq!(customer.get("/license").await.expect(200)["state"], "revoked");
    make_child(&customer, "second").await.problem(409, "license_state", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn without_news_a_license_goes_on_as_long_as_it_allows_and_a_list_is_news(pool: PgPool) {
    let vendor = Vendor(SecretKey::from_seed(&[7; 32]));
    let platform = believing(pool, &[&vendor]).await;
    let acme = platform.organization("acme").await;
    let operator = platform.operator().await;
    let license = Claims { off: Some(30 * 86_400), ..Vendor::claims(&platform, acme.organization, 1) };
    operator.post(&install(&acme), &vendor.sign(&license)).await.expect(200);
    let mut number = 0;
    let mut after = async |days, state: &str, grows: bool| {
        platform.clock.advance(Duration::days(days));
        assert_eq!(acme.get("/license").await.expect(200)["state"], state);
        number += 1;
        let made = make_child(&acme, &format!("child {number}")).await;
        assert_eq!(made.status.as_u16(), if grows { 201 } else { 409 }, "{}", made.text);
    };
    after(29, "valid", true).await;
    after(2, "grace", true).await;
    after(7, "expired", false).await;
    let news = vendor.list(platform.app.db.now(), 1, &[]);
    operator.post("/license-revocations", &news).await.expect(200);
    after(0, "valid", true).await;
    let usage = acme.get(&format!("{}/usage", place(&acme))).await.expect(200);
    assert_eq!(usage["items"], json!([]));
    give(&platform, &acme, json!({ "tier": "enterprise", "type": "perpetual", "limits": [limit("users", 3)] })).await;
}
