//! Doing everything the ledger has to do, here and now, without Redis: for tests and for commands.

use gantry_schema::ClaimId;
use gantry_schema::jobs::claim::{self, Paused};
use gantry_schema::jobs::{relay, settle};

use crate::Runtime;
use crate::execute::{Settlement, Stopper, execute};

/// Jobs one call may run; more is taken for a loop.
const MAX_JOBS: usize = 100_000;

/// Runs the jobs that are ready and not paused, by priority and age, and those they lead to, until none is.
/// Answers the kinds that ran, in order.
///
/// # Errors
/// When the database refuses or went away.
///
/// # Panics
/// When jobs keep leading to jobs.
pub async fn drain(runtime: &Runtime) -> Result<Vec<String>, sqlx::Error> {
    let ledger = &runtime.ledger;
    let mut ran = Vec::new();
    loop {
        relay::promote_due(ledger, 1_000).await?;
        let ready = relay::ready(ledger, 1).await?;
        let Some(job) = ready.first() else { return Ok(ran) };
        assert!(ran.len() < MAX_JOBS, "jobs keep leading to jobs: {:?}", &ran[ran.len() - 10..]);
        let claim = ledger.ids().mint::<ClaimId>();
        let ids = &mut [job.id.uuid()];
        // What is paused was left out.
        let nobody = Paused::default();
        let claimed = if job.careful {
            claim::claim_careful(ledger, runtime.worker, claim, ids, &nobody).await?
        } else {
            claim::claim(ledger, runtime.worker, claim, ids, &nobody).await?
        };
        for job in claimed {
            ran.push(job.kind.clone());
            let settlement = execute(runtime, job, Stopper::default()).await;
            let (mut successes, mut setbacks) = (Vec::new(), Vec::new());
            match settlement {
                Settlement::Succeeded(success) => successes.push(success),
                Settlement::SetBack(setback) => setbacks.push(setback),
                Settlement::Committed(job, _) => {
                    gantry_schema::jobs::workflow::advance(ledger, &[job]).await?;
                }
                Settlement::Lost(..) => {}
            }
            if !setbacks.is_empty() {
                settle::set_back(ledger, &setbacks, &[]).await?;
            }
            settle::succeed(ledger, &successes, &[claim]).await?;
        }
    }
}
