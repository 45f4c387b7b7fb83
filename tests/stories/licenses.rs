//! What licenses allow, step by step: nobody is surprised by an end, nothing that runs is touched, and what was counted is
//! what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Duration, Utc};
use gantry_jobs::licenses::{RecountLicenses, WatchLicenses};
use gantry_schema::jobs::State as JobState;
use gantry_schema::licenses::{
    Anchors, Chain, Claims, Kind, Status, Trust, chain, claims, history, licensed, queries, standing,
};
use gantry_schema::memberships::Role;
use gantry_schema::organizations::{self, NewOrganization};
use gantry_schema::seal::SealingKeys;
use gantry_schema::{JobTx as _, OrganizationId};
use gantry_tests::kinds::{Provision, Scripted};
use gantry_tests::{Actor, Live, Platform};
use serde_json::{Value, json};
use sqlx::PgPool;

/// Who vouches for licenses here, as the API's processes and workers do.
async fn anchors(platform: &Platform) -> Anchors {
    let trust = Trust { keys: platform.sealing_keys(), pinned: Vec::new() };
    trust.anchors(platform.db()).await.unwrap()
}

/// Gives an organization a license of the platform.
async fn give(platform: &Platform, to: &Actor, expires_at: Option<DateTime<Utc>>, limits: &[(&str, u64)]) {
    give_by(&platform.operator(), platform.sealing_keys(), to, expires_at, limits).await;
}

/// The same where an engine runs.
pub async fn give_live(live: &Live, to: &Actor, limits: &[(&str, u64)]) {
    give_by(&live.operator(), Arc::clone(live.sealing_keys()), to, None, limits).await;
}

async fn give_by(
    operator: &Actor,
    sealing: Arc<SealingKeys>,
    to: &Actor,
    expires_at: Option<DateTime<Utc>>,
    limits: &[(&str, u64)],
) {
    let mut tx = operator.begin().await;
    let key = queries::issuer(&mut tx, &sealing).await.unwrap();
    tx.commit().await.unwrap();
    let anchors = Trust { keys: sealing, pinned: Vec::new() }.anchors(operator.db()).await.unwrap();
    let mut tx = to.begin().await;
    let claims = Claims {
        ver: claims::VERSION,
        jti: tx.ids().mint(),
        iss: OrganizationId::PLATFORM.to_string(),
        sub: to.id,
        aud: claims::ANY_INSTANCE.to_owned(),
        iat: tx.now(),
        nbf: tx.now(),
        exp: expires_at,
        typ: Kind::Subscription,
        tier: "professional".to_owned(),
        feat: ["api_access", "server_provisioning"].map(str::to_owned).into(),
        lim: limits.iter().map(|(name, most)| ((*name).to_owned(), Some(*most))).collect(),
        dom: Vec::new(),
        grace: 7 * 86_400,
        deg: BTreeMap::new(),
        gra: BTreeSet::from(["server_provisioning".to_owned()]),
        seq: queries::highest(&mut tx).await.unwrap().unsigned_abs() + 1,
        par: None,
        cld: None,
        off: None,
        epo: 0,
    };
    let text = chain::issue(None, &claims, &key).unwrap();
    let chain = Chain::verify(&text, &anchors).unwrap();
    queries::put_in_force(&mut tx, &chain, &text).await.unwrap();
    standing::count(&mut tx, &anchors).await.unwrap().unwrap();
    tx.commit().await.unwrap();
}

async fn decide(platform: &Platform, about: &Actor, status: Status) {
    let mut tx = about.begin().await;
    assert!(queries::decide(&mut tx, status, Some("a story"), OrganizationId::PLATFORM).await.unwrap());
    standing::count(&mut tx, &anchors(platform).await).await.unwrap().unwrap();
    tx.commit().await.unwrap();
}

/// Makes an organization below, if the license allows it.
async fn make_child(of: &Actor, name: &str) -> Result<(), String> {
    let mut tx = of.begin().await;
    let made = organizations::create(&mut tx, &NewOrganization::below(of.id, name)).await;
    let word = |error: sqlx::Error| error.as_database_error().unwrap().constraint().unwrap().to_owned();
    made.map_err(word)?;
    tx.commit().await.map_err(word)
}

async fn state(platform: &Platform, of: &Actor) -> &'static str {
    let mut tx = of.begin().await;
    let found = licensed(&mut tx, &anchors(platform).await).await.unwrap().unwrap();
    found.evaluate(tx.now(), None, &BTreeMap::new()).state.as_str()
}

async fn watch(platform: &Platform) {
    platform.operator().enqueue(WatchLicenses::default()).await;
    platform.run_jobs().await;
}

async fn events(platform: &Platform, kind: &str) -> Vec<Value> {
    sqlx::query_scalar("select payload from events where type = $1 order by id")
        .bind(kind)
        .fetch_all(&platform.owner)
        .await
        .unwrap()
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_end_of_a_license_is_told_to_its_owners_four_times_by_event_and_mail(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, other) = (platform.organization("acme").await, platform.organization("other").await);
    acme.takes_in(platform.person("ada@example.com").await, Role::Owner).await;
    acme.takes_in(platform.person("bob@example.com").await, Role::Member).await;
    other.takes_in(platform.person("eve@example.com").await, Role::Owner).await;
    let begun = platform.now();
    give(&platform, &acme, Some(begun + Duration::days(60)), &[]).await;
    give(&platform, &other, None, &[]).await;
    for _ in 0..=62 {
        watch(&platform).await;
        watch(&platform).await;
        platform.clock.advance(Duration::days(1));
    }
    let told = events(&platform, "license.expiring").await;
    assert_eq!(told.iter().map(|facts| facts["days"].as_i64().unwrap()).collect::<Vec<_>>(), [30, 14, 7, 1]);
    assert!(told.iter().all(|facts| facts["organization_id"] == acme.id.to_string()));
    let letters = platform.mail.letters();
    assert_eq!(letters.len(), 4);
    assert!(letters.iter().all(|letter| letter.to == "ada@example.com"), "{letters:?}");
    assert_eq!(platform.mail.last_to("ada@example.com").unwrap().subject, "The license of acme ends within a day");
    assert_eq!(acme.notices().await.len(), 1, "one notice, which says how it is now");
    // A new license has an end of its own.
    give(&platform, &acme, Some(platform.now() + Duration::days(10)), &[]).await;
    watch(&platform).await;
    assert_eq!(events(&platform, "license.expiring").await.len(), 5);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_nearly_used_up_is_told_at_80_90_and_100_percent_once_each(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    acme.takes_in(platform.person("ada@example.com").await, Role::Owner).await;
    give(&platform, &acme, None, &[("child_organizations", 10)]).await;
    let mut told = Vec::new();
    for number in 1..=10 {
        make_child(&acme, &format!("child {number}")).await.unwrap();
        watch(&platform).await;
        watch(&platform).await;
        told.push(events(&platform, "license.threshold").await.len());
    }
    assert_eq!(told, [0, 0, 0, 0, 0, 0, 0, 1, 2, 3]);
    let last = events(&platform, "license.threshold").await.pop().unwrap();
    let expected = json!({ "limit": "child_organizations", "percent": 100, "used": 10, "most": 10 });
    for (name, fact) in expected.as_object().unwrap() {
        assert_eq!(&last[name], fact, "{name}");
    }
    assert_eq!(platform.mail.letters().len(), 3);
    assert_eq!(make_child(&acme, "one more").await, Err("license_limit".to_owned()));
    platform.run_twice::<WatchLicenses>().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_was_counted_wrongly_is_counted_again_from_what_is_there(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let child = platform.organization_below(acme.id, "child").await;
    acme.takes_in(platform.person("ada@example.com").await, Role::Owner).await;
    child.takes_in(platform.person("bob@example.com").await, Role::Owner).await;
    child.takes_in(platform.person("eve@example.com").await, Role::Member).await;
    give(&platform, &acme, None, &[("child_organizations", 3), ("users", 5)]).await;
    let usage = async || queries::usage(&mut acme.begin().await, acme.id).await.unwrap();
    let right = usage().await;
    assert_eq!((right["child_organizations"], right["users"]), (1, 3));
    // Some is added up, some is not; then everything that was counted is wrong.
    organizations::tree::add_up(platform.ledger(), 3).await.unwrap();
    sqlx::raw_sql(
        "update organization_totals set own = own + 7, total = total - 3;
         insert into organization_totals (organization_id, kind, own, total)
              select id, 'schedules', 5, 5 from organizations where parent_id is not null on conflict do nothing;
         update license_counters set used = 100 where most is not null",
    )
    .execute(&platform.owner)
    .await
    .unwrap();
    assert_eq!(make_child(&acme, "no").await, Err("license_limit".to_owned()));
    platform.operator().enqueue(RecountLicenses::default()).await;
    platform.run_jobs().await;
    assert_eq!(usage().await, right);
    assert_eq!(
        platform
            .count("select coalesce(sum(total), 0)::bigint from organization_totals where kind = 'schedules'")
            .await,
        0
    );
    make_child(&acme, "second").await.unwrap();
    make_child(&acme, "third").await.unwrap();
    assert_eq!(make_child(&acme, "fourth").await, Err("license_limit".to_owned()));
    platform.run_twice::<RecountLicenses>().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_job_starts_only_while_the_license_allows_what_it_needs(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let below = platform.organization_below(acme.id, "below").await;
    // Without a license everything is allowed.
    let first = below.enqueue(Provision {}).await;
    platform.run_jobs().await;
    assert_eq!(below.state(first).await, JobState::Succeeded);
    give(&platform, &acme, None, &[("child_organizations", 1)]).await;
    let (allowed, late) = (below.enqueue(Provision {}).await, Duration::minutes(5));
    platform.run_jobs().await;
    assert_eq!(below.state(allowed).await, JobState::Succeeded);
    // It was asked for while it was allowed, and starts when it is not.
    let asked = below.ask(gantry_jobs::Job::request(&Provision {}).at(platform.now() + late)).await.id;
    let other = below.ask(gantry_jobs::Job::request(&Scripted::fine("other")).at(platform.now() + late)).await.id;
    decide(&platform, &acme, Status::Suspended).await;
    platform.run_through(late).await;
    assert_eq!((below.state(asked).await, below.state(other).await), (JobState::Discarded, JobState::Succeeded));
    let why = below.job(asked).await;
    assert!(
        format!("{why:?}").contains("the license is suspended and does not allow server_provisioning now"),
        "{why:?}"
    );
    // When it is allowed again, it is retried and runs.
    decide(&platform, &acme, Status::Active).await;
    below.retry(asked).await;
    platform.run_jobs().await;
    assert_eq!(below.state(asked).await, JobState::Succeeded);
    // Over a limit nothing comes into being.
    give(&platform, &acme, None, &[("child_organizations", 0)]).await;
    let over = below.enqueue(Provision {}).await;
    platform.run_jobs().await;
    assert_eq!(below.state(over).await, JobState::Discarded);
    assert!(format!("{:?}", below.job(over).await).contains("more child organizations than the license allows"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn from_valid_to_renewed_only_growth_changes_and_what_runs_is_untouched(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    make_child(&acme, "first").await.unwrap();
    acme.endpoint("https://receiver.example/hooks").await;
    let every_hour = gantry_jobs::schedule::NewSchedule {
        name: "every hour".to_owned(),
        kind: "diagnostics.probe".to_owned(),
        payload: json!({}),
        cron: "0 * * * *".to_owned(),
        time_zone: "UTC".to_owned(),
        missed_runs: gantry_schema::schedules::cron::MissedRuns::Once,
        overlap: gantry_schema::schedules::cron::Overlap::Allow,
        jitter_seconds: 0,
    };
    acme.schedule(every_hour).await;
    give(&platform, &acme, Some(platform.now() + Duration::days(90)), &[("child_organizations", 10)]).await;
    let mut number = 0;
    let mut after = async |days: i64, expected: &str, grows: bool, provisions: bool| {
        platform.clock.advance(Duration::days(days));
        assert_eq!(state(&platform, &acme).await, expected);
        number += 1;
        // What runs: its schedule, its deliveries, its jobs.
        let (ran, arrived) = (probes(&platform).await, platform.hooks.deliveries().len());
        acme.event("a.story", json!({ "number": number })).await;
        let job = acme.enqueue(Scripted::fine("daily work")).await;
        platform.clock.advance(Duration::hours(1));
        platform.tick().await;
        platform.run_jobs().await;
        assert!(probes(&platform).await > ran, "the schedule of {expected} goes on");
        assert!(platform.hooks.deliveries().len() > arrived, "the webhooks of {expected} arrive");
        assert_eq!(acme.state(job).await, JobState::Succeeded);
        // What is added.
        let made = make_child(&acme, &format!("child {number}")).await;
        assert_eq!(made, if grows { Ok(()) } else { Err("license_state".to_owned()) }, "{expected}");
        let provision = acme.enqueue(Provision {}).await;
        platform.run_jobs().await;
        let ended = if provisions { JobState::Succeeded } else { JobState::Discarded };
        assert_eq!(acme.state(provision).await, ended, "{expected}");
    };
    after(0, "valid", true, true).await;
    after(69, "warning", true, true).await;
    after(21, "grace", true, false).await;
    after(7, "expired", false, false).await;
    give(&platform, &acme, Some(platform.now() + Duration::days(90)), &[("child_organizations", 10)]).await;
    after(0, "valid", true, true).await;
    let below =
        "select count(*) from organizations where parent_id is not null and deleted_at is null and name <> 'acme'";
    assert_eq!(platform.count(below).await, 5, "what was there is there, and what was refused is not");
}

async fn probes(platform: &Platform) -> i64 {
    platform.count("select count(*) from jobs where kind = 'diagnostics.probe' and state = 'succeeded'").await
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_was_used_for_a_moment_is_in_the_history_of_its_day(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    give(&platform, &acme, None, &[("child_organizations", 10)]).await;
    watch(&platform).await;
    for number in 0..4 {
        make_child(&acme, &format!("child {number}")).await.unwrap();
    }
    let window = gantry_schema::Window::new(gantry_schema::Order::Ascending, 10);
    let children = organizations::list(&mut acme.begin().await, window).await.unwrap();
    for child in children.iter().filter(|found| found.parent == Some(acme.id)).take(3) {
        let mut tx = acme.begin().await;
        assert!(organizations::lifecycle::delete(&mut tx, child.id).await.unwrap());
        tx.commit().await.unwrap();
    }
    let used = async || {
        let wanted = history::Wanted { limit: Some("child_organizations".to_owned()), ..history::Wanted::default() };
        let order = gantry_schema::Order::Ascending;
        let found = history::list(&mut acme.begin().await, &wanted, order, 10).await.unwrap();
        found.into_iter().map(|used| (used.used, used.most)).collect::<Vec<_>>()
    };
    watch(&platform).await;
    assert_eq!(used().await, [(4, Some(10))], "nobody looked while there were four");
    platform.clock.advance(Duration::days(1));
    watch(&platform).await;
    assert_eq!(used().await, [(4, Some(10)), (1, Some(10))], "the next day is its own");
}
