//! Somebody does not know his password any more, and proves that mail to his account's address reaches him.

use gantry_schema::OrganizationId;
use gantry_schema::audit::Draft;
use gantry_schema::messages::templates;
use gantry_schema::people::one_time::{self, Purpose};
use gantry_schema::people::{self, Email, passwords};
use gantry_schema::sessions::{self, Ended};
use gantry_schema::token::OneTimeToken;
use poem::Request;

use super::{Sending, from, link, look, nobody, send_link, tell, usable};
use crate::app::App;
use crate::audit::about::About;
use crate::error::Error;
use crate::field::Secret;
use crate::people::{act, choose, moment};

/// Sends a link to the address of an account. For one that has none the same is done, and nothing is sent.
pub(super) async fn ask(app: &App, request: &Request, email: &Email) -> Result<(), Error> {
    // It stays counted: what is limited is how much is sent.
    drop(app.attempts().begin("password_reset", from(request), email.key()).await?);
    let known = usable(app, email).await?;
    let about = About::find(request)?;
    let mut tx = app.db.tenant(OrganizationId::PLATFORM).await?.by(nobody(&about));
    *tx.audit() = Draft::new("password_reset.request");
    let (person, wanted) = (known.as_ref().map(|person| person.id), known.is_some());
    let sending = Sending { purpose: Purpose::ResetPassword, email, person, locale: None, wanted };
    if !send_link(app, &mut tx, &sending, templates::reset_password).await? {
        *tx.audit() = Draft::default();
    }
    tx.commit().await?;
    Ok(())
}

/// Sets the password that a link is for, and ends every session.
pub(super) async fn complete(
    app: &App,
    request: &Request,
    token: &OneTimeToken,
    password: &Secret,
) -> Result<(), Error> {
    let person = look(app, token, Purpose::ResetPassword).await?.person.ok_or_else(link::expired)?;
    let found = people::find(&mut app.db.person(person).await?, person).await?;
    let found = found.filter(|person| person.state == people::State::Active).ok_or_else(link::expired)?;
    let chosen = choose(app, password, &found.email, &found.name, "password").await?;
    let about = About::find(request)?;
    let (when, address) = (moment(app), from(request).map(|address| address.to_string()));
    act(app, &about, person, async |tx| {
        *tx.audit() = Draft::new("password_reset.complete");
        tx.audit().on(&person);
        one_time::take(tx, token, Purpose::ResetPassword).await?.ok_or_else(link::expired)?;
        passwords::set(tx, person, &chosen.hash, chosen.stands_alone).await?;
        sessions::end_others(tx, person, None, Ended::Changed).await?;
        // Whatever else was sent may have been asked for by whoever knew the old one.
        one_time::forget_for(tx, person).await?;
        let letter = |brand: &_| templates::password_changed(brand, &when, address.as_deref());
        tell(app, tx, "password_changed", &found.email, letter).await
    })
    .await?;
    app.sessions.forget();
    Ok(())
}
