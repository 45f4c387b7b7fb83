//! The authorization endpoint: a browser brings somebody who is to be asked, and takes back a code (RFC 6749, 4.1; RFC
//! 9700; OpenID Connect Core, 3.1.2).
//!
//! Until it is known that the application registered where the browser is to be sent back to, nothing is sent there:
//! whoever made the request is told by a page.

use chrono::Duration;
use gantry_schema::oauth::authorizations::{self, Authorization};
use gantry_schema::oauth::clients::{Client, Grant};
use gantry_schema::oauth::pkce::Challenge;
use gantry_schema::oauth::scope::{Scope, Scopes};
use gantry_schema::oauth::{codes, grants, redirect};
use gantry_schema::sessions::Known;
use gantry_schema::token::CodeToken;
use gantry_schema::{JobTx as _, OauthAuthorizationId, OrganizationId, TenantTx};
use poem::http::{HeaderValue, StatusCode, header};
use poem::{IntoResponse as _, Request, Response};

use super::exchange::narrower;
use super::page::{self, Question};
use super::parameters::Parameters;
use super::refusal::{Refusal, Stop};
use super::visitor::{Visitor, registrant, visitor};
use super::{app_of, authenticate, record};
use crate::app::App;
use crate::audit::about::About;
use crate::error::Error;

/// Characters of `state` and of `nonce`.
const MAX_ECHOED: usize = 2_000;

/// A request that is in order.
struct Asked {
    client: Client,
    redirect_uri: String,
    state: Option<String>,
    scopes: Scopes,
    challenge: Challenge,
    nonce: Option<String>,
    prompt: Prompt,
    /// The longest ago that he may have proved who he is.
    max_age: Option<Duration>,
    sent: Parameters,
}

/// What a person is asked, whatever is known already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Prompt {
    none: bool,
    login: bool,
    consent: bool,
}

/// Why nobody is asked.
enum Wrong {
    /// Told by a page.
    Here(String),
    /// Told to the application.
    Back(Box<Response>),
    /// Something has nothing to do with it.
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Wrong {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

fn answered(outcome: Result<Response, Wrong>) -> poem::Result<Response> {
    match outcome {
        Ok(response) => Ok(response),
        Err(Wrong::Back(response)) => Ok(*response),
        Err(Wrong::Here(text)) => Ok(page::told(StatusCode::BAD_REQUEST, "This request is not in order", &text)),
        Err(Wrong::Failed(error)) => Err(error.into()),
    }
}

/// `GET /oauth/authorize`.
pub(crate) async fn authorize(request: Request) -> poem::Result<Response> {
    let app = app_of(&request)?;
    answered(ask(&app, &request).await)
}

/// `POST /oauth/authorize`: what somebody decided.
pub(crate) async fn decide(mut request: Request) -> poem::Result<Response> {
    let app = app_of(&request)?;
    answered(decided(&app, &mut request).await)
}

async fn ask(app: &App, request: &Request) -> Result<Response, Wrong> {
    let sent = Parameters::of_query(request).map_err(|refusal| Wrong::Here(refusal.description))?;
    let asked = read(app, sent).await?;
    let visitor = match visitor(app, request).await? {
        Some(visitor) if !asked.wants_proof(&visitor.known, app) => visitor,
        _ if asked.prompt.none => {
            return Err(asked.refuse(app, "login_required", "nobody is signed in, or not lately"));
        }
        _ => return Ok(asked.sign_in()),
    };
    let choices = visitor.choices(app, &asked.client).await?;
    let Some((first, _)) = choices.first() else {
        let detail = "the person is a member of no organization in which this application works";
        return Err(asked.refuse(app, "access_denied", detail));
    };
    // A program on somebody's machine may be another than it says: he is asked each time (RFC 8252, 8.6).
    if asked.client.confidential && !asked.prompt.consent {
        let tx = app.db.tenant_for(*first, visitor.known.person).await?;
        let mut tx = asked.recorded(tx, request, &visitor.known, "oauth_client.continue")?;
        let before = grants::scopes(&mut tx, asked.client.id, visitor.known.person).await?;
        if before.is_some_and(|before| before.cover(&asked.scopes)) {
            return asked.give_code(app, tx, &visitor.known).await;
        }
    }
    if asked.prompt.none {
        return Err(asked.refuse(app, "consent_required", "the person has not allowed this before"));
    }
    asked.question(app, &visitor, &choices).await
}

async fn decided(app: &App, request: &mut Request) -> Result<Response, Wrong> {
    let form = match Parameters::of_form(request).await {
        Ok(form) => form,
        Err(Stop::Refused(refusal)) => return Err(Wrong::Here(refusal.description)),
        Err(Stop::Failed(error)) => return Err(error.into()),
    };
    let sent = Parameters::read(form.get("request").unwrap_or_default());
    let asked = read(app, sent.map_err(|refusal| Wrong::Here(refusal.description))?).await?;
    let Some(visitor) = visitor(app, request).await? else { return Ok(asked.sign_in()) };
    visitor.check(app, request, form.get("csrf_token"))?;
    if asked.wants_proof(&visitor.known, app) {
        return Ok(asked.sign_in());
    }
    if form.get("decision") != Some("allow") {
        return Err(asked.refuse(app, "access_denied", "the person refused"));
    }
    let choices = visitor.choices(app, &asked.client).await?;
    let wanted = form.get("organization_id").and_then(|id| id.parse::<OrganizationId>().ok());
    let Some((organization, _)) = choices.iter().find(|(id, _)| Some(*id) == wanted) else {
        return Err(Wrong::Here("choose one of your organizations in which the application works".to_owned()));
    };
    let tx = app.db.tenant_for(*organization, visitor.known.person).await?;
    let tx = asked.recorded(tx, request, &visitor.known, "oauth_client.authorize")?;
    asked.give_code(app, tx, &visitor.known).await
}

async fn read(app: &App, sent: Parameters) -> Result<Asked, Wrong> {
    let here = |text: &str| Wrong::Here(text.to_owned());
    let id = sent.get("client_id").ok_or_else(|| here("the parameter client_id is missing"))?;
    let client = authenticate::find(app, id).await?;
    let client = client.filter(|client| client.enabled).ok_or_else(|| here("there is no such application"))?;
    let redirect_uri =
        sent.get("redirect_uri").ok_or_else(|| here("the parameter redirect_uri is missing"))?.to_owned();
    if !redirect::is_registered(&client.redirect_uris, &redirect_uri) {
        return Err(here("redirect_uri is none of those that the application registered, character by character"));
    }
    let state = sent.get("state").map(str::to_owned);
    let back = |refusal: Refusal| {
        let state = state.as_deref().filter(|state| state.len() <= MAX_ECHOED);
        let answer = [("error", refusal.error), ("error_description", refusal.description.as_str())];
        Wrong::Back(Box::new(send_back(app, &redirect_uri, state, &answer)))
    };
    let order = order(&client, &sent).map_err(back)?;
    let (scopes, challenge, nonce, prompt, max_age) = order;
    Ok(Asked { client, redirect_uri, state, scopes, challenge, nonce, prompt, max_age, sent })
}

type Order = (Scopes, Challenge, Option<String>, Prompt, Option<Duration>);

/// What is wrong with the rest is told to the application.
fn order(client: &Client, sent: &Parameters) -> Result<Order, Refusal> {
    for (name, error) in [("request", "request_not_supported"), ("request_uri", "request_uri_not_supported")] {
        if sent.get(name).is_some() {
            return Err(Refusal::new(error, format!("send the parameters themselves instead of {name}")));
        }
    }
    for name in ["state", "nonce"] {
        if sent.get(name).is_some_and(|value| value.len() > MAX_ECHOED) {
            return Err(Refusal::request(format!("{name} has at most {MAX_ECHOED} characters")));
        }
    }
    if sent.need("response_type")? != "code" {
        return Err(Refusal::new("unsupported_response_type", "write response_type=code"));
    }
    if sent.get("response_mode").is_some_and(|mode| mode != "query") {
        return Err(Refusal::request("write response_mode=query, or leave it out"));
    }
    if !client.uses(Grant::AuthorizationCode) {
        let detail = "the application is not registered for this flow; who registered it can add it";
        return Err(Refusal::new("unauthorized_client", detail));
    }
    if sent.get("code_challenge_method") != Some("S256") {
        return Err(Refusal::request("write code_challenge_method=S256 (RFC 7636); plain is not enough"));
    }
    let challenge = sent
        .need("code_challenge")?
        .parse()
        .map_err(|error: gantry_schema::oauth::pkce::InvalidChallenge| Refusal::request(error.to_string()))?;
    let missing = || Refusal::new("invalid_scope", "say which scopes");
    let scopes = narrower(sent.get("scope").ok_or_else(missing)?, &client.scopes)?;
    let prompt = prompt(sent.get("prompt").unwrap_or_default())?;
    let max_age = sent.get("max_age").map(|text| {
        let seconds: u32 = text.parse().map_err(|_| Refusal::request("max_age is a number of seconds"))?;
        Ok::<_, Refusal>(Duration::seconds(seconds.into()))
    });
    Ok((scopes, challenge, sent.get("nonce").map(str::to_owned), prompt, max_age.transpose()?))
}

fn prompt(text: &str) -> Result<Prompt, Refusal> {
    let mut prompt = Prompt::default();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match word {
            "none" => prompt.none = true,
            // There is one account in a browser at a time: to choose another is to sign in.
            "login" | "select_account" => prompt.login = true,
            "consent" => prompt.consent = true,
            _ => return Err(Refusal::request("prompt is none, login, consent or select_account")),
        }
    }
    if prompt.none && (prompt.login || prompt.consent) {
        return Err(Refusal::request("prompt is none or something else, not both"));
    }
    Ok(prompt)
}

impl Asked {
    /// Whether he has to prove who he is before he is asked.
    fn wants_proof(&self, known: &Known, app: &App) -> bool {
        let age = app.db.now() - known.authenticated_at;
        self.prompt.login || self.max_age.is_some_and(|most| age > most)
    }

    /// Asks who it is; signed in, he comes back to the same request, and has just proved it. When he did, the ID token says.
    fn sign_in(&self) -> Response {
        let mut query = self.sent.query_without(&["prompt", "max_age"]);
        if self.prompt.consent {
            query.push_str("&prompt=consent");
        }
        let to = format!("/oauth/authorize?{query}");
        page::sign_in(StatusCode::OK, &to, None, &page::leads_to(Some(&self.redirect_uri)))
    }

    async fn question(
        &self,
        app: &App,
        visitor: &Visitor,
        choices: &[(OrganizationId, String)],
    ) -> Result<Response, Wrong> {
        let (email, registered_by) = (visitor.email(app).await?, registrant(app, &self.client).await?);
        let query = self.sent.query_without(&[]);
        Ok(page::consent(&Question {
            client: &self.client,
            registered_by: &registered_by,
            scopes: &self.scopes,
            email: &email,
            choices,
            action: "/oauth/authorize",
            carries: &[("request", &query), ("csrf_token", &visitor.csrf_token)],
            redirect_uri: Some(&self.redirect_uri),
        }))
    }

    fn refuse(&self, app: &App, error: &'static str, description: &str) -> Wrong {
        let answer = [("error", error), ("error_description", description)];
        Wrong::Back(Box::new(send_back(app, &self.redirect_uri, self.state.as_deref(), &answer)))
    }

    /// Begins the entry about it.
    fn recorded(
        &self,
        tx: TenantTx,
        request: &Request,
        known: &Known,
        action: &'static str,
    ) -> Result<TenantTx, Error> {
        Ok(record::by_person(tx, &About::find(request)?, known.person, action, &self.client, &self.scopes))
    }

    /// Notes what he allowed, and sends the browser back with a code for it.
    async fn give_code(&self, app: &App, mut tx: TenantTx, known: &Known) -> Result<Response, Wrong> {
        let authorization = allow(&mut tx, &self.client, &self.scopes, known, codes::LASTS).await?;
        let token = CodeToken::generate(&mut rand::rng());
        let code = codes::Code {
            organization: tx.organization(),
            authorization,
            client: self.client.id,
            redirect_uri: self.redirect_uri.clone(),
            challenge: self.challenge.to_string(),
            nonce: self.nonce.clone().filter(|_| self.scopes.contain(Scope::OpenId)),
            expires_at: tx.now() + codes::LASTS,
        };
        codes::keep(&mut tx, &token, &code).await?;
        tx.commit().await?;
        Ok(send_back(app, &self.redirect_uri, self.state.as_deref(), &[("code", token.expose())]))
    }
}

/// Notes what somebody allows in the transaction's organization. Unless it is exchanged for tokens, it is over soon.
pub(super) async fn allow(
    tx: &mut TenantTx,
    client: &Client,
    scopes: &Scopes,
    known: &Known,
    lasts: Duration,
) -> Result<OauthAuthorizationId, Error> {
    let grant = grants::add(tx, client.id, known.person, scopes).await?;
    let authorization = Authorization {
        id: tx.ids().mint(),
        organization: tx.organization(),
        client: client.id,
        person: Some(known.person),
        scopes: scopes.clone(),
        authenticated_at: Some(known.authenticated_at),
        methods: known.methods.clone(),
        expires_at: tx.now() + lasts,
    };
    authorizations::insert(tx, &authorization, Some(grant)).await?;
    Ok(authorization.id)
}

/// Sends the browser back, with who answers (RFC 9207), by a request that has no body (RFC 9700, 4.12).
fn send_back(app: &App, redirect_uri: &str, state: Option<&str>, answer: &[(&str, &str)]) -> Response {
    let mut answer = answer.to_vec();
    answer.extend(state.map(|state| ("state", state)));
    answer.push(("iss", app.public_url()));
    see(&redirect::with_answer(redirect_uri, &answer))
}

/// Sends the browser there.
pub(super) fn see(location: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    // Made of characters that headers may have: what was registered, and what was encoded.
    response.headers_mut().extend(HeaderValue::from_str(location).ok().map(|location| (header::LOCATION, location)));
    response
}
