use gantry_jobs::credentials::CheckCredential;
use gantry_jobs::webhooks;
use gantry_providers::Error;
use gantry_providers::clouds::account::Identity;
use gantry_providers::clouds::sandbox;
use gantry_schema::credentials::accounts::{self, Permitted, Said, Standing};
use gantry_schema::credentials::queries;
use gantry_schema::notices;
use gantry_schema::webhooks::event_types::PlatformEvent;
use serde_json::json;

use crate::servers::clouds;
use crate::servers::setback::Setback;
use crate::{Context, Done, Failure, Run};

impl Run for CheckCredential {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        check(cx, self).await.map_err(|setback| setback.into_failure(cx.is_last_attempt()))
    }
}

async fn check(cx: &Context, job: &CheckCredential) -> Result<Done, Setback> {
    let mut tx = cx.begin().await?;
    let known = queries::find(&mut tx, job.credential).await?;
    let opened = queries::open(&mut tx, cx.sealing_keys(), job.credential).await?;
    // It was removed in the meantime.
    let (Some(known), Some(credential)) = (known, opened) else { return Ok(cx.complete(tx).await?) };
    tx.commit().await?;

    let asked = if let Some(account) = clouds::account(cx, &credential)? {
        match account.validate().await {
            Ok(identity) => Ok((identity, account.catalogue(job.region.as_deref()).await?)),
            Err(error) => Err(error),
        }
    } else {
        let identity = Identity { account: "sandbox".to_owned(), name: "sandbox".to_owned(), permissions: Vec::new() };
        Ok((identity, sandbox::catalogue()))
    };
    let mut tx = cx.begin().await?;
    match asked {
        Ok((identity, catalogue)) => {
            let held =
                |it: &gantry_providers::clouds::account::Permission| Permitted { name: it.name.clone(), held: it.held };
            let permitted: Vec<Permitted> = identity.permissions.iter().map(held).collect();
            let account = if identity.account.is_empty() { &identity.name } else { &identity.account };
            let said = Said::Valid { account, permitted: &permitted };
            if accounts::checked(&mut tx, job.credential, said).await?.is_some() {
                let catalogue = serde_json::to_value(&catalogue).map_err(Failure::cancel)?;
                let region = job.region.as_deref().unwrap_or_default();
                accounts::keep_catalogue(&mut tx, job.credential, region, &catalogue).await?;
            }
            notices::settle(&mut tx, &[PlatformEvent::CloudCredentialRefused], &job.credential.to_string()).await?;
            let missing: Vec<&str> = identity.missing().collect();
            let result = json!({ "state": Standing::Valid.as_str(), "account": account, "missing": missing });
            Ok(cx.complete_with(tx, &result).await?)
        }
        Err(error @ Error::CredentialRefused { .. }) => {
            let said = error.to_string();
            let before = accounts::checked(&mut tx, job.credential, Said::Refused(&said)).await?;
            if before.is_some_and(|before| before != Standing::Refused) {
                let facts = json!({ "credential_id": known.id, "name": known.name, "detail": said });
                let event = PlatformEvent::CloudCredentialRefused;
                notices::write(&mut tx, event, &known.id.to_string(), &facts).await?;
                webhooks::emit(&mut tx, event.name(), facts, &cx.by()).await.map_err(Failure::from)?;
            }
            let result = json!({ "state": Standing::Refused.as_str(), "detail": said });
            Ok(cx.complete_with(tx, &result).await?)
        }
        Err(error) => Err(Failure::from(error).into()),
    }
}
