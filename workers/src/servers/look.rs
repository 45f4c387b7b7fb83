use gantry_jobs::servers::LookAtServer;
use gantry_schema::servers::watch::{self, Change};
use gantry_schema::servers::{keys, queries as servers};
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::{TenantTx, notices};
use serde_json::json;

use super::{reach, tell};
use crate::{Context, Done, Failure, Run};

impl Run for LookAtServer {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let mut tx = cx.begin().await?;
        let server = servers::find(&mut tx, self.server).await?;
        // It is looked at as long as it is there.
        let Some((server, place)) = server.and_then(|server| server.place.clone().map(|place| (server, place))) else {
            return cx.complete(tx).await;
        };
        let Some(key) = server.ssh_key else { return cx.complete(tx).await };
        let key = keys::open(&mut tx, cx.sealing_keys(), key).await.map_err(Failure::retry)?;
        let key = key.ok_or_else(|| Failure::cancel("the SSH key of the stack is gone"))?;
        tx.commit().await?;
        let why = match reach::enter(cx, &server, &place, &key).await {
            Ok(session) => {
                session.leave().await;
                None
            }
            Err(error) => Some(error.to_string()),
        };

        let mut tx = cx.begin().await?;
        let Some(before) = watch::hold(&mut tx, self.server).await? else { return cx.complete(tx).await };
        let change = watch::judge(why.is_none(), before.misses, before.down);
        watch::looked(&mut tx, self.server, before, why.is_none(), change).await?;
        if !before.maintenance {
            announce(cx, &mut tx, &server, change, why.as_deref().unwrap_or_default()).await?;
        }
        cx.complete(tx).await
    }
}

/// Tells programs and people what is different.
async fn announce(
    cx: &Context,
    tx: &mut TenantTx,
    server: &servers::Server,
    change: Change,
    why: &str,
) -> Result<(), Failure> {
    let subject = server.id.to_string();
    match change {
        Change::None => Ok(()),
        Change::Unreachable => {
            let facts = json!({ "server_id": server.id, "name": server.name, "reason": why });
            notices::write(tx, PlatformEvent::ServerUnreachable, &subject, &facts).await?;
            tell(cx, tx, PlatformEvent::ServerUnreachable, server, json!({ "reason": why })).await
        }
        Change::Recovered => {
            notices::settle(tx, &[PlatformEvent::ServerUnreachable], &subject).await?;
            tell(cx, tx, PlatformEvent::ServerRecovered, server, json!({})).await
        }
    }
}
