//! Licenses without a database: keys that sign, keys that are given, lists of those that were revoked, statements of what was used,
//! and looking at them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use chrono::{DateTime, Duration, Utc};
use clap::{Args, Subcommand, ValueEnum};
use gantry_schema::licenses::chain::{self, Anchors, Chain};
use gantry_schema::licenses::claims::{ANY_INSTANCE, Claims, Delegation, Kind, Mode, VERSION};
use gantry_schema::licenses::domain::DomainRule;
use gantry_schema::licenses::evaluate::{Circumstances, Evaluation, Link, Status, evaluate};
use gantry_schema::licenses::revocations::{self, Revocations};
use gantry_schema::licenses::{PublicKey, SecretKey, statements};
use gantry_schema::{Clock as _, IdMint, LicenseId, OrganizationId, SystemClock};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

/// Give and look at licenses; needs no database and no settings.
#[derive(Debug, Subcommand)]
pub enum LicenseCommand {
    /// Make a key that signs licenses; its secret is written to a file, its public half and its name are printed.
    Keygen {
        /// Where the secret goes; a file that is there is not overwritten.
        #[arg(long, value_name = "FILE")]
        secret: PathBuf,
    },
    /// Sign a license; the key to give is the last line that is printed.
    Issue(Box<Issue>),
    /// Show what a key, a list of revoked licenses or a statement of what was used says, whoever signed it.
    Inspect {
        /// The text, or `-` to read it from standard input.
        key: String,
    },
    /// Say whether a key is believed, and what follows from it now; fails when it is not, or allows no growth.
    Verify {
        /// The key, or `-` to read it from standard input.
        key: String,
        /// Whose licenses are believed: `k4.public.…` (may be given several times).
        #[arg(long = "anchor", required = true)]
        anchors: Vec<PublicKey>,
        /// The host name by which the platform is asked.
        #[arg(long)]
        host: Option<String>,
        /// What the instance is called.
        #[arg(long, default_value = ANY_INSTANCE)]
        instance: String,
        /// Look at it as it is at another moment.
        #[arg(long)]
        at: Option<DateTime<Utc>>,
    },
    /// Sign a list of revoked licenses, for platforms that cannot be reached; the list is the last line that is printed.
    RevokeList(RevokeList),
    /// Look at signed statements of what was used.
    Statement {
        #[command(subcommand)]
        command: StatementCommand,
    },
}

/// Which licenses are revoked.
#[derive(Debug, Args)]
pub struct RevokeList {
    /// The file with what it is signed with: `k4.secret.…`.
    #[arg(long, value_name = "FILE")]
    secret: PathBuf,
    /// Who revokes them.
    #[arg(long, default_value = "operator")]
    issuer: String,
    /// The number of the list: higher than those of all before it.
    #[arg(long)]
    sequence: u64,
    /// The list before, whose licenses are revoked in this one too: a file, or `-` to read it from standard input.
    #[arg(long, value_name = "FILE")]
    before: Option<PathBuf>,
    /// A license, by its id (may be given several times).
    #[arg(long = "license")]
    licenses: Vec<LicenseId>,
}

/// What is done with statements of what was used.
#[derive(Debug, Subcommand)]
pub enum StatementCommand {
    /// Say whether statements follow one another and are believed, and what the highest of each limit was; fails when they are not.
    Verify {
        /// A file with a statement in each line, the oldest first, or `-` to read them from standard input.
        file: PathBuf,
        /// The keys of the installation that made them: `k4.public.…` (may be given several times).
        #[arg(long = "key", required = true)]
        keys: Vec<PublicKey>,
    },
}

/// What a license is to say.
#[derive(Debug, Args)]
pub struct Issue {
    /// The file with what it is signed with: `k4.secret.…`.
    #[arg(long, value_name = "FILE")]
    secret: PathBuf,
    /// The file with the key of the license that this one is a part of; it is to be no wider.
    #[arg(long, value_name = "FILE")]
    above: Option<PathBuf>,
    /// Who gives it.
    #[arg(long, default_value = "operator")]
    issuer: String,
    /// Whose it is.
    #[arg(long)]
    organization: OrganizationId,
    /// The instance where it may be used.
    #[arg(long, default_value = ANY_INSTANCE)]
    instance: String,
    /// The name of its tier.
    #[arg(long)]
    tier: String,
    /// For how long it is given.
    #[arg(long = "type", value_enum, default_value = "subscription")]
    kind: KindWord,
    /// A feature (may be given several times).
    #[arg(long = "feature")]
    features: Vec<String>,
    /// How many there may be of something: servers=25, or servers=unlimited (may be given several times).
    #[arg(long = "limit", value_parser = limit)]
    limits: Vec<(String, Option<u64>)>,
    /// A host name where it may be used: shop.example.com, or *.example.com (may be given several times).
    #[arg(long = "domain")]
    domains: Vec<DomainRule>,
    /// From when on; now unless told.
    #[arg(long)]
    not_before: Option<DateTime<Utc>>,
    /// Until when; for good unless told.
    #[arg(long)]
    expires: Option<DateTime<Utc>>,
    /// For how many days it goes on after that.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(..=3_660))]
    grace_days: u64,
    /// What becomes of a feature then: feature=continue, no_growth, read_only or stop (may be given several times).
    #[arg(long = "degrade", value_parser = degrade)]
    degrade: Vec<(String, Mode)>,
    /// A feature that grows no more in the grace already (may be given several times).
    #[arg(long = "stops-growing")]
    stops_growing: Vec<String>,
    /// The number of the organization's license: higher than those before.
    #[arg(long, default_value_t = 1)]
    sequence: u64,
    /// The number of the issuer's newest list of revoked licenses: without it, or a later one, the license is not installed.
    #[arg(long, default_value_t = 0)]
    revocations: u64,
    /// For how many days it goes on without news of what was revoked; for ever unless told.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=3_660))]
    offline_days: Option<u64>,
    /// What narrower licenses made of it are signed with: `k4.public.…`; needs the feature `reselling`.
    #[arg(long)]
    delegate: Option<PublicKey>,
    /// How many of them may stand one below the other.
    #[arg(long, default_value_t = 1, requires = "delegate")]
    delegate_depth: u8,
}

/// For how long a license is given.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum KindWord {
    Trial,
    Subscription,
    Perpetual,
}

fn limit(text: &str) -> Result<(String, Option<u64>), String> {
    let wrong = || format!("{text:?} is no limit; write one such as servers=25 or servers=unlimited");
    let (name, number) = text.split_once('=').ok_or_else(wrong)?;
    match number {
        "unlimited" => Ok((name.to_owned(), None)),
        number => number.parse().map(|number| (name.to_owned(), Some(number))).map_err(|_| wrong()),
    }
}

fn degrade(text: &str) -> Result<(String, Mode), String> {
    let wrong = || format!("{text:?} is none; write one such as domain_management=read_only");
    let (name, mode) = text.split_once('=').ok_or_else(wrong)?;
    let mode =
        [Mode::Continue, Mode::NoGrowth, Mode::ReadOnly, Mode::Stop].into_iter().find(|known| known.as_str() == mode);
    mode.map(|mode| (name.to_owned(), mode)).ok_or_else(wrong)
}

/// Does what a command wants.
pub fn license(command: LicenseCommand) -> anyhow::Result<ExitCode> {
    match command {
        LicenseCommand::Keygen { secret } => keygen(&secret)?,
        LicenseCommand::Issue(issue) => println!("{}", sign(*issue)?),
        LicenseCommand::RevokeList(list) => println!("{}", revoke(list)?),
        LicenseCommand::Statement { command: StatementCommand::Verify { file, keys } } => {
            println!("{}", serde_json::to_string_pretty(&verified(&text_of(&file)?, &keys)?)?);
        }
        LicenseCommand::Inspect { key } => {
            for (kid, claims) in chain::inspect(&given(&key)?)? {
                println!("{}", serde_json::to_string_pretty(&json!({ "kid": kid, "claims": claims }))?);
            }
        }
        LicenseCommand::Verify { key, anchors, host, instance, at } => {
            let chain = Chain::verify(&given(&key)?, &Anchors::of(anchors))?;
            let links: Vec<Link<'_>> =
                chain.links().iter().map(|claims| Link { claims, status: Status::Active }).collect();
            let now = at.unwrap_or_else(|| SystemClock.now());
            let usage = BTreeMap::new();
            let circumstances = Circumstances {
                now,
                seen: None,
                instance: &instance,
                host: host.as_deref(),
                informed: None,
                usage: &usage,
            };
            let evaluation = evaluate(&links, &circumstances);
            println!("{}", serde_json::to_string_pretty(&said(chain.own(), &evaluation))?);
            if !evaluation.state.grows() {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn said(own: &Claims, evaluation: &Evaluation) -> serde_json::Value {
    let features: BTreeMap<&str, &str> =
        evaluation.features.iter().map(|(feature, access)| (feature.as_str(), access.as_str())).collect();
    json!({
        "id": own.jti,
        "organization_id": own.sub,
        "tier": own.tier,
        "type": own.typ.as_str(),
        "state": evaluation.state.as_str(),
        "features": features,
        "limits": evaluation.limits,
        "ends_at": evaluation.ends_at,
        "days_remaining": evaluation.days_remaining(),
        "next_change_at": evaluation.next_change,
    })
}

fn revoke(list: RevokeList) -> anyhow::Result<String> {
    let key: SecretKey = read(&list.secret)?.expose_secret().trim().parse().context("--secret")?;
    let mut revoked: BTreeSet<LicenseId> = list.licenses.into_iter().collect();
    if let Some(before) = &list.before {
        let (before, _) =
            Revocations::verify(&text_of(before)?, &Anchors::of([key.public()])).context("the list before")?;
        if before.epo >= list.sequence {
            bail!("the list before has the number {}; give this one a higher --sequence", before.epo);
        }
        revoked.extend(before.rev);
    }
    let list = Revocations {
        ver: revocations::VERSION,
        iss: list.issuer,
        iat: SystemClock.now(),
        epo: list.sequence,
        rev: revoked,
    };
    Ok(list.sign(&key)?)
}

fn verified(text: &str, keys: &[PublicKey]) -> anyhow::Result<serde_json::Value> {
    let texts: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let read = statements::verify(&texts, keys)?;
    let (Some(first), Some(last)) = (read.first(), read.last()) else { bail!("there is no statement") };
    let highest: BTreeMap<String, serde_json::Value> = statements::highest(&read)
        .into_iter()
        .map(|(limit, mark)| (limit, json!({ "used": mark.used, "most": mark.most, "day": mark.day })))
        .collect();
    Ok(json!({
        "organization_id": first.sub,
        "numbers": [first.num, last.num],
        "days": [first.from, last.thru],
        "made_at": last.iat,
        "last_sha256": texts.last().map(|text| statements::digest(text)),
        "highest": highest,
    }))
}

/// What is in a file, or comes from standard input.
fn text_of(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        return Ok(std::io::read_to_string(std::io::stdin())?);
    }
    std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
}

fn keygen(file: &Path) -> anyhow::Result<()> {
    let key = SecretKey::generate()?;
    write_secret(file, &key.reveal()).with_context(|| format!("{} cannot be written", file.display()))?;
    eprintln!("gantry-api: the secret is in {}; whoever has it gives licenses", file.display());
    println!("{}", key.public().id());
    println!("{}", key.public());
    Ok(())
}

/// Writes a new file that only its owner reads.
fn write_secret(file: &Path, secret: &SecretString) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    writeln!(options.open(file)?, "{}", secret.expose_secret())
}

fn read(file: &Path) -> anyhow::Result<SecretString> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    Ok(text.into())
}

fn given(key: &str) -> anyhow::Result<String> {
    if key == "-" { Ok(std::io::read_to_string(std::io::stdin())?) } else { Ok(key.to_owned()) }
}

fn sign(issue: Issue) -> anyhow::Result<String> {
    let now = SystemClock.now();
    let key: SecretKey = read(&issue.secret)?.expose_secret().trim().parse().context("--secret")?;
    let above = issue.above.as_deref().map(read).transpose()?;
    let above = above.as_ref().map(|text| text.expose_secret().trim());
    // What is above is the holder's own; whether others believe it they say themselves.
    let claims_above = above.map(chain::inspect).transpose().context("--above")?;
    let claims_above: Option<Claims> = claims_above
        .and_then(|links| links.into_iter().last())
        .map(|(_, claims)| serde_json::from_value(claims))
        .transpose()
        .context("--above")?;
    const DAY: u64 = 86_400;
    let claims = Claims {
        ver: VERSION,
        jti: IdMint::new(Arc::new(SystemClock)).mint(),
        iss: issue.issuer,
        sub: issue.organization,
        aud: issue.instance,
        iat: now,
        nbf: issue.not_before.unwrap_or(now),
        exp: issue.expires,
        typ: match issue.kind {
            KindWord::Trial => Kind::Trial,
            KindWord::Subscription => Kind::Subscription,
            KindWord::Perpetual => Kind::Perpetual,
        },
        tier: issue.tier,
        feat: issue.features.into_iter().collect(),
        lim: issue.limits.into_iter().collect(),
        dom: issue.domains,
        grace: issue.grace_days * DAY,
        deg: issue.degrade.into_iter().collect(),
        gra: issue.stops_growing.into_iter().collect::<BTreeSet<_>>(),
        seq: issue.sequence,
        par: claims_above.as_ref().map(|above| above.jti),
        cld: issue.delegate.map(|key| Delegation {
            key,
            depth: issue.delegate_depth,
            lim: BTreeMap::new(),
            dom: Vec::new(),
        }),
        off: issue.offline_days.map(|days| days * DAY),
        epo: issue.revocations,
    };
    if let Some(above) = &claims_above {
        chain::narrower(above, &claims).context("it is wider than the license above")?;
        let wanted = above.cld.as_ref().map(|cld| cld.key);
        if wanted != Some(key.public()) {
            bail!(
                "the license above names another key; sign with the secret of {}",
                wanted.map_or_else(String::new, |key| key.id().to_string())
            );
        }
    }
    if claims.typ == Kind::Trial && claims.exp.is_none_or(|exp| exp - claims.nbf > Duration::days(366)) {
        bail!("a trial ends within a year; say when with --expires");
    }
    Ok(chain::issue(above, &claims, &key)?)
}
