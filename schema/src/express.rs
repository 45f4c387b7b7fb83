//! Connections for single statements that commit by themselves: enqueuing one job, claiming, settling.
//!
//! The pool asks a connection whether it is well each time it comes back, which is right after transactions,
//! whatever became of them, and costs as much again as one small statement. Here a connection only comes back
//! after a statement that ended well, so there is nothing to ask.

use std::sync::{Arc, Mutex, PoisonError};

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A few connections, opened when they are first needed. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Express(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: PgConnectOptions,
    idle: Mutex<Vec<PgConnection>>,
    places: Arc<Semaphore>,
}

/// A connection for one statement.
#[derive(Debug)]
pub(crate) struct Lane {
    connection: PgConnection,
    express: Express,
    _place: OwnedSemaphorePermit,
}

impl Express {
    /// At most so many connections, like those of the pool.
    pub(crate) fn new(options: PgConnectOptions, connections: u32) -> Self {
        let places = usize::try_from(connections.max(1)).unwrap_or(1);
        Self(Arc::new(Inner { options, idle: Mutex::default(), places: Arc::new(Semaphore::new(places)) }))
    }

    /// Takes a connection, waiting for one if all are in use.
    pub(crate) async fn lane(&self) -> Result<Lane, sqlx::Error> {
        let place = Arc::clone(&self.0.places).acquire_owned().await.map_err(|_closed| sqlx::Error::PoolClosed)?;
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.0.options.connect().await?,
        };
        Ok(Lane { connection, express: self.clone(), _place: place })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<PgConnection>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    pub(crate) const fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Gives the connection back if the statement ended well. A connection that failed is closed, and where the
    /// server is to blame, so are the others that wait.
    pub(crate) fn after<T>(self, statement: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        match &statement {
            Ok(_) => self.express.idle().push(self.connection),
            Err(sqlx::Error::Database(_)) => {}
            Err(_) => self.express.idle().clear(),
        }
        statement
    }
}
