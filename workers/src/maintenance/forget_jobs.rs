use gantry_jobs::maintenance::ForgetJobs;
use gantry_schema::jobs::lease;
use gantry_schema::jobs::retention::{self, Retention};
use gantry_schema::schedules::queries;
use serde_json::json;

use crate::{Context, Done, Failure, Run};

/// Partitions that are ready ahead.
const DAYS_AHEAD: i32 = 7;

/// Rows deleted per statement and table.
const BATCH: i64 = 10_000;

impl Run for ForgetJobs {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let (ledger, now) = (cx.ledger(), cx.now());
        retention::prepare(ledger, DAYS_AHEAD).await?;

        let retention = Retention::default();
        let shortest = retention.succeeded.min(retention.cancelled).min(retention.discarded);
        let (mut days, mut kept) = (0, 0);
        for day in retention::days(ledger).await? {
            if day >= (now - shortest).date_naive() || cx.is_stopped() {
                break;
            }
            kept += retention::compact(ledger, day, retention).await?;
            days += 1;
        }
        while retention::sweep(ledger, now - shortest, BATCH).await? > 0 && !cx.is_stopped() {}

        let mut tx = ledger.begin().await?;
        queries::forget_ticks(&mut tx, now - chrono::Duration::days(400), BATCH).await?;
        tx.commit().await?;
        lease::forget_silent(ledger).await?;
        Ok(Done::With(json!({ "days_compacted": days, "jobs_kept": kept })))
    }
}
