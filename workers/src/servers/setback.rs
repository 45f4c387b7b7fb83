//! Why a run does not go on: for good, as a word and what was said; or for now.

use gantry_providers::clouds::{self, Because, Known, Refusal};
use gantry_providers::terraform::Trouble;
use gantry_schema::credentials::queries::CredentialError;
use gantry_schema::servers::Problem;
use gantry_schema::servers::keys::SshKeyError;
use gantry_schema::servers::plans::PlanError;

use crate::Failure;

/// Why a run does not go on.
#[derive(Debug)]
pub(crate) enum Setback {
    /// It comes to nothing.
    Problem(Problem, String),
    /// This attempt comes to nothing.
    Failure(Failure),
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

impl From<gantry_providers::Error> for Setback {
    fn from(error: gantry_providers::Error) -> Self {
        match error {
            gantry_providers::Error::CredentialRefused { .. } => {
                Self::Problem(Problem::CredentialRefused, error.to_string())
            }
            error => Self::Failure(error.into()),
        }
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
            Because::Name | Because::Network => Problem::PlanFailed,
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
        Self::Problem(problem, trouble.to_string())
    }
}

fn classify(stage: &str, said: &str) -> Problem {
    match clouds::known(said) {
        Some(Known::State) => Problem::StateConflict,
        Some(Known::Quota) => Problem::CloudQuotaExceeded,
        Some(Known::Capacity) => Problem::CapacityUnavailable,
        // What it allows is looked at in the same place.
        Some(Known::Credential | Known::Permission) => Problem::CredentialRefused,
        Some(Known::NameTaken | Known::RateLimit) | None => match stage {
            "init" => Problem::InitFailed,
            "plan" | "show" => Problem::PlanFailed,
            _ => Problem::ApplyFailed,
        },
    }
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
        ] {
            assert_eq!(classify(stage, said), problem, "{said}");
        }
    }
}
