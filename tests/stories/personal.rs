//! What people are entitled to: a copy of what is known of them, and to be forgotten without a trace, but for a record that still
//! verifies.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use chrono::Duration;
use gantry_jobs::audit::CheckpointRecord;
use gantry_jobs::messages;
use gantry_jobs::personal::{ErasePerson, ExportPerson};
use gantry_schema::api_keys::{self, NewApiKey, Token};
use gantry_schema::audit::queries::{self, Filter};
use gantry_schema::audit::verify::{self, Against};
use gantry_schema::audit::vouching::Vouching;
use gantry_schema::audit::{Actor as Doer, Author, Target, keys};
use gantry_schema::defence::sign_ins;
use gantry_schema::memberships::{Role, invitations};
use gantry_schema::messages::queries::NewMessage;
use gantry_schema::messages::{Recipient, templates};
use gantry_schema::organizations::Permission;
use gantry_schema::people::{self, Email, NewPerson, one_time};
use gantry_schema::personal::{erasures, exports};
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::{ErasureId, ExportId, Order, OrganizationId, PersonId, Window, factors, sessions, token};
use gantry_tests::platform::Platform;
use gantry_tests::{Actor, process};
use rand::SeedableRng as _;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};

const NAME: &str = "Adalbertina Quixotrova";
const EMAIL: &str = "Adalbertina@quixotrova.example";
const PHONE: &str = "+436601234567";
const ADDRESS: &str = "198.51.100.77";
const PROGRAM: &str = "quixotrova-deployer/1";

fn seeded(number: u64) -> rand::rngs::StdRng {
    rand::rngs::StdRng::seed_from_u64(number)
}

/// Somebody who leaves something of herself wherever one can.
struct Story {
    platform: Platform,
    acme: Actor,
    globex: Actor,
    ada: PersonId,
    eve: PersonId,
}

fn author(person: PersonId) -> Arc<Author> {
    let address: IpAddr = ADDRESS.parse().unwrap();
    let doer = Doer::person(person).called(NAME);
    Arc::new(Author { address: Some(address), user_agent: Some(PROGRAM.to_owned()), ..Author::new(doer) })
}

async fn story(pool: PgPool) -> Story {
    let platform = Platform::new(pool).await;
    let (acme, globex) = (platform.organization("acme").await, platform.organization("globex").await);
    let (ada, email): (PersonId, Email) = (platform.ids().mint(), EMAIL.parse().unwrap());
    let mut tx = platform.db().person(ada).await.unwrap();
    let new = NewPerson { id: ada, email: &email, email_verified: true, name: NAME, locale: "en" };
    people::insert(&mut tx, &new).await.unwrap();
    let hash = people::hashing::Hashed { text: "a hash".to_owned(), peppered: false };
    people::passwords::set(&mut tx, ada, &hash, true).await.unwrap();
    let new = sessions::NewSession {
        id: platform.ids().mint(),
        person: ada,
        organization: Some(acme.id),
        kind: sessions::Kind::Program,
        methods: &["pwd"],
        factors: &[],
        address: Some(ADDRESS),
        user_agent: Some(PROGRAM),
        idle: Duration::hours(1),
        lasts: Duration::hours(12),
    };
    sessions::open(&mut tx, &new).await.unwrap();
    let sign_in = sign_ins::SignIn { occurred_at: platform.now(), device: [0; 32], country: None, spot: None };
    sign_ins::keep(&mut tx, ada, &sign_in).await.unwrap();
    let phone =
        factors::insert_address(&mut tx, ada, factors::Kind::Sms, "Quixotrova's telephone", PHONE).await.unwrap();
    factors::codes::keep(&mut tx, ada, phone.id, "1234567").await.unwrap();
    tx.commit().await.unwrap();
    let eve = platform.person("eve@example.com").await;
    acme.takes_in(eve, Role::Owner).await;
    acme.takes_in(ada, Role::Owner).await;
    globex.takes_in(ada, Role::Member).await;
    let story = Story { platform, acme, globex, ada, eve };
    story.leaves_traces(&story.acme, 1).await;
    story.leaves_traces(&story.globex, 2).await;
    story.platform.run_jobs().await;
    story
}

impl Story {
    /// She does something, something is done to her, she makes a key, is invited, and is written to.
    async fn leaves_traces(&self, of: &Actor, number: u64) {
        let email: Email = EMAIL.to_lowercase().parse().unwrap();
        let mut tx = of.db().tenant_for(of.id, self.ada).await.unwrap().by(author(self.ada));
        let key = token_of(number);
        let new = NewApiKey {
            owner: Some(self.ada),
            ..NewApiKey::of_organization("Quixotrova's laptop", &[Permission::ReadJobs])
        };
        let key = api_keys::create(&mut tx, &key, &new).await.unwrap();
        tx.record("api_key.create").on(&key.id).called(&key.name).identifying(self.ada).set("name", &key.name);
        let invite = token::InviteToken::generate(&mut seeded(number));
        invitations::create(&mut tx, &email, Role::Viewer, &invite, "story").await.unwrap();
        let brand = messages::brand(&mut tx).await.unwrap();
        let content = templates::reset_password(&brand, "https://cloud.example/");
        let new = NewMessage {
            kind: "story",
            to: &Recipient::Mail(EMAIL.parse().unwrap()),
            content: &content,
            reference: None,
            expires_at: None,
        };
        messages::send(&mut tx, &self.platform.sealing_keys(), &new, &of.by()).await.unwrap();
        let new = one_time::NewToken {
            purpose: one_time::Purpose::ChangeEmail,
            email: &email,
            person: Some(self.ada),
            name: Some(NAME),
            locale: None,
        };
        if number == 1 {
            let mut platform = self.platform.operator().begin().await;
            let token = token::OneTimeToken::generate(&mut seeded(number));
            one_time::keep(&mut platform, &token, &new).await.unwrap();
            platform.commit().await.unwrap();
        }
        tx.commit().await.unwrap();
        let mut tx = of.begin().await.by(author(self.eve));
        let target = Target::of(&self.ada).called(NAME).identifying(self.ada.uuid());
        tx.record("member.update").target(target).changed("name", NAME, "Ada");
        tx.commit().await.unwrap();
    }

    async fn asks_for_a_copy(&self) -> ExportId {
        let (id, operator): (ExportId, _) = (self.platform.ids().mint(), self.platform.operator());
        let job = operator.enqueue(ExportPerson { export: id, person: self.ada }).await;
        let mut tx = self.platform.db().person(self.ada).await.unwrap();
        exports::ask(&mut tx, self.ada, id, job).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    async fn asks_to_be_forgotten(&self) -> ErasureId {
        let (id, operator): (ErasureId, _) = (self.platform.ids().mint(), self.platform.operator());
        let mut tx = operator.begin().await;
        erasures::ask(&mut tx, self.ada, id, self.platform.ids().mint()).await.unwrap();
        tx.commit().await.unwrap();
        operator.enqueue(ErasePerson { erasure: id, person: self.ada }).await;
        self.platform.run_jobs().await;
        id
    }

    async fn erasure(&self, id: ErasureId) -> erasures::Erasure {
        erasures::find(&mut self.platform.operator().begin().await, id).await.unwrap().unwrap()
    }

    async fn checkpoint(&self) {
        self.platform.operator().enqueue(CheckpointRecord::default()).await;
        self.platform.run_jobs().await;
    }

    /// Public keys of the installation.
    async fn keys(&self) -> keys::PublicKeys {
        keys::believed(&mut self.platform.operator().begin().await, &self.platform.sealing_keys()).await.unwrap()
    }

    async fn verifies(&self, organization: OrganizationId) {
        let (db, sealing) = (self.platform.db(), self.platform.sealing_keys());
        let vouching = Vouching::with(sealing);
        let witnesses: HashMap<_, _> = verify::witnesses(db, &vouching).await.unwrap();
        let against = Against { witness: witnesses.get(&organization), kept: &[] };
        let keys = self.keys().await;
        let verdict = verify::organization(db, &vouching, &keys, organization, &against).await.unwrap();
        assert_eq!(verdict.problems, [], "{organization}");
        assert!(verdict.sealed > 0, "{organization}");
    }

    /// Everything that lies in the database, as text.
    async fn dump(&self) -> String {
        let tables = crate::tenancy::tables(&self.platform.owner).await;
        let mut all = String::new();
        for table in tables {
            let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!("select t::text from {table} t")))
                .fetch_all(&self.platform.owner)
                .await
                .unwrap();
            all.push_str(&rows.join("\n"));
        }
        all.to_lowercase()
    }

    /// What of hers is found in it.
    async fn found(&self) -> BTreeSet<&'static str> {
        let dump = self.dump().await;
        let hexed = |text: &str| gantry_schema::digest::hex(text.as_bytes());
        ["adalbertina", "quixotrova", PHONE, ADDRESS]
            .into_iter()
            .filter(|text| dump.contains(text) || dump.contains(&hexed(text)))
            .collect()
    }

    async fn told(&self, of: &Actor, event: PlatformEvent) -> Vec<Value> {
        sqlx::query_scalar("select payload from events where organization_id = $1 and type = $2 order by id")
            .bind(of.id.uuid())
            .bind(event.name())
            .fetch_all(&self.platform.owner)
            .await
            .unwrap()
    }
}

fn token_of(number: u64) -> Token {
    Token::generate(&mut seeded(number))
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_copy_has_what_is_known_of_somebody_everywhere_and_is_signed(pool: PgPool) {
    let story = story(pool).await;
    let id = story.asks_for_a_copy().await;
    story.platform.run_jobs().await;
    let keys = process::sealing_keys().unwrap();
    let mut tx = story.platform.db().person(story.ada).await.unwrap();
    let export = exports::latest(&mut tx, story.ada).await.unwrap().unwrap();
    let content = exports::content(&mut tx, &keys, story.ada, id).await.unwrap().unwrap();
    drop(tx);
    let made = export.made.unwrap();
    assert_eq!(made.receipt.statement, exports::statement(id, story.ada, &content, made.at));
    assert!(made.receipt.is_signed_by(&story.keys().await[&made.receipt.key]), "by the installation");
    assert_eq!(usize::try_from(made.bytes).unwrap(), content.len());

    let copy: Value = serde_json::from_slice(&content).unwrap();
    assert_eq!((&copy["person"]["name"], &copy["person"]["email"]), (&json!(NAME), &json!(EMAIL)));
    assert_eq!(copy["memberships"].as_array().unwrap().len(), 2);
    assert_eq!(copy["sessions"][0]["address"], ADDRESS);
    assert_eq!(copy["second_factors"][0]["address"], PHONE);
    assert_eq!(copy["invitations"].as_array().unwrap().len(), 2);
    assert_eq!(copy["complete"], true);
    let of = |organization: &Actor| {
        let all = copy["organizations"].as_array().unwrap();
        all.iter().find(|it| it["organization_id"] == organization.id.to_string()).unwrap().clone()
    };
    for organization in [of(&story.acme), of(&story.globex)] {
        assert_eq!(organization["api_keys"][0]["name"], "Quixotrova's laptop");
        assert_eq!(organization["messages"][0]["recipient"], EMAIL);
        let actions: Vec<&str> =
            organization["record"].as_array().unwrap().iter().map(|it| it["action"].as_str().unwrap()).collect();
        assert_eq!(actions, ["api_key.create", "member.update"], "what she did, and what was done to her");
        assert_eq!(organization["record"][0]["address"], ADDRESS);
    }
    // Nothing in it proves anything, and nobody else is in it.
    let text = String::from_utf8(content).unwrap();
    assert!(!text.contains("a hash") && !text.contains("eve@example.com"), "{text}");

    // It lies sealed, is nobody else's, and is gone when its time is over.
    let mut tx = story.platform.db().person(story.eve).await.unwrap();
    assert_eq!(exports::content(&mut tx, &keys, story.ada, id).await.unwrap(), None);
    drop(tx);
    story.platform.run_twice::<ExportPerson>().await;
    story.platform.clock.advance(exports::LASTS);
    let mut tx = story.platform.db().person(story.ada).await.unwrap();
    assert_eq!(exports::latest(&mut tx, story.ada).await.unwrap(), None);
    drop(tx);
    factors::forget(story.platform.ledger(), story.platform.now(), 100).await.unwrap();
    assert_eq!(story.platform.count("select count(*) from personal_exports").await, 0);
    story.platform.leaves_jobs();
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn of_whoever_is_forgotten_nothing_is_left_but_an_id_and_records_still_verify(pool: PgPool) {
    let story = story(pool).await;
    story.asks_for_a_copy().await;
    story.platform.run_jobs().await;
    story.checkpoint().await;
    let before = story.found().await;
    assert_eq!(before.len(), 4, "there is something to be found: {before:?}");

    let id = story.asks_to_be_forgotten().await;
    let erasure = story.erasure(id).await;
    assert_eq!(erasure.state, erasures::State::Done);
    let certificate = erasure.certificate.clone().unwrap();
    assert!(certificate.is_signed_by(&story.keys().await[&certificate.key]), "by the installation");
    let places = BTreeSet::from([OrganizationId::PLATFORM, story.acme.id, story.globex.id]);
    assert_eq!(certificate.statement, erasures::statement(&erasure, &places, erasure.ended_at.unwrap()));

    assert_eq!(story.found().await, BTreeSet::new(), "a dump of the tables says nothing of who she was");
    let kept = story.platform.count("select count(*) from people where state = 'erased'").await;
    assert_eq!(kept, 1, "her id is left, for what names it");
    assert_eq!(story.platform.count("select count(*) from memberships").await, 1);
    assert_eq!(story.platform.count("select count(*) from sessions where ended_at is null").await, 0);
    assert_eq!(story.platform.count("select count(*) from api_keys where revoked_at is null").await, 0);
    assert_eq!(story.platform.count("select count(*) from factors").await, 0);
    assert_eq!(story.platform.count("select count(*) from personal_exports").await, 0);
    for organization in [&story.acme, &story.globex] {
        let told = story.told(organization, PlatformEvent::MemberRemoved).await;
        assert_eq!(told, [json!({ "person_id": story.ada, "reason": "erased" })]);
        assert_eq!(story.told(organization, PlatformEvent::ApiKeyRevoked).await.len(), 1);
    }

    // What she did is on record, by her id; what others did opens as before.
    let mut tx = story.acme.begin().await;
    let window = Window::new(Order::Ascending, 100);
    let entries = queries::list(&mut tx, &story.platform.sealing_keys(), &Filter::default(), window).await.unwrap();
    tx.rollback().await.unwrap();
    let made = entries.iter().find(|entry| entry.action == "api_key.create").unwrap();
    assert!(made.erased && made.actor == story.ada.to_string() && made.record.actor.about.address.is_none());
    let by_eve = entries.iter().find(|entry| entry.action == "member.update").unwrap();
    assert_eq!(by_eve.record.actor.about.user_agent.as_deref(), Some(PROGRAM));
    assert_eq!(by_eve.record.target.as_ref().unwrap().display, None);
    assert!(entries.iter().any(|entry| entry.action == "person.erase"));

    story.checkpoint().await;
    for organization in [story.acme.id, story.globex.id, OrganizationId::PLATFORM] {
        story.verifies(organization).await;
    }
    // Somebody else may have the address now.
    let again = story.platform.person(EMAIL).await;
    assert_ne!(again, story.ada);
    story.platform.run_twice::<ErasePerson>().await;
    assert_eq!(story.erasure(id).await.certificate, Some(certificate));
    story.platform.leaves_jobs();
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn who_became_the_last_owner_meanwhile_is_not_forgotten_and_nothing_is_lost(pool: PgPool) {
    let story = story(pool).await;
    let mut tx = story.acme.begin().await;
    gantry_schema::memberships::members::remove(&mut tx, story.eve).await.unwrap();
    tx.commit().await.unwrap();
    let before = story.found().await;
    let id = story.asks_to_be_forgotten().await;
    let erasure = story.erasure(id).await;
    assert_eq!((erasure.state, erasure.certificate), (erasures::State::Refused, None));
    assert_eq!(story.found().await, before);
    assert_eq!(story.platform.count("select count(*) from memberships").await, 2);
    // When somebody else is one, she is.
    story.acme.takes_in(story.eve, Role::Owner).await;
    let id = story.asks_to_be_forgotten().await;
    assert_eq!(story.erasure(id).await.state, erasures::State::Done);
    assert_eq!(story.found().await, BTreeSet::new());
    story.platform.leaves_jobs();
}
