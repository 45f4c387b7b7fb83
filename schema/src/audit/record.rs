//! The text of an entry. It is hashed as it was written, so what identifies a person lies in it encrypted: when his key
//! is gone it opens no more, and no hash changes.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::author::{ActorKind, Author};
use super::changes::Change;
use super::draft::{Draft, Outcome};
use super::subjects::DataKeys;
use crate::{AuditEntryId, JobId, OrganizationId};

/// Everything an entry says, apart from when, where, by whom and what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The entry.
    pub id: AuditEntryId,
    /// By whom.
    pub actor: ActorRecord,
    /// What gave him the right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// The permission that was needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission: Option<String>,
    /// To what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetRecord>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it was refused, or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// The W3C trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The fields that changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
}

/// By whom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActorRecord {
    /// What he is.
    pub kind: ActorKind,
    /// Where he belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<OrganizationId>,
    /// For whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
    /// The person whose key opens what is sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_id: Option<Uuid>,
    /// What identifies him, where it is not sealed.
    #[serde(flatten)]
    pub about: AboutActor,
    /// What identifies him, sealed with a person's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
}

/// What identifies an actor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AboutActor {
    /// What people call him.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display: Option<String>,
    /// Where the request came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// With which program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

/// To what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetRecord {
    /// What it is.
    pub kind: String,
    /// Its id, or `kind:name`.
    pub id: String,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display: Option<String>,
    /// The person it is, whose key opens what is sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_id: Option<Uuid>,
    /// What it is called and what changed about it, sealed with the key of the person it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
}

/// What identifies a person to whom something was done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct AboutTarget {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    display: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    changes: Vec<Change>,
}

/// Characters of a user agent that are kept.
const MAX_USER_AGENT: usize = 300;

/// Characters of a name or a reason that are kept.
const MAX_TEXT: usize = 500;

impl Record {
    /// The record of a draft. Where a person's key was shredded, what would identify him is left out.
    pub(super) fn of(
        id: AuditEntryId,
        draft: Draft,
        author: &Author,
        keys: &DataKeys,
    ) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let about = AboutActor {
            display: author.actor.display.as_deref().map(|text| kept(text, MAX_TEXT)),
            address: author.address,
            user_agent: author.user_agent.as_deref().map(|text| kept(text, MAX_USER_AGENT)),
        };
        let (about, sealed) = sealed(id, Part::Actor, author.actor.subject, about, keys)?;
        let actor = ActorRecord {
            kind: author.actor.kind,
            organization_id: author.actor.organization,
            on_behalf_of: author.actor.on_behalf_of.clone(),
            subject_id: author.actor.subject,
            about,
            sealed,
        };
        let mut changes = draft.changes.into_kept();
        let target = match draft.target {
            None => None,
            Some(target) => {
                let display = target.display.as_deref().map(|text| kept(text, MAX_TEXT));
                let about_person = if target.subject.is_some() { std::mem::take(&mut changes) } else { Vec::new() };
                let about = AboutTarget { display, changes: about_person };
                let (about, sealed) = self::sealed(id, Part::Target, target.subject, about, keys)?;
                let (kind, id) = (without_zeros(target.kind), without_zeros(target.id));
                Some(TargetRecord { kind, id, display: about.display, subject_id: target.subject, sealed })
            }
        };
        Ok(Self {
            id,
            actor,
            authority: author.authority.clone(),
            permission: draft.permission.or_else(|| author.permission.clone()),
            target,
            outcome: draft.outcome,
            reason: draft.reason.as_deref().map(|text| kept(text, MAX_TEXT)),
            request_id: author.request.clone(),
            job_id: author.job,
            trace_id: author.trace.clone(),
            changes,
        })
    }

    /// The people whose keys open what is sealed.
    pub(super) fn subjects(&self) -> impl Iterator<Item = Uuid> {
        self.actor.subject_id.into_iter().chain(self.target.as_ref().and_then(|target| target.subject_id))
    }

    /// Opens what the keys open. Answers whether something was sealed and does not open: the person was erased.
    pub(super) fn open(&mut self, keys: &DataKeys) -> bool {
        let mut erased = false;
        if let Some(sealed) = self.actor.sealed.take() {
            match opened::<AboutActor>(self.id, Part::Actor, self.actor.subject_id, &sealed, keys) {
                Some(about) => self.actor.about = about,
                None => erased = true,
            }
        }
        if let Some(of) = &mut self.target
            && let Some(sealed) = of.sealed.take()
        {
            match opened::<AboutTarget>(self.id, Part::Target, of.subject_id, &sealed, keys) {
                Some(about) => (of.display, self.changes) = (about.display, about.changes),
                None => erased = true,
            }
        }
        erased
    }
}

/// Which of the two sealed parts of an entry it is, so that neither can stand in for the other.
#[derive(Clone, Copy)]
enum Part {
    Actor = 1,
    Target = 2,
}

impl Part {
    fn bound(self, id: AuditEntryId) -> Vec<u8> {
        [&[self as u8], &id.uuid().as_bytes()[..]].concat()
    }
}

type Sealed<T> = (T, Option<String>);

/// What is left open of `about`, and what is sealed of it.
fn sealed<T: Default + PartialEq + Serialize>(
    id: AuditEntryId,
    part: Part,
    subject: Option<Uuid>,
    about: T,
    keys: &DataKeys,
) -> Result<Sealed<T>, aws_lc_rs::error::Unspecified> {
    let Some(subject) = subject else { return Ok((about, None)) };
    match keys.get(&subject) {
        Some(key) if about != T::default() => {
            let text = serde_json::to_vec(&about).unwrap_or_default();
            Ok((T::default(), Some(STANDARD.encode(key.encrypt(&part.bound(id), &text)?))))
        }
        _ => Ok((T::default(), None)),
    }
}

fn opened<T: for<'de> Deserialize<'de>>(
    id: AuditEntryId,
    part: Part,
    subject: Option<Uuid>,
    sealed: &str,
    keys: &DataKeys,
) -> Option<T> {
    let key = keys.get(&subject?)?;
    let bytes = STANDARD.decode(sealed).ok()?;
    serde_json::from_slice(&key.decrypt(&part.bound(id), &bytes)?).ok()
}

/// The beginning of a text, without what PostgreSQL cannot keep.
fn kept(text: &str, characters: usize) -> String {
    text.chars().take(characters).map(|letter| if letter == '\0' { '\u{fffd}' } else { letter }).collect()
}

pub(super) fn without_zeros(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// The moment as it is hashed and kept: to the microsecond, as PostgreSQL has it.
pub(super) fn to_micros(at: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(at.timestamp_micros()).unwrap_or(at)
}

/// The moment as it is hashed.
pub fn moment(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}
