//! What is particular to changing a server that is there: when somebody is asked, and when the record says what it is like.

use gantry_schema::TenantTx;
use gantry_schema::servers::RunState;
use gantry_schema::servers::change::change;
use gantry_schema::servers::plans::{Cost, Summary};
use gantry_schema::servers::runs::{self, Run};
use serde_json::json;

use super::setback::Setback;
use super::work::Work;
use crate::{Context, Done, Failure};

/// What is lost when a server is changed as it is planned; `None`: nothing is.
pub(super) const fn loses(plan: &Summary) -> Option<&'static str> {
    if plan.loses_machine {
        Some("the server is removed or replaced, and its disk is lost")
    } else if plan.loses_volume {
        Some("a volume is removed or replaced, and what is on it is lost")
    } else {
        None
    }
}

/// Nothing is to be done for it but to write it down.
pub(super) async fn noted(
    cx: &Context,
    mut tx: TenantTx,
    work: &Work,
    cost: Option<Cost<'_>>,
) -> Result<Done, Setback> {
    if let Some(wanted) = &work.run.wanted
        && runs::advance(&mut tx, work.run.id, RunState::Succeeded).await?
    {
        change(&mut tx, work.server.id, wanted, cost).await?;
    }
    let result = json!({ "server": work.server.id, "state": RunState::Succeeded.as_str() });
    Ok(cx.complete_with(tx, &result).await?)
}

/// It is begun: from now on this is what is to be there.
pub(super) async fn begun(tx: &mut TenantTx, run: &Run) -> Result<(), Failure> {
    let Some(wanted) = &run.wanted else { return Ok(()) };
    let known = run.monthly_cost.zip(run.currency.as_deref());
    change(tx, run.server, wanted, known.map(|(monthly, currency)| Cost { monthly, currency })).await?;
    Ok(())
}
