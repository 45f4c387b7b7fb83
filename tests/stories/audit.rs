//! The record: what was done is in it, and whatever is done to it is found.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use gantry_jobs::Job as _;
use gantry_jobs::audit::{CheckpointRecord, DropRecord, SealRecord};
use gantry_schema::audit::checkpoints::{self, Checkpoint, Witnessed};
use gantry_schema::audit::policies::{self, Policy};
use gantry_schema::audit::queries::{self, Entry, Filter};
use gantry_schema::audit::verify::{self, Against, Problem, Source, Verdict};
use gantry_schema::audit::vouching::Vouching;
use gantry_schema::audit::{Actor, ActorKind, Author, Outcome, Target, archives, keys, merkle, proofs, subjects};
use gantry_schema::seal::{SealingKey, SealingKeys};
use gantry_schema::{AuditEntryId, JobTx as _, Order, OrganizationId, Window};
use gantry_tests::platform::as_role;
use gantry_tests::{Actor as Organization, Platform, process};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};
use uuid::Uuid;

/// Something happens in an organization, and is recorded.
async fn happens(organization: &Organization, what: &'static str) -> AuditEntryId {
    let mut tx = organization.begin().await.by(Arc::new(Author::new(Actor::operator())));
    tx.record(what).target(Target::named("thing", what)).changed("state", "before", "after");
    tx.commit().await.unwrap();
    newest(organization).await.id
}

async fn entries(organization: &Organization) -> Vec<Entry> {
    let keys = process::sealing_keys().unwrap();
    let mut tx = organization.begin().await;
    queries::list(&mut tx, &keys, &Filter::default(), Window::new(Order::Descending, 100)).await.unwrap()
}

async fn newest(organization: &Organization) -> Entry {
    entries(organization).await.remove(0)
}

impl Story {
    async fn seal(&self) {
        self.platform.operator().enqueue(SealRecord::default()).await;
        self.platform.run_jobs().await;
    }

    async fn checkpoint(&self) {
        self.platform.operator().enqueue(CheckpointRecord::default()).await;
        self.platform.run_jobs().await;
    }

    async fn tamper(&self, statement: &str) {
        let done = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&self.platform.owner).await.unwrap();
        assert!(done.rows_affected() > 0, "{statement}");
    }

    async fn verdict(&self) -> Verdict {
        self.verdict_of(self.acme.id, &[]).await
    }

    async fn verdict_of(&self, organization: OrganizationId, kept: &[Checkpoint]) -> Verdict {
        let (db, sealing) = (self.platform.db(), self.platform.sealing_keys());
        let vouching = Vouching::with(sealing.clone());
        let mut tx = db.tenant(OrganizationId::PLATFORM).await.unwrap();
        let public_keys = keys::believed(&mut tx, &sealing).await.unwrap();
        tx.rollback().await.unwrap();
        let witnesses: HashMap<OrganizationId, Witnessed> = verify::witnesses(db, &vouching).await.unwrap();
        let against = Against { witness: witnesses.get(&organization), kept };
        verify::organization(db, &vouching, &public_keys, organization, &against).await.unwrap()
    }

    async fn problems(&self) -> Vec<Problem> {
        self.verdict().await.problems
    }
}

/// A platform on which acme did five things, all of them sealed and signed, and two more that are neither.
struct Story {
    platform: Platform,
    acme: Organization,
    sealed: Vec<AuditEntryId>,
    unsealed: Vec<AuditEntryId>,
}

async fn story(pool: PgPool) -> Story {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let mut story = Story { platform, acme, sealed: Vec::new(), unsealed: Vec::new() };
    for what in ["a.one", "a.two", "a.three", "a.four", "a.five"] {
        story.sealed.push(happens(&story.acme, what).await);
    }
    story.checkpoint().await;
    for what in ["a.six", "a.seven"] {
        story.unsealed.push(happens(&story.acme, what).await);
    }
    let verdict = story.verdict().await;
    assert_eq!(verdict.problems, []);
    assert_eq!((verdict.sealed, verdict.unsealed, verdict.checkpoints), (5, 2, 2), "its own and the witnessed one");
    story
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_recorded_is_numbered_linked_and_signed(pool: PgPool) {
    let story = story(pool).await;
    let entries = entries(&story.acme).await;
    let numbers: Vec<_> = entries.iter().map(|entry| entry.sequence).collect();
    assert_eq!(numbers, [None, None, Some(5), Some(4), Some(3), Some(2), Some(1)]);
    assert_eq!(entries[6].action, "a.one");
    assert_eq!((entries[6].actor.as_str(), entries[6].record.actor.kind), ("operator", ActorKind::Operator));
    assert_eq!(entries[6].record.target.as_ref().unwrap().id, "thing:a.one");
    assert_eq!(json!(entries[6].record.changes), json!([{ "path": "state", "before": "before", "after": "after" }]));

    let mut tx = story.acme.begin().await;
    let signed = checkpoints::list(&mut tx, None, 9).await.unwrap();
    assert_eq!(signed.iter().map(|checkpoint| checkpoint.sequence).collect::<Vec<_>>(), [5]);
    assert!(signed[0].is_signed_by(&signed[0].public_key));
    assert_eq!(Some(&signed[0].hash), entries[2].hash.as_ref());
    tx.rollback().await.unwrap();

    // A second time there is nothing to seal and nothing to sign.
    story.seal().await;
    story.checkpoint().await;
    let before = story.platform.count("select count(*) from audit_checkpoints").await;
    story.checkpoint().await;
    assert_eq!(story.platform.count("select count(*) from audit_checkpoints").await, before);
    assert_eq!(story.verdict_of(OrganizationId::PLATFORM, &[]).await.problems, []);
    let verdict = story.verdict().await;
    assert_eq!((verdict.problems.len(), verdict.sealed, verdict.unsealed), (0, 7, 0));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn every_entry_is_proven_to_be_in_what_was_signed_however_long_the_record_is(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    // More than two of the subtrees that are kept, and a rest.
    let mut tx = acme.begin().await.by(Arc::new(Author::new(Actor::operator())));
    for _ in 0..700 {
        tx.record("a.thing");
    }
    tx.commit().await.unwrap();
    let story = Story { platform, acme, sealed: Vec::new(), unsealed: Vec::new() };
    story.checkpoint().await;
    let mut tx = story.acme.begin().await;
    for sequence in [1, 2, 255, 256, 257, 512, 513, 640, 699, 700] {
        let proof = proofs::of_entry(&mut tx, sequence).await.unwrap().expect("a checkpoint covers it");
        let found = queries::sealed_after(&mut tx, &process::sealing_keys().unwrap(), sequence - 1, 1).await.unwrap();
        let leaf = merkle::leaf(found[0].hash.as_ref().unwrap());
        let root = proof.checkpoint.root.as_slice().try_into().unwrap();
        let index = sequence.cast_unsigned() - 1;
        assert!(merkle::is_included(&leaf, index, 700, &proof.path, &root), "{sequence}");
        assert!(!merkle::is_included(&leaf, (index + 1) % 700, 700, &proof.path, &root), "{sequence}");
    }
    assert_eq!(proofs::of_entry(&mut tx, 701).await.unwrap(), None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_edited_entry_is_named(pool: PgPool) {
    let story = story(pool).await;
    let id = |entry: AuditEntryId| entry.uuid();
    let (third, sixth) = (story.sealed[2], story.unsealed[0]);
    story
        .tamper(&format!(
            "update audit_entries set record = replace(record, '\"after\"', '\"AFTER\"') where id in ('{}', '{}')",
            id(third),
            id(sixth)
        ))
        .await;
    let problems = story.problems().await;
    assert_eq!(
        problems[..2],
        [Problem::Changed { entry: third, sequence: 3 }, Problem::Forged { entry: sixth, sequence: None }]
    );
    // What is searched by is part of it, and so are its actor, action and time.
    for (edit, (entry, sequence)) in [
        "target = 'thing:other'",
        "actor = 'another'",
        "action = 'a.other'",
        "occurred_at = now()",
        "outcome = 'denied'",
    ]
    .into_iter()
    .zip(story.sealed.iter().copied().zip(1..))
    {
        if entry != third {
            story.tamper(&format!("update audit_entries set {edit} where id = '{}'", id(entry))).await;
            assert!(story.problems().await.contains(&Problem::Changed { entry, sequence }), "{edit}");
        }
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_removed_entry_is_missed_sealed_or_not(pool: PgPool) {
    let story = story(pool).await;
    let (second, seventh) = (story.sealed[1], story.unsealed[1]);
    story.tamper(&format!("delete from audit_entries where id = '{}'", seventh.uuid())).await;
    assert_eq!(story.problems().await, [Problem::OtherTally { written: 7, found: 6 }]);
    // Whoever corrects the count cannot correct the sum.
    story.tamper(&format!("update audit_tallies set entries = entries - 1 where organization_id = '{}' and lane = (select min(lane) from audit_tallies where organization_id = '{}')", story.acme.id.uuid(), story.acme.id.uuid())).await;
    assert_eq!(story.problems().await, [Problem::OtherTally { written: 6, found: 6 }]);

    story.tamper(&format!("delete from audit_entries where id = '{}'", second.uuid())).await;
    assert!(story.problems().await.contains(&Problem::Removed { entry: second, sequence: 2 }));
    story.tamper(&format!("delete from audit_seals where entry_id = '{}'", second.uuid())).await;
    assert!(story.problems().await.contains(&Problem::Gap { from: 2, to: 2 }));
    // Closing the gap moves everything behind it.
    story.tamper("update audit_seals set sequence = sequence - 1 where sequence > 2").await;
    let problems = story.problems().await;
    assert!(problems.contains(&Problem::Changed { entry: story.sealed[2], sequence: 2 }), "{problems:?}");
    assert!(problems.contains(&Problem::Truncated { sequence: 5, found: 4, source: Source::Database }), "{problems:?}");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn entries_that_changed_places_are_named(pool: PgPool) {
    let story = story(pool).await;
    story.tamper("delete from audit_seals where sequence in (2, 4)").await;
    let (second, fourth) = (story.sealed[1], story.sealed[3]);
    let insert = |sequence: i64, entry: AuditEntryId, hash: &str| {
        format!(
            "insert into audit_seals values ('{}', {sequence}, '{}', decode('{hash}', 'hex'))",
            story.acme.id.uuid(),
            entry.uuid()
        )
    };
    let seen = entries(&story.acme).await;
    assert!(seen.iter().filter(|entry| [second, fourth].contains(&entry.id)).all(|entry| entry.sequence.is_none()));
    story.tamper(&insert(2, fourth, &"11".repeat(32))).await;
    story.tamper(&insert(4, second, &"22".repeat(32))).await;
    let problems = story.problems().await;
    assert!(problems.contains(&Problem::Changed { entry: fourth, sequence: 2 }), "{problems:?}");
    assert!(problems.contains(&Problem::Changed { entry: second, sequence: 4 }), "{problems:?}");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_inserted_entry_is_named_even_when_everything_behind_it_is_linked_anew(pool: PgPool) {
    let story = story(pool).await;
    let forged = Uuid::from_u128(story.sealed[4].uuid().as_u128() + 1);
    story
        .tamper(&format!(
            "insert into audit_entries (organization_id, id, occurred_at, actor, action, target, outcome, record, key_id, mac)
             select organization_id, '{forged}', occurred_at, actor, 'a.forged', target, outcome,
                    replace(record, '{}', '{}'), key_id, mac
               from audit_entries where id = '{}'",
            story.sealed[4],
            AuditEntryId::from_uuid(forged),
            story.sealed[4].uuid()
        ))
        .await;
    let entry = AuditEntryId::from_uuid(forged);
    assert_eq!(
        story.problems().await,
        [Problem::Forged { entry, sequence: None }, Problem::OtherTally { written: 7, found: 8 }]
    );
    // The platform does not seal what it did not write.
    story.seal().await;
    let problems = story.problems().await;
    assert_eq!(problems[0], Problem::Forged { entry, sequence: None });
    assert_eq!(story.verdict().await.sealed, 7);

    // Somebody who knows the format links it himself, and moves the end of the chain.
    story
        .tamper(&format!(
            "insert into audit_seals select organization_id, sequence + 1, '{forged}', sha256(hash)
               from audit_heads where organization_id = '{}'",
            story.acme.id.uuid()
        ))
        .await;
    story
        .tamper(&format!(
            "update audit_heads set sequence = sequence + 1 where organization_id = '{}'",
            story.acme.id.uuid()
        ))
        .await;
    let problems = story.problems().await;
    assert!(problems.contains(&Problem::Changed { entry, sequence: 8 }), "{problems:?}");
    assert!(problems.contains(&Problem::ForgedHead), "{problems:?}");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_truncated_record_does_not_verify_however_much_of_it_is_taken_away(pool: PgPool) {
    let story = story(pool).await;
    let kept = {
        let mut tx = story.acme.begin().await;
        checkpoints::list(&mut tx, None, 9).await.unwrap()
    };
    let acme = story.acme.id.uuid();
    let cut = format!(
        "delete from audit_entries where organization_id = '{acme}' and id not in ('{}', '{}', '{}');
         delete from audit_seals where organization_id = '{acme}' and sequence > 3",
        story.sealed[0].uuid(),
        story.sealed[1].uuid(),
        story.sealed[2].uuid()
    );
    story.tamper(&cut).await;
    let problems = story.problems().await;
    assert!(problems.contains(&Problem::OtherEnd { sealed: 5, found: 3 }), "{problems:?}");
    assert!(problems.contains(&Problem::Truncated { sequence: 5, found: 3, source: Source::Database }), "{problems:?}");
    assert!(problems.contains(&Problem::Truncated { sequence: 5, found: 3, source: Source::Witness }), "{problems:?}");
    assert!(problems.contains(&Problem::OtherTally { written: 7, found: 5 }), "{problems:?}");
    // What happens later does not cover it up.
    happens(&story.acme, "a.eight").await;
    story.seal().await;
    assert!(story.problems().await.contains(&Problem::Gap { from: 4, to: 5 }));

    // Everything of acme's is removed: the platform's record remembers.
    for table in ["entries", "seals", "heads", "checkpoints", "tallies"] {
        story.tamper(&format!("delete from audit_{table} where organization_id = '{acme}'")).await;
    }
    assert_eq!(story.problems().await, [Problem::Truncated { sequence: 5, found: 0, source: Source::Witness }]);
    // All of everybody's: whoever kept a checkpoint knows better, and an empty record is never fine.
    for table in ["entries", "seals", "heads", "checkpoints", "tallies"] {
        story.tamper(&format!("truncate audit_{table}; select 1")).await;
    }
    assert_eq!(story.problems().await, [Problem::Empty]);
    let problems = story.verdict_of(story.acme.id, &kept).await.problems;
    assert_eq!(problems, [Problem::Truncated { sequence: 5, found: 0, source: Source::Kept }]);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn checkpoints_that_were_forged_or_moved_are_found(pool: PgPool) {
    let story = story(pool).await;
    story.tamper("update audit_checkpoints set root = sha256(root) where sequence = 5").await;
    let problems = story.problems().await;
    let (sequence, source) = (5, Source::Database);
    assert_eq!(
        problems,
        [Problem::ForgedCheckpoint { sequence, source }, Problem::OtherCheckpoint { sequence, source }]
    );
    // With a key of the forger's own, for which he can say nothing.
    story.tamper("update audit_keys set public_key = sha256(public_key)").await;
    story.tamper("update audit_checkpoints set public_key = sha256(public_key)").await;
    assert!(story.problems().await.contains(&Problem::ForgedCheckpoint { sequence, source }));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn who_serves_requests_can_add_to_the_record_and_change_nothing(pool: PgPool) {
    let story = story(pool).await;
    let options = as_role(&story.platform.owner.connect_options(), "gantry_app");
    let mut app = PgConnection::connect_with(&options).await.unwrap();
    let acme = story.acme.id.uuid();
    for table in ["entries", "seals", "heads", "nodes", "checkpoints", "keys", "sealing"] {
        for statement in [
            format!("delete from audit_{table}"),
            format!("truncate audit_{table}"),
            format!(
                "update audit_{table} set {} = null",
                match table {
                    "entries" => "record",
                    "keys" => "public_key",
                    "sealing" => "low",
                    _ => "hash",
                }
            ),
        ] {
            let mut tx = app.begin().await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(format!("set local gantry.organization = '{acme}'")))
                .execute(&mut *tx)
                .await
                .unwrap();
            let refused = sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut *tx).await.unwrap_err();
            assert!(refused.to_string().contains("permission denied"), "{statement}: {refused}");
            tx.rollback().await.unwrap();
        }
    }
    for statement in [
        "insert into audit_seals select * from audit_seals",
        "insert into audit_heads select * from audit_heads",
        "set role gantry_auditor",
    ] {
        let refused = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut app).await.unwrap_err();
        assert!(refused.to_string().contains("permission denied"), "{statement}: {refused}");
    }
    // The engine seals, and only when it says so.
    let options = as_role(&story.platform.owner.connect_options(), "gantry_engine");
    let mut engine = PgConnection::connect_with(&options).await.unwrap();
    let refused = sqlx::query("select * from audit_entries").fetch_all(&mut engine).await.unwrap_err();
    assert!(refused.to_string().contains("permission denied"), "{refused}");
    for statement in [
        "update audit_entries set record = ''",
        "truncate audit_entries",
        "truncate audit_seals",
        "update audit_seals set hash = ''",
        "update audit_checkpoints set root = ''",
    ] {
        let mut tx = engine.begin().await.unwrap();
        sqlx::raw_sql("set local role gantry_auditor").execute(&mut *tx).await.unwrap();
        let refused = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut *tx).await.unwrap_err();
        assert!(refused.to_string().contains("permission denied"), "{statement}: {refused}");
        tx.rollback().await.unwrap();
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn entries_of_a_transaction_that_is_not_committed_are_not_there(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let mut tx = acme.begin().await;
    tx.record("a.never");
    tx.rollback().await.unwrap();
    let mut tx = acme.begin().await;
    tx.record("a.never");
    drop(tx);
    assert_eq!(entries(&acme).await, []);
    assert_eq!(platform.count("select count(*) from audit_tallies").await, 0);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn writers_of_one_organization_do_not_wait_for_each_other_and_none_is_forgotten(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    // One that is not committed yet when the first round is sealed, and begun before all the others.
    let mut slow = acme.begin().await;
    sqlx::query_scalar::<_, String>("select pg_current_xact_id()::text")
        .fetch_one(slow_connection(&mut slow))
        .await
        .unwrap();
    slow.record("a.slow");
    let many = (0..40).map(|_| happens(&acme, "a.quick"));
    futures::future::join_all(many).await;
    platform.operator().enqueue(SealRecord::default()).await;
    platform.run_jobs().await;
    slow.commit().await.unwrap();
    platform.operator().enqueue(SealRecord::default()).await;
    platform.run_jobs().await;
    let numbers: BTreeSet<_> = entries(&acme).await.into_iter().map(|entry| entry.sequence.unwrap()).collect();
    assert_eq!(numbers, (1..=41).collect());
    let story = Story { platform, acme, sealed: Vec::new(), unsealed: Vec::new() };
    assert_eq!(story.problems().await, []);
}

fn slow_connection(tx: &mut gantry_schema::TenantTx) -> &mut PgConnection {
    gantry_schema::JobTx::connection(tx)
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_database_restored_from_a_dump_goes_on_where_it_was(pool: PgPool) {
    let story = story(pool).await;
    // Its transactions are counted from the beginning again.
    story.tamper("update audit_sealing set low = '9000000000'").await;
    story.tamper("update audit_entries set position = '8000000000'").await;
    let after = happens(&story.acme, "a.after").await;
    story.seal().await;
    let verdict = story.verdict().await;
    assert_eq!((verdict.problems.len(), verdict.sealed, verdict.unsealed), (0, 8, 0));
    assert_eq!(newest(&story.acme).await.id, after);
    happens(&story.acme, "a.later").await;
    story.seal().await;
    assert_eq!(story.verdict().await.sealed, 9);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_shredded_key_erases_a_person_and_no_hash_changes(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let (ada, bob) = (Uuid::from_u128(0xada), Uuid::from_u128(0xb0b));
    let author = |person: Uuid, name: &str| {
        let actor = Actor::new(ActorKind::Person, format!("per_{person}")).called(name).identifying(person);
        Arc::new(Author {
            address: Some("203.0.113.7".parse().unwrap()),
            user_agent: Some("Lovelace/1.0".to_owned()),
            ..Author::new(actor)
        })
    };
    let mut tx = acme.begin().await.by(author(ada, "Ada Lovelace"));
    let target = Target::named("person", "bob").called("Bob Byron").identifying(bob);
    tx.record("member.rename").target(target).changed("email", "bob@acme.example", "byron@acme.example");
    tx.commit().await.unwrap();
    let mut tx = acme.begin().await.by(author(bob, "Bob Byron"));
    tx.record("session.create");
    tx.commit().await.unwrap();
    let story = Story { platform, acme, sealed: Vec::new(), unsealed: Vec::new() };
    story.checkpoint().await;

    let stored =
        story.platform.count("select count(*) from audit_entries where record ~ 'Ada|Bob|Byron|203.0|Lovelace'").await;
    assert_eq!(stored, 0, "nothing that identifies anybody lies open");
    let seen = entries(&story.acme).await;
    let renamed = &seen[1];
    assert_eq!(renamed.record.actor.about.display.as_deref(), Some("Ada Lovelace"));
    assert_eq!(renamed.record.actor.about.address.map(|address| address.to_string()).as_deref(), Some("203.0.113.7"));
    assert_eq!(renamed.record.target.as_ref().unwrap().display.as_deref(), Some("Bob Byron"));
    assert_eq!(renamed.record.changes.len(), 1);
    let keys = story.platform.sealing_keys();
    let mut tx = story.acme.begin().await;
    assert_eq!(queries::of_person(&mut tx, &keys, bob, None, 9).await.unwrap().len(), 2);
    assert_eq!(queries::of_person(&mut tx, &keys, ada, None, 9).await.unwrap().len(), 1);

    assert!(subjects::shred(&mut tx, bob).await.unwrap().is_some());
    assert!(subjects::shred(&mut tx, Uuid::from_u128(1)).await.unwrap().is_none());
    tx.commit().await.unwrap();
    let seen = entries(&story.acme).await;
    assert!(seen[0].erased && seen[1].erased);
    assert_eq!((seen[0].record.actor.about.display.as_ref(), seen[0].record.actor.about.address), (None, None));
    assert_eq!(seen[1].record.actor.about.display.as_deref(), Some("Ada Lovelace"), "she was not erased");
    assert_eq!((seen[1].record.target.as_ref().unwrap().display.as_ref(), seen[1].record.changes.len()), (None, 0));
    assert_eq!(story.verdict().await.problems, []);

    // What he does later is recorded, and says nothing of him.
    let mut tx = story.acme.begin().await.by(author(bob, "Bob Byron"));
    tx.record("session.create");
    tx.commit().await.unwrap();
    assert_eq!(newest(&story.acme).await.record.actor.about.display, None);
    assert_eq!(story.platform.count("select count(*) from audit_subjects where key is null").await, 1);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn after_the_sealing_key_was_replaced_the_record_verifies_without_the_old_one(pool: PgPool) {
    let mut story = story(pool).await;
    let new = || SealingKey::from_base64("new", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=").unwrap();
    let old = process::sealing_key().unwrap();
    story.platform.seal_with(SealingKeys::new(new(), vec![old]).unwrap());
    story.platform.operator().enqueue(gantry_jobs::maintenance::Reseal::default()).await;
    story.checkpoint().await;
    story.platform.seal_with(SealingKeys::new(new(), Vec::new()).unwrap());
    let verdict = story.verdict().await;
    assert_eq!((verdict.problems.len(), verdict.sealed), (0, 7), "{:?}", verdict.problems);
    assert_eq!(story.verdict_of(OrganizationId::PLATFORM, &[]).await.problems, []);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_handler_says_who_asked_for_its_job(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let job = acme.ask(gantry_jobs::diagnostics::Probe::default().request()).await.id;
    let mut tx = acme.begin().await.by(Arc::new(Author::job(job, None)));
    tx.record("a.done").ended(Outcome::Failed, "the other side did not answer");
    tx.commit().await.unwrap();
    let entry = newest(&acme).await;
    assert_eq!((entry.actor, entry.record.job_id), (job.to_string(), Some(job)));
    assert_eq!(entry.record.actor.on_behalf_of.as_deref(), Some("platform:story"));
    assert_eq!(
        (entry.record.outcome, entry.record.reason.as_deref()),
        (Outcome::Failed, Some("the other side did not answer"))
    );
    platform.run_jobs().await;
}

impl Story {
    async fn says(&self, policy: Policy) {
        let mut tx = self.acme.begin().await;
        policies::set(&mut tx, policy).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Somebody took a copy of everything, and told its digest.
    async fn is_copied(&self) {
        let mut tx = self.acme.begin().await;
        let extent = archives::extent(&mut tx).await.unwrap().unwrap();
        let archive = archives::Archive {
            id: tx.ids().mint(),
            first: extent.first,
            through: extent.checkpoint.sequence,
            sha256: vec![0; 32],
            made_at: tx.now(),
            confirmed_at: None,
        };
        archives::insert(&mut tx, &archive).await.unwrap();
        archives::confirm(&mut tx, archive.id).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn drop_old(&self) {
        self.platform.operator().enqueue(DropRecord::default()).await;
        self.platform.run_jobs().await;
    }

    async fn kept(&self) -> Vec<String> {
        entries(&self.acme).await.into_iter().rev().map(|entry| entry.action).collect()
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_sealed_from_then_on_goes_on_as_events_each_once_and_in_order(pool: PgPool) {
    let story = story(pool).await;
    story.says(Policy { forwards: true, keep_days: None }).await;
    story.seal().await;
    story.seal().await;
    happens(&story.acme, "a.eight").await;
    story.seal().await;
    let told: Vec<(String, i64, String)> = sqlx::query_as(
        "select payload->>'action', (payload->>'sequence')::bigint, payload->>'text' from events
          where type = 'audit.recorded' and organization_id = $1 order by id",
    )
    .bind(story.acme.id.uuid())
    .fetch_all(&story.platform.owner)
    .await
    .unwrap();
    let actions: Vec<(&str, i64)> = told.iter().map(|(action, sequence, _)| (action.as_str(), *sequence)).collect();
    assert_eq!(actions, [("a.six", 6), ("a.seven", 7), ("a.eight", 8)]);
    assert_eq!(told[2].2, newest(&story.acme).await.text, "what is hashed can be checked by whoever gets it");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn only_what_is_old_signed_and_copied_is_dropped_and_the_rest_verifies(pool: PgPool) {
    let story = story(pool).await;
    let everything = story.kept().await;
    story.says(Policy { forwards: false, keep_days: Some(90) }).await;
    story.is_copied().await;
    story.drop_old().await;
    assert_eq!(story.kept().await, everything, "nothing is old");
    story.platform.clock.advance(chrono::Duration::days(91));
    story.says(Policy { forwards: false, keep_days: None }).await;
    story.drop_old().await;
    assert_eq!(story.kept().await, everything, "it is kept for ever");
    story.says(Policy { forwards: false, keep_days: Some(90) }).await;
    story.drop_old().await;
    assert_eq!(
        story.kept().await,
        ["a.six", "a.seven", "audit.drop"],
        "what was not signed then was not copied either"
    );
    let verdict = story.verdict().await;
    assert_eq!((verdict.problems, verdict.dropped, verdict.sealed, verdict.unsealed), (vec![], 5, 0, 3));

    // What came later is signed; without another copy it stays, and it is proven as before.
    story.checkpoint().await;
    story.platform.clock.advance(chrono::Duration::days(91));
    story.drop_old().await;
    assert_eq!(story.kept().await.len(), 3);
    let mut tx = story.acme.begin().await;
    let proof = proofs::of_entry(&mut tx, 6).await.unwrap().expect("a checkpoint covers it");
    let root = proof.checkpoint.root.as_slice().try_into().unwrap();
    let leaf = merkle::leaf(entries(&story.acme).await[2].hash.as_ref().unwrap());
    assert!(merkle::is_included(&leaf, 5, 8, &proof.path, &root));
    tx.rollback().await.unwrap();
    assert_eq!(story.problems().await, []);
    story.is_copied().await;
    story.drop_old().await;
    assert_eq!(story.kept().await, ["audit.drop"]);
    let verdict = story.verdict().await;
    assert_eq!((verdict.problems, verdict.dropped), (vec![], 8));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn whoever_cuts_off_a_record_and_says_it_was_dropped_is_found(pool: PgPool) {
    let story = story(pool).await;
    story.says(Policy { forwards: false, keep_days: Some(90) }).await;
    story.is_copied().await;
    let acme = story.acme.id.uuid();
    let cut = format!(
        "delete from audit_entries where id = any (select entry_id from audit_seals where organization_id = '{acme}' and sequence <= 3);
         delete from audit_seals where organization_id = '{acme}' and sequence <= 3"
    );
    // The end of the chain, as it was sealed, in place of what it would begin with.
    let end = "insert into audit_beginnings
               select organization_id, sequence, hash, frontier, high, low, sealed_at, key_id, mac from audit_heads
                where organization_id = '{}'";
    story.tamper(&end.replace("{}", &acme.to_string())).await;
    assert_eq!(story.problems().await, [Problem::ForgedBeginning]);
    story.tamper(&cut).await;
    let problems = story.problems().await;
    assert!(problems.contains(&Problem::ForgedBeginning), "{problems:?}");
    assert!(problems.contains(&Problem::Gap { from: 1, to: 3 }), "{problems:?}");
    // Nothing more is dropped of a record that is not in order.
    story.platform.clock.advance(chrono::Duration::days(91));
    let before = story.kept().await;
    story.drop_old().await;
    assert_eq!(story.kept().await, before);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn nothing_is_dropped_where_an_entry_was_edited_and_linked_anew(pool: PgPool) {
    let story = story(pool).await;
    story.says(Policy { forwards: false, keep_days: Some(90) }).await;
    story.is_copied().await;
    story.tamper(&format!("update audit_entries set actor = 'another' where id = '{}'", story.sealed[2].uuid())).await;
    story.platform.clock.advance(chrono::Duration::days(91));
    story.drop_old().await;
    assert_eq!(story.kept().await.len(), 7);
    assert_eq!(story.verdict().await.dropped, 0);
}
