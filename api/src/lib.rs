//! The HTTP surface of Gantry. Every operation does the same in this order: who may → load → change → enqueue →
//! commit → answer; what needs the outside world is asked for as a job.
//!
//! A feature is one file with one struct, and one line in [`Features`].

pub mod accounts;
pub mod api_keys;
pub mod app;
pub mod audit;
pub mod body;
pub mod caller;
pub mod client;
pub mod cloud_catalogues;
pub mod cloud_orphans;
pub mod compatible;
pub mod conditional;
pub mod cors;
pub mod credentials;
pub mod defence;
mod document;
pub mod dry_run;
pub mod during;
pub mod edge;
pub mod error;
pub mod event_types;
pub mod events;
mod example;
pub mod factors;
pub mod field;
pub mod health;
pub mod inspector;
pub mod jobs;
pub mod licenses;
pub mod limits;
pub mod load;
pub mod lockdowns;
pub mod members;
pub mod messages;
pub mod modules;
pub mod notices;
pub mod oauth;
pub mod once;
pub mod organizations;
pub mod page;
pub mod paging;
mod parameters;
pub mod people;
pub mod permissions;
pub mod personal;
pub mod queues;
pub mod rate;
mod routes;
pub mod schedules;
mod scope;
pub mod servers;
pub mod sessions;
pub mod sort;
pub mod ssh_keys;
mod standing;
mod strict;
pub mod tag;
pub mod usage;
pub mod version;
pub mod webhooks;

use std::sync::LazyLock;

use poem::endpoint::make_sync;
use poem::{Endpoint, EndpointExt as _, IntoResponse as _, Response, Route};
use poem_openapi::OpenApiService;

pub use app::App;
use parameters::Described;

/// Every feature, one line each; those that belong together are together, for a tuple has sixteen places.
type Features = (
    health::Health,
    (
        organizations::Organizations,
        organizations::Tree,
        organizations::Lifecycle,
        organizations::Settings,
        organizations::Hosts,
    ),
    (
        people::People,
        personal::PersonalData,
        accounts::Accounts,
        accounts::invited::Invited,
        sessions::Sessions,
        factors::Factors,
        api_keys::ApiKeys,
    ),
    (oauth::OauthClients, oauth::OauthGrants),
    (
        members::Members,
        members::Invitations,
        members::Roles,
        members::SupportGrants,
        members::FactorResets,
        permissions::PermissionCatalogue,
    ),
    jobs::Jobs,
    queues::Queues,
    (
        limits::RateLimits,
        usage::ApiUsage,
        licenses::LicenseClaims,
        licenses::Licenses,
        licenses::LicenseRecords,
        licenses::LicenseRevocations,
        defence::Defence,
        lockdowns::Lockdowns,
    ),
    schedules::Schedules,
    (webhooks::WebhookEndpoints, webhooks::WebhookDeliveries),
    events::Events,
    event_types::EventTypes,
    (
        credentials::CloudCredentials,
        cloud_catalogues::CloudCatalogues,
        modules::Modules,
        cloud_orphans::CloudOrphans,
        ssh_keys::SshKeys,
        servers::Servers,
        servers::ConnectedServers,
        servers::ServerChanges,
        servers::ServerRuns,
        servers::ServerStates,
    ),
    (notices::Notices, messages::Messages),
    inspector::Inspector,
    (audit::Audit, audit::AuditPolicies, audit::AuditArchives),
);

const FEATURES: Features = (
    health::Health,
    (
        organizations::Organizations,
        organizations::Tree,
        organizations::Lifecycle,
        organizations::Settings,
        organizations::Hosts,
    ),
    (
        people::People,
        personal::PersonalData,
        accounts::Accounts,
        accounts::invited::Invited,
        sessions::Sessions,
        factors::Factors,
        api_keys::ApiKeys,
    ),
    (oauth::OauthClients, oauth::OauthGrants),
    (
        members::Members,
        members::Invitations,
        members::Roles,
        members::SupportGrants,
        members::FactorResets,
        permissions::PermissionCatalogue,
    ),
    jobs::Jobs,
    queues::Queues,
    (
        limits::RateLimits,
        usage::ApiUsage,
        licenses::LicenseClaims,
        licenses::Licenses,
        licenses::LicenseRecords,
        licenses::LicenseRevocations,
        defence::Defence,
        lockdowns::Lockdowns,
    ),
    schedules::Schedules,
    (webhooks::WebhookEndpoints, webhooks::WebhookDeliveries),
    events::Events,
    event_types::EventTypes,
    (
        credentials::CloudCredentials,
        cloud_catalogues::CloudCatalogues,
        modules::Modules,
        cloud_orphans::CloudOrphans,
        ssh_keys::SshKeys,
        servers::Servers,
        servers::ConnectedServers,
        servers::ServerChanges,
        servers::ServerRuns,
        servers::ServerStates,
    ),
    (notices::Notices, messages::Messages),
    inspector::Inspector,
    (audit::Audit, audit::AuditPolicies, audit::AuditArchives),
);

const DESCRIPTION: &str = "\
Durable jobs, schedules and signed webhooks for many organizations.

- **Authentication**: `Authorization: Bearer gk_…` with an API key; its scopes say what it allows. Or a session of a person, of \
`POST /sessions`: a cookie for browsers, `Authorization: Bearer gsa_…` for programs; it allows what he may do where he acts. Or an access \
token of an application that he let act for him, by OAuth 2.0: `/.well-known/oauth-authorization-server` says where that asks, and what it \
answers is as the RFCs have it.
- **Organizations**: `X-Organization-Id` names another organization to act in: of a person one he is a member of, of anybody one below his \
own, which he reads, and acts in with support. A refusal gives the rule as `reason`.
- **Errors** are problem documents (RFC 9457) with a `code` that never changes and, where one is at fault, the `field`.
- **Lists** come in pages: send `next_cursor` as `cursor` to get the next one.
- **Long work** answers 202 with a job; `GET /jobs/{id}?wait=30` answers the moment it ended.
- **Events** are pushed to webhook endpoints, signed as Standard Webhooks 1.0 says; the callbacks of `createWebhookEndpoint` are the types that \
the platform itself tells. `/inspector` shows what a receiver gets.
- **Sent again**, a change with the same `Idempotency-Key` is answered as before and done once.
- **Versions** are dates: send `Gantry-Version` with the one you were written for, or get the newest.
- **Limits**: every answer says what is left, in `RateLimit-Policy`, `RateLimit` and `X-RateLimit-*`; 429 says in `Retry-After` how long to wait.
- **Requests** have an id (`X-Request-Id`, yours or ours) and a place in a W3C trace (`traceparent`), which their jobs continue.";

fn service() -> OpenApiService<Described<Features>, ()> {
    OpenApiService::new(Described(FEATURES), "Gantry", env!("CARGO_PKG_VERSION"))
        .description(DESCRIPTION)
        .license(poem_openapi::LicenseObject::new("AGPL-3.0-or-later"))
}

/// The OpenAPI document, pretty JSON. Needs no configuration.
#[must_use]
pub fn openapi() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| document::complete(&service().spec()));
    &DOCUMENT
}

/// The page that shows the document, which it carries in itself.
fn docs() -> &'static str {
    static PAGE: LazyLock<String> = LazyLock::new(|| {
        let service = service();
        service
            .swagger_ui_html()
            .replace(&service.spec(), openapi())
            .replace("<title>Swagger UI</title>", "<title>Gantry API</title>")
    });
    &PAGE
}

/// Everything the API answers.
#[must_use]
pub fn app(app: App) -> impl Endpoint<Output = Response> + 'static {
    let operations = accounts::routes(oauth::routes(Route::new()))
        .at("/openapi.json", poem::get(make_sync(|_| openapi().with_content_type("application/json"))))
        .at("/docs", poem::get(make_sync(|_| docs().with_content_type("text/html; charset=utf-8"))))
        .at("/inspector", poem::get(make_sync(|_| inspector::page())))
        .at("/inspect/:token", poem::endpoint::make(inspector::receive))
        .at("/inspect/:token/*rest", poem::endpoint::make(inspector::receive))
        .nest("/", service())
        .data(app.clone())
        .map_to_response()
        .boxed();
    edge::Edge::around(app, operations)
}
