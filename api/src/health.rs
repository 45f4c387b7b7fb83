//! Whether the platform works: for load balancers and operators.

use std::time::Duration;

use poem::web::Data;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};

use crate::app::App;
use crate::error::Code;
use crate::example::example;
use crate::tag::Tag;

/// A dependency that takes longer counts as down.
const PATIENCE: Duration = Duration::from_secs(2);

/// The operations on health.
#[derive(Debug, Clone, Copy)]
pub struct Health;

/// The process lives.
#[derive(Debug, Object)]
#[oai(example)]
struct Alive {
    /// `alive`.
    status: String,
}

example!(Alive, { "status": "alive" });

/// What the platform depends on, and how that is.
#[derive(Debug, Object)]
#[oai(example)]
struct Readiness {
    /// `ready`.
    status: String,
    /// Each dependency.
    checks: Vec<Check>,
}

example!(Readiness, {
    "status": "ready",
    "checks": [
        { "name": "postgres", "ok": true },
        { "name": "migrations", "ok": true },
        { "name": "redis", "ok": true },
        { "name": "process", "ok": true },
    ],
});

/// What the platform depends on, and which of it fails: a problem (RFC 9457) with one member more.
#[derive(Debug, Object)]
#[oai(example)]
struct Unready {
    /// Names the kind of problem.
    r#type: String,
    /// The same for every problem of this kind.
    title: String,
    /// 503.
    status: u16,
    /// What fails.
    detail: String,
    /// `not_ready`.
    code: String,
    /// Each dependency.
    checks: Vec<Check>,
}

example!(Unready, {
    "type": "urn:gantry:problem:not_ready",
    "title": "The platform is not ready",
    "status": 503,
    "detail": "redis does not answer; jobs are accepted, and start when it is back",
    "code": "not_ready",
    "checks": [
        { "name": "postgres", "ok": true },
        { "name": "migrations", "ok": true },
        { "name": "redis", "ok": false, "detail": "does not answer; jobs are accepted, and start when it is back" },
        { "name": "process", "ok": true },
    ],
});

/// One dependency.
#[derive(Debug, Object)]
struct Check {
    /// `postgres`, `migrations`, `redis` or `process`.
    name: String,
    /// It works.
    ok: bool,
    /// What is wrong with it.
    #[oai(skip_serializing_if_is_none)]
    detail: Option<String>,
}

/// Whether requests should come here.
#[derive(ApiResponse)]
enum Ready {
    /// They should.
    #[oai(status = 200)]
    Ready(Json<Readiness>),
    /// They should not, at the moment.
    #[oai(status = 503, content_type = "application/problem+json")]
    Unready(Json<Unready>),
}

#[OpenApi(prefix_path = "/health", tag = "Tag::Health")]
impl Health {
    /// Is the process alive?
    ///
    /// It is, when it answers; nothing else is looked at, so a restart is only due when it does not.
    #[oai(path = "/live", method = "get", operation_id = "live")]
    async fn live(&self) -> Json<Alive> {
        Json(Alive { status: "alive".to_owned() })
    }

    /// Can it serve requests?
    ///
    /// Looks at each dependency, for two seconds at most.
    #[oai(path = "/ready", method = "get", operation_id = "ready")]
    async fn ready(&self, app: Data<&App>) -> Ready {
        let (postgres, migrations, redis) = tokio::join!(
            check("postgres", "does not answer", app.db.ping()),
            check("migrations", "are not all applied: run gantry-api migrate", migrated(&app)),
            check("redis", "does not answer; jobs are accepted, and start when it is back", pong(&app)),
        );
        let process = Check {
            name: "process".to_owned(),
            ok: !app.is_stopping(),
            detail: app.is_stopping().then(|| "is stopping".to_owned()),
        };
        let checks = vec![postgres, migrations, redis, process];
        let wrong = |check: &Check| check.detail.as_ref().map(|detail| format!("{} {detail}", check.name));
        let wrong: Vec<String> = checks.iter().filter_map(wrong).collect();
        if wrong.is_empty() {
            return Ready::Ready(Json(Readiness { status: "ready".to_owned(), checks }));
        }
        let code = Code::NotReady;
        Ready::Unready(Json(Unready {
            r#type: format!("urn:gantry:problem:{}", code.as_str()),
            title: code.title().to_owned(),
            status: code.status().as_u16(),
            detail: wrong.join("; "),
            code: code.as_str().to_owned(),
            checks,
        }))
    }
}

async fn check<E: std::fmt::Display>(name: &str, wrong: &str, asking: impl Future<Output = Result<(), E>>) -> Check {
    let detail = match tokio::time::timeout(PATIENCE, asking).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => {
            // Only the log says more: anybody may ask for health.
            tracing::debug!("Not ready: {name} {wrong}: {error}");
            Some(wrong.to_owned())
        }
        Err(_) => Some(format!("took longer than {} s", PATIENCE.as_secs())),
    };
    Check { name: name.to_owned(), ok: detail.is_none(), detail }
}

async fn migrated(app: &App) -> Result<(), String> {
    match gantry_schema::setup::is_migrated(&app.db).await {
        Ok(true) => Ok(()),
        Ok(false) => Err("some are missing".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

async fn pong(app: &App) -> redis::RedisResult<()> {
    redis::cmd("PING").exec_async(&mut app.redis.clone()).await
}
