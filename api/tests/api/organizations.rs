//! The tree of organizations as callers see it.

use chrono::TimeDelta;
use gantry_schema::memberships::Role;
use gantry_schema::organizations::Permission;
use poem::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Actor, Api, Platform};

fn path(organization: &Actor, rest: &str) -> String {
    format!("/organizations/{}{rest}", organization.organization)
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_organization_gets_a_type_and_a_slug_and_is_changed_when_nobody_else_has(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let hosting = platform.organization("Hosting").await;
    let made = hosting.post("/organizations", &json!({ "name": "Acme & Söhne" })).await.expect(201);
    assert_eq!(
        (&made["type"], &made["slug"], &made["state"]),
        (&json!("master_branch"), &json!("acme-s-hne"), &json!("active"))
    );
    let same = hosting.post("/organizations", &json!({ "name": "Acme & Söhne", "type": "end_user" })).await.expect(201);
    assert!(same["slug"].as_str().unwrap().starts_with("acme-s-hne-"), "{same}");
    let taken = json!({ "name": "x", "slug": "acme-s-hne" });
    hosting.post("/organizations", &taken).await.problem(409, "name_taken", Some("slug"));
    hosting.post("/organizations", &json!({ "name": "x", "slug": "Not a slug" })).await.problem(
        422,
        "invalid_field",
        Some("slug"),
    );
    hosting.post("/organizations", &json!({ "name": "x", "type": "top_branch" })).await.problem(
        409,
        "wrong_place",
        Some("parent_id"),
    );
    let below = json!({ "name": "x", "parent_id": same["id"] });
    hosting.post("/organizations", &below).await.problem(409, "wrong_place", Some("parent_id"));

    let path = format!("/organizations/{}", made["id"].as_str().unwrap());
    let seen = hosting.get(&path).await;
    let request = |tag: &str, body: Value| {
        let mut request = hosting.request(Method::PATCH, &path, Some(body.to_string().into()));
        request.headers_mut().insert("If-Match", tag.parse().unwrap());
        request
    };
    let changed = hosting.send_as_is(request(seen.header("etag"), json!({ "name": "Acme", "slug": "acme" }))).await;
    let tag = changed.header("etag").to_owned();
    let changed = changed.expect(200);
    assert_eq!((&changed["name"], &changed["slug"]), (&json!("Acme"), &json!("acme")));
    hosting.send_as_is(request(seen.header("etag"), json!({ "name": "x" }))).await.problem(
        412,
        "precondition_failed",
        Some("If-Match"),
    );
    let changed = hosting.send_as_is(request(&tag, json!({ "type": "sub_user" }))).await.expect(200);
    assert_eq!(changed["type"], "sub_user");
    hosting.patch(&path, &json!({ "type": "platform" })).await.problem(409, "wrong_place", Some("type"));
    hosting.patch(&path, &json!({ "weight": 9 })).await.problem(403, "forbidden", None);
    hosting.patch(&path, &json!({ "parent_id": made["id"] })).await.problem(422, "invalid_field", Some("parent_id"));
    let operator = platform.operator().await;
    assert_eq!(operator.patch(&path, &json!({ "weight": 9, "max_running": 3 })).await.expect(200)["weight"], 9);
    assert_eq!(operator.patch(&path, &json!({ "max_running": null })).await.expect(200).get("max_running"), None);

    // Its own name an organization changes itself, its type it does not.
    let own = format!("/organizations/{}", hosting.organization);
    assert_eq!(hosting.patch(&own, &json!({ "name": "Hosting AG" })).await.expect(200)["name"], "Hosting AG");
    hosting.patch(&own, &json!({ "type": "sub_user" })).await.problem(403, "forbidden", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_tree_is_seen_level_by_level_with_what_everybody_has(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let hosting = platform.organization("hosting").await;
    let shop = platform.below(hosting.organization, "shop").await;
    let leaf = platform.below(shop.organization, "leaf").await;
    let other = platform.organization("other").await;
    leaf.post("/webhook-endpoints", &json!({ "url": "https://leaf.example/" })).await.expect(201);

    let tree = hosting.get(&path(&hosting, "/tree")).await.expect(200);
    let nodes: Vec<(i64, &str, Value)> = tree["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| {
            let counts = &node["counts"];
            let of = |kind: &str| json!([counts[kind]["own"], counts[kind]["total"]]);
            let counts = json!([of("organizations"), of("webhook_endpoints"), of("api_keys")]);
            (node["depth"].as_i64().unwrap(), node["organization"]["name"].as_str().unwrap(), counts)
        })
        .collect();
    assert_eq!(
        nodes,
        [
            (0, "hosting", json!([[1, 2], [0, 1], [1, 3]])),
            (1, "shop", json!([[1, 1], [0, 1], [1, 2]])),
            (2, "leaf", json!([[0, 0], [1, 1], [1, 1]])),
        ]
    );
    let names = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap();
        items.iter().map(|node| node["organization"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&hosting.get(&path(&hosting, "/tree?depth=1")).await.expect(200)), ["hosting", "shop"]);
    assert_eq!(names(&hosting.get(&path(&shop, "/tree")).await.expect(200)), ["shop", "leaf"]);
    let first = hosting.get(&path(&hosting, "/tree?limit=2")).await.expect(200);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = hosting.get(&path(&hosting, &format!("/tree?limit=2&cursor={cursor}"))).await.expect(200);
    assert_eq!(
        (names(&first), names(&second)),
        (vec!["hosting".to_owned(), "shop".to_owned()], vec!["leaf".to_owned()])
    );
    hosting.get(&path(&hosting, "/tree?depth=-1")).await.problem(400, "invalid_parameter", Some("depth"));
    hosting.get(&path(&shop, &format!("/tree?cursor={cursor}"))).await.problem(
        400,
        "invalid_parameter",
        Some("cursor"),
    );
    for (actor, of) in [(&other, &hosting), (&shop, &hosting), (&leaf, &shop)] {
        actor.get(&path(of, "/tree")).await.problem(404, "not_found", None);
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_organization_is_moved_by_one_above_both_places(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let hosting = platform.organization("hosting").await;
    let (one, two) =
        (platform.below(hosting.organization, "one").await, platform.below(hosting.organization, "two").await);
    let leaf = platform.below(one.organization, "leaf").await;
    let other = platform.organization("other").await;
    let to = |place: &Actor| json!({ "parent_id": place.organization });
    let moved = hosting.post(&path(&leaf, "/move"), &to(&two)).await.expect(200);
    assert_eq!(moved["parent_id"], json!(two.organization));
    one.get(&path(&leaf, "")).await.problem(404, "not_found", None);
    two.get(&path(&leaf, "")).await.expect(200);
    assert_eq!(hosting.post(&path(&leaf, "/move"), &to(&two)).await.expect(200)["parent_id"], json!(two.organization));
    hosting.post(&path(&one, "/move"), &to(&two)).await.expect(200);
    hosting.post(&path(&two, "/move"), &to(&one)).await.problem(409, "wrong_place", Some("parent_id"));
    hosting.post(&path(&two, "/move"), &to(&two)).await.problem(409, "wrong_place", Some("parent_id"));
    hosting.post(&path(&two, "/move"), &to(&leaf)).await.problem(409, "wrong_place", Some("parent_id"));
    hosting.post(&path(&leaf, "/move"), &to(&other)).await.problem(404, "not_found", Some("parent_id"));
    hosting.post(&path(&hosting, "/move"), &to(&other)).await.problem(403, "forbidden", None);
    other.post(&path(&leaf, "/move"), &to(&other)).await.problem(404, "not_found", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_organization_is_suspended_from_above_only(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let hosting = platform.organization("hosting").await;
    let shop = platform.below(hosting.organization, "shop").await;
    let leaf = platform.below(shop.organization, "leaf").await;
    let why = json!({ "reason": "Unpaid since March" });
    for bad in ["", " ", &"x".repeat(501)] {
        let body = json!({ "reason": bad });
        hosting.post(&path(&shop, "/suspend"), &body).await.problem(422, "invalid_field", Some("reason"));
    }
    let suspended = hosting.post(&path(&shop, "/suspend"), &why).await.expect(200);
    assert_eq!(suspended["state"], "suspended");
    assert_eq!((&suspended["held_by"], &suspended["suspended_reason"]), (&json!(shop.organization), &why["reason"]));
    let below = hosting.get(&path(&leaf, "")).await.expect(200);
    assert_eq!((&below["state"], &below["held_by"]), (&json!("suspended"), &json!(shop.organization)));
    assert_eq!(below.get("suspended_reason"), None);
    assert_eq!(hosting.post(&path(&shop, "/suspend"), &why).await.expect(200), suspended);
    hosting.post(&path(&hosting, "/suspend"), &why).await.problem(403, "forbidden", None);
    let resumed = hosting.post(&path(&shop, "/resume"), &json!({})).await.expect(200);
    assert_eq!((&resumed["state"], resumed.get("held_by")), (&json!("active"), None));
    leaf.get("/jobs").await.expect(200);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_organization_is_deleted_when_nothing_needs_it_and_restored(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let hosting = platform.organization("hosting").await;
    let shop = platform.below(hosting.organization, "shop").await;
    let leaf = platform.below(shop.organization, "leaf").await;
    let schedule = json!({ "name": "daily", "kind": "diagnostics.probe", "cron": "@daily" });
    let schedule = shop.post("/schedules", &schedule).await.expect(201)["id"].as_str().unwrap().to_owned();
    let refused = hosting.delete(&path(&shop, "")).await.problem(409, "in_use", None);
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("1 organizations") && detail.contains("1 schedules"), "{detail}");
    hosting.delete(&path(&shop, "?children=reparent")).await.problem(409, "in_use", None);
    assert_eq!(
        hosting.get(&path(&leaf, "")).await.expect(200)["parent_id"],
        json!(shop.organization),
        "nothing was moved"
    );
    shop.post(&format!("/schedules/{schedule}/pause"), &json!({})).await.expect(200);
    hosting.delete(&path(&shop, "?children=reparent")).await.expect(204);
    assert_eq!(hosting.get(&path(&leaf, "")).await.expect(200)["parent_id"], json!(hosting.organization));
    hosting.delete(&path(&shop, "")).await.problem(404, "not_found", None);
    let list = hosting.get("/organizations").await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    assert_eq!(hosting.get(&path(&shop, "")).await.expect(200)["state"], "deleted");
    hosting.post("/organizations", &json!({ "name": "x", "parent_id": shop.organization })).await.problem(
        404,
        "not_found",
        Some("parent_id"),
    );

    assert_eq!(hosting.post(&path(&shop, "/restore"), &json!({})).await.expect(200)["state"], "active");
    assert_eq!(hosting.post(&path(&shop, "/restore"), &json!({})).await.expect(200)["state"], "active");
    hosting.delete(&path(&shop, "")).await.expect(204);
    platform.clock.advance(TimeDelta::days(30));
    hosting.post(&path(&shop, "/restore"), &json!({})).await.problem(409, "wrong_state", None);
    let other = platform.organization("other").await;
    other.post(&path(&leaf, "/restore"), &json!({})).await.problem(404, "not_found", None);
    // One that has nobody below it may delete itself; the platform may not.
    leaf.delete(&path(&leaf, "")).await.expect(204);
    let operator = platform.operator().await;
    operator.delete(&path(&operator, "?children=reparent")).await.problem(403, "forbidden", None);
    operator.delete(&path(&operator, "")).await.problem(403, "forbidden", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn settings_say_where_they_come_from_and_what_is_enforced_above_stays(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let hosting = platform.organization("hosting").await;
    let shop = platform.below(hosting.organization, "shop").await;
    let setting = |settings: &Value, name: &str| {
        settings["settings"].as_array().unwrap().iter().find(|setting| setting["name"] == name).unwrap().clone()
    };
    let own = path(&hosting, "/settings");
    let change = json!({ "set": { "brand.name": "Hosting AG", "brand.primary_color": "#112233" }, "enforce": { "brand.name": true } });
    let changed = hosting.patch(&own, &change).await.expect(200);
    let name = setting(&changed, "brand.name");
    assert_eq!(
        (&name["value"], &name["origin"], &name["enforces"]),
        (&json!("Hosting AG"), &json!("own"), &json!(true))
    );
    assert_eq!(setting(&changed, "time_zone")["origin"], "default");

    let below = shop.get(&path(&shop, "/settings")).await.expect(200);
    let name = setting(&below, "brand.name");
    assert_eq!((&name["origin"], &name["set_by"]), (&json!("enforced"), &json!(hosting.organization)));
    assert_eq!(setting(&below, "brand.primary_color")["origin"], "inherited");
    assert_eq!(hosting.get(&path(&shop, "/settings")).await.expect(200), below);

    let below = path(&shop, "/settings");
    shop.patch(&below, &json!({ "set": { "brand.name": "Shop" } })).await.problem(
        403,
        "forbidden",
        Some("set.brand.name"),
    );
    let overridden = shop.patch(&below, &json!({ "set": { "brand.primary_color": "#445566" } })).await.expect(200);
    assert_eq!(setting(&overridden, "brand.primary_color")["origin"], "own");
    let inherited = shop.patch(&below, &json!({ "unset": ["brand.primary_color"] })).await.expect(200);
    assert_eq!(setting(&inherited, "brand.primary_color")["value"], "#112233");

    for (body, field) in [
        (json!({ "set": { "brand.unknown": "x" } }), "set.brand.unknown"),
        (json!({ "set": { "brand.primary_color": "red" } }), "set.brand.primary_color"),
        (json!({ "set": { "time_zone": "Mars/Olympus" } }), "set.time_zone"),
        (json!({ "unset": ["nothing"] }), "unset[0]"),
        (json!({ "set": { "time_zone": "UTC" }, "unset": ["time_zone"] }), "unset[0]"),
        (json!({ "enforce": { "language": true } }), "enforce.language"),
    ] {
        shop.patch(&below, &body).await.problem(422, "invalid_field", Some(field));
    }
    // Whoever stands above sets it up; once it has a member, he only sees it.
    hosting.patch(&below, &json!({ "set": { "language": "fr" } })).await.expect(200);
    platform.join(platform.person("ada@example.com").await, shop.organization, Role::Owner).await;
    let refused = hosting.patch(&below, &json!({ "set": { "language": "de" } })).await.problem(403, "forbidden", None);
    assert_eq!(refused["reason"], "above");
    shop.patch(&own, &json!({ "set": { "language": "de" } })).await.problem(404, "not_found", None);
    let powerless = platform.key(shop.organization, &[Permission::ReadOrganizations]).await;
    powerless.patch(&below, &json!({ "set": { "language": "de" } })).await.problem(403, "forbidden", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_host_name_is_one_label_before_the_base_domain_and_one_organizations(pool: PgPool) {
    let mut platform = Platform::new(pool).await;
    let host = |host: &str| json!({ "host": host });
    let app = platform.app.clone();
    platform.api = Api::of(&app.clone().under(None));
    let acme = platform.organization("acme").await;
    acme.post(&path(&acme, "/hosts"), &host("acme.cloud.example")).await.problem(409, "wrong_state", None);
    platform.api = Api::of(&app);
    let (acme, other) = (platform.organization("acme 2").await, platform.organization("other").await);
    let hosts = path(&acme, "/hosts");
    assert_eq!(acme.post(&hosts, &host("ACME.cloud.example")).await.expect(201)["host"], "acme.cloud.example");
    acme.post(&hosts, &host("acme.cloud.example")).await.expect(201);
    other.post(&path(&other, "/hosts"), &host("acme.cloud.example")).await.problem(409, "name_taken", Some("host"));
    for bad in [
        "cloud.example",
        "evilcloud.example",
        "a.b.cloud.example",
        "a.example",
        "-a.cloud.example",
        "a\u{0}.cloud.example",
    ] {
        acme.post(&hosts, &host(bad)).await.problem(422, "invalid_field", Some("host"));
    }
    assert_eq!(acme.get(&hosts).await.expect(200).as_array().unwrap().len(), 1);
    other.delete(&format!("{}/acme.cloud.example", path(&other, "/hosts"))).await.problem(404, "not_found", None);
    acme.delete(&format!("{hosts}/acme.cloud.example")).await.expect(204);
    other.post(&path(&other, "/hosts"), &host("acme.cloud.example")).await.expect(201);
    for number in 1..20 {
        other.post(&path(&other, "/hosts"), &host(&format!("n{number}.cloud.example"))).await.expect(201);
    }
    other.post(&path(&other, "/hosts"), &host("n20.cloud.example")).await.problem(409, "too_many", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn changes_of_the_tree_are_told_to_whoever_made_them(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let hosting = platform.organization("hosting").await;
    let (one, two) =
        (platform.below(hosting.organization, "one").await, platform.below(hosting.organization, "two").await);
    hosting.patch(&path(&one, ""), &json!({ "name": "One" })).await.expect(200);
    hosting.post(&path(&one, "/move"), &json!({ "parent_id": two.organization })).await.expect(200);
    hosting.post(&path(&one, "/suspend"), &json!({ "reason": "x" })).await.expect(200);
    hosting.post(&path(&one, "/resume"), &json!({})).await.expect(200);
    hosting.delete(&path(&one, "")).await.expect(204);
    hosting.post(&path(&one, "/restore"), &json!({})).await.expect(200);
    hosting.patch(&path(&hosting, "/settings"), &json!({ "set": { "language": "de" } })).await.expect(200);
    let events = hosting.get("/events").await.expect(200);
    let mut told: Vec<&str> =
        events["items"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            "organization.deleted",
            "organization.moved",
            "organization.restored",
            "organization.resumed",
            "organization.settings_changed",
            "organization.suspended",
            "organization.updated",
        ]
    );
    assert_eq!(two.get("/events").await.expect(200)["items"], json!([]));
}
