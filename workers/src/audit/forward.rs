use gantry_jobs::audit::ForwardRecord;
use gantry_jobs::webhooks;
use gantry_schema::audit::policies;
use gantry_schema::audit::queries::{self, Entry, ReadError};
use gantry_schema::digest::hex;
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::webhooks::fan_out::NewEvent;
use serde_json::json;

use crate::{Context, Done, Failure, Run};

/// Entries that go on in one transaction.
const BATCH: i64 = 500;

impl Run for ForwardRecord {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let mut count = 0;
        loop {
            let mut tx = cx.begin().await?;
            // An organization that is held tells nothing, and what it has to tell waits.
            let Some(forwarded) = policies::forwarded(&mut tx).await? else { break };
            let entries =
                queries::sealed_after(&mut tx, cx.sealing_keys(), forwarded, BATCH).await.map_err(unreadable)?;
            let Some(last) = entries.last().and_then(|entry| entry.sequence) else { break };
            count += entries.len();
            let more = i64::try_from(entries.len()).is_ok_and(|found| found == BATCH);
            webhooks::emit_all(&mut tx, entries.iter().map(event).collect(), &cx.by()).await?;
            policies::note_forwarded(&mut tx, last).await?;
            if !more {
                return cx.complete_with(tx, &json!({ "forwarded": count })).await;
            }
            tx.commit().await?;
            if cx.is_stopped() {
                return Err(Failure::retry("stopped in between; what went on is noted"));
            }
        }
        Ok(Done::Quietly)
    }
}

fn unreadable(trouble: ReadError) -> Failure {
    match trouble {
        ReadError::Database(trouble) => trouble.into(),
        other => Failure::cancel(other),
    }
}

/// What identifies people stays behind: an event would keep it when the person's key is shredded.
fn event(entry: &Entry) -> NewEvent {
    let record = &entry.record;
    let mut payload = json!({
        "audit_entry_id": entry.id,
        "sequence": entry.sequence,
        "hash": entry.hash.as_ref().map(|hash| hex(hash)),
        "occurred_at": entry.occurred_at,
        "actor": entry.actor,
        "action": entry.action,
        "target": record.target.as_ref().map(|target| &target.id),
        "outcome": record.outcome.as_str(),
        "reason": record.reason,
        "request_id": record.request_id,
        "job_id": record.job_id,
        "text": entry.text,
    });
    if let Some(facts) = payload.as_object_mut() {
        facts.retain(|_, fact| !fact.is_null());
    }
    NewEvent { r#type: PlatformEvent::AuditRecorded.name().to_owned(), payload, channels: Vec::new(), key: None }
}
