//! The ledger against a model: whatever happens in whatever order, no job is lost and no attempt has two owners.

use std::collections::HashSet;

use chrono::Duration;
use gantry_jobs::Job as _;
use gantry_schema::jobs::claim::Claimed;
use gantry_schema::jobs::control::Change;
use gantry_schema::jobs::settle::{self, Next, Setback, Success};
use gantry_schema::jobs::{Failure, State, relay};
use gantry_schema::{JobId, WorkerId};
use gantry_tests::kinds::{OneAtATime, Only, Scripted};
use gantry_tests::{Actor, Platform};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use sqlx::PgPool;

/// Sequences that are tried.
const CASES: usize = 60;

#[derive(Debug, Clone)]
enum Step {
    Enqueue {
        kind: u8,
        later: bool,
    },
    /// One of the workers claims whatever it wants, ready or not.
    Claim {
        worker: usize,
    },
    /// A worker reports the end of an attempt it has, or had.
    Settle {
        which: prop::sample::Index,
        how: u8,
    },
    /// A worker falls silent, and its jobs are taken back.
    Rescue {
        worker: usize,
    },
    Cancel {
        which: prop::sample::Index,
    },
    Retry {
        which: prop::sample::Index,
    },
    Pass {
        seconds: i64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = any::<prop::sample::Index>();
    let step = prop_oneof![
        3 => (0..3_u8, prop::bool::weighted(0.2)).prop_map(|(kind, later)| Step::Enqueue { kind, later }),
        4 => (0..2_usize).prop_map(|worker| Step::Claim { worker }),
        6 => (which.clone(), 0..6_u8).prop_map(|(which, how)| Step::Settle { which, how }),
        1 => (0..2_usize).prop_map(|worker| Step::Rescue { worker }),
        1 => which.clone().prop_map(|which| Step::Cancel { which }),
        1 => which.prop_map(|which| Step::Retry { which }),
        2 => (1..40_i64).prop_map(|seconds| Step::Pass { seconds }),
    ];
    prop::collection::vec(step, 1..40)
}

/// What a job should be.
#[derive(Debug, Clone)]
struct Model {
    id: JobId,
    state: State,
    attempt: i32,
    uncounted: i32,
    max_attempts: i32,
    rescues: i32,
    due: chrono::DateTime<chrono::Utc>,
    stopping: bool,
    owner: Option<WorkerId>,
}

struct Case<'a> {
    platform: &'a Platform,
    acme: Actor,
    workers: [WorkerId; 2],
    jobs: Vec<Model>,
    /// Every attempt that was ever claimed, whoever has it now.
    claims: Vec<(Claimed, WorkerId)>,
}

impl Case<'_> {
    async fn take(&mut self, step: &Step) -> Result<(), String> {
        let now = self.platform.now();
        match step {
            Step::Enqueue { kind, later } => self.enqueue(*kind, *later).await,
            Step::Claim { worker } => self.claim(self.workers[*worker]).await?,
            Step::Settle { which, how } if !self.claims.is_empty() => {
                let (claimed, worker) = which.get(&self.claims).clone();
                self.settle(&claimed, worker, *how).await?;
            }
            Step::Rescue { worker } => self.rescue(self.workers[*worker]).await?,
            Step::Cancel { which } if !self.jobs.is_empty() => {
                let at = which.index(self.jobs.len());
                let change = self.acme.cancel(self.jobs[at].id).await;
                let job = &mut self.jobs[at];
                let expected = match job.state {
                    State::Running => Change::Asked,
                    state if state.is_final() => Change::Impossible(state),
                    _ => Change::Done,
                };
                ensure(change == expected, || format!("cancelling {job:?} came to {change:?}"))?;
                match change {
                    Change::Asked => job.stopping = true,
                    Change::Done => job.state = State::Cancelled,
                    Change::Impossible(_) | Change::Unknown => {}
                }
            }
            Step::Retry { which } if !self.jobs.is_empty() => {
                let at = which.index(self.jobs.len());
                let change = self.acme.retry(self.jobs[at].id).await;
                let job = &mut self.jobs[at];
                match (change, job.state) {
                    (Change::Done, State::Discarded | State::Cancelled) => {
                        (job.state, job.due, job.stopping) = (State::Available, now, false);
                        (job.uncounted, job.rescues) = (job.attempt, 0);
                    }
                    (Change::Done, State::Scheduled) => (job.state, job.due) = (State::Available, now),
                    // Its time came, or its key is another's by now.
                    (Change::Impossible(_), _) => {}
                    (change, _) => return Err(format!("retrying {job:?} came to {change:?}")),
                }
            }
            Step::Pass { seconds } => {
                self.platform.clock.advance(Duration::seconds(*seconds));
                let now = self.platform.now();
                relay::promote_due(self.platform.ledger(), 1_000).await.unwrap();
                for job in &mut self.jobs {
                    if job.state == State::Scheduled && job.due <= now {
                        job.state = State::Available;
                    }
                }
            }
            Step::Settle { .. } | Step::Cancel { .. } | Step::Retry { .. } => {}
        }
        self.compare().await
    }

    async fn enqueue(&mut self, kind: u8, later: bool) {
        let now = self.platform.now();
        let due = if later { now + Duration::seconds(20) } else { now };
        let (asked, max_attempts) = match kind {
            0 => (self.acme.ask(Scripted::fine("a").request().at(due)).await, 3),
            1 => (self.acme.ask(OneAtATime::under("k").request().at(due)).await, 5),
            _ => (self.acme.ask(Only::one("k", "alive", "existing", "a").request().at(due)).await, 1),
        };
        if asked.outcome == gantry_schema::jobs::Outcome::Inserted {
            let state = if later { State::Scheduled } else { State::Available };
            self.jobs.push(Model {
                id: asked.id,
                state,
                attempt: 0,
                uncounted: 0,
                max_attempts,
                rescues: 0,
                due,
                stopping: false,
                owner: None,
            });
        }
    }

    async fn claim(&mut self, worker: WorkerId) -> Result<(), String> {
        let wanted: Vec<JobId> = self.jobs.iter().map(|job| job.id).collect();
        for claimed in self.platform.claim(worker, &wanted).await {
            let job = self.jobs.iter_mut().find(|job| job.id == claimed.id).expect("it was enqueued here");
            ensure(job.state == State::Available, || format!("{job:?} was claimed"))?;
            (job.state, job.attempt, job.owner) = (State::Running, job.attempt + 1, Some(worker));
            ensure(claimed.attempt == job.attempt, || format!("{claimed:?} of {job:?}"))?;
            let again = self.claims.iter().any(|(it, _)| (it.id, it.attempt) == (claimed.id, claimed.attempt));
            ensure(!again, || format!("{claimed:?} has two owners"))?;
            self.claims.push((claimed, worker));
        }
        Ok(())
    }

    async fn settle(&mut self, claimed: &Claimed, worker: WorkerId, how: u8) -> Result<(), String> {
        let now = self.platform.now();
        let failure = Failure {
            attempt: claimed.attempt,
            worker: Some(worker),
            started_at: None,
            ended_at: now,
            outcome: "failed".to_owned(),
            error: "as the model wants".to_owned(),
        };
        let later = now + Duration::seconds(15);
        let last = claimed.is_last_attempt();
        let (next, state, due) = match how {
            0 | 1 => (None, State::Succeeded, None),
            2 if last => (Some(Next::Discard), State::Discarded, None),
            2 => (Some(Next::Retry(later)), State::Scheduled, Some(later)),
            3 => (Some(Next::Snooze(later)), State::Scheduled, Some(later)),
            4 => (Some(Next::Return), State::Available, None),
            _ => (Some(Next::Discard), State::Discarded, None),
        };
        let ledger = self.platform.ledger();
        let settled = match next {
            None => {
                let success = Success { id: claimed.id, attempt: claimed.attempt, result: None, keyed: claimed.keyed };
                settle::succeed(ledger, &[success], &[]).await.unwrap()
            }
            Some(next) => {
                let setback = Setback { id: claimed.id, attempt: claimed.attempt, next, failure };
                settle::set_back(ledger, &[setback], &[]).await.unwrap()
            }
        };
        let job = self.jobs.iter_mut().find(|job| job.id == claimed.id).expect("it was enqueued here");
        let mine = job.state == State::Running && job.attempt == claimed.attempt;
        ensure(settled.len() == usize::from(mine), || format!("{claimed:?} settled {settled:?} of {job:?}"))?;
        if mine {
            if matches!(how, 3 | 4) {
                job.uncounted += 1;
            }
            job.state = if job.stopping && !state.is_final() { State::Cancelled } else { state };
            job.due = due.unwrap_or(job.due);
            job.owner = None;
        }
        Ok(())
    }

    async fn rescue(&mut self, worker: WorkerId) -> Result<(), String> {
        self.platform.silence(worker).await;
        self.platform.rescue().await;
        let now = self.platform.now();
        for job in self.jobs.iter_mut().filter(|job| job.owner == Some(worker)) {
            job.owner = None;
            job.rescues += 1;
            job.state = if job.stopping {
                State::Cancelled
            } else if job.rescues >= 3 || job.attempt - job.uncounted >= job.max_attempts {
                State::Discarded
            } else {
                job.due = now;
                State::Available
            };
        }
        Ok(())
    }

    /// The database is as the model says.
    async fn compare(&self) -> Result<(), String> {
        for model in &self.jobs {
            let job = self.acme.job(model.id).await;
            let same = (job.state, job.attempt, job.uncounted, job.rescues)
                == (model.state, model.attempt, model.uncounted, model.rescues);
            ensure(same, || format!("{job:?} should be {model:?}"))?;
            ensure(job.state.is_final() == job.finished_at.is_some(), || format!("{job:?}"))?;
        }
        let of = |statement: &str| format!("select count(*) from {statement}");
        let checks = [
            // Whoever waits can be found, and whoever does not cannot.
            "jobs j where (state in ('available', 'scheduled')) <> exists (select from job_dispatch d where d.id = j.id)",
            // Whoever runs has a lease.
            "jobs j where state = 'running' and not exists (select from job_leases l
                where (j.id, j.attempt) in (select * from unnest(l.job_ids, l.attempts)))",
            // The dead letters are those that are dead.
            "jobs j where (state in ('discarded', 'cancelled')) <> exists (select from job_unsuccessful u where u.id = j.id)",
            // Whoever is in a slot runs, one under each key, and nobody is parked for nothing.
            "job_slots s join jobs j on j.id = s.job_id where j.state <> 'running'",
            "jobs j where state = 'running' and concurrency_key is not null
                and not exists (select from job_slots s where s.job_id = j.id)",
            // Whoever holds a key lives.
            "job_unique u join jobs j on j.id = u.job_id where j.state in ('succeeded', 'discarded', 'cancelled')",
        ];
        for check in checks {
            let wrong = self.platform.count(&of(check)).await;
            ensure(wrong == 0, || format!("{wrong} of {check}"))?;
        }
        Ok(())
    }

    /// Everything comes to an end once the workers do their work.
    async fn finish(&mut self) -> Result<(), String> {
        for worker in self.workers {
            self.platform.silence(worker).await;
        }
        self.platform.rescue().await;
        for _ in 0..3 {
            self.platform.mend().await;
            self.platform.run_through(Duration::hours(1)).await;
        }
        let mut open = Vec::new();
        for model in &self.jobs {
            let job = self.acme.job(model.id).await;
            if !job.state.is_final() {
                open.push(job);
            }
        }
        ensure(open.is_empty(), || format!("never ended: {open:?}"))?;
        let ids: HashSet<JobId> = self.jobs.iter().map(|job| job.id).collect();
        let rows = self.platform.count("select count(*) from jobs").await;
        ensure(i64::try_from(ids.len()) == Ok(rows), || format!("{rows} rows for {} jobs", ids.len()))
    }
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

async fn try_out(platform: &Platform, steps: &[Step]) -> Result<(), String> {
    let clean = "truncate jobs, job_dispatch, job_leases, job_unsuccessful, job_unique, job_slots";
    sqlx::raw_sql(clean).execute(&platform.owner).await.unwrap();
    let acme = platform.organization("acme").await;
    let workers = [platform.ids().mint(), platform.ids().mint()];
    let mut case = Case { platform, acme, workers, jobs: Vec::new(), claims: Vec::new() };
    for (number, step) in steps.iter().enumerate() {
        case.take(step).await.map_err(|why| format!("after step {number}, {step:?}: {why}"))?;
    }
    case.finish().await
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn whatever_happens_no_job_is_lost_and_no_attempt_has_two_owners(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let mut runner = TestRunner::deterministic();
    for _ in 0..CASES {
        let mut tree = steps().new_tree(&mut runner).unwrap();
        let Err(mut why) = try_out(&platform, &tree.current()).await else { continue };
        // Look for the shortest sequence that still fails.
        let mut shortest = tree.current();
        for _ in 0..500 {
            if !tree.simplify() {
                break;
            }
            loop {
                match try_out(&platform, &tree.current()).await {
                    Err(simpler) => {
                        (shortest, why) = (tree.current(), simpler);
                        break;
                    }
                    Ok(()) if tree.complicate() => {}
                    Ok(()) => break,
                }
            }
        }
        platform.leaves_jobs();
        panic!("{why}\n{shortest:#?}");
    }
}
