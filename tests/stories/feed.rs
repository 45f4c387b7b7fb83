//! Events as they are written down and read.

use gantry_jobs::webhooks::{self, Emitted};
use gantry_schema::webhooks::events::{self, Filter, Place};
use gantry_schema::webhooks::fan_out::NewEvent;
use gantry_tests::{Actor, Platform};
use serde_json::json;
use sqlx::PgPool;

fn new(event_type: &str, channels: &[&str], key: Option<&str>) -> NewEvent {
    NewEvent {
        r#type: event_type.to_owned(),
        payload: json!({ "key": key }),
        channels: channels.iter().map(ToString::to_string).collect(),
        key: key.map(ToOwned::to_owned),
    }
}

async fn emit(acme: &Actor, events: Vec<NewEvent>) -> Vec<Emitted> {
    let mut tx = acme.begin().await;
    let emitted = webhooks::emit_all(&mut tx, events, &acme.by()).await.unwrap();
    tx.commit().await.unwrap();
    emitted
}

async fn read(acme: &Actor, after: Place) -> Vec<events::Placed> {
    let mut tx = acme.begin().await;
    events::feed(&mut tx, &Filter::default(), after, 100).await.unwrap().events
}

/// Reads until there are so many: transactions of other stories on the same server are waited for as well.
async fn read_all(acme: &Actor, after: Place, count: usize) -> Vec<events::Placed> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
    loop {
        let seen = read(acme, after).await;
        if seen.len() >= count || std::time::Instant::now() > deadline {
            return seen;
        }
        tokio::task::yield_now().await;
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_event_posted_again_under_its_key_is_the_same_event(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    acme.endpoint("https://a.example/").await;
    let first = emit(&acme, vec![new("a.b", &[], Some("k1"))]).await.remove(0);
    assert_eq!((first.existing, first.deliveries, first.jobs.len()), (false, 1, 1));
    let again = emit(&acme, vec![new("a.b", &[], Some("k2")), new("other", &[], Some("k1"))]).await;
    assert_eq!((again[0].existing, again[1].existing), (false, true));
    assert_eq!((again[1].event.id, again[1].event.r#type.as_str()), (first.event.id, "a.b"));
    assert_eq!((again[1].deliveries, again[1].jobs.len()), (0, 0));
    let twice = emit(&acme, vec![new("a", &[], Some("k3")), new("b", &[], Some("k3"))]).await;
    assert_eq!(twice[0].event.id, twice[1].event.id, "in one request as well");
    let other = platform.organization("other").await;
    assert!(!emit(&other, vec![new("a.b", &[], Some("k1"))]).await[0].existing, "keys are the organization's own");
    assert_eq!(platform.run_jobs().await, 3);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_endpoint_that_names_channels_gets_events_of_theirs_only(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let all = acme.endpoint("https://all.example/").await;
    let blue =
        acme.endpoint_with("https://blue.example/", |it| it.channels = vec!["blue".into(), "green".into()]).await;
    emit(
        &acme,
        vec![
            new("a", &["blue"], None),
            new("b", &["red"], None),
            new("c", &[], None),
            new("d", &["red", "green"], None),
        ],
    )
    .await;
    platform.run_jobs().await;
    assert_eq!(platform.hooks.deliveries_to(&all.url).len(), 4);
    assert_eq!(platform.hooks.deliveries_to(&blue.url).len(), 2);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn nothing_appears_behind_a_reader_of_the_feed(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    // The slow transaction has the smaller ids, and commits last.
    let mut slow = acme.begin().await;
    webhooks::emit_all(&mut slow, vec![new("slow", &[], None)], &acme.by()).await.unwrap();
    emit(&acme, vec![new("fast", &[], None)]).await;
    let seen = read(&acme, Place::BEGINNING).await;
    assert!(seen.is_empty(), "what could still be preceded is not shown: {seen:?}");
    slow.commit().await.unwrap();
    emit(&acme, vec![new("late", &[], None)]).await;
    let seen = read_all(&acme, Place::BEGINNING, 3).await;
    let types: Vec<&str> = seen.iter().map(|placed| placed.event.r#type.as_str()).collect();
    assert_eq!(types, ["slow", "fast", "late"]);
    let rest = read_all(&acme, seen[0].place, 2).await;
    assert_eq!(rest.len(), 2);
    assert!(read(&acme, seen[2].place).await.is_empty());
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_hardly_anything_passes_is_looked_for_a_bounded_stretch_at_a_time(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    for _ in 0..3 {
        emit(&acme, (0..1_000).map(|_| new("common.thing", &[], None)).collect()).await;
    }
    let rare = emit(&acme, vec![new("rare.thing", &[], None)]).await.remove(0).event.id;
    read_all(&acme, Place::BEGINNING, 100).await;
    for types in [vec!["rare.thing".to_owned()], vec!["rare.*".to_owned()]] {
        let filter = Filter { types, channel: None };
        let (mut place, mut looks, mut found) = (Place::BEGINNING, 0, Vec::new());
        while found.is_empty() {
            let mut tx = acme.begin().await;
            let look = events::feed(&mut tx, &filter, place, 10).await.unwrap();
            assert!(look.is_end || look.place > place, "it goes on");
            looks += usize::from(look.place > place);
            (place, found) = (look.place, look.events);
        }
        assert_eq!((found[0].event.id, found[0].place), (rare, place));
        // One more for each time that it ended before somebody's transaction, of whatever database of the server.
        assert!((2..=6).contains(&looks), "{looks} looks");
        let mut tx = acme.begin().await;
        let look = events::feed(&mut tx, &filter, place, 10).await.unwrap();
        assert_eq!((look.events.len(), look.place, look.is_end), (0, place, true));
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_thousand_events_for_ten_endpoints_are_one_posting(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    for number in 0..10 {
        acme.endpoint(&format!("https://{number}.example/")).await;
    }
    let emitted = emit(&acme, (0..1_000).map(|_| new("a", &[], None)).collect()).await;
    assert_eq!(emitted.iter().map(|emitted| emitted.jobs.len()).sum::<usize>(), 10_000);
    assert_eq!(platform.count("select count(*) from job_dispatch").await, 10_000);
    platform.leaves_jobs();
}
