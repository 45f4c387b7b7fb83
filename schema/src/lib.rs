//! The model: tables, the Rust types of their rows, the queries, and the pure rules beside them.
//!
//! Everything here is by feature. A query takes the transaction it runs in, and the transaction carries
//! the organization it may see: [`TenantTx`] for requests and handlers, [`EngineTx`] for the job engine,
//! which sees the jobs of everybody and nothing else.

pub mod access;
pub mod api_keys;
pub mod audit;
pub mod clock;
pub mod credentials;
pub mod db;
pub mod defence;
pub mod digest;
mod express;
pub mod factors;
pub mod id;
pub mod idempotency;
pub mod inspector;
pub mod installation;
pub mod jobs;
pub mod licenses;
pub mod limits;
pub mod memberships;
pub mod messages;
pub mod modules;
pub mod notices;
pub mod oauth;
pub mod organizations;
pub mod people;
pub mod personal;
pub mod resealing;
pub mod schedules;
pub mod seal;
pub mod servers;
pub mod sessions;
pub mod setup;
pub mod token;
pub mod turn;
pub mod usage;
pub mod webhooks;
pub mod window;
mod words;

pub use clock::{Clock, FixedClock, SystemClock};
pub use db::{AuditorTx, CredentialTx, Db, EngineDb, EngineTx, JobTx, PersonTx, PersonalTx, TenantTx};
pub use id::{
    ApiKeyId, AttemptId, AuditArchiveId, AuditEntryId, AuditKeyId, BinId, ChallengeId, ClaimId, CloudCredentialId,
    EndpointId, ErasureId, EventId, ExportId, FactorId, FactorResetId, IdMint, InspectedId, InvitationId, JobId,
    LicenseClaimId, LicenseId, LicenseStatementId, LockdownId, MessageId, ModuleId, ModuleVersionId, NoticeId,
    OauthAuthorizationId, OauthClientId, OauthClientSecretId, OauthDeviceId, OauthGrantId, OauthRefreshTokenId,
    OneTimeId, OrganizationId, PendingSignInId, PersonId, RoleId, RunId, ScheduleId, SecretId, SentCodeId, ServerId,
    SessionId, SigningKeyId, SshKeyId, StackId, SupportId, TerraformStateId, WorkerId,
};
pub use window::{Order, Window};

/// The migrations of this release, in order.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");
