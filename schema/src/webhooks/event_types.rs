//! The catalogue of event types: the platform's, and those an organization describes for its own events.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{JobTx, TenantTx};

/// A type of events.
#[derive(Debug, Clone, PartialEq)]
pub struct EventType {
    /// `resource.verb`, in the past tense.
    pub name: String,
    /// Of its schema; a payload that old readers cannot read is a new version.
    pub version: i32,
    /// When it happens.
    pub description: String,
    /// What its payload looks like: JSON Schema, draft 2020-12.
    pub schema: Value,
    /// A payload as it could be.
    pub example: Value,
    /// It will go away; the description says what comes instead.
    pub deprecated: bool,
}

/// What the platform tells by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlatformEvent {
    /// A test that somebody asked for.
    Ping,
    /// Nothing has reached an endpoint for two days and a half.
    EndpointFailing,
    /// The platform disabled an endpoint.
    EndpointDisabled,
    /// A delivery was given up after its last try.
    DeliveryExhausted,
    /// An organization was made.
    OrganizationCreated,
    /// Something about an organization was changed.
    OrganizationUpdated,
    /// An organization was put below another.
    OrganizationMoved,
    /// An organization was suspended.
    OrganizationSuspended,
    /// An organization goes on.
    OrganizationResumed,
    /// An organization was deleted.
    OrganizationDeleted,
    /// The deletion of an organization was taken back.
    OrganizationRestored,
    /// Settings of an organization were changed.
    OrganizationSettingsChanged,
    /// Somebody became a member.
    MemberAdded,
    /// A member has another role.
    MemberRoleChanged,
    /// A membership counts no more for a while.
    MemberSuspended,
    /// A membership counts again.
    MemberResumed,
    /// Somebody is a member no more.
    MemberRemoved,
    /// A role was made.
    RoleCreated,
    /// A role was changed.
    RoleUpdated,
    /// A role was removed.
    RoleRemoved,
    /// Somebody's second factors are to be removed.
    FactorResetRequested,
    /// Somebody's second factors were removed.
    FactorsReset,
    /// An API key was made.
    ApiKeyCreated,
    /// An API key was revoked.
    ApiKeyRevoked,
    /// Much of what an organization may use of a month is used.
    ApiUsageThreshold,
    /// Something was recorded, and sealed.
    AuditRecorded,
    /// Somebody was not let through from where he asked.
    AccessRefused,
    /// A sign-in looked wrong.
    SignInSuspicious,
    /// It was changed from where an organization may be asked.
    DefenceChanged,
    /// An organization was locked down.
    LockdownStarted,
    /// An organization was unlocked.
    LockdownEnded,
    /// A license came into force.
    LicenseIssued,
    /// A license is not to be used for a while.
    LicenseSuspended,
    /// A license that was suspended goes on.
    LicenseReinstated,
    /// A license is not to be used any more.
    LicenseRevoked,
    /// A license is somebody else's, or for another place.
    LicenseTransferred,
    /// A license ends soon.
    LicenseExpiring,
    /// Much of what a license allows is used.
    LicenseThreshold,
    /// A cloud does not take a credential any more.
    CloudCredentialRefused,
    /// A cloud has something of ours that belongs to no server.
    CloudCredentialOrphansFound,
    /// A server was made, and is as it has to be.
    ServerReady,
    /// A server could not be made, put right or removed.
    ServerFailed,
    /// A server is gone.
    ServerDestroyed,
    /// Nobody gets into a server any more.
    ServerUnreachable,
    /// Somebody gets into a server again.
    ServerRecovered,
    /// A server is not what is to be there.
    ServerDrifted,
}

impl PlatformEvent {
    /// All of them.
    pub const ALL: [Self; 46] = [
        Self::Ping,
        Self::EndpointFailing,
        Self::EndpointDisabled,
        Self::DeliveryExhausted,
        Self::OrganizationCreated,
        Self::OrganizationUpdated,
        Self::OrganizationMoved,
        Self::OrganizationSuspended,
        Self::OrganizationResumed,
        Self::OrganizationDeleted,
        Self::OrganizationRestored,
        Self::OrganizationSettingsChanged,
        Self::MemberAdded,
        Self::MemberRoleChanged,
        Self::MemberSuspended,
        Self::MemberResumed,
        Self::MemberRemoved,
        Self::RoleCreated,
        Self::RoleUpdated,
        Self::RoleRemoved,
        Self::FactorResetRequested,
        Self::FactorsReset,
        Self::ApiKeyCreated,
        Self::ApiKeyRevoked,
        Self::ApiUsageThreshold,
        Self::AuditRecorded,
        Self::AccessRefused,
        Self::SignInSuspicious,
        Self::DefenceChanged,
        Self::LockdownStarted,
        Self::LockdownEnded,
        Self::LicenseIssued,
        Self::LicenseSuspended,
        Self::LicenseReinstated,
        Self::LicenseRevoked,
        Self::LicenseTransferred,
        Self::LicenseExpiring,
        Self::LicenseThreshold,
        Self::CloudCredentialRefused,
        Self::CloudCredentialOrphansFound,
        Self::ServerReady,
        Self::ServerFailed,
        Self::ServerDestroyed,
        Self::ServerUnreachable,
        Self::ServerRecovered,
        Self::ServerDrifted,
    ];

    /// Those that tell how an endpoint is doing.
    pub const OF_AN_ENDPOINT: [Self; 3] = [Self::EndpointFailing, Self::EndpointDisabled, Self::DeliveryExhausted];

    /// Its type.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ping => "webhook.ping",
            Self::EndpointFailing => "webhook.endpoint_failing",
            Self::EndpointDisabled => "webhook.endpoint_disabled",
            Self::DeliveryExhausted => "webhook.delivery_exhausted",
            Self::OrganizationCreated => "organization.created",
            Self::OrganizationUpdated => "organization.updated",
            Self::OrganizationMoved => "organization.moved",
            Self::OrganizationSuspended => "organization.suspended",
            Self::OrganizationResumed => "organization.resumed",
            Self::OrganizationDeleted => "organization.deleted",
            Self::OrganizationRestored => "organization.restored",
            Self::OrganizationSettingsChanged => "organization.settings_changed",
            Self::MemberAdded => "member.added",
            Self::MemberRoleChanged => "member.role_changed",
            Self::MemberSuspended => "member.suspended",
            Self::MemberResumed => "member.resumed",
            Self::MemberRemoved => "member.removed",
            Self::RoleCreated => "role.created",
            Self::RoleUpdated => "role.updated",
            Self::RoleRemoved => "role.removed",
            Self::FactorResetRequested => "security.factor_reset_requested",
            Self::FactorsReset => "security.factors_reset",
            Self::ApiKeyCreated => "api_key.created",
            Self::ApiKeyRevoked => "api_key.revoked",
            Self::LicenseIssued => "license.issued",
            Self::LicenseSuspended => "license.suspended",
            Self::LicenseReinstated => "license.reinstated",
            Self::LicenseRevoked => "license.revoked",
            Self::LicenseTransferred => "license.transferred",
            Self::LicenseExpiring => "license.expiring",
            Self::LicenseThreshold => "license.threshold",
            Self::CloudCredentialRefused => "cloud_credential.refused",
            Self::CloudCredentialOrphansFound => "cloud_credential.orphans_found",
            Self::ServerReady => "server.ready",
            Self::ServerFailed => "server.failed",
            Self::ServerDestroyed => "server.destroyed",
            Self::ServerUnreachable => "server.unreachable",
            Self::ServerRecovered => "server.recovered",
            Self::ServerDrifted => "server.drifted",
            Self::ApiUsageThreshold => "api_usage.threshold",
            Self::AuditRecorded => "audit.recorded",
            Self::AccessRefused => "security.access_refused",
            Self::SignInSuspicious => "security.sign_in_suspicious",
            Self::DefenceChanged => "security.policy_changed",
            Self::LockdownStarted => "security.lockdown_started",
            Self::LockdownEnded => "security.lockdown_ended",
        }
    }

    /// Its entry in the catalogue.
    #[must_use]
    pub fn describe(self) -> EventType {
        let (description, properties, example) = match self {
            Self::Ping => (
                "Somebody asked for a test of an endpoint.",
                json!({ "message": text("What the sender says.") }),
                json!({ "message": "Hello from Gantry" }),
            ),
            Self::EndpointFailing => (
                "Nothing has reached an endpoint for 60 hours; after 120 it is disabled.",
                json!({
                    "endpoint_id": id("ep", "The endpoint."),
                    "url": text("Where it points to."),
                    "failing_since": moment("The first failure since the last success."),
                    "disabled_at": moment("When it is disabled if nothing changes."),
                }),
                json!({ "endpoint_id": "ep_01h455vb4pex5vsknk084sn02q", "url": "https://example.com/hooks",
                        "failing_since": "2026-03-02T09:00:00Z", "disabled_at": "2026-03-07T09:00:00Z" }),
            ),
            Self::EndpointDisabled => (
                "The platform disabled an endpoint: it answered 410, or nothing reached it for 120 hours.",
                json!({
                    "endpoint_id": id("ep", "The endpoint."),
                    "url": text("Where it points to."),
                    "reason": { "type": "string", "enum": ["gone", "failing"], "description": "Why." },
                    "failing_since": moment("The first failure since the last success."),
                }),
                json!({ "endpoint_id": "ep_01h455vb4pex5vsknk084sn02q", "url": "https://example.com/hooks",
                        "reason": "failing", "failing_since": "2026-03-02T09:00:00Z" }),
            ),
            Self::DeliveryExhausted => (
                "A delivery was given up after its last try. It can be sent again by hand.",
                json!({
                    "endpoint_id": id("ep", "The endpoint."),
                    "event_id": id("evt", "The event that did not arrive."),
                    "tries": { "type": "integer", "minimum": 1, "description": "How often it was tried." },
                }),
                json!({ "endpoint_id": "ep_01h455vb4pex5vsknk084sn02q", "event_id": "evt_01h455vb4pex5vsknk084sn02q",
                        "tries": 10 }),
            ),
            Self::OrganizationCreated => (
                "An organization was made below this one.",
                json!({ "organization_id": id("org", "The new organization."), "name": text("What it is called.") }),
                json!({ "organization_id": "org_01h455vb4pex5vsknk084sn02q", "name": "Acme" }),
            ),
            Self::OrganizationUpdated => about_organization("The name, type or share of an organization was changed."),
            Self::OrganizationMoved => (
                "An organization was put below another, with all that is below it.",
                json!({
                    "organization_id": id("org", "The organization."),
                    "parent_id": id("org", "The one above it from now on."),
                    "previous_parent_id": id("org", "The one that was above it."),
                }),
                json!({ "organization_id": "org_01h455vb4pex5vsknk084sn02q", "parent_id": "org_01h455vb4pex5vsknk084sn02r",
                        "previous_parent_id": "org_01h455vb4pex5vsknk084sn02s" }),
            ),
            Self::OrganizationSuspended => (
                "An organization was suspended: nothing is done in it and below it.",
                json!({ "organization_id": id("org", "The organization."), "reason": text("Why.") }),
                json!({ "organization_id": "org_01h455vb4pex5vsknk084sn02q", "reason": "Unpaid since March" }),
            ),
            Self::OrganizationResumed => about_organization("An organization that was suspended goes on."),
            Self::OrganizationDeleted => {
                about_organization("An organization was deleted; for 30 days it can be restored.")
            }
            Self::OrganizationRestored => about_organization("The deletion of an organization was taken back."),
            Self::OrganizationSettingsChanged => (
                "Settings of an organization were changed.",
                json!({
                    "organization_id": id("org", "The organization."),
                    "settings": { "type": "array", "items": { "type": "string" }, "description": "Which." },
                }),
                json!({ "organization_id": "org_01h455vb4pex5vsknk084sn02q", "settings": ["brand.name"] }),
            ),
            Self::MemberAdded => (
                "Somebody became a member: he accepted an invitation.",
                json!({
                    "person_id": id("usr", "Who."),
                    "role": text("As what: `owner`, `admin`, `member`, `viewer` or `custom`."),
                    "invitation_id": id("inv", "The invitation that he accepted."),
                }),
                json!({ "person_id": "usr_01h455vb4pex5vsknk084sn02q", "role": "member",
                        "invitation_id": "inv_01h455vb4pex5vsknk084sn02q" }),
            ),
            Self::MemberRoleChanged => (
                "A member has another role from now on.",
                json!({
                    "person_id": id("usr", "Who."),
                    "role": text("What he is: `owner`, `admin`, `member`, `viewer` or `custom`."),
                    "previous_role": text("What he was."),
                }),
                json!({ "person_id": "usr_01h455vb4pex5vsknk084sn02q", "role": "admin", "previous_role": "member" }),
            ),
            Self::MemberSuspended => {
                about_member("A membership counts no more until it is made active again; nor do the keys that he made.")
            }
            Self::MemberResumed => about_member("A membership that was suspended counts again."),
            Self::MemberRemoved => (
                "Somebody is a member no more. Keys that he made allow nothing.",
                json!({
                    "person_id": id("usr", "Who."),
                    "reason": {
                        "type": "string",
                        "enum": ["removed", "erased"],
                        "description": "Why: somebody removed him, or he had everything about himself erased.",
                    },
                }),
                json!({ "person_id": "usr_01h455vb4pex5vsknk084sn02q", "reason": "removed" }),
            ),
            Self::RoleCreated => about_role("A role was made."),
            Self::RoleUpdated => about_role("A role was changed, for everybody who has it."),
            Self::RoleRemoved => (
                "A role was removed.",
                json!({ "role_id": id("rol", "The role.") }),
                json!({ "role_id": "rol_01h455vb4pex5vsknk084sn02q" }),
            ),
            Self::FactorResetRequested => (
                "Somebody asked that a person's second factors be removed. It is done when somebody else agrees.",
                json!({
                    "factor_reset_id": id("frs", "What was asked for."),
                    "person_id": id("usr", "Whose."),
                    "asked_by": id("usr", "By whom."),
                    "reason": text("Why."),
                    "expires_at": moment("Until when it can be agreed to."),
                }),
                json!({ "factor_reset_id": "frs_01h455vb4pex5vsknk084sn02q", "person_id": "usr_01h455vb4pex5vsknk084sn02q",
                        "asked_by": "usr_01h455vb4pex5vsknk084sn02r", "reason": "His telephone was stolen",
                        "expires_at": "2026-03-03T09:00:00Z" }),
            ),
            Self::FactorsReset => (
                "A person's second factors were removed: two people wanted it.",
                json!({
                    "factor_reset_id": id("frs", "What was asked for."),
                    "person_id": id("usr", "Whose."),
                    "asked_by": id("usr", "By whom."),
                    "approved_by": id("usr", "Who agreed."),
                }),
                json!({ "factor_reset_id": "frs_01h455vb4pex5vsknk084sn02q", "person_id": "usr_01h455vb4pex5vsknk084sn02q",
                        "asked_by": "usr_01h455vb4pex5vsknk084sn02r", "approved_by": "usr_01h455vb4pex5vsknk084sn02s" }),
            ),
            Self::ApiKeyCreated => (
                "An API key was made.",
                json!({
                    "api_key_id": id("key", "The key."),
                    "name": text("What it is called."),
                    "scopes": { "type": "array", "items": { "type": "string" }, "description": "What it allows." },
                }),
                json!({ "api_key_id": "key_01h455vb4pex5vsknk084sn02q", "name": "Billing", "scopes": ["events:write"] }),
            ),
            Self::ApiKeyRevoked => (
                "An API key was revoked.",
                json!({ "api_key_id": id("key", "The key.") }),
                json!({ "api_key_id": "key_01h455vb4pex5vsknk084sn02q" }),
            ),
            Self::LicenseIssued => about_license(
                "A license came into force, in place of the one before.",
                json!({ "tier": text("The name of its tier."), "number": { "type": "integer", "minimum": 0, "description": "Counts the organization's licenses." } }),
                json!({ "tier": "professional", "number": 2 }),
            ),
            Self::LicenseSuspended => about_license(
                "A license is not to be used for a while; what is there stays.",
                json!({ "reason": text("Why.") }),
                json!({ "reason": "The invoice of March is open." }),
            ),
            Self::LicenseReinstated => about_license("A license that was suspended goes on.", json!({}), json!({})),
            Self::LicenseRevoked => {
                about_license("A license is not to be used any more; what is there stays.", json!({}), json!({}))
            }
            Self::LicenseTransferred => about_license(
                "A license was given to another organization, or is for other host names from now on: this one is not to be used any \
                 more. What is there stays.",
                json!({ "reason": text("Why.") }),
                json!({ "reason": "The shop moved to its new owner." }),
            ),
            Self::LicenseExpiring => about_license(
                "A license ends within 30, 14, 7 or 1 days: each is told once.",
                json!({
                    "ends_at": moment("When it ends."),
                    "days": { "type": "integer", "enum": [30, 14, 7, 1], "description": "Within how many days." },
                }),
                json!({ "ends_at": "2026-03-15T12:00:00Z", "days": 14 }),
            ),
            Self::LicenseThreshold => about_license(
                "80, 90 or 100 percent of what a license allows of something are used: each is told once.",
                json!({
                    "limit": text("Of what."),
                    "percent": { "type": "integer", "enum": [80, 90, 100], "description": "How much of it." },
                    "used": { "type": "integer", "minimum": 0, "description": "How many there are." },
                    "most": { "type": "integer", "minimum": 1, "description": "How many there may be." },
                }),
                json!({ "limit": "users", "percent": 80, "used": 8, "most": 10 }),
            ),
            Self::CloudCredentialRefused => (
                "A cloud does not take a credential, or not any more. Servers that are there go on; none can be made or changed.",
                json!({
                    "credential_id": id("crd", "Which."),
                    "name": text("What it is called."),
                    "detail": text("What the cloud said."),
                }),
                json!({ "credential_id": "crd_01h455vb4pex5vsknk084sn02q", "name": "Production",
                        "detail": "the credential is refused with unauthorized: unable to authenticate" }),
            ),
            Self::CloudCredentialOrphansFound => (
                "A cloud has something that this installation made and that belongs to no server any more. It is removed with POST \
                 /cloud-credentials/{id}/orphans/remove, or by itself where the setting servers.remove_orphans says so.",
                json!({
                    "credential_id": id("crd", "By which it was found."),
                    "name": text("What that is called."),
                    "found": { "type": "integer", "minimum": 1, "description": "How much there was." },
                    "removed": { "type": "integer", "minimum": 0, "description": "How much of it was removed." },
                    "things": { "type": "array", "items": { "type": "string" }, "description": "The first of it." },
                }),
                json!({ "credential_id": "crd_01h455vb4pex5vsknk084sn02q", "name": "Production", "found": 1, "removed": 0,
                        "things": ["volumes 4711 (gantry-srv-01h455vb4pex5vsknk084sn02q)"] }),
            ),
            Self::ServerReady => about_server(
                "A server was made, connected, changed or put right, and everything that was looked at is as it has to be.",
                json!({
                    "address": text("Where it is reached."),
                    "port": { "type": "integer", "minimum": 1, "maximum": 65535, "description": "The port of its SSH server." },
                }),
                json!({ "address": "203.0.113.7", "port": 22 }),
            ),
            Self::ServerFailed => about_server(
                "A server could not be made, connected, put right or removed.",
                json!({
                    "code": text("Why, as a word that never changes."),
                    "detail": text("What was said about it."),
                    "remedy": text("What to do about it."),
                }),
                json!({ "code": "cloud_quota_exceeded", "detail": "1 more server is needed, and 10 of 10 are used",
                        "remedy": "Remove what nobody needs, choose a smaller size, or have the cloud raise the quota." }),
            ),
            Self::ServerDestroyed => about_server(
                "A server is gone, with all that was made for it; or one that was connected is forgotten.",
                json!({}),
                json!({}),
            ),
            Self::ServerUnreachable => about_server(
                "Nobody got into a server three times in a row.",
                json!({ "reason": text("What went wrong the last time.") }),
                json!({ "reason": "203.0.113.7:22 does not answer: not within 15 s" }),
            ),
            Self::ServerRecovered => about_server("Somebody gets into a server again.", json!({}), json!({})),
            Self::ServerDrifted => about_server(
                "A server is not what is to be there. Nothing is changed until somebody approves the run.",
                json!({
                    "run_id": id("run", "What puts it right."),
                    "changes": { "type": "array", "items": { "type": "string" }, "description": "What would be done, and with what." },
                }),
                json!({ "run_id": "run_01h455vb4pex5vsknk084sn02q", "changes": ["update hcloud_firewall.server"] }),
            ),
            Self::ApiUsageThreshold => (
                "80, 90, 95 or 100 percent of what may be called, or sent and answered, in a month are used: each is told once.",
                json!({
                    "metric": { "type": "string", "enum": ["calls", "bytes"], "description": "What." },
                    "percent": { "type": "integer", "enum": [80, 90, 95, 100], "description": "How much of it." },
                    "used": { "type": "integer", "minimum": 0, "description": "How much that is." },
                    "limit": { "type": "integer", "minimum": 1, "description": "How much there may be." },
                    "month": moment("When the month began."),
                    "resets_at": moment("When the next one begins."),
                }),
                json!({ "metric": "calls", "percent": 80, "used": 800_123, "limit": 1_000_000,
                        "month": "2026-03-01T00:00:00Z", "resets_at": "2026-04-01T00:00:00Z" }),
            ),
            Self::AuditRecorded => (
                "Something was recorded and sealed, where the organization lets its record go on as events (PUT /audit-policy). \
                 What identifies people is not in it: GET /audit-entries/{id} has it. Where there are such, `target`, `reason`, \
                 `request_id` and `job_id` say what it was done to, the rule that refused, and by which request and job.",
                json!({
                    "audit_entry_id": id("aud", "The entry."),
                    "sequence": { "type": "integer", "minimum": 1, "description": "Its number: there is one of each." },
                    "hash": text("Its link of the chain, in hexadecimal digits."),
                    "occurred_at": moment("When it was recorded."),
                    "actor": text("The id of who did it, or a word."),
                    "action": text("What was done."),
                    "outcome": { "type": "string", "enum": ["allowed", "denied", "failed"], "description": "What it came to." },
                    "text": text("The text that is hashed, with what identifies people encrypted."),
                }),
                json!({ "audit_entry_id": "aud_01h455vb4pex5vsknk084sn02q", "sequence": 1042,
                        "hash": "86e8f4b9345c8f6d1deb5eb5dc2506b2baf2078e4f2dc45b97db414abe78e83f",
                        "occurred_at": "2026-03-02T09:00:00.123456Z", "actor": "key_01h455vb4pex5vsknk084sn02q",
                        "action": "api_key.revoke", "outcome": "allowed",
                        "text": "{\"id\":\"aud_01h455vb4pex5vsknk084sn02q\",\"outcome\":\"allowed\"}" }),
            ),
            Self::AccessRefused => (
                "A key, a person or an application was not let through from where it asked; told once a minute of each, for what \
                 it wanted to do.",
                json!({
                    "actor": text("Who: `api_key:key_…`, `person:usr_…` or `oauth_client:app_…`."),
                    "address": text("From where; `unknown` where that cannot be known."),
                    "action": text("What it wanted to do, as the record calls it."),
                }),
                json!({ "actor": "api_key:key_01h455vb4pex5vsknk084sn02q", "address": "203.0.113.9", "action": "job.list" }),
            ),
            Self::SignInSuspicious => (
                "Somebody signed in, or was kept from it, in a way that looks wrong, and the organization wants to be told.",
                json!({
                    "person_id": id("usr", "Who."),
                    "found": {
                        "type": "array",
                        "items": { "type": "string", "enum": ["new_device", "impossible_travel", "credential_stuffing"] },
                        "description": "What looks wrong.",
                    },
                    "response": {
                        "type": "string",
                        "enum": ["notice", "step_up", "refuse"],
                        "description": "What was done: told, asked for another proof, or refused.",
                    },
                    "device": text("What was used."),
                    "address": text("From where; `unknown` where that cannot be known."),
                    "country": text("In which country that is, as two letters of ISO 3166-1, or `unknown`."),
                }),
                json!({ "person_id": "usr_01h455vb4pex5vsknk084sn02q", "found": ["new_device"], "response": "notice",
                        "device": "Firefox on Windows 10", "address": "203.0.113.9", "country": "AT" }),
            ),
            Self::DefenceChanged => about_organization("It was changed from where an organization may be asked."),
            Self::LockdownStarted => (
                "An organization was locked down, with all that is below it.",
                json!({
                    "organization_id": id("org", "The organization."),
                    "reason": text("Why."),
                    "queues": { "type": "array", "items": { "type": "string" }, "description": "Whose jobs are not begun." },
                }),
                json!({ "organization_id": "org_01h455vb4pex5vsknk084sn02q", "reason": "A laptop was stolen",
                        "queues": ["default"] }),
            ),
            Self::LockdownEnded => (
                "An organization that was locked down was unlocked.",
                json!({ "organization_id": id("org", "The organization."), "reason": text("Why.") }),
                json!({ "organization_id": "org_01h455vb4pex5vsknk084sn02q", "reason": "The password was changed" }),
            ),
        };
        let required: Vec<&String> = properties.as_object().into_iter().flat_map(serde_json::Map::keys).collect();
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "required": required,
            "properties": properties,
        });
        EventType {
            name: self.name().to_owned(),
            version: 1,
            description: description.to_owned(),
            schema,
            example,
            deprecated: false,
        }
    }
}

/// What is told where nothing but the organization is to be said.
fn about_organization(description: &'static str) -> (&'static str, Value, Value) {
    (
        description,
        json!({ "organization_id": id("org", "The organization.") }),
        json!({ "organization_id": "org_01h455vb4pex5vsknk084sn02q" }),
    )
}

/// What is told where nothing but the member is to be said.
fn about_member(description: &'static str) -> (&'static str, Value, Value) {
    (description, json!({ "person_id": id("usr", "Who.") }), json!({ "person_id": "usr_01h455vb4pex5vsknk084sn02q" }))
}

/// What is told of a role.
fn about_role(description: &'static str) -> (&'static str, Value, Value) {
    (
        description,
        json!({
            "role_id": id("rol", "The role."),
            "name": text("What it is called."),
            "permissions": { "type": "array", "items": { "type": "string" }, "description": "What it allows." },
        }),
        json!({ "role_id": "rol_01h455vb4pex5vsknk084sn02q", "name": "Deployer",
                "permissions": ["jobs:read", "jobs:write"] }),
    )
}

/// What is told of a license, with what else there is to say.
fn about_license(description: &'static str, mut properties: Value, mut example: Value) -> (&'static str, Value, Value) {
    properties["organization_id"] = id("org", "Whose it is.");
    properties["license_id"] = id("lic", "The license.");
    example["organization_id"] = "org_01h455vb4pex5vsknk084sn02q".into();
    example["license_id"] = "lic_01h455vb4pex5vsknk084sn02q".into();
    (description, properties, example)
}

fn about_server(description: &'static str, mut properties: Value, mut example: Value) -> (&'static str, Value, Value) {
    properties["server_id"] = id("srv", "Which.");
    properties["name"] = text("What it is called.");
    example["server_id"] = "srv_01h455vb4pex5vsknk084sn02q".into();
    example["name"] = "web-1".into();
    (description, properties, example)
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

fn id(prefix: &str, description: &str) -> Value {
    json!({ "type": "string", "pattern": format!("^{prefix}_[0-7][0-9a-hjkmnp-tv-z]{{25}}$"), "description": description })
}

fn moment(description: &str) -> Value {
    json!({ "type": "string", "format": "date-time", "description": description })
}

/// The platform's types.
#[must_use]
pub fn platform() -> Vec<EventType> {
    PlatformEvent::ALL.into_iter().map(PlatformEvent::describe).collect()
}

/// The organization's own types after a name and version, in their order.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx, after: Option<(&str, i32)>, limit: i64) -> Result<Vec<EventType>, sqlx::Error> {
    let organization = tx.organization();
    let (name, version) = after.unzip();
    sqlx::query_as!(
        EventType,
        "select name, version, description, schema, example, deprecated from event_types
          where organization_id = $1 and ($2::text is null or (name collate \"C\", version) > ($2, $3))
          order by name collate \"C\", version limit $4",
        organization.uuid(),
        name,
        version,
        limit
    )
    .fetch_all(tx.connection())
    .await
}

/// Which of these patterns select nothing that anybody knows of: neither a type of the catalogue, nor one of an event that
/// is kept. Of beginnings such as `invoice.*`, the newest thousand events are looked at.
///
/// # Errors
/// When the database refuses or went away.
pub async fn unheard_of(tx: &mut TenantTx, patterns: &[String]) -> Result<Vec<String>, sqlx::Error> {
    let organization = tx.organization();
    let platform: Vec<String> = PlatformEvent::ALL.into_iter().map(|event| event.name().to_owned()).collect();
    sqlx::query_scalar!(
        r#"select pattern as "pattern!" from unnest($2::text[]) with ordinality as asked (pattern, number)
            where not exists (
                      select from (select name from event_types where organization_id = $1
                                   union all select unnest($3::text[])) as described (name)
                       where name = pattern or (right(pattern, 2) = '.*' and starts_with(name, left(pattern, -1))))
              and not exists (
                      select from events where organization_id = $1 and type = pattern and endpoint_id is null)
              and not exists (
                      select from (select type from events where organization_id = $1 and endpoint_id is null
                                    order by id desc limit 1000) as newest
                       where right(pattern, 2) = '.*' and starts_with(type, left(pattern, -1)))
            order by number"#,
        organization.uuid(),
        patterns,
        &platform
    )
    .fetch_all(tx.connection())
    .await
}

/// A type of the organization's own, of one version or the newest.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, name: &str, version: Option<i32>) -> Result<Option<EventType>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        EventType,
        "select name, version, description, schema, example, deprecated from event_types
          where organization_id = $1 and name = $2 and ($3::int is null or version = $3)
          order by version desc limit 1",
        organization.uuid(),
        name,
        version
    )
    .fetch_optional(tx.connection())
    .await
}

/// How many types the organization describes.
///
/// # Errors
/// When the database refuses or went away.
pub async fn count(tx: &mut TenantTx) -> Result<i64, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from event_types where organization_id = $1"#,
        organization.uuid()
    )
    .fetch_one(tx.connection())
    .await
}

/// Describes a version of a type of the organization's own.
///
/// # Errors
/// When the database refuses or went away.
pub async fn put(tx: &mut TenantTx, described: &EventType) -> Result<(), sqlx::Error> {
    let (organization, now): (_, DateTime<Utc>) = (tx.organization(), tx.now());
    sqlx::query!(
        "insert into event_types (organization_id, name, version, description, schema, example, deprecated, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (organization_id, name, version) do update
            set description = excluded.description, schema = excluded.schema, example = excluded.example,
                deprecated = excluded.deprecated, updated_at = excluded.updated_at",
        organization.uuid(),
        described.name,
        described.version,
        described.description,
        described.schema,
        described.example,
        described.deprecated,
        now
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// Forgets a version of a type; `false`: there is none.
///
/// # Errors
/// When the database refuses or went away.
pub async fn delete(tx: &mut TenantTx, name: &str, version: i32) -> Result<bool, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "delete from event_types where organization_id = $1 and name = $2 and version = $3",
        organization.uuid(),
        name,
        version
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_has_what_its_schema_requires_and_nothing_else() {
        for described in platform() {
            let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(&described.example), keys(&described.schema["properties"]), "{}", described.name);
            assert!(described.name.contains('.') && !described.description.is_empty());
        }
    }
}
