//! Setting an installation up: what the owner of the database does before a release runs.

use std::collections::HashMap;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::{Db, MIGRATOR};

/// A role that a process logs in as.
#[derive(Clone)]
pub struct Login {
    /// Its name.
    pub role: String,
    /// Its password; `None`: it is left as it is.
    pub password: Option<String>,
    /// What it may do: `gantry_app` or `gantry_engine`.
    pub may: &'static str,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("role", &self.role).field("may", &self.may).finish_non_exhaustive()
    }
}

/// The database cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The server did not answer, or refused.
    #[error("connecting to PostgreSQL as the owner")]
    Connect(#[source] sqlx::Error),
    /// A migration did not apply.
    #[error("applying the migrations")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A process would own what it must only use.
    #[error("the role {0} owns the database, so no process may log in as it: name another role in its URL")]
    Owner(String),
    /// A statement failed.
    #[error("{0}")]
    Statement(&'static str, #[source] sqlx::Error),
}

/// Applies the migrations, sees to the roles that processes log in as, and prepares the coming days' partitions.
/// Doing it again changes nothing.
///
/// # Errors
/// When the database refuses or went away; what was done before stays.
pub async fn migrate(owner: &PgConnectOptions, logins: &[Login]) -> Result<(), SetupError> {
    let mut connection = PgConnection::connect_with(owner).await.map_err(SetupError::Connect)?;
    MIGRATOR.run(&mut connection).await?;
    let mut tx = connection.begin().await.map_err(SetupError::Connect)?;
    // Two that come at the same time take turns.
    run(&mut tx, "taking turns", "select pg_advisory_xact_lock(6083294)").await?;
    // So that a process can see whether it is what the database was migrated for.
    run(
        &mut tx,
        "letting processes see the migrations",
        "grant select on _sqlx_migrations to gantry_app, gantry_engine",
    )
    .await?;
    for login in logins {
        see_to(&mut tx, login).await?;
    }
    let partitions =
        "select job_partition_add((now() at time zone 'UTC')::date + ahead) from generate_series(0, 7) ahead";
    run(&mut tx, "preparing partitions", partitions).await?;
    tx.commit().await.map_err(|error| SetupError::Statement("committing", error))
}

/// The role exists, may log in, may do its part, and has the password.
async fn see_to(connection: &mut PgConnection, login: &Login) -> Result<(), SetupError> {
    let owner: String = sqlx::query_scalar("select current_user::text")
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| SetupError::Statement("asking who owns the database", error))?;
    if owner == login.role {
        return Err(SetupError::Owner(owner));
    }
    let exists: bool = sqlx::query_scalar("select exists (select from pg_roles where rolname = $1)")
        .bind(&login.role)
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| SetupError::Statement("looking for a role", error))?;
    if !exists {
        quoted(connection, "making a role", "create role %I login", &login.role, "").await?;
    }
    if login.role != login.may {
        quoted(connection, "granting a role", "grant %2$I to %1$I", &login.role, login.may).await?;
    }
    if let Some(password) = &login.password {
        quoted(connection, "setting a password", "alter role %I login password %L", &login.role, password).await?;
    }
    Ok(())
}

async fn run(connection: &mut PgConnection, what: &'static str, statement: &'static str) -> Result<(), SetupError> {
    sqlx::query(statement).execute(connection).await.map(drop).map_err(|error| SetupError::Statement(what, error))
}

/// Roles and passwords cannot be parameters of such statements; PostgreSQL itself does the quoting.
async fn quoted(
    connection: &mut PgConnection,
    what: &'static str,
    template: &'static str,
    first: &str,
    second: &str,
) -> Result<(), SetupError> {
    let failed = |error| SetupError::Statement(what, error);
    let statement: String = sqlx::query_scalar("select format($1, $2, $3)")
        .bind(template)
        .bind(first)
        .bind(second)
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.map(drop).map_err(failed)
}

/// Whether every migration of this release was applied, as it is in this release. A newer release's may be there too.
///
/// # Errors
/// When the database refuses or went away.
pub async fn is_migrated(db: &Db) -> Result<bool, sqlx::Error> {
    let applied: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("select version, checksum from _sqlx_migrations where success").fetch_all(db.pool()).await?;
    let applied: HashMap<i64, Vec<u8>> = applied.into_iter().collect();
    Ok(MIGRATOR.iter().all(|migration| applied.get(&migration.version).is_some_and(|sum| *sum == *migration.checksum)))
}
