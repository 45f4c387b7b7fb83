//! What clouds and Terraform say when something goes wrong, as words that never change.

/// What is known of what was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Known {
    /// Somebody else wrote the state, or is about to.
    State,
    /// The account may have no more.
    Quota,
    /// The cloud has none left at the moment.
    Capacity,
    /// The cloud does not know who asks.
    Credential,
    /// The cloud knows who asks, and does not permit it.
    Permission,
    /// Something else is called the same.
    NameTaken,
    /// Too much was asked in too little time.
    RateLimit,
}

/// The first that fits counts: what is said more exactly comes first. Codes are the clouds' own.
const SAID: &[(Known, &[&str])] = &[
    (
        Known::State,
        &[
            "state already locked",
            "Error acquiring the state lock",
            "HTTP remote state",
            "Failed to save state",
            "Error saving state",
        ],
    ),
    // Hetzner Cloud.
    (Known::Quota, &["resource_limit_exceeded"]),
    (Known::Capacity, &["resource_unavailable", "placement_error"]),
    (Known::Permission, &["token_readonly"]),
    (Known::NameTaken, &["uniqueness_error"]),
    (Known::RateLimit, &["rate_limit_exceeded", "rate_limit_reached"]),
    // DigitalOcean.
    (
        Known::Quota,
        &["droplet limit", "volume limit", "reserved IP limit", "will exceed your", "limit exceeded for your account"],
    ),
    (
        Known::Capacity,
        &["Size is not available in this region", "region is disabled", "not available in the selected region"],
    ),
    (Known::Credential, &["Unable to authenticate you"]),
    (Known::Permission, &["You are not authorized to perform this operation", "missing the required permission"]),
    (Known::NameTaken, &["SSH Key is already in use on your account", "name is already in use", "duplicate name"]),
    (Known::RateLimit, &["too_many_requests", "API Rate limit exceeded", "API rate limit exceeded"]),
    // AWS.
    (
        Known::Quota,
        &[
            "VcpuLimitExceeded",
            "InstanceLimitExceeded",
            "AddressLimitExceeded",
            "VpcLimitExceeded",
            "InternetGatewayLimitExceeded",
            "VolumeLimitExceeded",
            "MaxIOPSLimitExceeded",
            "SecurityGroupLimitExceeded",
        ],
    ),
    (Known::Capacity, &["InsufficientInstanceCapacity", "InsufficientCapacity", "InsufficientAddressCapacity"]),
    (
        Known::Credential,
        &[
            "AuthFailure",
            "InvalidClientTokenId",
            "SignatureDoesNotMatch",
            "UnrecognizedClientException",
            "IncompleteSignature",
            "MissingAuthenticationToken",
            "InvalidSignatureException",
            "ExpiredToken",
            "OptInRequired",
        ],
    ),
    (Known::Permission, &["UnauthorizedOperation", "AccessDenied"]),
    (Known::NameTaken, &["InvalidKeyPair.Duplicate", "InvalidGroup.Duplicate"]),
    (Known::RateLimit, &["RequestLimitExceeded", "ThrottlingException", "Throttling", "TooManyRequestsException"]),
    // Google Cloud.
    (Known::RateLimit, &["rateLimitExceeded", "RATE_LIMIT_EXCEEDED", "userRateLimitExceeded"]),
    (Known::Quota, &["QUOTA_EXCEEDED", "quotaExceeded", "Quota '"]),
    (Known::Capacity, &["ZONE_RESOURCE_POOL_EXHAUSTED", "RESOURCE_POOL_EXHAUSTED", "resourcePoolExhausted"]),
    (Known::Credential, &["invalid_grant", "authError", "UNAUTHENTICATED"]),
    (Known::Permission, &["PERMISSION_DENIED", "accessNotConfigured", "Required 'compute.", "IAM_PERMISSION_DENIED"]),
    (Known::NameTaken, &["alreadyExists", "ALREADY_EXISTS"]),
    // Azure.
    (Known::Quota, &["QuotaExceeded", "exceeding approved", "PublicIPCountLimitReached", "SubscriptionQuotaReached"]),
    (
        Known::Capacity,
        &["SkuNotAvailable", "AllocationFailed", "ZonalAllocationFailed", "OverconstrainedAllocationRequest"],
    ),
    (
        Known::Credential,
        &[
            "invalid_client",
            "unauthorized_client",
            "InvalidAuthenticationToken",
            "ExpiredAuthenticationToken",
            "AADSTS",
        ],
    ),
    (Known::Permission, &["AuthorizationFailed", "LinkedAuthorizationFailed", "does not have authorization"]),
    (Known::NameTaken, &["StorageAccountAlreadyTaken", "already exists - to be managed via Terraform"]),
    (Known::RateLimit, &["TooManyRequests", "SubscriptionRequestsThrottled"]),
    // Words that several of them use.
    (Known::Credential, &["unauthorized", "Unauthorized"]),
];

/// What is known of what was said, if anything.
#[must_use]
pub fn known(said: &str) -> Option<Known> {
    SAID.iter().find(|(_, texts)| texts.iter().any(|text| said.contains(text))).map(|(known, _)| *known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clouds_say_is_known_by_a_word() {
        for (said, found) in [
            ("creating EC2 Instance: VcpuLimitExceeded: You have requested more", Some(Known::Quota)),
            ("server type not available (resource_unavailable, 1234)", Some(Known::Capacity)),
            ("POST https://api: 401 Unable to authenticate you", Some(Known::Credential)),
            ("422 creating this/these droplet(s) will exceed your droplet limit", Some(Known::Quota)),
            (
                "googleapi: Error 403: Quota 'CPUS' exceeded. Limit: 8.0 in region europe-west1., quotaExceeded",
                Some(Known::Quota),
            ),
            ("googleapi: Error 403: Rate Limit Exceeded, rateLimitExceeded", Some(Known::RateLimit)),
            (
                "OperationNotAllowed: Operation could not be completed as it results in exceeding approved Total Regional Cores quota",
                Some(Known::Quota),
            ),
            ("clientsecretcredential: AADSTS7000215: Invalid client secret", Some(Known::Credential)),
            ("AuthorizationFailed: The client does not have authorization", Some(Known::Permission)),
            ("server name is already used (uniqueness_error)", Some(Known::NameTaken)),
            ("Error acquiring the state lock: 423", Some(Known::State)),
            ("Invalid reference", None),
        ] {
            assert_eq!(known(said), found, "{said}");
        }
    }

    #[test]
    fn nothing_that_is_known_hides_behind_something_shorter() {
        for (at, (found, texts)) in SAID.iter().enumerate() {
            for text in *texts {
                assert_eq!(known(text), Some(*found), "{text}");
                let before = SAID[..at].iter().flat_map(|(known, texts)| texts.iter().map(move |text| (known, text)));
                for (earlier, shorter) in before {
                    assert!(!text.contains(shorter) || earlier == found, "{text} is taken for {shorter}");
                }
            }
        }
    }
}
