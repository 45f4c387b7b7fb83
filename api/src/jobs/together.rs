//! Asking for jobs and looking at them, many requests in one statement; [`gantry_jobs::gather`] says how and why.

use std::collections::HashMap;
use std::sync::Arc;

use gantry_jobs::gather::{Together, Unanswered};
use gantry_schema::audit::{Author, Draft};
use gantry_schema::jobs::together::{enqueue_together, find_together, may_join};
use gantry_schema::jobs::{Enqueued, Job, NewJob};
use gantry_schema::{Db, JobId, OrganizationId};

use crate::app::App;
use crate::error::{Code, Error};

use super::ask_for_one;

/// Writes single jobs down in one commit. Each is answered after it.
pub(crate) struct Asks(pub(crate) Db);

impl Together for Asks {
    /// A job, and who asks for it.
    type Question = (NewJob, Arc<Author>);
    type Answer = Result<Enqueued, Error>;

    /// Payloads may be large.
    const AT_ONCE: usize = 100;

    async fn answer(&self, organization: OrganizationId, asks: Vec<Self::Question>) -> Vec<Self::Answer> {
        let Self(db) = self;
        let (jobs, authors): (Vec<NewJob>, Vec<Arc<Author>>) = asks.into_iter().unzip();
        match enqueue_together(db, organization, &jobs, &authors).await {
            Ok(enqueued) => return enqueued.into_iter().map(Ok).collect(),
            // Nothing was written. Whose fault it is shows when each goes alone.
            Err(error) if jobs.len() > 1 && may_be_of_one(&error) => {}
            Err(error) => return all_fail(jobs.len(), error),
        }
        let mut answers = Vec::with_capacity(jobs.len());
        for (job, author) in jobs.iter().zip(&authors) {
            answers.push(alone(db, organization, job, author).await);
        }
        answers
    }
}

/// Writes one job down that may join others.
async fn alone(db: &Db, organization: OrganizationId, job: &NewJob, author: &Arc<Author>) -> Result<Enqueued, Error> {
    let (jobs, authors) = (std::slice::from_ref(job), std::slice::from_ref(author));
    let enqueued = enqueue_together(db, organization, jobs, authors).await?;
    Ok(enqueued.first().copied().ok_or(sqlx::Error::RowNotFound)?)
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
pub(super) async fn enqueue(
    app: &App,
    organization: OrganizationId,
    job: NewJob,
    author: Arc<Author>,
) -> Result<Enqueued, Error> {
    if !may_join(&job) {
        let mut tx = app.db.tenant(organization).await?.by(author);
        *tx.audit() = Draft::new("job.ask_for");
        let enqueued = ask_for_one(&mut tx, job).await?;
        tx.commit().await?;
        return Ok(enqueued);
    }
    match app.asks.ask(organization, (job, author)).await {
        Ok(answer) => answer,
        Err(Unanswered::Crowded((job, author))) => alone(&app.db, organization, &job, &author).await,
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
    use gantry_schema::audit::Actor;
    use gantry_schema::db::Silent;
    use gantry_schema::seal::{SealingKey, SealingKeys};
    use gantry_schema::{FixedClock, IdMint};
    use serde_json::value::RawValue;
    use sqlx::PgPool;

    use super::*;

    #[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
    async fn a_job_that_cannot_be_stored_fails_alone(pool: PgPool) {
        let clock = Shared::new(FixedClock::at(chrono::DateTime::UNIX_EPOCH));
        let ids = Shared::new(IdMint::seeded(clock.clone(), 7));
        let options = (*pool.connect_options()).clone().username("gantry_app");
        let key = SealingKey::from_base64("test", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=").unwrap();
        let keys = Shared::new(SealingKeys::new(key, Vec::new()).unwrap());
        let db = Db::connect(options, 4, clock, ids, Shared::new(Silent)).await.unwrap().recording(keys);
        let job = |payload: &str| {
            let (kind, empty) = (catalogue::find("diagnostics.probe").unwrap(), RawValue::from_string("{}".to_owned()));
            let (asked, by) = (request::Asked::default(), By::platform("test"));
            let new = kind.new_job(&empty.unwrap(), &asked, &by, db.now()).unwrap();
            NewJob { payload: payload.to_owned(), ..new }
        };
        // No kind lets such a payload through; this is the net below.
        let author = Shared::new(Author::new(Actor::operator()));
        let asks = [r#"{"a": 1}"#, r#"{"a": "\u0000"}"#, r#"{"a": 3}"#];
        let jobs = asks.map(|payload| (job(payload), Shared::clone(&author))).to_vec();
        let asks = Asks(db.clone());
        let answers = asks.answer(OrganizationId::PLATFORM, jobs).await;
        assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(answers[1].as_ref().unwrap_err().code(), Code::InvalidField);
        let stored: Vec<String> =
            sqlx::query_scalar("select payload::text from jobs order by id").fetch_all(&pool).await.unwrap();
        assert_eq!(stored, [r#"{"a": 1}"#, r#"{"a": 3}"#]);
        let recorded: Vec<String> =
            sqlx::query_scalar("select action from audit_entries").fetch_all(&pool).await.unwrap();
        assert_eq!(recorded, ["job.ask_for", "job.ask_for"]);
    }
}
