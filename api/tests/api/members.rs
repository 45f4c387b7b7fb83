//! Members, roles, and why somebody may do something or not.

use gantry_schema::memberships::{Role, members};
use gantry_schema::organizations::Permission;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Actor, Human, Platform};

fn path(of: &Actor, rest: &str) -> String {
    format!("/organizations/{}{rest}", of.organization)
}

async fn people(platform: &Platform, of: &Actor) -> [Human; 4] {
    [
        platform.member("owner@example.com", of.organization, Role::Owner).await,
        platform.member("admin@example.com", of.organization, Role::Admin).await,
        platform.member("member@example.com", of.organization, Role::Member).await,
        platform.member("viewer@example.com", of.organization, Role::Viewer).await,
    ]
}

async fn explained(asker: &Human, question: Value) -> (bool, Option<String>) {
    let answer = asker.post("/permissions/explain", &question).await.expect(200);
    (answer["allowed"].as_bool().unwrap(), answer["reason"].as_str().map(str::to_owned))
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn members_are_listed_with_what_they_may_do_given_other_roles_and_removed(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let [owner, admin, member, viewer] = people(&platform, &acme).await;
    let listed = viewer.get(&path(&acme, "/members")).await.expect(200);
    let roles: Vec<&str> = listed["items"].as_array().unwrap().iter().map(|it| it["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["owner", "admin", "member", "viewer"]);
    assert!(listed["items"][3]["permissions"].as_array().unwrap().contains(&json!("jobs:read")));

    let of = |human: &Human| path(&acme, &format!("/members/{}", human.id));
    let refused = member.patch(&of(&viewer), &json!({ "role": "member" })).await.problem(403, "forbidden", None);
    assert_eq!(refused["reason"], "role");
    let promoted = admin.patch(&of(&viewer), &json!({ "role": "member" })).await.expect(200);
    assert_eq!(promoted["role"], "member");
    viewer.post("/jobs", &json!({ "kind": "diagnostics.probe" })).await.expect(202);
    admin.patch(&of(&viewer), &json!({ "state": "suspended" })).await.expect(200);
    viewer.get("/jobs").await.problem(403, "forbidden", None);
    admin.delete(&of(&viewer)).await.expect(204);
    admin.delete(&of(&viewer)).await.problem(404, "not_found", None);
    let both = json!({ "role": "viewer", "role_id": "rol_01h455vb4pex5vsknk084sn02q" });
    owner.patch(&of(&member), &both).await.problem(422, "invalid_field", Some("role_id"));
    let unknown = json!({ "role_id": "rol_01h455vb4pex5vsknk084sn02q" });
    owner.patch(&of(&member), &unknown).await.problem(404, "not_found", Some("role_id"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn nobody_gives_or_takes_more_than_he_may_himself(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let [owner, admin, member, _] = people(&platform, &acme).await;
    let of = |human: &Human| path(&acme, &format!("/members/{}", human.id));
    for (person, change) in [(&member, json!({ "role": "owner" })), (&owner, json!({ "role": "viewer" }))] {
        let refused = admin.patch(&of(person), &change).await.problem(403, "forbidden", None);
        assert_eq!(refused["reason"], "escalation");
    }
    // Also not himself, nor by the role of another.
    let refused = admin.patch(&of(&admin), &json!({ "role": "owner" })).await.problem(403, "forbidden", None);
    assert_eq!(refused["reason"], "escalation");
    let refused = admin.delete(&of(&owner)).await.problem(403, "forbidden", None);
    assert_eq!(refused["reason"], "escalation");
    let deletes = json!({ "name": "Ender", "permissions": ["organizations:delete"] });
    let refused = admin.post(&path(&acme, "/roles"), &deletes).await.problem(403, "forbidden", None);
    assert_eq!(refused["reason"], "escalation");
    let ender = owner.post(&path(&acme, "/roles"), &deletes).await.expect(201);
    let gives = json!({ "role_id": ender["id"] });
    let refused = admin.patch(&of(&member), &gives).await.problem(403, "forbidden", None);
    assert_eq!(refused["reason"], "escalation");
    let id = ender["id"].as_str().unwrap();
    let widens = json!({ "permissions": ["jobs:read"] });
    let refused = admin.patch(&path(&acme, &format!("/roles/{id}")), &widens).await;
    assert_eq!(refused.problem(403, "forbidden", None)["reason"], "escalation", "what it allows is not his to take");
    // A key with every scope of the organization is not above its owner.
    let narrow = platform.key(acme.organization, &[Permission::ManageMembers, Permission::ReadJobs]).await;
    let refused = narrow.patch(&of(&member), &json!({ "role": "viewer" })).await.problem(403, "forbidden", None);
    assert_eq!(refused["reason"], "escalation");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_last_owner_stays_also_when_two_go_at_once(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let [owner, admin, ..] = people(&platform, &acme).await;
    let of = |human: &Human| path(&acme, &format!("/members/{}", human.id));
    owner.delete(&of(&owner)).await.problem(409, "last_owner", None);
    owner.patch(&of(&owner), &json!({ "role": "viewer" })).await.problem(409, "last_owner", None);
    owner.patch(&of(&owner), &json!({ "state": "suspended" })).await.problem(409, "last_owner", None);
    owner.patch(&of(&admin), &json!({ "role": "owner" })).await.expect(200);

    // Each removes himself, and neither has seen the other go.
    for _ in 0..5 {
        let mut transactions = Vec::new();
        for person in [owner.id, admin.id] {
            transactions.push((platform.app.db.tenant(acme.organization).await.unwrap(), person));
        }
        let goes = transactions.into_iter().map(async |(mut tx, person)| {
            members::remove(&mut tx, person).await?;
            tx.commit().await
        });
        let done = futures::future::join_all(goes).await;
        assert_eq!(done.iter().filter(|it| it.is_ok()).count(), 1, "{done:?}");
        let owners = "memberships where role = 'owner' and state = 'active'";
        assert_eq!(platform.count(owners).await, 1);
        let gone = if done[0].is_ok() { owner.id } else { admin.id };
        platform.join(gone, acme.organization, Role::Owner).await;
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn roles_of_ones_own_allow_what_they_list_from_one_second_to_the_next(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let [owner, _, member, _] = people(&platform, &acme).await;
    let roles = path(&acme, "/roles");
    let deployer = json!({ "name": "Deployer", "permissions": ["jobs:read", "jobs:write"] });
    let made = owner.post(&roles, &deployer).await.expect(201);
    owner.post(&roles, &json!({ "name": "DEPLOYER", "permissions": ["jobs:read"] })).await.problem(
        409,
        "name_taken",
        Some("name"),
    );
    let unknown = json!({ "name": "x", "permissions": ["jobs:read", "jobs:everything"] });
    owner.post(&roles, &unknown).await.problem(422, "invalid_field", Some("permissions[1]"));
    let id = made["id"].as_str().unwrap();
    let one = format!("{roles}/{id}");

    let of_member = path(&acme, &format!("/members/{}", member.id));
    let changed = owner.patch(&of_member, &json!({ "role_id": id })).await.expect(200);
    assert_eq!((changed["role"].as_str(), changed["role_name"].as_str()), (Some("custom"), Some("Deployer")));
    member.post("/jobs", &json!({ "kind": "diagnostics.probe" })).await.expect(202);
    member.get("/schedules").await.problem(403, "forbidden", None);
    owner.patch(&one, &json!({ "permissions": ["schedules:read"] })).await.expect(200);
    member.get("/schedules").await.expect(200);
    member.get("/jobs").await.problem(403, "forbidden", None);
    owner.delete(&one).await.problem(409, "in_use", None);
    owner.patch(&of_member, &json!({ "role": "viewer" })).await.expect(200);
    owner.delete(&one).await.expect(204);
    let listed = owner.get(&roles).await.expect(200);
    assert_eq!(listed["items"].as_array().unwrap().len(), 4);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_key_allows_what_its_scopes_and_its_owners_role_allow_now(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let [owner, admin, ..] = people(&platform, &acme).await;
    let scopes = json!({ "name": "ci", "scopes": ["jobs:read", "jobs:write", "schedules:write"] });
    let made = admin.post("/api-keys", &scopes).await.expect(201);
    let key = acme.with_token(made["token"].as_str().unwrap());
    key.get("/jobs").await.expect(200);
    assert_eq!(key.get("/webhook-endpoints").await.problem(403, "forbidden", None)["reason"], "scope");

    let of_admin = path(&acme, &format!("/members/{}", admin.id));
    owner.patch(&of_admin, &json!({ "role": "member" })).await.expect(200);
    key.get("/jobs").await.expect(200);
    let pause = key.post("/schedules", &json!({})).await.problem(403, "forbidden", None);
    assert_eq!(pause["reason"], "role", "a member makes no schedules, so neither does his key");
    owner.delete(&of_admin).await.expect(204);
    assert_eq!(key.get("/jobs").await.problem(403, "forbidden", None)["reason"], "owner_left");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn it_is_explained_why_somebody_may_do_something_or_not(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let [owner, _, member, viewer] = people(&platform, &acme).await;
    let key = owner.post("/api-keys", &json!({ "name": "ci", "scopes": ["jobs:read"] })).await.expect(201);
    let key = key["api_key"]["id"].as_str().unwrap();
    for (question, expected) in [
        (json!({ "subject": viewer.id, "operation": "askForJob" }), (false, Some("role"))),
        (json!({ "subject": viewer.id, "operation": "listJobs" }), (true, None)),
        (json!({ "subject": member.id, "permission": "jobs:write" }), (true, None)),
        (json!({ "subject": key, "operation": "askForJob" }), (false, Some("scope"))),
        (json!({ "subject": key, "permission": "platform:operate" }), (false, Some("platform_only"))),
        (json!({ "operation": "deleteOrganization" }), (true, None)),
    ] {
        let answer = explained(&owner, question.clone()).await;
        assert_eq!((answer.0, answer.1.as_deref()), expected, "{question}");
    }
    // Below: without members it is set up from above, with one it is read.
    let below = platform.below(acme.organization, "below").await;
    let there = json!({ "permission": "jobs:write", "organization_id": below.organization });
    assert_eq!(explained(&owner, there.clone()).await, (true, None));
    platform.member("theirs@example.com", below.organization, Role::Owner).await;
    assert_eq!(explained(&owner, there).await, (false, Some("above".to_owned())));

    let explain = async |question: Value| owner.post("/permissions/explain", &question).await;
    explain(json!({ "operation": "makeCoffee" })).await.problem(422, "invalid_field", Some("operation"));
    explain(json!({ "permission": "coffee:make" })).await.problem(422, "invalid_field", Some("permission"));
    explain(json!({})).await.problem(422, "invalid_field", Some("operation"));
    explain(json!({ "subject": "ada", "permission": "jobs:read" })).await.problem(
        422,
        "invalid_field",
        Some("subject"),
    );
    let globex = platform.organization("globex").await;
    let stranger = platform.member("eve@example.com", globex.organization, Role::Owner).await;
    let theirs = json!({ "subject": stranger.id, "permission": "jobs:read" });
    explain(theirs).await.problem(404, "not_found", Some("subject"));
    let theirs = json!({ "permission": "jobs:read", "organization_id": globex.organization });
    explain(theirs).await.problem(404, "not_found", Some("organization_id"));

    let catalogue = viewer.get("/permissions").await.expect(200);
    assert_eq!(catalogue["items"].as_array().unwrap().len(), Permission::ALL.len());
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_organization_is_told_of_its_members_and_roles(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let [owner, _, member, _] = people(&platform, &acme).await;
    let of = path(&acme, &format!("/members/{}", member.id));
    let role = json!({ "name": "Deployer", "permissions": ["jobs:read"] });
    let role = owner.post(&path(&acme, "/roles"), &role).await.expect(201)["id"].as_str().unwrap().to_owned();
    let of_role = path(&acme, &format!("/roles/{role}"));
    owner.patch(&of_role, &json!({ "permissions": ["jobs:read", "jobs:write"] })).await.expect(200);
    owner.patch(&of, &json!({ "role_id": role })).await.expect(200);
    // What stays as it is is told to nobody.
    owner.patch(&of, &json!({ "role_id": role })).await.expect(200);
    owner.patch(&of, &json!({ "state": "suspended" })).await.expect(200);
    owner.patch(&of, &json!({ "state": "active", "role": "viewer" })).await.expect(200);
    owner.delete(&of).await.expect(204);
    owner.delete(&of_role).await.expect(204);
    let page = acme.get("/events?limit=100&types=member.*,role.*").await.expect(200);
    let told: Vec<(&str, &Value)> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|event| (event["type"].as_str().unwrap(), &event["payload"]))
        .collect();
    let person = json!(member.id);
    let expected = [
        ("role.created", json!({ "role_id": role, "name": "Deployer", "permissions": ["jobs:read"] })),
        ("role.updated", json!({ "role_id": role, "name": "Deployer", "permissions": ["jobs:read", "jobs:write"] })),
        ("member.role_changed", json!({ "person_id": person, "role": "custom", "previous_role": "member" })),
        ("member.suspended", json!({ "person_id": person })),
        ("member.role_changed", json!({ "person_id": person, "role": "viewer", "previous_role": "custom" })),
        ("member.resumed", json!({ "person_id": person })),
        ("member.removed", json!({ "person_id": person, "reason": "removed" })),
        ("role.removed", json!({ "role_id": role })),
    ];
    let expected: Vec<(&str, &Value)> = expected.iter().map(|(kind, payload)| (*kind, payload)).collect();
    assert_eq!(told, expected);
}
