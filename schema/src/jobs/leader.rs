//! One worker at a time holds a duty, such as ticking schedules. It saves work and nothing depends on it:
//! two leaders at once do no harm, because every duty is repeatable.

use std::time::Duration;

use crate::{EngineDb, WorkerId};

/// Takes or keeps the duty for `ttl`; `false`: somebody else has it.
///
/// # Errors
/// When the database refuses or went away.
pub async fn hold(db: &EngineDb, duty: &str, worker: WorkerId, ttl: Duration) -> Result<bool, sqlx::Error> {
    sqlx::query!(
        "insert into job_leaders (duty, worker_id, expires_at) values ($1, $2, now() + make_interval(secs => $3))
             on conflict (duty) do update set worker_id = excluded.worker_id, expires_at = excluded.expires_at
          where job_leaders.worker_id = excluded.worker_id or job_leaders.expires_at < now()",
        duty,
        worker.uuid(),
        ttl.as_secs_f64()
    )
    .execute(db.pool())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Gives the duty up, so that another worker need not wait for it to run out.
///
/// # Errors
/// When the database refuses or went away.
pub async fn resign(db: &EngineDb, worker: WorkerId) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from job_leaders where worker_id = $1", worker.uuid()).execute(db.pool()).await.map(drop)
}
