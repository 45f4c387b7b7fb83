//! People in the table.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};

use super::Email;
use crate::{CredentialTx, PersonId, PersonalTx};

/// Whether somebody may sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// He may.
    Active,
    /// He may not until he is let in again.
    Suspended,
    /// Nothing of him is left but his id.
    Erased,
}

impl State {
    /// The word in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Erased => "erased",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Somebody who signs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// His id.
    pub id: PersonId,
    /// Where mail reaches him.
    pub email: String,
    /// When it was proven that it does.
    pub email_verified_at: Option<DateTime<Utc>>,
    /// What he is called.
    pub name: String,
    /// A language tag, for what is written to him.
    pub locale: String,
    /// Whether he may sign in.
    pub state: State,
    /// When his account was made.
    pub created_at: DateTime<Utc>,
}

/// Somebody who has no account yet.
#[derive(Debug, Clone)]
pub struct NewPerson<'a> {
    /// Who he will be: the transaction acts for him already.
    pub id: PersonId,
    /// Where mail reaches him.
    pub email: &'a Email,
    /// It was proven that it does.
    pub email_verified: bool,
    /// What he is called.
    pub name: &'a str,
    /// A language tag, for what is written to him.
    pub locale: &'a str,
}

struct Row {
    id: PersonId,
    email: String,
    email_verified_at: Option<DateTime<Utc>>,
    name: String,
    locale: String,
    state: String,
    created_at: DateTime<Utc>,
}

impl FromStr for State {
    type Err = sqlx::Error;

    fn from_str(word: &str) -> Result<Self, sqlx::Error> {
        [Self::Active, Self::Suspended, Self::Erased]
            .into_iter()
            .find(|state| state.as_str() == word)
            .ok_or_else(|| sqlx::Error::Decode(format!("{word:?} is no state of a person").into()))
    }
}

impl TryFrom<Row> for Person {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.id,
            email: row.email,
            email_verified_at: row.email_verified_at,
            name: row.name,
            locale: row.locale,
            state: row.state.parse()?,
            created_at: row.created_at,
        })
    }
}

/// Makes an account for the person the transaction acts for.
///
/// # Errors
/// When the database refuses: the constraint `people_email_key` when somebody else has the address.
pub async fn insert(tx: &mut impl PersonalTx, new: &NewPerson<'_>) -> Result<Person, sqlx::Error> {
    let now = tx.now();
    let email_verified_at = new.email_verified.then_some(now);
    sqlx::query!(
        "insert into people (id, email, email_key, email_verified_at, name, locale, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $7)",
        new.id.uuid(),
        new.email.as_str(),
        new.email.key(),
        email_verified_at,
        new.name,
        new.locale,
        now
    )
    .execute(tx.connection())
    .await?;
    Ok(Person {
        id: new.id,
        email: new.email.as_str().to_owned(),
        email_verified_at,
        name: new.name.to_owned(),
        locale: new.locale.to_owned(),
        state: State::Active,
        created_at: now,
    })
}

/// The person, if the transaction acts for him, or for an organization he is a member of.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut impl PersonalTx, id: PersonId) -> Result<Option<Person>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"select id as "id: PersonId", email, email_verified_at, name, locale, state, created_at
             from people where id = $1"#,
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await?
    .map(Person::try_from)
    .transpose()
}

/// The person whose e-mail address the transaction presents.
///
/// # Errors
/// When the database refuses or went away.
pub async fn presented(tx: &mut CredentialTx, email: &Email) -> Result<Option<Person>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"select id as "id: PersonId", email, email_verified_at, name, locale, state, created_at
             from people where email_key = $1"#,
        email.key()
    )
    .fetch_optional(tx.connection())
    .await?
    .map(Person::try_from)
    .transpose()
}

/// What is to be different about a person; what is left out stays.
#[derive(Debug, Clone, Copy, Default)]
pub struct PersonChange<'a> {
    /// What he is called.
    pub name: Option<&'a str>,
    /// A language tag, for what is written to him.
    pub locale: Option<&'a str>,
}

/// Changes the person the transaction acts for. Answers how he is now.
///
/// # Errors
/// When the database refuses or went away.
pub async fn change(
    tx: &mut impl PersonalTx,
    id: PersonId,
    change: PersonChange<'_>,
) -> Result<Option<Person>, sqlx::Error> {
    let now = tx.now();
    sqlx::query_as!(
        Row,
        r#"update people set name = coalesce($2, name), locale = coalesce($3, locale), updated_at = $4 where id = $1
        returning id as "id: PersonId", email, email_verified_at, name, locale, state, created_at"#,
        id.uuid(),
        change.name,
        change.locale,
        now
    )
    .fetch_optional(tx.connection())
    .await?
    .map(Person::try_from)
    .transpose()
}

/// Mail to the person the transaction acts for goes to another address from now on; it was proven that it reaches him.
///
/// # Errors
/// When the database refuses: the constraint `people_email_key` when somebody else has the address.
pub async fn change_email(tx: &mut impl PersonalTx, id: PersonId, email: &Email) -> Result<(), sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "update people set email = $2, email_key = $3, email_verified_at = $4, updated_at = $4 where id = $1",
        id.uuid(),
        email.as_str(),
        email.key(),
        now
    )
    .execute(tx.connection())
    .await
    .map(drop)
}
