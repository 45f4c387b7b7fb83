//! Asking for jobs and looking at them, many requests in one statement; [`gantry_jobs::gather`] says how and why.

use std::collections::HashMap;
use std::sync::Arc;

use gantry_jobs::gather::{Together, Unanswered};
use gantry_schema::jobs::enqueue::enqueue_alone;
use gantry_schema::jobs::together::{enqueue_together, find_together, may_join};
use gantry_schema::jobs::{Enqueued, Job, NewJob};
use gantry_schema::{Db, JobId, OrganizationId};

use crate::app::App;
use crate::error::{Code, Error};

/// Writes single jobs down in one commit. Each is answered after it.
pub(crate) struct Asks(pub(crate) Db);

impl Together for Asks {
    type Question = NewJob;
    type Answer = Result<Enqueued, Error>;

    /// Payloads may be large.
    const AT_ONCE: usize = 100;

    async fn answer(&self, organization: OrganizationId, jobs: Vec<NewJob>) -> Vec<Self::Answer> {
        let Self(db) = self;
        if jobs.len() > 1 {
            match enqueue_together(db, organization, &jobs).await {
                Ok(enqueued) => return enqueued.into_iter().map(Ok).collect(),
                // Nothing was written. Whose fault it is shows when each goes alone.
                Err(error) if may_be_of_one(&error) => {}
                Err(error) => return all_fail(jobs.len(), error),
            }
        }
        let mut answers = Vec::with_capacity(jobs.len());
        for job in jobs {
            answers.push(enqueue_alone(db, organization, job).await.map_err(Error::from));
        }
        answers
    }
}

/// Looks at jobs.
pub(crate) struct Looks(pub(crate) Db);

impl Together for Looks {
    type Question = JobId;
    type Answer = Result<Option<Arc<Job>>, Error>;

    const AT_ONCE: usize = 500;

    async fn answer(&self, organization: OrganizationId, ids: Vec<JobId>) -> Vec<Self::Answer> {
        let Self(db) = self;
        match find_together(db, organization, &ids).await {
            Ok(found) => {
                let found: HashMap<JobId, Arc<Job>> = found.into_iter().map(|job| (job.id, Arc::new(job))).collect();
                ids.iter().map(|id| Ok(found.get(id).cloned())).collect()
            }
            Err(error) if ids.len() > 1 && may_be_of_one(&error) => {
                let mut answers = Vec::with_capacity(ids.len());
                for id in ids {
                    let found = find_together(db, organization, &[id]).await;
                    answers.push(found.map(|mut found| found.pop().map(Arc::new)).map_err(Error::from));
                }
                answers
            }
            Err(error) => all_fail(ids.len(), error),
        }
    }
}

/// Whether an error may be about one of the rows, and not about all of the statement: a value that PostgreSQL cannot
/// hold (classes 22, 23 and 54), or one that this release cannot read.
fn may_be_of_one(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.starts_with(class)))
        }
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => true,
        _ => false,
    }
}

fn all_fail<T>(count: usize, error: sqlx::Error) -> Vec<Result<T, Error>> {
    let error = Arc::new(error);
    (0..count).map(|_| Err(Error::from(Arc::clone(&error)))).collect()
}

/// Writes a job down that nothing else belongs to, together with others if there are any.
pub(super) async fn enqueue(app: &App, organization: OrganizationId, job: NewJob) -> Result<Enqueued, Error> {
    if !may_join(&job) {
        return Ok(enqueue_alone(&app.db, organization, job).await?);
    }
    match app.asks.ask(organization, job).await {
        Ok(answer) => answer,
        Err(Unanswered::Crowded(job)) => Ok(enqueue_alone(&app.db, organization, job).await?),
        Err(Unanswered::Lost) => Err(lost()),
    }
}

/// Looks at a job of the organization.
pub(super) async fn look(app: &App, organization: OrganizationId, job: JobId) -> Result<Arc<Job>, Error> {
    let found = match app.looks.ask(organization, job).await {
        Ok(answer) => answer?,
        Err(Unanswered::Crowded(job)) => find_together(&app.db, organization, &[job]).await?.pop().map(Arc::new),
        Err(Unanswered::Lost) => return Err(lost()),
    };
    found.ok_or_else(|| Error::not_found(job))
}

fn lost() -> Error {
    Error::new(Code::Internal, "it was noted; tell us the request_id if it happens again")
        .because("what answers requests together panicked")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc as Shared;

    use gantry_jobs::catalogue;
    use gantry_jobs::{By, request};
    use gantry_schema::db::Silent;
    use gantry_schema::{FixedClock, IdMint};
    use serde_json::value::RawValue;
    use sqlx::PgPool;

    use super::*;

    #[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
    async fn a_job_that_cannot_be_stored_fails_alone(pool: PgPool) {
        let clock = Shared::new(FixedClock::at(chrono::DateTime::UNIX_EPOCH));
        let ids = Shared::new(IdMint::seeded(clock.clone(), 7));
        let options = (*pool.connect_options()).clone().username("gantry_app");
        let db = Db::connect(options, 4, clock, ids, Shared::new(Silent)).await.unwrap();
        let job = |payload: &str| {
            let (kind, empty) = (catalogue::find("diagnostics.probe").unwrap(), RawValue::from_string("{}".to_owned()));
            let (asked, by) = (request::Asked::default(), By::platform("test"));
            let new = kind.new_job(&empty.unwrap(), &asked, &by, db.now()).unwrap();
            NewJob { payload: payload.to_owned(), ..new }
        };
        // No kind lets such a payload through; this is the net below.
        let jobs = vec![job(r#"{"a": 1}"#), job(r#"{"a": "\u0000"}"#), job(r#"{"a": 3}"#)];
        let asks = Asks(db.clone());
        let answers = asks.answer(OrganizationId::PLATFORM, jobs).await;
        assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(answers[1].as_ref().unwrap_err().code(), Code::InvalidField);
        let stored: Vec<String> =
            sqlx::query_scalar("select payload::text from jobs order by id").fetch_all(&pool).await.unwrap();
        assert_eq!(stored, [r#"{"a": 1}"#, r#"{"a": 3}"#]);
    }
}
