use std::sync::Arc;

use gantry_jobs::personal::ErasePerson;
use gantry_jobs::webhooks;
use gantry_schema::audit::Author;
use gantry_schema::messages::queries::MessageError;
use gantry_schema::people::{self, Person, State};
use gantry_schema::personal::{erasing, erasures};
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::{OrganizationId, PersonId, TenantTx};
use serde_json::json;

use super::signed;
use crate::{Context, Done, Failure, Run};

impl Run for ErasePerson {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let mut tx = acting(cx, OrganizationId::PLATFORM, self.person).await?;
        let erasure = erasures::find(&mut tx, self.erasure).await?;
        let person = people::find(&mut tx, self.person).await?;
        let (Some(erasure), Some(person)) = (erasure, person) else { return cx.complete(tx).await };
        if erasure.state != erasures::State::Pending || person.state == State::Erased {
            return cx.complete(tx).await;
        }
        let organizations = erasing::organizations(&mut tx, self.person).await?;
        let addresses = erasing::addresses(&mut tx, &person).await?;
        tx.rollback().await?;
        // Looked at before anything is done: he may have become one since he asked.
        for organization in &organizations {
            let mut tx = acting(cx, *organization, self.person).await?;
            let is_last = erasing::is_last_owner(&mut tx, self.person).await?;
            tx.rollback().await?;
            if is_last {
                let mut tx = acting(cx, OrganizationId::PLATFORM, self.person).await?;
                erasures::refused(&mut tx, self.erasure).await?;
                tx.record("person.erase").on(&self.person).set("refused", "last_owner");
                return cx
                    .complete_with(tx, &json!({ "refused": "last_owner", "organization_id": organization }))
                    .await;
            }
        }
        for organization in organizations.iter().filter(|organization| **organization != OrganizationId::PLATFORM) {
            let tx = acting(cx, *organization, self.person).await?;
            let tx = forgotten(cx, tx, &person, &addresses).await?;
            tx.commit().await?;
            if cx.is_stopped() {
                return Err(Failure::retry("stopped in between; where he was forgotten, he is"));
            }
        }
        let at = cx.now();
        let certificate = signed(cx, erasures::statement(&erasure, &organizations, at)).await?;
        let tx = acting(cx, OrganizationId::PLATFORM, self.person).await?;
        let mut tx = forgotten(cx, tx, &person, &addresses).await?;
        erasing::forget(&mut tx, &person).await?;
        erasures::done(&mut tx, self.erasure, &certificate, at).await?;
        cx.complete_with(tx, &json!({ "organizations": organizations.len() })).await
    }
}

/// A transaction of the organization that acts for the person, by this job.
async fn acting(cx: &Context, organization: OrganizationId, person: PersonId) -> Result<TenantTx, Failure> {
    let author = Author::job(cx.job(), None);
    Ok(cx.db().tenant_for(organization, person).await?.by(Arc::new(author)))
}

/// Forgets him in the transaction's organization, and tells it.
async fn forgotten(
    cx: &Context,
    mut tx: TenantTx,
    person: &Person,
    addresses: &std::collections::BTreeSet<String>,
) -> Result<TenantTx, Failure> {
    let forgotten = erasing::forget_in(&mut tx, cx.sealing_keys(), person, addresses).await.map_err(unreadable)?;
    let keys: Vec<String> = forgotten.api_keys.iter().map(ToString::to_string).collect();
    tx.record("person.erase").on(&person.id).set("was_member", forgotten.was_member).set("api_keys", &keys);
    for key in &forgotten.api_keys {
        let facts = json!({ "api_key_id": key });
        webhooks::emit(&mut tx, PlatformEvent::ApiKeyRevoked.name(), facts, &cx.by()).await?;
    }
    if forgotten.was_member {
        let facts = json!({ "person_id": person.id, "reason": "erased" });
        webhooks::emit(&mut tx, PlatformEvent::MemberRemoved.name(), facts, &cx.by()).await?;
    }
    Ok(tx)
}

fn unreadable(trouble: MessageError) -> Failure {
    match trouble {
        MessageError::Database(trouble) => trouble.into(),
        other => Failure::cancel(other),
    }
}
