//! What one worker does for all: due jobs become ready, lost rings are repeated, silent workers' jobs are
//! taken back, schedules tick, depths are measured. Everything here may be done twice without harm.

use std::time::Duration;

use gantry_schema::JobId;
use gantry_schema::jobs::{Ready, keys, leader, lease, relay, workflow};
use gantry_schema::organizations::tree;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Parts, in_time, scheduler};

/// The one duty there is.
const DUTY: &str = "upkeep";

/// How often the leader looks for due jobs.
const BEAT: Duration = Duration::from_millis(200);

/// A ring is given so long to be answered before it is repeated.
const RING_AGE: Duration = Duration::from_secs(2);

/// Ready jobs in one page of a sweep.
const PAGE: i64 = 1_000;

/// Changes of counts that are added up at a time.
const CHANGES: i32 = 5_000;

/// How often a job's worker may fall silent under it, for kinds this worker does not know.
const POISON: i32 = 3;

/// Leads while it can, until `life` ends.
pub(super) async fn lead(parts: Parts, life: CancellationToken) {
    let mut upkeep = Upkeep::new(parts);
    loop {
        if let Err(error) = upkeep.beat().await {
            if !std::mem::replace(&mut upkeep.failing, true) {
                warn!("Upkeep waits for its servers: {error}");
            }
            upkeep.resign(&error).await;
            if life.run_until_cancelled(tokio::time::sleep(Duration::from_secs(1))).await.is_none() {
                return;
            }
        } else if std::mem::take(&mut upkeep.failing) {
            info!("Upkeep goes on");
        }
        if life.run_until_cancelled(upkeep.pause()).await.is_none() {
            return;
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum UpkeepError {
    #[error("PostgreSQL: {0}")]
    Ledger(#[from] sqlx::Error),
    #[error("Redis: {0}")]
    Redis(#[from] redis::RedisError),
}

struct Upkeep {
    parts: Parts,
    leading: bool,
    failing: bool,
    asked: Option<Instant>,
    /// Where the sweep over everything that is ready has got to.
    swept: JobId,
    /// Redis forgot, or something was resumed: sweep without pausing.
    hurry: bool,
    epoch: Option<String>,
    due: Due,
}

/// When which duty comes next.
struct Due {
    rescue: Instant,
    sweep: Instant,
    schedules: Instant,
    mend: Instant,
    counts: Instant,
    measure: Instant,
}

impl Upkeep {
    fn new(parts: Parts) -> Self {
        let now = Instant::now();
        Self {
            parts,
            leading: false,
            failing: false,
            asked: None,
            swept: JobId::from_uuid(uuid::Uuid::nil()),
            hurry: true,
            epoch: None,
            due: Due { rescue: now, sweep: now, schedules: now, mend: now, counts: now, measure: now },
        }
    }

    /// Until the next beat: at once when there is more to sweep, longer when somebody else leads.
    async fn pause(&mut self) {
        let wait = match (self.leading, self.hurry) {
            (true, true) => Duration::from_millis(10),
            (true, false) => BEAT,
            (false, _) => self.parts.config.leadership / 4,
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.parts.resweep.notified(), if self.leading => self.sweep_all(),
        }
    }

    async fn beat(&mut self) -> Result<(), UpkeepError> {
        if !self.lead().await? {
            return Ok(());
        }
        let now = Instant::now();
        if every(&mut self.due.schedules, now, Duration::from_millis(500)) {
            in_time(scheduler::tick(&self.parts.runtime)).await?;
        }
        if every(&mut self.due.rescue, now, Duration::from_secs(1)) {
            in_time(self.rescue()).await?;
            self.notice_amnesia().await?;
            self.parts.bell.remind().await?;
        }
        self.promote().await?;
        if self.hurry || every(&mut self.due.sweep, now, Duration::from_secs(1)) {
            self.sweep().await?;
        }
        if every(&mut self.due.mend, now, Duration::from_secs(10)) {
            in_time(self.mend()).await?;
        }
        if every(&mut self.due.counts, now, Duration::from_secs(5)) {
            in_time(self.add_up()).await?;
        }
        if every(&mut self.due.measure, now, Duration::from_secs(10)) {
            in_time(self.measure()).await?;
        }
        Ok(())
    }

    /// A leader that cannot ring lets somebody lead who can, and asks again when its term would have ended.
    async fn resign(&mut self, error: &UpkeepError) {
        if std::mem::take(&mut self.leading) && matches!(error, UpkeepError::Redis(_)) {
            // Should this fail as well, the term ends by itself.
            drop(in_time(leader::resign(&self.parts.runtime.ledger, self.parts.runtime.worker)).await);
            tokio::time::sleep(self.parts.config.leadership / 2).await;
        }
    }

    /// Takes or keeps the lead, asking a few times per term.
    async fn lead(&mut self) -> Result<bool, sqlx::Error> {
        let term = self.parts.config.leadership;
        if self.asked.is_some_and(|asked| asked.elapsed() < term / 4) {
            return Ok(self.leading);
        }
        self.asked = Some(Instant::now());
        let was = self.leading;
        self.leading = in_time(leader::hold(&self.parts.runtime.ledger, DUTY, self.parts.runtime.worker, term)).await?;
        if self.leading && !was {
            info!("This worker leads the upkeep");
            self.sweep_all();
        }
        Ok(self.leading)
    }

    async fn promote(&mut self) -> Result<(), UpkeepError> {
        loop {
            let due = in_time(relay::promote_due(&self.parts.runtime.ledger, PAGE)).await?;
            if due.is_empty() {
                return Ok(());
            }
            self.parts.bell.ring(&due).await?;
        }
    }

    async fn rescue(&mut self) -> Result<(), sqlx::Error> {
        let registry = &self.parts.runtime.registry;
        let poison = |kind: &str| registry.get(kind).map_or(POISON, |handler| handler.policy.poison);
        loop {
            let rescued = lease::rescue(&self.parts.runtime.ledger, 50, &poison).await?;
            if rescued.returned + rescued.discarded == 0 {
                return Ok(());
            }
            warn!("Took {} jobs back from silent workers, and gave {} up", rescued.returned, rescued.discarded);
            metrics::counter!("gantry_jobs_rescued_total").increment((rescued.returned + rescued.discarded) as u64);
        }
    }

    /// A Redis that was restarted, replaced or flushed lost ids: everything that is ready is rung for again.
    async fn notice_amnesia(&mut self) -> Result<(), redis::RedisError> {
        let mut redis = self.parts.redis.clone();
        let key = format!("{}:epoch", self.parts.config.namespace);
        let server: String = redis::cmd("INFO").arg("server").query_async(&mut redis).await?;
        let run = server.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default().to_owned();
        let known: Option<String> = redis::cmd("GET").arg(&key).query_async(&mut redis).await?;
        if known.as_ref() == Some(&run) && self.epoch.as_ref() == Some(&run) {
            return Ok(());
        }
        if self.epoch.is_some() {
            warn!("Redis was restarted or flushed; ringing again for everything that is ready");
        }
        redis::cmd("SET").arg(&key).arg(&run).exec_async(&mut redis).await?;
        self.epoch = Some(run);
        self.parts.controls.write_limits(&self.parts).await?;
        self.sweep_all();
        Ok(())
    }

    /// From the oldest, without pausing.
    fn sweep_all(&mut self) {
        self.swept = JobId::from_uuid(uuid::Uuid::nil());
        self.hurry = true;
    }

    /// Rings again for ready jobs nobody has claimed, a page at a time, round and round.
    async fn sweep(&mut self) -> Result<(), UpkeepError> {
        let settings = self.parts.controls.now();
        let ledger = &self.parts.runtime.ledger;
        let page = in_time(relay::ready_after(ledger, self.swept, RING_AGE, &settings.paused, PAGE)).await?;
        drop(settings);
        self.lag(&page);
        match page.last() {
            Some(last) if page.len() == usize::try_from(PAGE).unwrap_or(usize::MAX) => self.swept = last.id,
            // Round again, from the oldest.
            _ => {
                self.swept = JobId::from_uuid(uuid::Uuid::nil());
                self.hurry = false;
            }
        }
        let missed = self.parts.bell.ring(&page).await?;
        if missed > 0 {
            debug!("Rang for {missed} ready jobs Redis did not know");
            metrics::counter!("gantry_relay_rung_total").increment(missed);
        }
        Ok(())
    }

    fn lag(&self, page: &[Ready]) {
        let now = self.parts.runtime.ledger.now();
        let oldest = page.first().map_or(0.0, |job| (now - job.id.minted_at()).as_seconds_f64());
        metrics::gauge!("gantry_relay_lag_seconds").set(oldest.max(0.0));
    }

    async fn mend(&mut self) -> Result<(), sqlx::Error> {
        let ledger = &self.parts.runtime.ledger;
        let mut tx = ledger.begin().await?;
        let keys = keys::mend(&mut tx).await?;
        tx.commit().await?;
        let woken = workflow::mend(ledger).await?;
        if keys > 0 || woken > 0 {
            info!("Mended {keys} keys and {woken} waits that a crash left behind");
        }
        Ok(())
    }

    /// What organizations have, up along their tree.
    async fn add_up(&mut self) -> Result<(), sqlx::Error> {
        while tree::add_up(&self.parts.runtime.ledger, CHANGES).await? == i64::from(CHANGES) {}
        Ok(())
    }

    async fn measure(&mut self) -> Result<(), sqlx::Error> {
        for depth in relay::depths(&self.parts.runtime.ledger).await? {
            let labels = [("queue", depth.queue), ("class", format!("weight-{}", depth.weight))];
            metrics::gauge!("gantry_queue_depth", &labels).set(depth.ready as f64);
            metrics::gauge!("gantry_queue_oldest_seconds", &labels).set(depth.oldest_seconds);
        }
        Ok(())
    }
}

/// Is it time? Then the next time is `period` later.
fn every(due: &mut Instant, now: Instant, period: Duration) -> bool {
    let is_due = now >= *due;
    if is_due {
        *due = now + period;
    }
    is_due
}
