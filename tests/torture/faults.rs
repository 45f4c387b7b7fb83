//! What is broken when. The dice choose everything beforehand; only who leads is found out at the time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::dice::Dice;
use crate::pack::{Wolf, signal};
use crate::scene::Scene;

/// A fault. Those of one worker go on while the next one comes; those of a server do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    KillWorker,
    KillLeader,
    TerminateWorker,
    FreezeWorker,
    FreezeLeader,
    FlushRedis,
    RestartRedis,
    PauseRedis,
    RestartPostgres,
    CutWorker,
    CutWorkerFromRedis,
    CutWorkerFromPostgres,
    StallWorker,
    SlowWorker,
    HalfCloseWorker,
}

use Fault::{
    CutWorker, CutWorkerFromPostgres, CutWorkerFromRedis, FlushRedis, FreezeLeader, FreezeWorker, HalfCloseWorker,
    KillLeader, KillWorker, PauseRedis, RestartPostgres, RestartRedis, SlowWorker, StallWorker, TerminateWorker,
};

impl Fault {
    const ALL: [Self; 15] = [
        KillWorker,
        KillLeader,
        TerminateWorker,
        FreezeWorker,
        FreezeLeader,
        FlushRedis,
        RestartRedis,
        PauseRedis,
        RestartPostgres,
        CutWorker,
        CutWorkerFromRedis,
        CutWorkerFromPostgres,
        StallWorker,
        SlowWorker,
        HalfCloseWorker,
    ];

    /// Its name in reports and for `--only`.
    pub const fn name(self) -> &'static str {
        match self {
            KillWorker => "kill_worker",
            KillLeader => "kill_leader",
            TerminateWorker => "terminate_worker",
            FreezeWorker => "freeze_worker",
            FreezeLeader => "freeze_leader",
            FlushRedis => "flush_redis",
            RestartRedis => "restart_redis",
            PauseRedis => "pause_redis",
            RestartPostgres => "restart_postgres",
            CutWorker => "cut_worker",
            CutWorkerFromRedis => "cut_worker_from_redis",
            CutWorkerFromPostgres => "cut_worker_from_postgres",
            StallWorker => "stall_worker",
            SlowWorker => "slow_worker",
            HalfCloseWorker => "half_close_worker",
        }
    }

    const fn is_of_a_server(self) -> bool {
        matches!(self, FlushRedis | RestartRedis | PauseRedis | RestartPostgres)
    }
}

/// What the dice have chosen.
#[derive(Debug, Clone, Copy)]
struct Blow {
    fault: Fault,
    /// Whom it hits, where it hits a worker.
    worker: usize,
    /// How long it lasts, where it lasts.
    lasts: Duration,
    /// How long until the next one.
    pause: Duration,
}

/// All faults come up before one comes again.
struct Deck {
    dice: Dice,
    all: Vec<Fault>,
    left: Vec<Fault>,
    workers: usize,
}

impl Deck {
    fn draw(&mut self) -> Blow {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
        }
        let fault = self.left.swap_remove(self.dice.index(self.left.len()));
        let dice = &mut self.dice;
        let worker = dice.index(self.workers);
        let lasts = match fault {
            // Past the lease of five seconds.
            FreezeWorker | FreezeLeader => dice.milliseconds(6_000, 9_000),
            RestartPostgres | RestartRedis => dice.milliseconds(0, 7_000),
            PauseRedis => dice.milliseconds(500, 4_000),
            CutWorker | CutWorkerFromRedis | CutWorkerFromPostgres | StallWorker => dice.milliseconds(1_000, 12_000),
            SlowWorker => dice.milliseconds(2_000, 6_000),
            KillWorker | KillLeader | TerminateWorker | FlushRedis | HalfCloseWorker => Duration::ZERO,
        };
        Blow { fault, worker, lasts, pause: dice.milliseconds(1_000, 4_000) }
    }
}

/// How often each fault was done, in the end.
pub type Count = BTreeMap<&'static str, usize>;

/// Breaks things until `until`, then waits for the last fault to be over.
pub async fn run(scene: &Arc<Scene>, seed: u64, only: &[String], until: Instant) -> anyhow::Result<Count> {
    let all: Vec<Fault> = Fault::ALL
        .into_iter()
        .filter(|fault| only.is_empty() || only.iter().any(|name| name == fault.name()))
        .collect();
    anyhow::ensure!(!all.is_empty(), "no fault has such a name; there are {:?}", Fault::ALL.map(Fault::name));
    let workers = scene.wolves.len();
    let mut deck = Deck { dice: Dice::new(seed, 1), all, left: Vec::new(), workers };
    let busy: Vec<Arc<Semaphore>> = (0..workers).map(|_| Arc::new(Semaphore::new(1))).collect();
    // One worker is always left alone, by those faults at least that last.
    let most = Arc::new(Semaphore::new(workers.saturating_sub(1).max(1)));
    let (mut count, mut lasting) = (Count::new(), JoinSet::new());
    sleep(Duration::from_secs(2)).await;
    while Instant::now() < until {
        let blow = deck.draw();
        let of_a_server = blow.fault.is_of_a_server();
        let worker = match blow.fault {
            KillLeader | FreezeLeader => scene.leader().await.unwrap_or(blow.worker),
            _ => blow.worker,
        };
        let mine = if of_a_server {
            None
        } else {
            let mine = (Arc::clone(&most).acquire_owned().await?, Arc::clone(&busy[worker]).acquire_owned().await?);
            // Waiting for its turn may have taken it past the end.
            if Instant::now() >= until {
                break;
            }
            Some(mine)
        };
        scene.say(&format!("{} {}", blow.fault.name(), if of_a_server { String::new() } else { worker.to_string() }));
        *count.entry(blow.fault.name()).or_default() += 1;
        let scene = Arc::clone(scene);
        let strike = async move {
            let _mine = mine;
            strike(&scene, blow, &scene.wolves[worker]).await?;
            scene.recoveries.expect(blow.fault.name());
            anyhow::Ok(())
        };
        if of_a_server {
            strike.await?;
        } else {
            lasting.spawn(strike);
        }
        sleep(blow.pause).await;
        while let Some(done) = lasting.try_join_next() {
            done??;
        }
    }
    while let Some(done) = lasting.join_next().await {
        done??;
    }
    Ok(count)
}

async fn strike(scene: &Scene, blow: Blow, wolf: &Wolf) -> anyhow::Result<()> {
    match blow.fault {
        KillWorker | KillLeader => wolf.kill().await?,
        TerminateWorker => {
            if !wolf.terminate(Duration::from_secs(45)).await? {
                scene.stubborn.fetch_add(1, Ordering::Relaxed);
            }
        }
        FreezeWorker | FreezeLeader => {
            if let Some(pid) = wolf.pid().await
                && signal(pid, "STOP").await.is_ok()
            {
                sleep(blow.lasts).await;
                drop(signal(pid, "CONT").await);
            }
        }
        FlushRedis => scene.redis(&redis::cmd("FLUSHALL")).await,
        PauseRedis => {
            let milliseconds = u64::try_from(blow.lasts.as_millis()).unwrap_or(0);
            scene.redis(redis::cmd("CLIENT").arg("PAUSE").arg(milliseconds).arg("ALL")).await;
            sleep(blow.lasts).await;
        }
        RestartRedis => restart(scene, "redis", blow.lasts).await?,
        RestartPostgres => restart(scene, "postgres", blow.lasts).await?,
        CutWorker => {
            wolf.redis.cut();
            wolf.postgres.cut();
            sleep(blow.lasts).await;
            wolf.redis.open();
            wolf.postgres.open();
        }
        CutWorkerFromRedis => {
            wolf.redis.cut();
            sleep(blow.lasts).await;
            wolf.redis.open();
        }
        CutWorkerFromPostgres => {
            wolf.postgres.cut();
            sleep(blow.lasts).await;
            wolf.postgres.open();
        }
        StallWorker => {
            wolf.redis.stall();
            wolf.postgres.stall();
            sleep(blow.lasts).await;
            if blow.lasts.as_millis().is_multiple_of(2) {
                // What was on its way never arrives.
                wolf.redis.reset();
                wolf.postgres.reset();
            }
            wolf.redis.open();
            wolf.postgres.open();
        }
        SlowWorker => {
            wolf.redis.slow(Duration::from_millis(30));
            wolf.postgres.slow(Duration::from_millis(60));
            sleep(blow.lasts).await;
            wolf.redis.open();
            wolf.postgres.open();
        }
        HalfCloseWorker => {
            wolf.redis.half_close();
            wolf.postgres.half_close();
        }
    }
    Ok(())
}

/// Kills a server, and starts it again some time later.
async fn restart(scene: &Scene, which: &str, away: Duration) -> anyhow::Result<()> {
    servers(scene, &["stop", "--immediate", "--only", which]).await?;
    sleep(away).await;
    servers(scene, &["start", "--durable", "--only", which]).await
}

#[expect(clippy::disallowed_methods, reason = "the torture breaks its own servers")]
async fn servers(scene: &Scene, arguments: &[&str]) -> anyhow::Result<()> {
    let [action, options @ ..] = arguments else { anyhow::bail!("no action") };
    let done = Command::new("scripts/servers").arg(action).arg(&scene.directory).args(options).output().await?;
    anyhow::ensure!(
        done.status.success(),
        "scripts/servers {arguments:?} failed: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(())
}
