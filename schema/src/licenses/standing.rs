//! What an organization's license is at the moment: the key in force, its own or that of the nearest above, with what
//! became of the licenses it was made of.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::chain::{Anchors, Chain};
use super::claims::{Claims, Mode, seconds};
use super::evaluate::{Access, Circumstances, Evaluation, Link, Status, evaluate};
use super::features::{Feature, Limit};
use super::keys::PublicKey;
use super::queries::{self, Counter, Stored};
use crate::organizations::{Permission, Permissions};
use crate::seal::SealingKeys;
use crate::{Db, JobTx as _, LicenseId, OrganizationId, TenantTx};

/// A license in force.
#[derive(Debug, Clone)]
pub struct Licensed {
    /// The key, and what was decided about it.
    pub stored: Stored,
    /// The licenses that count, that of the holder last; empty: the key is not believed.
    links: Vec<(Claims, Status)>,
}

/// Whose licenses are believed: whoever operates the platform says so, and no tenant.
#[derive(Debug)]
pub struct Trust {
    /// What opens the platform's own keys.
    pub keys: Arc<SealingKeys>,
    /// Keys of others.
    pub pinned: Vec<PublicKey>,
}

impl Trust {
    /// The keys: those that are pinned, and the platform's own.
    ///
    /// # Errors
    /// When the database refuses or went away.
    pub async fn anchors(&self, db: &Db) -> Result<Anchors, sqlx::Error> {
        let own = queries::believed(&mut db.tenant(OrganizationId::PLATFORM).await?, &self.keys).await?;
        Ok(Anchors::of(self.pinned.iter().copied().chain(own)))
    }
}

/// The license that counts for the transaction's organization; `None`: neither it nor one above it has any.
///
/// # Errors
/// When the database refuses or went away.
pub async fn licensed(tx: &mut TenantTx, anchors: &Anchors) -> Result<Option<Licensed>, sqlx::Error> {
    Ok(Licensed::of_line(queries::line(tx).await?, anchors))
}

/// Lets what the license in force of the transaction's organization says count for what is added from now on. Answers the
/// license that counts.
///
/// # Errors
/// When the database refuses or went away.
pub async fn count(tx: &mut TenantTx, anchors: &Anchors) -> Result<Option<Licensed>, sqlx::Error> {
    let found = licensed(tx, anchors).await?;
    if let Some(own) = found.as_ref().filter(|found| found.stored.organization == tx.organization()) {
        let counters = own.counters(tx.now());
        queries::count_by(tx, &counters).await?;
    }
    Ok(found)
}

impl Stored {
    /// What became of a license of its chain by a list of its issuer.
    fn of_list(&self, license: LicenseId) -> Status {
        if self.revoked.contains(&license) { Status::Revoked } else { Status::Active }
    }

    /// What became of its own license, by a list or by a decision.
    fn status_of(&self, license: LicenseId) -> Status {
        if self.revoked.contains(&license) { Status::Revoked } else { self.status }
    }
}

impl Licensed {
    /// The last of the licenses in force in a line from the top.
    #[must_use]
    pub fn of_line(mut line: Vec<Stored>, anchors: &Anchors) -> Option<Self> {
        line.pop().map(|stored| Self::of(stored, &line, anchors))
    }

    /// A key with those that are in force above it.
    #[must_use]
    pub fn of(stored: Stored, above: &[Stored], anchors: &Anchors) -> Self {
        let Ok(chain) = Chain::verify(&stored.key, anchors) else { return Self { stored, links: Vec::new() } };
        let mut links: Vec<(Claims, Status)> = Vec::with_capacity(chain.links().len());
        for claims in chain.links() {
            let newer = above.iter().find(|one| one.organization == claims.sub);
            let in_force = newer.and_then(|one| {
                let chain = Chain::verify(&one.key, anchors).ok()?;
                (chain.own().seq >= claims.seq).then(|| (chain.own().clone(), one.status_of(chain.own().jti)))
            });
            // What one above has now counts, not what it had when this was made.
            links.push(in_force.unwrap_or_else(|| (claims.clone(), stored.of_list(claims.jti))));
        }
        if let Some((claims, status)) = links.last_mut() {
            *status = stored.status_of(claims.jti);
        }
        Self { stored, links }
    }

    /// What the holder's license says; `None`: the key is not believed.
    #[must_use]
    pub fn own(&self) -> Option<&Claims> {
        self.links.last().map(|(claims, _)| claims)
    }

    /// The license that the holder's was made of; `None`: it is the first.
    #[must_use]
    pub fn above(&self) -> Option<&Claims> {
        self.links.len().checked_sub(2).and_then(|place| self.links.get(place)).map(|(claims, _)| claims)
    }

    /// As if this were the holder's license, and in force.
    #[must_use]
    pub fn instead(&self, own: Claims) -> Self {
        let above = self.links.iter().take(self.links.len().saturating_sub(1)).cloned();
        Self { stored: self.stored.clone(), links: above.chain([(own, Status::Active)]).collect() }
    }

    /// As if this were the only license, and in force.
    #[must_use]
    pub fn of_claims(own: Claims, now: DateTime<Utc>) -> Self {
        let stored = Stored {
            id: own.jti,
            organization: own.sub,
            key: String::new(),
            number: i64::try_from(own.seq).unwrap_or(i64::MAX),
            status: Status::Active,
            reason: None,
            seen_at: now,
            decided_by: None,
            decided_at: now,
            revoked: Vec::new(),
            informed: now,
        };
        Self { stored, links: vec![(own, Status::Active)] }
    }

    /// As if this were decided about it.
    #[must_use]
    pub fn decided(mut self, status: Status) -> Self {
        if let Some(own) = self.links.last_mut() {
            own.1 = status;
        }
        self
    }

    /// What follows from it.
    #[must_use]
    pub fn evaluate(&self, now: DateTime<Utc>, host: Option<&str>, usage: &BTreeMap<String, u64>) -> Evaluation {
        let seen = Some(self.stored.seen_at);
        if self.links.is_empty() {
            return Evaluation::of_none(now);
        }
        let links: Vec<Link<'_>> = self.links.iter().map(|(claims, status)| Link { claims, status: *status }).collect();
        // What was decided here is known at any moment; what was decided elsewhere comes by lists.
        let informed = Some(self.stored.informed);
        // An instance has no name yet, so licenses for a certain one are for another.
        let circumstances = Circumstances { now, seen, instance: "", host, informed, usage };
        evaluate(&links, &circumstances)
    }

    /// What a feature of it allows.
    #[must_use]
    pub fn access(&self, feature: Feature, now: DateTime<Utc>, host: Option<&str>) -> Access {
        self.evaluate(now, host, &BTreeMap::new()).access(feature.as_str())
    }

    /// What it lets somebody do.
    #[must_use]
    pub fn allows(&self, now: DateTime<Utc>, host: Option<&str>) -> Permissions {
        let evaluation = self.evaluate(now, host, &BTreeMap::new());
        let allowed = |permission: &&Permission| allows(&evaluation, **permission);
        Permission::ALL.iter().filter(allowed).copied().collect()
    }

    /// What it means for rows that are inserted.
    #[must_use]
    pub fn counters(&self, now: DateTime<Utc>) -> Vec<Counter> {
        let evaluation = self.evaluate(now, None, &BTreeMap::new());
        let counter = |limit: &Limit| Counter {
            limit: *limit,
            most: evaluation.limits.get(limit.as_str()).copied().flatten(),
            grows_until: self.grows_until(&evaluation, limit.feature()),
        };
        Limit::ALL.iter().map(counter).collect()
    }

    fn grows_until(&self, evaluation: &Evaluation, feature: Option<Feature>) -> Option<DateTime<Utc>> {
        let feature = feature.map(Feature::as_str);
        if !evaluation.grows(feature) {
            return Some(DateTime::UNIX_EPOCH);
        }
        let until = |claims: &Claims| {
            let unheard = claims.off.and_then(|off| self.stored.informed.checked_add_signed(seconds(off)));
            let ends_at = [claims.exp, unheard].into_iter().flatten().min()?;
            match feature {
                Some(feature) if claims.gra.contains(feature) => Some(ends_at),
                Some(feature) if claims.mode(feature) == Mode::Continue => None,
                _ => ends_at.checked_add_signed(claims.grace()),
            }
        };
        self.links.iter().filter_map(|(claims, _)| until(claims)).min()
    }
}

/// The feature that a permission needs: one line makes a permission something that licenses decide about.
#[must_use]
pub const fn needs(permission: Permission) -> Option<Feature> {
    match permission {
        Permission::ManageApiKeys | Permission::ManageOauthClients => Some(Feature::ApiAccess),
        Permission::IssueLicenses => Some(Feature::Reselling),
        _ => None,
    }
}

fn allows(evaluation: &Evaluation, permission: Permission) -> bool {
    let Some(feature) = needs(permission) else { return true };
    let access = evaluation.access(feature.as_str());
    if permission.reads() { access >= Access::Read } else { access >= Access::Change }
}
