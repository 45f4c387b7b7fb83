//! The load: several organizations ask for jobs of every sort, all the time.
//!
//! A job counts as accepted when its commit was answered with success. When the answer was lost nobody knows
//! whether it was written down; then both are right, but if it was, it must be done like any other.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use gantry_jobs::request::enqueue_all;
use gantry_jobs::{By, Job};
use gantry_schema::jobs::control::{self, Change};
use gantry_schema::jobs::workflow::{self, Compensation};
use gantry_schema::jobs::{Enqueued, Outcome};
use gantry_schema::{Db, JobId, JobTx as _, OrganizationId, TenantTx};
use tokio::time::sleep;

use crate::dice::Dice;
use crate::kinds::{Charge, Doomed, Effect, Exclusive, Join, Single, Undo};

/// How a job must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Succeeded,
    Discarded,
    /// It waits for something that fails.
    Cancelled,
    /// It was asked to stop when it may have been too late.
    Either,
}

impl Expected {
    /// The word in the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Discarded => "discarded",
            Self::Cancelled => "cancelled",
            Self::Either => "either",
        }
    }
}

/// A job somebody asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    pub job: JobId,
    pub expected: Expected,
    /// Attempts beyond the first that are meant to be.
    pub planned: i32,
    /// The commit was answered.
    pub sure: bool,
}

/// What was asked for so far.
#[derive(Debug, Default)]
pub struct Book {
    asked: Mutex<Vec<Asked>>,
    /// Transactions that failed before their commit: nothing was accepted.
    pub refused: AtomicUsize,
    /// Transactions whose commit was not answered.
    pub unknown: AtomicUsize,
}

impl Book {
    fn note(&self, jobs: impl Iterator<Item = Asked>) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).extend(jobs);
    }

    /// A job that was accepted and must be done once, like most.
    pub fn probe(&self, job: JobId) {
        self.note(std::iter::once(Asked { job, expected: Expected::Succeeded, planned: 0, sure: true }));
    }

    /// Everything that was asked for.
    pub fn all(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many jobs.
    pub fn count(&self) -> usize {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Waits for an answer of the database.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks on behalf of one organization until `over`.
pub async fn ask(db: Db, organization: OrganizationId, mut dice: Dice, book: Arc<Book>, over: Arc<AtomicBool>) {
    let mut cancelling = tokio::task::JoinSet::new();
    while !over.load(Ordering::Relaxed) {
        sleep(dice.milliseconds(5, 90)).await;
        let what = dice.below(100);
        let written = tokio::time::timeout(PATIENCE, write(&db, organization, &mut dice, what)).await;
        if let Ok(Ok((tx, jobs))) = written {
            let committed = tokio::time::timeout(PATIENCE, tx.commit()).await;
            let sure = matches!(committed, Ok(Ok(())));
            if !sure {
                book.unknown.fetch_add(1, Ordering::Relaxed);
            }
            // The cancelling is noted with its outcome.
            if let (CANCEL, [job]) = (what, &jobs[..]) {
                let job = Asked { sure, ..*job };
                cancelling.spawn(cancel(db.clone(), organization, job, dice.milliseconds(0, 2_500), Arc::clone(&book)));
            } else {
                book.note(jobs.into_iter().map(|job| Asked { sure, ..job }));
            }
        } else {
            book.refused.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(100)).await;
        }
        while cancelling.try_join_next().is_some() {}
    }
    while cancelling.join_next().await.is_some() {}
}

/// The draw for a job that will be cancelled.
const CANCEL: u64 = 99;

/// Writes one sort of job down, and answers the transaction to be committed.
async fn write(
    db: &Db,
    organization: OrganizationId,
    dice: &mut Dice,
    what: u64,
) -> anyhow::Result<(TenantTx, Vec<Asked>)> {
    let by = By::platform("torture");
    let mut tx = db.tenant(organization).await?;
    let mut jobs = Vec::new();
    match what {
        0..30 => jobs.extend(asked(Effect::default().request().enqueue(&mut tx, &by).await?, 0)),
        30..40 => {
            let effect = Effect { milliseconds: dice.below(1_500), ..Effect::default() };
            jobs.extend(asked(effect.request().enqueue(&mut tx, &by).await?, 0));
        }
        40..44 => {
            let many: Vec<Effect> = (0..=dice.below(150)).map(|_| Effect::default()).collect();
            jobs.extend(enqueue_all(&mut tx, &many, &by).await?.into_iter().filter_map(|job| asked(job, 0)));
        }
        44..52 => {
            let at = tx.now() + dice.milliseconds(100, 10_000);
            jobs.extend(asked(Effect::default().request().at(at).enqueue(&mut tx, &by).await?, 0));
        }
        52..60 => {
            let effect = Effect { failures: 1 + i32::try_from(dice.below(3))?, ..Effect::default() };
            jobs.extend(asked(effect.request().enqueue(&mut tx, &by).await?, effect.failures));
        }
        60..65 => {
            let effect = Effect { snoozes: 1 + i32::try_from(dice.below(3))?, ..Effect::default() };
            jobs.extend(asked(effect.request().enqueue(&mut tx, &by).await?, effect.snoozes));
        }
        65..77 => {
            let charge = Charge { milliseconds: dice.below(400), failures: i32::from(dice.below(4) == 0) };
            jobs.extend(asked(charge.request().enqueue(&mut tx, &by).await?, charge.failures));
        }
        77..85 => {
            let exclusive = Exclusive { key: dice.below(8), milliseconds: dice.below(60) };
            jobs.extend(asked(exclusive.request().enqueue(&mut tx, &by).await?, 0));
        }
        85..91 => {
            let single = Single { key: dice.below(12), milliseconds: dice.below(500) };
            jobs.extend(asked(single.request().enqueue(&mut tx, &by).await?, 0));
        }
        91..96 => jobs = fan_in(&mut tx, dice, &by).await?,
        96..98 => jobs = doomed(&mut tx, dice, &by).await?,
        _ => {
            let effect = Effect { milliseconds: 1_000 + dice.below(3_000), ..Effect::default() };
            let mut request = effect.request();
            if dice.below(2) == 0 {
                request = request.at(tx.now() + dice.milliseconds(500, 3_000));
            }
            jobs.extend(asked(request.enqueue(&mut tx, &by).await?, 0));
        }
    }
    Ok((tx, jobs))
}

/// A job that was written down; `None`: its unique key was taken, so there is none.
fn asked(enqueued: Enqueued, planned: i32) -> Option<Asked> {
    (enqueued.outcome == Outcome::Inserted).then_some(Asked {
        job: enqueued.id,
        expected: Expected::Succeeded,
        planned,
        sure: false,
    })
}

/// Two to four steps, and one that waits for all of them.
async fn fan_in(tx: &mut TenantTx, dice: &mut Dice, by: &By) -> anyhow::Result<Vec<Asked>> {
    let steps: Vec<String> = (0..2 + dice.below(3)).map(|number| format!("step {number}")).collect();
    let mut jobs = Vec::new();
    for _ in &steps {
        let effect =
            Effect { milliseconds: dice.below(300), failures: i32::from(dice.below(5) == 0), ..Effect::default() };
        jobs.extend(asked(effect.request().enqueue(tx, by).await?, effect.failures));
    }
    let join = Join { steps: steps.clone() };
    let mut request = join.request();
    for (step, job) in steps.iter().zip(&jobs) {
        request = request.after(step, job.job);
    }
    let last = request.enqueue(tx, by).await?;
    jobs.extend(asked(last, 0));
    Ok(jobs)
}

/// A workflow of three steps whose second one fails for good: the first must be undone, the third never begun.
async fn doomed(tx: &mut TenantTx, dice: &mut Dice, by: &By) -> anyhow::Result<Vec<Asked>> {
    let key = dice.below(u64::MAX / 2);
    let first = Effect::default().request().enqueue(tx, by).await?;
    let second = Doomed {}.request().after("first", first.id).enqueue(tx, by).await?;
    let third = Effect::default().request().after("second", second.id).enqueue(tx, by).await?;
    let policy = Undo::POLICY;
    let undo = Compensation {
        kind: Undo::KIND.to_owned(),
        queue: policy.queue.as_str().to_owned(),
        priority: policy.priority,
        max_attempts: policy.max_attempts,
        lease_seconds: i32::try_from(policy.lease.as_secs())?,
        payload: serde_json::to_value(Undo { key })?,
    };
    // A workflow is known by any id; its first job's is at hand.
    workflow::steps(
        tx,
        first.id.uuid(),
        &[
            (first.id, "first".to_owned(), Some(undo)),
            (second.id, "second".to_owned(), None),
            (third.id, "third".to_owned(), None),
        ],
    )
    .await?;
    let first = asked(first, 0).context("no unique key")?;
    let second = Asked { expected: Expected::Discarded, ..asked(second, 0).context("no unique key")? };
    let third = Asked { expected: Expected::Cancelled, ..asked(third, 0).context("no unique key")? };
    Ok(vec![first, second, third])
}

async fn cancel(db: Db, organization: OrganizationId, job: Asked, after: Duration, book: Arc<Book>) {
    sleep(after).await;
    let change = async {
        let mut tx = db.tenant(organization).await?;
        let change = control::cancel(&mut tx, job.job, "platform:torture").await?;
        tx.commit().await?;
        Ok::<_, sqlx::Error>(change)
    };
    let expected = match tokio::time::timeout(PATIENCE, change).await {
        Ok(Ok(Change::Done)) => Expected::Cancelled,
        Ok(Ok(Change::Impossible(_) | Change::Unknown)) => Expected::Succeeded,
        _ => Expected::Either,
    };
    book.note(std::iter::once(Asked { expected, ..job }));
}
