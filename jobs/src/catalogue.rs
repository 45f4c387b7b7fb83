//! The kinds of jobs there are, for callers that name them by word: the API, schedules, the command line.

use serde::de::Error as _;
use serde_json::Value;
use serde_json::value::RawValue;

use gantry_schema::jobs::NewJob;

use crate::request::{Asked, RequestError};
use crate::{By, Job, Policy};

/// A kind of job, without its type.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// `feature.verb`.
    pub name: &'static str,
    /// How it is run.
    pub policy: Policy,
    /// Callers of the API may ask for it; others are asked for by the platform only.
    pub public: bool,
    read: fn(&str, &Asked, &By) -> Result<NewJob, KindError>,
}

/// A job that was asked for by word cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum KindError {
    /// There is no such kind.
    #[error("there is no kind of job called {0:?}")]
    Unknown(String),
    /// The payload is not what the kind expects.
    #[error("the payload of {kind} is not as expected: {source}")]
    Payload {
        /// The kind.
        kind: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It cannot be asked for like this.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Every kind, one line each. `gantry-worker jobs` prints them.
#[must_use]
pub fn kinds() -> Vec<Kind> {
    vec![
        public::<crate::diagnostics::Probe>(),
        internal::<crate::audit::SealRecord>(),
        internal::<crate::audit::CheckpointRecord>(),
        internal::<crate::audit::ForwardRecord>(),
        internal::<crate::audit::DropRecord>(),
        internal::<crate::licenses::WatchLicenses>(),
        internal::<crate::licenses::RecountLicenses>(),
        internal::<crate::maintenance::ForgetJobs>(),
        internal::<crate::maintenance::ForgetAnswers>(),
        internal::<crate::maintenance::ForgetEvents>(),
        internal::<crate::maintenance::PurgeOrganizations>(),
        internal::<crate::maintenance::ForgetAuthorizations>(),
        internal::<crate::maintenance::ForgetUsage>(),
        internal::<crate::maintenance::ForgetMessages>(),
        internal::<crate::maintenance::ForgetSignIns>(),
        internal::<crate::maintenance::Reseal>(),
        internal::<crate::messages::SendMessage>(),
        internal::<crate::modules::CheckModule>(),
        internal::<crate::servers::ProvisionServer>(),
        internal::<crate::credentials::CheckCredential>(),
        internal::<crate::servers::ConnectServer>(),
        internal::<crate::servers::DestroyServer>(),
        internal::<crate::servers::EstimateServer>(),
        internal::<crate::servers::LookAtServer>(),
        internal::<crate::servers::WatchServers>(),
        internal::<crate::servers::FindOrphans>(),
        internal::<crate::servers::WatchOrphans>(),
        internal::<crate::personal::ExportPerson>(),
        internal::<crate::personal::ErasePerson>(),
        internal::<crate::webhooks::DeliverWebhook>(),
        internal::<crate::webhooks::DrainBacklog>(),
        internal::<crate::webhooks::ReplayEvents>(),
    ]
}

/// A kind that callers of the API may ask for.
#[must_use]
pub fn public<J: Job>() -> Kind {
    Kind { name: J::KIND, policy: J::POLICY, public: true, read: read::<J> }
}

/// A kind only the platform asks for.
#[must_use]
pub fn internal<J: Job>() -> Kind {
    Kind { public: false, ..public::<J>() }
}

/// The kind of this name.
///
/// # Errors
/// When there is none.
pub fn find(name: &str) -> Result<Kind, KindError> {
    kinds().into_iter().find(|kind| kind.name == name).ok_or_else(|| KindError::Unknown(name.to_owned()))
}

impl Kind {
    /// Checks the payload against the kind, and makes the row of a job.
    ///
    /// # Errors
    /// When the payload is not what the kind expects, or the job cannot be asked for like this.
    pub fn new_job(
        &self,
        payload: &RawValue,
        asked: &Asked,
        by: &By,
        now: chrono::DateTime<chrono::Utc>,
    ) -> Result<NewJob, KindError> {
        if payload.get().len() > crate::request::MAX_PAYLOAD_BYTES {
            return Err(RequestError::PayloadTooLarge { bytes: payload.get().len() }.into());
        }
        asked.check(now)?;
        (self.read)(payload.get(), asked, by)
    }

    /// Checks the payload alone.
    ///
    /// # Errors
    /// When it is not what the kind expects.
    pub fn check(&self, payload: &Value) -> Result<(), KindError> {
        (self.read)(&payload.to_string(), &Asked::default(), &By::platform("check")).map(drop)
    }
}

fn read<J: Job>(payload: &str, asked: &Asked, by: &By) -> Result<NewJob, KindError> {
    let wrong = |source| KindError::Payload { kind: J::KIND, source };
    // serde would also take the fields from a list, in their order.
    if !payload.trim_ascii_start().starts_with('{') {
        return Err(wrong(serde_json::Error::custom("expected an object")));
    }
    let job: J = serde_json::from_str(payload).map_err(wrong)?;
    let mut request = job.request();
    if let Some(run_at) = asked.run_at {
        request = request.at(run_at);
    }
    if let Some(expires_at) = asked.expires_at {
        request = request.expires(expires_at);
    }
    if let Some(priority) = asked.priority {
        request = request.priority(priority);
    }
    for dependency in &asked.after {
        request = request.after(&dependency.step, dependency.job);
    }
    Ok(request.into_new_job(by)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own_made_of_feature_and_verb() {
        let mut names: Vec<&str> = kinds().iter().map(|kind| kind.name).collect();
        assert!(names.iter().all(|name| name.split('.').count() == 2), "{names:?}");
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    /// Payloads that were written down by a release, one file per kind. Add to them, never change one: jobs of an
    /// older release lie in tables that this one works on.
    #[test]
    fn payloads_of_every_release_are_understood() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
        for kind in kinds() {
            let file = folder.join(format!("{}.json", kind.name));
            let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let payloads: Vec<Value> = serde_json::from_str(&text).unwrap();
            assert!(!payloads.is_empty(), "{}", file.display());
            for payload in payloads {
                kind.check(&payload).unwrap_or_else(|error| panic!("{payload}: {error}"));
            }
            files.retain(|other| *other != file);
        }
        assert!(files.is_empty(), "kinds are never removed or renamed: {files:?}");
    }

    #[test]
    fn a_payload_that_is_no_object_is_refused() {
        for payload in ["[]", " [1, 0, 0, \"\"]", "null", "7", "\"{}\""] {
            let payload = RawValue::from_string(payload.to_owned()).unwrap();
            let now = chrono::DateTime::UNIX_EPOCH;
            let made = find("diagnostics.probe").unwrap().new_job(&payload, &Asked::default(), &By::platform("x"), now);
            assert!(matches!(made, Err(KindError::Payload { .. })), "{payload}");
        }
    }

    #[test]
    fn an_unknown_kind_and_a_wrong_payload_are_refused_by_name() {
        assert!(matches!(find("no.such"), Err(KindError::Unknown(name)) if name == "no.such"));
        let error = find("diagnostics.probe").unwrap().check(&serde_json::json!({ "steps": "many" })).unwrap_err();
        assert!(error.to_string().starts_with("the payload of diagnostics.probe is not as expected: invalid type"));
    }
}
