//! What bins receive: any request of anybody who has the URL.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gantry_schema::inspector::{BinToken, Inspected, queries};
use gantry_schema::{BinId, JobTx as _};
use poem::http::{HeaderMap, StatusCode, header};
use poem::{IntoResponse as _, Request, Response};
use tokio::time::{Instant, sleep};

use crate::app::App;
use crate::error::{Code, Error};

/// Bytes of a body that are kept; what comes after is not read.
const KEPT_BODY: usize = 256 * 1024;

/// Bytes of headers that are kept.
const KEPT_HEADERS: usize = 16 * 1024;

/// Characters of a path and of a query that are kept.
const KEPT_PATH: usize = 2_048;

/// Requests a second that a bin takes, in each process.
const PER_SECOND: u32 = 50;

/// Bins that are counted at the same time.
const COUNTED: usize = 10_000;

/// How many requests came for each bin in this second.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<HashMap<BinId, (Instant, u32)>>);

impl Rates {
    fn admit(&self, bin: BinId) -> bool {
        let now = Instant::now();
        let is_over = |begun: Instant| now.duration_since(begun) >= Duration::from_secs(1);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= COUNTED {
            counts.retain(|_, (begun, _)| !is_over(*begun));
        }
        let (begun, count) = counts.entry(bin).or_insert((now, 0));
        if is_over(*begun) {
            (*begun, *count) = (now, 0);
        }
        *count += 1;
        *count <= PER_SECOND
    }
}

/// Keeps the request and answers as the bin is set to.
pub(crate) async fn receive(request: Request) -> poem::Result<Response> {
    Ok(keep(request).await?)
}

async fn keep(mut request: Request) -> Result<Response, Error> {
    let app = request.data::<App>().cloned();
    let app = app.ok_or_else(|| Error::new(Code::Internal, "the server was put together wrongly"))?;
    let unknown = || Error::new(Code::NotFound, "there is no such bin; GET /inspector/bins lists them with their URLs");
    let path = request.uri().path().strip_prefix("/inspect/").unwrap_or_default().to_owned();
    let (token, rest) =
        path.split_once('/').map_or((path.as_str(), String::new()), |(token, rest)| (token, format!("/{rest}")));
    let token: BinToken = token.parse().map_err(|_| unknown())?;
    let bin = queries::presented(&mut app.db.presented_bin(&token).await?, &token).await?.ok_or_else(unknown)?;
    if !app.rates.admit(bin.id) {
        let detail = format!("a bin takes {PER_SECOND} requests a second; send less");
        return Err(Error::new(Code::TooManyRequests, detail));
    }
    let (body, truncated) = body(&mut request).await?;
    let mut tx = app.db.tenant(bin.organization).await?;
    let inspected = Inspected {
        id: tx.ids().mint(),
        bin: bin.id,
        method: request.method().as_str().chars().take(32).collect(),
        path: storable(&rest, KEPT_PATH),
        query: request.uri().query().map(|query| storable(query, KEPT_PATH)),
        headers: headers(request.headers()).into(),
        body,
        truncated,
        received_at: tx.now(),
    };
    queries::keep(&mut tx, &inspected).await?;
    tx.commit().await?;
    sleep(Duration::from_millis(bin.delay_ms.unsigned_abs().into())).await;
    let status = StatusCode::from_u16(bin.status.unsigned_abs()).unwrap_or_default();
    let answer = serde_json::json!({ "received": inspected.id, "bin": bin.id }).to_string();
    Ok(answer.with_content_type("application/json").with_status(status).into_response())
}

/// The body as far as it is kept; the rest is not waited for.
async fn body(request: &mut Request) -> Result<(Vec<u8>, bool), Error> {
    use tokio::io::AsyncReadExt as _;
    let mut kept = Vec::new();
    let limit = KEPT_BODY as u64 + 1;
    let mut reader = request.take_body().into_async_read().take(limit);
    let cut_off = |_| Error::new(Code::MalformedJson, "the body ended before it was complete; send it again");
    reader.read_to_end(&mut kept).await.map_err(cut_off)?;
    let truncated = kept.len() > KEPT_BODY;
    kept.truncate(KEPT_BODY);
    Ok((kept, truncated))
}

/// Names and values in their order. What would let a reader act as the sender is not shown.
fn headers(headers: &HeaderMap) -> Vec<serde_json::Value> {
    let mut room = KEPT_HEADERS;
    let mut kept = Vec::new();
    for (name, value) in headers {
        let secret = [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION].contains(name);
        let value = if secret { "(not shown)".into() } else { String::from_utf8_lossy(value.as_bytes()) };
        let Some(left) = room.checked_sub(name.as_str().len() + value.len()) else { break };
        room = left;
        kept.push(serde_json::json!([name.as_str(), storable(&value, KEPT_HEADERS)]));
    }
    kept
}

/// PostgreSQL's texts have no place for a zero byte.
fn storable(text: &str, characters: usize) -> String {
    text.chars().take(characters).map(|character| if character == '\0' { '\u{fffd}' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bin_takes_so_many_requests_a_second_and_another_is_not_concerned() {
        let (rates, bin) = (Rates::default(), |number| BinId::from_uuid(uuid::Uuid::from_u128(number)));
        assert!((0..PER_SECOND).all(|_| rates.admit(bin(1))));
        assert!(!rates.admit(bin(1)) && rates.admit(bin(2)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(rates.admit(bin(1)));
    }
}
