//! How the record is shown.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_schema::audit::checkpoints::Checkpoint;
use gantry_schema::audit::proofs::Proof;
use gantry_schema::audit::queries::Entry;
use gantry_schema::audit::record::{ActorRecord, TargetRecord};
use gantry_schema::audit::{Change, Outcome};
use gantry_schema::digest::hex;
use gantry_schema::{AuditEntryId, AuditKeyId, JobId, OrganizationId, PersonId};
use poem_openapi::types::{Any, Example};
use poem_openapi::{Enum, Object};
use serde::Deserialize;
use serde_json::Value;

use crate::example::example;
use crate::field::Moment;

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Deserialize)]
#[oai(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub(super) enum AuditOutcome {
    /// It was done.
    Allowed,
    /// It was refused.
    Denied,
    /// It was tried and could not be done.
    Failed,
}

impl From<AuditOutcome> for Outcome {
    fn from(outcome: AuditOutcome) -> Self {
        match outcome {
            AuditOutcome::Allowed => Self::Allowed,
            AuditOutcome::Denied => Self::Denied,
            AuditOutcome::Failed => Self::Failed,
        }
    }
}

impl From<Outcome> for AuditOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Allowed => Self::Allowed,
            Outcome::Denied => Self::Denied,
            Outcome::Failed => Self::Failed,
        }
    }
}

/// By whom. What identified somebody whose data was erased is left out.
#[derive(Debug, Object)]
#[oai(example)]
pub(super) struct AuditActor {
    /// What he is: `api_key`, `person`, `application`, `job`, `system`, `operator` or `support`.
    pub(super) kind: String,
    /// His id, or a word where there is none.
    pub(super) id: String,
    /// Where he belongs.
    #[oai(skip_serializing_if_is_none)]
    pub(super) organization_id: Option<OrganizationId>,
    /// What people call him.
    #[oai(skip_serializing_if_is_none)]
    pub(super) display: Option<String>,
    /// For whom he did it.
    #[oai(skip_serializing_if_is_none)]
    pub(super) on_behalf_of: Option<String>,
    /// The person whose key opens what identifies him.
    #[oai(skip_serializing_if_is_none)]
    pub(super) person_id: Option<PersonId>,
    /// Where the request came from.
    #[oai(skip_serializing_if_is_none)]
    pub(super) address: Option<String>,
    /// With which program.
    #[oai(skip_serializing_if_is_none)]
    pub(super) user_agent: Option<String>,
}

example!(AuditActor, {
    "kind": "api_key",
    "id": "key_01h455vb4pex5vsknk084sn02q",
    "organization_id": "org_01h455vb4pex5vsknk084sn02q",
    "display": "Billing",
    "address": "203.0.113.7",
    "user_agent": "billing/2.1",
});

impl AuditActor {
    fn of(id: String, record: ActorRecord) -> Self {
        Self {
            kind: record.kind.as_str().to_owned(),
            id,
            organization_id: record.organization_id,
            display: record.about.display,
            on_behalf_of: record.on_behalf_of,
            person_id: record.subject_id.map(PersonId::from_uuid),
            address: record.about.address.map(|address| address.to_string()),
            user_agent: record.about.user_agent,
        }
    }
}

/// To what.
#[derive(Debug, Object)]
#[oai(example)]
pub(super) struct AuditTarget {
    /// What it is: `api_key`, `queue`.
    pub(super) kind: String,
    /// Its id, or `kind:name`.
    pub(super) id: String,
    /// What people call it.
    #[oai(skip_serializing_if_is_none)]
    pub(super) display: Option<String>,
    /// The person it is.
    #[oai(skip_serializing_if_is_none)]
    pub(super) person_id: Option<PersonId>,
}

example!(AuditTarget, { "kind": "schedule", "id": "sch_01h455vb4pex5vsknk084sn02q", "display": "nightly" });

impl From<TargetRecord> for AuditTarget {
    fn from(record: TargetRecord) -> Self {
        let person_id = record.subject_id.map(PersonId::from_uuid);
        Self { kind: record.kind, id: record.id, display: record.display, person_id }
    }
}

/// A field that changed. A secret shows that it did, and no value.
#[derive(Debug, Object)]
#[oai(example)]
pub(super) struct AuditChange {
    /// Which: `name`, `headers.x-team`.
    path: String,
    /// What it was; absent: it was not there, or is not known.
    #[oai(skip_serializing_if_is_none)]
    before: Option<Any<Value>>,
    /// What it is; absent: it is gone.
    #[oai(skip_serializing_if_is_none)]
    after: Option<Any<Value>>,
}

example!(AuditChange, { "path": "cron", "before": "@daily", "after": "@hourly" });

impl From<Change> for AuditChange {
    fn from(change: Change) -> Self {
        Self { path: change.path, before: change.before.map(Any), after: change.after.map(Any) }
    }
}

/// What was done, or refused.
#[derive(Debug, Object)]
#[oai(example)]
pub(super) struct AuditEntry {
    /// Its id.
    pub(super) id: AuditEntryId,
    /// In whose record it is.
    pub(super) organization_id: OrganizationId,
    /// When.
    pub(super) occurred_at: Moment,
    /// By whom.
    pub(super) actor: AuditActor,
    /// What gave him the right: `api_key:key_…`, `role:admin`.
    #[oai(skip_serializing_if_is_none)]
    pub(super) authority: Option<String>,
    /// The permission that was needed.
    #[oai(skip_serializing_if_is_none)]
    pub(super) permission: Option<String>,
    /// What: `schedule.replace`.
    pub(super) action: String,
    /// To what.
    #[oai(skip_serializing_if_is_none)]
    pub(super) target: Option<AuditTarget>,
    /// What became of it.
    pub(super) outcome: AuditOutcome,
    /// Why it was refused, or failed.
    #[oai(skip_serializing_if_is_none)]
    pub(super) reason: Option<String>,
    /// The request, as its answer named it in `X-Request-Id`.
    #[oai(skip_serializing_if_is_none)]
    pub(super) request_id: Option<String>,
    /// The job in which it was done.
    #[oai(skip_serializing_if_is_none)]
    pub(super) job_id: Option<JobId>,
    /// The W3C trace.
    #[oai(skip_serializing_if_is_none)]
    pub(super) trace_id: Option<String>,
    /// The fields that changed, or what else there is to say.
    pub(super) changes: Vec<AuditChange>,
    /// Its number in the record, from 1 without a gap; absent: it gets one within seconds.
    #[oai(skip_serializing_if_is_none)]
    pub(super) sequence: Option<i64>,
    /// Its link of the chain, in hexadecimal digits.
    #[oai(skip_serializing_if_is_none)]
    pub(super) hash: Option<String>,
    /// It identified somebody whose data was erased.
    pub(super) erased: bool,
}

example!(AuditEntry, {
    "id": "aud_01h455vb4pex5vsknk084sn02q",
    "organization_id": "org_01h455vb4pex5vsknk084sn02q",
    "occurred_at": "2026-01-15T12:00:00.123456Z",
    "actor": {
        "kind": "api_key",
        "id": "key_01h455vb4pex5vsknk084sn02q",
        "organization_id": "org_01h455vb4pex5vsknk084sn02q",
        "display": "Billing",
        "address": "203.0.113.7",
        "user_agent": "billing/2.1",
    },
    "authority": "api_key:key_01h455vb4pex5vsknk084sn02q",
    "permission": "schedules:write",
    "action": "schedule.replace",
    "target": { "kind": "schedule", "id": "sch_01h455vb4pex5vsknk084sn02q", "display": "nightly" },
    "outcome": "allowed",
    "request_id": "req_019bc186de0074e9b4d3a0935f500fd4",
    "trace_id": "0269223ac5253d6afbb39d87c61465d8",
    "changes": [{ "path": "cron", "before": "@daily", "after": "@hourly" }],
    "sequence": 1042,
    "hash": "86e8f4b9345c8f6d1deb5eb5dc2506b2baf2078e4f2dc45b97db414abe78e83f",
    "erased": false,
});

impl From<Entry> for AuditEntry {
    fn from(entry: Entry) -> Self {
        let record = entry.record;
        Self {
            id: entry.id,
            organization_id: entry.organization,
            occurred_at: entry.occurred_at.into(),
            actor: AuditActor::of(entry.actor, record.actor),
            authority: record.authority,
            permission: record.permission,
            action: entry.action,
            target: record.target.map(AuditTarget::from),
            outcome: record.outcome.into(),
            reason: record.reason,
            request_id: record.request_id,
            job_id: record.job_id,
            trace_id: record.trace_id,
            changes: record.changes.into_iter().map(AuditChange::from).collect(),
            sequence: entry.sequence,
            hash: entry.hash.map(|hash| hex(&hash)),
            erased: entry.erased,
        }
    }
}

/// Where a record ended, signed by the platform.
#[derive(Debug, Object)]
#[oai(example)]
pub(super) struct AuditCheckpoint {
    /// Whose record.
    organization_id: OrganizationId,
    /// The number of the last entry it covers.
    sequence: i64,
    /// That entry's link of the chain, in hexadecimal digits.
    hash: String,
    /// The root of the Merkle tree of all links up to it (RFC 6962), in hexadecimal digits.
    root: String,
    /// When it was made.
    made_at: Moment,
    /// The text that was signed.
    statement: String,
    /// The key that signed it.
    key_id: AuditKeyId,
    /// Its public half: Ed25519 (RFC 8032), in base64.
    public_key: String,
    /// The signature of the statement, in base64.
    signature: String,
}

example!(AuditCheckpoint, {
    "organization_id": "org_01h455vb4pex5vsknk084sn02q",
    "sequence": 1042,
    "hash": "86e8f4b9345c8f6d1deb5eb5dc2506b2baf2078e4f2dc45b97db414abe78e83f",
    "root": "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    "made_at": "2026-01-15T13:00:00Z",
    "statement": "gantry audit checkpoint 1\norg_01h455vb4pex5vsknk084sn02q\n1042\n86e8f4b9345c8f6d1deb5eb5dc2506b2baf2078e4f2dc45b97db414abe78e83f\n5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328\n2026-01-15T13:00:00Z\n",
    "key_id": "auk_01h455vb4pex5vsknk084sn02q",
    "public_key": "6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw=",
    "signature": "Ya1LNlVOiG8bEJ4Qy0LWJwYqgj3SpZbR9lYdrWPt5S5Rk0dZJz7LnS1vLw0m1f1KRjxT0cVJ3TwP5Q9zq3yqDA==",
});

impl From<Checkpoint> for AuditCheckpoint {
    fn from(checkpoint: Checkpoint) -> Self {
        Self {
            statement: checkpoint.statement(),
            organization_id: checkpoint.organization,
            sequence: checkpoint.sequence,
            hash: hex(&checkpoint.hash),
            root: hex(&checkpoint.root),
            made_at: checkpoint.made_at.into(),
            key_id: checkpoint.key,
            public_key: STANDARD.encode(checkpoint.public_key),
            signature: STANDARD.encode(checkpoint.signature),
        }
    }
}

/// That an entry is in what was signed.
#[derive(Debug, Object)]
#[oai(example)]
pub(super) struct AuditProof {
    /// The first checkpoint that covers it.
    checkpoint: AuditCheckpoint,
    /// The place of its leaf in the tree, from 0. The leaf is SHA-256 of a zero byte and the entry's `hash`.
    index: i64,
    /// How many leaves the tree has.
    leaves: i64,
    /// The hashes beside the way from the leaf to the root, the lowest first, in hexadecimal digits.
    path: Vec<String>,
}

impl Example for AuditProof {
    fn example() -> Self {
        let path = vec!["5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e".to_owned()];
        Self { checkpoint: AuditCheckpoint::example(), index: 1041, leaves: 1042, path }
    }
}

/// An entry, with what proves it.
#[derive(Debug, Object)]
#[oai(example)]
pub(super) struct ProvenAuditEntry {
    /// The entry.
    entry: AuditEntry,
    /// The text that is hashed, with what identifies people encrypted.
    text: String,
    /// The proof; absent: nothing that covers it was signed yet, which happens every hour.
    #[oai(skip_serializing_if_is_none)]
    proof: Option<AuditProof>,
}

impl Example for ProvenAuditEntry {
    fn example() -> Self {
        let text = r#"{"id":"aud_01h455vb4pex5vsknk084sn02q","outcome":"allowed"}"#.to_owned();
        Self { entry: AuditEntry::example(), text, proof: Some(AuditProof::example()) }
    }
}

impl ProvenAuditEntry {
    pub(super) fn of(mut entry: Entry, proof: Option<Proof>) -> Self {
        let index = entry.sequence.map_or(0, |sequence| sequence - 1);
        let text = std::mem::take(&mut entry.text);
        let proof = proof.map(|proof| AuditProof {
            index,
            leaves: proof.checkpoint.sequence,
            path: proof.path.iter().map(|hash| hex(hash)).collect(),
            checkpoint: proof.checkpoint.into(),
        });
        Self { entry: entry.into(), text, proof }
    }
}
