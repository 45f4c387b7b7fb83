//! Sessions and their tokens in the tables.

use chrono::{DateTime, Duration, Utc};

use crate::access;
use crate::memberships::Role;
use crate::organizations::Permissions;
use crate::{CredentialTx, OrganizationId, PersonId, PersonalTx, SessionId};

/// Who holds a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A browser, by a cookie.
    Browser,
    /// A program, by tokens.
    Program,
}

impl Kind {
    /// The word that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Browser => "browser",
            Self::Program => "program",
        }
    }

    pub(crate) fn read(word: &str) -> Self {
        if word == "browser" { Self::Browser } else { Self::Program }
    }
}

/// What a token does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// It opens a browser's session.
    Cookie,
    /// It opens a program's session.
    Access,
    /// It is exchanged for the next access token.
    Refresh,
}

impl TokenKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Cookie => "cookie",
            Self::Access => "access",
            Self::Refresh => "refresh",
        }
    }
}

/// A session to begin.
#[derive(Debug, Clone)]
pub struct NewSession<'a> {
    /// Its id.
    pub id: SessionId,
    /// Whose it is: the transaction acts for him.
    pub person: PersonId,
    /// For which of his organizations he acts.
    pub organization: Option<OrganizationId>,
    /// Who holds it.
    pub kind: Kind,
    /// How he proved who he is.
    pub methods: &'a [&'a str],
    /// With which kinds of factors beside a password.
    pub factors: &'a [&'a str],
    /// From where.
    pub address: Option<&'a str>,
    /// What the program calls itself.
    pub user_agent: Option<&'a str>,
    /// It ends after so long a silence.
    pub idle: Duration,
    /// It ends at the latest after so long.
    pub lasts: Duration,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub person: PersonId,
    /// For which of his organizations he acts.
    pub organization: Option<OrganizationId>,
    /// Who holds it.
    pub kind: Kind,
    /// When he last proved who he is.
    pub authenticated_at: DateTime<Utc>,
    /// How.
    pub methods: Vec<String>,
    /// From where it was used last.
    pub address: Option<String>,
    /// What the program calls itself.
    pub user_agent: Option<String>,
    /// When it began.
    pub created_at: DateTime<Utc>,
    /// When it was used last, to the minute.
    pub last_used_at: DateTime<Utc>,
    /// When it ends at the latest.
    pub expires_at: DateTime<Utc>,
}

struct Row {
    id: SessionId,
    person: PersonId,
    organization: Option<OrganizationId>,
    kind: String,
    authenticated_at: DateTime<Utc>,
    methods: Vec<String>,
    address: Option<String>,
    user_agent: Option<String>,
    created_at: DateTime<Utc>,
    last_used_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

impl From<Row> for Session {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            person: row.person,
            organization: row.organization,
            kind: Kind::read(&row.kind),
            authenticated_at: row.authenticated_at,
            methods: row.methods,
            address: row.address,
            user_agent: row.user_agent,
            created_at: row.created_at,
            last_used_at: row.last_used_at,
            expires_at: row.expires_at,
        }
    }
}

/// Begins a session.
///
/// # Errors
/// When the database refuses or went away.
pub async fn open(tx: &mut impl PersonalTx, new: &NewSession<'_>) -> Result<Session, sqlx::Error> {
    let now = tx.now();
    let methods: Vec<String> = new.methods.iter().map(ToString::to_string).collect();
    let factors: Vec<String> = new.factors.iter().map(ToString::to_string).collect();
    let user_agent = new.user_agent.map(|text| text.chars().take(400).collect::<String>());
    let expires_at = now + new.lasts;
    sqlx::query!(
        "insert into sessions (id, person_id, organization_id, kind, authenticated_at, methods, address, user_agent,
                               created_at, last_used_at, idle_seconds, expires_at, factors)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $5, $5, $9, $10, $11)",
        new.id.uuid(),
        new.person.uuid(),
        new.organization.map(OrganizationId::uuid),
        new.kind.as_str(),
        now,
        &methods,
        new.address,
        user_agent,
        i32::try_from(new.idle.num_seconds()).unwrap_or(i32::MAX),
        expires_at,
        &factors
    )
    .execute(tx.connection())
    .await?;
    Ok(Session {
        id: new.id,
        person: new.person,
        organization: new.organization,
        kind: new.kind,
        authenticated_at: now,
        methods,
        address: new.address.map(str::to_owned),
        user_agent,
        created_at: now,
        last_used_at: now,
        expires_at,
    })
}

/// Lets a token open the session until then.
///
/// # Errors
/// When the database refuses or went away.
pub async fn give(
    tx: &mut impl PersonalTx,
    session: &Session,
    hash: [u8; 32],
    kind: TokenKind,
    expires_at: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "insert into session_tokens (hash, session_id, person_id, kind, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6)",
        &hash[..],
        session.id.uuid(),
        session.person.uuid(),
        kind.as_str(),
        now,
        expires_at
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// Lets nothing that was given open the session any more. What was exchanged is remembered.
///
/// # Errors
/// When the database refuses or went away.
pub async fn take_back(tx: &mut impl PersonalTx, session: SessionId) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from session_tokens where session_id = $1 and used_at is null", session.uuid())
        .execute(tx.connection())
        .await
        .map(drop)
}

/// What is known of a request by its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The session.
    pub session: SessionId,
    /// Whose it is.
    pub person: PersonId,
    /// Who holds it.
    pub kind: Kind,
    /// Of which organization he is: the one that was asked for, or the session's; he is a member of it.
    pub organization: Option<OrganizationId>,
    /// What he is there.
    pub role: Option<Role>,
    /// What he may do there.
    pub may: Permissions,
    /// When he last proved who he is.
    pub authenticated_at: DateTime<Utc>,
    /// How.
    pub methods: Vec<String>,
    /// With which kinds of factors beside a password.
    pub factors: Vec<String>,
    /// Since when he is a member there.
    pub member_since: Option<DateTime<Utc>>,
    /// When the session began.
    pub created_at: DateTime<Utc>,
    /// When the session was used last, to the minute.
    pub last_used_at: DateTime<Utc>,
    /// When the token stops opening it.
    pub expires_at: DateTime<Utc>,
}

/// The session that the transaction's token opens, for this organization if he is a member of it, else for the session's
/// if he is a member of that, else for none. One statement.
///
/// # Errors
/// When the database refuses or went away.
pub async fn authenticate(tx: &mut CredentialTx, wanted: Option<OrganizationId>) -> Result<Option<Known>, sqlx::Error> {
    let now = tx.now();
    let row = sqlx::query!(
        r#"select s.id as "session: SessionId", s.person_id as "person: PersonId", s.kind, s.authenticated_at,
                  s.methods, s.factors, s.created_at, s.last_used_at,
                  least(t.expires_at, s.expires_at) as "expires_at!",
                  m.organization_id as "organization?: OrganizationId", m.role as "role?",
                  m.permissions as "permissions?", m.created_at as "member_since?"
             from session_tokens t
             join sessions s on s.id = t.session_id
             join people p on p.id = t.person_id
             left join lateral (
                  select m.organization_id, m.role, m.created_at, r.permissions
                    from memberships m
                    left join custom_roles r on r.organization_id = m.organization_id and r.id = m.custom_role_id
                   where m.person_id = t.person_id and m.state = 'active'
                     and m.organization_id in ($2, s.organization_id)
                   order by (m.organization_id is not distinct from $2) desc limit 1) m on true
            where t.hash = presented_key() and t.kind in ('cookie', 'access') and t.expires_at > $1
              and s.ended_at is null and s.expires_at > $1
              and s.last_used_at > $1 - make_interval(secs => s.idle_seconds)
              and p.state = 'active'"#,
        now,
        wanted.map(OrganizationId::uuid)
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(|row| Known {
        session: row.session,
        person: row.person,
        kind: Kind::read(&row.kind),
        organization: row.organization,
        may: match (row.organization, &row.role) {
            (Some(organization), Some(role)) => {
                access::permissions_of_member(organization, role, row.permissions.as_deref())
            }
            _ => Permissions::default(),
        },
        role: row.role.as_deref().map(Role::stored),
        authenticated_at: row.authenticated_at,
        methods: row.methods,
        factors: row.factors,
        member_since: row.member_since,
        created_at: row.created_at,
        last_used_at: row.last_used_at,
        expires_at: row.expires_at,
    }))
}

/// Whose token the transaction presents, whether or not it still opens anything.
///
/// # Errors
/// When the database refuses or went away.
pub async fn whose(tx: &mut CredentialTx) -> Result<Option<PersonId>, sqlx::Error> {
    sqlx::query_scalar!(r#"select person_id as "person: PersonId" from session_tokens where hash = presented_key()"#)
        .fetch_optional(tx.connection())
        .await
}

/// What comes of a refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exchange {
    /// It is used up, and its session goes on.
    Done(Session),
    /// It was used before, so two have it: its session was ended.
    Reused(SessionId),
    /// It does not work.
    Unknown,
}

/// Uses a refresh token up.
///
/// # Errors
/// When the database refuses or went away.
pub async fn exchange(tx: &mut impl PersonalTx, hash: [u8; 32]) -> Result<Exchange, sqlx::Error> {
    let now = tx.now();
    let used = sqlx::query_scalar!(
        r#"update session_tokens set used_at = $2
            where hash = $1 and kind = 'refresh' and used_at is null and expires_at > $2
        returning session_id as "session: SessionId""#,
        &hash[..],
        now
    )
    .fetch_optional(tx.connection())
    .await?;
    if let Some(session) = used {
        return Ok(find(tx, session).await?.map_or(Exchange::Unknown, Exchange::Done));
    }
    let before = sqlx::query_scalar!(
        r#"select session_id as "session: SessionId" from session_tokens
            where hash = $1 and kind = 'refresh' and used_at is not null"#,
        &hash[..]
    )
    .fetch_optional(tx.connection())
    .await?;
    match before {
        Some(session) => {
            end(tx, session, Ended::Stolen).await?;
            Ok(Exchange::Reused(session))
        }
        None => Ok(Exchange::Unknown),
    }
}

/// A session that goes on.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut impl PersonalTx, id: SessionId) -> Result<Option<Session>, sqlx::Error> {
    let now = tx.now();
    sqlx::query_as!(
        Row,
        r#"select id as "id: SessionId", person_id as "person: PersonId",
                  organization_id as "organization: OrganizationId", kind, authenticated_at, methods, address,
                  user_agent, created_at, last_used_at, expires_at
             from sessions
            where id = $1 and ended_at is null and expires_at > $2
              and last_used_at > $2 - make_interval(secs => idle_seconds)"#,
        id.uuid(),
        now
    )
    .fetch_optional(tx.connection())
    .await
    .map(|row| row.map(Session::from))
}

/// The person's sessions that go on, newest first; there are few.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut impl PersonalTx, person: PersonId) -> Result<Vec<Session>, sqlx::Error> {
    let now = tx.now();
    let rows = sqlx::query_as!(
        Row,
        r#"select id as "id: SessionId", person_id as "person: PersonId",
                  organization_id as "organization: OrganizationId", kind, authenticated_at, methods, address,
                  user_agent, created_at, last_used_at, expires_at
             from sessions
            where person_id = $1 and ended_at is null and expires_at > $2
              and last_used_at > $2 - make_interval(secs => idle_seconds)
            order by id desc"#,
        person.uuid(),
        now
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().map(Session::from).collect())
}

/// How many of the person's sessions go on.
///
/// # Errors
/// When the database refuses or went away.
pub async fn count(tx: &mut impl PersonalTx, person: PersonId) -> Result<i64, sqlx::Error> {
    let now = tx.now();
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from sessions
            where person_id = $1 and ended_at is null and expires_at > $2
              and last_used_at > $2 - make_interval(secs => idle_seconds)"#,
        person.uuid(),
        now
    )
    .fetch_one(tx.connection())
    .await
}

/// Why a session ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// He signed out.
    SignedOut,
    /// He, or somebody who may, ended it from elsewhere.
    Revoked,
    /// What he proves himself with was changed.
    Changed,
    /// One of its refresh tokens came twice.
    Stolen,
    /// There were too many.
    TooMany,
    /// He wants to be forgotten.
    Erased,
}

impl Ended {
    /// The word that is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SignedOut => "signed_out",
            Self::Revoked => "revoked",
            Self::Changed => "credentials_changed",
            Self::Stolen => "refresh_token_reused",
            Self::TooMany => "too_many",
            Self::Erased => "erased",
        }
    }
}

/// Ends a session; `false`: there is none that goes on.
///
/// # Errors
/// When the database refuses or went away.
pub async fn end(tx: &mut impl PersonalTx, id: SessionId, because: Ended) -> Result<bool, sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "update sessions set ended_at = $2, ended_because = $3 where id = $1 and ended_at is null and expires_at > $2",
        id.uuid(),
        now,
        because.as_str()
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Ends the person's sessions but this one. Answers how many those were.
///
/// # Errors
/// When the database refuses or went away.
pub async fn end_others(
    tx: &mut impl PersonalTx,
    person: PersonId,
    but: Option<SessionId>,
    because: Ended,
) -> Result<u64, sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "update sessions set ended_at = $2, ended_because = $3
          where person_id = $1 and ended_at is null and expires_at > $2 and ($4::uuid is null or id <> $4)",
        person.uuid(),
        now,
        because.as_str(),
        but.map(SessionId::uuid)
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected())
}

/// Ends the person's longest unused sessions, so that `keep` go on.
///
/// # Errors
/// When the database refuses or went away.
pub async fn end_oldest(tx: &mut impl PersonalTx, person: PersonId, keep: i64) -> Result<u64, sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "update sessions set ended_at = $2, ended_because = $3
          where id in (select id from sessions
                        where person_id = $1 and ended_at is null and expires_at > $2
                        order by last_used_at desc, id desc offset $4)",
        person.uuid(),
        now,
        Ended::TooMany.as_str(),
        keep
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected())
}

/// How many of the person's sessions, without this one, go on in the organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn count_in(
    tx: &mut impl PersonalTx,
    person: PersonId,
    organization: OrganizationId,
    but: Option<SessionId>,
) -> Result<i64, sqlx::Error> {
    let now = tx.now();
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from sessions
            where person_id = $1 and organization_id = $2 and ended_at is null and expires_at > $3
              and last_used_at > $3 - make_interval(secs => idle_seconds) and ($4::uuid is null or id <> $4)"#,
        person.uuid(),
        organization.uuid(),
        now,
        but.map(SessionId::uuid)
    )
    .fetch_one(tx.connection())
    .await
}

/// Ends the person's longest unused sessions in the organization, without this one, so that `keep` go on.
///
/// # Errors
/// When the database refuses or went away.
pub async fn end_oldest_in(
    tx: &mut impl PersonalTx,
    person: PersonId,
    organization: OrganizationId,
    but: Option<SessionId>,
    keep: i64,
) -> Result<u64, sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "update sessions set ended_at = $3, ended_because = $4
          where id in (select id from sessions
                        where person_id = $1 and organization_id = $2 and ended_at is null and expires_at > $3
                          and last_used_at > $3 - make_interval(secs => idle_seconds) and ($5::uuid is null or id <> $5)
                        order by last_used_at desc, id desc offset $6)",
        person.uuid(),
        organization.uuid(),
        now,
        Ended::TooMany.as_str(),
        but.map(SessionId::uuid),
        keep
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected())
}

/// A session, whether or not it goes on, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its id.
    pub id: SessionId,
    /// For which of his organizations he acted.
    pub organization: Option<OrganizationId>,
    /// Who held it.
    pub kind: String,
    /// How he proved who he is.
    pub methods: Vec<String>,
    /// From where it was used last.
    pub address: Option<String>,
    /// What the program called itself.
    pub user_agent: Option<String>,
    /// When it began.
    pub created_at: DateTime<Utc>,
    /// When it was used last.
    pub last_used_at: DateTime<Utc>,
    /// When it ended before its time.
    pub ended_at: Option<DateTime<Utc>>,
    /// Why.
    pub ended_because: Option<String>,
}

/// All of the person's sessions that are kept, newest first.
///
/// # Errors
/// When the database refuses or went away.
pub async fn kept(tx: &mut impl PersonalTx, person: PersonId, limit: i64) -> Result<Vec<Kept>, sqlx::Error> {
    sqlx::query_as!(
        Kept,
        r#"select id as "id: SessionId", organization_id as "organization: OrganizationId", kind, methods, address,
                  user_agent, created_at, last_used_at, ended_at, ended_because
             from sessions where person_id = $1 order by id desc limit $2"#,
        person.uuid(),
        limit
    )
    .fetch_all(tx.connection())
    .await
}

/// Notes that the session was used just now, and from where.
///
/// # Errors
/// When the database refuses or went away.
pub async fn touch(tx: &mut impl PersonalTx, id: SessionId, address: Option<&str>) -> Result<(), sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "update sessions set last_used_at = greatest(last_used_at, $2), address = coalesce($3, address)
          where id = $1 and ended_at is null",
        id.uuid(),
        now,
        address
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// Lets the session act for another organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn switch(
    tx: &mut impl PersonalTx,
    id: SessionId,
    organization: Option<OrganizationId>,
) -> Result<bool, sqlx::Error> {
    sqlx::query!(
        "update sessions set organization_id = $2 where id = $1 and ended_at is null",
        id.uuid(),
        organization.map(OrganizationId::uuid)
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Notes that the person proved anew who he is.
///
/// # Errors
/// When the database refuses or went away.
pub async fn prove(
    tx: &mut impl PersonalTx,
    id: SessionId,
    methods: &[&str],
    factors: &[&str],
) -> Result<bool, sqlx::Error> {
    let words = |words: &[&str]| -> Vec<String> { words.iter().map(ToString::to_string).collect() };
    let now = tx.now();
    sqlx::query!(
        "update sessions set authenticated_at = $2, last_used_at = $2,
                methods = (select array_agg(distinct method order by method) from unnest(methods || $3) method),
                factors = coalesce((select array_agg(distinct factor order by factor)
                                      from unnest(factors || $4) factor), '{}')
          where id = $1 and ended_at is null",
        id.uuid(),
        now,
        &words(methods),
        &words(factors)
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}
