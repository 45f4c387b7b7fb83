//! An entry before it is written: what a handler says of what it does.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::author::Author;
use super::changes::Changes;
use crate::PersonId;
use crate::id::Identifier;

/// What became of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "audit_outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    #[default]
    Allowed,
    /// It was refused.
    Denied,
    /// It was tried and could not be done.
    Failed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Allowed, Self::Denied, Self::Failed];

    /// The word that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// What something was done to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What it is: `api_key`, `queue`.
    pub kind: String,
    /// Its id, or `kind:name` of what has none.
    pub id: String,
    /// What people call it.
    pub display: Option<String>,
    /// The person it is: his name, and what changed about him, are sealed with his key.
    pub subject: Option<Uuid>,
}

impl Target {
    /// The thing with this id.
    #[must_use]
    pub fn of<Id: Identifier>(id: &Id) -> Self {
        Self { kind: Id::kind(), id: id.to_string(), display: None, subject: None }
    }

    /// Something that has a name and no id.
    #[must_use]
    pub fn named(kind: &str, name: impl Display) -> Self {
        Self { kind: kind.to_owned(), id: format!("{kind}:{name}"), display: None, subject: None }
    }

    /// With what people call it.
    #[must_use]
    pub fn called(mut self, display: impl Into<String>) -> Self {
        self.display = Some(display.into());
        self
    }

    /// What is said of it identifies this person.
    #[must_use]
    pub const fn identifying(mut self, person: Uuid) -> Self {
        self.subject = Some(person);
        self
    }
}

/// An entry that is being written. It is kept when its transaction is committed, and with it.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    pub(super) action: Cow<'static, str>,
    pub(super) author: Option<Arc<Author>>,
    pub(super) permission: Option<String>,
    pub(super) target: Option<Target>,
    pub(super) outcome: Outcome,
    pub(super) reason: Option<String>,
    pub(super) changes: Changes,
}

impl Draft {
    /// An entry about this: `api_key.revoke`.
    #[must_use]
    pub fn new(action: impl Into<Cow<'static, str>>) -> Self {
        Self { action: action.into(), ..Self::default() }
    }

    /// By somebody else than the transaction is begun by.
    pub fn by(&mut self, author: Arc<Author>) -> &mut Self {
        self.author = Some(author);
        self
    }

    /// Done to the thing with this id.
    pub fn on<Id: Identifier>(&mut self, id: &Id) -> &mut Self {
        self.target(Target::of(id))
    }

    /// Done to this.
    pub fn target(&mut self, target: Target) -> &mut Self {
        self.target = Some(target);
        self
    }

    /// What people call the target.
    pub fn called(&mut self, display: impl Into<String>) -> &mut Self {
        if let Some(target) = &mut self.target {
            target.display = Some(display.into());
        }
        self
    }

    /// What is said of the target identifies this person: it is sealed with his key.
    pub fn identifying(&mut self, person: PersonId) -> &mut Self {
        if let Some(target) = &mut self.target {
            target.subject = Some(person.uuid());
        }
        self
    }

    /// A field changed. A name with `secret`, `password`, `token` and the like in it keeps that it did, and no value.
    pub fn changed(&mut self, field: &str, before: impl Serialize, after: impl Serialize) -> &mut Self {
        let value = |it: Result<Value, serde_json::Error>| it.ok();
        self.changes.note(field.to_owned(), value(serde_json::to_value(before)), value(serde_json::to_value(after)));
        self
    }

    /// A field has this value, and nothing is known of the one before.
    pub fn set(&mut self, field: &str, value: impl Serialize) -> &mut Self {
        self.changes.note(field.to_owned(), None, serde_json::to_value(value).ok());
        self
    }

    /// Something became something else: every field that differs, secrets left out. `None`: it was not, or is no more.
    pub fn became(&mut self, before: Option<&Value>, after: Option<&Value>) -> &mut Self {
        self.changes.between("", before, after, 0);
        self
    }

    /// What became of it, and why.
    pub fn ended(&mut self, outcome: Outcome, reason: impl Into<String>) -> &mut Self {
        (self.outcome, self.reason) = (outcome, Some(reason.into()));
        self
    }

    /// Under this permission.
    pub fn under(&mut self, permission: impl Display) -> &mut Self {
        self.permission = Some(permission.to_string());
        self
    }

    /// It says what was done.
    pub(crate) fn is_about_something(&self) -> bool {
        !self.action.is_empty()
    }

    /// The people whose keys it needs.
    pub(super) fn subjects(&self, author: &Author) -> impl Iterator<Item = Uuid> {
        author.actor.subject.into_iter().chain(self.target.as_ref().and_then(|target| target.subject))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ApiKeyId;

    #[test]
    fn targets_are_found_by_their_id_alone() {
        let key: ApiKeyId = "key_01h455vb4pex5vsknk084sn02q".parse().unwrap();
        let target = Target::of(&key).called("ci");
        assert_eq!((target.kind.as_str(), target.id.as_str()), ("api_key", "key_01h455vb4pex5vsknk084sn02q"));
        assert_eq!(Target::named("queue", "default").id, "queue:default");
    }

    #[test]
    fn words_are_the_same_wherever_they_are_shown() {
        for outcome in Outcome::ALL {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
        }
    }
}
