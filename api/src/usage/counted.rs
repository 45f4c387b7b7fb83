//! Calls as one process counts them: in memory, and added to the tables now and then. No request waits for that.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use gantry_schema::OrganizationId;
use gantry_schema::usage::{Counted, Credential, Metric, MonthUse, Step, Totals, latency, month_of, next_month};
use poem::http::{HeaderMap, StatusCode, header};
use poem::{Body, Response};

use super::body::Counting;
use crate::error::{Code, Error};
use crate::standing::Standing;

/// Callers, operations and stretches of time that are counted apart. What comes beyond is counted for its organization as
/// a whole, for as many of those again.
const APART: usize = 5_000;

/// What calls are counted as that are not counted apart.
const OTHER: &str = "other";

/// A request that was answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub organization: OrganizationId,
    pub credential: Credential,
    pub operation: &'static str,
    pub status: StatusCode,
    pub took: Duration,
    /// Bytes of its body.
    pub received: u64,
}

/// How long the body of a request says it is.
pub(crate) fn received(headers: &HeaderMap) -> u64 {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    length.unwrap_or(0)
}

/// What is counted apart from everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    organization: OrganizationId,
    credential: Credential,
    operation: &'static str,
    /// The beginning of five minutes.
    starts_at: DateTime<Utc>,
}

/// What is used of a month.
#[derive(Debug, Clone, Copy, Default)]
struct Month {
    /// What all processes have added, as far as this one heard.
    known: Option<MonthUse>,
    /// Calls and bytes that are being added.
    taken: [u64; 2],
    /// Calls and bytes since.
    since: [u64; 2],
}

#[derive(Debug, Default)]
struct Kept {
    places: HashMap<Place, Totals>,
    months: HashMap<(OrganizationId, DateTime<Utc>), Month>,
}

/// What this process counted and has not added yet.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    kept: Mutex<Kept>,
    /// One adds at a time.
    pub(super) turn: tokio::sync::Mutex<()>,
}

/// What is to be added.
pub(super) struct Taken {
    places: HashMap<Place, Totals>,
    pub months: Vec<(OrganizationId, DateTime<Utc>, i64, i64)>,
}

impl Usage {
    /// Counts a request; of its answer, what is sent of it as it is sent.
    pub(crate) fn count(self: &Arc<Self>, call: Call, now: DateTime<Utc>, mut response: Response) -> Response {
        let limited = call.status == StatusCode::TOO_MANY_REQUESTS;
        let mut buckets = vec![0; latency::bucket(call.took) + 1];
        if let Some(last) = buckets.last_mut() {
            *last = 1;
        }
        let totals = Totals {
            calls: 1,
            refused: i64::from(call.status.is_client_error() && !limited),
            limited: i64::from(limited),
            failed: i64::from(call.status.is_server_error()),
            bytes: integer(call.received),
            microseconds: i64::try_from(call.took.as_micros()).unwrap_or(i64::MAX),
            latency: buckets,
        };
        let place = Place {
            organization: call.organization,
            credential: call.credential,
            operation: call.operation,
            starts_at: Step::FiveMinutes.beginning(now),
        };
        self.lock().add(place, &totals, [u64::from(!limited), call.received]);
        let body = response.take_body();
        response.set_body(Body::from(Counting::of(body, Arc::clone(self), place)));
        response
    }

    /// Counts bytes of an answer.
    pub(super) fn sent(&self, place: Place, bytes: u64) {
        if bytes > 0 {
            self.lock().add(place, &Totals { bytes: integer(bytes), ..Totals::default() }, [0, bytes]);
        }
    }

    /// Lets a request of an organization go on, unless the month is used up.
    ///
    /// # Errors
    /// When it is.
    pub(crate) fn admit(
        &self,
        organization: OrganizationId,
        standing: &Standing,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        let given = &standing.allowance.given;
        if Metric::ALL.iter().all(|metric| metric.limit(given).is_none()) {
            return Ok(());
        }
        for metric in Metric::ALL {
            let used = self.used(organization, &standing.used, metric, now);
            if metric.limit(given).is_some_and(|limit| used >= limit) {
                let (what, reset) = (metric.as_str(), next_month(now));
                let detail = format!(
                    "the {used} {what} of this month are all that the organization may use; it goes on at {}",
                    reset.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
                );
                let wait = (reset - now).to_std().unwrap_or_default();
                return Err(Error::new(Code::QuotaExceeded, detail)
                    .after(wait)
                    .violating(&[&format!("monthly-{what}")]));
            }
        }
        Ok(())
    }

    /// What an organization has used of the present month: what is known to be added by all processes, and what this one
    /// has counted besides.
    pub(super) fn used(
        &self,
        organization: OrganizationId,
        read: &MonthUse,
        metric: Metric,
        now: DateTime<Utc>,
    ) -> u64 {
        let month = month_of(now);
        let read = if read.starts_at == month { read.of(metric) } else { 0 };
        match self.lock().months.get(&(organization, month)) {
            Some(of) => {
                let at = usize::from(metric == Metric::Bytes);
                of.known.map_or(read, |known| known.of(metric).max(read)) + of.taken[at] + of.since[at]
            }
            None => read,
        }
    }

    /// Takes what is to be added.
    pub(super) fn take(&self) -> Taken {
        let mut kept = self.lock();
        let places = std::mem::take(&mut kept.places);
        let mut months = Vec::new();
        for ((organization, starts_at), month) in &mut kept.months {
            if month.since != [0; 2] {
                month.taken = std::mem::take(&mut month.since);
                months.push((*organization, *starts_at, integer(month.taken[0]), integer(month.taken[1])));
            }
        }
        Taken { places, months }
    }

    /// It was added, and this is what the months have come to.
    pub(super) fn added(&self, months: &[(OrganizationId, MonthUse)]) {
        let mut kept = self.lock();
        let mut heard = HashSet::new();
        for (organization, known) in months {
            let key = (*organization, known.starts_at);
            if let Some(month) = kept.months.get_mut(&key) {
                *month = Month { known: Some(*known), taken: [0; 2], since: month.since };
                heard.insert(key);
            }
        }
        // Of who did not call since the last time, what was read of him is as good.
        kept.months.retain(|key, month| month.since != [0; 2] || heard.contains(key));
        for month in kept.months.values_mut() {
            month.taken = [0; 2];
        }
    }

    /// It could not be added; the next time it is.
    pub(super) fn put_back(&self, taken: Taken) {
        let mut kept = self.lock();
        for (place, totals) in taken.places {
            kept.add(place, &totals, [0; 2]);
        }
        for month in kept.months.values_mut() {
            let again = std::mem::take(&mut month.taken);
            month.since = [month.since[0] + again[0], month.since[1] + again[1]];
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn add(&mut self, place: Place, totals: &Totals, used: [u64; 2]) {
        let apart = self.places.contains_key(&place) || self.places.len() < APART;
        let place = if apart { place } else { Place { credential: Credential::OTHERS, operation: OTHER, ..place } };
        if self.places.contains_key(&place) || self.places.len() < 2 * APART {
            self.places.entry(place).or_default().add(totals);
        } else {
            metrics::counter!("gantry_api_usage_uncounted_total").increment(totals.calls.unsigned_abs());
        }
        if used == [0; 2] {
            return;
        }
        let key = (place.organization, month_of(place.starts_at));
        if self.months.contains_key(&key) || self.months.len() < 2 * APART {
            let month = self.months.entry(key).or_default();
            month.since = [month.since[0] + used[0], month.since[1] + used[1]];
        }
    }
}

impl Taken {
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty() && self.months.is_empty()
    }

    /// As rows of every length.
    pub(super) fn rows(&self) -> Vec<Counted> {
        let mut rows: HashMap<(Place, Step), Totals> = HashMap::new();
        for (place, totals) in &self.places {
            for step in Step::ALL {
                let within = Place { starts_at: step.beginning(place.starts_at), ..*place };
                rows.entry((within, step)).or_default().add(totals);
            }
        }
        let row = |((place, step), totals): ((Place, Step), Totals)| Counted {
            organization_id: place.organization.uuid(),
            step: step.as_str(),
            starts_at: place.starts_at,
            credential_kind: place.credential.kind.as_str(),
            credential_id: place.credential.id,
            operation: place.operation,
            totals,
        };
        rows.into_iter().map(row).collect()
    }
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn call(number: u128) -> Call {
        Call {
            organization: OrganizationId::PLATFORM,
            credential: Credential {
                kind: gantry_schema::usage::CredentialKind::ApiKey,
                id: uuid::Uuid::from_u128(number),
            },
            operation: "listJobs",
            status: StatusCode::OK,
            took: Duration::from_millis(2),
            received: 0,
        }
    }

    #[test]
    fn a_call_is_a_row_of_each_length() {
        let usage = Arc::new(Usage::default());
        for moment in ["2026-01-15T12:04:59Z", "2026-01-15T12:05:00Z"] {
            drop(usage.count(call(1), at(moment), Response::default()));
        }
        let taken = usage.take();
        let mut rows: Vec<_> = taken.rows().into_iter().map(|row| (row.step, row.totals.calls)).collect();
        rows.sort_unstable();
        assert_eq!(rows, [("5m", 1), ("5m", 1), ("day", 2), ("hour", 2), ("month", 2)]);
        assert_eq!(taken.months, [(OrganizationId::PLATFORM, at("2026-01-01T00:00:00Z"), 2, 0)]);
        assert!(usage.take().is_empty());
    }

    #[test]
    fn there_is_a_bound_and_nothing_that_an_organization_used_is_lost_beyond_it() {
        let (usage, now) = (Arc::new(Usage::default()), at("2026-01-15T12:00:00Z"));
        for number in 0..=APART as u128 + 10 {
            drop(usage.count(call(number), now, Response::default()));
        }
        let taken = usage.take();
        assert_eq!(taken.places.len(), APART + 1);
        let total: i64 = taken.places.values().map(|totals| totals.calls).sum();
        assert_eq!(total, i64::try_from(APART).unwrap() + 11);
        assert_eq!(taken.months[0].2, i64::try_from(APART).unwrap() + 11);
    }

    #[test]
    fn what_could_not_be_added_is_there_the_next_time() {
        let (usage, now) = (Arc::new(Usage::default()), at("2026-01-15T12:00:00Z"));
        let none = MonthUse::none(at("2026-01-01T00:00:00Z"));
        drop(usage.count(call(1), now, Response::default()));
        let taken = usage.take();
        drop(usage.count(call(1), now, Response::default()));
        assert_eq!(usage.used(OrganizationId::PLATFORM, &none, Metric::Calls, now), 2, "also what is on its way");
        usage.put_back(taken);
        let taken = usage.take();
        assert_eq!((taken.months[0].2, taken.places.values().next().unwrap().calls), (2, 2));
        usage.added(&[(OrganizationId::PLATFORM, MonthUse { calls: 7, ..none })]);
        assert_eq!(usage.used(OrganizationId::PLATFORM, &none, Metric::Calls, now), 7);
        let next = at("2026-02-01T00:00:00Z");
        assert_eq!(usage.used(OrganizationId::PLATFORM, &none, Metric::Calls, next), 0, "another month");
    }
}
