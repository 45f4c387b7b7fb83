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
    /// The cloud knows the credential, and does not permit something.
    PermissionMissing = "permission_missing",
        "Permit at the cloud what the message names, and try again; GET /cloud-credentials/{id} says what else is missing.";
    /// The cloud does not answer as often as it was asked.
    CloudRateLimit = "cloud_rate_limit",
        "It was tried again for a quarter of an hour. Try again later, and have less done at the same time with this account.";
    /// Something else is called the same there.
    NameTaken = "name_taken",
        "Remove at the cloud what the message names, or ask for a server with another name.";
    /// Its name is none there.
    InvalidName = "invalid_name",
        "Choose another name: 1 to 63 of a-z, 0-9 and -, with - at neither end.";
    /// Its network cannot be, or overlaps another one.
    NetworkConflict = "network_conflict",
        "Choose another range in options.network: a part of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16 that nothing else has.";
    /// The cloud does not say what it costs.
    PriceUnknown = "price_unknown",
        "Permit at the cloud that prices are read, or choose another size: no limit of cost could be kept.";
    /// The cloud has none left of what was wanted.
    CapacityUnavailable = "capacity_unavailable",
        "Choose another region or size, or try again later.";
    /// What the plan needs could not be worked out.
    PlanFailed = "plan_failed",
        "See what it says, and ask for the server again with what it wants.";
    /// It began, and did not come to its end.
    ApplyFailed = "apply_failed",
        "What was made was removed again, unless it was to be kept: then POST /servers/{id}/retry goes on. See what it says.";
    /// It could not all be removed.
    DestroyFailed = "destroy_failed",
        "DELETE the server again; where it fails again, look at the cloud for what holds it.";
    /// The state was written by somebody else in the meantime.
    StateConflict = "state_conflict",
        "Try again: the state that is kept is the one that counts.";
    /// Nobody answered in time.
    SshUnreachable = "ssh_unreachable",
        "See at its console whether its SSH server runs, and whether its firewall lets the platform in; then POST /servers/{id}/retry.";
    /// Somebody else answered.
    HostKeyMismatch = "host_key_mismatch",
        "Somebody may sit between the platform and the server. Find out who answers at its address, and read the host key again at its console; then DELETE it, and make or connect it anew.";
    /// It does not let the platform in.
    SshRefused = "ssh_refused",
        "Where it was connected, put the public key of GET /ssh-keys into ~/.ssh/authorized_keys of its user, and POST /servers/{id}/retry. Where it was made, its user data did not run as it should: DELETE it, and ask for it again.";
    /// It is where nobody is to look.
    RefusedAddress = "refused_address",
        "Connect it at a public address, or have the operator list its network in GANTRY_SERVERS_ALLOW.";
    /// Somebody stopped the job.
    Cancelled = "cancelled",
        "What was made by then is there: DELETE the server, and ask for it again if it is wanted after all.";
    /// It was tried time after time.
    GaveUp = "gave_up",
        "DELETE the server and ask for it again; where it happens again, the operator looks at the workers' log.";
    /// It is not as it has to be.
    ChecksFailed = "checks_failed",
        "The message says which check failed and what was found. Put it right and POST /servers/{id}/retry, or choose another size or image.";
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
