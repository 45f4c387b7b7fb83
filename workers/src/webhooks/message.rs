//! The request a delivery is: Standard Webhooks 1.0.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use gantry_providers::hooks::HookRequest;
use gantry_schema::SecretId;
use gantry_schema::seal::{SealContext, SealingKeys};
use gantry_schema::webhooks::secrets::Secret;
use gantry_schema::webhooks::signature::{self, SigningSecret};
use gantry_schema::webhooks::{Endpoint, Event};
use secrecy::ExposeSecret as _;
use serde_json::json;
use url::Url;

/// Opened secrets that are remembered.
const REMEMBERED: usize = 10_000;

/// An endpoint with what is needed to deliver to it.
pub(super) struct Receiver {
    pub(super) endpoint: Endpoint,
    url: Url,
    secrets: Vec<Arc<SigningSecret>>,
    headers: Vec<(String, String)>,
}

/// Secrets that were opened before, with the sealed text they were opened from.
#[derive(Default)]
pub(super) struct Opened(Mutex<OpenedSecrets>);

type OpenedSecrets = HashMap<SecretId, (Vec<u8>, Arc<SigningSecret>)>;

impl Receiver {
    /// Opens what is sealed. The reason why it cannot be delivered to is for the endpoint's owner.
    pub(super) fn open(
        endpoint: Endpoint,
        secrets: &[Secret],
        keys: &SealingKeys,
        opened: &Opened,
    ) -> Result<Self, String> {
        let url = endpoint.url.parse().map_err(|error| format!("the endpoint's URL cannot be used: {error}"))?;
        let own = secrets.iter().filter(|secret| secret.endpoint == endpoint.id);
        let secrets = own.map(|secret| opened.open(secret, keys)).collect::<Result<Vec<_>, _>>()?;
        if secrets.is_empty() {
            return Err("the endpoint has no signing secret; rotate its secret".to_owned());
        }
        let headers = match &endpoint.headers {
            Some(sealed) => open_headers(&endpoint, sealed, keys)?,
            None => Vec::new(),
        };
        Ok(Self { endpoint, url, secrets, headers })
    }

    /// The signed request, at this moment. `number` is that of an ordered delivery.
    pub(super) fn request(&self, event: &Event, number: Option<i64>, now: DateTime<Utc>) -> HookRequest {
        let body = body(event, self.endpoint.thin);
        let id = event.id.to_string();
        let secrets: Vec<&SigningSecret> = self.secrets.iter().map(AsRef::as_ref).collect();
        let signature = signature::signature_header(&secrets, &id, now, body.as_bytes());
        let mut request = HookRequest::new(self.url.clone(), body)
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now.timestamp().to_string())
            .header("webhook-signature", signature);
        if let Some(number) = number {
            request = request.header("webhook-sequence", number.to_string());
        }
        self.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    }
}

/// What is posted. A thin one says where the rest is to be had.
fn body(event: &Event, thin: bool) -> String {
    let data =
        if thin { &json!({ "event_id": event.id, "url": format!("/events/{}", event.id) }) } else { &event.payload };
    json!({ "type": event.r#type, "timestamp": event.created_at, "data": data }).to_string()
}

fn open_headers(endpoint: &Endpoint, sealed: &[u8], keys: &SealingKeys) -> Result<Vec<(String, String)>, String> {
    let place = SealContext {
        organization: endpoint.organization.uuid(),
        table: "webhook_endpoints",
        column: "headers",
        row: endpoint.id.uuid(),
    };
    let opened = keys.open(&place, sealed).map_err(|error| format!("the endpoint's headers do not open: {error}"))?;
    let headers: BTreeMap<String, String> = serde_json::from_slice(opened.expose_secret())
        .map_err(|_| "the endpoint's headers cannot be read; set them again".to_owned())?;
    Ok(headers.into_iter().collect())
}

impl Opened {
    fn open(&self, secret: &Secret, keys: &SealingKeys) -> Result<Arc<SigningSecret>, String> {
        let known =
            self.lock().get(&secret.id).filter(|(sealed, _)| *sealed == secret.secret).map(|(_, key)| key.clone());
        if let Some(key) = known {
            return Ok(key);
        }
        let place = Secret::place(secret.organization, secret.id);
        let bytes = keys
            .open(&place, &secret.secret)
            .map_err(|error| format!("the endpoint's signing secret does not open: {error}"))?;
        let unusable = |error: &dyn std::fmt::Display| format!("the endpoint's signing secret cannot be used: {error}");
        let scheme = secret.scheme.parse().map_err(|error| unusable(&error))?;
        let key = SigningSecret::from_parts(scheme, bytes.expose_secret()).map_err(|error| unusable(&error))?;
        let key = Arc::new(key);
        let mut opened = self.lock();
        if opened.len() >= REMEMBERED {
            opened.clear();
        }
        opened.insert(secret.id, (secret.secret.clone(), Arc::clone(&key)));
        Ok(key)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, OpenedSecrets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
