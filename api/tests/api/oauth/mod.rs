//! Applications of others: how they are registered, what people let them do, and what stands against whoever tries without
//! having been let.

mod attacks;
mod clients;
mod code;
mod device;
mod second_step;
mod tokens;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use gantry_schema::PersonId;
use gantry_schema::memberships::Role;
use poem::Request;
use poem::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use url::Url;

use crate::support::{Actor, Answer, PASSWORD, Platform, send};

/// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

const CALLBACK: &str = "https://books.example/callback";
const ISSUER: &str = "http://127.0.0.1:8080";

/// An organization, somebody who is its admin and signed in with a browser, and an application that he may let act.
struct Scene {
    platform: Platform,
    acme: Actor,
    ada: PersonId,
    browser: Browser,
    books: Application,
}

/// A browser, signed in.
struct Browser {
    cookie: String,
    csrf: String,
}

/// An application, with what it knows.
struct Application {
    id: String,
    secret: Option<String>,
}

type Pairs<'a> = &'a [(&'a str, &'a str)];

async fn scene(pool: PgPool) -> Scene {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let ada = platform.person("ada@example.com").await;
    platform.join(ada, acme.organization, Role::Admin).await;
    let browser = Browser::signed_in(&platform, "ada@example.com").await;
    let books = Application::registered(&acme, &json!({})).await;
    Scene { platform, acme, ada, browser, books }
}

impl Browser {
    async fn signed_in(platform: &Platform, email: &str) -> Self {
        let body = json!({ "email": email, "password": PASSWORD, "kind": "browser" });
        let answer = platform.post("/sessions", &body).await;
        let cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
        Self { cookie, csrf: answer.expect(201)["csrf_token"].as_str().unwrap().to_owned() }
    }
}

impl Application {
    async fn registered(owner: &Actor, with: &Value) -> Self {
        let mut body = json!({
            "name": "Books <b>",
            "redirect_uris": [CALLBACK],
            "scopes": ["openid", "profile", "email", "offline_access", "jobs:read", "jobs:write"],
        });
        for (name, value) in with.as_object().unwrap() {
            body[name.as_str()] = value.clone();
        }
        let made = owner.post("/oauth-clients", &body).await.expect(201);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Self { id: text(&made["client"]["id"]).unwrap(), secret: text(&made["client_secret"]) }
    }

    /// How it proves itself.
    fn basic(&self) -> String {
        let pair = format!("{}:{}", self.id, self.secret.as_deref().unwrap_or_default());
        format!("Basic {}", STANDARD.encode(pair))
    }
}

fn encoded(pairs: Pairs<'_>) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// What an answer that sends a browser on says, by name.
fn sent_on(answer: &Answer) -> Value {
    assert_eq!(answer.status, 303, "{}", answer.text);
    let location = Url::parse(answer.header("location")).unwrap();
    let pairs = location.query_pairs().map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())));
    Value::Object(pairs.collect())
}

/// What a token says, unverified.
fn said(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[track_caller]
fn refused(answer: Answer, status: u16, error: &str) -> Value {
    assert_eq!(answer.header("content-type"), "application/json", "{}", answer.text);
    assert_eq!(answer.header("cache-control"), "no-store");
    let body = answer.expect(status);
    assert_eq!(body["error"], error, "{body}");
    let description = body["error_description"].as_str().unwrap();
    assert!(description.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'), "{body}");
    body
}

impl Scene {
    /// The request with which an application sends a browser here.
    fn request<'a>(&'a self, with: Pairs<'a>) -> Vec<(&'a str, &'a str)> {
        let mut pairs = vec![
            ("response_type", "code"),
            ("client_id", self.books.id.as_str()),
            ("redirect_uri", CALLBACK),
            ("scope", "openid email offline_access jobs:read"),
            ("state", "a state & more"),
            ("nonce", "a nonce"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ];
        for (name, value) in with {
            pairs.retain(|(other, _)| other != name);
            if !value.is_empty() {
                pairs.push((name, value));
            }
        }
        pairs
    }

    /// Opens the page with these parameters instead; an empty one is left out.
    async fn open(&self, with: Pairs<'_>) -> Answer {
        self.open_as(&self.browser, with).await
    }

    async fn open_as(&self, browser: &Browser, with: Pairs<'_>) -> Answer {
        let path = format!("/oauth/authorize?{}", encoded(&self.request(with)));
        let request = Request::builder().method(Method::GET).uri_str(path).header("Cookie", &browser.cookie);
        send(&self.platform.app, request.finish()).await
    }

    /// Sends the form of the page.
    async fn decide(&self, with: Pairs<'_>, decision: &str) -> Answer {
        self.decide_as(&self.browser, with, decision).await
    }

    async fn decide_as(&self, browser: &Browser, with: Pairs<'_>, decision: &str) -> Answer {
        let (query, organization) = (encoded(&self.request(with)), self.acme.organization.to_string());
        let form = [
            ("request", query.as_str()),
            ("csrf_token", &browser.csrf),
            ("decision", decision),
            ("organization_id", &organization),
        ];
        self.form("/oauth/authorize", &[("Cookie", &browser.cookie)], &form).await
    }

    async fn form(&self, path: &str, headers: Pairs<'_>, pairs: Pairs<'_>) -> Answer {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri_str(path)
            .header("Content-Type", "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(&self.platform.app, request.body(encoded(pairs))).await
    }

    /// What an application asks for with its secret.
    async fn ask(&self, path: &str, pairs: Pairs<'_>) -> Answer {
        self.ask_as(&self.books, path, pairs).await
    }

    async fn ask_as(&self, application: &Application, path: &str, pairs: Pairs<'_>) -> Answer {
        self.form(path, &[("Authorization", &application.basic())], pairs).await
    }

    /// A code that somebody has just allowed.
    async fn code(&self) -> String {
        sent_on(&self.decide(&[], "allow").await)["code"].as_str().unwrap().to_owned()
    }

    async fn exchange(&self, code: &str) -> Answer {
        let pairs = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", CALLBACK),
            ("code_verifier", VERIFIER),
        ];
        self.ask("/oauth/token", &pairs).await
    }

    /// Tokens that somebody has just allowed.
    async fn tokens(&self) -> Value {
        self.exchange(&self.code().await).await.expect(200)
    }

    async fn refresh(&self, tokens: &Value) -> Answer {
        let token = tokens["refresh_token"].as_str().unwrap();
        self.ask("/oauth/token", &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    /// What the API answers to an access token.
    async fn get(&self, path: &str, token: &Value) -> Answer {
        let authorization = format!("Bearer {}", token.as_str().unwrap());
        let request = Request::builder().method(Method::GET).uri_str(path).header("Authorization", authorization);
        send(&self.platform.app, request.finish()).await
    }

    async fn introspect(&self, token: &Value) -> Value {
        self.ask("/oauth/introspect", &[("token", token.as_str().unwrap())]).await.expect(200)
    }
}
