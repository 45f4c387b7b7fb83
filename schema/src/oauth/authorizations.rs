//! Runs through a flow, to which everything belongs that came of them.

use chrono::{DateTime, Utc};

use super::scope::Scopes;
use crate::access::{self, Behind};
use crate::{
    EngineDb, JobTx as _, OauthAuthorizationId, OauthClientId, OauthGrantId, OrganizationId, PersonId, TenantTx,
};

/// A run through a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// Its id.
    pub id: OauthAuthorizationId,
    /// Where the application acts.
    pub organization: OrganizationId,
    /// Which application.
    pub client: OauthClientId,
    /// For whom; `None`: for itself.
    pub person: Option<PersonId>,
    /// What it may do.
    pub scopes: Scopes,
    /// When the person had last proved who he is.
    pub authenticated_at: Option<DateTime<Utc>>,
    /// How (RFC 8176).
    pub methods: Vec<String>,
    /// When it expires.
    pub expires_at: DateTime<Utc>,
}

struct Row {
    id: OauthAuthorizationId,
    organization: OrganizationId,
    client: OauthClientId,
    person: Option<PersonId>,
    scopes: Vec<String>,
    authenticated_at: Option<DateTime<Utc>>,
    methods: Vec<String>,
    expires_at: DateTime<Utc>,
}

impl From<Row> for Authorization {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            organization: row.organization,
            client: row.client,
            person: row.person,
            scopes: Scopes::stored(&row.scopes),
            authenticated_at: row.authenticated_at,
            methods: row.methods,
            expires_at: row.expires_at,
        }
    }
}

/// Begins one. `grant` is what the person lets the application do; `None` when it acts for itself.
///
/// # Errors
/// When the database refuses or went away.
pub async fn insert(
    tx: &mut TenantTx,
    authorization: &Authorization,
    grant: Option<OauthGrantId>,
) -> Result<(), sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "insert into oauth_authorizations (id, organization_id, client_id, grant_id, person_id, scopes, authenticated_at,
                                           methods, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        authorization.id.uuid(),
        authorization.organization.uuid(),
        authorization.client.uuid(),
        grant.map(OauthGrantId::uuid),
        authorization.person.map(PersonId::uuid),
        &authorization.scopes.words(),
        authorization.authenticated_at,
        &authorization.methods,
        now,
        authorization.expires_at
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// One that goes on.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, id: OauthAuthorizationId) -> Result<Option<Authorization>, sqlx::Error> {
    let now = tx.now();
    sqlx::query_as!(
        Row,
        r#"select id as "id: OauthAuthorizationId", organization_id as "organization: OrganizationId",
                  client_id as "client: OauthClientId", person_id as "person: PersonId", scopes, authenticated_at,
                  methods, expires_at
             from oauth_authorizations where id = $1 and ended_at is null and expires_at > $2"#,
        id.uuid(),
        now
    )
    .fetch_optional(tx.connection())
    .await
    .map(|row| row.map(Authorization::from))
}

/// Lets it go on until then.
///
/// # Errors
/// When the database refuses or went away.
pub async fn prolong(tx: &mut TenantTx, id: OauthAuthorizationId, until: DateTime<Utc>) -> Result<(), sqlx::Error> {
    sqlx::query!("update oauth_authorizations set expires_at = $2 where id = $1 and ended_at is null", id.uuid(), until)
        .execute(tx.connection())
        .await
        .map(drop)
}

/// Why one ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The application gave it back.
    Revoked,
    /// Its code came twice.
    CodeReused,
    /// One of its refresh tokens came twice.
    RefreshTokenReused,
}

impl Ended {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::CodeReused => "code_reused",
            Self::RefreshTokenReused => "refresh_token_reused",
        }
    }
}

/// Ends it: nothing that came of it works any more.
///
/// # Errors
/// When the database refuses or went away.
pub async fn end(tx: &mut TenantTx, id: OauthAuthorizationId, because: Ended) -> Result<(), sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "update oauth_authorizations set ended_at = $2, ended_because = $3 where id = $1 and ended_at is null",
        id.uuid(),
        now,
        because.as_str()
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// What an access token opens at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// What it came of.
    pub id: OauthAuthorizationId,
    /// Where it acts.
    pub organization: OrganizationId,
    /// Which application.
    pub client: OauthClientId,
    /// What that is called.
    pub client_name: String,
    /// For whom; `None`: for itself.
    pub person: Option<PersonId>,
    /// What he may do there himself.
    pub behind: Behind,
    /// What it may do: what was granted, as far as the application may still have it.
    pub scopes: Scopes,
    /// When the person had last proved who he is.
    pub authenticated_at: Option<DateTime<Utc>>,
}

/// What an access token of this authorization opens in the transaction's organization, if the authorization goes on, the
/// application is enabled, and the person is active and a member. One statement.
///
/// # Errors
/// When the database refuses or went away.
pub async fn open(tx: &mut TenantTx, id: OauthAuthorizationId) -> Result<Option<Opened>, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    let row = sqlx::query!(
        r#"select a.client_id as "client: OauthClientId", c.name as client_name, a.person_id as "person: PersonId",
                  a.scopes, a.authenticated_at, c.scopes as limits, m.role as "role?", r.permissions as "custom?"
             from oauth_authorizations a
             join oauth_clients c on c.id = a.client_id and c.enabled
             left join people p on p.id = a.person_id and p.state = 'active'
             left join memberships m on m.person_id = p.id and m.organization_id = a.organization_id
                   and m.state = 'active'
             left join custom_roles r on r.organization_id = m.organization_id and r.id = m.custom_role_id
            where a.id = $1 and a.organization_id = $2 and a.ended_at is null and a.expires_at > $3
              and (a.person_id is null or m.person_id is not null)"#,
        id.uuid(),
        organization.uuid(),
        now
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(|row| {
        let limits = Scopes::stored(&row.limits);
        Opened {
            id,
            organization,
            client: row.client,
            client_name: row.client_name,
            person: row.person,
            behind: match &row.role {
                Some(role) => Behind::Member(access::permissions_of_member(organization, role, row.custom.as_deref())),
                None => Behind::Organization,
            },
            scopes: Scopes::stored(&row.scopes).iter().filter(|scope| limits.contain(*scope)).collect(),
            authenticated_at: row.authenticated_at,
        }
    }))
}

/// Forgets up to `limit` of each that expired: authorizations with what came of them, refresh tokens, devices. Answers how
/// many; repeat while that is not 0.
///
/// # Errors
/// When the database refuses or went away.
pub async fn forget(db: &EngineDb, now: DateTime<Utc>, limit: i64) -> Result<u64, sqlx::Error> {
    let authorizations = sqlx::query!(
        "delete from oauth_authorizations
          where id in (select id from oauth_authorizations where expires_at <= $1 limit $2)",
        now,
        limit
    );
    let tokens = sqlx::query!(
        "delete from oauth_refresh_tokens
          where id in (select id from oauth_refresh_tokens where expires_at <= $1 limit $2)",
        now,
        limit
    );
    let devices = sqlx::query!(
        "delete from oauth_device_codes
          where id in (select id from oauth_device_codes where expires_at <= $1 limit $2)",
        now,
        limit
    );
    let mut forgotten = 0;
    for statement in [authorizations, tokens, devices] {
        forgotten += statement.execute(db.pool()).await?.rows_affected();
    }
    Ok(forgotten)
}
