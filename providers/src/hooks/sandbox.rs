//! Receives webhooks inside this process, and remembers them.
//!
//! An installation whose deliveries are to reach nobody runs with this sender: a demonstration, a rehearsal, a story in
//! the tests. It judges URLs and headers as the real one does, says in each answer that it is a sandbox, and fails when
//! it is told to, or by itself when the path of the URL ends in one of the special values:
//!
//! | path ends in | answer |
//! |---|---|
//! | `/fail/503` | that status |
//! | `/fail/timeout` | that error: `dns`, `connect`, `tls`, `timeout`, `reset`, `too_large` or `refused_address` |
//! | anything else | 200 |

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use url::Url;

use super::{AddressPolicy, HookRequest, HookResponse, HookSender, KEPT_BODY};
use crate::{Error, Result};

/// How many deliveries are remembered; the oldest are forgotten first.
const REMEMBERED: usize = 10_000;
/// What is waited for at most when the request does not say; nothing really waits here.
const DEADLINE: Duration = Duration::from_secs(15);

/// How a delivery to the sandbox ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An answer with this status.
    Status(u16),
    /// An answer with this status, and `Retry-After`.
    StatusAfter(u16, &'static str),
    /// The name does not resolve.
    Dns,
    /// Nobody listens.
    Connect,
    /// The certificate is not trusted.
    Tls,
    /// No answer comes.
    Timeout,
    /// The connection ends early.
    Reset,
    /// The answer's head is too large.
    TooLarge,
    /// The name resolves to an address that is not allowed.
    RefusedAddress,
}

impl Outcome {
    /// Reads the last part of a special path.
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "dns" => Self::Dns,
            "connect" => Self::Connect,
            "tls" => Self::Tls,
            "timeout" => Self::Timeout,
            "reset" => Self::Reset,
            "too_large" => Self::TooLarge,
            "refused_address" => Self::RefusedAddress,
            status => Self::Status(status.parse().ok().filter(|status| (200..600).contains(status))?),
        })
    }

    /// What the URL itself asks for.
    fn of(url: &Url) -> Self {
        let special = url.path().rsplit_once("/fail/").and_then(|(_, value)| Self::parse(value));
        special.unwrap_or(Self::Status(200))
    }
}

/// One delivery as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What was sent.
    pub request: HookRequest,
    /// How it ended.
    pub outcome: Outcome,
}

/// A receiver of webhooks inside this process.
#[derive(Debug, Default)]
pub struct SandboxHooks {
    policy: AddressPolicy,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    deliveries: VecDeque<Delivery>,
    planned: VecDeque<Outcome>,
}

impl SandboxHooks {
    /// A sandbox that judges URLs by `policy`. The default one judges by the default policy.
    #[must_use]
    pub fn new(policy: AddressPolicy) -> Self {
        Self { policy, state: Mutex::default() }
    }

    /// Lets the next `times` deliveries end in `outcome`, after those that were planned before.
    pub fn fail_next(&self, times: usize, outcome: Outcome) {
        self.state().planned.extend(std::iter::repeat_n(outcome, times));
    }

    /// All remembered deliveries, the oldest first, those that were made to fail among them.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.state().deliveries.iter().cloned().collect()
    }

    /// The remembered deliveries to one URL.
    #[must_use]
    pub fn deliveries_to(&self, url: &Url) -> Vec<Delivery> {
        self.state().deliveries.iter().filter(|delivery| delivery.request.url == *url).cloned().collect()
    }

    /// Forgets all deliveries and plans.
    pub fn clear(&self) {
        *self.state() = State::default();
    }

    fn record(&self, request: &HookRequest) -> (Outcome, usize) {
        let mut state = self.state();
        let outcome = state.planned.pop_front().unwrap_or_else(|| Outcome::of(&request.url));
        if state.deliveries.len() == REMEMBERED {
            state.deliveries.pop_front();
        }
        state.deliveries.push_back(Delivery { request: request.clone(), outcome });
        (outcome, state.deliveries.len())
    }

    /// A panic elsewhere leaves the lists whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl HookSender for SandboxHooks {
    async fn send(&self, request: HookRequest) -> Result<HookResponse> {
        self.policy.check_url(&request.url)?;
        request.header_map()?;
        let (outcome, number) = self.record(&request);
        let host = || request.url.host_str().unwrap_or_default().to_owned();
        let cause = || "the sandbox was told to fail so".into();
        Err(match outcome {
            Outcome::Status(status) => return Ok(answer(status, number)),
            Outcome::StatusAfter(status, wait) => {
                let mut answer = answer(status, number);
                answer.headers.push(("retry-after".into(), wait.into()));
                return Ok(answer);
            }
            Outcome::Dns => Error::Dns { host: host(), source: cause() },
            Outcome::Connect => Error::Connect(cause()),
            Outcome::Tls => Error::Tls(cause()),
            Outcome::Timeout => Error::Timeout(request.deadline.unwrap_or(DEADLINE)),
            Outcome::Reset => Error::Reset(cause()),
            Outcome::TooLarge => Error::TooLarge(cause()),
            Outcome::RefusedAddress => Error::RefusedAddress { host: host() },
        })
    }
}

fn answer(status: u16, number: usize) -> HookResponse {
    let message = "This delivery reached the sandbox of Gantry and nobody else.";
    let body = serde_json::json!({ "sandbox": true, "message": message, "deliveries": number }).to_string();
    debug_assert!(body.len() <= KEPT_BODY);
    HookResponse {
        status,
        headers: vec![("content-type".into(), "application/json".into()), ("gantry-sandbox".into(), "true".into())],
        body: Bytes::from(body),
        truncated: false,
        latency: Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::{Reach, contract};

    impl contract::Receiver for SandboxHooks {
        fn url(&self, path: &str) -> Url {
            format!("http://10.0.0.1{path}").parse().unwrap()
        }

        fn answer_next(&self, plan: contract::Plan) {
            let outcome = match plan {
                contract::Plan::Status(status) => Outcome::Status(status),
                contract::Plan::Silence => Outcome::Timeout,
                contract::Plan::HangUp => Outcome::Reset,
            };
            self.fail_next(1, outcome);
        }

        fn received(&self) -> Vec<contract::Received> {
            let received = |delivery: Delivery| contract::Received {
                path: delivery.request.url.path().to_owned(),
                headers: delivery.request.headers,
                body: delivery.request.body,
            };
            self.deliveries().into_iter().map(received).collect()
        }
    }

    #[tokio::test]
    async fn the_sandbox_keeps_the_contract_of_senders() {
        let sandbox = SandboxHooks::new(AddressPolicy::new(Reach::Private));
        contract::suite(&sandbox, &sandbox).await;
    }

    fn to(path: &str) -> HookRequest {
        HookRequest::new(format!("https://hooks.example{path}").parse().unwrap(), "{}")
    }

    #[tokio::test]
    async fn it_says_that_it_is_a_sandbox() {
        let answer = SandboxHooks::default().send(to("/")).await.unwrap();
        assert!(answer.is_success());
        assert_eq!(answer.header("gantry-sandbox"), Some("true"));
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["sandbox"], true);
    }

    #[tokio::test]
    async fn it_fails_as_often_as_it_was_told_and_remembers_each_delivery() {
        let sandbox = SandboxHooks::default();
        sandbox.fail_next(2, Outcome::Status(503));
        sandbox.fail_next(1, Outcome::Reset);
        assert_eq!(sandbox.send(to("/a")).await.unwrap().status, 503);
        assert_eq!(sandbox.send(to("/b")).await.unwrap().status, 503);
        assert_eq!(sandbox.send(to("/a")).await.unwrap_err().code(), "reset");
        assert_eq!(sandbox.send(to("/a")).await.unwrap().status, 200);
        assert_eq!(sandbox.deliveries().len(), 4);
        assert_eq!(sandbox.deliveries_to(&to("/a").url).len(), 3);
        sandbox.clear();
        assert!(sandbox.deliveries().is_empty());
    }

    #[tokio::test]
    async fn a_special_path_fails_in_the_way_it_names() {
        let sandbox = SandboxHooks::default();
        assert_eq!(sandbox.send(to("/my/fail/410")).await.unwrap().status, 410);
        assert_eq!(sandbox.send(to("/fail/anyhow")).await.unwrap().status, 200);
        assert_eq!(sandbox.send(to("/fail/99")).await.unwrap().status, 200);
        for code in ["dns", "connect", "tls", "timeout", "reset", "too_large", "refused_address"] {
            assert_eq!(sandbox.send(to(&format!("/fail/{code}"))).await.unwrap_err().code(), code);
        }
    }
}
