//! The jobs and claims a worker holds at the moment.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_schema::jobs::claim::Claimed;
use gantry_schema::jobs::lease;
use gantry_schema::{ClaimId, JobId, OrganizationId};
use tokio::sync::Notify;
use tokio::time::Instant;

use gantry_jobs::Queue;

use crate::execute::{Stop, Stopper};

/// The jobs and claims a worker holds at the moment. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Running(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    held: Mutex<Held>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Held {
    jobs: HashMap<JobId, Job>,
    claims: HashMap<ClaimId, Claim>,
}

#[derive(Debug)]
struct Job {
    attempt: i32,
    stopper: Stopper,
    held: lease::Held,
    lease: Duration,
    queue: Queue,
    organization: OrganizationId,
}

#[derive(Debug)]
struct Claim {
    /// Jobs of it that have not been settled.
    left: usize,
    since: Instant,
    /// A job of it was given up without being settled: the lease must stay, for the rescuer to find it by.
    abandoned: bool,
}

impl Held {
    /// A job of the claim is gone. Answers the claim if it was the last one and all were settled.
    fn leave(&mut self, claim: ClaimId, unsettled: bool) -> Option<ClaimId> {
        let of_claim = self.claims.get_mut(&claim)?;
        of_claim.left -= 1;
        of_claim.abandoned |= unsettled;
        if of_claim.left > 0 {
            return None;
        }
        if of_claim.abandoned {
            self.claims.remove(&claim);
            return None;
        }
        Some(claim)
    }
}

impl Running {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that so many jobs were claimed together.
    pub(super) fn claimed(&self, claim: ClaimId, jobs: usize) {
        if jobs > 0 {
            self.held().claims.insert(claim, Claim { left: jobs, since: Instant::now(), abandoned: false });
        }
    }

    /// Notes a job of a claim, and answers what it will be stopped with.
    /// An older attempt may still be winding up here, after the job was taken away and came back.
    pub(super) fn begin(&self, job: &Claimed, claim: ClaimId, queue: Queue) -> Stopper {
        let stopper = Stopper::default();
        let begun = Job {
            attempt: job.attempt,
            stopper: stopper.clone(),
            held: lease::Held { claim, lease_seconds: job.lease_seconds },
            lease: job.lease(),
            queue,
            organization: job.organization,
        };
        let mut held = self.held();
        if let Some(older) = held.jobs.insert(job.id, begun) {
            older.stopper.stop(Stop::Lost);
            held.leave(older.held.claim, true);
        }
        stopper
    }

    /// The jobs ended, those of `lost` without being this worker's to settle. Answers the claims that have no job
    /// left; their leases are renewed until [`Self::forget`], for what ended must first be written down. A claim
    /// that lost a job is not among them: nobody may have taken the job yet, and then its lease is all it has.
    pub(super) fn end(&self, attempts: impl Iterator<Item = (JobId, i32)>, lost: &[(JobId, i32)]) -> Vec<ClaimId> {
        let mut held = self.held();
        let mut ended = Vec::new();
        for (job, attempt) in attempts {
            // An older attempt must not end the claim of the one that runs now.
            if held.jobs.get(&job).is_none_or(|held| held.attempt != attempt) {
                continue;
            }
            let Some(ending) = held.jobs.remove(&job) else { continue };
            ended.extend(held.leave(ending.held.claim, lost.contains(&(job, attempt))));
        }
        if held.claims.is_empty() {
            self.0.changed.notify_waiters();
        }
        ended
    }

    /// The claims' outcomes are written down.
    pub(super) fn forget(&self, claims: &[ClaimId]) {
        let mut held = self.held();
        for claim in claims {
            held.claims.remove(claim);
        }
        if held.claims.is_empty() {
            self.0.changed.notify_waiters();
        }
    }

    /// The claims whose leases are to be renewed.
    pub(super) fn claims(&self) -> Vec<ClaimId> {
        self.held().claims.keys().copied().collect()
    }

    /// Tells one job to stop; `false`: it does not run here.
    pub(super) fn stop(&self, job: JobId, why: Stop) -> bool {
        let held = self.held();
        let Some(job) = held.jobs.get(&job) else { return false };
        job.stopper.stop(why);
        true
    }

    /// Tells every job to stop.
    pub(super) fn stop_all(&self, why: Stop) {
        for job in self.held().jobs.values() {
            job.stopper.stop(why);
        }
    }

    /// Tells the jobs to stop whose claims were made before `asked` and whose leases are not among those still held:
    /// of a claim with leases of several lengths, some may have run out.
    pub(super) fn keep_only(&self, kept: &[lease::Held], asked: Instant) -> usize {
        let kept: HashSet<&lease::Held> = kept.iter().collect();
        let held = self.held();
        let mut lost = 0;
        for job in held.jobs.values() {
            let old = held.claims.get(&job.held.claim).is_some_and(|claim| claim.since < asked);
            if old && !kept.contains(&job.held) {
                job.stopper.stop(Stop::Lost);
                lost += 1;
            }
        }
        lost
    }

    /// Tells the jobs to stop whose lease cannot have been renewed since `renewed`.
    pub(super) fn stop_unrenewed(&self, renewed: Instant) -> usize {
        let held = self.held();
        let mut lost = 0;
        for job in held.jobs.values() {
            let claimed = held.claims.get(&job.held.claim).map_or(renewed, |claim| claim.since);
            if claimed.max(renewed).elapsed() >= job.lease {
                job.stopper.stop(Stop::Lost);
                lost += 1;
            }
        }
        lost
    }

    /// The shortest lease among the running jobs.
    pub(super) fn shortest_lease(&self) -> Option<Duration> {
        self.held().jobs.values().map(|job| job.lease).min()
    }

    /// The jobs, with their queues and organizations.
    pub(super) fn jobs(&self) -> Vec<(JobId, Queue, OrganizationId)> {
        self.held().jobs.iter().map(|(id, job)| (*id, job.queue, job.organization)).collect()
    }

    /// Queue and organization of a job.
    pub(super) fn place(&self, job: JobId) -> Option<(Queue, OrganizationId)> {
        self.held().jobs.get(&job).map(|job| (job.queue, job.organization))
    }

    /// How many jobs run.
    pub(super) fn count(&self) -> usize {
        self.held().jobs.len()
    }

    /// Resolves when no job runs and every outcome is written down.
    pub(super) async fn none(&self) {
        loop {
            let mut changed = std::pin::pin!(self.0.changed.notified());
            changed.as_mut().enable();
            if self.held().claims.is_empty() {
                return;
            }
            changed.await;
        }
    }
}
