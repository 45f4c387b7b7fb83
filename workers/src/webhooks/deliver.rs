use std::time::Duration;

use gantry_jobs::webhooks::DeliverWebhook;
use gantry_providers::hooks::{HookRequest, HookResponse};
use gantry_schema::seal::SealContext;
use gantry_schema::webhooks::signature::{self, SigningSecret};
use gantry_schema::webhooks::{Attempt, Endpoint, Event, queries};
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::{Context, Done, Failure, Run};

/// Bytes of the receiver's answer that are kept.
const KEPT_BYTES: usize = 1_024;

impl Run for DeliverWebhook {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let mut tx = cx.begin().await?;
        let endpoint = queries::find_endpoint(&mut tx, self.endpoint).await?;
        let event = queries::find_event(&mut tx, self.event).await?;
        tx.commit().await?;
        let (Some(endpoint), Some(event)) = (endpoint.filter(|endpoint| endpoint.enabled), event) else {
            return Ok(Done::With(json!({ "skipped": "the endpoint is gone or disabled" })));
        };

        let request = signed_request(cx, &endpoint, &event)?;
        let attempted_at = cx.now();
        let answer = cx.providers().hooks.send(request).await;
        let latency = cx.now() - attempted_at;

        let mut tx = cx.begin().await?;
        let attempt = Attempt {
            job: cx.job(),
            attempt: cx.attempt(),
            event: event.id,
            endpoint: endpoint.id,
            attempted_at,
            latency_ms: i32::try_from(latency.num_milliseconds()).unwrap_or(i32::MAX),
            status: answer.as_ref().ok().and_then(|answer| i16::try_from(answer.status).ok()),
            answer: answer.as_ref().ok().map(first_kilobyte),
            error: answer.as_ref().err().map(gantry_providers::Error::explain),
        };
        queries::record_attempt(&mut tx, &attempt).await?;
        match answer {
            Ok(answer) if answer.is_success() => cx.complete_with(tx, &json!({ "status": answer.status })).await,
            answer => {
                tx.commit().await?;
                Err(judge(answer?))
            }
        }
    }
}

/// The request as Standard Webhooks 1.0 wants it.
fn signed_request(cx: &Context, endpoint: &Endpoint, event: &Event) -> Result<HookRequest, Failure> {
    let row = SealContext {
        organization: endpoint.organization.uuid(),
        table: "webhook_endpoints",
        column: "secret",
        row: endpoint.id.uuid(),
    };
    let secret = cx.sealing_keys().open(&row, &endpoint.secret).map_err(Failure::cancel)?;
    let secret = SigningSecret::from_bytes(secret.expose_secret()).map_err(Failure::cancel)?;
    let url = endpoint.url.parse().map_err(Failure::cancel)?;
    let body = json!({ "type": event.r#type, "timestamp": event.created_at, "data": event.payload }).to_string();
    let (id, now) = (event.id.to_string(), cx.now());
    let signature = signature::sign(&secret, &id, now, body.as_bytes());
    Ok(HookRequest::new(url, body)
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", now.timestamp().to_string())
        .header("webhook-signature", signature))
}

/// What an answer other than success means.
fn judge(answer: HookResponse) -> Failure {
    let error = format!("the receiver answered {}", answer.status);
    let wait = answer.header("retry-after").and_then(|seconds| seconds.trim().parse().ok());
    match (answer.status, wait) {
        (410, _) => Failure::cancel(error),
        (429 | 503, Some(seconds)) => Failure::RetryAfter(Duration::from_secs(seconds).min(A_DAY), error.into()),
        _ => Failure::retry(error),
    }
}

const A_DAY: Duration = Duration::from_hours(24);

fn first_kilobyte(answer: &HookResponse) -> String {
    // PostgreSQL's text has no place for a zero byte.
    String::from_utf8_lossy(&answer.body[..answer.body.len().min(KEPT_BYTES)]).replace('\0', "\u{fffd}")
}
