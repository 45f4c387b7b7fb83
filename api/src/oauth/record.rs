//! What applications and the people who let them do something leave in the record, each in the transaction of what is done.

use gantry_schema::audit::{Actor, ActorKind, Draft};
use gantry_schema::oauth::clients::Client;
use gantry_schema::oauth::scope::Scopes;
use gantry_schema::{OauthAuthorizationId, PersonId, TenantTx};

use crate::audit::about::About;

/// An application does something with what it was given.
pub(super) fn by_client(
    tx: TenantTx,
    about: &About,
    client: &Client,
    action: &'static str,
    on: &OauthAuthorizationId,
) -> TenantTx {
    let actor = Actor::new(ActorKind::Application, client.id).of(client.organization).called(&client.name);
    let mut tx = tx.by(about.by(actor, "oauth_client".to_owned()));
    let mut draft = Draft::new(action);
    draft.on(on);
    *tx.audit() = draft;
    tx
}

/// Somebody decides about an application.
pub(super) fn by_person(
    tx: TenantTx,
    about: &About,
    person: PersonId,
    action: &'static str,
    client: &Client,
    scopes: &Scopes,
) -> TenantTx {
    let mut tx = tx.by(about.himself(person));
    let mut draft = Draft::new(action);
    draft.on(&client.id).called(&client.name).set("allowed", scopes.to_string());
    *tx.audit() = draft;
    tx
}
