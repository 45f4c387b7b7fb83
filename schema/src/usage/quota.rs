//! What an organization used of a month, against what it may use.

use chrono::{DateTime, Datelike as _, Months, NaiveTime, Utc};

use crate::limits::Given;

/// Of what is told when it is nearly used up, in percent.
pub const THRESHOLDS: [u8; 4] = [80, 90, 95, 100];

/// What is counted over a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Calls; those that came too often are none.
    Calls,
    /// Bytes of bodies, of requests and answers.
    Bytes,
}

impl Metric {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Calls, Self::Bytes];

    /// The word that is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Bytes => "bytes",
        }
    }

    /// How much there may be in a month; `None`: any number.
    #[must_use]
    pub const fn limit(self, given: &Given) -> Option<u64> {
        match self {
            Self::Calls => given.monthly_calls,
            Self::Bytes => given.monthly_bytes,
        }
    }
}

/// What was used of a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MonthUse {
    /// When the month began.
    pub starts_at: DateTime<Utc>,
    /// Calls.
    pub calls: u64,
    /// Bytes.
    pub bytes: u64,
    /// The highest threshold of calls that was told.
    pub calls_told: u8,
    /// The highest threshold of bytes that was told.
    pub bytes_told: u8,
}

impl MonthUse {
    /// A month in which nothing was used.
    #[must_use]
    pub const fn none(starts_at: DateTime<Utc>) -> Self {
        Self { starts_at, calls: 0, bytes: 0, calls_told: 0, bytes_told: 0 }
    }

    /// How much was used.
    #[must_use]
    pub const fn of(&self, metric: Metric) -> u64 {
        match metric {
            Metric::Calls => self.calls,
            Metric::Bytes => self.bytes,
        }
    }

    /// The highest threshold that was told.
    #[must_use]
    pub const fn told(&self, metric: Metric) -> u8 {
        match metric {
            Metric::Calls => self.calls_told,
            Metric::Bytes => self.bytes_told,
        }
    }
}

/// The thresholds that are crossed and were not told, from the lowest.
pub fn crossed(used: u64, limit: u64, told: u8) -> impl Iterator<Item = u8> {
    let reached = move |threshold: u8| u128::from(used) * 100 >= u128::from(limit) * u128::from(threshold);
    THRESHOLDS.into_iter().filter(move |threshold| *threshold > told && reached(*threshold))
}

/// The beginning of the month in which a moment lies, UTC.
#[must_use]
pub fn month_of(moment: DateTime<Utc>) -> DateTime<Utc> {
    let day = moment.date_naive();
    day.with_day(1).unwrap_or(day).and_time(NaiveTime::MIN).and_utc()
}

/// The beginning of the month after it.
#[must_use]
pub fn next_month(moment: DateTime<Utc>) -> DateTime<Utc> {
    let month = month_of(moment);
    month.checked_add_months(Months::new(1)).unwrap_or(month)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_month_ends_where_the_next_begins() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        assert_eq!(month_of(at("2028-02-29T23:59:59Z")), at("2028-02-01T00:00:00Z"));
        assert_eq!(next_month(at("2028-01-31T00:00:00Z")), at("2028-02-01T00:00:00Z"));
        assert_eq!(next_month(at("2026-12-31T23:59:59.9Z")), at("2027-01-01T00:00:00Z"));
    }

    #[test]
    fn thresholds_are_told_once_each_also_when_several_are_crossed_at_once() {
        let told = |used, limit, told| crossed(used, limit, told).collect::<Vec<_>>();
        assert_eq!(told(79, 100, 0), Vec::<u8>::new());
        assert_eq!(told(80, 100, 0), [80]);
        assert_eq!(told(96, 100, 0), [80, 90, 95]);
        assert_eq!(told(96, 100, 90), [95]);
        assert_eq!(told(u64::MAX, u64::MAX, 95), [100]);
        assert_eq!(told(5, 1, 100), Vec::<u8>::new(), "there is none above");
    }

    proptest! {
        #[test]
        fn going_on_tells_each_threshold_once(steps in proptest::collection::vec(0_u64..40, 1..40)) {
            let (mut used, mut told, mut all) = (0, 0, Vec::new());
            for step in steps {
                used += step;
                for threshold in crossed(used, 200, told).collect::<Vec<_>>() {
                    all.push(threshold);
                    told = threshold;
                }
            }
            let expected: Vec<u8> = THRESHOLDS.into_iter().filter(|it| used * 100 >= 200 * u64::from(*it)).collect();
            prop_assert_eq!(all, expected);
        }
    }
}
