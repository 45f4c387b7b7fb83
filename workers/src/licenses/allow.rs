//! A job needs the license of its organization when it starts, whatever that was when it was asked for.

use gantry_jobs::Policy;
use gantry_schema::licenses::queries::{self, Full};
use gantry_schema::licenses::{Access, licensed};
use gantry_schema::{JobTx as _, OrganizationId};

use crate::Runtime;

/// Why the license of an organization does not let a job of this policy start; `None`: it does. Of a policy that needs nothing
/// nothing is asked.
pub(crate) async fn refused(
    runtime: &Runtime,
    policy: &Policy,
    organization: OrganizationId,
) -> Result<Option<String>, sqlx::Error> {
    if let Some(feature) = policy.needs {
        let anchors = runtime.trust().anchors(&runtime.db).await?;
        let mut tx = runtime.db.tenant(organization).await?;
        if let Some(license) = licensed(&mut tx, &anchors).await? {
            let evaluation = license.evaluate(tx.now(), None, &std::collections::BTreeMap::new());
            let least = if policy.adds.is_some() { Access::Full } else { Access::Change };
            if evaluation.access(feature.as_str()) < least {
                let state = evaluation.state;
                return Ok(Some(format!(
                    "the license is {state} and does not allow {feature} now; retry the job when one does"
                )));
            }
        }
    }
    let Some(limit) = policy.adds else { return Ok(None) };
    let mut tx = runtime.db.tenant(organization).await?;
    let name = limit.as_str().replace('_', " ");
    Ok(queries::full(&mut tx, limit).await?.map(|full| match full {
        Full::Ended => format!("no license lets {name} be added now; retry the job when one does"),
        Full::Over => format!("there are more {name} than the license allows; remove some, and retry the job"),
    }))
}
