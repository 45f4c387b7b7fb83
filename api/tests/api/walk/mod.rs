//! A walk over every operation of the document, generated from it: without a key, with one that does not allow it, with
//! somebody else's ids, with everything that can be wrong with a request. A new operation is walked without a test of
//! its own.

mod ask;
mod audit;
mod furnish;
mod operation;
mod stored;
mod wrong;

use std::cmp::Reverse;
use std::collections::BTreeSet;

use futures::StreamExt as _;
use futures::stream;
use gantry_schema::PersonId;
use gantry_schema::memberships::Role;
use gantry_schema::organizations::Permission;
use poem::http::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::documented::DOCUMENT;
use crate::schema::resolve;
use crate::support::{Actor, Platform};
use ask::{Api, Ask};
use furnish::{come_so_far, furnish};
use operation::{OWN, Operation, Things, all, id_prefix, ids};
use stored::stored;

/// Requests under way at the same time.
const AT_ONCE: usize = 8;

/// Who asks for what: the operator of the installation for what concerns all of it, somebody else for the rest.
pub struct Callers {
    operator: Actor,
    actor: Actor,
    /// Somebody of the actor's organization.
    member: PersonId,
}

impl Callers {
    fn of(&self, operation: Operation) -> &str {
        // Whoever has no license himself gives none.
        let of_operator = [Permission::OperatePlatform, Permission::IssueLicenses];
        if of_operator.iter().any(|permission| operation.permissions().contains(permission)) {
            &self.operator.token
        } else {
            &self.actor.token
        }
    }
}

/// Operations that need no key are walked where it is said what they need, and those of people where people are.
fn skipped(operation: Operation) -> bool {
    operation.is_open() || operation.is_of_people()
}

/// What strangers send to become somebody: examples of what they know are nobody's.
pub const OF_STRANGERS: &[&str] = &[
    "signIn",
    "completeSignIn",
    "challengeSignIn",
    "signInByPasskey",
    "refreshSession",
    "signUp",
    "completeSignUp",
    "completeBootstrap",
    "requestPasswordReset",
    "completePasswordReset",
    "completeEmailChange",
    "signUpByInvitation",
    "sendSecondStepCode",
    "getErasure",
    "listAuditKeys",
];

/// What takes something that was signed, or kept, for the organization: no example is such.
const OF_ISSUERS: &[&str] = &["installLicense", "claimLicense", "importLicenseRevocations"];

/// What other examples use by the time it is to be removed, and is kept for that.
pub const IN_USE: &[&str] = &["removeCloudCredential", "removeSshKey"];

fn walked() -> Vec<Operation> {
    all().into_iter().filter(|operation| !skipped(*operation)).collect()
}

async fn scene(pool: PgPool) -> (Platform, Api, Callers) {
    let platform = Platform::new(pool).await;
    let (operator, actor) = (platform.operator().await, platform.organization("acme").await);
    let member = member(&platform, &actor, "ada@example.com").await;
    let api = Api(platform.api.clone());
    // That a key was used is noted, once a minute.
    for key in [&operator, &actor] {
        key.get("/organizations").await.expect(200);
    }
    (platform, api, Callers { operator, actor, member })
}

async fn member(platform: &Platform, of: &Actor, email: &str) -> PersonId {
    let person = platform.person(email).await;
    platform.join(person, of.organization, Role::Member).await;
    person
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn no_operation_lets_anybody_in_who_may_not(pool: PgPool) {
    let (platform, api, callers) = scene(pool).await;
    let (things, _) = furnish(&platform, &api, &callers).await;
    let everything_elsewhere = platform.key(callers.actor.organization, Permission::ALL).await;
    let before = stored(&platform.pool).await;
    let mut refused = 0;
    for operation in walked() {
        let (id, ask, needed) = (operation.id, operation.ask(&things), operation.permissions());
        api.send(&ask, None).await.problem(401, "unauthenticated", Some("Authorization"));
        assert!(!needed.is_empty(), "{id} does not say what it needs");
        // Everything but what it needs.
        let others: Vec<Permission> = Permission::ALL.iter().copied().filter(|one| !needed.contains(one)).collect();
        let powerless = platform.key(callers.actor.organization, &others).await;
        api.send(&ask, Some(&powerless.token)).await.problem(403, "forbidden", None);
        if needed.contains(&Permission::OperatePlatform) {
            api.send(&ask, Some(&everything_elsewhere.token)).await.problem(403, "forbidden", None);
        }
        refused += 1;
    }
    let mut after = stored(&platform.pool).await;
    // Keys that were made to ask with, and are counted.
    for table in ["api_keys", "organization_changes"] {
        after.insert(table.to_owned(), before[table]);
    }
    assert_eq!(after, before, "a refused request changed something");
    assert!(refused > 60, "{refused} operations walked");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_about_people_needs_a_person(pool: PgPool) {
    let (platform, api, callers) = scene(pool).await;
    let before = stored(&platform.pool).await;
    let mut refused = 0;
    for operation in all().into_iter().filter(|operation| operation.is_of_people()) {
        // Whatever it names is nobody's, and that is not what it is refused for.
        let prefixes = operation.ids_in_path().into_iter();
        let things: Things =
            prefixes.map(|prefix| (prefix.clone(), format!("{prefix}_01h455vb4pex5vsknk084sn02q"))).collect();
        let ask = operation.ask(&things);
        api.send(&ask, None).await.problem(401, "unauthenticated", Some("Authorization"));
        api.send(&ask, Some(&callers.operator.token)).await.problem(403, "forbidden", None);
        refused += 1;
    }
    assert_eq!(stored(&platform.pool).await, before, "a refused request changed something");
    assert!(refused > 8, "{refused} operations walked");
}

/// Those that were not done yet: what makes something comes first, what removes comes last, and what lies deeper before
/// what holds it.
fn in_order(done: &BTreeSet<&'static str>) -> Vec<Operation> {
    let left = |operation: &Operation| {
        let of_key = !operation.is_of_people() && !OF_STRANGERS.contains(&operation.id);
        of_key && !OF_ISSUERS.contains(&operation.id) && !done.contains(operation.id)
    };
    let mut operations: Vec<Operation> = all().into_iter().filter(left).collect();
    operations.sort_by_key(|operation| {
        let (makes, deletes) = (operation.method() == Method::PUT, operation.method() == Method::DELETE);
        (deletes, !makes, Reverse(if deletes { operation.path.len() } else { 0 }))
    });
    operations
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn every_example_is_accepted(pool: PgPool) {
    let (platform, api, callers) = scene(pool).await;
    let (things, done) = furnish(&platform, &api, &callers).await;
    for operation in in_order(&done) {
        come_so_far(&platform, operation).await;
        let ask = operation.ask(&things);
        let token = (!operation.is_open()).then(|| callers.of(operation));
        let answer = api.send(&ask, token).await;
        // Without Redis the platform is not ready, and says so.
        let in_use = IN_USE.contains(&operation.id) && answer.text.contains("\"in_use\"");
        let fine = answer.status.is_success() || operation.id == "ready" || in_use;
        assert!(fine, "{} does not accept its example: {} {}", operation.id, ask.said(), answer.text);
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_somebody_elses_is_not_there(pool: PgPool) {
    let (platform, api, acme) = scene(pool).await;
    let actor = platform.organization("other").await;
    let member = member(&platform, &actor, "eve@example.com").await;
    let other = Callers { operator: acme.operator.clone(), actor, member };
    let (of_acme, _) = furnish(&platform, &api, &acme).await;
    let (of_other, _) = furnish(&platform, &api, &other).await;
    let before = stored(&platform.pool).await;
    let (mut asked, mut seen) = ([0; 3], BTreeSet::new());
    for operation in walked().into_iter().filter(|it| !it.permissions().contains(&Permission::OperatePlatform)) {
        let own = operation.ask(&of_other);
        // In the path, each id alone, and all of them.
        let prefixes: BTreeSet<String> = operation.ids_in_path().into_iter().collect();
        for prefix in &prefixes {
            let mut mixed = of_other.clone();
            mixed.insert(prefix.clone(), of_acme[prefix].clone());
            if prefix == "org" {
                mixed.insert(OWN.to_owned(), of_acme[OWN].clone());
            }
            let mut ask = own.clone();
            ask.path = operation.ask(&mixed).path;
            api.send(&ask, Some(&other.actor.token)).await.problem(404, "not_found", None);
            asked[0] += 1;
        }
        for parameter in operation.parameters("query") {
            let Some(id) = id_prefix(&parameter["schema"]).and_then(|prefix| of_acme.get(&prefix)) else { continue };
            let ask = own.clone().query(parameter["name"].as_str().unwrap(), id);
            let answer = api.send(&ask, Some(&other.actor.token)).await;
            nothing_of(&of_acme, operation, &ask, &answer.text);
            let changes = operation.method() != Method::GET;
            assert!(answer.status == StatusCode::NOT_FOUND || !changes, "{}: {}", operation.id, answer.text);
            asked[1] += 1;
        }
        if let (Some(schema), Some(body)) = (operation.body_schema(), operation.example(&of_other)) {
            for (at, foreign) in with_foreign_ids(schema, &body, &of_acme) {
                let answer = api.send(&own.clone().json(&foreign), Some(&other.actor.token)).await;
                let refused = answer.status.is_client_error();
                assert!(refused, "{} takes somebody else's {at}: {}", operation.id, answer.text);
                asked[2] += 1;
            }
        }
        if operation.method() == Method::GET {
            let answer = api.send(&own, Some(&other.actor.token)).await;
            nothing_of(&of_acme, operation, &own, &answer.text);
            // Whose it is sees it, so that there is something not to be seen.
            let answer = api.send(&operation.ask(&of_acme), Some(&acme.actor.token)).await;
            seen.extend(of_acme.values().filter(|id| answer.text.contains(id.as_str())));
        }
    }
    assert_eq!(seen, of_acme.values().collect(), "what its owner sees");
    assert_eq!(stored(&platform.pool).await, before, "something was stored for somebody else's ids");
    assert!(asked[0] > 30 && asked[1] > 2 && asked[2] > 3, "{asked:?} asked with somebody else's ids");
}

/// An answer names nothing of somebody else's but what was asked for.
fn nothing_of(things: &Things, operation: Operation, ask: &Ask, answer: &str) {
    for id in things.values() {
        let told = answer.contains(id.as_str()) && !ask.said().contains(id.as_str());
        assert!(!told, "{} tells of {id}: {answer}", operation.id);
    }
}

/// The body with each of the ids that it may have replaced by somebody else's, in turn.
fn with_foreign_ids(schema: &Value, right: &Value, things: &Things) -> Vec<(String, Value)> {
    let schema = resolve(&DOCUMENT, schema);
    let mut foreign = Vec::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let mut put = |at: String, value: Value| {
            let mut whole = right.clone();
            whole[name.as_str()] = value;
            foreign.push((at, whole));
        };
        if let Some(id) = id_prefix(property).and_then(|prefix| things.get(&prefix)) {
            put(name.clone(), json!(id));
        }
        let property = resolve(&DOCUMENT, property);
        let inner = property.get("items").unwrap_or(property);
        let base = right[name.as_str()].get(0).cloned().unwrap_or_else(|| wrong::sample(inner));
        if property["type"] == "array" {
            if let Some(id) = id_prefix(inner).and_then(|prefix| things.get(&prefix)) {
                put(format!("{name}[0]"), json!([id]));
            }
            for (at, item) in with_foreign_ids(inner, &base, things) {
                put(format!("{name}[0].{at}"), json!([item]));
            }
        } else if property["properties"].is_object() {
            let base = right.get(name).cloned().unwrap_or_else(|| wrong::sample(property));
            for (at, value) in with_foreign_ids(property, &base, things) {
                put(format!("{name}.{at}"), value);
            }
        }
    }
    foreign
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_request_that_is_wrong_is_refused_and_nothing_is_stored(pool: PgPool) {
    let (platform, api, callers) = scene(pool).await;
    let (things, _) = furnish(&platform, &api, &callers).await;
    let before = stored(&platform.pool).await;
    let wrong = walked()
        .into_iter()
        .flat_map(|operation| wrong::requests(operation, &things).into_iter().map(move |wrong| (operation, wrong)));
    let wrong: Vec<_> = wrong.collect();
    let count = wrong.len();
    let (api, callers) = (&api, &callers);
    let faults: Vec<String> = stream::iter(wrong)
        .map(async |(operation, wrong)| {
            let answer = api.send(&wrong.ask, Some(callers.of(operation))).await;
            let status = answer.status.as_u16();
            let fine = wrong.status.map_or((400..500).contains(&status), |expected| expected == status);
            let problem: Value = serde_json::from_str(&answer.text).unwrap_or_default();
            let names = status != 422 || problem["field"].as_str().is_some_and(|field| !field.is_empty());
            (!fine || !names).then(|| format!("{}, {}: {status} {:.300}", operation.id, wrong.what, answer.text))
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(async |fault| fault)
        .collect()
        .await;
    assert!(faults.is_empty(), "{} of {count} were answered otherwise:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(stored(&platform.pool).await, before, "a refused request changed something");
    assert!(count > 3_000, "{count} wrong requests");
}

#[test]
fn ids_are_found_wherever_they_are() {
    let (job, key) = ("job_01h455vb4pex5vsknk084sn02q", "key_01h455vb4pex5vsknk084sn02q");
    // One within a text is no id.
    let value = json!({ "a": [job, { "b": format!("api_key:{key}"), "c": key }], "d": "x_y" });
    assert_eq!(ids(&value), [job, key]);
}
