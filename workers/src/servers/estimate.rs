use std::collections::BTreeMap;

use gantry_jobs::servers::EstimateServer;
use gantry_providers::clouds::account::Headroom;
use gantry_providers::clouds::{Blueprint, plausible, sandbox};
use gantry_schema::credentials::queries as credentials;
use gantry_schema::servers::{keys, warnings};
use serde_json::{Value, json};

use super::clouds;
use super::setback::Setback;
use crate::{Context, Done, Failure, Run};

impl Run for EstimateServer {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let result = match estimate(cx, self).await.map_err(|setback| setback.weighed(cx.is_last_attempt())) {
            Ok(estimate) => estimate,
            Err(Setback::Failure(failure)) => return Err(failure),
            Err(Setback::Problem(problem, said) | Setback::Passing(problem, said, _)) => {
                json!({ "possible": false, "code": problem.as_str(), "detail": said, "remedy": problem.remedy() })
            }
        };
        Ok(Done::With(result))
    }
}

async fn estimate(cx: &Context, job: &EstimateServer) -> Result<Value, Setback> {
    let mut tx = cx.begin().await?;
    let credential = credentials::open(&mut tx, cx.sealing_keys(), job.credential).await?;
    let credential = credential.ok_or_else(|| Failure::cancel("the credential was removed"))?;
    let ssh_key = keys::ensure(&mut tx, cx.sealing_keys()).await?;
    let ssh_key = keys::open(&mut tx, cx.sealing_keys(), ssh_key).await?;
    let ssh_key = ssh_key.ok_or_else(|| Failure::cancel("the SSH key of the organization is gone"))?;
    tx.commit().await?;
    let (labels, organization) = (BTreeMap::new(), cx.organization().to_string());
    let wanted = Blueprint {
        label: "estimate",
        run: "",
        name: &job.name,
        region: &job.region,
        size: &job.size,
        image: &job.image,
        authorized_key: &ssh_key.public,
        labels: &labels,
        options: clouds::options(&job.options, &organization, "", &ssh_key),
    };
    let account = clouds::account(cx, &credential)?;
    let read = clouds::catalogue(cx, job.credential, account.as_ref(), &job.region).await?;
    let mut quotas = Value::Null;
    match (&account, clouds::vendor(credential.cloud())) {
        (Some(account), Some(vendor)) => {
            plausible::check(vendor, &wanted, &read.catalogue)?;
            if let Some(headroom) = clouds::headroom(account, &read.catalogue, &wanted).await? {
                if let Headroom::Said(said) = &headroom {
                    let one = |it: &gantry_providers::clouds::account::Quota| json!({ "name": it.name, "needed": it.needed, "used": it.used, "allowed": it.allowed });
                    quotas = said.iter().map(one).collect();
                }
                if let Some(refusal) = headroom.refusal() {
                    return Err(refusal.into());
                }
            }
        }
        _ => drop(sandbox::template(&cx.providers().terraform, &wanted)?),
    }
    let costs = read.catalogue.estimate(&wanted);
    let parts: BTreeMap<&str, String> = costs.parts.iter().map(|(what, price)| (*what, price.to_string())).collect();
    let warnings: Vec<Value> = if account.is_some() {
        let said = warnings::of(&job.options, &[]).into_iter();
        said.map(|warning| json!({ "code": warning.as_str(), "detail": warning.said() })).collect()
    } else {
        Vec::new()
    };
    Ok(json!({
        "possible": true,
        "currency": costs.currency,
        "hourly": costs.hourly.map(|price| price.to_string()),
        "monthly": costs.monthly.map(|price| price.to_string()),
        "monthly_cost": costs.monthly.map(gantry_providers::clouds::price::Price::cents),
        "parts": parts,
        "not_included": costs.without,
        "quotas": quotas,
        "warnings": warnings,
        "prices_read_at": read.at,
    }))
}
