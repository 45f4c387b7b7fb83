//! Policies in the tables.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Country, Effective, MostSessions, Policy, Response, SecondFactor};
use crate::factors::Kind;
use crate::{JobTx as _, OrganizationId, TenantTx, limits};

/// A policy, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Whose.
    pub organization: OrganizationId,
    /// What.
    pub policy: Policy,
    /// When it was set.
    pub updated_at: DateTime<Utc>,
}

/// The policies of the transaction's organization and those above it, its own first.
///
/// # Errors
/// When the database refuses or went away.
pub async fn on_the_way_up(tx: &mut TenantTx) -> Result<Vec<Stored>, sqlx::Error> {
    let organization = tx.organization();
    let rows = sqlx::query!(
        r#"select p.organization_id as "organization: OrganizationId", p.networks::text[] as "networks!",
                  p.countries_allowed, p.countries_denied, p.refuses_unknown, p.new_device, p.impossible_travel,
                  p.credential_stuffing, p.second_factor_since, p.second_factor_grace_days, p.second_factor_kinds,
                  p.most_sessions, p.refuses_more_sessions, p.updated_at
             from organization_closure c join defence_policies p on p.organization_id = c.ancestor_id
            where c.descendant_id = $1 order by c.depth"#,
        organization.uuid()
    )
    .fetch_all(tx.connection())
    .await?;
    let countries = |words: Vec<String>| words.iter().filter_map(|word| word.parse::<Country>().ok()).collect();
    let stored = rows.into_iter().map(|row| Stored {
        organization: row.organization,
        policy: Policy {
            networks: row.networks.iter().filter_map(|network| network.parse().ok()).collect(),
            countries_allowed: countries(row.countries_allowed),
            countries_denied: countries(row.countries_denied),
            refuses_unknown: row.refuses_unknown,
            new_device: Response::stored(&row.new_device),
            impossible_travel: Response::stored(&row.impossible_travel),
            credential_stuffing: Response::stored(&row.credential_stuffing),
            second_factor: row
                .second_factor_since
                .map(|since| SecondFactor { since, grace: TimeDelta::days(row.second_factor_grace_days.into()) }),
            factor_kinds: row.second_factor_kinds.iter().filter_map(|word| Kind::read(word)).collect(),
            sessions: row
                .most_sessions
                .map(|most| MostSessions { most: most.into(), refuses: row.refuses_more_sessions }),
        },
        updated_at: row.updated_at,
    });
    Ok(stored.collect())
}

/// What holds for the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn effective(tx: &mut TenantTx) -> Result<Effective, sqlx::Error> {
    Ok(Effective(on_the_way_up(tx).await?.into_iter().map(|stored| stored.policy).collect()))
}

/// Sets the policy of the transaction's organization, which those below it inherit. A second factor that was needed before is
/// needed since then.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set(tx: &mut TenantTx, policy: &Policy) -> Result<(), sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    let words = |countries: &[Country]| countries.iter().map(ToString::to_string).collect::<Vec<_>>();
    let networks: Vec<String> = policy.networks.iter().map(|network| network.trunc().to_string()).collect();
    sqlx::query!(
        "insert into defence_policies (organization_id, networks, countries_allowed, countries_denied, refuses_unknown,
                                       new_device, impossible_travel, credential_stuffing, second_factor_since,
                                       second_factor_grace_days, updated_at, second_factor_kinds, most_sessions,
                                       refuses_more_sessions)
         values ($1, $2::text[]::cidr[], $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
             on conflict (organization_id) do update
            set networks = excluded.networks, countries_allowed = excluded.countries_allowed,
                countries_denied = excluded.countries_denied, refuses_unknown = excluded.refuses_unknown,
                new_device = excluded.new_device, impossible_travel = excluded.impossible_travel,
                credential_stuffing = excluded.credential_stuffing,
                second_factor_since = case when excluded.second_factor_since is null then null
                                      else coalesce(defence_policies.second_factor_since, excluded.second_factor_since) end,
                second_factor_grace_days = excluded.second_factor_grace_days, updated_at = excluded.updated_at,
                second_factor_kinds = excluded.second_factor_kinds, most_sessions = excluded.most_sessions,
                refuses_more_sessions = excluded.refuses_more_sessions",
        organization.uuid(),
        &networks,
        &words(&policy.countries_allowed),
        &words(&policy.countries_denied),
        policy.refuses_unknown,
        policy.new_device.as_str(),
        policy.impossible_travel.as_str(),
        policy.credential_stuffing.as_str(),
        policy.second_factor.map(|needed| needed.since),
        policy.second_factor.map_or(0, |needed| i32::try_from(needed.grace.num_days()).unwrap_or(0)),
        now,
        &policy.factor_kinds.iter().map(ToString::to_string).collect::<Vec<_>>(),
        policy.sessions.map(|sessions| i32::try_from(sessions.most).unwrap_or(i32::MAX)),
        policy.sessions.is_some_and(|sessions| sessions.refuses)
    )
    .execute(tx.connection())
    .await?;
    // It holds for all below it too.
    limits::notify(tx, None).await
}
