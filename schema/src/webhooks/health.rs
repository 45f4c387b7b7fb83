//! How an endpoint is doing, and what follows: a circuit that opens after failures in a row, a warning after days of
//! them, and the end of its deliveries after more.
//!
//! ```text
//!  closed ──10 failures in a row──► open ──30 s, doubling to 30 min──► half open: one delivery
//!    ▲                                ▲                                   │ fails
//!    └──────────── any success ───────┼───────────────────────────────────┤
//!                                     └───────────────────────────────────┘
//! ```

use chrono::{DateTime, Duration, Utc};

use crate::{EndpointId, JobTx, TenantTx};

/// Failures in a row that open the circuit.
pub const OPENS_AFTER: i32 = 10;

/// How long the circuit stays open the first time; twice as long each further time.
const OPEN_SECONDS: f64 = 30.0;

/// How long it stays open at most.
const OPEN_SECONDS_AT_MOST: f64 = 1_800.0;

/// The owner is warned when nothing has arrived for this long.
pub const WARNS_AFTER: Duration = Duration::hours(60);

/// Nothing more is sent when nothing has arrived for this long.
pub const DISABLES_AFTER: Duration = Duration::hours(120);

/// What failures mean for their endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Nothing is sent before.
    pub open_until: Option<DateTime<Utc>>,
    /// When the first failure since the last success was.
    pub failing_since: Option<DateTime<Utc>>,
    /// The owner is to be warned, now.
    pub warn: bool,
    /// It was disabled, now.
    pub disabled: bool,
}

/// Counts failures of an endpoint. `None`: it is gone or disabled already.
///
/// # Errors
/// When the database refuses or went away.
pub async fn failed(tx: &mut TenantTx, id: EndpointId, failures: i32) -> Result<Option<Verdict>, sqlx::Error> {
    let now = tx.now();
    sqlx::query_as!(
        Verdict,
        r#"with before as (
               select id, consecutive_failures + $2 >= $4 and coalesce(open_until <= $3, true) as opens,
                      warned_at is null and failing_since <= $5 as warns, failing_since <= $6 as ends
                 from webhook_endpoints where id = $1 and enabled for no key update)
           update webhook_endpoints w
              set consecutive_failures = w.consecutive_failures + $2, failing_since = coalesce(w.failing_since, $3),
                  openings = w.openings + b.opens::int,
                  open_until = case when b.opens then $3 + make_interval(secs => least($7 * 2 ^ least(w.openings, 10), $8))
                                    else w.open_until end,
                  warned_at = case when b.warns then $3 else w.warned_at end,
                  enabled = not coalesce(b.ends, false),
                  disabled_reason = case when b.ends then 'failing' end,
                  disabled_at = case when b.ends then $3 end
             from before b where w.id = b.id
        returning w.open_until, w.failing_since, coalesce(b.warns, false) as "warn!", coalesce(b.ends, false) as "disabled!""#,
        id.uuid(),
        failures,
        now,
        OPENS_AFTER,
        now - WARNS_AFTER,
        now - DISABLES_AFTER,
        OPEN_SECONDS,
        OPEN_SECONDS_AT_MOST
    )
    .fetch_optional(tx.connection())
    .await
}

/// Forgets the failures of endpoints that took a delivery: their circuits close.
///
/// # Errors
/// When the database refuses or went away.
pub async fn succeeded(tx: &mut TenantTx, ids: &[EndpointId]) -> Result<(), sqlx::Error> {
    let ids: Vec<uuid::Uuid> = ids.iter().map(|id| id.uuid()).collect();
    sqlx::query!(
        "update webhook_endpoints
            set consecutive_failures = 0, openings = 0, open_until = null, failing_since = null, warned_at = null
          where id in (select id from webhook_endpoints where id = any($1) and failing_since is not null
                        order by id for no key update)",
        &ids
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// Disables an endpoint whose receiver said that it is gone. `false`: it was disabled or removed before.
///
/// # Errors
/// When the database refuses or went away.
pub async fn gone(tx: &mut TenantTx, id: EndpointId) -> Result<bool, sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "update webhook_endpoints set enabled = false, disabled_reason = 'gone', disabled_at = $2
          where id = $1 and enabled",
        id.uuid(),
        now
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}
