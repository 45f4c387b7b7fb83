//! Where Terraform's state lies, for one run.

use async_trait::async_trait;
use gantry_providers::terraform::backend::{StateRefusal, StateStore};
use gantry_schema::servers::states::{self, StateError, Writer};
use gantry_schema::{RunId, StackId};
use serde_json::Value;

use crate::{Context, Failure};

/// The state of a stack, for whoever has its newest number.
pub(crate) struct Store {
    pub cx: Context,
    pub stack: StackId,
    pub run: RunId,
    pub fence: i64,
}

fn refusal(error: StateError) -> StateRefusal {
    match error {
        StateError::Locked(holder) => StateRefusal::Locked(holder),
        StateError::Overtaken | StateError::Refused(_) => StateRefusal::Conflict(error.to_string()),
        StateError::Damaged | StateError::Seal(_) | StateError::Database(_) => StateRefusal::Unavailable(error.into()),
    }
}

fn away(failure: Failure) -> StateRefusal {
    StateRefusal::Unavailable(failure.into())
}

fn lost(error: sqlx::Error) -> StateRefusal {
    StateRefusal::Unavailable(error.into())
}

#[async_trait]
impl StateStore for Store {
    async fn read(&self) -> Result<Option<Vec<u8>>, StateRefusal> {
        let mut tx = self.cx.begin().await.map_err(away)?;
        let state = states::current(&mut tx, self.cx.sealing_keys(), self.stack).await.map_err(refusal)?;
        tx.commit().await.map_err(lost)?;
        Ok(state)
    }

    async fn write(&self, state: &[u8], lock: Option<&str>) -> Result<(), StateRefusal> {
        let mut tx = self.cx.begin().await.map_err(away)?;
        let writer = Writer { stack: self.stack, fence: self.fence, run: self.run, lock };
        states::write(&mut tx, self.cx.sealing_keys(), writer, state).await.map_err(refusal)?;
        tx.commit().await.map_err(lost)
    }

    async fn lock(&self, id: &str, info: &Value) -> Result<(), StateRefusal> {
        let mut tx = self.cx.begin().await.map_err(away)?;
        states::lock(&mut tx, self.stack, self.fence, id, info).await.map_err(refusal)?;
        tx.commit().await.map_err(lost)
    }

    async fn unlock(&self, id: Option<&str>) -> Result<(), StateRefusal> {
        let mut tx = self.cx.begin().await.map_err(away)?;
        states::unlock(&mut tx, self.stack, self.fence, id).await.map_err(refusal)?;
        tx.commit().await.map_err(lost)
    }
}
