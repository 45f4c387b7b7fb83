//! People are told: once, by mail or to their telephone, whatever happens on the way.

use chrono::Duration;
use gantry_jobs::messages::{self, SendMessage};
use gantry_providers::{mail, sms};
use gantry_schema::messages::queries::{self, Message, NewMessage};
use gantry_schema::messages::templates::{code_by_sms, reset_password};
use gantry_schema::messages::{Content, Recipient, State};
use gantry_schema::organizations::settings::{self, Setting};
use gantry_schema::seal::{SealingKey, SealingKeys};
use gantry_schema::{JobId, JobTx as _, MessageId};
use gantry_tests::{Actor, Platform};
use serde_json::json;
use sqlx::PgPool;

const LINK: &str = "https://cloud.example/account?token=got_0123456789";

async fn write(platform: &Platform, of: &Actor, to: &Recipient) -> MessageId {
    let mut tx = of.begin().await;
    let brand = messages::brand(&mut tx).await.unwrap();
    let content = match to {
        Recipient::Mail(_) => reset_password(&brand, LINK),
        Recipient::Sms(_) => code_by_sms(&brand, "123456", 10, "cloud.example"),
    };
    let expires_at = Some(tx.now() + Duration::hours(1));
    let new = NewMessage { kind: "story", to, content: &content, reference: None, expires_at };
    let id = messages::send(&mut tx, &platform.sealing_keys(), &new, &of.by()).await.unwrap();
    tx.commit().await.unwrap();
    id
}

async fn find(platform: &Platform, of: &Actor, id: MessageId) -> Message {
    queries::find(&mut of.begin().await, &platform.sealing_keys(), id).await.unwrap().unwrap()
}

fn ada() -> Recipient {
    Recipient::Mail("ada@example.com".parse().unwrap())
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn mail_and_text_messages_reach_whom_they_are_for_in_the_name_of_the_organization(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let mut tx = acme.begin().await;
    settings::set(&mut tx, Setting::BrandName, &json!("Acme Cloud"), false).await.unwrap();
    tx.commit().await.unwrap();
    let letter = write(&platform, &acme, &ada()).await;
    let text = write(&platform, &acme, &Recipient::Sms("+43 660 1234567".parse().unwrap())).await;
    platform.run_jobs().await;

    let arrived = platform.mail.last_to("ada@example.com").unwrap();
    assert_eq!((arrived.id.as_str(), arrived.from_name.as_deref()), (letter.to_string().as_str(), Some("Acme Cloud")));
    assert!(arrived.subject.contains("Acme Cloud") && arrived.text.contains(LINK) && arrived.html.contains(LINK));
    let message = find(&platform, &acme, letter).await;
    assert_eq!((message.state, message.provider.as_deref()), (State::Sent, Some("sandbox")));
    assert!(message.provider_reference.unwrap().starts_with("sandbox") && message.content.is_some());

    assert!(platform.sms.last_to("+436601234567").unwrap().body.starts_with("123456 is your code for Acme Cloud."));
    assert_eq!(find(&platform, &acme, text).await.state, State::Sent);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_message_is_sent_once_however_often_its_job_runs(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    write(&platform, &acme, &ada()).await;
    platform.run_jobs().await;
    platform.run_twice::<SendMessage>().await;
    assert_eq!(platform.mail.letters().len(), 1);

    let ask = async || {
        write(&platform, &acme, &ada()).await;
        let id: uuid::Uuid = sqlx::query_scalar("select id from jobs where kind = $1 order by id desc limit 1")
            .bind(<SendMessage as gantry_jobs::Job>::KIND)
            .fetch_one(&platform.owner)
            .await
            .unwrap();
        JobId::from_uuid(id)
    };
    let check = async |_| {
        let queued = platform.count("select count(*) from messages where state <> 'sent'").await;
        assert_eq!(queued, 0);
    };
    platform.fail_at_each_call::<SendMessage>(ask, check).await;
    let sent = platform.count("select count(*) from messages where state = 'sent'").await;
    assert_eq!(i64::try_from(platform.mail.letters().len()).unwrap(), sent, "each letter once");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_put_off_is_tried_again_and_what_is_refused_is_given_up_with_a_reason(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    platform.mail.fail_next(mail::sandbox::Outcome::Code(451));
    platform.mail.fail_next(mail::sandbox::Outcome::Connect);
    let delayed = write(&platform, &acme, &ada()).await;
    platform.run_jobs().await;
    assert_eq!(find(&platform, &acme, delayed).await.state, State::Queued);
    platform.run_through(Duration::minutes(5)).await;
    assert_eq!(find(&platform, &acme, delayed).await.state, State::Sent);

    platform.mail.fail_next(mail::sandbox::Outcome::Code(550));
    platform.sms.fail_next(sms::sandbox::Outcome::Rejected(21_610));
    let letter = write(&platform, &acme, &ada()).await;
    let text = write(&platform, &acme, &Recipient::Sms("+436601234567".parse().unwrap())).await;
    platform.run_through(Duration::days(1)).await;
    for (id, code) in [(letter, "550"), (text, "21610")] {
        let message = find(&platform, &acme, id).await;
        assert_eq!((message.state, message.content), (State::Failed, None));
        assert!(message.error.unwrap().contains(code));
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_message_that_comes_too_late_is_not_sent(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let id = write(&platform, &acme, &ada()).await;
    platform.clock.advance(Duration::hours(2));
    platform.run_jobs().await;
    let message = find(&platform, &acme, id).await;
    assert_eq!((message.state, message.content), (State::Failed, None));
    assert!(platform.mail.letters().is_empty());
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn whom_it_is_for_and_what_it_says_lie_sealed_and_are_forgotten_in_time(pool: PgPool) {
    let mut platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let id = write(&platform, &acme, &ada()).await;
    let readable = "select count(*) from messages where position('ada@' in encode(recipient, 'escape')) > 0
                        or position('got_' in encode(content, 'escape')) > 0";
    assert_eq!(platform.count(readable).await, 0);
    let in_jobs = "select count(*) from jobs where payload::text like '%got_%' or payload::text like '%ada@%'";
    assert_eq!(platform.count(in_jobs).await, 0);

    let next = SealingKey::from_base64("next", "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=").unwrap();
    let again = SealingKey::from_base64("next", "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=").unwrap();
    let old = gantry_tests::process::sealing_key().unwrap();
    platform.seal_with(SealingKeys::new(next, vec![old]).unwrap());
    platform.operator().enqueue(gantry_jobs::maintenance::Reseal::default()).await;
    platform.run_jobs().await;
    platform.seal_with(SealingKeys::new(again, Vec::new()).unwrap());
    assert_eq!(find(&platform, &acme, id).await.recipient, "ada@example.com");

    platform.clock.advance(Duration::days(31));
    platform.operator().enqueue(gantry_jobs::maintenance::ForgetMessages::default()).await;
    platform.run_jobs().await;
    assert_eq!(platform.count("select count(*) from messages").await, 0);
}

#[test]
fn what_a_message_says_is_read_back() {
    let content = Content { subject: Some("s".to_owned()), text: "t".to_owned(), ..Content::default() };
    let written = serde_json::to_string(&content).unwrap();
    assert_eq!(serde_json::from_str::<Content>(&written).unwrap(), content);
}
