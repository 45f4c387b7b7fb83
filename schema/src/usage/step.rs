//! The stretches of time that calls are counted over.

use std::str::FromStr;

use chrono::{DateTime, DurationRound as _, Months, TimeDelta, Utc};

use super::quota::month_of;

/// How long a stretch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Five minutes.
    FiveMinutes,
    /// An hour.
    Hour,
    /// A day, UTC.
    Day,
    /// A calendar month, UTC.
    Month,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::FiveMinutes, Self::Hour, Self::Day, Self::Month];

    /// The word that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FiveMinutes => "5m",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The beginning of the stretch in which a moment lies.
    #[must_use]
    pub fn beginning(self, moment: DateTime<Utc>) -> DateTime<Utc> {
        let length = match self {
            Self::FiveMinutes => TimeDelta::minutes(5),
            Self::Hour => TimeDelta::hours(1),
            Self::Day => TimeDelta::days(1),
            Self::Month => return month_of(moment),
        };
        // Only moments centuries away cannot be rounded.
        moment.duration_trunc(length).unwrap_or(moment)
    }

    /// The beginning of the stretch that comes so many later, or earlier.
    #[must_use]
    pub fn shifted(self, beginning: DateTime<Utc>, by: i32) -> DateTime<Utc> {
        let length = match self {
            Self::FiveMinutes => TimeDelta::minutes(5),
            Self::Hour => TimeDelta::hours(1),
            Self::Day => TimeDelta::days(1),
            Self::Month => {
                let months = Months::new(by.unsigned_abs());
                let shifted =
                    if by < 0 { beginning.checked_sub_months(months) } else { beginning.checked_add_months(months) };
                return shifted.unwrap_or(beginning);
            }
        };
        beginning + length * by
    }

    /// How long its rows are kept.
    #[must_use]
    pub const fn kept(self) -> TimeDelta {
        match self {
            Self::FiveMinutes => TimeDelta::days(3),
            Self::Hour => TimeDelta::days(45),
            Self::Day => TimeDelta::days(400),
            Self::Month => TimeDelta::days(5 * 366),
        }
    }
}

/// How far back somebody looks, and in which steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Range {
    /// An hour, of five minutes each.
    Hour,
    /// A day, of five minutes each.
    Day,
    /// A week, of an hour each.
    Week,
    /// Thirty days.
    Month,
    /// Ninety days.
    Quarter,
    /// Twelve months.
    Year,
}

/// The word names no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write 1h, 24h, 7d, 30d, 90d or 12mo")]
pub struct UnknownRange;

impl Range {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Quarter, Self::Year];

    /// The word that is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "24h",
            Self::Week => "7d",
            Self::Month => "30d",
            Self::Quarter => "90d",
            Self::Year => "12mo",
        }
    }

    /// The steps it is made of.
    #[must_use]
    pub const fn step(self) -> Step {
        match self {
            Self::Hour | Self::Day => Step::FiveMinutes,
            Self::Week => Step::Hour,
            Self::Month | Self::Quarter => Step::Day,
            Self::Year => Step::Month,
        }
    }

    /// How many of them, the one that has not ended yet among them.
    #[must_use]
    pub const fn count(self) -> i32 {
        match self {
            Self::Hour => 12,
            Self::Day => 288,
            Self::Week => 168,
            Self::Month => 30,
            Self::Quarter => 90,
            Self::Year => 12,
        }
    }

    /// The beginning of each of its steps, oldest first.
    #[must_use]
    pub fn beginnings(self, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let (step, last) = (self.step(), self.step().beginning(now));
        (1 - self.count()..=0).map(|by| step.shifted(last, by)).collect()
    }

    /// When it begins.
    #[must_use]
    pub fn since(self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.step().shifted(self.step().beginning(now), 1 - self.count())
    }
}

impl FromStr for Range {
    type Err = UnknownRange;

    fn from_str(word: &str) -> Result<Self, UnknownRange> {
        Self::ALL.into_iter().find(|range| range.as_str() == word).ok_or(UnknownRange)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_moment_lies_in_one_stretch_of_each_length() {
        let moment = at("2026-03-31T23:59:59.999Z");
        let beginnings = Step::ALL.map(|step| step.beginning(moment));
        assert_eq!(
            beginnings,
            [
                at("2026-03-31T23:55:00Z"),
                at("2026-03-31T23:00:00Z"),
                at("2026-03-31T00:00:00Z"),
                at("2026-03-01T00:00:00Z")
            ]
        );
    }

    #[test]
    fn a_year_is_made_of_calendar_months() {
        let months = Range::Year.beginnings(at("2026-03-31T12:00:00Z"));
        assert_eq!((months.len(), months[0], months[11]), (12, at("2025-04-01T00:00:00Z"), at("2026-03-01T00:00:00Z")));
        assert!(months.into_iter().all(|month| month_of(month) == month));
    }

    #[test]
    fn every_range_is_kept_as_long_as_it_is() {
        let now = at("2026-03-31T12:00:00Z");
        for range in Range::ALL {
            assert!(now - range.since(now) < range.step().kept(), "{range:?}");
            assert_eq!(range.as_str().parse(), Ok(range));
        }
        assert_eq!("2h".parse::<Range>(), Err(UnknownRange));
    }

    proptest! {
        #[test]
        fn stretches_follow_one_another_without_a_gap(seconds in 0_i64..4_000_000_000, step in 0_usize..4) {
            let (moment, step) = (DateTime::from_timestamp(seconds, 0).unwrap(), Step::ALL[step]);
            let beginning = step.beginning(moment);
            prop_assert!(beginning <= moment && moment < step.shifted(beginning, 1));
            prop_assert_eq!(step.beginning(step.shifted(beginning, 1)), step.shifted(beginning, 1));
            prop_assert_eq!(step.shifted(step.shifted(beginning, -1), 1), beginning);
        }
    }
}
