//! Somebody makes an account, by a link that proves that mail reaches him.

use gantry_schema::audit::Draft;
use gantry_schema::memberships::{self, Role};
use gantry_schema::messages::templates;
use gantry_schema::people::one_time::{self, Purpose};
use gantry_schema::people::{self, Email, NewPerson, passwords};
use gantry_schema::sessions::{self, Ended};
use gantry_schema::token::OneTimeToken;
use gantry_schema::{OrganizationId, PersonId, TenantTx};
use poem::Request;

use super::{Sending, SignUp, from, link, look, nobody, send_link, usable};
use crate::app::App;
use crate::audit::about::About;
use crate::error::{Code, Error, OnConstraint as _};
use crate::field::{Name, Secret};
use crate::people::{Chosen, choose};

/// What somebody says of himself.
pub(super) struct New<'a> {
    pub(super) name: &'a Name,
    pub(super) password: &'a Secret,
    pub(super) locale: Option<&'a str>,
}

/// The language of people who have chosen none.
const LANGUAGE: &str = "en";

/// That this installation makes no account like this.
pub(super) fn closed(app: &App) -> Error {
    let detail = match app.sign_up() {
        SignUp::Closed => "nobody makes an account here; ask whoever runs the platform",
        SignUp::Open | SignUp::Invitation => "accounts are made by invitation here; have somebody invite you",
    };
    Error::new(Code::SignUpClosed, detail)
}

/// Sends a link to an address, whether it has an account or not.
pub(super) async fn ask(app: &App, request: &Request, email: &Email, locale: Option<&str>) -> Result<(), Error> {
    if app.sign_up() != SignUp::Open {
        return Err(closed(app));
    }
    // It stays counted: what is limited is how much is sent.
    drop(app.attempts().begin("sign_up", from(request), email.key()).await?);
    let known = usable(app, email).await?;
    let about = About::find(request)?;
    let mut tx = app.db.tenant(OrganizationId::PLATFORM).await?.by(nobody(&about));
    *tx.audit() = Draft::new("sign_up.ask");
    let person = known.map(|person| person.id);
    let purpose = if person.is_some() { Purpose::ResetPassword } else { Purpose::SignUp };
    let sending = Sending { purpose, email, person, locale, wanted: true };
    let letter = if person.is_some() { templates::sign_up_again } else { templates::sign_up };
    if !send_link(app, &mut tx, &sending, letter).await? {
        *tx.audit() = Draft::default();
    }
    tx.commit().await?;
    Ok(())
}

/// Makes the account that a link is for.
pub(super) async fn complete(
    app: &App,
    request: &Request,
    token: &OneTimeToken,
    new: &New<'_>,
) -> Result<(PersonId, String), Error> {
    if app.sign_up() != SignUp::Open {
        return Err(closed(app));
    }
    let used = look(app, token, Purpose::SignUp).await?;
    let chosen = choose(app, new.password, &used.email, new.name.as_str(), "password").await?;
    let person: PersonId = app.db.ids().mint();
    let about = About::find(request)?;
    let mut tx = app.db.tenant_for(OrganizationId::PLATFORM, person).await?.by(about.himself(person));
    *tx.audit() = Draft::new("sign_up.complete");
    // Used up in the transaction that makes the account: of two that come at once, one makes it.
    let used = one_time::take(&mut tx, token, Purpose::SignUp).await?.ok_or_else(link::expired)?;
    let locale = new.locale.or(used.locale.as_deref());
    make(&mut tx, person, &used.email, new.name, locale, &chosen).await?;
    tx.audit().on(&person);
    tx.commit().await?;
    Ok((person, used.email))
}

/// Makes the person the transaction acts for.
pub(super) async fn make(
    tx: &mut TenantTx,
    person: PersonId,
    email: &str,
    name: &Name,
    locale: Option<&str>,
    chosen: &Chosen,
) -> Result<(), Error> {
    let email: Email = email.parse().map_err(Error::internal)?;
    let (name, locale) = (name.as_str(), locale.unwrap_or(LANGUAGE));
    let new = NewPerson { id: person, email: &email, email_verified: true, name, locale };
    // Somebody made an account with the address since the link was sent.
    people::insert(tx, &new).await.on_constraint("people_email_key", link::expired)?;
    passwords::set(tx, person, &chosen.hash, chosen.stands_alone).await?;
    Ok(())
}

/// Makes somebody an owner of the platform's own organization, by the link that the command printed.
pub(super) async fn bootstrap(
    app: &App,
    request: &Request,
    token: &OneTimeToken,
    new: &New<'_>,
) -> Result<(PersonId, String), Error> {
    let used = look(app, token, Purpose::Bootstrap).await?;
    let chosen = choose(app, new.password, &used.email, new.name.as_str(), "password").await?;
    let email: Email = used.email.parse().map_err(Error::internal)?;
    let known = usable(app, &email).await?;
    let person = known.as_ref().map_or_else(|| app.db.ids().mint(), |person| person.id);
    let about = About::find(request)?;
    let mut tx = app.db.tenant_for(OrganizationId::PLATFORM, person).await?.by(about.himself(person));
    *tx.audit() = Draft::new("bootstrap.complete");
    one_time::take(&mut tx, token, Purpose::Bootstrap).await?.ok_or_else(link::expired)?;
    if known.is_some() {
        passwords::set(&mut tx, person, &chosen.hash, chosen.stands_alone).await?;
        sessions::end_others(&mut tx, person, None, Ended::Changed).await?;
    } else {
        make(&mut tx, person, &used.email, new.name, new.locale, &chosen).await?;
    }
    memberships::insert(&mut tx, person, Role::Owner).await?;
    tx.audit().on(&person).set("role", Role::Owner.as_str());
    tx.commit().await?;
    app.access_changed();
    Ok((person, used.email))
}
