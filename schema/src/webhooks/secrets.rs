//! What deliveries are signed with. While a secret is being replaced, the old one signs beside the new one.

use chrono::{DateTime, Duration, Utc};

use crate::seal::SealContext;
use crate::{EndpointId, JobTx, OrganizationId, SecretId, TenantTx};

/// Old secrets that may still sign beside the current one.
pub const MAX_OLD: usize = 10;

/// How long a replaced secret may go on signing.
pub const MAX_OVERLAP: Duration = Duration::days(7);

/// How long it does when nobody says otherwise.
pub const OVERLAP: Duration = Duration::hours(24);

/// A signing secret of an endpoint, sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its id.
    pub id: SecretId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// Whose deliveries it signs.
    pub endpoint: EndpointId,
    /// `v1` or `v1a`.
    pub scheme: String,
    /// Sealed for this row.
    pub secret: Vec<u8>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it stops signing; `None`: it is the current one.
    pub expires_at: Option<DateTime<Utc>>,
}

impl Secret {
    /// The one place where the sealed secret opens.
    #[must_use]
    pub fn place(organization: OrganizationId, id: SecretId) -> SealContext<'static> {
        SealContext { organization: organization.uuid(), table: "webhook_secrets", column: "secret", row: id.uuid() }
    }
}

/// Makes this the current secret of its endpoint. The one before goes on signing for `overlap`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn replace(tx: &mut TenantTx, secret: &Secret, overlap: Duration) -> Result<(), sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "delete from webhook_secrets where endpoint_id = $1 and expires_at <= $2",
        secret.endpoint.uuid(),
        now
    )
    .execute(tx.connection())
    .await?;
    if overlap > Duration::zero() {
        sqlx::query!(
            "update webhook_secrets set expires_at = $2 where endpoint_id = $1 and expires_at is null",
            secret.endpoint.uuid(),
            now + overlap
        )
        .execute(tx.connection())
        .await?;
    } else {
        // Replaced at once: whoever has an old one may have stolen it.
        sqlx::query!("delete from webhook_secrets where endpoint_id = $1", secret.endpoint.uuid())
            .execute(tx.connection())
            .await?;
    }
    sqlx::query!(
        "insert into webhook_secrets (id, organization_id, endpoint_id, scheme, secret, created_at)
         values ($1, $2, $3, $4, $5, $6)",
        secret.id.uuid(),
        secret.organization.uuid(),
        secret.endpoint.uuid(),
        secret.scheme,
        secret.secret,
        secret.created_at
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// The secrets that sign for these endpoints now, the current ones first.
///
/// # Errors
/// When the database refuses or went away.
pub async fn signing(tx: &mut TenantTx, endpoints: &[EndpointId]) -> Result<Vec<Secret>, sqlx::Error> {
    let (ids, now): (Vec<uuid::Uuid>, _) = (endpoints.iter().map(|id| id.uuid()).collect(), tx.now());
    sqlx::query_as!(
        Secret,
        r#"select id as "id: SecretId", organization_id as "organization: OrganizationId",
                  endpoint_id as "endpoint: EndpointId", scheme, secret, created_at, expires_at
             from webhook_secrets
            where endpoint_id = any($1) and (expires_at is null or expires_at > $2)
            order by created_at desc, id desc"#,
        &ids,
        now
    )
    .fetch_all(tx.connection())
    .await
}
