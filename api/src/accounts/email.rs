//! Mail to somebody is to go to another address: it counts once it is proven that it reaches him there.

use gantry_schema::audit::Draft;
use gantry_schema::messages::templates;
use gantry_schema::people::one_time::{self, Purpose};
use gantry_schema::people::{self, Email};
use gantry_schema::token::OneTimeToken;
use poem::Request;

use super::{Sending, link, look, send_link, tell, usable};
use crate::app::App;
use crate::audit::about::About;
use crate::caller::Me;
use crate::error::{Error, OnConstraint as _};
use crate::field::Secret;
use crate::people::{act, moment};
use crate::sessions::verify_own;

/// Sends a link to the new address, unless it is somebody else's, which nobody is told.
pub(super) async fn ask(app: &App, me: &Me, email: &Email, password: &Secret) -> Result<(), Error> {
    verify_own(app, me, password).await?;
    let (person, wanted) = (Some(me.person()), usable(app, email).await?.is_none());
    act(app, me.about(), me.person(), async |tx| {
        tx.audit().on(&me.person());
        let sending = Sending { purpose: Purpose::ChangeEmail, email, person, locale: None, wanted };
        send_link(app, tx, &sending, templates::change_email).await.map(drop)
    })
    .await
}

/// Uses the new address from now on, and tells the old one.
pub(super) async fn complete(app: &App, request: &Request, token: &OneTimeToken) -> Result<(), Error> {
    let person = look(app, token, Purpose::ChangeEmail).await?.person.ok_or_else(link::expired)?;
    let about = About::find(request)?;
    let when = moment(app);
    act(app, &about, person, async |tx| {
        *tx.audit() = Draft::new("email_change.complete");
        tx.audit().on(&person);
        let used = one_time::take(tx, token, Purpose::ChangeEmail).await?.ok_or_else(link::expired)?;
        let before = people::find(tx, person).await?.filter(|person| person.state == people::State::Active);
        let before = before.ok_or_else(link::expired)?;
        let email: Email = used.email.parse().map_err(Error::internal)?;
        people::change_email(tx, person, &email).await.on_constraint("people_email_key", link::expired)?;
        // What was sent to the old address is good for nothing any more.
        one_time::forget_for(tx, person).await?;
        let letter = |brand: &_| templates::email_changed(brand, email.as_str(), &when);
        tell(app, tx, "email_changed", &before.email, letter).await
    })
    .await
}
