//! What the tortured jobs do, and the traces they leave.
//!
//! The traces are in a schema of their own:
//!
//! - `torture.effects`: one row per effect that was committed **together with the job's end**. It has no
//!   unique key on purpose: were two attempts of a job ever both allowed to finish, there would be two rows.
//! - `torture.vendor`: what an outside vendor with idempotency keys would have kept, committed apart from the
//!   job. A second call with the same key only counts.
//!
//! ## When do two jobs run at the same time?
//!
//! A worker that was stopped past its lease and comes back (the zombie) executes some more instructions of its
//! handler before it learns that the job is another's by now. No queue can prevent that, and it harms nobody as
//! long as whatever the zombie does is refused. So what must not overlap are *fenced* runs: the time from a
//! handler's begin to the end it **committed** through [`Context::complete`]. Such a run held the key without
//! interruption, for its commit names the attempt and is refused once the job was taken away. Both ends of
//! the interval are read from the database's clock, the begin after the claim, the end before the commit.

use std::time::Duration;

use chrono::{DateTime, Utc};
use gantry_jobs::{Job, Policy, Queue, Retry};
use gantry_schema::jobs::{Concurrency, Held, OnConflict, Unique};
use gantry_schema::{JobTx as _, TenantTx};
use gantry_workers::{Context, Done, Failure, Registry, Run, registry};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The tables of the traces.
pub const TABLES: &str = "
    drop schema if exists torture cascade;
    create schema torture;
    create table torture.effects (
        job_id uuid not null, attempt int not null, kind text not null, key text,
        began_at timestamptz not null, ended_at timestamptz not null default clock_timestamp());
    create index on torture.effects (job_id);
    create table torture.vendor (
        key text primary key, job_id uuid not null, calls int not null default 1);
    create index on torture.vendor (job_id);
    create table torture.problems (job_id uuid not null, text text not null);
    create table torture.accepted (
        job_id uuid primary key, expected text not null, planned int not null, sure bool not null);
    grant usage on schema torture to gantry_app;
    grant select, insert, update on torture.effects, torture.vendor, torture.problems to gantry_app;";

/// Short leases, so that what is lost is soon found; and no end of attempts, because under torture a job may
/// lose its worker again and again without being the cause.
const POLICY: Policy = Policy {
    poison: 1_000,
    ..Policy::new(Queue::Default)
        .attempts(1_000)
        .lease(Duration::from_secs(5))
        .timeout(Duration::from_secs(20))
        .retry(Retry::Exponential { base: Duration::from_millis(200), cap: Duration::from_secs(2) })
};

/// Every kind of the product, and those of the torture.
pub fn all() -> Registry {
    registry::standard()
        .with::<Effect>()
        .with::<Charge>()
        .with::<Exclusive>()
        .with::<Single>()
        .with::<Join>()
        .with::<Doomed>()
        .with::<Undo>()
}

/// An effect, committed together with the job's end.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Effect {
    /// How long it takes.
    pub milliseconds: u64,
    /// So many attempts fail.
    pub failures: i32,
    /// So often it is too early.
    pub snoozes: i32,
}

impl Job for Effect {
    const KIND: &'static str = "torture.effect";
    const POLICY: Policy = POLICY;
}

impl Run for Effect {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        if cx.attempt() - cx.counted_attempt() < self.snoozes {
            return Err(Failure::Snooze(Duration::from_millis(300), "planned".to_owned()));
        }
        if cx.counted_attempt() <= self.failures {
            return Err(Failure::retry("planned"));
        }
        let (mut tx, began) = begin(cx).await?;
        if self.milliseconds > 0 {
            tx.rollback().await?;
            nap(cx, self.milliseconds).await?;
            tx = cx.begin().await?;
        }
        leave(&mut tx, cx, Self::KIND, None, began).await?;
        cx.complete_with(tx, &json!({ "attempt": cx.attempt() })).await
    }
}

/// A vendor is asked, with the idempotency key; the job's end is written by the engine later.
#[derive(Debug, Serialize, Deserialize)]
pub struct Charge {
    /// How long the vendor takes.
    pub milliseconds: u64,
    /// So many attempts fail after the vendor was asked.
    pub failures: i32,
}

impl Job for Charge {
    const KIND: &'static str = "torture.charge";
    const POLICY: Policy = POLICY;
}

impl Run for Charge {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let mut tx = cx.begin().await?;
        sqlx::query(
            "insert into torture.vendor (key, job_id) values ($1, $2)
                 on conflict (key) do update set calls = vendor.calls + 1",
        )
        .bind(cx.idempotency_key("charge"))
        .bind(cx.job().uuid())
        .execute(tx.connection())
        .await?;
        tx.commit().await?;
        nap(cx, self.milliseconds).await?;
        if cx.counted_attempt() <= self.failures {
            return Err(Failure::retry("planned"));
        }
        Ok(Done::With(json!({ "charged": true })))
    }
}

/// One at a time per key.
#[derive(Debug, Serialize, Deserialize)]
pub struct Exclusive {
    pub key: u64,
    pub milliseconds: u64,
}

impl Job for Exclusive {
    const KIND: &'static str = "torture.exclusive";
    const POLICY: Policy = POLICY;

    fn concurrency(&self) -> Option<Concurrency> {
        Some(Concurrency { key: format!("key {}", self.key), limit: 1 })
    }
}

impl Run for Exclusive {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        alone(cx, Self::KIND, self.key, self.milliseconds).await
    }
}

/// At most one that has not ended per key.
#[derive(Debug, Serialize, Deserialize)]
pub struct Single {
    pub key: u64,
    pub milliseconds: u64,
}

impl Job for Single {
    const KIND: &'static str = "torture.single";
    const POLICY: Policy = POLICY;

    fn unique(&self) -> Option<Unique> {
        Some(Unique { key: format!("key {}", self.key), held: Held::Alive, on_conflict: OnConflict::Existing })
    }
}

impl Run for Single {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        alone(cx, Self::KIND, self.key, self.milliseconds).await
    }
}

async fn alone(cx: &Context, kind: &str, key: u64, milliseconds: u64) -> Result<Done, Failure> {
    let (tx, began) = begin(cx).await?;
    tx.rollback().await?;
    nap(cx, milliseconds).await?;
    let mut tx = cx.begin().await?;
    leave(&mut tx, cx, kind, Some(format!("{} {key}", cx.organization())), began).await?;
    cx.complete(tx).await
}

/// The last step of a workflow: reads what the steps before it have answered.
#[derive(Debug, Serialize, Deserialize)]
pub struct Join {
    pub steps: Vec<String>,
}

impl Job for Join {
    const KIND: &'static str = "torture.join";
    const POLICY: Policy = POLICY;
}

impl Run for Join {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let mut missing = Vec::new();
        for step in &self.steps {
            if cx.result_of(step).await?.is_none() {
                missing.push(step.as_str());
            }
        }
        let (mut tx, began) = begin(cx).await?;
        if !missing.is_empty() {
            sqlx::query("insert into torture.problems (job_id, text) values ($1, $2)")
                .bind(cx.job().uuid())
                .bind(format!("began before it could read the results of {}", missing.join(", ")))
                .execute(tx.connection())
                .await?;
        }
        leave(&mut tx, cx, Self::KIND, None, began).await?;
        cx.complete(tx).await
    }
}

/// The step of a workflow that can never work.
#[derive(Debug, Serialize, Deserialize)]
pub struct Doomed {}

impl Job for Doomed {
    const KIND: &'static str = "torture.doomed";
    const POLICY: Policy = POLICY;
}

impl Run for Doomed {
    async fn run(&self, _cx: &Context) -> Result<Done, Failure> {
        Err(Failure::cancel("planned"))
    }
}

/// Undoes a step of a workflow that failed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Undo {
    /// The job that is undone.
    pub key: u64,
}

impl Job for Undo {
    const KIND: &'static str = "torture.undo";
    const POLICY: Policy = POLICY;
}

impl Run for Undo {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let (mut tx, began) = begin(cx).await?;
        leave(&mut tx, cx, Self::KIND, Some(self.key.to_string()), began).await?;
        cx.complete(tx).await
    }
}

/// A transaction, and the moment by the database's clock.
async fn begin(cx: &Context) -> Result<(TenantTx, DateTime<Utc>), Failure> {
    let mut tx = cx.begin().await?;
    let began = sqlx::query_scalar("select clock_timestamp()").fetch_one(tx.connection()).await?;
    Ok((tx, began))
}

async fn leave(
    tx: &mut TenantTx,
    cx: &Context,
    kind: &str,
    key: Option<String>,
    began: DateTime<Utc>,
) -> Result<(), Failure> {
    sqlx::query("insert into torture.effects (job_id, attempt, kind, key, began_at) values ($1, $2, $3, $4, $5)")
        .bind(cx.job().uuid())
        .bind(cx.attempt())
        .bind(kind)
        .bind(key)
        .bind(began)
        .execute(tx.connection())
        .await?;
    Ok(())
}

async fn nap(cx: &Context, milliseconds: u64) -> Result<(), Failure> {
    tokio::select! {
        () = tokio::time::sleep(Duration::from_millis(milliseconds)) => Ok(()),
        () = cx.stopped() => Err(Failure::retry("told to stop")),
    }
}
