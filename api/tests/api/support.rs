//! An API on a database of its own.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use gantry_api::App;
use gantry_jobs::signals::Signals;
use gantry_schema::api_keys::{self, NewApiKey, Token};
use gantry_schema::db::Silent;
use gantry_schema::jobs::claim::{self, Paused};
use gantry_schema::memberships::{self, Role};
use gantry_schema::organizations::{self, NewOrganization, Permission};
use gantry_schema::people::hashing::Hasher;
use gantry_schema::people::{self, NewPerson, Typed, passwords};
use gantry_schema::seal::{SealingKey, SealingKeys};
use gantry_schema::{Db, EngineDb, FixedClock, IdMint, JobId, OrganizationId, PersonId, SystemClock, WorkerId};
use poem::endpoint::BoxEndpoint;
use poem::http::{HeaderMap, Method, StatusCode};
use poem::{Body, Endpoint as _, EndpointExt as _, Request, Response};
use rand::SeedableRng as _;
use serde_json::Value;
use sqlx::PgPool;

use crate::documented;

/// When every test begins.
pub const BEGINNING: &str = "2026-01-15T12:00:00Z";

/// Where nobody answers: these tests need no Redis.
const NO_REDIS: &str = "redis://127.0.0.1:1/";

pub struct Platform {
    pub app: App,
    pub clock: Arc<FixedClock>,
    pub pool: PgPool,
    pub api: Api,
}

/// What opens sealed secrets here.
pub fn sealing_keys() -> SealingKeys {
    let key = SealingKey::from_base64("test", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=").unwrap();
    SealingKeys::new(key, Vec::new()).unwrap()
}

/// The API, made once for many requests.
#[derive(Clone)]
pub struct Api(Arc<BoxEndpoint<'static, Response>>);

impl Api {
    pub fn of(app: &App) -> Self {
        Self(Arc::new(gantry_api::app(app.clone()).boxed()))
    }

    /// Sends a request as it is.
    pub async fn answer(&self, request: Request) -> Response {
        // The whole of the API's future; a test that has several at a time would hold them on its stack.
        Box::pin(self.0.get_response(request)).await
    }

    /// As [`Self::answer`]. What is answered is what the document says.
    pub async fn send(&self, request: Request) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answer = Answer::of(self.answer(request).await).await;
        documented::check(&method, &path, &answer);
        answer
    }
}

/// An organization, and a key with which to act for it.
#[derive(Clone)]
pub struct Actor {
    api: Api,
    pub organization: OrganizationId,
    pub token: String,
}

/// Somebody who signed in with a program.
#[derive(Clone)]
pub struct Human {
    api: Api,
    pub id: PersonId,
    pub access_token: String,
    pub refresh_token: String,
}

/// What everybody's password is here.
pub const PASSWORD: &str = "a sentence nobody guesses";

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Platform {
    pub async fn new(pool: PgPool) -> Self {
        Self::on(pool, NO_REDIS, "test").await
    }

    /// One whose requests and attempts are counted in Redis.
    pub async fn counting(pool: PgPool) -> Self {
        let url = std::env::var("GANTRY_TEST_REDIS_URL").expect("scripts/test says where Redis is");
        let unique: uuid::Uuid = IdMint::new(Arc::new(SystemClock)).mint();
        Self::on(pool, &url, &format!("test-{}", unique.simple())).await
    }

    async fn on(pool: PgPool, redis: &str, namespace: &str) -> Self {
        // As `gantry-api migrate` does.
        sqlx::query("grant select on _sqlx_migrations to gantry_app").execute(&pool).await.unwrap();
        let clock = Arc::new(FixedClock::at(BEGINNING.parse::<DateTime<Utc>>().unwrap()));
        let ids = Arc::new(IdMint::seeded(clock.clone(), 7));
        let options = (*pool.connect_options()).clone().username("gantry_app");
        let db = Db::connect(options, 4, clock.clone(), ids, Arc::new(Silent)).await.unwrap();
        let redis = gantry_api::app::connect(redis).unwrap();
        let sealing = sealing_keys();
        generous(&pool).await;
        // As cheap as it can be: these tests are not about how long guessing takes.
        let hasher = Hasher::costing((8, 1, 1), None, &mut rand::rngs::StdRng::seed_from_u64(1)).unwrap();
        let app = App::new(db, redis, namespace, Signals::default(), sealing, false)
            .hashing(hasher)
            .under(Some("cloud.example"));
        Self { api: Api::of(&app), app, clock, pool }
    }

    /// The same, under another public URL.
    pub fn reached_at(mut self, public_url: &str) -> Self {
        self.app = self.app.at(public_url);
        self.api = Api::of(&self.app);
        self
    }

    /// Somebody who may do everything to the whole installation.
    pub async fn operator(&self) -> Actor {
        self.key(OrganizationId::PLATFORM, Permission::ALL).await
    }

    /// An organization below the platform, and a key that may do everything for it.
    pub async fn organization(&self, name: &str) -> Actor {
        self.below(OrganizationId::PLATFORM, name).await
    }

    pub async fn below(&self, parent: OrganizationId, name: &str) -> Actor {
        let mut tx = self.app.db.tenant(parent).await.unwrap();
        let made = organizations::create(&mut tx, &NewOrganization::below(parent, name)).await.unwrap();
        tx.commit().await.unwrap();
        let scopes: Vec<Permission> =
            Permission::ALL.iter().copied().filter(|scope| *scope != Permission::OperatePlatform).collect();
        self.key(made.id, &scopes).await
    }

    pub async fn key(&self, organization: OrganizationId, scopes: &[Permission]) -> Actor {
        let seed: uuid::Uuid = self.app.db.ids().mint();
        let token = Token::generate(&mut rand::rngs::StdRng::seed_from_u64(seed.as_u64_pair().1));
        let mut tx = self.app.db.tenant(organization).await.unwrap();
        api_keys::create(&mut tx, &token, &NewApiKey::of_organization("test", scopes)).await.unwrap();
        tx.commit().await.unwrap();
        Actor { api: self.api.clone(), organization, token: token.expose().to_owned() }
    }

    /// Somebody with an account and a password, who is a member of nothing.
    pub async fn person(&self, email: &str) -> PersonId {
        let (id, address) = (self.app.db.ids().mint(), email.parse().unwrap());
        let hasher = Hasher::costing((8, 1, 1), None, &mut rand::rngs::StdRng::seed_from_u64(1)).unwrap();
        let hash = hasher.hash(&Typed::new(PASSWORD), &mut rand::rngs::StdRng::seed_from_u64(2)).unwrap();
        let mut tx = self.app.db.person(id).await.unwrap();
        let new = NewPerson { id, email: &address, email_verified: true, name: "Ada", locale: "en" };
        people::insert(&mut tx, &new).await.unwrap();
        passwords::set(&mut tx, id, &hash, true).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    /// Makes somebody a member.
    pub async fn join(&self, person: PersonId, organization: OrganizationId, role: Role) {
        let mut tx = self.app.db.tenant(organization).await.unwrap();
        memberships::insert(&mut tx, person, role).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Sends a request that nobody is known by.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.api.send(post(path, body)).await
    }

    /// Signs in with the password everybody has here.
    pub async fn signed_in(&self, id: PersonId, email: &str) -> Human {
        let body = serde_json::json!({ "email": email, "password": PASSWORD, "kind": "program" });
        let opened = self.post("/sessions", &body).await.expect(201);
        let nothing = String::new();
        Human { api: self.api.clone(), id, access_token: nothing.clone(), refresh_token: nothing }.with(&opened)
    }

    /// Somebody who is a member, signed in.
    pub async fn member(&self, email: &str, organization: OrganizationId, role: Role) -> Human {
        let id = self.person(email).await;
        self.join(id, organization, role).await;
        self.signed_in(id, email).await
    }

    /// A worker takes the job. Answers the worker.
    pub async fn claim(&self, job: &str) -> WorkerId {
        let job: JobId = job.parse().unwrap();
        let options = (*self.pool.connect_options()).clone().username("gantry_engine");
        let (clock, ids) = (self.clock.clone(), Arc::new(IdMint::seeded(self.clock.clone(), 8)));
        let ledger = EngineDb::connect(options, 2, clock, ids, Arc::new(Silent)).await.unwrap();
        let (worker, claim) = (self.app.db.ids().mint(), self.app.db.ids().mint());
        let taken = claim::claim(&ledger, worker, claim, &mut [job.uuid()], &Paused::default()).await.unwrap();
        assert_eq!(taken.len(), 1, "{job} can be taken");
        worker
    }

    pub async fn count(&self, table: &'static str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select count(*) from {table}")))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }
}

/// Tests ask more often in a moment than the smallest tier may in a minute.
async fn generous(pool: &PgPool) {
    let generous = "update rate_tiers set read_number = 100000, write_number = 100000, deploy_number = 100000
                     where tier = 'starter'";
    sqlx::query(generous).execute(pool).await.unwrap();
}

/// A request with a body, and nothing else.
pub fn post(path: &str, body: &Value) -> Request {
    let request = Request::builder().method(Method::POST).uri_str(path).header("Content-Type", "application/json");
    request.body(body.to_string())
}

impl Human {
    /// Who an answer says has signed in.
    pub fn opened(api: &Api, opened: &Value) -> Self {
        let nothing = String::new();
        let id = opened["person_id"].as_str().unwrap().parse().unwrap();
        Self { api: api.clone(), id, access_token: nothing.clone(), refresh_token: nothing }.with(opened)
    }

    /// The same person with the tokens of an answer.
    pub fn with(&self, opened: &Value) -> Self {
        let text = |name: &str| opened[name].as_str().unwrap().to_owned();
        Self { access_token: text("access_token"), refresh_token: text("refresh_token"), ..self.clone() }
    }

    /// The same person with another access token.
    pub fn with_access(&self, token: &str) -> Self {
        Self { access_token: token.to_owned(), ..self.clone() }
    }

    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let authorization = format!("Bearer {}", self.access_token);
        let request = Request::builder().method(method).uri_str(path).header("Authorization", authorization);
        let request = match body {
            Some(body) => request.header("Content-Type", "application/json").body(body.to_string()),
            None => request.finish(),
        };
        self.api.send(request).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, Some(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, Some(body)).await
    }

    /// Replaces something whatever it is.
    pub async fn replace(&self, path: &str, body: &Value) -> Answer {
        let authorization = format!("Bearer {}", self.access_token);
        let request = Request::builder().method(Method::PUT).uri_str(path).header("Authorization", authorization);
        let request = request.header("If-Match", "*").header("Content-Type", "application/json");
        self.api.send(request.body(body.to_string())).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None).await
    }
}

/// Sends one request to an API that is made for it, as it is.
pub async fn send(app: &App, request: Request) -> Answer {
    Api::of(app).send(request).await
}

impl Actor {
    pub fn request(&self, method: Method, path: &str, body: Option<Body>) -> Request {
        let request =
            Request::builder().method(method).uri_str(path).header("Authorization", format!("Bearer {}", self.token));
        match body {
            Some(body) => request.header("Content-Type", "application/json").body(body),
            None => request.finish(),
        }
    }

    pub async fn send(&self, method: Method, path: &str, body: Option<Body>) -> Answer {
        self.api.send(self.request(method, path, body)).await
    }

    /// Who has this key or token.
    pub fn bearing(api: &Api, organization: OrganizationId, token: &str) -> Self {
        Self { api: api.clone(), organization, token: token.to_owned() }
    }

    /// The same organization with another key.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    pub async fn send_as_is(&self, request: Request) -> Answer {
        self.api.send(request).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, Some(Body::from_string(body.to_string()))).await
    }

    pub async fn post_text(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.send(Method::POST, path, Some(body.into())).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, Some(Body::from_string(body.to_string()))).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, Some(Body::from_string(body.to_string()))).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None).await
    }

    /// Asks for a probe at once, or later.
    pub async fn probe(&self, run_at: Option<&str>) -> String {
        let body = serde_json::json!({ "kind": "diagnostics.probe", "run_at": run_at });
        self.post("/jobs", &body).await.expect(202)["id"].as_str().unwrap().to_owned()
    }
}

impl Answer {
    pub async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        Self { status: parts.status, headers: parts.headers, text: body.into_string().await.unwrap() }
    }

    /// The body, of an answer with this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { serde_json::from_str(&self.text).expect(&self.text) }
    }

    /// Asserts a problem document with this code and field.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str, field: Option<&str>) -> Value {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.text);
        let request = self.headers["x-request-id"].to_str().unwrap().to_owned();
        let problem = self.expect(status);
        assert_eq!((problem["code"].as_str(), problem["field"].as_str()), (Some(code), field), "{problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], format!("urn:gantry:problem:{code}"));
        assert_eq!(problem["request_id"], request);
        for member in ["title", "detail", "instance"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
        }
        problem
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}
