//! No tenant sees another: what the database itself guarantees, whatever a query forgets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_schema::access::support;
use gantry_schema::api_keys::NewApiKey;
use gantry_schema::factors;
use gantry_schema::jobs::{leader, lease, log, pause, workflow};
use gantry_schema::limits::Given;
use gantry_schema::memberships::{self, Role};
use gantry_schema::organizations::settings::Setting;
use gantry_schema::organizations::{self, NewOrganization, Permission};
use gantry_schema::people::{self, Email, NewPerson};
use gantry_schema::personal;
use gantry_schema::{
    Db, EngineDb, IdMint, JobTx as _, Order, OrganizationId, PersonId, PersonTx, SystemClock, TenantTx, Window,
    api_keys, db, defence, sessions, token,
};
use gantry_tests::kinds::{OneAtATime, Only, Scripted};
use gantry_tests::platform::as_role;
use gantry_tests::{Actor, Platform};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};

/// The tenants themselves, and who stands above whom; their policies are about both.
const OF_TENANTS: &[&str] = &["organizations", "organization_closure"];

/// What the platform sets and every organization may read.
pub const OF_PLATFORM: &[&str] =
    &["license_revocation_lists", "license_revocations", "license_tiers", "rate_tiers", "rate_rules"];

/// What belongs to people, who belong to no tenant: the table, and the column that names whose a row is.
const OF_PEOPLE: &[(&str, &str)] = &[
    ("people", "id"),
    ("passwords", "person_id"),
    ("sessions", "person_id"),
    ("session_tokens", "person_id"),
    ("factors", "person_id"),
    ("recovery_codes", "person_id"),
    ("pending_sign_ins", "person_id"),
    ("sign_ins", "person_id"),
    ("personal_exports", "person_id"),
    ("sent_codes", "person_id"),
];

/// Tables that name no tenant, and in which a process sees everything or nothing: which worker holds which claims,
/// what the platform signs its record with, and sqlx's record of migrations.
const WITHOUT_TENANT: &[&str] =
    &["job_leases", "job_workers", "job_leaders", "audit_keys", "audit_sealing", "installation", "_sqlx_migrations"];

/// Which of those says something to everybody: the name of the installation, and nothing of anybody.
const OF_EVERYBODY: &str = "installation";

/// What the engine may see beside the ledger of jobs and schedules: how organizations share a queue.
const ENGINE_TABLES: &[&str] = &["organizations"];

/// Of what is forgotten for everybody at once the engine sees ids and ages, and no more.
const FORGOTTEN_BY_ID: &[&str] = &[
    "api_usage",
    "cloud_credentials",
    "events",
    "factors",
    "idempotency_keys",
    "invitations",
    "messages",
    "notices",
    "oauth_authorizations",
    "oauth_device_codes",
    "oauth_refresh_tokens",
    "one_time_tokens",
    "passkey_challenges",
    "pending_sign_ins",
    "personal_exports",
    "runs",
    "sent_codes",
    "servers",
    "sessions",
    "webhook_attempts",
];

fn is_of_people(table: &str) -> bool {
    OF_PEOPLE.iter().any(|(name, _)| *name == table)
}

pub async fn strings(pool: &PgPool, statement: &str) -> Vec<String> {
    sqlx::query_scalar(AssertSqlSafe(statement.to_owned())).fetch_all(pool).await.unwrap()
}

/// Every table that is not a partition.
pub async fn tables(pool: &PgPool) -> Vec<String> {
    strings(
        pool,
        "select relname::text from pg_class where relnamespace = 'public'::regnamespace
            and relkind in ('r', 'p') and not relispartition order by 1",
    )
    .await
}

async fn as_app(platform: &Platform) -> PgConnection {
    let options = as_role(&platform.owner.connect_options(), "gantry_app");
    PgConnection::connect_with(&options).await.unwrap()
}

/// An organization with a row in every tenant table.
pub async fn furnished(platform: &Platform, name: &str) -> Actor {
    let actor = platform.organization(name).await;
    platform.organization_below(actor.id, "child").await;
    // Some of what is counted is added up, some is not yet.
    organizations::tree::add_up(platform.ledger(), 2).await.unwrap();
    actor.endpoint("https://receiver.example/fail/500").await;
    actor.event("invoice.paid", json!({})).await;
    // It is ordered, so what it gets waits in its backlog.
    let slow = actor.endpoint_with("https://slow.example/fail/500", |endpoint| endpoint.ordered = true).await;
    actor.event("invoice.paid", json!({})).await;
    assert_eq!(actor.backlog(slow.id).await, 1);
    let described = gantry_schema::webhooks::event_types::EventType {
        name: "invoice.paid".to_owned(),
        version: 1,
        description: String::new(),
        schema: json!({}),
        example: json!({}),
        deprecated: false,
    };
    somebody(platform, &format!("{name}@example.com"), &actor).await;
    let mut tx = actor.begin().await;
    gantry_schema::webhooks::event_types::put(&mut tx, &described).await.unwrap();
    let failing = gantry_schema::webhooks::event_types::PlatformEvent::EndpointFailing;
    gantry_schema::notices::write(&mut tx, failing, "an endpoint", &json!({})).await.unwrap();
    organizations::settings::set(&mut tx, Setting::BrandName, &json!(name), false).await.unwrap();
    let to = gantry_schema::messages::Recipient::Mail("ada@example.com".parse().unwrap());
    let content = gantry_schema::messages::Content { text: "a text".to_owned(), ..Default::default() };
    let message = gantry_schema::messages::queries::NewMessage {
        kind: "story",
        to: &to,
        content: &content,
        reference: None,
        expires_at: None,
    };
    gantry_schema::messages::queries::insert(&mut tx, &platform.sealing_keys(), &message).await.unwrap();
    a_server(&mut tx, &platform.sealing_keys()).await;
    memberships::custom::create(&mut tx, "Deployer", "", &[Permission::ReadJobs]).await.unwrap();
    organizations::hosts::add(&mut tx, &format!("{name}.cloud.example")).await.unwrap().unwrap();
    let bin = gantry_schema::inspector::Bin {
        id: tx.ids().mint(),
        organization: actor.id,
        name: "a bin".to_owned(),
        token: tx.ids().mint::<gantry_schema::BinId>().to_string(),
        status: 200,
        delay_ms: 0,
        created_at: tx.now(),
    };
    gantry_schema::inspector::queries::insert(&mut tx, &bin).await.unwrap();
    let inspected = gantry_schema::inspector::Inspected {
        id: tx.ids().mint(),
        bin: bin.id,
        method: "POST".to_owned(),
        path: String::new(),
        query: None,
        headers: json!([]),
        body: Vec::new(),
        truncated: false,
        received_at: tx.now(),
    };
    gantry_schema::inspector::queries::keep(&mut tx, &inspected).await.unwrap();
    let request = gantry_schema::idempotency::Request {
        key: "k",
        sender: platform.ids().mint(),
        operation: "POST /jobs",
        fingerprint: [0; 32],
    };
    let keys = platform.sealing_keys();
    gantry_schema::idempotency::keep(&mut tx, &request, 200, &BTreeMap::new(), Some(b"{}"), &keys).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = platform.operator().begin().await;
    let hour = chrono::Duration::hours(1);
    support::give(&mut tx, actor.id, "story", &[Permission::ReadJobs], "a ticket", hour).await.unwrap();
    tx.commit().await.unwrap();
    actor.enqueue(Scripted::new("gone", gantry_tests::kinds::Act::GiveUp("no".to_owned()))).await;
    platform.run_jobs().await;
    let first = actor.enqueue(Only::one("k", "alive", "existing", "a")).await;
    let second = actor.enqueue(OneAtATime::under("k")).await;
    let third = Scripted::fine("c");
    let third = actor.ask(gantry_jobs::Job::request(&third).after("a", first)).await.id;
    platform.claim(platform.ids().mint(), &[second]).await;
    let mut tx = actor.begin().await;
    workflow::steps(&mut tx, third.uuid(), &[(third, "c".to_owned(), None)]).await.unwrap();
    let line = log::Line { attempt: 1, line: 1, at: tx.now(), message: "a line".to_owned() };
    log::append(&mut tx, second, &[line]).await.unwrap();
    pause::pause(&mut tx, pause::Subject::Organization, &actor.id.uuid().to_string(), "story").await.unwrap();
    let limit = gantry_schema::jobs::limits::Limit::Queue { name: format!("queue of {name}"), running: 1 };
    gantry_schema::jobs::limits::set(&mut tx, &limit).await.unwrap();
    let given = Given {
        tier: "professional".to_owned(),
        number: None,
        bypass: false,
        monthly_calls: None,
        monthly_bytes: None,
    };
    gantry_schema::limits::give(&mut tx, &given).await.unwrap();
    called(platform, actor.id).await;
    use gantry_schema::audit::{archives, policies};
    policies::set(&mut tx, policies::Policy { forwards: false, keep_days: Some(90) }).await.unwrap();
    let archive = archives::Archive {
        id: tx.ids().mint(),
        first: 1,
        through: 1,
        sha256: Vec::new(),
        made_at: tx.now(),
        confirmed_at: None,
    };
    archives::insert(&mut tx, &archive).await.unwrap();
    defence::policies::set(&mut tx, &defence::Policy::default()).await.unwrap();
    defence::lockdowns::start(&mut tx, actor.id, "a story", &["no queue".to_owned()], "story").await.unwrap();
    licensed(platform, &actor).await;
    let token = api_keys::Token::generate(&mut seeded(name));
    api_keys::create(&mut tx, &token, &NewApiKey::of_organization("a key", &[Permission::ReadJobs])).await.unwrap();
    tx.commit().await.unwrap();
    let every_minute = gantry_jobs::schedule::NewSchedule {
        name: "every minute".to_owned(),
        kind: "diagnostics.probe".to_owned(),
        payload: json!({}),
        cron: "* * * * *".to_owned(),
        time_zone: "UTC".to_owned(),
        missed_runs: gantry_schema::schedules::cron::MissedRuns::Once,
        overlap: gantry_schema::schedules::cron::Overlap::Allow,
        jitter_seconds: 0,
    };
    actor.schedule(every_minute).await;
    platform.clock.advance(chrono::Duration::minutes(1));
    platform.tick().await;
    let worker = lease::Worker {
        id: platform.ids().mint(),
        host: "story".to_owned(),
        pid: 1,
        version: "0".to_owned(),
        queues: json!({}),
        state: "running".to_owned(),
        started_at: platform.now(),
        heartbeat_at: platform.now(),
    };
    lease::heartbeat(platform.ledger(), &worker, &[]).await.unwrap();
    let person: uuid::Uuid = platform.ids().mint();
    let mut tx = actor.begin().await;
    let target = gantry_schema::audit::Target::named("person", "somebody").called("Somebody").identifying(person);
    tx.record("a.furnishing").target(target);
    tx.commit().await.unwrap();
    let vouching = Arc::new(gantry_schema::audit::vouching::Vouching::with(platform.sealing_keys()));
    gantry_schema::audit::sealing::seal(platform.ledger(), &vouching, 100).await.unwrap();
    gantry_schema::audit::checkpoints::make(platform.ledger(), &vouching, Some(actor.id), 100).await.unwrap();
    // There is one from 256 entries on.
    let node = format!("insert into audit_nodes values ('{}', 8, 0, '')", actor.id.uuid());
    sqlx::raw_sql(AssertSqlSafe(node)).execute(&platform.owner).await.unwrap();
    // Nothing is so old yet that it was dropped.
    let beginning =
        format!("insert into audit_beginnings values ('{}', 1, '', '', 0, 0, now(), '', '')", actor.id.uuid());
    sqlx::raw_sql(AssertSqlSafe(beginning)).execute(&platform.owner).await.unwrap();
    leader::hold(platform.ledger(), "a duty", worker.id, std::time::Duration::from_mins(1)).await.unwrap();
    actor
}

/// A license of the organization, signed with a key of its own.
async fn licensed(platform: &Platform, of: &Actor) {
    use gantry_schema::licenses::{
        Anchors, Chain, Kind, Limit, chain, claiming, claims, code, history, listed, queries, revocations, stated,
    };
    let mut tx = of.begin().await;
    let key = queries::issuer(&mut tx, &platform.sealing_keys()).await.unwrap();
    let claims = claims::Claims {
        ver: claims::VERSION,
        jti: tx.ids().mint(),
        iss: "story".to_owned(),
        sub: of.id,
        aud: claims::ANY_INSTANCE.to_owned(),
        iat: tx.now(),
        nbf: tx.now(),
        exp: None,
        typ: Kind::Perpetual,
        tier: "enterprise".to_owned(),
        feat: BTreeSet::new(),
        lim: BTreeMap::new(),
        dom: Vec::new(),
        grace: 0,
        deg: BTreeMap::new(),
        gra: BTreeSet::new(),
        seq: 1,
        par: None,
        cld: None,
        off: None,
        epo: 0,
    };
    let text = chain::issue(None, &claims, &key).unwrap();
    let chain = Chain::verify(&text, &Anchors::of([key.public()])).unwrap();
    queries::put_in_force(&mut tx, &chain, &text).await.unwrap();
    queries::note_told(&mut tx, claims.jti, &["80_percent_of_users".to_owned()]).await.unwrap();
    let any_number = |limit: &Limit| queries::Counter { limit: *limit, most: None, grows_until: None };
    queries::count_by(&mut tx, &Limit::ALL.iter().map(any_number).collect::<Vec<_>>()).await.unwrap();
    let code = code::ClaimCode::generate(&mut seeded("a code"));
    claiming::keep(&mut tx, code, &chain, &text, OrganizationId::PLATFORM, "story").await.unwrap();
    let (usage, limits) = (BTreeMap::from([("users".to_owned(), 3)]), BTreeMap::new());
    history::note(&mut tx, claims.jti, &usage, &limits).await.unwrap();
    stated::make(&mut tx, &key).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = platform.operator().begin().await;
    let revoked = revocations::Revocations {
        ver: revocations::VERSION,
        iss: "story".to_owned(),
        iat: tx.now(),
        epo: 1,
        rev: BTreeSet::from([claims.jti]),
    };
    listed::take(&mut tx, &key.public().id(), &revoked, "a list").await.unwrap();
    tx.commit().await.unwrap();
}

/// A server with all that belongs to it.
async fn a_server(tx: &mut TenantTx, sealing: &gantry_schema::seal::SealingKeys) {
    use gantry_schema::credentials::{self, Cloud, Credential};
    use gantry_schema::servers::{self, RunKind, keys, plans, runs, states};
    let credential = Credential::Sandbox { token: "sandbox-of-a-story".to_owned() };
    let credential = credentials::queries::insert(tx, sealing, "a credential", &credential).await.unwrap();
    let catalogue = serde_json::json!({ "currency": "USD" });
    credentials::accounts::keep_catalogue(tx, credential, "", &catalogue).await.unwrap();
    let orphan = credentials::orphans::Orphan {
        kind: "machine".to_owned(),
        id: "a thing".to_owned(),
        name: String::new(),
        region: String::new(),
        server: "srv_01h455vb4pex5vsknk084sn02q".to_owned(),
        found_at: tx.now(),
    };
    assert_eq!(credentials::orphans::keep(tx, credential, &[orphan]).await.unwrap(), Some(1));
    let ssh_key = keys::ensure(tx, sealing).await.unwrap();
    let new = servers::queries::NewServer {
        name: "web-1",
        cloud: Cloud::Sandbox,
        credential,
        region: "sandbox-1",
        size: "small",
        image: "debian-12",
        labels: &BTreeMap::new(),
        options: &servers::Options::default(),
    };
    let server = servers::queries::insert(tx, &new, ssh_key).await.unwrap();
    let stack = servers::queries::find(tx, server).await.unwrap().unwrap().stack;
    a_module(tx, sealing, stack).await;
    let run = runs::insert(tx, stack, RunKind::Provision, "story").await.unwrap();
    let cost = plans::Cost { monthly: 500, currency: "USD" };
    plans::keep(tx, sealing, run, b"a plan", &plans::Summary::default(), cost).await.unwrap();
    let fence = states::take_over(tx, stack).await.unwrap();
    let writer = states::Writer { stack, fence, run, lock: None };
    let state = br#"{"version": 4, "serial": 1, "lineage": "a"}"#;
    states::write(tx, sealing, writer, state).await.unwrap();
}

/// A module that a server is made of.
async fn a_module(tx: &mut TenantTx, sealing: &gantry_schema::seal::SealingKeys, stack: gantry_schema::StackId) {
    use gantry_schema::credentials::Cloud;
    use gantry_schema::modules::{Given, Source, queries};
    let new = queries::NewModule { name: "a module", cloud: Cloud::Sandbox, description: "" };
    let module = queries::insert(tx, new).await.unwrap();
    let version = queries::add_version(tx, module, &Source::Archive, Some(b"an archive")).await.unwrap();
    let secret = BTreeMap::from([("password".to_owned(), json!("hunter22"))]);
    queries::give(tx, sealing, stack, version, &Given { secret, ..Given::default() }).await.unwrap();
}

/// Somebody of the organization called something.
async fn called(platform: &Platform, organization: OrganizationId) {
    use gantry_schema::usage::{self, Counted, Step, Totals};
    let counted = Counted {
        organization_id: organization.uuid(),
        step: Step::Hour.as_str(),
        starts_at: Step::Hour.beginning(platform.now()),
        credential_kind: usage::CredentialKind::Person.as_str(),
        credential_id: platform.ids().mint(),
        operation: "listJobs",
        totals: Totals { calls: 1, ..Totals::default() },
    };
    let month = (organization, usage::month_of(platform.now()), 1, 0);
    usage::add(platform.db(), &[counted], &[month]).await.unwrap();
}

/// A member of the organization, with a row in every table of people.
async fn somebody(platform: &Platform, email: &str, of: &Actor) -> PersonId {
    let person = platform.person(email).await;
    let mut tx = platform.db().person(person).await.unwrap();
    let hash = people::hashing::Hashed { text: "a hash".to_owned(), peppered: false };
    people::passwords::set(&mut tx, person, &hash, true).await.unwrap();
    let session = signed_in(platform, &mut tx, of.id).await;
    let token = token::AccessToken::generate(&mut seeded(email));
    let until = platform.now() + chrono::Duration::minutes(15);
    sessions::give(&mut tx, &session, token.hash(), sessions::TokenKind::Access, until).await.unwrap();
    let sign_in = defence::sign_ins::SignIn { occurred_at: platform.now(), device: [0; 32], country: None, spot: None };
    defence::sign_ins::keep(&mut tx, person, &sign_in).await.unwrap();
    tx.commit().await.unwrap();
    of.takes_in(person, Role::Member).await;

    let address: Email = email.parse().unwrap();
    let new = people::one_time::NewToken {
        purpose: people::one_time::Purpose::ResetPassword,
        email: &address,
        person: Some(person),
        name: None,
        locale: None,
    };
    let mut tx = of.begin().await;
    people::one_time::keep(&mut tx, &token::OneTimeToken::generate(&mut seeded(email)), &new).await.unwrap();
    let invite = token::InviteToken::generate(&mut seeded(email));
    memberships::invitations::create(&mut tx, &address, Role::Viewer, &invite, "story").await.unwrap();
    tx.commit().await.unwrap();
    let_act(person, of).await;
    with_factors(platform, person, of).await;
    person
}

/// What the person proves himself with, and what lies around it.
async fn with_factors(platform: &Platform, person: PersonId, of: &Actor) {
    let mut random = seeded(&person.to_string());
    let mut tx = platform.db().person(person).await.unwrap();
    let id = platform.ids().mint();
    let sealed = platform.sealing_keys().seal(&factors::place(id), &[7; 20]).unwrap();
    factors::insert_totp(&mut tx, person, id, "a telephone", &sealed).await.unwrap();
    factors::codes::keep(&mut tx, person, id, "1234567").await.unwrap();
    let export = platform.ids().mint();
    personal::exports::ask(&mut tx, person, export, platform.ids().mint()).await.unwrap();
    let salt = people::hashing::Salt { bytes: [7; 16], peppered: false };
    factors::recovery::replace(&mut tx, person, &[[7; 32]], &salt).await.unwrap();
    let new = factors::pending::NewPending {
        person,
        kind: sessions::Kind::Program,
        organization: Some(of.id),
        methods: &["pwd"],
        user_agent: None,
        mailed_code: None,
    };
    factors::pending::keep(&mut tx, &token::SignInToken::generate(&mut random), &new).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = of.begin().await;
    let purpose = factors::challenges::Purpose::Prove;
    factors::challenges::keep(&mut tx, person.uuid().as_bytes(), purpose, Some(person), &json!({})).await.unwrap();
    personal::erasures::ask(&mut tx, person, platform.ids().mint(), platform.ids().mint()).await.unwrap();
    let other = platform.person(&format!("other-of-{person}@example.com")).await;
    factors::resets::ask(&mut tx, person, other, "a reason").await.unwrap();
    tx.commit().await.unwrap();
}

/// An application of the organization that the person lets act for him, with whatever it gets on the way.
async fn let_act(person: PersonId, of: &Actor) {
    use gantry_schema::oauth::{self, authorizations, clients, codes, devices, grants, jwt, keys, refresh};
    let mut tx = of.begin().await;
    let mut random = seeded(&person.to_string());
    let (secret, public_key) = jwt::generate().unwrap();
    let (created_at, scopes) = (tx.now(), oauth::scope::Scopes::from_words("openid jobs:read"));
    let key = keys::SigningKey {
        id: tx.ids().mint(),
        public_key,
        secret: secret.to_vec(),
        created_at,
        signs_from: created_at,
        expires_at: None,
    };
    keys::add(&mut tx, &key).await.unwrap();
    let client = clients::Client {
        id: tx.ids().mint(),
        organization: of.id,
        name: "an application".to_owned(),
        description: String::new(),
        homepage: None,
        confidential: true,
        redirect_uris: vec!["https://app.example/callback".to_owned()],
        grants: vec![clients::Grant::AuthorizationCode],
        scopes: scopes.clone(),
        enabled: true,
        created_at,
        updated_at: created_at,
    };
    clients::insert(&mut tx, &client).await.unwrap();
    let secret = token::ClientSecretToken::generate(&mut random);
    clients::give_secret(&mut tx, client.id, &secret, chrono::Duration::zero()).await.unwrap();
    let grant = grants::add(&mut tx, client.id, person, &scopes).await.unwrap();
    let expires_at = created_at + chrono::Duration::hours(1);
    let authorization = authorizations::Authorization {
        id: tx.ids().mint(),
        organization: of.id,
        client: client.id,
        person: Some(person),
        scopes: scopes.clone(),
        authenticated_at: Some(created_at),
        methods: vec!["pwd".to_owned()],
        expires_at,
    };
    authorizations::insert(&mut tx, &authorization, Some(grant)).await.unwrap();
    let code = codes::Code {
        organization: of.id,
        authorization: authorization.id,
        client: client.id,
        redirect_uri: "https://app.example/callback".to_owned(),
        challenge: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".to_owned(),
        nonce: None,
        expires_at,
    };
    codes::keep(&mut tx, &token::CodeToken::generate(&mut random), &code).await.unwrap();
    let refresh = token::OauthRefreshToken::generate(&mut random);
    refresh::keep(&mut tx, &refresh, authorization.id, expires_at).await.unwrap();
    let (device, code) = (token::DeviceToken::generate(&mut random), devices::UserCode::generate(&mut random));
    assert!(devices::keep(&mut tx, client.id, &device, &code, &scopes).await.unwrap());
    tx.commit().await.unwrap();
}

async fn signed_in(platform: &Platform, tx: &mut PersonTx, organization: OrganizationId) -> sessions::Session {
    let new = sessions::NewSession {
        id: platform.ids().mint(),
        person: tx.person(),
        organization: Some(organization),
        kind: sessions::Kind::Program,
        methods: &["pwd"],
        factors: &[],
        address: Some("192.0.2.1"),
        user_agent: Some("story/1"),
        idle: chrono::Duration::hours(1),
        lasts: chrono::Duration::hours(12),
    };
    sessions::open(tx, &new).await.unwrap()
}

fn seeded(name: &str) -> rand::rngs::StdRng {
    use rand::SeedableRng as _;
    rand::rngs::StdRng::seed_from_u64(name.bytes().map(u64::from).sum())
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn every_table_of_tenants_names_the_organization_and_forces_row_level_security(pool: PgPool) {
    for table in tables(&pool).await {
        if WITHOUT_TENANT.contains(&table.as_str()) {
            continue;
        }
        let forced: bool =
            sqlx::query_scalar("select relrowsecurity and relforcerowsecurity from pg_class where relname = $1")
                .bind(&table)
                .fetch_one(&pool)
                .await
                .unwrap();
        assert!(forced, "{table}: enable and force row level security");
        if OF_TENANTS.contains(&table.as_str()) || is_of_people(&table) {
            continue;
        }
        let column: Option<bool> = sqlx::query_scalar(
            "select attnotnull from pg_attribute where attrelid = $1::regclass and attname = 'organization_id'",
        )
        .bind(&table)
        .fetch_optional(&pool)
        .await
        .unwrap();
        assert_eq!(column, Some(true), "{table}: organization_id uuid not null");
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_roles_of_processes_own_nothing_bypass_nothing_and_reach_no_partition(pool: PgPool) {
    let strong = "select rolname::text from pg_roles where rolname like 'gantry\\_%' and
                  (rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolreplication)";
    assert!(strings(&pool, strong).await.is_empty());
    let owned = "select c.relname::text from pg_class c join pg_roles r on r.oid = c.relowner
                  where r.rolname in ('gantry_app', 'gantry_engine', 'gantry_tree', 'gantry_auditor')";
    assert!(strings(&pool, owned).await.is_empty());
    let owned = "select p.proname::text from pg_proc p join pg_roles r on r.oid = p.proowner
                  where r.rolname in ('gantry_app', 'gantry_engine')";
    assert!(strings(&pool, owned).await.is_empty());
    let members = "select r.rolname || ' in ' || g.rolname from pg_auth_members m join pg_roles r on r.oid = m.member
                   join pg_roles g on g.oid = m.roleid where r.rolname in ('gantry_app', 'gantry_engine')";
    // It becomes the auditor by asking for it, and is nothing of it by itself.
    assert_eq!(strings(&pool, members).await, ["gantry_engine in gantry_auditor"]);
    let inherited = "select relname::text from pg_class where relnamespace = 'public'::regnamespace
                      and relname like 'audit%' and relkind in ('r', 'p')
                      and has_table_privilege('gantry_engine', oid, 'select, insert, update, delete')";
    assert!(strings(&pool, inherited).await.is_empty());
    // Policies are the parents'; a partition has none of its own, so nobody may go past its parent.
    let partitions = "select relname || ' by gantry_app' from pg_class
                       where relispartition and relkind = 'r' and relnamespace = 'public'::regnamespace
                         and has_table_privilege('gantry_app', oid, 'select, insert, update, delete')";
    assert!(strings(&pool, partitions).await.is_empty(), "{:?}", strings(&pool, partitions).await);
    let partitions = "select relname || ' by gantry_engine' from pg_class
                       where relispartition and relkind = 'r' and relnamespace = 'public'::regnamespace
                         and has_table_privilege('gantry_engine', oid, 'insert, update, delete')";
    assert!(strings(&pool, partitions).await.is_empty());
    let may_create =
        "select rolname::text from pg_roles where rolname in ('gantry_app', 'gantry_engine', 'gantry_tree', 'gantry_auditor')
                         and has_schema_privilege(rolname, 'public', 'create')";
    assert!(strings(&pool, may_create).await.is_empty());
    // Functions that act with their owner's rights are few, and their search path is fixed.
    let definers = "select proname::text from pg_proc where prosecdef and pronamespace = 'public'::regnamespace
                       and (proconfig is null or not proconfig @> array['search_path=public, pg_temp'])";
    assert!(strings(&pool, definers).await.is_empty());
    let callable = "select proname::text from pg_proc where prosecdef and pronamespace = 'public'::regnamespace
                       and prorettype <> 'trigger'::regtype and has_function_privilege('gantry_app', oid, 'execute')";
    // The one adds what a process counted, of all tenants at once, and tells what they used of the month; the other
    // looks up what runs in leases, which name no tenant, and tells each of its own. Between them,
    // what the license of whoever asks limits is counted anew from what the tree has counted, or said to be full.
    let mut callable = strings(&pool, callable).await;
    callable.sort();
    // The platform is told where licenses are in force that their issuers revoked, and nobody else is.
    assert_eq!(callable, ["api_usage_add", "licenses_full", "licenses_made_of", "licenses_recount", "running_jobs"]);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn without_a_scope_no_table_has_a_row(pool: PgPool) {
    let platform = Platform::new(pool).await;
    furnished(&platform, "acme").await;
    let mut app = as_app(&platform).await;
    let mut looked_at = 0;
    for table in tables(&platform.owner).await {
        let truth = platform.count(&format!("select count(*) from {table}")).await;
        assert!(truth > 0, "{table} is empty, so this test would prove nothing; furnish it");
        let seen: Result<i64, sqlx::Error> =
            sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from {table}"))).fetch_one(&mut app).await;
        match seen {
            Ok(count) => assert_eq!(count, i64::from(table == OF_EVERYBODY), "{table}"),
            Err(error) => assert!(error.to_string().contains("permission denied"), "{table}: {error}"),
        }
        looked_at += 1;
    }
    assert!(looked_at > 15);
    platform.leaves_jobs();
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn in_another_scope_nothing_can_be_read_written_changed_or_removed(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = furnished(&platform, "acme").await;
    let globex = furnished(&platform, "globex").await;
    let mut app = as_app(&platform).await;
    for table in tables(&platform.owner).await {
        let without = OF_TENANTS.contains(&table.as_str()) || WITHOUT_TENANT.contains(&table.as_str());
        if without || is_of_people(&table) || OF_PLATFORM.contains(&table.as_str()) {
            continue;
        }
        let of = |actor: &Actor| format!("select count(*) from {table} where organization_id = '{}'", actor.id.uuid());
        let before = platform.count(&of(&acme)).await;
        assert!(before > 0, "{table}");
        let columns = strings(
            &platform.owner,
            &format!(
                "select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute
                  where attrelid = '{table}'::regclass and attnum > 0 and not attisdropped"
            ),
        )
        .await
        .remove(0);
        // A row of acme's, word for word, and one whose keys are free.
        let row: Value = sqlx::query_scalar(AssertSqlSafe(format!(
            "select to_jsonb(t) from {table} t where organization_id = '{}' limit 1",
            acme.id.uuid()
        )))
        .fetch_one(&platform.owner)
        .await
        .unwrap();
        let attacks = [
            format!(
                "update {table} set organization_id = '{}' where organization_id = '{}'",
                globex.id.uuid(),
                acme.id.uuid()
            ),
            format!(
                "update {table} set organization_id = organization_id where organization_id = '{}'",
                acme.id.uuid()
            ),
            format!("delete from {table} where organization_id = '{}'", acme.id.uuid()),
            // To give away what is one's own.
            format!("update {table} set organization_id = '{}'", acme.id.uuid()),
        ];
        for attack in attacks {
            let mut tx = app.begin().await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(format!("set local gantry.organization = '{}'", globex.id.uuid())))
                .execute(&mut *tx)
                .await
                .unwrap();
            let seen: i64 = sqlx::query_scalar(AssertSqlSafe(of(&acme))).fetch_one(&mut *tx).await.unwrap();
            assert_eq!(seen, 0, "{table}");
            match sqlx::raw_sql(AssertSqlSafe(attack.clone())).execute(&mut *tx).await {
                Ok(done) => assert_eq!(done.rows_affected(), 0, "{attack}"),
                Err(error) => {
                    let error = error.to_string();
                    let refused = error.contains("row-level security") || error.contains("permission denied");
                    assert!(refused, "{attack}: {error}");
                }
            }
            tx.rollback().await.unwrap();
        }
        let mut tx = app.begin().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("set local gantry.organization = '{}'", globex.id.uuid())))
            .execute(&mut *tx)
            .await
            .unwrap();
        let insert =
            format!("insert into {table} ({columns}) select {columns} from jsonb_populate_record(null::{table}, $1)");
        let refused = sqlx::query(AssertSqlSafe(insert)).bind(&row).execute(&mut *tx).await.unwrap_err().to_string();
        let refused_well = refused.contains("row-level security") || refused.contains("permission denied");
        assert!(refused_well, "{table}: {refused}");
        tx.rollback().await.unwrap();
        assert_eq!(platform.count(&of(&acme)).await, before, "{table}");
    }
    platform.leaves_jobs();
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_somebodys_nobody_else_can_read_write_change_or_remove(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, globex) = (platform.organization("acme").await, platform.organization("globex").await);
    let ada = somebody(&platform, "ada@example.com", &acme).await;
    let eve = somebody(&platform, "eve@example.com", &globex).await;
    let mut app = as_app(&platform).await;
    for (table, column) in OF_PEOPLE {
        let hers = format!("select count(*) from {table} where {column} = '{}'", ada.uuid());
        let before = platform.count(&hers).await;
        assert!(before > 0, "{table}");
        let attacks = [
            format!("update {table} set {column} = '{}' where {column} = '{}'", eve.uuid(), ada.uuid()),
            format!("update {table} set {column} = {column} where {column} = '{}'", ada.uuid()),
            format!("delete from {table} where {column} = '{}'", ada.uuid()),
            // To give away what is one's own.
            format!("update {table} set {column} = '{}'", ada.uuid()),
        ];
        for scope in [
            format!("set local gantry.person = '{}'", eve.uuid()),
            format!("set local gantry.organization = '{}'", globex.id.uuid()),
            format!(
                "set local gantry.organization = '{}'; set local gantry.person = '{}'",
                globex.id.uuid(),
                eve.uuid()
            ),
        ] {
            for attack in &attacks {
                let mut tx = app.begin().await.unwrap();
                sqlx::raw_sql(AssertSqlSafe(scope.clone())).execute(&mut *tx).await.unwrap();
                let seen: i64 = sqlx::query_scalar(AssertSqlSafe(hers.clone())).fetch_one(&mut *tx).await.unwrap();
                assert_eq!(seen, 0, "{table}");
                match sqlx::raw_sql(AssertSqlSafe(attack.clone())).execute(&mut *tx).await {
                    Ok(done) => assert_eq!(done.rows_affected(), 0, "{scope}: {attack}"),
                    Err(error) => {
                        let error = error.to_string();
                        let refused = error.contains("row-level security") || error.contains("permission denied");
                        assert!(refused, "{attack}: {error}");
                    }
                }
                tx.rollback().await.unwrap();
            }
        }
        assert_eq!(platform.count(&hers).await, before, "{table}");
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_organization_sees_its_members_and_nothing_that_is_only_theirs(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, globex) = (platform.organization("acme").await, platform.organization("globex").await);
    let ada = somebody(&platform, "ada@example.com", &acme).await;
    globex.takes_in(ada, Role::Viewer).await;
    let eve = somebody(&platform, "eve@example.com", &globex).await;

    let mut tx = acme.begin().await;
    assert_eq!(people::find(&mut tx, ada).await.unwrap().unwrap().email, "ada@example.com");
    assert!(people::find(&mut tx, eve).await.unwrap().is_none());
    assert!(people::passwords::find(&mut tx, ada).await.unwrap().is_none());
    let members = memberships::list(&mut tx, None, 9).await.unwrap();
    assert_eq!(members.iter().map(|member| member.person).collect::<Vec<_>>(), [ada]);
    assert_eq!(memberships::find(&mut tx, ada).await.unwrap().unwrap().role, Role::Member);
    assert!(memberships::find(&mut tx, eve).await.unwrap().is_none());
    tx.rollback().await.unwrap();

    let mut tx = platform.db().person(ada).await.unwrap();
    let hers: Vec<_> = memberships::of_person(&mut tx, None, 9)
        .await
        .unwrap()
        .into_iter()
        .map(|it| (it.organization, it.role))
        .collect();
    assert_eq!(hers, [(acme.id, Role::Member), (globex.id, Role::Viewer)]);
    assert!(people::passwords::find(&mut tx, ada).await.unwrap().is_some());
    assert!(people::find(&mut tx, eve).await.unwrap().is_none());
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_person_is_found_by_her_address_however_it_is_written_and_shows_no_other(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let ada = platform.person("Ada@B\u{fc}cher.example").await;
    platform.person("o'hara@example.com").await;
    let found = async |presents: &str, asks: &str| {
        let (presents, asks): (Email, Email) = (presents.parse().unwrap(), asks.parse().unwrap());
        let mut tx = platform.db().presented_email(&presents).await.unwrap();
        people::presented(&mut tx, &asks).await.unwrap().map(|person| person.id)
    };
    assert_eq!(found("ada@xn--bcher-kva.example", "ADA@B\u{fc}cher.example").await, Some(ada));
    assert!(found("o'hara@example.com", "O'Hara@example.com").await.is_some());
    assert_eq!(found("o'hara@example.com", "ada@b\u{fc}cher.example").await, None);
    assert_eq!(found("eve@example.com", "eve@example.com").await, None);

    let (eve, taken): (PersonId, Email) = (platform.ids().mint(), "ada@b\u{fc}cher.example".parse().unwrap());
    let mut tx = platform.db().person(eve).await.unwrap();
    let new = NewPerson { id: eve, email: &taken, email_verified: false, name: "Eve", locale: "en" };
    let refused = people::insert(&mut tx, &new).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().constraint(), Some("people_email_key"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_the_platform_sets_everybody_reads_and_nobody_else_changes(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = furnished(&platform, "acme").await;
    for table in OF_PLATFORM {
        let truth = platform.count(&format!("select count(*) from {table}")).await;
        let mut tx = acme.begin().await;
        let count = format!("select count(*) from {table}");
        let seen: i64 = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(tx.connection()).await.unwrap();
        assert!(seen == truth && truth > 0, "{table}");
        for attack in [
            format!("update {table} set organization_id = organization_id"),
            format!("update {table} set organization_id = '{}'", acme.id.uuid()),
            format!("delete from {table}"),
        ] {
            let done = sqlx::raw_sql(AssertSqlSafe(attack)).execute(tx.connection()).await.unwrap();
            assert_eq!(done.rows_affected(), 0, "{table}");
        }
        let copy = format!("insert into {table} select * from {table}");
        let refused = sqlx::raw_sql(AssertSqlSafe(copy)).execute(tx.connection()).await.unwrap_err();
        assert!(refused.to_string().contains("row-level security"), "{table}: {refused}");
    }
    platform.leaves_jobs();
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_session_is_known_by_its_token_while_it_lasts_and_shows_no_other(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, globex) = (platform.organization("acme").await, platform.organization("globex").await);
    let (ada, eve) = (platform.person("ada@example.com").await, platform.person("eve@example.com").await);
    acme.takes_in(ada, Role::Member).await;
    globex.takes_in(eve, Role::Owner).await;
    let mut random = seeded("sessions");
    let access = token::AccessToken::generate(&mut random);
    let refresh = token::RefreshToken::generate(&mut random);
    let mut tx = platform.db().person(ada).await.unwrap();
    let session = signed_in(&platform, &mut tx, acme.id).await;
    let (soon, later) = (platform.now() + chrono::Duration::minutes(90), session.expires_at);
    sessions::give(&mut tx, &session, access.hash(), sessions::TokenKind::Access, soon).await.unwrap();
    sessions::give(&mut tx, &session, refresh.hash(), sessions::TokenKind::Refresh, later).await.unwrap();
    tx.commit().await.unwrap();

    let known = async |hash: [u8; 32], wanted: Option<OrganizationId>| {
        let mut tx = platform.db().credential(hash).await.unwrap();
        sessions::authenticate(&mut tx, wanted).await.unwrap()
    };
    let found = known(access.hash(), None).await.unwrap();
    assert_eq!((found.session, found.person), (session.id, ada));
    assert_eq!((found.organization, found.role), (Some(acme.id), Some(Role::Member)));
    let elsewhere = known(access.hash(), Some(globex.id)).await.unwrap();
    assert_eq!(elsewhere.organization, Some(acme.id), "she is no member there");
    assert!(known(refresh.hash(), None).await.is_none(), "it is only to be exchanged");
    assert!(known(token::AccessToken::generate(&mut random).hash(), None).await.is_none());

    platform.clock.advance(chrono::Duration::minutes(59));
    assert!(known(access.hash(), None).await.is_some());
    platform.clock.advance(chrono::Duration::minutes(1));
    assert!(known(access.hash(), None).await.is_none(), "nobody used it for an hour");
    platform.clock.advance(chrono::Duration::minutes(-1));
    let mut tx = platform.db().person(ada).await.unwrap();
    sessions::touch(&mut tx, session.id, None).await.unwrap();
    tx.commit().await.unwrap();
    platform.clock.advance(chrono::Duration::minutes(2));
    assert!(known(access.hash(), None).await.is_some());
    platform.clock.advance(chrono::Duration::minutes(29));
    assert!(known(access.hash(), None).await.is_none(), "the token has expired");

    let mut tx = platform.db().person(eve).await.unwrap();
    assert!(!sessions::end(&mut tx, session.id, sessions::Ended::Revoked).await.unwrap(), "it is hers");
    assert!(matches!(sessions::exchange(&mut tx, refresh.hash()).await.unwrap(), sessions::Exchange::Unknown));
    tx.commit().await.unwrap();
    let mut tx = platform.db().person(ada).await.unwrap();
    assert!(matches!(sessions::exchange(&mut tx, refresh.hash()).await.unwrap(), sessions::Exchange::Done(_)));
    assert_eq!(sessions::exchange(&mut tx, refresh.hash()).await.unwrap(), sessions::Exchange::Reused(session.id));
    assert!(sessions::find(&mut tx, session.id).await.unwrap().is_none(), "whoever had it twice has nothing");
    tx.commit().await.unwrap();
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_engine_sees_jobs_of_everybody_and_nothing_else(pool: PgPool) {
    let platform = Platform::new(pool).await;
    furnished(&platform, "acme").await;
    furnished(&platform, "globex").await;
    let options = as_role(&platform.owner.connect_options(), "gantry_engine");
    let mut engine = PgConnection::connect_with(&options).await.unwrap();
    let mut forbidden = BTreeSet::new();
    for table in tables(&platform.owner).await {
        let ledger = table.starts_with("job") || table.starts_with("schedule");
        let seen: Result<i64, sqlx::Error> =
            sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from {table}"))).fetch_one(&mut engine).await;
        if ledger {
            assert_eq!(seen.unwrap(), platform.count(&format!("select count(*) from {table}")).await, "{table}");
        } else if FORGOTTEN_BY_ID.contains(&table.as_str()) {
            let rows = sqlx::query(AssertSqlSafe(format!("select * from {table}"))).fetch_all(&mut engine).await;
            assert!(rows.unwrap_err().to_string().contains("permission denied"), "{table}");
        } else if ENGINE_TABLES.contains(&table.as_str()) {
            let names = sqlx::query_scalar::<_, String>("select name from organizations").fetch_all(&mut engine).await;
            assert!(names.unwrap_err().to_string().contains("permission denied"));
        } else {
            assert!(seen.unwrap_err().to_string().contains("permission denied"), "{table}");
            forbidden.insert(table);
        }
    }
    for table in
        ["api_keys", "event_types", "organization_closure", "webhook_backlog", "webhook_endpoints", "webhook_secrets"]
    {
        assert!(forbidden.contains(table), "{table}");
    }
    platform.leaves_jobs();
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn organizations_see_themselves_and_those_below_them(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let branch = platform.organization_below(acme.id, "branch").await;
    let leaf = platform.organization_below(branch.id, "leaf").await;
    let globex = platform.organization("globex").await;
    let seen = async |actor: &Actor| {
        let mut tx = actor.begin().await;
        let names: BTreeSet<String> = organizations::list(&mut tx, Window::new(Order::Ascending, 99))
            .await
            .unwrap()
            .into_iter()
            .map(|it| it.name)
            .collect();
        names
    };
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    assert_eq!(seen(&acme).await, names(&["acme", "branch", "leaf"]));
    assert_eq!(seen(&branch).await, names(&["branch", "leaf"]));
    assert_eq!(seen(&leaf).await, names(&["leaf"]));
    assert_eq!(seen(&globex).await, names(&["globex"]));
    assert_eq!(seen(&platform.operator()).await.len(), 5);

    for (by, parent) in [(&branch, acme.id), (&branch, globex.id), (&globex, OrganizationId::PLATFORM)] {
        let mut tx = by.begin().await;
        let refused = organizations::create(&mut tx, &NewOrganization::below(parent, "intruder")).await;
        assert!(refused.unwrap_err().to_string().contains("row-level security"));
    }
    let mut tx = acme.begin().await;
    assert!(organizations::find(&mut tx, globex.id).await.unwrap().is_none());
    assert_eq!(organizations::find(&mut tx, leaf.id).await.unwrap().unwrap().parent, Some(branch.id));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_parent_does_not_see_the_jobs_of_its_children(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let branch = platform.organization_below(acme.id, "branch").await;
    let job = branch.enqueue(Scripted::fine("a")).await;
    assert!(acme.find_job(job).await.is_none());
    assert!(platform.operator().find_job(job).await.is_none());
    assert_eq!(acme.cancel(job).await, gantry_schema::jobs::control::Change::Unknown);
    platform.run_jobs().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_key_is_found_by_its_hash_while_it_works_and_shows_no_other(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, globex) = (platform.organization("acme").await, platform.organization("globex").await);
    let mut random = seeded("keys");
    let (token, other) = (api_keys::Token::generate(&mut random), api_keys::Token::generate(&mut random));
    let expires = platform.now() + chrono::Duration::hours(1);
    let mut tx = acme.begin().await;
    let new = NewApiKey { expires_at: Some(expires), ..NewApiKey::of_organization("ci", &[Permission::ReadJobs]) };
    let key = api_keys::create(&mut tx, &token, &new).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = globex.begin().await;
    api_keys::create(&mut tx, &other, &NewApiKey::of_organization("theirs", &[])).await.unwrap();
    assert_eq!(
        api_keys::list(&mut tx, api_keys::Filter::default(), Window::new(Order::Ascending, 9)).await.unwrap().len(),
        1
    );
    assert!(!api_keys::revoke(&mut tx, key.id).await.unwrap(), "it is acme's");
    tx.commit().await.unwrap();

    let found = async |token: &api_keys::Token| {
        let mut tx = platform.db().credential(token.hash()).await.unwrap();
        api_keys::authenticate(&mut tx).await.unwrap()
    };
    let known = found(&token).await.unwrap();
    assert_eq!((known.id, known.organization, known.scopes), (key.id, acme.id, vec![Permission::ReadJobs]));
    assert!(found(&api_keys::Token::generate(&mut random)).await.is_none());
    platform.clock.advance(chrono::Duration::hours(1));
    assert!(found(&token).await.is_none(), "it has expired");
    assert_eq!(found(&other).await.unwrap().organization, globex.id);
    let mut tx = globex.begin().await;
    let theirs =
        api_keys::list(&mut tx, api_keys::Filter::default(), Window::new(Order::Ascending, 9)).await.unwrap().remove(0);
    assert!(api_keys::revoke(&mut tx, theirs.id).await.unwrap());
    tx.commit().await.unwrap();
    assert!(found(&other).await.is_none(), "it was revoked");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn processes_refuse_to_start_as_a_role_that_is_too_strong_or_another_ones(pool: PgPool) {
    let clock = Arc::new(SystemClock);
    let ids = Arc::new(IdMint::new(clock.clone()));
    let options = (*pool.connect_options()).clone();
    let silent = Arc::new(db::Silent);
    let app = Db::connect(options.clone(), 1, clock.clone(), ids.clone(), silent.clone()).await;
    assert!(matches!(app, Err(db::ConnectError::Privileged { .. })));
    let engine = EngineDb::connect(options.clone(), 1, clock.clone(), ids.clone(), silent.clone()).await;
    assert!(matches!(engine, Err(db::ConnectError::Privileged { .. })));
    let swapped = as_role(&options, "gantry_engine");
    let app = Db::connect(swapped, 1, clock.clone(), ids.clone(), silent.clone()).await;
    assert!(matches!(app, Err(db::ConnectError::NotGranted { .. })));
    let swapped = as_role(&options, "gantry_app");
    let engine = EngineDb::connect(swapped, 1, clock, ids, silent).await;
    assert!(matches!(engine, Err(db::ConnectError::NotGranted { .. })));
}

#[sqlx::test(migrations = false)]
async fn migrations_apply_to_an_empty_database_and_a_second_time_change_nothing(pool: PgPool) {
    let options = (*pool.connect_options()).clone();
    for _ in 0..2 {
        gantry_schema::setup::migrate(&options, &[]).await.unwrap();
    }
    let applied = strings(&pool, "select version::text from _sqlx_migrations where success").await;
    assert_eq!(applied.len(), gantry_schema::MIGRATOR.iter().count());
}

#[sqlx::test(migrations = false)]
async fn an_owner_that_is_no_superuser_can_set_everything_up_and_tenants_are_apart(pool: PgPool) {
    let owner = "story_owner";
    let make = format!(
        "do $$ begin create role {owner} login createrole; exception when duplicate_object or unique_violation then null; end $$"
    );
    sqlx::raw_sql(AssertSqlSafe(make)).execute(&pool).await.unwrap();
    // The roles belong to the server, and there they were made by somebody else.
    gantry_schema::setup::migrate(&pool.connect_options(), &[]).await.ok();
    let reset = format!(
        "drop schema public cascade; create schema public authorization {owner}; grant gantry_tree to {owner};
         grant usage on schema public to public"
    );
    sqlx::raw_sql(AssertSqlSafe(reset)).execute(&pool).await.unwrap();
    let options = as_role(&pool.connect_options(), owner);
    for _ in 0..2 {
        gantry_schema::setup::migrate(&options, &[]).await.unwrap();
    }
    // The functions that work on partitions do so with the owner's rights, and so does the tree of organizations.
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let branch = platform.organization_below(acme.id, "branch").await;
    let job = branch.enqueue(Scripted::fine("a")).await;
    platform.run_jobs().await;
    gantry_schema::jobs::retention::prepare(platform.ledger(), 1).await.unwrap();
    let (day, soon) = (platform.now().date_naive(), gantry_schema::jobs::retention::Retention::default());
    assert_eq!(gantry_schema::jobs::retention::compact(platform.ledger(), day, soon).await.unwrap(), 1);
    assert_eq!(branch.state(job).await, gantry_schema::jobs::State::Succeeded);
    assert!(acme.find_job(job).await.is_none());
    platform.clock.advance(chrono::Duration::days(8));
    assert_eq!(gantry_schema::jobs::retention::compact(platform.ledger(), day, soon).await.unwrap(), 0);
    assert!(branch.find_job(job).await.is_none());
}
