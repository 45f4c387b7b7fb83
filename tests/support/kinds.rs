//! Kinds of jobs that do what a story tells them.

use std::time::Duration;

use gantry_jobs::{By, Job, Policy, Queue, Retry, webhooks};
use gantry_schema::jobs::{Concurrency, Held, OnConflict, Unique};
use gantry_schema::licenses::{Feature, Limit};
use gantry_workers::{Context, Done, Failure, Registry, Run};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Adds the kinds of this file.
#[must_use]
pub fn register(registry: Registry) -> Registry {
    registry
        .with::<Scripted>()
        .with::<Hanging>()
        .with::<OneAtATime>()
        .with::<Only>()
        .with::<Effect>()
        .with::<Garble>()
        .with::<Careless>()
        .with::<Rated>()
        .with::<Provision>()
}

/// What an attempt of a scripted job does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Act {
    /// Succeeds without a word.
    Succeed,
    /// Succeeds with this result.
    Answer(Value),
    /// Succeeds with the result of the step it waited for.
    AnswerStep(String),
    /// Commits work and its end together.
    Complete,
    /// Fails.
    Fail(String),
    /// Fails, and says after how many seconds it may work.
    FailUntil(u64),
    /// Fails for good.
    GiveUp(String),
    /// Comes back after so many seconds.
    Snooze(u64),
    /// Panics.
    Panic(String),
    /// Runs for ever, and does not listen.
    Hang,
    /// Runs until it is told to stop, and then succeeds with `"stopped"`.
    Listen,
    /// Runs for so many milliseconds.
    Nap(u64),
}

/// A job whose attempts do as they are told: the first act, then the second; the last one repeats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scripted {
    /// What it is called.
    pub name: String,
    /// What it does.
    pub acts: Vec<Act>,
}

impl Scripted {
    /// A job that does this in every attempt.
    #[must_use]
    pub fn new(name: &str, act: Act) -> Self {
        Self { name: name.to_owned(), acts: vec![act] }
    }

    /// A job that does this, then that.
    #[must_use]
    pub fn acts(name: &str, acts: &[Act]) -> Self {
        Self { name: name.to_owned(), acts: acts.to_vec() }
    }

    /// A job that succeeds.
    #[must_use]
    pub fn fine(name: &str) -> Self {
        Self::new(name, Act::Succeed)
    }
}

impl Job for Scripted {
    const KIND: &'static str = "story.scripted";
    const POLICY: Policy = Policy {
        grace: Duration::from_millis(200),
        ..Policy::new(Queue::Default)
            .attempts(3)
            .lease(Duration::from_secs(5))
            .retry(Retry::Ladder(&[Duration::from_secs(10), Duration::from_secs(100)]))
    };
}

impl Run for Scripted {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let attempt = usize::try_from(cx.attempt() - 1).unwrap_or(0);
        let act = self.acts.get(attempt).or(self.acts.last()).unwrap_or(&Act::Succeed);
        match act {
            Act::Succeed => Ok(Done::Quietly),
            Act::Answer(value) => Ok(Done::With(value.clone())),
            Act::AnswerStep(step) => Ok(Done::With(cx.result_of(step).await?.unwrap_or_default())),
            Act::Complete => {
                let mut tx = cx.begin().await?;
                webhooks::emit(&mut tx, "story.completed", json!({ "name": self.name }), &cx.by()).await?;
                cx.complete_with(tx, &json!("completed")).await
            }
            Act::Fail(why) => Err(Failure::retry(why.clone())),
            Act::FailUntil(seconds) => Err(Failure::RetryAfter(Duration::from_secs(*seconds), "not so fast".into())),
            Act::GiveUp(why) => Err(Failure::cancel(why.clone())),
            Act::Snooze(seconds) => Err(Failure::Snooze(Duration::from_secs(*seconds), "too early".to_owned())),
            Act::Panic(why) => panic!("{why}"),
            Act::Hang => std::future::pending().await,
            Act::Listen => {
                cx.stopped().await;
                Ok(Done::With(json!("stopped")))
            }
            Act::Nap(milliseconds) => {
                tokio::time::sleep(Duration::from_millis(*milliseconds)).await;
                Ok(Done::Quietly)
            }
        }
    }
}

/// A job that hangs; it has a tenth of a second and is told to stop before it is dropped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hanging {
    /// It finishes when it is told to stop.
    pub listens: bool,
}

impl Job for Hanging {
    const KIND: &'static str = "story.hanging";
    const POLICY: Policy = Policy {
        grace: Duration::from_millis(100),
        ..Policy::new(Queue::Default).attempts(2).timeout(Duration::from_millis(100))
    };
}

impl Run for Hanging {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        if self.listens {
            cx.stopped().await;
            return Ok(Done::With(json!("finished all the same")));
        }
        std::future::pending().await
    }
}

/// A job of which only `limit` run at a time under a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OneAtATime {
    /// The key.
    pub key: String,
    /// How many.
    pub limit: i16,
    /// How long it takes.
    pub milliseconds: u64,
}

impl OneAtATime {
    /// A job of which one runs at a time, without taking time.
    #[must_use]
    pub fn under(key: &str) -> Self {
        Self { key: key.to_owned(), limit: 1, milliseconds: 0 }
    }
}

impl Job for OneAtATime {
    const KIND: &'static str = "story.one_at_a_time";
    const POLICY: Policy = Policy::new(Queue::Default).lease(Duration::from_secs(5));

    fn concurrency(&self) -> Option<Concurrency> {
        Some(Concurrency { key: self.key.clone(), limit: self.limit })
    }
}

impl Run for OneAtATime {
    async fn run(&self, _cx: &Context) -> Result<Done, Failure> {
        tokio::time::sleep(Duration::from_millis(self.milliseconds)).await;
        Ok(Done::Quietly)
    }
}

/// A job of which there is only one, in the sense of the word it is made with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Only {
    /// The key.
    pub key: String,
    /// `pending`, `alive`, or for how many seconds.
    pub held: String,
    /// `existing`, `replace` or `debounce`.
    pub on_conflict: String,
    /// What it says.
    pub text: String,
    /// What it does.
    pub act: Act,
}

impl Only {
    /// A job that succeeds and says its text.
    #[must_use]
    pub fn one(key: &str, held: &str, on_conflict: &str, text: &str) -> Self {
        Self {
            key: key.to_owned(),
            held: held.to_owned(),
            on_conflict: on_conflict.to_owned(),
            text: text.to_owned(),
            act: Act::Succeed,
        }
    }
}

impl Job for Only {
    const KIND: &'static str = "story.only";
    const POLICY: Policy = Policy::new(Queue::Default).attempts(1);

    fn unique(&self) -> Option<Unique> {
        let held = match self.held.as_str() {
            "pending" => Held::Pending,
            "alive" => Held::Alive,
            seconds => Held::Period(chrono::Duration::seconds(seconds.parse().expect("a number of seconds"))),
        };
        let on_conflict = match self.on_conflict.as_str() {
            "replace" => OnConflict::Replace,
            "debounce" => OnConflict::Debounce,
            _ => OnConflict::Existing,
        };
        Some(Unique { key: self.key.clone(), held, on_conflict })
    }
}

impl Run for Only {
    async fn run(&self, _cx: &Context) -> Result<Done, Failure> {
        match &self.act {
            Act::GiveUp(why) => Err(Failure::cancel(why.clone())),
            _ => Ok(Done::With(json!(self.text))),
        }
    }
}

/// A job with an effect in the database and one outside, done once however often it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// Where the outside is.
    pub url: String,
}

impl Job for Effect {
    const KIND: &'static str = "story.effect";
    const POLICY: Policy = Policy::new(Queue::Default).attempts(50).retry(Retry::Ladder(&[Duration::from_secs(1)]));
}

impl Run for Effect {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let url = self.url.parse().map_err(Failure::cancel)?;
        let request =
            gantry_providers::hooks::HookRequest::new(url, "{}").header("webhook-id", cx.idempotency_key("effect"));
        cx.providers().hooks.send(request).await?;
        let mut tx = cx.begin().await?;
        webhooks::emit(&mut tx, "story.effect", json!({ "job": cx.job() }), &By::job(cx.job())).await?;
        cx.complete(tx).await
    }
}

/// A job as none should be: its effect and its end are two commits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Careless {}

impl Job for Careless {
    const KIND: &'static str = "story.careless";
    const POLICY: Policy = Policy::new(Queue::Default);
}

impl Run for Careless {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let mut tx = cx.begin().await?;
        webhooks::emit(&mut tx, "story.careless", json!({ "job": cx.job() }), &cx.by()).await?;
        tx.commit().await?;
        Ok(Done::Quietly)
    }
}

/// A job that says what PostgreSQL cannot keep: a zero byte.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Garble {
    /// `answer`, `fail` or `log`.
    pub outcome: String,
}

impl Job for Garble {
    const KIND: &'static str = "story.garble";
    const POLICY: Policy = Policy::new(Queue::Default);
}

impl Run for Garble {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        match self.outcome.as_str() {
            "answer" => Ok(Done::With(json!({ "k\0": ["v\0"] }))),
            "fail" => Err(Failure::cancel("before\0after")),
            _ => {
                cx.log("a line\0").await?;
                cx.progress(&json!("half\0way")).await?;
                let tx = cx.begin().await?;
                cx.complete_with(tx, &json!("all\0")).await
            }
        }
    }
}

/// A job that needs a feature, and adds a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provision {}

impl Job for Provision {
    const KIND: &'static str = "story.provision";
    const POLICY: Policy =
        Policy::new(Queue::Default).needing(Feature::ServerProvisioning).adding(Limit::ChildOrganizations);
}

impl Run for Provision {
    async fn run(&self, _cx: &Context) -> Result<Done, Failure> {
        Ok(Done::Quietly)
    }
}

/// A job that uses up a rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rated {
    /// The rate.
    pub rate: String,
}

impl Job for Rated {
    const KIND: &'static str = "story.rated";
    const POLICY: Policy = Policy::new(Queue::Default);

    fn rate(&self) -> Option<String> {
        Some(self.rate.clone())
    }
}

impl Run for Rated {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        Ok(Done::With(json!(cx.now().timestamp_millis())))
    }
}
