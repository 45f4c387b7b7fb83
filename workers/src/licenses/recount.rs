use gantry_jobs::licenses::RecountLicenses;
use gantry_schema::licenses::queries;
use gantry_schema::organizations::tree;
use serde_json::json;

use super::Licensees;
use crate::{Context, Done, Failure, Run};

impl Run for RecountLicenses {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let mended = tree::recount(cx.ledger()).await?;
        let mut licensees = Licensees::default();
        while let Some(organization) = licensees.next(cx).await? {
            let mut tx = cx.db().tenant(organization).await?;
            queries::recount(&mut tx).await?;
            tx.commit().await?;
        }
        Ok(if mended == 0 { Done::Quietly } else { Done::With(json!({ "mended": mended })) })
    }
}
