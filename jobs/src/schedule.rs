//! Recurring jobs: those every installation has, and those organizations make.

use chrono::{DateTime, Utc};
use gantry_schema::schedules::cron::{CronError, CronSchedule, MissedRuns, Overlap};
use gantry_schema::schedules::{Schedule, queries};
use gantry_schema::{EngineDb, JobTx as _, OrganizationId, TenantTx};
use serde_json::Value;

use crate::Job;
use crate::catalogue::{self, KindError};

/// A schedule as somebody asks for it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSchedule {
    /// What people call it; unique in the organization.
    pub name: String,
    /// The kind of job.
    pub kind: String,
    /// Its payload.
    pub payload: Value,
    /// Five fields, or six with seconds first.
    pub cron: String,
    /// An IANA time zone.
    pub time_zone: String,
    /// What happens to ticks nobody was there for.
    pub missed_runs: MissedRuns,
    /// What happens while the previous job still lives.
    pub overlap: Overlap,
    /// Ticks are spread over so many seconds, at most a day.
    pub jitter_seconds: i32,
}

/// A schedule cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The cron expression or the time zone is wrong.
    #[error(transparent)]
    Cron(#[from] CronError),
    /// The kind or its payload is wrong.
    #[error(transparent)]
    Kind(#[from] KindError),
    /// Schedules may not ask for this kind.
    #[error("jobs of kind {0} are asked for by the platform only")]
    Internal(String),
    /// The database refused; a name that is taken violates `schedules_name_key`.
    #[error("storing the schedule")]
    Database(#[from] sqlx::Error),
}

/// Checks and stores a schedule of the transaction's organization. It ticks from now on.
///
/// # Errors
/// When something about it is wrong, or the database refuses.
pub async fn create(tx: &mut TenantTx, new: NewSchedule) -> Result<Schedule, ScheduleError> {
    let cron = checked(&new)?;
    let now = tx.now();
    let schedule = Schedule {
        id: tx.ids().mint(),
        organization: tx.organization(),
        name: new.name,
        kind: new.kind,
        payload: new.payload,
        cron: cron.expression().to_owned(),
        time_zone: cron.zone().to_string(),
        missed_runs: new.missed_runs.as_str().to_owned(),
        overlap: new.overlap.as_str().to_owned(),
        jitter_seconds: new.jitter_seconds,
        paused: false,
        last_tick_at: now,
        next_tick_at: cron.next_after(now),
        created_at: now,
    };
    queries::insert(tx, &schedule).await?;
    Ok(schedule)
}

/// What a schedule becomes when everything about it is replaced. Where its times change, it goes on with the next of
/// the new ones.
///
/// # Errors
/// When something about it is wrong.
pub fn changed(before: &Schedule, new: NewSchedule, now: DateTime<Utc>) -> Result<Schedule, ScheduleError> {
    let cron = checked(&new)?;
    let (expression, time_zone) = (cron.expression().to_owned(), cron.zone().to_string());
    let same_times = expression == before.cron && time_zone == before.time_zone;
    let next_tick_at = if before.paused { None } else { cron.next_after(now) };
    Ok(Schedule {
        name: new.name,
        kind: new.kind,
        payload: new.payload,
        cron: expression,
        time_zone,
        missed_runs: new.missed_runs.as_str().to_owned(),
        overlap: new.overlap.as_str().to_owned(),
        jitter_seconds: new.jitter_seconds,
        last_tick_at: if same_times { before.last_tick_at } else { before.last_tick_at.max(now) },
        next_tick_at: if same_times { before.next_tick_at } else { next_tick_at },
        ..before.clone()
    })
}

/// The times of a schedule that may be stored.
fn checked(new: &NewSchedule) -> Result<CronSchedule, ScheduleError> {
    let cron = CronSchedule::parse(&new.cron, &new.time_zone)?;
    let kind = catalogue::find(&new.kind)?;
    if !kind.public {
        return Err(ScheduleError::Internal(new.kind.clone()));
    }
    kind.check(&new.payload)?;
    Ok(cron)
}

/// When a stored schedule ticks after `after`; `None` where it never does.
#[must_use]
pub fn next_tick(schedule: &Schedule, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
    CronSchedule::parse(&schedule.cron, &schedule.time_zone).ok()?.next_after(after)
}

/// A recurring job every installation has.
struct Standing {
    name: &'static str,
    cron: &'static str,
    kind: &'static str,
    payload: Value,
}

/// One line per recurring job of the platform; times are UTC.
fn standing() -> Vec<Standing> {
    vec![
        every("forget finished jobs", "17 3 * * *", &crate::maintenance::ForgetJobs::default()),
        every("forget kept answers", "47 * * * *", &crate::maintenance::ForgetAnswers::default()),
        every("seal with the current key", "7 4 * * *", &crate::maintenance::Reseal::default()),
        every("seal the record", "*/15 * * * * *", &crate::audit::SealRecord::default()),
        every("sign where the record ends", "3 * * * *", &crate::audit::CheckpointRecord::default()),
        every("drop old entries of records", "57 2 * * *", &crate::audit::DropRecord::default()),
        every("watch servers", "*/20 * * * * *", &crate::servers::WatchServers::default()),
        every("look for what servers left behind", "23 1 * * *", &crate::servers::WatchOrphans::default()),
        every("watch licenses", "11 * * * *", &crate::licenses::WatchLicenses::default()),
        every("count what licenses limit", "17 2 * * *", &crate::licenses::RecountLicenses::default()),
        every("purge deleted organizations", "37 2 * * *", &crate::maintenance::PurgeOrganizations::default()),
        every("forget expired authorizations", "37 * * * *", &crate::maintenance::ForgetAuthorizations::default()),
        every("forget old usage", "27 * * * *", &crate::maintenance::ForgetUsage::default()),
        every("forget old messages", "57 3 * * *", &crate::maintenance::ForgetMessages::default()),
        every("forget what was not completed", "12 * * * *", &crate::maintenance::ForgetSignIns::default()),
        every("forget old events", "47 3 * * *", &crate::maintenance::ForgetEvents::default()),
    ]
}

fn every<J: Job>(name: &'static str, cron: &'static str, job: &J) -> Standing {
    Standing { name, cron, kind: J::KIND, payload: serde_json::to_value(job).unwrap_or_default() }
}

/// Brings the platform's own schedules in line with this release.
///
/// # Errors
/// When the database refuses or went away.
pub async fn ensure_standing(db: &EngineDb) -> Result<(), ScheduleError> {
    let mut tx = db.begin().await?;
    let now = tx.now();
    for standing in standing() {
        let cron = CronSchedule::parse(standing.cron, "UTC")?;
        let schedule = Schedule {
            id: tx.ids().mint(),
            organization: OrganizationId::PLATFORM,
            name: standing.name.to_owned(),
            kind: standing.kind.to_owned(),
            payload: standing.payload,
            cron: standing.cron.to_owned(),
            time_zone: "UTC".to_owned(),
            missed_runs: MissedRuns::Once.as_str().to_owned(),
            overlap: Overlap::Skip.as_str().to_owned(),
            jitter_seconds: 0,
            paused: false,
            last_tick_at: now,
            next_tick_at: cron.next_after(now),
            created_at: now,
        };
        queries::ensure(&mut tx, &schedule).await?;
    }
    Ok(tx.commit().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_standing_schedule_names_a_kind_that_exists_and_fires() {
        for standing in standing() {
            catalogue::find(standing.kind).unwrap().check(&standing.payload).unwrap();
            CronSchedule::parse(standing.cron, "UTC").unwrap();
        }
    }
}
