//! Every operation that changes something leaves an entry in the record, whatever it is.

use std::collections::BTreeSet;

use poem::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::furnish::{come_so_far, furnish};
use super::operation::{Operation, prefix_of};
use super::{IN_USE, all, in_order, scene};

/// Operations that answer a question with POST, and change nothing.
const QUESTIONS: &[&str] = &["previewSchedule", "explainPermission", "challengePasskey", "simulateLicense"];

fn changes_something(operation: Operation) -> bool {
    operation.method() != Method::GET && !operation.is_open() && !QUESTIONS.contains(&operation.id)
}

/// What the record calls an operation.
fn action(operation: &str) -> String {
    let at = operation.find(|letter: char| letter.is_ascii_uppercase()).unwrap();
    let (verb, noun) = operation.split_at(at);
    let (verb, noun) = noun.strip_prefix("For").map_or((verb.to_owned(), noun), |noun| (format!("{verb}_for"), noun));
    let word =
        |letter: char| letter.is_ascii_uppercase().then_some('_').into_iter().chain([letter.to_ascii_lowercase()]);
    let noun: String = noun.chars().flat_map(word).collect();
    format!("{}.{verb}", noun.trim_start_matches('_'))
}

struct Entry {
    action: String,
    actor: String,
    target: Option<String>,
    outcome: String,
    record: Value,
}

/// The entries of everybody, in their order.
async fn entries(pool: &PgPool) -> Vec<Entry> {
    let rows: Vec<(String, String, Option<String>, String, String)> =
        sqlx::query_as("select action, actor, target, outcome::text, record from audit_entries order by id")
            .fetch_all(pool)
            .await
            .unwrap();
    let entry = |(action, actor, target, outcome, record): (_, _, _, _, String)| Entry {
        action,
        actor,
        target,
        outcome,
        record: serde_json::from_str(&record).unwrap(),
    };
    rows.into_iter().map(entry).collect()
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn every_operation_that_changes_something_leaves_an_entry(pool: PgPool) {
    let (platform, api, callers) = scene(pool).await;
    let (things, done) = furnish(&platform, &api, &callers).await;
    let seen: BTreeSet<String> = entries(&platform.pool).await.into_iter().map(|entry| entry.action).collect();
    for operation in all().into_iter().filter(|operation| done.contains(operation.id)) {
        assert_eq!(seen.contains(&action(operation.id)), changes_something(operation), "{}", operation.id);
    }
    let mut walked = 0;
    for operation in in_order(&done) {
        let id = operation.id;
        come_so_far(&platform, operation).await;
        let before = entries(&platform.pool).await.len();
        let ask = operation.ask(&things).header("User-Agent", "walker/1").header("X-Request-Id", id);
        let token = (!operation.is_open()).then(|| callers.of(operation));
        let answer = api.send(&ask, token).await;
        let all = entries(&platform.pool).await;
        if !changes_something(operation) {
            assert_eq!(all.len(), before, "{id} changes nothing and is recorded: {}", answer.text);
            continue;
        }
        if IN_USE.contains(&id) && answer.text.contains("\"in_use\"") {
            assert_eq!(all.len(), before, "{id} was refused, and is recorded as done");
            continue;
        }
        assert!(answer.status.is_success(), "{id}: {}", answer.text);
        assert_eq!(all.len(), before + 1, "{id} left {} entries", all.len() - before);
        let Entry { action: word, actor, target, outcome, record } = &all[before];
        assert_eq!((word.as_str(), outcome.as_str()), (action(id).as_str(), "allowed"));
        assert_eq!((&record["request_id"], &record["actor"]["user_agent"]), (&json!(id), &json!("walker/1")));
        assert_eq!(record["permission"], operation.permissions()[0].as_str(), "{id}");
        assert!(actor.starts_with("key_") && record["authority"] == format!("api_key:{actor}"), "{id}: {record}");
        assert_eq!(record["actor"]["display"], "test", "{id}");
        // What a path ends in is what something is done to, and so is what is made.
        let last = ask.path.split('/').rfind(|part| prefix_of(part).is_some());
        let is_named = operation.path.ends_with('}') && !last.is_some_and(|last| ask.path.ends_with(last));
        if last.is_some() && !is_named {
            assert!(target.as_deref() == last || id.starts_with("create"), "{id}: {target:?}");
        }
        if id.starts_with("create") {
            assert!(target.is_some() && record["changes"].as_array().is_some_and(|it| it.len() > 1), "{id}: {record}");
        }
        walked += 1;
    }
    assert!(walked + done.len() > 35, "{walked} and {}", done.len());
}
