//! Where a request acts: by its key or token, by `X-Organization-Id`, by its host name; and what is refused there.

use gantry_schema::memberships::Role;
use gantry_schema::organizations::Permission;
use poem::Body;
use poem::http::Method;
use serde_json::json;
use sqlx::PgPool;

use crate::support::{Actor, Answer, Platform};

async fn asked(actor: &Actor, method: Method, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
    let mut request = actor.request(method, path, body.map(|body| Body::from_string(body.to_owned())));
    for (name, value) in headers {
        request.headers_mut().append(
            poem::http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
            poem::http::HeaderValue::from_str(value).unwrap(),
        );
    }
    actor.send_as_is(request).await
}

const PROBE: &str = r#"{"kind": "diagnostics.probe"}"#;

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn whoever_stands_above_reads_and_acts_only_with_support(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let hosting = platform.organization("hosting").await;
    let acme = platform.below(hosting.organization, "acme").await;
    let owner = platform.member("owner@example.com", acme.organization, Role::Owner).await;
    let id = acme.organization.to_string();
    let there = [("X-Organization-Id", id.as_str())];
    let job = acme.probe(None).await;

    let path = format!("/jobs/{job}");
    hosting.get(&path).await.problem(404, "not_found", None);
    asked(&hosting, Method::GET, &path, &there, None).await.expect(200);
    let refused = asked(&hosting, Method::POST, "/jobs", &there, Some(PROBE)).await.problem(403, "forbidden", None);
    assert_eq!(refused["reason"], "above");

    let support = format!("/organizations/{id}/support");
    let ticket = json!({ "reason": "Ticket 4711", "minutes": 30, "permissions": ["jobs:write"] });
    let given = hosting.post(&support, &ticket).await.expect(201);
    asked(&hosting, Method::POST, "/jobs", &there, Some(PROBE)).await.expect(202);
    let schedules = asked(&hosting, Method::POST, "/schedules", &there, Some("{}")).await;
    assert_eq!(schedules.problem(403, "forbidden", None)["reason"], "support");
    // It is his who took it, and nobody else's of his organization.
    let colleague = platform.key(hosting.organization, Permission::ALL).await;
    let refused = asked(&colleague, Method::POST, "/jobs", &there, Some(PROBE)).await;
    assert_eq!(refused.problem(403, "forbidden", None)["reason"], "above");

    // Its people see it, and end it.
    let seen = owner.get(&support).await.expect(200);
    assert_eq!((&seen["items"][0]["id"], &seen["items"][0]["reason"]), (&given["id"], &json!("Ticket 4711")));
    let ended = owner.delete(&format!("{support}/{}", given["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(ended["ended_by"], format!("person:{}", owner.id));
    let refused = asked(&hosting, Method::POST, "/jobs", &there, Some(PROBE)).await;
    assert_eq!(refused.problem(403, "forbidden", None)["reason"], "above");

    // It ends by itself as well.
    hosting.post(&support, &ticket).await.expect(201);
    asked(&hosting, Method::POST, "/jobs", &there, Some(PROBE)).await.expect(202);
    platform.clock.advance(chrono::Duration::minutes(30));
    let refused = asked(&hosting, Method::POST, "/jobs", &there, Some(PROBE)).await;
    assert_eq!(refused.problem(403, "forbidden", None)["reason"], "above");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn support_is_taken_below_and_never_for_more_than_one_may(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let (hosting, globex) = (platform.organization("hosting").await, platform.organization("globex").await);
    let acme = platform.below(hosting.organization, "acme").await;
    let path = |of: &Actor| format!("/organizations/{}/support", of.organization);
    let ticket = json!({ "reason": "x", "permissions": ["jobs:write"] });
    hosting.post(&path(&globex), &ticket).await.problem(404, "not_found", None);
    acme.post(&path(&hosting), &ticket).await.problem(404, "not_found", None);
    hosting.post(&path(&hosting), &ticket).await.problem(403, "forbidden", None);
    let narrow = platform.key(hosting.organization, &[Permission::GiveSupport]).await;
    narrow.post(&path(&acme), &ticket).await.problem(403, "forbidden", Some("permissions[0]"));
    let everything = json!({ "reason": "x", "permissions": ["platform:operate"] });
    platform.operator().await.post(&path(&acme), &everything).await.problem(
        422,
        "invalid_field",
        Some("permissions[0]"),
    );
    for (wrong, field) in [
        (json!({ "reason": " ", "permissions": ["jobs:write"] }), "reason"),
        (json!({ "reason": "x", "permissions": [] }), "permissions"),
        (json!({ "reason": "x", "permissions": ["jobs:write"], "minutes": 1441 }), "minutes"),
    ] {
        hosting.post(&path(&acme), &wrong).await.problem(422, "invalid_field", Some(field));
    }
    // Of one beside it nothing is seen.
    hosting.post(&path(&acme), &ticket).await.expect(201);
    globex.get(&path(&acme)).await.problem(404, "not_found", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_organization_that_is_not_below_is_not_there_and_a_wrong_header_is_refused(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let (acme, globex) = (platform.organization("acme").await, platform.organization("globex").await);
    let (mine, theirs) = (acme.organization.to_string(), globex.organization.to_string());
    let field = Some("X-Organization-Id");
    let with = async |headers: &[(&str, &str)]| asked(&acme, Method::GET, "/jobs", headers, None).await;
    with(&[("X-Organization-Id", &mine)]).await.expect(200);
    with(&[("X-Organization-Id", &theirs)]).await.problem(404, "not_found", field);
    let nobodys = "org_01h455vb4pex5vsknk084sn02q";
    with(&[("X-Organization-Id", nobodys)]).await.problem(404, "not_found", field);
    let platforms = gantry_schema::OrganizationId::PLATFORM.to_string();
    with(&[("X-Organization-Id", &platforms)]).await.problem(404, "not_found", field);
    with(&[("X-Organization-Id", "acme")]).await.problem(400, "invalid_parameter", field);
    let twice = [("X-Organization-Id", mine.as_str()), ("X-Organization-Id", mine.as_str())];
    with(&twice).await.problem(400, "invalid_parameter", field);

    // A person acts where she is a member.
    let ada = platform.member("ada@example.com", acme.organization, Role::Viewer).await;
    platform.join(ada.id, globex.organization, Role::Owner).await;
    let get = async |of: &str| {
        let bearer = Actor::bearing(&platform.api, acme.organization, &ada.access_token);
        asked(&bearer, Method::GET, "/me", &[("X-Organization-Id", of)], None).await
    };
    assert_eq!(get(&theirs).await.expect(200)["role"], "owner");
    get(nobodys).await.problem(404, "not_found", field);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_host_name_leads_to_its_organization_and_those_below_it(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let hosting = platform.organization("hosting").await;
    let (acme, globex) = (platform.below(hosting.organization, "acme").await, platform.organization("globex").await);
    let host = json!({ "host": "hosting.cloud.example" });
    hosting.post(&format!("/organizations/{}/hosts", hosting.organization), &host).await.expect(201);
    let by = async |actor: &Actor, host: &str| asked(actor, Method::GET, "/jobs", &[("Host", host)], None).await;
    for fits in ["hosting.cloud.example", "HOSTING.cloud.example.:8080", "cloud.example", "evilcloud.example"] {
        by(&hosting, fits).await.expect(200);
        by(&acme, fits).await.expect(200);
    }
    let refused = by(&globex, "hosting.cloud.example").await.problem(403, "forbidden", Some("Host"));
    assert_eq!(refused["reason"], "wrong_host");
    by(&hosting, "nobody.cloud.example").await.problem(421, "unknown_host", Some("Host"));
    by(&hosting, "a.hosting.cloud.example").await.problem(421, "unknown_host", Some("Host"));
    // The header and the host have to fit each other, too.
    let id = acme.organization.to_string();
    let headers = [("Host", "hosting.cloud.example"), ("X-Organization-Id", id.as_str())];
    asked(&hosting, Method::GET, "/jobs", &headers, None).await.expect(200);
    let theirs = json!({ "host": "globex.cloud.example" });
    globex.post(&format!("/organizations/{}/hosts", globex.organization), &theirs).await.expect(201);
    let headers = [("Host", "globex.cloud.example"), ("X-Organization-Id", id.as_str())];
    asked(&hosting, Method::GET, "/jobs", &headers, None).await.problem(403, "forbidden", Some("Host"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn nothing_is_done_for_a_suspended_or_deleted_organization_and_the_reason_is_said(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let hosting = platform.organization("hosting").await;
    let acme = platform.below(hosting.organization, "acme").await;
    let operator = platform.operator().await;
    acme.get("/jobs").await.expect(200);
    let path = |of: &Actor, rest: &str| format!("/organizations/{}{rest}", of.organization);
    operator.post(&path(&hosting, "/suspend"), &json!({ "reason": "Unpaid since March" })).await.expect(200);
    let refused = hosting.get("/jobs").await.problem(403, "forbidden", None);
    assert_eq!(refused["reason"], "organization_suspended");
    assert!(refused["detail"].as_str().unwrap().contains("Unpaid since March"), "{refused}");
    let refused = acme.get("/jobs").await.problem(403, "forbidden", None);
    assert_eq!(refused["reason"], "organization_suspended");
    assert!(!refused["detail"].as_str().unwrap().contains("Unpaid"), "what is said of one above is not theirs to know");
    // Whoever stands above goes on.
    let id = acme.organization.to_string();
    asked(&operator, Method::GET, "/jobs", &[("X-Organization-Id", &id)], None).await.expect(200);
    operator.post(&path(&hosting, "/resume"), &json!({})).await.expect(200);
    acme.get("/jobs").await.expect(200);
    hosting.delete(&path(&acme, "")).await.expect(204);
    assert_eq!(acme.get("/jobs").await.problem(403, "forbidden", None)["reason"], "organization_deleted");
    hosting.post(&path(&acme, "/restore"), &json!({})).await.expect(200);
    acme.get("/jobs").await.expect(200);
}
