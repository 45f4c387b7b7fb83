//! Why a run does not go on: for good, as a word and what was said; or for now.

use std::time::Duration;

use gantry_providers::Error;
use gantry_providers::clouds::{self, Because, Known, Refusal};
use gantry_providers::ssh::SshError;
use gantry_providers::terraform::Trouble;
use gantry_schema::credentials::queries::CredentialError;
use gantry_schema::servers::Problem;
use gantry_schema::servers::keys::SshKeyError;
use gantry_schema::servers::plans::PlanError;

use super::checks::plain;
use crate::Failure;

/// Why a run does not go on.
#[derive(Debug)]
pub(crate) enum Setback {
    /// It comes to nothing.
    Problem(Problem, String),
    /// This attempt comes to nothing; the last one comes to nothing for this reason.
    Passing(Problem, String, Option<Duration>),
    /// This attempt comes to nothing.
    Failure(Failure),
}

impl Setback {
    /// What it comes to: what may pass is tried again, unless this was the last attempt.
    pub(crate) fn weighed(self, is_last_attempt: bool) -> Self {
        match self {
            Self::Passing(problem, said, _) if is_last_attempt => Self::Problem(problem, said),
            Self::Passing(_, said, Some(wait)) => Self::Failure(Failure::RetryAfter(wait, said.into())),
            Self::Passing(_, said, None) => Self::Failure(Failure::retry(said)),
            other => other,
        }
    }

    /// What becomes of a job that has nothing but itself.
    pub(crate) fn into_failure(self, is_last_attempt: bool) -> Failure {
        match self.weighed(is_last_attempt) {
            Self::Failure(failure) => failure,
            Self::Problem(problem, said) | Self::Passing(problem, said, _) => {
                Failure::cancel(format!("{}: {said}", problem.as_str()))
            }
        }
    }
}

impl From<Failure> for Setback {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<sqlx::Error> for Setback {
    fn from(error: sqlx::Error) -> Self {
        Self::Failure(error.into())
    }
}

impl From<CredentialError> for Setback {
    fn from(error: CredentialError) -> Self {
        Self::Failure(match error {
            CredentialError::Database(error) => error.into(),
            error => Failure::cancel(error),
        })
    }
}

impl From<SshKeyError> for Setback {
    fn from(error: SshKeyError) -> Self {
        Self::Failure(match error {
            SshKeyError::Database(error) => error.into(),
            error => Failure::cancel(error),
        })
    }
}

impl From<PlanError> for Setback {
    fn from(error: PlanError) -> Self {
        Self::Failure(match error {
            PlanError::Database(error) => error.into(),
            error => Failure::cancel(error),
        })
    }
}

impl From<Error> for Setback {
    fn from(error: Error) -> Self {
        match error {
            Error::CredentialRefused { .. } => Self::Problem(Problem::CredentialRefused, error.to_string()),
            Error::PutOff { ref code, ref reason, wait } => match clouds::known(&format!("{code} {reason}")) {
                Some(Known::RateLimit) => Self::Passing(Problem::CloudRateLimit, error.to_string(), wait),
                _ => Self::Failure(error.into()),
            },
            Error::Rejected { ref code, ref reason } => match of(&format!("{code} {reason}")) {
                Some(problem) => Self::Problem(problem, detailed(problem, error.to_string())),
                None => Self::Failure(error.into()),
            },
            error => Self::Failure(error.into()),
        }
    }
}

impl From<SshError> for Setback {
    fn from(error: SshError) -> Self {
        let problem = match &error {
            SshError::HostKey { .. } => Problem::HostKeyMismatch,
            SshError::Refused(_) => Problem::SshRefused,
            SshError::Address { .. } => Problem::RefusedAddress,
            SshError::Unreachable { .. } | SshError::Key(_) | SshError::Command(_) => Problem::SshUnreachable,
        };
        Self::Problem(problem, plain(&error.to_string()))
    }
}

impl From<Refusal> for Setback {
    fn from(refusal: Refusal) -> Self {
        let problem = match refusal.because {
            Because::Region => Problem::UnknownRegion,
            Because::Size => Problem::UnknownSize,
            Because::Image => Problem::UnknownImage,
            Because::Quota => Problem::CloudQuotaExceeded,
            Because::Capacity => Problem::CapacityUnavailable,
            Because::Name => Problem::InvalidName,
            Because::Network => Problem::NetworkConflict,
            Because::Price => Problem::PriceUnknown,
            Because::Off => Problem::SandboxOff,
        };
        Self::Problem(problem, refusal.said)
    }
}

impl From<Trouble> for Setback {
    fn from(trouble: Trouble) -> Self {
        let problem = match &trouble {
            // The disk may be full, or there are too many processes.
            Trouble::System(_) => return Self::Failure(Failure::retry(trouble)),
            Trouble::Stopped => return Self::Failure(Failure::retry(trouble)),
            Trouble::Missing | Trouble::Gone(_) => Problem::TerraformMissing,
            Trouble::Unconfined => Problem::TerraformUnconfined,
            Trouble::Killed { .. } | Trouble::OutOfMemory(_) => Problem::TerraformKilled,
            Trouble::Flooded(_) => Problem::TerraformFlooded,
            Trouble::Unusable(_) | Trouble::Garbage(_) => Problem::TerraformUnusable,
            Trouble::Hung(_) => Problem::TerraformHung,
            Trouble::Failed { stage, said } => classify(stage, said),
        };
        match problem {
            Problem::CloudRateLimit => Self::Passing(problem, trouble.to_string(), None),
            problem => Self::Problem(problem, detailed(problem, trouble.to_string())),
        }
    }
}

/// What was said, with the permission that is missing before it.
fn detailed(problem: Problem, said: String) -> String {
    match clouds::missing_permission(&said) {
        Some(name) if problem == Problem::PermissionMissing => format!("{name} is not permitted: {said}"),
        _ => said,
    }
}

/// What is known of what was said.
fn of(said: &str) -> Option<Problem> {
    Some(match clouds::known(said)? {
        Known::State => Problem::StateConflict,
        Known::Quota => Problem::CloudQuotaExceeded,
        Known::Capacity => Problem::CapacityUnavailable,
        Known::Credential => Problem::CredentialRefused,
        Known::Permission => Problem::PermissionMissing,
        Known::NameTaken => Problem::NameTaken,
        Known::RateLimit => Problem::CloudRateLimit,
        Known::Network => Problem::NetworkConflict,
        Known::InvalidName => Problem::InvalidName,
    })
}

fn classify(stage: &str, said: &str) -> Problem {
    of(said).unwrap_or(match stage {
        "init" => Problem::InitFailed,
        "plan" | "show" => Problem::PlanFailed,
        _ => Problem::ApplyFailed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clouds_say_is_known_by_a_word() {
        for (stage, said, problem) in [
            ("apply", "creating EC2 Instance: VcpuLimitExceeded: You have requested more", Problem::CloudQuotaExceeded),
            ("apply", "server type not available (resource_unavailable, 1234)", Problem::CapacityUnavailable),
            ("plan", "POST https://api: 401 Unable to authenticate you", Problem::CredentialRefused),
            ("plan", "Error acquiring the state lock: 423", Problem::StateConflict),
            ("plan", "Invalid reference", Problem::PlanFailed),
            ("init", "could not query provider registry", Problem::InitFailed),
            ("apply", "local-exec provisioner error", Problem::ApplyFailed),
            ("apply", "server name is already used (uniqueness_error)", Problem::NameTaken),
            ("apply", "429 API Rate limit exceeded.", Problem::CloudRateLimit),
            ("apply", "AuthorizationFailed: The client does not have authorization", Problem::PermissionMissing),
            ("apply", "InvalidSubnet.Conflict: The CIDR conflicts with another subnet", Problem::NetworkConflict),
        ] {
            assert_eq!(classify(stage, said), problem, "{said}");
        }
    }

    #[test]
    fn the_permission_that_is_missing_is_named_and_a_rate_limit_passes() {
        let failed = |said: &str| Setback::from(Trouble::Failed { stage: "apply", said: said.to_owned() });
        let said = "UnauthorizedOperation: User x is not authorized to perform: ec2:RunInstances on resource: y";
        let Setback::Problem(Problem::PermissionMissing, detail) = failed(said) else { panic!() };
        assert!(detail.starts_with("ec2:RunInstances is not permitted: "), "{detail}");
        assert!(matches!(failed("RequestLimitExceeded"), Setback::Passing(Problem::CloudRateLimit, ..)));
        let wait = Some(Duration::from_secs(7));
        let put_off = |code: &str| Error::PutOff { code: code.to_owned(), reason: String::new(), wait };
        let passing = Setback::from(put_off("rate_limit_exceeded"));
        assert!(matches!(passing, Setback::Passing(Problem::CloudRateLimit, _, it) if it == wait));
        assert!(matches!(Setback::from(put_off("HTTP 503")), Setback::Failure(Failure::Retry(_))));
        let rejected = Error::Rejected { code: "AuthorizationFailed".to_owned(), reason: "no".to_owned() };
        assert!(matches!(Setback::from(rejected), Setback::Problem(Problem::PermissionMissing, _)));
    }
}
