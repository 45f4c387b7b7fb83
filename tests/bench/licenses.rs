//! `bench licenses`: what it costs to know what a license allows, what the limit adds to an operation that it counts, and
//! how many get in of many that come at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use futures::future::try_join_all;
use gantry_schema::licenses::claims::{ANY_INSTANCE, Claims, Kind, VERSION};
use gantry_schema::licenses::evaluate::{Circumstances, Link, Status, evaluate};
use gantry_schema::licenses::{Feature, Limit};
use gantry_schema::{LicenseId, OrganizationId};
use gantry_tests::percentile::percentile;
use gantry_tests::process::{Servers, organization};
use serde_json::json;
use uuid::Uuid;

use crate::http::{Connection, Target};
use crate::measure::Figures;
use crate::program::Product;

/// How often a license is evaluated.
const EVALUATIONS: u32 = 100_000;

/// How long organizations are made below one with a license and below one without.
const LONG: Duration = Duration::from_secs(12);

/// Requests that come at once, and how many of them there may be.
const ATTEMPTS: usize = 1_000;
const MOST: u32 = 100;

/// Connections over which they come.
const CONNECTIONS: usize = 50;

/// Measures everything, prints it and writes it to `json`.
pub async fn measure(json: Option<PathBuf>) -> anyhow::Result<()> {
    let mut figures = Figures::default();
    figures.note("evaluate_us", evaluations());

    let servers = Servers::from_env()?;
    let product = Product::beside_this()?;
    product.migrate().await?;
    let operator = product.api_key(OrganizationId::PLATFORM).await?;
    let (api, address) = product.api().await?;
    let operator = Target { address, key: operator };
    overhead(&servers, &product, &operator, &mut figures).await?;
    race(&servers, &product, &operator, &mut figures).await?;
    figures.write(json.as_deref())?;
    api.stop().await
}

/// Microseconds for a chain of three licenses with every feature and limit.
fn evaluations() -> f64 {
    let begin: DateTime<Utc> = DateTime::UNIX_EPOCH;
    let claims = Claims {
        ver: VERSION,
        jti: LicenseId::from_uuid(Uuid::nil()),
        iss: "bench".to_owned(),
        sub: OrganizationId::PLATFORM,
        aud: ANY_INSTANCE.to_owned(),
        iat: begin,
        nbf: begin,
        exp: Some(begin + chrono::Duration::days(365)),
        typ: Kind::Subscription,
        tier: "enterprise".to_owned(),
        feat: Feature::ALL.iter().map(ToString::to_string).collect(),
        lim: Limit::ALL.iter().map(|limit| (limit.to_string(), Some(10))).collect(),
        dom: Vec::new(),
        grace: 0,
        deg: BTreeMap::new(),
        gra: Feature::ALL.iter().map(ToString::to_string).collect(),
        seq: 1,
        par: None,
        cld: None,
        off: None,
        epo: 0,
    };
    let links = [Link { claims: &claims, status: Status::Active }; 3];
    let usage = Limit::ALL.iter().map(|limit| (limit.to_string(), 11)).collect();
    let begun = Instant::now();
    for second in 0..EVALUATIONS {
        let now = begin + chrono::Duration::seconds(second.into());
        let circumstances = Circumstances { now, seen: None, instance: "", host: None, informed: None, usage: &usage };
        std::hint::black_box(evaluate(&links, &circumstances));
    }
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(EVALUATIONS)
}

/// An organization and who acts for it; with at most so many below it, where a number is given.
async fn licensed(
    servers: &Servers,
    product: &Product,
    operator: &Target,
    most: Option<u32>,
) -> anyhow::Result<Target> {
    let id = organization(servers, if most.is_some() { "Licensed" } else { "Free" }).await?;
    product.unlimit(id).await?;
    if let Some(most) = most {
        let license = json!({ "tier": "enterprise", "type": "perpetual",
                              "limits": [{ "name": "child_organizations", "most": most }] });
        operator.ask("POST", &format!("/organizations/{id}/license"), &license.to_string()).await?;
    }
    Ok(Target { key: product.api_key(id).await?, ..operator.clone() })
}

/// What a limit adds to making an organization: in turns below one that has a license, and one that has none.
async fn overhead(
    servers: &Servers,
    product: &Product,
    operator: &Target,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let with = licensed(servers, product, operator, Some(1_000_000)).await?;
    let without = licensed(servers, product, operator, None).await?;
    let mut connection = Connection::open(operator.address).await?;
    let (mut of_with, mut of_without, mut number) = (Vec::new(), Vec::new(), 0);
    let begun = Instant::now();
    while begun.elapsed() < LONG {
        number += 1;
        let new = json!({ "name": format!("Below {number}") }).to_string();
        for (target, times) in [(&with, &mut of_with), (&without, &mut of_without)] {
            let request = target.request("POST", "/organizations", &new);
            let sent = Instant::now();
            let (status, answer) = connection.exchange(&request).await?;
            anyhow::ensure!(status == 201, "answered {status}: {}", String::from_utf8_lossy(answer));
            times.push(sent.elapsed().as_secs_f64() * 1000.0);
        }
    }
    let (with, without) = (percentile(&mut of_with, 50), percentile(&mut of_without, 50));
    figures.note("licensed_p50_ms", with);
    figures.note("unlicensed_p50_ms", without);
    figures.note("check_overhead_p50_ms", with - without);
    Ok(())
}

/// Many that want to be made at once, below one that may have fewer.
async fn race(servers: &Servers, product: &Product, operator: &Target, figures: &mut Figures) -> anyhow::Result<()> {
    let target = licensed(servers, product, operator, Some(MOST)).await?;
    let each = (0..CONNECTIONS).map(|connection| {
        let target = &target;
        async move {
            let (mut open, mut created) = (Connection::open(target.address).await?, 0_usize);
            for number in 0..ATTEMPTS / CONNECTIONS {
                let new = json!({ "name": format!("Race {connection} {number}") }).to_string();
                match open.exchange(&target.request("POST", "/organizations", &new)).await? {
                    (201, _) => created += 1,
                    (409, _) => {}
                    (status, answer) => {
                        anyhow::bail!("answered {status}: {}", String::from_utf8_lossy(answer));
                    }
                }
            }
            Ok(created)
        }
    });
    let created: usize = try_join_all(each).await?.iter().sum();
    let license = target.ask("GET", "/license", "").await?;
    let limits = license["limits"].as_array().context("no limits")?;
    let counted = limits.iter().find(|limit| limit["name"] == "child_organizations").context("no limit")?;
    anyhow::ensure!(counted["used"] == created, "{created} were made, and {} are counted", counted["used"]);
    figures.note("race_attempts", ATTEMPTS as f64);
    figures.note("race_created", created as f64);
    figures.note("race_limit", f64::from(MOST));
    Ok(())
}
