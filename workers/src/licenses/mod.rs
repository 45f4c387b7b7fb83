//! Licenses.

pub(crate) mod allow;
mod recount;
mod watch;

use std::collections::VecDeque;

use gantry_schema::OrganizationId;
use gantry_schema::licenses::queries;

use crate::{Context, Failure};

/// Organizations looked up at once.
const BATCH: i32 = 500;

/// The organizations that have a license, one after the other.
#[derive(Debug, Default)]
struct Licensees {
    page: VecDeque<OrganizationId>,
    last: Option<OrganizationId>,
    over: bool,
}

impl Licensees {
    /// The next one; `None`: that was the last.
    async fn next(&mut self, cx: &Context) -> Result<Option<OrganizationId>, Failure> {
        if cx.is_stopped() {
            return Err(Failure::retry("stopped in between; what was done is done"));
        }
        if self.page.is_empty() && !self.over {
            let page = queries::watched(cx.ledger(), self.last, BATCH).await?;
            self.over = i32::try_from(page.len()).is_ok_and(|found| found < BATCH);
            self.page = page.into();
        }
        self.last = self.page.pop_front();
        Ok(self.last)
    }
}
