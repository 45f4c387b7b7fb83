//! Tells whoever follows a run's job what Terraform says, and how far it is.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use gantry_providers::terraform::stream::Event;
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, Sender};
use tokio::task::JoinHandle;
use tracing::debug;

use crate::Context;

/// What is told later than this many events behind is not told.
const BEHIND: usize = 4_096;

/// Tells what happens, until it is dropped or ended.
pub(crate) struct Teller {
    events: Sender<Event>,
    stage: Arc<Mutex<&'static str>>,
    task: JoinHandle<()>,
}

/// How far it is.
#[derive(Debug, Default)]
struct Progress {
    total: u32,
    done: BTreeSet<String>,
    current: BTreeSet<String>,
}

impl Progress {
    /// Takes note. Answers what people are told.
    fn take(&mut self, event: Event) -> Option<String> {
        match event {
            Event::Planned { address, action } => Some(format!("{address}: to {action}")),
            Event::Began { address, action } => {
                let line = format!("{address}: {action} begins");
                self.current.insert(address);
                Some(line)
            }
            Event::Done { address, action, seconds } => {
                self.current.remove(&address);
                let line = format!("{address}: {action} done after {seconds} s");
                self.done.insert(address);
                Some(line)
            }
            Event::Gave { address } => {
                self.current.remove(&address);
                Some(format!("{address}: could not be done"))
            }
            Event::Summary { add, change, remove, operation } => {
                if operation == "plan" {
                    self.total = add + change + remove;
                }
                Some(format!("{operation}: {add} to make, {change} to change, {remove} to remove"))
            }
            Event::Diagnostic(diagnostic) => Some(format!("{}: {diagnostic}", diagnostic.severity)),
            Event::Line(line) => (!line.is_empty()).then_some(line),
        }
    }

    fn told(&self, stage: &str, seconds: i64) -> Value {
        json!({
            "stage": stage,
            "resources_done": self.done.len(),
            "resources_total": self.total,
            "current": self.current.iter().next(),
            "elapsed_seconds": seconds,
        })
    }
}

impl Teller {
    /// Begins to tell.
    pub(crate) fn start(cx: &Context) -> Self {
        let (events, mut told) = mpsc::channel(BEHIND);
        let stage = Arc::new(Mutex::new("preparing"));
        let (cx, at, began) = (cx.clone(), Arc::clone(&stage), cx.now());
        let task = tokio::spawn(async move {
            let (mut progress, mut batch) = (Progress::default(), Vec::new());
            while told.recv_many(&mut batch, 256).await > 0 {
                let lines: Vec<String> = batch.drain(..).filter_map(|event| progress.take(event)).collect();
                let stage = *at.lock().unwrap_or_else(PoisonError::into_inner);
                let seconds = (cx.now() - began).num_seconds();
                let telling = async {
                    for line in lines {
                        cx.log(line).await?;
                    }
                    cx.progress(&progress.told(stage, seconds)).await
                };
                if let Err(failure) = telling.await {
                    // What is done is done all the same.
                    debug!("What Terraform says was not told: {}", failure.describe());
                }
            }
        });
        Self { events, stage, task }
    }

    /// Where what happens is said.
    pub(crate) const fn events(&self) -> &Sender<Event> {
        &self.events
    }

    /// Another part of it begins.
    pub(crate) fn stage(&self, stage: &'static str) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
        self.say(stage);
    }

    /// Tells people something.
    pub(crate) fn say(&self, line: impl Into<String>) {
        // Nobody is told what is too much to be told.
        let _full = self.events.try_send(Event::Line(line.into()));
    }

    /// Tells the rest.
    pub(crate) async fn end(self) {
        drop(self.events);
        let _panicked = self.task.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_counts_what_is_done_of_what_was_planned() {
        let mut progress = Progress::default();
        let (address, action) = ("terraform_data.machine".to_owned(), "create".to_owned());
        progress.take(Event::Summary { add: 3, change: 0, remove: 0, operation: "plan".to_owned() });
        progress.take(Event::Began { address: address.clone(), action: action.clone() });
        assert_eq!(progress.told("applying", 2)["current"], "terraform_data.machine");
        let line = progress.take(Event::Done { address, action, seconds: 1 });
        assert_eq!(line.as_deref(), Some("terraform_data.machine: create done after 1 s"));
        let wanted = json!({ "stage": "applying", "resources_done": 1, "resources_total": 3, "current": null,
                             "elapsed_seconds": 2 });
        assert_eq!(progress.told("applying", 2), wanted);
    }
}
