//! Takes text messages inside this process, and remembers them.
//!
//! It judges messages as the real one does, calls itself `sandbox` in what it says of each, and fails when it is told to,
//! or by itself for the numbers that Twilio's test credentials have for it: `+15005550001` is no number, `+15005550009`
//! is no mobile telephone, and to `+15005550002` nothing can be routed.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use super::{Accepted, SmsSender, Text};
use crate::{Error, Result};

/// Messages that are remembered; the oldest are forgotten first.
const REMEMBERED: usize = 10_000;

/// How a message to the sandbox fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Refused with this code, for good.
    Rejected(u32),
    /// Put off with this code.
    PutOff(u32),
    /// No answer comes.
    Timeout,
    /// The connection ends early.
    Reset,
}

impl Outcome {
    fn of(number: &str) -> Option<Self> {
        Some(match number {
            "+15005550001" => Self::Rejected(21_211),
            "+15005550002" => Self::Rejected(21_612),
            "+15005550009" => Self::Rejected(21_614),
            _ => return None,
        })
    }

    fn error(self) -> Error {
        let reason = "the sandbox was told to answer so".to_owned();
        match self {
            Self::Rejected(code) => Error::Rejected { code: code.to_string(), reason },
            Self::PutOff(code) => Error::PutOff { code: code.to_string(), reason, wait: None },
            Self::Timeout => Error::Timeout(Duration::from_secs(15)),
            Self::Reset => Error::Reset("the sandbox was told to fail so".into()),
        }
    }
}

/// A telephone inside this process.
#[derive(Debug, Default)]
pub struct SandboxSms(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    texts: VecDeque<Text>,
    planned: VecDeque<Outcome>,
}

impl SandboxSms {
    /// Lets the next message fare so, after those that were planned before.
    pub fn fail_next(&self, outcome: Outcome) {
        self.state().planned.push_back(outcome);
    }

    /// The messages that were taken, the oldest first, each once.
    #[must_use]
    pub fn texts(&self) -> Vec<Text> {
        self.state().texts.iter().cloned().collect()
    }

    /// The newest message to a number.
    #[must_use]
    pub fn last_to(&self, number: &str) -> Option<Text> {
        self.state().texts.iter().rev().find(|text| text.to == number).cloned()
    }

    /// A panic elsewhere leaves the lists whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl SmsSender for SandboxSms {
    fn name(&self) -> &'static str {
        "sandbox"
    }

    async fn send(&self, text: &Text) -> Result<Accepted> {
        text.check()?;
        let mut state = self.state();
        if let Some(outcome) = state.planned.pop_front().or_else(|| Outcome::of(&text.to)) {
            return Err(outcome.error());
        }
        if !state.texts.iter().any(|known| known.id == text.id) {
            if state.texts.len() == REMEMBERED {
                state.texts.pop_front();
            }
            state.texts.push_back(text.clone());
        }
        Ok(Accepted { reference: format!("sandbox: message {}, which reached nobody", state.texts.len()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sms::contract::{self, Phone, Plan, Received};

    impl Phone for SandboxSms {
        fn answer_next(&self, plan: Plan) {
            self.fail_next(match plan {
                Plan::Take => return,
                Plan::Refuse(400 | 404, code) => Outcome::Rejected(code),
                Plan::Refuse(_, code) => Outcome::PutOff(code),
                Plan::Silence => Outcome::Timeout,
                Plan::HangUp => Outcome::Reset,
            });
        }

        fn received(&self) -> Vec<Received> {
            self.texts().into_iter().map(|text| Received { to: text.to, body: text.body }).collect()
        }
    }

    #[tokio::test]
    async fn the_sandbox_keeps_the_contract_of_senders() {
        let sandbox = SandboxSms::default();
        contract::suite(&sandbox, &sandbox).await;
    }

    #[tokio::test]
    async fn it_says_what_it_is_keeps_each_message_once_and_knows_special_numbers() {
        let sandbox = SandboxSms::default();
        for _ in 0..2 {
            assert!(sandbox.send(&contract::text("msg_1")).await.unwrap().reference.starts_with("sandbox"));
        }
        assert_eq!((sandbox.name(), sandbox.texts().len()), ("sandbox", 1));
        assert_eq!(sandbox.last_to("+15551230000"), Some(contract::text("msg_1")));
        for (number, code) in [("+15005550001", "21211"), ("+15005550009", "21614"), ("+15005550002", "21612")] {
            let error = sandbox.send(&Text { to: number.to_owned(), ..contract::text("msg_2") }).await.unwrap_err();
            assert!(error.to_string().contains(code) && !error.is_transient(), "{error}");
        }
    }
}
