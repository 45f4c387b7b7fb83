//! Reading the record: searched, proven, copied, and verified by the command.

use std::process::{Command, Output};
use std::sync::Arc;

use gantry_schema::audit::checkpoints;
use gantry_schema::audit::vouching::Vouching;
use gantry_schema::audit::{merkle, sealing};
use gantry_schema::db::Silent;
use gantry_schema::digest::{hex, sha256_alone};
use gantry_schema::organizations::Permission;
use gantry_schema::seal::{SealingKey, SealingKeys};
use gantry_schema::{EngineDb, IdMint};
use poem::Body;
use poem::http::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgPool};
use uuid::Uuid;

use crate::support::{Actor, Platform};

const KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

/// Numbers what was recorded, signs it, and notes it in the platform's record.
pub async fn seal(platform: &Platform) {
    let options = (*platform.pool.connect_options()).clone().username("gantry_engine");
    let ids = Arc::new(IdMint::seeded(platform.clock.clone(), 8));
    let engine = EngineDb::connect(options, 2, platform.clock.clone(), ids, Arc::new(Silent)).await.unwrap();
    let key = SealingKey::from_base64("test", KEY).unwrap();
    let vouching = Arc::new(Vouching::with(Arc::new(SealingKeys::new(key, Vec::new()).unwrap())));
    sealing::seal(&engine, &vouching, 10_000).await.unwrap();
    let made = checkpoints::make(&engine, &vouching, None, 100).await.unwrap();
    checkpoints::witness(&platform.app.db, &made).await.unwrap();
    sealing::seal(&engine, &vouching, 10_000).await.unwrap();
}

/// Five schedules are made, so five entries written.
async fn five_things(actor: &Actor) {
    for number in 0..5 {
        let schedule = json!({ "name": format!("=number {number}"), "kind": "diagnostics.probe", "cron": "@daily" });
        actor.post("/schedules", &schedule).await.expect(201);
    }
}

fn ids(page: &Value) -> Vec<String> {
    page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn entries_are_found_by_whom_what_to_what_and_when_and_by_those_above(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let below = platform.below(acme.organization, "below").await;
    let other = platform.organization("other").await;
    let reader = platform.key(acme.organization, &[Permission::ReadAudit]).await;
    five_things(&acme).await;
    five_things(&below).await;
    reader.get("/jobs").await.problem(403, "forbidden", None);

    let all = reader.get("/audit-entries").await.expect(200);
    assert_eq!(ids(&all).len(), 6);
    let (newest, oldest) = (&all["items"][0], &all["items"][5]);
    assert_eq!((newest["action"].as_str(), newest["outcome"].as_str()), (Some("jobs.list"), Some("denied")));
    assert_eq!((&oldest["action"], &oldest["target"]["display"]), (&json!("schedule.create"), &json!("=number 0")));
    let found = async |query: &str| ids(&reader.get(&format!("/audit-entries?{query}")).await.expect(200));
    let target = oldest["target"]["id"].as_str().unwrap();
    assert_eq!(found(&format!("target={target}")).await, [oldest["id"].as_str().unwrap()]);
    assert_eq!(found(&format!("actor={}", newest["actor"]["id"].as_str().unwrap())).await.len(), 1);
    assert_eq!(found("action=schedule.create").await.len(), 5);
    assert_eq!(found("outcome=denied").await.len(), 1);
    assert_eq!(found("until=2026-01-15T12:00:00Z").await.len(), 0);
    assert_eq!(found("since=2026-01-15T12:00:00Z&sort=created_at").await[0], oldest["id"]);
    // Page by page, nothing twice and nothing left out.
    let mut pages = Vec::new();
    let mut page = reader.get("/audit-entries?limit=4").await.expect(200);
    loop {
        pages.extend(ids(&page));
        let Some(next) = page["next_cursor"].as_str() else { break };
        page = reader.get(&format!("/audit-entries?limit=4&cursor={next}")).await.expect(200);
    }
    assert_eq!(pages, ids(&all));

    let of_below = format!("/audit-entries?organization={}", below.organization);
    assert_eq!(ids(&reader.get(&of_below).await.expect(200)).len(), 5);
    let entry = ids(&reader.get(&of_below).await.expect(200))[0].clone();
    reader.get(&format!("/audit-entries/{entry}")).await.problem(404, "not_found", None);
    reader.get(&format!("/audit-entries/{entry}?organization={}", below.organization)).await.expect(200);
    other.get(&of_below).await.problem(404, "not_found", None);
    below.get(&format!("/audit-entries?organization={}", acme.organization)).await.problem(404, "not_found", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_entry_comes_with_the_proof_that_it_was_signed(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    five_things(&acme).await;
    let newest = ids(&acme.get("/audit-entries").await.expect(200))[0].clone();
    let proven = acme.get(&format!("/audit-entries/{newest}")).await.expect(200);
    assert!(proven.get("proof").is_none() && proven["entry"].get("sequence").is_none(), "{proven}");
    seal(&platform).await;

    let proven = acme.get(&format!("/audit-entries/{newest}")).await.expect(200);
    let (entry, proof) = (&proven["entry"], &proven["proof"]);
    assert_eq!((&entry["sequence"], &proof["index"], &proof["leaves"]), (&json!(5), &json!(4), &json!(5)));
    assert!(serde_json::from_str::<Value>(proven["text"].as_str().unwrap()).unwrap()["id"] == newest);
    let hash = |digits: &Value| -> [u8; 32] {
        let digits = digits.as_str().unwrap();
        std::array::from_fn(|at| u8::from_str_radix(digits.get(2 * at..2 * at + 2).unwrap(), 16).unwrap())
    };
    let path: Vec<_> = proof["path"].as_array().unwrap().iter().map(hash).collect();
    let root = hash(&proof["checkpoint"]["root"]);
    assert!(merkle::is_included(&merkle::leaf(&hash(&entry["hash"])), 4, 5, &path, &root));

    let page = acme.get("/audit-checkpoints").await.expect(200);
    assert_eq!(page["items"], json!([proof["checkpoint"]]));
    let kept = gantry_api::audit::kept::read(&page.to_string()).unwrap();
    assert!(kept[0].is_signed_by(&kept[0].public_key));
    assert_eq!(kept[0].statement(), page["items"][0]["statement"].as_str().unwrap());
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_copy_has_every_entry_once_calculates_nothing_and_is_on_record(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let mut tx = platform.app.db.tenant(acme.organization).await.unwrap();
    // More than are read at once.
    for _ in 0..1_203 {
        tx.record("a.thing");
    }
    tx.commit().await.unwrap();
    five_things(&acme).await;
    platform.clock.advance(chrono::TimeDelta::seconds(1));

    let csv = acme.post("/audit-entries/export", &json!({ "format": "csv" })).await;
    assert_eq!((csv.status.as_u16(), csv.header("content-type")), (200, "text/csv"));
    let lines: Vec<&str> = csv.text.split_terminator("\r\n").collect();
    assert_eq!(lines.len(), 1 + 1_208);
    assert!(lines[0].starts_with("id,sequence,occurred_at,"));
    assert!(lines[1_204].contains(r#","'=number 0","#), "{}", lines[1_204]);
    let ids: std::collections::BTreeSet<&str> = lines[1..].iter().filter_map(|line| line.split(',').next()).collect();
    assert_eq!(ids.len(), 1_208);

    let asked = json!({ "format": "ndjson", "action": "schedule.create" });
    platform.clock.advance(chrono::TimeDelta::seconds(1));
    let ndjson = acme.post("/audit-entries/export", &asked).await;
    let lines: Vec<Value> = ndjson.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["target"]["display"]), (5, &json!("=number 0")));
    assert!(lines.iter().all(|line| line["text"].as_str().unwrap().contains(line["id"].as_str().unwrap())));

    let taken = acme.get("/audit-entries?action=audit_entries.export").await.expect(200);
    assert_eq!(taken["items"].as_array().unwrap().len(), 2);
    let changes = taken["items"][0]["changes"].as_array().unwrap();
    assert!(changes.contains(&json!({ "path": "action", "after": "schedule.create" })), "{changes:?}");
}

/// Runs `gantry-api audit …` against the platform's database.
#[expect(clippy::disallowed_methods, reason = "it is the program that is tested")]
pub fn audit(platform: &Platform, arguments: &[&str]) -> Output {
    let url = platform.pool.connect_options().as_ref().clone().username("gantry_app").to_url_lossy();
    Command::new(env!("CARGO_BIN_EXE_gantry-api"))
        .arg("audit")
        .args(arguments)
        .env_clear()
        .env("GANTRY_DATABASE_URL", url.as_str())
        .env("GANTRY_SEALING_KEY", format!("test:{KEY}"))
        .output()
        .unwrap()
}

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_command_names_what_was_edited_removed_reordered_inserted_and_truncated(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let mut of = Vec::new();
    for name in ["edited", "removed", "reordered", "inserted", "truncated", "untouched"] {
        let actor = platform.organization(name).await;
        five_things(&actor).await;
        of.push(actor);
    }
    seal(&platform).await;
    let entry = async |of: &Actor, sequence: i64| -> (Uuid, String) {
        let select = "select entry_id from audit_seals where organization_id = $1 and sequence = $2";
        let query = sqlx::query_scalar(select).bind(of.organization.uuid()).bind(sequence);
        let id: Uuid = query.fetch_one(&platform.pool).await.unwrap();
        (id, gantry_schema::AuditEntryId::from_uuid(id).to_string())
    };
    let tamper = async |statement: String| {
        let done = sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&platform.pool).await.unwrap();
        assert!(done.rows_affected() > 0, "{statement}");
    };
    let fine = audit(&platform, &["verify"]);
    assert_eq!(fine.status.code(), Some(0), "{}", said(&fine));
    assert_eq!(said(&fine).matches("5 entries, 0 more that are not sealed yet, 2 checkpoints: as written").count(), 6);

    let (edited, edited_id) = entry(&of[0], 3).await;
    tamper(format!("update audit_entries set record = replace(record, 'allowed', 'denied') where id = '{edited}'"))
        .await;
    let (removed, removed_id) = entry(&of[1], 2).await;
    tamper(format!("delete from audit_entries where id = '{removed}'")).await;
    let ((second, second_id), (fourth, fourth_id)) = (entry(&of[2], 2).await, entry(&of[2], 4).await);
    let organization = of[2].organization.uuid();
    tamper(format!("delete from audit_seals where entry_id in ('{second}', '{fourth}')")).await;
    for (sequence, id) in [(2, fourth), (4, second)] {
        tamper(format!("insert into audit_seals values ('{organization}', {sequence}, '{id}', sha256('{id}'))")).await;
    }
    let (like, _) = entry(&of[3], 5).await;
    let inserted = Uuid::from_u128(like.as_u128() + 1);
    tamper(format!(
        "insert into audit_entries select organization_id, '{inserted}', position, occurred_at, actor, action, target,
                outcome, record, actor_subject, target_subject, key_id, mac from audit_entries where id = '{like}'"
    ))
    .await;
    let organization = of[4].organization.uuid();
    let (last, _) = entry(&of[4], 3).await;
    tamper(format!("delete from audit_entries where organization_id = '{organization}' and id > '{last}'")).await;
    tamper(format!("delete from audit_seals where organization_id = '{organization}' and sequence > 3")).await;

    let found = audit(&platform, &["verify"]);
    let said = said(&found);
    assert_eq!(found.status.code(), Some(3), "{said}");
    let names = |of: &Actor, words: &[&str]| {
        let organization = of.organization.to_string();
        let lines: Vec<&str> = said.lines().filter(|line| line.starts_with(&organization)).collect();
        assert!(lines.iter().any(|line| words.iter().all(|word| line.contains(word))), "{words:?} in {lines:?}");
    };
    names(&of[0], &[&edited_id, "number 3", "is not what was sealed there"]);
    names(&of[1], &[&removed_id, "number 2", "was removed"]);
    names(&of[2], &[&fourth_id, "number 2", "is not what was sealed there"]);
    names(&of[2], &[&second_id, "number 4", "is not what was sealed there"]);
    names(&of[3], &[&gantry_schema::AuditEntryId::from_uuid(inserted).to_string()]);
    names(&of[4], &["5", "3", "checkpoint"]);
    names(&of[5], &["as written"]);
    let one = audit(&platform, &["verify", "--organization", &of[5].organization.to_string()]);
    assert_eq!(one.status.code(), Some(0));
    let one = audit(&platform, &["verify", "--organization", &of[4].organization.to_string()]);
    assert_eq!(one.status.code(), Some(3));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_command_holds_the_record_to_checkpoints_that_were_kept_and_copies_it(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    five_things(&acme).await;
    seal(&platform).await;
    let page = acme.get("/audit-checkpoints").await.expect(200);
    let file = std::env::temp_dir().join(format!("{}.json", acme.organization));
    std::fs::write(&file, page.to_string()).unwrap();
    let organization = acme.organization.to_string();
    let kept = ["verify", "--organization", &organization, "--checkpoints", file.to_str().unwrap()];
    assert_eq!(audit(&platform, &kept).status.code(), Some(0));

    let copied = audit(&platform, &["export", "--organization", &organization, "--format", "csv"]);
    assert_eq!((copied.status.code(), said(&copied).lines().count()), (Some(0), 6), "{}", said(&copied));
    let newest = acme.get("/audit-entries?actor=operator").await.expect(200);
    assert_eq!(newest["items"][0]["action"], "audit_entries.export");

    // Everything that the database itself knows of the record is gone.
    for table in ["entries", "seals", "heads", "checkpoints", "tallies", "nodes"] {
        sqlx::raw_sql(AssertSqlSafe(format!("truncate audit_{table}"))).execute(&platform.pool).await.unwrap();
    }
    let found = audit(&platform, &kept);
    assert_eq!(found.status.code(), Some(3));
    assert!(said(&found).contains("kept elsewhere"), "{}", said(&found));
    std::fs::remove_file(&file).unwrap();
    let unread = audit(&platform, &kept);
    assert_eq!(unread.status.code(), Some(1), "{}", said(&unread));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn whoever_has_a_copy_of_everything_says_so_by_its_digest(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    acme.post("/audit-archives", &json!({})).await.problem(409, "wrong_state", None);
    for _ in 0..3 {
        acme.post("/jobs", &json!({ "kind": "diagnostics.probe" })).await.expect(202);
    }
    seal(&platform).await;
    let taken = acme.post("/audit-archives", &json!({})).await;
    assert_eq!((taken.status.as_u16(), taken.header("Content-Type")), (200, "application/x-ndjson"));
    let lines: Vec<Value> = taken.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sequences: Vec<i64> = lines[..lines.len() - 1].iter().map(|line| line["sequence"].as_i64().unwrap()).collect();
    assert_eq!(sequences, [1, 2, 3]);
    let last = &lines[3]["archive"];
    assert_eq!((&last["checkpoint"]["sequence"], &last["checkpoint"]["hash"]), (&json!(3), &lines[2]["hash"]));
    let confirm = format!("/audit-archives/{}/confirm", last["id"].as_str().unwrap());
    let other = json!({ "sha256": "00".repeat(32) });
    acme.post(&confirm, &other).await.problem(422, "invalid_field", Some("sha256"));
    let sha256 = json!({ "sha256": hex(&sha256_alone(taken.text.as_bytes())) });
    let confirmed = acme.post(&confirm, &sha256).await.expect(200);
    assert_eq!((&confirmed["first"], &confirmed["through"]), (&json!(1), &json!(3)));
    assert_eq!(acme.post(&confirm, &sha256).await.expect(200), confirmed);
    let globex = platform.organization("globex").await;
    globex.post(&confirm, &sha256).await.problem(404, "not_found", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_becomes_of_the_record_is_said_on_condition(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    assert_eq!(acme.get("/audit-policy").await.expect(200), json!({ "forward": false }));
    let wanted = json!({ "forward": true, "keep_days": 365 });
    acme.put("/audit-policy", &wanted).await.problem(428, "precondition_required", Some("If-Match"));
    let short = json!({ "forward": true, "keep_days": 89 });
    acme.put("/audit-policy", &short).await.problem(422, "invalid_field", Some("keep_days"));
    let mut request = acme.request(Method::PUT, "/audit-policy", Some(Body::from_string(wanted.to_string())));
    request.headers_mut().insert("If-Match", "*".parse().unwrap());
    assert_eq!(acme.send_as_is(request).await.expect(200), wanted);
    assert_eq!(acme.get("/audit-policy").await.expect(200), wanted);
}
