//! What operations, kinds of jobs and rows need: the features and limits that this release knows. What a tier has of
//! them, and others that only contracts name, is data.

use crate::words::words;

words! {
    /// Something that a license lets an organization use.
    Feature {
        /// To make and connect servers.
        ServerProvisioning = "server_provisioning",
        /// To make infrastructure in clouds.
        InfrastructureProvisioning = "infrastructure_provisioning",
        /// To plan and apply Terraform.
        TerraformIntegration = "terraform_integration",
        /// To take payments.
        PaymentProcessing = "payment_processing",
        /// To register and manage domains, and to be reached by own host names.
        DomainManagement = "domain_management",
        /// To show an own brand.
        WhiteLabelBranding = "white_label_branding",
        /// To make API keys.
        ApiAccess = "api_access",
        /// To ask for many things in one request.
        BulkOperations = "bulk_operations",
        /// To watch servers and applications in detail.
        AdvancedMonitoring = "advanced_monitoring",
        /// To use several clouds.
        MultiCloudSupport = "multi_cloud_support",
        /// To let people sign in by their own organization's directory.
        SsoIntegration = "sso_integration",
        /// To take copies of the record.
        AuditLogging = "audit_logging",
        /// To make and restore backups.
        BackupManagement = "backup_management",
        /// To have certificates issued and renewed.
        SslManagement = "ssl_management",
        /// To spread load over servers.
        LoadBalancing = "load_balancing",
        /// To give narrower licenses to organizations below.
        Reselling = "reselling",
    }
}

words! {
    /// Something of which a license lets there be so many.
    Limit {
        /// Servers.
        Servers = "servers",
        /// Applications.
        Applications = "applications",
        /// Domains.
        Domains = "domains",
        /// Members, in the organization and below it.
        Users = "users",
        /// Accounts at clouds.
        CloudAccounts = "cloud_accounts",
        /// Provisioning jobs at the same time.
        ConcurrentProvisioning = "concurrent_provisioning",
        /// Organizations below.
        ChildOrganizations = "child_organizations",
        /// Deployments in a calendar month, UTC.
        DeploymentsPerMonth = "deployments_per_month",
    }
}

impl Limit {
    /// What is counted for it: the `kind` of the tree's counts.
    #[must_use]
    pub const fn counts(self) -> &'static str {
        match self {
            Self::Users => "members",
            Self::ChildOrganizations => "organizations",
            other => other.as_str(),
        }
    }

    /// The feature it is of, whose end ends its growth.
    #[must_use]
    pub const fn feature(self) -> Option<Feature> {
        match self {
            Self::Servers | Self::CloudAccounts | Self::ConcurrentProvisioning => Some(Feature::ServerProvisioning),
            Self::Domains => Some(Feature::DomainManagement),
            Self::Applications | Self::Users | Self::ChildOrganizations | Self::DeploymentsPerMonth => None,
        }
    }

    /// The limit that counts this.
    #[must_use]
    pub fn of_counted(kind: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|limit| limit.counts() == kind)
    }
}

impl std::str::FromStr for Limit {
    type Err = UnknownLimit;

    fn from_str(word: &str) -> Result<Self, UnknownLimit> {
        Self::ALL.iter().copied().find(|limit| limit.as_str() == word).ok_or_else(|| UnknownLimit(word.to_owned()))
    }
}

/// The word names no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no limit")]
pub struct UnknownLimit(pub String);

/// Whether a text can name a tier, a feature or a limit: a letter, then up to 49 letters, digits and `_`.
#[must_use]
pub fn is_name(text: &str) -> bool {
    text.len() <= 50
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_one() {
        assert!(Feature::ALL.iter().map(|feature| feature.as_str()).all(is_name));
        assert!(
            Limit::ALL.iter().all(|limit| is_name(limit.as_str()) && Limit::of_counted(limit.counts()) == Some(*limit))
        );
        assert!(!is_name("") && !is_name("2fa") && !is_name("Servers") && !is_name(&"a".repeat(51)));
    }
}
