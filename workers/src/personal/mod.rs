//! What people are entitled to.

mod erase;
mod export;

use gantry_schema::audit::keys::KeyError;
use gantry_schema::audit::receipts::{self, Receipt};

use crate::{Context, Failure};

/// Signs a statement in the name of the installation.
async fn signed(cx: &Context, statement: String) -> Result<Receipt, Failure> {
    receipts::sign(cx.ledger(), cx.sealing_keys(), statement).await.map_err(|trouble| match trouble {
        KeyError::Database(trouble) => trouble.into(),
        other @ KeyError::Seal(_) => Failure::cancel(other),
    })
}
