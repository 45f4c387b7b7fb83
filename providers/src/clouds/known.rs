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
    /// Its network overlaps another one, or cannot be there.
    Network,
    /// What it is called is no name there.
    InvalidName,
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
    // Networks and names.
    (
        Known::Network,
        &[
            "InvalidSubnet.Conflict",
            "InvalidSubnet.Range",
            "InvalidVpc.Range",
            "overlaps with another VPC network",
            "overlaps with another subnet",
            "conflicts with existing subnetwork",
            "NetcfgSubnetRangesOverlap",
            "NetcfgInvalidSubnet",
        ],
    ),
    (Known::InvalidName, &["InvalidResourceName", "InvalidDomainNameLabel", "is not a valid hostname"]),
    // Words that several of them use.
    (Known::Credential, &["unauthorized", "Unauthorized"]),
];

/// What is known of what was said, if anything.
#[must_use]
pub fn known(said: &str) -> Option<Known> {
    SAID.iter().find(|(_, texts)| texts.iter().any(|text| said.contains(text))).map(|(known, _)| *known)
}

/// What comes before and after the name of a permission that is missing, where clouds say it.
const MISSING: &[(&str, &[char])] = &[
    ("is not authorized to perform: ", &[' ', '\n', ',', '"']),
    ("does not have authorization to perform action '", &['\'']),
    ("Required '", &['\'']),
    ("Permission '", &['\'']),
    ("missing the required permission ", &[' ', '\n', ',', '"', '.']),
];

/// Which permission is missing, where the cloud says it.
#[must_use]
pub fn missing_permission(said: &str) -> Option<&str> {
    let found = MISSING.iter().find_map(|(before, after)| said.split_once(before)?.1.split(*after).next());
    found.map(str::trim).filter(|name| (1..=200).contains(&name.len()))
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
            ("InvalidSubnet.Conflict: The CIDR '10.0.1.0/24' conflicts with another subnet", Some(Known::Network)),
            ("This range/size overlaps with another VPC network in your account", Some(Known::Network)),
            ("InvalidResourceName: Resource name x_ is invalid", Some(Known::InvalidName)),
            ("Invalid reference", None),
        ] {
            assert_eq!(known(said), found, "{said}");
        }
    }

    #[test]
    fn the_permission_that_is_missing_is_named_where_the_cloud_names_it() {
        for (said, name) in [
            (
                "UnauthorizedOperation: You are not authorized to perform this operation. User: arn:aws:iam::1:user/x is not \
                 authorized to perform: ec2:RunInstances on resource: arn",
                Some("ec2:RunInstances"),
            ),
            (
                "Error 403: Required 'compute.instances.create' permission for 'projects/p'",
                Some("compute.instances.create"),
            ),
            (
                "AuthorizationFailed: The client 'x' does not have authorization to perform action \
                 'Microsoft.Compute/virtualMachines/write' over scope",
                Some("Microsoft.Compute/virtualMachines/write"),
            ),
            ("token_readonly", None),
        ] {
            assert_eq!(missing_permission(said), name, "{said}");
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
