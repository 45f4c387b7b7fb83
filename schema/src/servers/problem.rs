//! Why a server could not be made or removed, as words that never change, each with what to do about it.

use std::str::FromStr;

use super::UnknownWord;

macro_rules! problems {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal, $remedy:literal;)*) => {
        /// Why a run came to nothing.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Problem {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Problem {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word programs compare with.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// What to do about it.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }
        }
    };
}

problems! {
    /// No `terraform` and no `tofu`.
    TerraformMissing = "terraform_missing",
        "The operator installs terraform or tofu where workers run, or names it in GANTRY_TERRAFORM.";
    /// It says a version that is too old, or nothing that can be understood.
    TerraformUnusable = "terraform_unusable",
        "The operator installs terraform 1.5 or later, or tofu 1.6 or later, where workers run.";
    /// It ended before it was done, by a signal or for want of memory.
    TerraformKilled = "terraform_killed",
        "Try again; where it happens again, the operator gives workers more memory, or finds out who ends it.";
    /// It said more than anybody reads.
    TerraformFlooded = "terraform_flooded",
        "The operator looks at what terraform says where workers run, and installs another build of it.";
    /// It would not be confined.
    TerraformUnconfined = "terraform_unconfined",
        "The operator installs bubblewrap where workers run, or sets GANTRY_TERRAFORM_ISOLATION to auto.";
    /// It did not end.
    TerraformHung = "terraform_hung",
        "Try again; where it happens again, the run's log says at which resource.";
    /// It could not be prepared.
    InitFailed = "init_failed",
        "See what it says; workers without a way out need a mirror of plugins.";
    /// There is no sandbox here.
    SandboxOff = "sandbox_off",
        "The operator turns it on with GANTRY_SANDBOX_CLOUD, or choose another cloud.";
    /// The cloud is known, and nothing can be made there yet.
    CloudUnsupported = "cloud_unsupported",
        "Choose a cloud that this release makes servers on: the sandbox.";
    /// The region.
    UnknownRegion = "unknown_region",
        "Choose a region that the message lists.";
    /// The size.
    UnknownSize = "unknown_size",
        "Choose a size that the message lists.";
    /// The image.
    UnknownImage = "unknown_image",
        "Choose an image that the message lists.";
    /// The account may have no more.
    CloudQuotaExceeded = "cloud_quota_exceeded",
        "Remove what nobody needs, choose a smaller size, or have the cloud raise the quota.";
    /// The cloud does not take the credential.
    CredentialRefused = "credential_refused",
        "Check at the cloud that it is still there and what it allows, and replace it with POST /cloud-credentials/{id}/rotate.";
    /// The cloud has none left of what was wanted.
    CapacityUnavailable = "capacity_unavailable",
        "Choose another region or size, or try again later.";
    /// What the plan needs could not be worked out.
    PlanFailed = "plan_failed",
        "See what it says, and ask for the server again with what it wants.";
    /// It began, and did not come to its end.
    ApplyFailed = "apply_failed",
        "What was made was removed again. See what it says, and ask for the server again.";
    /// It could not all be removed.
    DestroyFailed = "destroy_failed",
        "DELETE the server again; where it fails again, look at the cloud for what holds it.";
    /// The state was written by somebody else in the meantime.
    StateConflict = "state_conflict",
        "Try again: the state that is kept is the one that counts.";
    /// Nobody answered in time.
    SshUnreachable = "ssh_unreachable",
        "Look at its console at the cloud, and whether its firewall lets the platform in; then DELETE it and ask for it again.";
    /// Somebody else answered.
    HostKeyMismatch = "host_key_mismatch",
        "Somebody may sit between the platform and the server: DELETE it, and find out who answers at its address.";
    /// It does not let the platform in.
    SshRefused = "ssh_refused",
        "Its user data did not run as it should; DELETE the server and ask for it again.";
    /// Somebody stopped the job.
    Cancelled = "cancelled",
        "What was made by then is there: DELETE the server, and ask for it again if it is wanted after all.";
    /// It was tried time after time.
    GaveUp = "gave_up",
        "DELETE the server and ask for it again; where it happens again, the operator looks at the workers' log.";
    /// It is not as it has to be.
    ChecksFailed = "checks_failed",
        "The message says which check failed and what was found; choose another size or image.";
    /// Modules of organizations are not run here.
    ModulesOff = "modules_off",
        "The operator turns modules on with GANTRY_MODULES.";
    /// They would not be kept apart from the rest of the machine.
    ModuleUnconfined = "module_unconfined",
        "The operator installs bubblewrap where workers run, or sets GANTRY_TERRAFORM_ISOLATION to off.";
    /// Terraform reads something in a module that is not taken.
    ModulePolicy = "module_policy",
        "Take out of the module what the message names, update it, and ask for the server again.";
    /// It does not say where the server is reached, or who answers there.
    ModuleOutputs = "module_outputs",
        "See which output of the module it is, update the module, and ask for the server again.";
}

impl FromStr for Problem {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL.iter().copied().find(|it| it.as_str() == word).ok_or_else(|| UnknownWord(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_has_a_word_of_its_own_and_a_remedy() {
        for problem in Problem::ALL {
            assert_eq!(problem.as_str().parse(), Ok(*problem));
            assert!(problem.remedy().ends_with('.'));
        }
    }
}
