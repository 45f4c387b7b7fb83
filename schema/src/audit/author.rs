//! Who does something, and from where: the same for everything that is recorded in one request or one attempt at a job.

use std::fmt::Display;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{ApiKeyId, JobId, OrganizationId, PersonId};

/// What somebody who does something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// A program with an API key.
    ApiKey,
    /// Somebody who signed in.
    Person,
    /// A third party's application, for itself or for somebody.
    Application,
    /// A handler.
    Job,
    /// The platform by itself.
    System,
    /// Whoever runs commands on the platform's machine.
    Operator,
    /// Somebody of an organization above, under a support grant.
    Support,
}

impl ActorKind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::ApiKey, Self::Person, Self::Application, Self::Job, Self::System, Self::Operator, Self::Support];

    /// The word that is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::Person => "person",
            Self::Application => "application",
            Self::Job => "job",
            Self::System => "system",
            Self::Operator => "operator",
            Self::Support => "support",
        }
    }
}

/// Who does something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// What he is.
    pub kind: ActorKind,
    /// His id; a word where there is none.
    pub id: String,
    /// Where he belongs, which may be above the organization he acts in.
    pub organization: Option<OrganizationId>,
    /// What people call him.
    pub display: Option<String>,
    /// For whom he does it: the id of another actor.
    pub on_behalf_of: Option<String>,
    /// The person that his name, address and user agent identify: they are sealed with this person's key.
    pub subject: Option<Uuid>,
}

impl Actor {
    /// Somebody of this kind with this id.
    #[must_use]
    pub fn new(kind: ActorKind, id: impl Display) -> Self {
        Self { kind, id: id.to_string(), organization: None, display: None, on_behalf_of: None, subject: None }
    }

    /// A program with an API key.
    #[must_use]
    pub fn api_key(key: ApiKeyId) -> Self {
        Self::new(ActorKind::ApiKey, key)
    }

    /// Somebody who signed in.
    #[must_use]
    pub fn person(person: PersonId) -> Self {
        Self::new(ActorKind::Person, person).identifying(person.uuid())
    }

    /// A handler.
    #[must_use]
    pub fn job(job: JobId) -> Self {
        Self::new(ActorKind::Job, job)
    }

    /// The platform by itself.
    #[must_use]
    pub fn system() -> Self {
        Self::new(ActorKind::System, "system")
    }

    /// Whoever runs commands on the platform's machine.
    #[must_use]
    pub fn operator() -> Self {
        Self::new(ActorKind::Operator, "operator")
    }

    /// With the organization he belongs to.
    #[must_use]
    pub const fn of(mut self, organization: OrganizationId) -> Self {
        self.organization = Some(organization);
        self
    }

    /// With what people call him.
    #[must_use]
    pub fn called(mut self, display: impl Into<String>) -> Self {
        self.display = Some(display.into());
        self
    }

    /// For somebody else.
    #[must_use]
    pub fn on_behalf_of(mut self, actor: impl Display) -> Self {
        self.on_behalf_of = Some(actor.to_string());
        self
    }

    /// What identifies him is this person's.
    #[must_use]
    pub const fn identifying(mut self, person: Uuid) -> Self {
        self.subject = Some(person);
        self
    }
}

/// Who does something, on whose authority, from where, and in which request or job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// Who.
    pub actor: Actor,
    /// What gives him the right: `api_key:key_…`, `role:admin`, `support_grant:…`.
    pub authority: Option<String>,
    /// The permission that was asked for.
    pub permission: Option<String>,
    /// The address the request came from.
    pub address: Option<IpAddr>,
    /// The program it came from, as it calls itself.
    pub user_agent: Option<String>,
    /// The request.
    pub request: Option<String>,
    /// The job.
    pub job: Option<JobId>,
    /// The W3C trace: 32 hexadecimal digits.
    pub trace: Option<String>,
}

impl Author {
    /// Somebody, from nowhere in particular.
    #[must_use]
    pub const fn new(actor: Actor) -> Self {
        Self {
            actor,
            authority: None,
            permission: None,
            address: None,
            user_agent: None,
            request: None,
            job: None,
            trace: None,
        }
    }

    /// A handler, in the trace of whoever asked for the job.
    #[must_use]
    pub fn job(job: JobId, traceparent: Option<&str>) -> Self {
        Self { job: Some(job), trace: traceparent.and_then(trace_id), ..Self::new(Actor::job(job)) }
    }
}

/// The trace of a `traceparent` header.
#[must_use]
pub fn trace_id(traceparent: &str) -> Option<String> {
    traceparent.split('-').nth(1).filter(|id| id.len() == 32).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_same_wherever_they_are_shown() {
        for kind in ActorKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }

    #[test]
    fn the_trace_is_found_in_its_header() {
        let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(trace_id(header).as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!((trace_id(""), trace_id("00-short-x")), (None, None));
    }
}
