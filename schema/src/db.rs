//! Connections and the transactions on them. A transaction carries what it may see:
//!
//! - [`TenantTx`]: one organization, and one person where it acts for one. Requests and job handlers.
//! - [`PersonTx`]: one person. What somebody does with his own account.
//! - [`CredentialTx`]: what one credential opens. Authentication.
//! - [`EngineTx`]: the jobs of everybody, nothing else. The job engine.
//! - [`AuditorTx`]: the record of everybody, nothing else. Whoever seals it.
//!
//! Row-level security enforces it in the database; these types make it hard to forget.

use std::fmt::Debug;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Transaction};

use crate::audit::{Author, Draft, RecordError, Recorder, Scope, write_all};
use crate::digest::hex;
use crate::express::{Express, Lane};
use crate::inspector::BinToken;
use crate::jobs::Ready;
use crate::people::Email;
use crate::seal::SealingKeys;
use crate::{Clock, IdMint, OauthClientId, OrganizationId, PersonId};

/// Told of jobs that became ready, after the transaction that made them ready was committed.
/// It must not block: what it misses, the relay finds.
pub trait Doorbell: Debug + Send + Sync {
    /// These jobs may be claimed now.
    fn ring(&self, ready: Vec<Ready>);
}

/// A doorbell nobody hears: for commands and tests that run without workers.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Doorbell for Silent {
    fn ring(&self, _ready: Vec<Ready>) {}
}

/// The connection cannot be used for what it was opened for.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server did not answer, or refused.
    #[error("connecting to PostgreSQL")]
    Connect(#[source] sqlx::Error),
    /// The role could read every tenant's rows.
    #[error(
        "the role {role} is a superuser, bypasses row-level security or owns tables, so tenants would not be \
         separated; connect as {wanted} (or a member of it)"
    )]
    Privileged {
        /// The role the URL names.
        role: String,
        /// The role to use.
        wanted: &'static str,
    },
    /// The migrations were not applied, or the wrong URL is used for this purpose.
    #[error("the role {role} may not act as {wanted}; run `gantry-api migrate`, and check the URL")]
    NotGranted {
        /// The role the URL names.
        role: String,
        /// The role to use.
        wanted: &'static str,
    },
}

/// Connects as `wanted`, and refuses a role that is not confined to it. Half of the connections are a pool, for
/// transactions; half are for single statements.
async fn connect(
    options: PgConnectOptions,
    connections: u32,
    wanted: &'static str,
) -> Result<(PgPool, Express), ConnectError> {
    let options = options
        // Generic plans: the statements of the engine are fixed, planning them again costs more than running them.
        // A plan is kept, and tables that a queue fills and empties look small when it is made: reading them from one end
        // to the other would be cheapest then, and ruinous later.
        .options([
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_seqscan", "off"),
            ("jit", "off"),
            ("timezone", "UTC"),
        ])
        .application_name("gantry");
    let pool = PgPoolOptions::new()
        .max_connections(connections.div_ceil(2))
        .acquire_timeout(std::time::Duration::from_secs(10))
        .test_before_acquire(false)
        .connect_with(options.clone())
        .await
        .map_err(ConnectError::Connect)?;
    let row = sqlx::query!(
        r#"select current_user::text as "role!",
                  (rolsuper or rolbypassrls or exists (select from pg_tables where schemaname = 'public'
                      and tableowner = current_user)) as "privileged!",
                  exists (select from pg_roles where rolname = $1
                      and pg_has_role(current_user, oid, 'usage')) as "granted!"
             from pg_roles where rolname = current_user"#,
        wanted
    )
    .fetch_one(&pool)
    .await
    .map_err(ConnectError::Connect)?;
    match row {
        row if row.privileged => Err(ConnectError::Privileged { role: row.role, wanted }),
        row if !row.granted => Err(ConnectError::NotGranted { role: row.role, wanted }),
        _ => Ok((pool, Express::new(options, connections / 2))),
    }
}

/// The database as requests and handlers see it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Db {
    pool: PgPool,
    express: Express,
    clock: Arc<dyn Clock>,
    ids: Arc<IdMint>,
    doorbell: Arc<dyn Doorbell>,
    recorder: Option<Arc<Recorder>>,
}

impl Db {
    /// Connects as `gantry_app`.
    ///
    /// # Errors
    /// When the server does not answer, or the role is more or less than `gantry_app`.
    pub async fn connect(
        options: PgConnectOptions,
        connections: u32,
        clock: Arc<dyn Clock>,
        ids: Arc<IdMint>,
        doorbell: Arc<dyn Doorbell>,
    ) -> Result<Self, ConnectError> {
        let (pool, express) = connect(options, connections, "gantry_app").await?;
        Ok(Self { pool, express, clock, ids, doorbell, recorder: None })
    }

    /// With the keys that vouch for entries of the record, without which none can be written.
    #[must_use]
    pub fn recording(mut self, keys: Arc<SealingKeys>) -> Self {
        self.recorder = Some(Arc::new(Recorder::with(keys)));
        self
    }

    pub(crate) fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_deref()
    }

    /// Begins a transaction that sees one organization.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn tenant(&self, organization: OrganizationId) -> Result<TenantTx, sqlx::Error> {
        // One round trip: the scope is set in the message that begins. A uuid needs no quoting.
        let begin = format!(
            "begin; set local gantry.organization = '{}'; set local gantry.now = '{}'",
            organization.uuid(),
            self.now().to_rfc3339()
        );
        let inner = self.pool.begin_with(AssertSqlSafe(begin)).await?;
        let db = self.clone();
        Ok(TenantTx {
            inner,
            organization,
            db,
            ready: Vec::new(),
            author: None,
            drafts: Vec::new(),
            elsewhere: Vec::new(),
        })
    }

    /// Begins a transaction that sees one organization as it is at this moment, and changes nothing.
    pub(crate) async fn tenant_snapshot(&self, organization: OrganizationId) -> Result<TenantTx, sqlx::Error> {
        let begin = format!(
            "begin isolation level repeatable read, read only; set local gantry.organization = '{}'",
            organization.uuid()
        );
        let inner = self.pool.begin_with(AssertSqlSafe(begin)).await?;
        Ok(TenantTx {
            inner,
            organization,
            db: self.clone(),
            ready: Vec::new(),
            author: None,
            drafts: Vec::new(),
            elsewhere: Vec::new(),
        })
    }

    /// Begins a transaction that sees one organization, and what is only this person's.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn tenant_for(&self, organization: OrganizationId, person: PersonId) -> Result<TenantTx, sqlx::Error> {
        let begin = format!(
            "begin; set local gantry.organization = '{}'; set local gantry.person = '{}'; set local gantry.now = '{}'",
            organization.uuid(),
            person.uuid(),
            self.now().to_rfc3339()
        );
        let inner = self.pool.begin_with(AssertSqlSafe(begin)).await?;
        Ok(TenantTx {
            inner,
            organization,
            db: self.clone(),
            ready: Vec::new(),
            author: None,
            drafts: Vec::new(),
            elsewhere: Vec::new(),
        })
    }

    /// Begins a transaction that sees one person, and no organization's rows but his memberships.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn person(&self, person: PersonId) -> Result<PersonTx, sqlx::Error> {
        let begin = format!("begin; set local gantry.person = '{}'", person.uuid());
        Ok(PersonTx { inner: self.pool.begin_with(AssertSqlSafe(begin)).await?, person, db: self.clone() })
    }

    /// Begins a transaction that sees the person with this e-mail address, and nothing else.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn presented_email(&self, email: &Email) -> Result<CredentialTx, sqlx::Error> {
        let begin = format!("begin; set local gantry.presented_email = '{}'", hex(email.key().as_bytes()));
        Ok(CredentialTx { inner: self.pool.begin_with(AssertSqlSafe(begin)).await?, now: self.clock.now() })
    }

    /// Begins a transaction that sees the API key with this hash, and nothing else.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn credential(&self, hash: [u8; 32]) -> Result<CredentialTx, sqlx::Error> {
        let begin = format!("begin; set local gantry.presented_key = '{}'", hex(&hash));
        Ok(CredentialTx { inner: self.pool.begin_with(AssertSqlSafe(begin)).await?, now: self.clock.now() })
    }

    /// Begins a transaction that sees the application with this id, and nothing else.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn presented_client(&self, client: OauthClientId) -> Result<CredentialTx, sqlx::Error> {
        let begin = format!("begin; set local gantry.presented_client = '{}'", client.uuid());
        Ok(CredentialTx { inner: self.pool.begin_with(AssertSqlSafe(begin)).await?, now: self.clock.now() })
    }

    /// Begins a transaction that sees the inspector's bin with this token, and nothing else.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn presented_bin(&self, token: &BinToken) -> Result<CredentialTx, sqlx::Error> {
        // A token has letters and digits only.
        let begin = format!("begin; set local gantry.presented_bin = '{token}'");
        Ok(CredentialTx { inner: self.pool.begin_with(AssertSqlSafe(begin)).await?, now: self.clock.now() })
    }

    /// Begins a transaction that sees whose this host name is, and nothing else.
    ///
    /// # Errors
    /// When no connection can be had, or the text can be no host name.
    pub async fn presented_host(&self, host: &str) -> Result<CredentialTx, sqlx::Error> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        if !host.bytes().all(plain) {
            return Err(sqlx::Error::RowNotFound);
        }
        let begin = format!("begin; set local gantry.presented_host = '{host}'");
        Ok(CredentialTx { inner: self.pool.begin_with(AssertSqlSafe(begin)).await?, now: self.clock.now() })
    }

    /// A connection for one statement that commits by itself.
    pub(crate) async fn lane(&self) -> Result<Lane, sqlx::Error> {
        self.express.lane().await
    }

    /// The connections, for their numbers.
    #[must_use]
    pub const fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Where new ids come from.
    #[must_use]
    pub fn ids(&self) -> &IdMint {
        &self.ids
    }

    /// Where committed jobs are announced.
    #[must_use]
    pub fn doorbell(&self) -> &dyn Doorbell {
        &*self.doorbell
    }

    /// Does the database answer?
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), sqlx::Error> {
        sqlx::query!(r#"select 1 as "one!""#).fetch_one(&self.pool).await.map(drop)
    }
}

/// A transaction that sees one organization.
#[derive(Debug)]
pub struct TenantTx {
    inner: Transaction<'static, Postgres>,
    organization: OrganizationId,
    db: Db,
    ready: Vec<Ready>,
    author: Option<Arc<Author>>,
    drafts: Vec<Draft>,
    /// What was recorded in other organizations that it stepped into.
    elsewhere: Vec<(OrganizationId, Vec<Draft>)>,
}

/// Where a transaction was before it stepped into another organization.
#[derive(Debug)]
#[must_use = "step back, so that what comes then is of the organization that it began with"]
pub struct Stepped {
    from: OrganizationId,
    drafts: Vec<Draft>,
}

impl TenantTx {
    /// The organization everything here belongs to.
    #[must_use]
    pub const fn organization(&self) -> OrganizationId {
        self.organization
    }

    /// With who does what is recorded here; the platform itself unless told.
    #[must_use]
    pub fn by(mut self, author: Arc<Author>) -> Self {
        self.author = Some(author);
        self
    }

    /// The entry about what this transaction is for, to say more of it. Whoever began the transaction for a request has
    /// begun the entry too; where nobody did, what is said here is not kept.
    pub fn audit(&mut self) -> &mut Draft {
        if self.drafts.is_empty() {
            self.drafts.push(Draft::default());
        }
        &mut self.drafts[0]
    }

    /// Another entry, about something that is done on the way: `webhook_endpoint.disable`.
    pub fn record(&mut self, action: impl Into<std::borrow::Cow<'static, str>>) -> &mut Draft {
        // The first one is about what the transaction is for.
        self.audit();
        self.drafts.push(Draft::new(action));
        let last = self.drafts.len() - 1;
        &mut self.drafts[last]
    }

    /// Who does what is recorded here.
    #[must_use]
    pub const fn author(&self) -> Option<&Arc<Author>> {
        self.author.as_ref()
    }

    /// The database it is a transaction of.
    pub(crate) const fn db(&self) -> &Db {
        &self.db
    }

    /// Goes on in another organization, until it steps back: what is seen, written, asked for and recorded is that one's then,
    /// and everything is one commit. Whoever calls it has made sure that what asks for it may, in both. Who steps into
    /// several takes their turns in the order of their ids.
    ///
    /// # Errors
    /// When the database refuses or went away.
    pub async fn step_into(&mut self, other: OrganizationId) -> Result<Stepped, sqlx::Error> {
        set_scope(&mut self.inner, other).await?;
        Ok(Stepped { from: std::mem::replace(&mut self.organization, other), drafts: std::mem::take(&mut self.drafts) })
    }

    /// Goes on where it was before.
    ///
    /// # Errors
    /// When the database refuses or went away.
    pub async fn step_back(&mut self, stepped: Stepped) -> Result<(), sqlx::Error> {
        set_scope(&mut self.inner, stepped.from).await?;
        let left = std::mem::replace(&mut self.organization, stepped.from);
        let drafts = std::mem::replace(&mut self.drafts, stepped.drafts);
        self.elsewhere.push((left, drafts));
        Ok(())
    }

    /// Makes it so, with its entries in the record, and rings for the jobs that became ready.
    ///
    /// # Errors
    /// When the database refuses or went away; then nothing of it happened, or it cannot be known.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        let own = (self.organization, std::mem::take(&mut self.drafts));
        let mut drafts: Vec<(OrganizationId, Vec<Draft>)> = std::mem::take(&mut self.elsewhere);
        drafts.push(own);
        let mut drafts: Vec<_> = drafts.into_iter().map(|(of, drafts)| (of, kept(drafts))).collect();
        drafts.retain(|(_, drafts)| !drafts.is_empty());
        if drafts.is_empty() {
            self.inner.commit().await?;
        } else {
            let recorder = self.db.recorder.clone().ok_or(RecordError::NoKeys)?;
            let author = self.author.take();
            // Tallies are locked by everybody in the same order.
            drafts.sort_by_key(|(of, _)| *of);
            let mut believed = Vec::with_capacity(drafts.len());
            for (organization, drafts) in drafts {
                if organization != self.organization {
                    set_scope(&mut self.inner, organization).await?;
                    self.organization = organization;
                }
                let mut scope = Scope { connection: &mut self.inner, organization, db: &self.db };
                believed.push((organization, write_all(&mut scope, &recorder, drafts, author.clone()).await?));
            }
            self.inner.commit().await?;
            for (organization, people) in believed {
                recorder.believe(organization, &people, self.db.now());
            }
        }
        if !self.ready.is_empty() {
            self.db.doorbell.ring(self.ready);
        }
        Ok(())
    }

    /// Forgets everything that was done in the transaction.
    ///
    /// # Errors
    /// When the database went away; it forgets all the same.
    pub async fn rollback(self) -> Result<(), sqlx::Error> {
        self.inner.rollback().await
    }
}

/// Lets a transaction see another organization.
async fn set_scope(connection: &mut PgConnection, organization: OrganizationId) -> Result<(), sqlx::Error> {
    sqlx::query!("select set_config('gantry.organization', $1, true)", organization.uuid().to_string())
        .fetch_one(connection)
        .await
        .map(drop)
}

/// A transaction that sees one person.
#[derive(Debug)]
pub struct PersonTx {
    inner: Transaction<'static, Postgres>,
    person: PersonId,
    db: Db,
}

impl PersonTx {
    /// Whom everything here is about.
    #[must_use]
    pub const fn person(&self) -> PersonId {
        self.person
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.inner
    }

    /// Makes it so.
    ///
    /// # Errors
    /// When the database refuses or went away; then nothing of it happened, or it cannot be known.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.inner.commit().await
    }
}

/// What is to be kept: drafts that say what was done.
fn kept(mut drafts: Vec<Draft>) -> Vec<Draft> {
    drafts.retain(Draft::is_about_something);
    drafts
}

/// A transaction that sees what one credential opens: an API key, an e-mail address, or a bin.
#[derive(Debug)]
pub struct CredentialTx {
    inner: Transaction<'static, Postgres>,
    now: DateTime<Utc>,
}

impl CredentialTx {
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.inner
    }

    pub(crate) const fn now(&self) -> DateTime<Utc> {
        self.now
    }
}

/// The database as the job engine sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EngineDb {
    pool: PgPool,
    express: Express,
    clock: Arc<dyn Clock>,
    ids: Arc<IdMint>,
    doorbell: Arc<dyn Doorbell>,
}

impl EngineDb {
    /// Connects as `gantry_engine`.
    ///
    /// # Errors
    /// When the server does not answer, or the role is more or less than `gantry_engine`.
    pub async fn connect(
        options: PgConnectOptions,
        connections: u32,
        clock: Arc<dyn Clock>,
        ids: Arc<IdMint>,
        doorbell: Arc<dyn Doorbell>,
    ) -> Result<Self, ConnectError> {
        let (pool, express) = connect(options, connections, "gantry_engine").await?;
        Ok(Self { pool, express, clock, ids, doorbell })
    }

    /// Begins a transaction that sees the jobs of everybody.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn begin(&self) -> Result<EngineTx, sqlx::Error> {
        Ok(EngineTx { inner: self.pool.begin().await?, db: self.clone(), ready: Vec::new() })
    }

    /// Begins a transaction that seals the record of everybody, and does nothing else.
    ///
    /// # Errors
    /// When no connection can be had, or the engine's role may not become the auditor.
    pub async fn auditor(&self) -> Result<AuditorTx, sqlx::Error> {
        let begin = AssertSqlSafe("begin; set local role gantry_auditor");
        Ok(AuditorTx { inner: self.pool.begin_with(begin).await?, db: self.clone() })
    }

    /// A connection for one statement that commits by itself.
    pub(crate) async fn lane(&self) -> Result<Lane, sqlx::Error> {
        self.express.lane().await
    }

    /// The connections, for single statements and for their numbers.
    #[must_use]
    pub const fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Where new ids come from.
    #[must_use]
    pub fn ids(&self) -> &IdMint {
        &self.ids
    }

    /// Where committed jobs are announced.
    #[must_use]
    pub fn doorbell(&self) -> &dyn Doorbell {
        &*self.doorbell
    }
}

/// A transaction that sees the jobs of everybody.
#[derive(Debug)]
pub struct EngineTx {
    inner: Transaction<'static, Postgres>,
    db: EngineDb,
    ready: Vec<Ready>,
}

impl EngineTx {
    /// Makes it so, and rings for the jobs that became ready.
    ///
    /// # Errors
    /// When the database refuses or went away; then nothing of it happened, or it cannot be known.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.inner.commit().await?;
        if !self.ready.is_empty() {
            self.db.doorbell.ring(self.ready);
        }
        Ok(())
    }
}

/// A transaction that seals the record of everybody.
#[derive(Debug)]
pub struct AuditorTx {
    inner: Transaction<'static, Postgres>,
    db: EngineDb,
}

impl AuditorTx {
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.inner
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.db.clock.now()
    }

    pub(crate) fn ids(&self) -> &IdMint {
        &self.db.ids
    }

    /// Makes it so.
    ///
    /// # Errors
    /// When the database refuses or went away; then nothing of it happened, or it cannot be known.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.inner.commit().await
    }
}

/// A transaction in which jobs can be asked for: a tenant's, or the engine's.
pub trait JobTx: Send {
    /// Where statements run.
    fn connection(&mut self) -> &mut PgConnection;
    /// The present moment.
    fn now(&self) -> DateTime<Utc>;
    /// Where new ids come from.
    fn ids(&self) -> &IdMint;
    /// The doorbell rings for these once the transaction is committed.
    fn announce(&mut self, ready: Ready);
}

/// A transaction that acts for a person: his own, or a tenant's from [`Db::tenant_for`].
pub trait PersonalTx: Send {
    /// Where statements run.
    fn connection(&mut self) -> &mut PgConnection;
    /// The present moment.
    fn now(&self) -> DateTime<Utc>;
    /// Where new ids come from.
    fn ids(&self) -> &IdMint;
}

impl PersonalTx for PersonTx {
    fn connection(&mut self) -> &mut PgConnection {
        &mut self.inner
    }

    fn now(&self) -> DateTime<Utc> {
        self.db.clock.now()
    }

    fn ids(&self) -> &IdMint {
        &self.db.ids
    }
}

impl PersonalTx for TenantTx {
    fn connection(&mut self) -> &mut PgConnection {
        &mut self.inner
    }

    fn now(&self) -> DateTime<Utc> {
        self.db.clock.now()
    }

    fn ids(&self) -> &IdMint {
        &self.db.ids
    }
}

impl JobTx for TenantTx {
    fn connection(&mut self) -> &mut PgConnection {
        &mut self.inner
    }

    fn now(&self) -> DateTime<Utc> {
        self.db.clock.now()
    }

    fn ids(&self) -> &IdMint {
        &self.db.ids
    }

    fn announce(&mut self, ready: Ready) {
        self.ready.push(ready);
    }
}

impl JobTx for EngineTx {
    fn connection(&mut self) -> &mut PgConnection {
        &mut self.inner
    }

    fn now(&self) -> DateTime<Utc> {
        self.db.clock.now()
    }

    fn ids(&self) -> &IdMint {
        &self.db.ids
    }

    fn announce(&mut self, ready: Ready) {
        self.ready.push(ready);
    }
}
