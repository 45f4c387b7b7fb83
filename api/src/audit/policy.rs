//! What becomes of the record besides lying there.

use gantry_schema::audit::policies::{self, Policy};
use gantry_schema::organizations::needed::{ManageAudit, ReadAudit};
use poem::web::Data;
use poem_openapi::{Object, OpenApi};
use serde::Deserialize;

use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::conditional::{IfMatch, IfNoneMatch, Tagged};
use crate::error::Error;
use crate::example::example;
use crate::once::{Answered, Once};
use crate::tag::Tag;

/// The operations on what becomes of the record.
#[derive(Debug, Clone, Copy)]
pub struct AuditPolicies;

/// What becomes of an organization's record.
#[derive(Debug, Object)]
#[oai(example)]
struct AuditPolicy {
    /// Each entry is an event too, `audit.recorded`, once it is sealed.
    forward: bool,
    /// For how many days entries are kept at least, before what was copied of them is dropped; absent: for ever.
    #[oai(skip_serializing_if_is_none)]
    keep_days: Option<i32>,
}

example!(AuditPolicy, { "forward": true, "keep_days": 365 });

/// What is to become of an organization's record.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewAuditPolicy {
    /// Each entry that is sealed from now on is an event too, `audit.recorded`.
    forward: bool,
    /// For how many days entries are kept at least: 90 or more; left out: for ever.
    #[oai(validator(minimum(value = "90"), maximum(value = "36500")))]
    keep_days: Option<i32>,
}

example!(NewAuditPolicy, { "forward": true, "keep_days": 365 });

impl From<Policy> for AuditPolicy {
    fn from(policy: Policy) -> Self {
        Self { forward: policy.forwards, keep_days: policy.keep_days }
    }
}

#[OpenApi(prefix_path = "/audit-policy", tag = "Tag::Audit")]
impl AuditPolicies {
    /// Get what becomes of the record
    ///
    /// Whether it goes on as events, and how long it is kept.
    #[oai(path = "/", method = "get", operation_id = "getAuditPolicy")]
    async fn get(
        &self,
        caller: May<ReadAudit>,
        app: Data<&App>,
        if_none_match: IfNoneMatch,
    ) -> Result<Tagged<AuditPolicy>, Error> {
        let mut tx = app.db.tenant(caller.organization()).await?;
        Ok(if_none_match.answer(policies::get(&mut tx).await?.into()))
    }

    /// Say what becomes of the record
    ///
    /// Of the caller's organization. As an event an entry goes to webhooks and into the feed, each once and in order; what
    /// identifies people is not in it. Entries are dropped, once a day, when they are older than `keep_days`, signed by a
    /// checkpoint, and in a copy of everything (`POST /audit-archives`) of which somebody told the digest. What was dropped is
    /// recorded, and what is left verifies as before.
    /// A license has to have the feature `audit_logging`, where there is one.
    ///
    /// Refused as `precondition_required` without `If-Match`.
    #[oai(path = "/", method = "put", operation_id = "setAuditPolicy")]
    async fn set(
        &self,
        caller: May<ManageAudit>,
        once: Once,
        if_match: IfMatch,
        body: Body<NewAuditPolicy>,
    ) -> Result<Answered<Tagged<AuditPolicy>>, Error> {
        let NewAuditPolicy { forward, keep_days } = body.0;
        if keep_days.is_some_and(|days| !(policies::KEEP_AT_LEAST..=policies::KEEP_AT_MOST).contains(&days)) {
            return Err(Error::field("keep_days", "write 90 to 36500 days, or leave it out to keep entries for ever"));
        }
        let set = once.run(&caller, caller.organization(), async |tx| {
            let before = policies::get(tx).await?;
            let policy = Policy { forwards: forward, keep_days };
            let after = AuditPolicy::from(policy);
            if_match.demand(&AuditPolicy::from(before), &after)?;
            policies::set(tx, policy).await?;
            tx.audit().changed("forward", before.forwards, forward).changed("keep_days", before.keep_days, keep_days);
            Ok(Tagged::of(after))
        });
        set.await
    }
}
