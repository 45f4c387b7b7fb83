//! The parts of the document.

use poem_openapi::Tags;

/// What an operation is about.
#[derive(Debug, Clone, Copy, Tags)]
pub enum Tag {
    /// The tenants, in a tree.
    Organizations,
    /// Who signs in, about himself.
    People,
    /// Making an account, and getting back into one.
    Accounts,
    /// What people prove themselves with beside their password, or in place of it.
    #[oai(rename = "Second factors")]
    Factors,
    /// That somebody signed in, where, and until when.
    Sessions,
    /// Who belongs to an organization, as what, and what that allows.
    Members,
    /// What programs authenticate with.
    #[oai(rename = "API keys")]
    ApiKeys,
    /// Applications that act for people, or for themselves, by OAuth 2.0 and OpenID Connect.
    #[oai(rename = "OAuth applications")]
    OauthClients,
    /// From where an organization may be asked, what is done about sign-ins that look wrong, and lockdowns.
    Defence,
    /// Durable work: asked for, looked at, cancelled, retried.
    Jobs,
    /// What runs how much: pauses and limits.
    Queues,
    /// How often one may ask.
    #[oai(rename = "Rate limits")]
    RateLimits,
    /// What an organization may use, and how many of it there may be.
    Licenses,
    /// What was called, by whom, how fast it was answered, and what is left of the month.
    #[oai(rename = "API usage")]
    ApiUsage,
    /// Recurring jobs.
    Schedules,
    /// Receivers of events.
    #[oai(rename = "Webhook endpoints")]
    WebhookEndpoints,
    /// What opens accounts at clouds.
    #[oai(rename = "Cloud credentials")]
    CloudCredentials,
    /// With what the platform gets into servers.
    #[oai(rename = "SSH keys")]
    SshKeys,
    /// Machines on the organization's own cloud accounts, machines that were there already, and what is done with them.
    Servers,
    /// What organizations have their servers made of, in the place of the platform's own templates.
    Modules,
    /// What happened, and is told to receivers.
    Events,
    /// What people must know.
    Notices,
    /// Mail and text messages to people.
    Messages,
    /// Receiving bins, to try webhooks without a server of one's own.
    Inspector,
    /// The record of what was done, by whom, from where.
    Audit,
    /// Whether the platform works.
    Health,
}
