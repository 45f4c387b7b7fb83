//! Two processes of the API on one database, as they are run, with nothing between them but that: Redis is away, or goes
//! away and comes back.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;

use gantry_schema::OrganizationId;
use gantry_schema::licenses::{Claims, SecretKey};
use gantry_schema::memberships::Role;
use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, PgPool};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::{JoinHandle, JoinSet};

use crate::license_records::Vendor;
use crate::support::{Actor, PASSWORD, Platform};

/// Where nobody answers.
const NO_REDIS: &str = "redis://127.0.0.1:1/";

/// What the vendor signs with whose licenses the processes believe.
const VENDOR: [u8; 32] = [7; 32];

/// A process, which ends with the test.
struct Process {
    address: SocketAddr,
    _child: Child,
}

impl Process {
    #[expect(clippy::disallowed_methods, reason = "the test is about processes")]
    async fn start(pool: &PgPool, redis: &str) -> Self {
        let free = async || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
        let address = free().await;
        let database = (*pool.connect_options()).clone().username("gantry_app").to_url_lossy();
        let mut child = Command::new(env!("CARGO_BIN_EXE_gantry-api"))
            .env_clear()
            .env("GANTRY_DATABASE_URL", database.as_str())
            .env("GANTRY_DATABASE_CONNECTIONS", "4")
            .env("GANTRY_REDIS_URL", redis)
            .env("GANTRY_SEALING_KEY", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=")
            .env("GANTRY_LISTEN", address.to_string())
            .env("GANTRY_METRICS_LISTEN", "")
            .env("GANTRY_LICENSE_ISSUERS", SecretKey::from_seed(&VENDOR).public().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        while !log.next_line().await.unwrap().expect("the process ended before it served").contains("server started") {}
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Self { address, _child: child }
    }

    /// The status and the body of an answer.
    async fn ask(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap_or_default())
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_key_and_a_role_that_were_taken_are_taken_in_both_processes_without_redis(pool: PgPool) {
    let platform = Platform::new(pool.clone()).await;
    let operator: Actor = platform.operator().await;
    let (one, other) = (Process::start(&pool, NO_REDIS).await, Process::start(&pool, NO_REDIS).await);
    let new = json!({ "name": "to be revoked", "template": "read_only" });
    let (status, made) = one.ask(&operator.token, "POST", "/api-keys", Some(&new)).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["api_key"]["organization_id"], OrganizationId::PLATFORM.to_string());
    let token = made["token"].as_str().unwrap();
    for process in [&one, &other] {
        assert_eq!(process.ask(token, "GET", "/jobs", None).await.0, 200);
    }
    let path = format!("/api-keys/{}", made["api_key"]["id"].as_str().unwrap());
    assert_eq!(one.ask(&operator.token, "DELETE", &path, None).await.0, 204);
    assert_eq!(one.ask(token, "GET", "/jobs", None).await.0, 401, "whoever revokes it knows at once");
    while other.ask(token, "GET", "/jobs", None).await.0 == 200 {}
    assert_eq!(other.ask(token, "GET", "/jobs", None).await.0, 401);
    assert_eq!(other.ask(&operator.token, "GET", "/jobs", None).await.0, 200, "the others live");
}

/// What is between processes and Redis, and can be cut.
struct Line {
    address: SocketAddr,
    carrying: JoinHandle<()>,
}

impl Line {
    async fn at(address: SocketAddr) -> Self {
        let redis = std::env::var("GANTRY_TEST_REDIS_URL").expect("scripts/test says where Redis is");
        let redis: url::Url = redis.parse().unwrap();
        let far = format!("{}:{}", redis.host_str().unwrap(), redis.port().unwrap_or(6379));
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let carrying = tokio::spawn(async move {
            // With the line all that it carries ends.
            let mut carried = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let far = far.clone();
                carried.spawn(async move {
                    let mut far = TcpStream::connect(far).await.unwrap();
                    drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
                });
            }
        });
        Self { address, carrying }
    }

    async fn cut(self) -> SocketAddr {
        self.carrying.abort();
        drop(self.carrying.await);
        self.address
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn while_redis_is_stopped_nobody_signs_in_and_everybody_works_and_afterwards_all_is_as_before(pool: PgPool) {
    let platform = Platform::new(pool.clone()).await;
    let acme = platform.organization("acme").await;
    let ada = platform.person("ada@example.com").await;
    platform.join(ada, acme.organization, Role::Owner).await;
    let line = Line::at((Ipv4Addr::LOCALHOST, 0).into()).await;
    let redis = format!("redis://{}/", line.address);
    let processes = [Process::start(&pool, &redis).await, Process::start(&pool, &redis).await];
    let credentials = json!({ "email": "ada@example.com", "password": PASSWORD, "kind": "program" });
    let sign_in = async |process: &Process| process.ask("none", "POST", "/sessions", Some(&credentials)).await;
    let mut tokens = Vec::new();
    for process in &processes {
        let (status, opened) = sign_in(process).await;
        assert_eq!(status, 201, "{opened}");
        tokens.push(opened["access_token"].as_str().unwrap().to_owned());
    }

    let address = line.cut().await;
    for process in &processes {
        let (status, refused) = sign_in(process).await;
        assert_eq!((status, refused["code"].as_str()), (503, Some("unavailable")), "{refused}");
        for token in tokens.iter().chain([&acme.token]) {
            assert_eq!(process.ask(token, "GET", "/jobs", None).await.0, 200, "who is known reads");
        }
        let probe = json!({ "kind": "diagnostics.probe" });
        assert_eq!(
            process.ask(&acme.token, "POST", "/jobs", Some(&probe)).await.0,
            202,
            "and what he asks for is kept"
        );
    }

    let _line = Line::at(address).await;
    for process in &processes {
        // Until it has connected again.
        while sign_in(process).await.0 == 503 {}
        assert_eq!(sign_in(process).await.0, 201);
        assert_eq!(process.ask(&acme.token, "GET", "/jobs", None).await.0, 200);
    }
    assert_eq!(platform.count("jobs").await, 2);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_license_that_is_revoked_in_one_process_is_refused_by_the_other_without_redis(pool: PgPool) {
    let platform = Platform::new(pool.clone()).await;
    let (operator, acme) = (platform.operator().await, platform.organization("acme").await);
    let (one, other) = (Process::start(&pool, NO_REDIS).await, Process::start(&pool, NO_REDIS).await);
    let place = format!("/organizations/{}/license", acme.organization);
    let license = json!({ "tier": "enterprise", "type": "perpetual" });
    assert_eq!(one.ask(&operator.token, "POST", &place, Some(&license)).await.0, 200);
    let new = json!({ "name": "a key", "scopes": ["jobs:read"] });
    for process in [&one, &other] {
        assert_eq!(process.ask(&acme.token, "POST", "/api-keys", Some(&new)).await.0, 201);
    }
    assert_eq!(one.ask(&operator.token, "DELETE", &place, None).await.0, 200);
    assert_eq!(one.ask(&acme.token, "POST", "/api-keys", Some(&new)).await.0, 403, "whoever revokes it knows at once");
    while other.ask(&acme.token, "POST", "/api-keys", Some(&new)).await.0 == 201 {}
    let (status, problem) = other.ask(&acme.token, "POST", "/api-keys", Some(&new)).await;
    assert_eq!((status, &problem["reason"]), (403, &json!("license")));
    assert_eq!(other.ask(&acme.token, "GET", "/api-keys", None).await.0, 200, "what is there is there");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_license_that_its_issuer_revoked_elsewhere_dies_in_both_when_one_is_told(pool: PgPool) {
    let platform = Platform::new(pool.clone()).await;
    let (operator, acme) = (platform.operator().await, platform.organization("acme").await);
    let (one, other) = (Process::start(&pool, NO_REDIS).await, Process::start(&pool, NO_REDIS).await);
    let vendor = Vendor(SecretKey::from_seed(&VENDOR));
    // These processes go by the real clock.
    let license = Claims { exp: None, ..Vendor::claims(&platform, acme.organization, 1) };
    let install = format!("/organizations/{}/license/install", acme.organization);
    assert_eq!(one.ask(&operator.token, "POST", &install, Some(&vendor.sign(&license))).await.0, 200);
    let new = json!({ "name": "a key", "scopes": ["jobs:read"] });
    assert_eq!(other.ask(&acme.token, "POST", "/api-keys", Some(&new)).await.0, 201);
    let list = vendor.list(platform.app.db.now(), 1, &[license.jti]);
    assert_eq!(one.ask(&operator.token, "POST", "/license-revocations", Some(&list)).await.0, 200);
    while other.ask(&acme.token, "POST", "/api-keys", Some(&new)).await.0 == 201 {}
    let (status, problem) = other.ask(&acme.token, "POST", "/api-keys", Some(&new)).await;
    assert_eq!((status, &problem["reason"]), (403, &json!("license")));
}
