use std::time::Duration;

use gantry_jobs::Job as _;
use gantry_jobs::servers::WatchServer;
use gantry_jobs::webhooks;
use gantry_providers::ssh;
use gantry_schema::notices;
use gantry_schema::servers::watch::{self, Change};
use gantry_schema::servers::{ServerState, keys, queries as servers};
use gantry_schema::webhooks::event_types::PlatformEvent;
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::{Context, Done, Failure, Run};

/// How long one look may take.
const WITHIN: Duration = Duration::from_secs(15);

impl Run for WatchServer {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let mut tx = cx.begin().await?;
        let watched = servers::find(&mut tx, self.server).await?.filter(|server| server.state == ServerState::Ready);
        // It is looked at as long as it is there.
        let Some((server, place)) = watched.and_then(|server| server.place.clone().map(|place| (server, place))) else {
            return cx.complete(tx).await;
        };
        let key = keys::open(&mut tx, cx.sealing_keys(), server.ssh_key).await.map_err(Failure::retry)?;
        let key = key.ok_or_else(|| Failure::cancel("the SSH key of the stack is gone"))?;
        tx.rollback().await?;
        let at = ssh::Place {
            address: &place.address,
            port: place.port,
            username: &place.username,
            host_key: &place.host_key,
        };
        let why = match ssh::connect(at, key.seed.expose_secret(), WITHIN).await {
            Ok(session) => {
                session.leave().await;
                None
            }
            Err(error) => Some(error.to_string()),
        };

        let mut tx = cx.begin().await?;
        let Some(before) = servers::lock_watch(&mut tx, self.server).await? else { return cx.complete(tx).await };
        let change = watch::judge(why.is_none(), before.misses, before.unreachable_since.is_some());
        let misses = servers::looked(&mut tx, self.server, why.is_none(), change).await?;
        if !before.maintenance {
            tell(cx, &mut tx, &server, change, why.as_deref()).await?;
        }
        let next = WatchServer { server: self.server };
        next.request().at(cx.now() + watch::next(misses)).enqueue(&mut tx, &cx.by()).await?;
        cx.complete(tx).await
    }
}

/// Tells programs and people what is different.
async fn tell(
    cx: &Context,
    tx: &mut gantry_schema::TenantTx,
    server: &servers::Server,
    change: Change,
    why: Option<&str>,
) -> Result<(), Failure> {
    let (event, facts) = match change {
        Change::None => return Ok(()),
        Change::Unreachable => (
            PlatformEvent::ServerUnreachable,
            json!({ "server_id": server.id, "name": server.name, "reason": why.unwrap_or_default() }),
        ),
        Change::Recovered => (PlatformEvent::ServerRecovered, json!({ "server_id": server.id, "name": server.name })),
    };
    let subject = server.id.to_string();
    if change == Change::Unreachable {
        notices::write(tx, event, &subject, &facts).await?;
    } else {
        notices::settle(tx, &[PlatformEvent::ServerUnreachable], &subject).await?;
    }
    webhooks::emit(tx, event.name(), facts, &cx.by()).await?;
    Ok(())
}
