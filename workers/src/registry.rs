//! Which handler does which kind of job.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;

use gantry_jobs::{Job, Policy, catalogue};
use metrics::{Counter, Histogram};

use crate::{Context, Done, Failure};

/// Carries a kind of job out.
///
/// A handler may run again at any point: it asks vendors with [`Context::idempotency_key`], ends early when
/// there is nothing to do, and commits its result and the job's end together where it can.
pub trait Run: Job {
    /// Does it.
    fn run(&self, cx: &Context) -> impl Future<Output = Result<Done, Failure>> + Send;
}

type Running = Pin<Box<dyn Future<Output = Result<Done, Failure>> + Send>>;

/// A kind of job with its handler.
pub struct Handler {
    /// `feature.verb`.
    pub kind: &'static str,
    /// How it is run.
    pub policy: Policy,
    run: fn(&str, Context) -> Result<Running, serde_json::Error>,
    pub(crate) succeeded: Counter,
    pub(crate) seconds: Histogram,
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handler").field("kind", &self.kind).field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Handler {
    /// Reads the payload and begins.
    pub(crate) fn run(&self, payload: &str, cx: Context) -> Result<Running, serde_json::Error> {
        (self.run)(payload, cx)
    }
}

/// The kinds a worker can do.
#[derive(Debug, Default)]
pub struct Registry {
    handlers: HashMap<&'static str, Handler>,
    twice: Vec<&'static str>,
}

/// The registry and the catalogue do not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Two handlers.
    #[error("the kind {0} has two handlers")]
    Twice(&'static str),
    /// No handler.
    #[error("the kind {0} has no handler; add a line to gantry_workers::registry::standard")]
    Missing(&'static str),
}

/// Every kind of the platform, one line each.
#[must_use]
pub fn standard() -> Registry {
    Registry::default()
        .with::<gantry_jobs::diagnostics::Probe>()
        .with::<gantry_jobs::audit::SealRecord>()
        .with::<gantry_jobs::audit::CheckpointRecord>()
        .with::<gantry_jobs::audit::ForwardRecord>()
        .with::<gantry_jobs::audit::DropRecord>()
        .with::<gantry_jobs::licenses::WatchLicenses>()
        .with::<gantry_jobs::licenses::RecountLicenses>()
        .with::<gantry_jobs::maintenance::ForgetJobs>()
        .with::<gantry_jobs::maintenance::ForgetAnswers>()
        .with::<gantry_jobs::maintenance::ForgetEvents>()
        .with::<gantry_jobs::maintenance::PurgeOrganizations>()
        .with::<gantry_jobs::maintenance::ForgetAuthorizations>()
        .with::<gantry_jobs::maintenance::ForgetUsage>()
        .with::<gantry_jobs::maintenance::ForgetMessages>()
        .with::<gantry_jobs::maintenance::ForgetSignIns>()
        .with::<gantry_jobs::maintenance::Reseal>()
        .with::<gantry_jobs::messages::SendMessage>()
        .with::<gantry_jobs::modules::CheckModule>()
        .with::<gantry_jobs::servers::ProvisionServer>()
        .with::<gantry_jobs::credentials::CheckCredential>()
        .with::<gantry_jobs::servers::ConnectServer>()
        .with::<gantry_jobs::servers::DestroyServer>()
        .with::<gantry_jobs::servers::EstimateServer>()
        .with::<gantry_jobs::servers::LookAtServer>()
        .with::<gantry_jobs::servers::WatchServers>()
        .with::<gantry_jobs::servers::FindOrphans>()
        .with::<gantry_jobs::servers::WatchOrphans>()
        .with::<gantry_jobs::personal::ExportPerson>()
        .with::<gantry_jobs::personal::ErasePerson>()
        .with::<gantry_jobs::webhooks::DeliverWebhook>()
        .with::<gantry_jobs::webhooks::DrainBacklog>()
        .with::<gantry_jobs::webhooks::ReplayEvents>()
}

impl Registry {
    /// Adds a kind.
    #[must_use]
    pub fn with<J: Run>(mut self) -> Self {
        let handler = Handler {
            kind: J::KIND,
            policy: J::POLICY,
            run: |payload, cx| {
                let job: J = serde_json::from_str(payload)?;
                Ok(Box::pin(async move { job.run(&cx).await }))
            },
            succeeded: metrics::counter!("gantry_jobs_finished_total", "kind" => J::KIND, "outcome" => "succeeded"),
            seconds: metrics::histogram!("gantry_job_run_seconds", "kind" => J::KIND),
        };
        if self.handlers.insert(J::KIND, handler).is_some() {
            self.twice.push(J::KIND);
        }
        self
    }

    /// Checks that every kind of the catalogue has exactly one handler.
    ///
    /// # Errors
    /// Names the first that has not.
    pub fn check(&self) -> Result<(), RegistryError> {
        if let Some(kind) = self.twice.first() {
            return Err(RegistryError::Twice(kind));
        }
        match catalogue::kinds().iter().find(|kind| !self.handlers.contains_key(kind.name)) {
            Some(kind) => Err(RegistryError::Missing(kind.name)),
            None => Ok(()),
        }
    }

    /// The handler of a kind.
    #[must_use]
    pub fn get(&self, kind: &str) -> Option<&Handler> {
        self.handlers.get(kind)
    }

    /// Every handler, by kind.
    #[must_use]
    pub fn all(&self) -> Vec<&Handler> {
        let mut all: Vec<&Handler> = self.handlers.values().collect();
        all.sort_by_key(|handler| handler.kind);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_the_catalogue_has_one_handler() {
        assert_eq!(standard().check(), Ok(()));
    }

    #[test]
    fn a_missing_and_a_second_handler_are_noticed() {
        let missing = Registry::default().with::<gantry_jobs::diagnostics::Probe>();
        assert!(matches!(missing.check(), Err(RegistryError::Missing(_))));
        let twice = standard().with::<gantry_jobs::diagnostics::Probe>();
        assert_eq!(twice.check(), Err(RegistryError::Twice("diagnostics.probe")));
    }
}
