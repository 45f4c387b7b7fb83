//! What is recorded of jobs that are asked for. Requests that go to the ledger in one statement share an entry where they
//! come from the same caller at the same place: it names each job with its kind and its request.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::author::Author;
use super::draft::{Draft, Target};
use crate::JobId;
use crate::jobs::NewJob;

/// What it is called when jobs are asked for, one or many.
pub(super) const ASKING: [&str; 2] = ["job.ask_for", "jobs.ask_for"];

/// Jobs of one request that are named; of more there are only numbers.
const MAX_NAMED: usize = 100;

/// Jobs that were asked for by requests of their own, as entries.
pub(crate) fn asking(jobs: &[NewJob], ids: &[JobId], authors: &[Arc<Author>]) -> Vec<(Draft, Arc<Author>)> {
    let mut groups: Vec<(&Arc<Author>, Vec<usize>)> = Vec::new();
    for (place, author) in authors.iter().enumerate() {
        match groups.iter_mut().find(|(other, _)| is_same_place(other, author)) {
            Some((_, places)) => places.push(place),
            None => groups.push((author, vec![place])),
        }
    }
    let entry = |(author, places): (&Arc<Author>, Vec<usize>)| {
        let mut draft = Draft::new(ASKING[0]);
        if let [alone] = places[..] {
            asks_for(&mut draft, &[(ids[alone], &jobs[alone].kind)]);
            return (draft, Arc::clone(author));
        }
        for place in places {
            let request = &authors[place].request;
            draft.set(&ids[place].to_string(), json!({ "kind": jobs[place].kind, "request_id": request }));
        }
        (draft, Arc::new(Author { request: None, trace: None, ..Author::clone(author) }))
    };
    groups.into_iter().map(entry).collect()
}

/// The same caller at the same place, whatever its request.
fn is_same_place(one: &Author, other: &Author) -> bool {
    one.actor == other.actor
        && one.authority == other.authority
        && one.address == other.address
        && one.user_agent == other.user_agent
}

/// Says that these jobs were asked for, each with its kind.
pub fn asks_for(draft: &mut Draft, jobs: &[(JobId, &String)]) {
    if let [(job, kind)] = jobs {
        draft.target(Target::of(job)).set("kind", kind);
        return;
    }
    draft.set("count", jobs.len());
    if jobs.len() <= MAX_NAMED {
        for (job, kind) in jobs {
            draft.set(&job.to_string(), json!({ "kind": kind }));
        }
        return;
    }
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, kind) in jobs {
        *kinds.entry(kind).or_default() += 1;
    }
    let ends = (jobs.first().map(|(job, _)| job), jobs.last().map(|(job, _)| job));
    draft.set("kinds", kinds).set("first", ends.0).set("last", ends.1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Actor;

    fn job(number: u128) -> (JobId, NewJob) {
        let new = NewJob {
            kind: "diagnostics.probe".to_owned(),
            queue: "default".to_owned(),
            priority: 5,
            max_attempts: 1,
            lease_seconds: 1,
            run_at: None,
            expires_at: None,
            unique: None,
            concurrency: None,
            rate_key: None,
            payload: "{}".to_owned(),
            after: Vec::new(),
            traceparent: None,
            requested_by: "story".to_owned(),
        };
        (JobId::from_uuid(uuid::Uuid::from_u128(number)), new)
    }

    fn author(user_agent: &str, request: &str) -> Arc<Author> {
        let actor = Actor::api_key(crate::ApiKeyId::from_uuid(uuid::Uuid::nil()));
        Arc::new(Author {
            user_agent: Some(user_agent.to_owned()),
            request: Some(request.to_owned()),
            ..Author::new(actor)
        })
    }

    #[test]
    fn requests_of_one_caller_share_an_entry_that_names_each_job_and_request() {
        let (ids, jobs): (Vec<_>, Vec<_>) = (0..3).map(job).unzip();
        let authors = [author("curl", "one"), author("other", "two"), author("curl", "three")];
        let entries = asking(&jobs, &ids, &authors);
        assert_eq!(entries.len(), 2);
        let (both, by) = &entries[0];
        assert_eq!((by.request.as_deref(), by.user_agent.as_deref()), (None, Some("curl")));
        let changes = both.changes.clone().into_kept();
        let said = |place: usize| (changes[place].path.clone(), changes[place].after.clone().unwrap());
        assert_eq!(said(0), (ids[0].to_string(), json!({ "kind": "diagnostics.probe", "request_id": "one" })));
        assert_eq!(said(1), (ids[2].to_string(), json!({ "kind": "diagnostics.probe", "request_id": "three" })));
        let (alone, by) = &entries[1];
        assert_eq!(by.request.as_deref(), Some("two"));
        assert_eq!(alone.target, Some(Target::of(&ids[1])));
    }

    #[test]
    fn of_very_many_jobs_there_are_numbers() {
        let (ids, jobs): (Vec<_>, Vec<_>) = (0..500).map(job).unzip();
        let named: Vec<_> = ids.iter().copied().zip(jobs.iter().map(|job| &job.kind)).collect();
        let mut draft = Draft::new(ASKING[1]);
        asks_for(&mut draft, &named);
        let changes = draft.changes.into_kept();
        let paths: Vec<_> = changes.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(paths, ["count", "kinds", "first", "last"]);
        assert_eq!(changes[1].after, Some(json!({ "diagnostics.probe": 500 })));
    }
}
