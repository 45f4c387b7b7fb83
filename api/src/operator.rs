//! What an operator does from the machine itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use chrono::Duration;
use clap::{Args, Subcommand};
use gantry_jobs::process::{Settings, Together as _};
use gantry_schema::api_keys::{self, NewApiKey, Token};
use gantry_schema::audit::{Actor, Author};
use gantry_schema::db::Silent;
use gantry_schema::licenses::{
    Chain, Claims, Delegation, Feature, Kind, State, Trust, chain, claims, licensed, queries, standing,
};
use gantry_schema::limits::{self, FIRST_TIER, Given};
use gantry_schema::memberships::{self, Role};
use gantry_schema::organizations::{self, NewOrganization, Permission};
use gantry_schema::people::hashing::Hasher;
use gantry_schema::people::{self, Email, NewPerson, Typed, passwords};
use gantry_schema::setup::{self, Login};
use gantry_schema::{Db, IdMint, JobTx as _, Order, OrganizationId, SystemClock, TenantTx, Window};
use rand::RngExt as _;
use url::Url;

/// See to API keys.
#[derive(Debug, Subcommand)]
pub enum ApiKeyCommand {
    /// Make a key; it is the last line that is printed, and is not shown again.
    Create {
        /// Whose it is: `platform`, or the id of an organization.
        #[arg(long, default_value = "platform")]
        organization: String,
        /// What people call it.
        #[arg(long)]
        name: String,
        /// What it allows: jobs:read, jobs:write, … (may be given several times).
        #[arg(long = "scope", required_unless_present = "all_scopes")]
        scopes: Vec<Permission>,
        /// It allows everything the organization may have.
        #[arg(long, conflicts_with = "scopes")]
        all_scopes: bool,
    },
}

/// Give an organization other limits.
#[derive(Debug, Args)]
pub struct LimitsCommand {
    /// Whose they are: the id of an organization.
    #[arg(long)]
    organization: OrganizationId,
    /// Its tier.
    #[arg(long, default_value = FIRST_TIER)]
    tier: String,
    /// Its own number of reads a minute; the other classes keep their proportion.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=6_000_000))]
    per_minute: Option<u32>,
    /// Nothing is counted for it.
    #[arg(long)]
    bypass: bool,
    /// Calls in a calendar month, UTC.
    #[arg(long)]
    monthly_calls: Option<u64>,
    /// Bytes of bodies in a calendar month, UTC.
    #[arg(long)]
    monthly_bytes: Option<u64>,
}

/// Brings the database up to date.
pub async fn migrate(settings: &Settings) -> anyhow::Result<()> {
    let (owner, app, engine) = (
        settings.postgres("OWNER_DATABASE_URL"),
        login(settings, "DATABASE_URL", "gantry_app"),
        login(settings, "ENGINE_DATABASE_URL", "gantry_engine"),
    )
        .together()?;
    let logins: Vec<Login> = [app, engine].into_iter().flatten().collect();
    setup::migrate(&owner, &logins).await?;
    eprintln!("gantry-api: the database is up to date");
    Ok(())
}

/// The role and password of a URL, where it is set.
fn login(
    settings: &Settings,
    name: &str,
    may: &'static str,
) -> Result<Option<Login>, gantry_jobs::process::SettingsError> {
    // The options know the role, also where a parameter names it; only the URL gives the password away.
    let Some(options) = settings.postgres_if_set(name)? else { return Ok(None) };
    let url: Option<Url> = settings.optional(name)?;
    let password = url.as_ref().and_then(password_of);
    Ok(Some(Login { role: options.get_username().to_owned(), password, may }))
}

fn password_of(url: &Url) -> Option<String> {
    let parameter = || url.query_pairs().find(|(name, _)| name == "password").map(|(_, value)| value.into_owned());
    // In this part of a URL these are nothing special.
    let decode = |text: &str| {
        let pair = format!("={}", text.replace('+', "%2B").replace('&', "%26"));
        url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned())
    };
    url.password().and_then(decode).or_else(parameter)
}

pub async fn connect(settings: &Settings) -> anyhow::Result<Db> {
    let (database, keys) = (settings.postgres("DATABASE_URL"), settings.sealing_keys()).together()?;
    let clock = Arc::new(SystemClock);
    let ids = Arc::new(IdMint::new(clock.clone()));
    let db = Db::connect(database, 2, clock, ids, Arc::new(Silent)).await.context("GANTRY_DATABASE_URL")?;
    Ok(db.recording(Arc::new(keys)))
}

/// Begins a transaction in which whoever runs the command does what is recorded.
pub async fn begin(db: &Db, organization: OrganizationId) -> anyhow::Result<TenantTx> {
    Ok(db.tenant(organization).await?.by(Arc::new(Author::new(Actor::operator()))))
}

/// Makes a key.
pub async fn api_key(settings: &Settings, command: ApiKeyCommand) -> anyhow::Result<()> {
    let ApiKeyCommand::Create { organization, name, scopes, all_scopes } = command;
    let organization = match organization.as_str() {
        "platform" => OrganizationId::PLATFORM,
        id => id.parse().context("--organization is `platform` or the id of an organization")?,
    };
    let scopes = if all_scopes { every_scope(organization) } else { scopes };
    if organization != OrganizationId::PLATFORM && scopes.contains(&Permission::OperatePlatform) {
        bail!("only keys of the platform can have the scope {}", Permission::OperatePlatform);
    }
    let db = connect(settings).await?;
    let mut tx = begin(&db, organization).await?;
    if organizations::find(&mut tx, organization).await?.is_none() {
        bail!("there is no organization {organization}");
    }
    let token = Token::generate(&mut rand::rng());
    let key = api_keys::create(&mut tx, &token, &NewApiKey::of_organization(&name, &scopes)).await?;
    let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    tx.record("api_key.create").on(&key.id).called(&key.name).set("scopes", scopes);
    tx.commit().await?;
    eprintln!("gantry-api: made {} for {organization}; it is not shown again:", key.id);
    println!("{}", token.expose());
    Ok(())
}

/// Forgets the keys that sign tokens; the API makes another one when it next needs it.
pub async fn distrust_signing_keys(settings: &Settings) -> anyhow::Result<()> {
    let db = connect(settings).await?;
    let mut tx = begin(&db, OrganizationId::PLATFORM).await?;
    let count = gantry_schema::oauth::keys::distrust(&mut tx).await?;
    tx.record("oauth_signing_keys.distrust").set("count", count);
    tx.commit().await?;
    eprintln!("gantry-api: {count} signing keys are believed no more, in every process within ten seconds");
    Ok(())
}

/// Gives an organization limits.
pub async fn limits(settings: &Settings, command: LimitsCommand) -> anyhow::Result<()> {
    let LimitsCommand { organization, tier, per_minute, bypass, monthly_calls, monthly_bytes } = command;
    let db = connect(settings).await?;
    let mut tx = db.tenant(organization).await?;
    if organizations::find(&mut tx, organization).await?.is_none() {
        bail!("there is no organization {organization}");
    }
    let tiers = limits::tiers(&mut tx).await?;
    if !tiers.iter().any(|known| known.name == tier) {
        let known: Vec<&str> = tiers.iter().map(|known| known.name.as_str()).collect();
        bail!("there is no tier {tier}; there are {}", known.join(", "));
    }
    let given = Given { tier, number: per_minute, bypass, monthly_calls, monthly_bytes };
    limits::give(&mut tx, &given).await?;
    tx.commit().await?;
    eprintln!("gantry-api: {organization} has other limits, in every process within a second");
    Ok(())
}

fn every_scope(organization: OrganizationId) -> Vec<Permission> {
    let of_platform = organization == OrganizationId::PLATFORM;
    Permission::ALL.iter().copied().filter(|scope| of_platform || *scope != Permission::OperatePlatform).collect()
}

/// What keys of the demo are called, by which the next run finds them.
const DEMO_KEY: &str = "demo";

/// Who owns the demo organization.
const DEMO_EMAIL: &str = "demo@example.com";

/// Makes the demo organizations if they are missing, and a new key in place of the old ones.
pub async fn seed(settings: &Settings) -> anyhow::Result<()> {
    let db = connect(settings).await?;
    let mut tx = begin(&db, OrganizationId::PLATFORM).await?;
    let hosting = below(&mut tx, OrganizationId::PLATFORM, "Demo Hosting").await?;
    let acme = below(&mut tx, hosting, "Acme").await?;
    tx.commit().await?;

    let mut tx = begin(&db, acme).await?;
    let (valid, mut window) = (api_keys::Filter { revoked: Some(false) }, Window::new(Order::Ascending, 200));
    loop {
        let keys = api_keys::list(&mut tx, valid, window).await?;
        for key in keys.iter().filter(|key| key.name == DEMO_KEY) {
            api_keys::revoke(&mut tx, key.id).await?;
            tx.record("api_key.revoke").on(&key.id).called(&key.name);
        }
        let Some(last) = keys.last() else { break };
        window = window.after(last.id);
    }
    // Who tries things out is not to be held up.
    let generous =
        Given { tier: "enterprise".to_owned(), number: None, bypass: false, monthly_calls: None, monthly_bytes: None };
    limits::give(&mut tx, &generous).await?;
    let token = Token::generate(&mut rand::rng());
    let key = api_keys::create(&mut tx, &token, &NewApiKey::of_organization(DEMO_KEY, &every_scope(acme))).await?;
    tx.record("api_key.create").on(&key.id).called(&key.name);
    tx.commit().await?;
    demo_license(&db, settings, hosting).await?;
    let password = demo_person(&db, acme).await?;
    println!("Demo organization Acme: {acme}");
    println!("Demo person: {DEMO_EMAIL} {password}");
    println!("{}", token.expose());
    Ok(())
}

/// A license for a year, which counts for the demo organization below as well; one that is there is left until it ends soon.
async fn demo_license(db: &Db, settings: &Settings, hosting: OrganizationId) -> anyhow::Result<()> {
    let trust = Trust { keys: Arc::new(settings.sealing_keys()?), pinned: Vec::new() };
    let mut tx = begin(db, OrganizationId::PLATFORM).await?;
    let key = queries::issuer(&mut tx, &trust.keys).await?;
    tx.commit().await?;
    let anchors = trust.anchors(db).await?;
    let mut tx = begin(db, hosting).await?;
    let found = licensed(&mut tx, &anchors).await?;
    if found.is_some_and(|found| found.evaluate(tx.now(), None, &BTreeMap::new()).state == State::Valid) {
        return Ok(());
    }
    let resold = queries::issuer(&mut tx, &trust.keys).await?.public();
    let claims = Claims {
        ver: claims::VERSION,
        jti: tx.ids().mint(),
        iss: OrganizationId::PLATFORM.to_string(),
        sub: hosting,
        aud: claims::ANY_INSTANCE.to_owned(),
        iat: tx.now(),
        nbf: tx.now(),
        exp: Some(tx.now() + Duration::days(365)),
        typ: Kind::Subscription,
        tier: "enterprise".to_owned(),
        feat: Feature::ALL.iter().map(ToString::to_string).collect(),
        lim: BTreeMap::new(),
        dom: Vec::new(),
        grace: 7 * 86_400,
        deg: BTreeMap::new(),
        gra: BTreeSet::new(),
        seq: queries::highest(&mut tx).await?.unsigned_abs() + 1,
        par: None,
        cld: Some(Delegation { key: resold, depth: 3, lim: BTreeMap::new(), dom: Vec::new() }),
        off: None,
        epo: 0,
    };
    let text = chain::issue(None, &claims, &key)?;
    queries::put_in_force(&mut tx, &Chain::verify(&text, &anchors)?, &text).await?;
    standing::count(&mut tx, &anchors).await?;
    tx.record("license.issue").on(&claims.jti).set("tier", &claims.tier);
    Ok(tx.commit().await?)
}

/// An owner of the demo organization with a new password in place of the old one.
async fn demo_person(db: &Db, acme: OrganizationId) -> anyhow::Result<String> {
    let email: Email = DEMO_EMAIL.parse()?;
    let found = people::presented(&mut db.presented_email(&email).await?, &email).await?;
    let person = found.as_ref().map_or_else(|| db.ids().mint(), |found| found.id);
    let mut random = rand::rng();
    let letters: String = (0..20).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect();
    let hash = Hasher::new(None, &mut random)?.hash(&Typed::new(&letters), &mut random)?;
    let mut tx = db.tenant_for(acme, person).await?.by(Arc::new(Author::new(Actor::operator())));
    if found.is_none() {
        let new = NewPerson { id: person, email: &email, email_verified: true, name: "Demo", locale: "en" };
        people::insert(&mut tx, &new).await?;
    }
    passwords::set(&mut tx, person, &hash, true).await?;
    memberships::insert(&mut tx, person, Role::Owner).await?;
    tx.record("person.seed").on(&person);
    tx.commit().await?;
    Ok(letters)
}

/// The organization of this name below `parent`; made if it is missing.
async fn below(tx: &mut TenantTx, parent: OrganizationId, name: &str) -> anyhow::Result<OrganizationId> {
    let mut window = Window::new(Order::Ascending, 200);
    loop {
        let page = organizations::list(tx, window).await?;
        if let Some(found) = page.iter().find(|found| found.parent == Some(parent) && found.name == name) {
            return Ok(found.id);
        }
        let Some(last) = page.last() else {
            let made = organizations::create(tx, &NewOrganization::below(parent, name)).await?;
            tx.record("organization.create").on(&made.id).called(name);
            return Ok(made.id);
        };
        window = window.after(last.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_read_from_a_url_as_it_was_meant() {
        let password = |url: &str| password_of(&url.parse().unwrap());
        assert_eq!(password("postgres://app:p%40ss+w%2Bord%25@db/gantry").as_deref(), Some("p@ss+w+ord%"));
        assert_eq!(password("postgres://app:a=b&c@db/gantry").as_deref(), Some("a=b&c"));
        assert_eq!(password("postgres://app@db/gantry?password=x%20y").as_deref(), Some("x y"));
        assert_eq!(password("postgres://app@db/gantry"), None);
    }
}
