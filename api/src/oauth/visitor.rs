//! Who is in front of the browser: the session's cookie, and what only a page of this origin can send.

use std::sync::Arc;

use gantry_schema::digest::constant_time_eq;
use gantry_schema::oauth::clients::{self, Client};
use gantry_schema::sessions::Known;
use gantry_schema::usage::Credential;
use gantry_schema::{OrganizationId, memberships, organizations, people};
use poem::Request;

use crate::app::App;
use crate::edge::RequestInfo;
use crate::error::{Code, Error};
use crate::rate;
use crate::sessions::cookie;

/// Organizations of a person that are offered; nobody has as many.
const MOST: i64 = 1_000;

/// Somebody who is signed in in this browser.
pub(super) struct Visitor {
    pub(super) known: Arc<Known>,
    pub(super) csrf_token: String,
}

/// Who is signed in in this browser, if anybody is.
pub(super) async fn visitor(app: &App, request: &Request) -> Result<Option<Visitor>, Error> {
    let Some(token) = cookie::presented(request.headers()) else { return Ok(None) };
    let address = request.data::<RequestInfo>().and_then(|info| info.address).map(|address| address.to_string());
    rate::refuse_guesses(app, request)?;
    let Some(known) = app.sessions.verify(&app.db, token.hash(), None, address.as_deref()).await? else {
        rate::count_wrong_credential(app, request).await?;
        return Ok(None);
    };
    let organization = known.organization.unwrap_or(OrganizationId::PLATFORM);
    rate::admit(request, app, organization, Credential::person(known.person)).await?;
    Ok(Some(Visitor { known, csrf_token: cookie::csrf_token(&token) }))
}

impl Visitor {
    /// Refuses a form that another site's page may have sent.
    pub(super) fn check(&self, app: &App, request: &Request, sent: Option<&str>) -> Result<(), Error> {
        cookie::check_origin(app, request)?;
        if constant_time_eq(sent.unwrap_or_default().as_bytes(), self.csrf_token.as_bytes()) {
            return Ok(());
        }
        Err(Error::new(
            Code::CrossSiteRequest,
            "the form was not made for this session; go back, load it again and send it",
        ))
    }

    /// Where he can let the application act: where he is a member, as far as it works there. The one he acts for first.
    pub(super) async fn choices(&self, app: &App, client: &Client) -> Result<Vec<(OrganizationId, String)>, Error> {
        let mut tx = app.db.person(self.known.person).await?;
        let all = memberships::of_person(&mut tx, None, MOST).await?;
        drop(tx);
        let active = all.iter().filter(|membership| membership.state == memberships::State::Active);
        let of: Vec<OrganizationId> = active.map(|membership| membership.organization).collect();
        let mut choices = clients::may_act_in(&mut app.db.tenant(client.organization).await?, &of).await?;
        choices.sort_by_key(|(id, _)| Some(*id) != self.known.organization);
        Ok(choices)
    }

    /// Where mail reaches him.
    pub(super) async fn email(&self, app: &App) -> Result<String, Error> {
        let mut tx = app.db.person(self.known.person).await?;
        let person = people::find(&mut tx, self.known.person).await?;
        person.map(|person| person.email).ok_or_else(|| Error::not_found(self.known.person))
    }
}

/// What the organization that registered an application is called.
pub(super) async fn registrant(app: &App, client: &Client) -> Result<String, Error> {
    let mut tx = app.db.tenant(client.organization).await?;
    let found = organizations::find(&mut tx, client.organization).await?;
    Ok(found.map_or_else(|| "nobody".to_owned(), |organization| organization.name))
}
