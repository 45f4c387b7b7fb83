//! Takes letters inside this process, and remembers them.
//!
//! An installation whose mail is to reach nobody runs with this sender. It judges letters as the real one does, calls
//! itself `sandbox` in what it says of each, and fails when it is told to, or by itself when the address begins with one
//! of the special names:
//!
//! | address | answer |
//! |---|---|
//! | `fail+550@…` | refused with that code, for good |
//! | `fail+451@…` | put off with that code |
//! | `fail+timeout@…` | that error: `timeout`, `connect` or `reset` |
//! | anything else | taken |

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use super::{Accepted, Letter, MailSender};
use crate::{Error, Result};

/// Letters that are remembered; the oldest are forgotten first.
const REMEMBERED: usize = 10_000;

/// How a letter to the sandbox fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Refused or put off with this code of SMTP.
    Code(u16),
    /// No answer comes.
    Timeout,
    /// Nobody listens.
    Connect,
    /// The connection ends early.
    Reset,
}

impl Outcome {
    fn of(address: &str) -> Option<Self> {
        Some(match address.strip_prefix("fail+")?.split_once('@')?.0 {
            "timeout" => Self::Timeout,
            "connect" => Self::Connect,
            "reset" => Self::Reset,
            code => Self::Code(code.parse().ok().filter(|code| (400..600).contains(code))?),
        })
    }

    fn error(self) -> Error {
        let cause = || "the sandbox was told to fail so".into();
        let reason = "the sandbox was told to answer so".to_owned();
        match self {
            Self::Code(code) if code >= 500 => Error::Rejected { code: code.to_string(), reason },
            Self::Code(code) => Error::PutOff { code: code.to_string(), reason, wait: None },
            Self::Timeout => Error::Timeout(Duration::from_secs(15)),
            Self::Connect => Error::Connect(cause()),
            Self::Reset => Error::Reset(cause()),
        }
    }
}

/// A mailbox inside this process.
#[derive(Debug, Default)]
pub struct SandboxMail(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    letters: VecDeque<Letter>,
    planned: VecDeque<Outcome>,
}

impl SandboxMail {
    /// Lets the next letter fare so, after those that were planned before.
    pub fn fail_next(&self, outcome: Outcome) {
        self.state().planned.push_back(outcome);
    }

    /// The letters that were taken, the oldest first, each once.
    #[must_use]
    pub fn letters(&self) -> Vec<Letter> {
        self.state().letters.iter().cloned().collect()
    }

    /// The newest letter to an address.
    #[must_use]
    pub fn last_to(&self, address: &str) -> Option<Letter> {
        self.state().letters.iter().rev().find(|letter| letter.to == address).cloned()
    }

    /// A panic elsewhere leaves the lists whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl MailSender for SandboxMail {
    fn name(&self) -> &'static str {
        "sandbox"
    }

    async fn send(&self, letter: &Letter) -> Result<Accepted> {
        letter.check()?;
        let mut state = self.state();
        if let Some(outcome) = state.planned.pop_front().or_else(|| Outcome::of(&letter.to)) {
            return Err(outcome.error());
        }
        if !state.letters.iter().any(|known| known.id == letter.id) {
            if state.letters.len() == REMEMBERED {
                state.letters.pop_front();
            }
            state.letters.push_back(letter.clone());
        }
        let number = state.letters.len();
        Ok(Accepted { reference: Some(format!("sandbox: letter {number}, which reached nobody")) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::contract::{self, Mailbox, Plan, Received};

    impl Mailbox for SandboxMail {
        fn answer_next(&self, plan: Plan) {
            self.fail_next(match plan {
                Plan::Code(code) => Outcome::Code(code),
                Plan::Silence => Outcome::Timeout,
                Plan::HangUp => Outcome::Reset,
            });
        }

        fn received(&self) -> Vec<Received> {
            let received = |letter: Letter| Received {
                to: letter.to,
                message_id: letter.id,
                subject: letter.subject,
                parts: vec![letter.text, letter.html],
            };
            self.letters().into_iter().map(received).collect()
        }
    }

    #[tokio::test]
    async fn the_sandbox_keeps_the_contract_of_senders() {
        let sandbox = SandboxMail::default();
        contract::suite(&sandbox, &sandbox).await;
    }

    #[tokio::test]
    async fn it_says_what_it_is_and_keeps_each_letter_once() {
        let sandbox = SandboxMail::default();
        for _ in 0..2 {
            let taken = sandbox.send(&contract::letter("msg_1")).await.unwrap();
            assert!(taken.reference.unwrap().starts_with("sandbox"));
        }
        assert_eq!((sandbox.name(), sandbox.letters().len()), ("sandbox", 1));
        assert_eq!(sandbox.last_to("ada@example.com"), Some(contract::letter("msg_1")));
    }

    #[tokio::test]
    async fn a_special_address_fares_as_it_names() {
        let sandbox = SandboxMail::default();
        let to = |address: &str| Letter { to: address.to_owned(), ..contract::letter("msg_1") };
        for (address, code) in [
            ("fail+550@example.com", "rejected"),
            ("fail+451@example.com", "put_off"),
            ("fail+timeout@example.com", "timeout"),
            ("fail+connect@example.com", "connect"),
        ] {
            assert_eq!(sandbox.send(&to(address)).await.unwrap_err().code(), code, "{address}");
        }
        assert!(sandbox.send(&to("fail+200@example.com")).await.is_ok());
    }
}
