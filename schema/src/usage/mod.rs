//! What was called: counted by each process of the API, kept in rows of five minutes, hours, days and months, and held
//! against what an organization may use in a month.

pub mod latency;
mod queries;
mod quota;
mod step;

use uuid::Uuid;

use crate::{ApiKeyId, OauthClientId, PersonId};

pub use queries::{
    Called, Counted, Named, Of, Point, Row, Totals, add, by_credential, by_operation, forget, month, of_person, rows,
    tell, timeline, total,
};
pub use quota::{Metric, MonthUse, THRESHOLDS, crossed, month_of, next_month};
pub use step::{Range, Step};

/// By what a caller is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CredentialKind {
    /// An API key.
    ApiKey,
    /// Somebody who signed in, by whichever session.
    Person,
    /// An application's access tokens.
    Application,
    /// Those for which there was no place to count each by itself.
    Others,
}

impl CredentialKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::ApiKey, Self::Person, Self::Application, Self::Others];

    /// The word that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::Person => "person",
            Self::Application => "application",
            Self::Others => "others",
        }
    }

    pub(crate) fn stored(word: &str) -> Self {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word).unwrap_or(Self::Others)
    }
}

/// Who is counted apart from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Credential {
    /// By what he is known.
    pub kind: CredentialKind,
    /// Which one.
    pub id: Uuid,
}

impl Credential {
    /// Those for which there was no place.
    pub const OTHERS: Self = Self { kind: CredentialKind::Others, id: Uuid::nil() };

    /// An API key.
    #[must_use]
    pub const fn api_key(key: ApiKeyId) -> Self {
        Self { kind: CredentialKind::ApiKey, id: key.uuid() }
    }

    /// Somebody who signed in.
    #[must_use]
    pub const fn person(person: PersonId) -> Self {
        Self { kind: CredentialKind::Person, id: person.uuid() }
    }

    /// An application.
    #[must_use]
    pub const fn application(client: OauthClientId) -> Self {
        Self { kind: CredentialKind::Application, id: client.uuid() }
    }

    /// Its id, as people see it; `None`: nobody in particular.
    #[must_use]
    pub fn shown(self) -> Option<String> {
        Some(match self.kind {
            CredentialKind::ApiKey => ApiKeyId::from_uuid(self.id).to_string(),
            CredentialKind::Person => PersonId::from_uuid(self.id).to_string(),
            CredentialKind::Application => OauthClientId::from_uuid(self.id).to_string(),
            CredentialKind::Others => return None,
        })
    }
}
