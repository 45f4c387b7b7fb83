//! When a recurring job is due: cron expressions in a time zone, what to do about runs that were missed, and how to
//! spread runs that would start together. Pure rules: nothing here reads a clock, callers pass `now`.
//!
//! ```
//! # use gantry_schema::schedules::cron::{CronSchedule, MissedRuns};
//! # use chrono::{DateTime, Utc};
//! let nightly = CronSchedule::parse("30 2 * * *", "America/New_York")?;
//! let last_tick: DateTime<Utc> = "2026-03-06T07:30:00Z".parse()?;
//! let now: DateTime<Utc> = "2026-03-09T12:00:00Z".parse()?;
//!
//! // Three nights went by; the middle one is the night on which 02:30 does not exist.
//! let due = MissedRuns::All.due(&nightly, last_tick, now, 100);
//! let ran: Vec<String> = due.ticks.iter().map(|tick| tick.to_rfc3339()).collect();
//! assert_eq!(ran, ["2026-03-07T07:30:00+00:00", "2026-03-08T07:00:00+00:00", "2026-03-09T06:30:00+00:00"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::cmp::Ordering;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Datelike, MappedLocalTime, NaiveDate, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::{GapInfo, TZ_VARIANTS, Tz};
use croner::parser::{CronParser, Seconds, Year};
use croner::{Cron, Weekday, YEAR_UPPER_LIMIT};
use serde::{Deserialize, Serialize};

/// The longest expression that is read; real ones are a tenth of it.
pub const MAX_EXPRESSION_LENGTH: usize = 200;

/// The most ticks one preview or one catch-up returns.
pub const MAX_TICKS: usize = 1000;

/// Counting what a catch-up leaves out stops here: the number then means "this many or more".
pub const MAX_DROPPED_COUNT: usize = 10_000;

/// A tick this close to `now` is late, not missed: a fail-over or a restart takes about as long.
pub const GRACE: TimeDelta = TimeDelta::seconds(60);

/// A cron expression read in the wall clock time of an IANA time zone.
///
/// Five fields (minute, hour, day of month, month, day of week), or six with leading seconds, or one of `@hourly`
/// `@daily` `@midnight` `@weekly` `@monthly` `@yearly` `@annually`. Names (`JAN`, `MON`), `L`, `15W`, `LW` and `MON#2`
/// are understood. When both day fields are restricted either may match; `+` before the day of week asks for both.
///
/// # When the clocks change
///
/// What an expression means is decided by its hour field.
///
/// An expression that **names its hours** (`2`, `2,14`, `9-17`) promises wall clock times, each once a day:
/// - a time that is skipped in spring fires once, at the first instant after the gap; several skipped times, and a
///   time the expression has at that instant anyway, are one tick;
/// - a time that is repeated in autumn fires the first time only.
///
/// An expression whose hour field is **`*`, a step or all 24 hours** promises a rhythm in real time:
/// - a skipped time does not fire, because no real time passes there (`*/15 * * * *`: 01:45, 03:00);
/// - a repeated time fires both times (`*/15 * * * *`: 01:45, 01:00 again).
///
/// Ticks are whole seconds from the year 1970 to the year 5000; beyond there are none. Zones keep their daylight saving
/// up to 2100, where the compiled zone data ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronSchedule {
    expression: String,
    zone: Tz,
    cron: Cron,
    names_its_hours: bool,
}

impl CronSchedule {
    /// Reads an expression and a zone name, or says which of the two is wrong and how to put it right.
    pub fn parse(expression: &str, zone: &str) -> Result<Self, CronError> {
        let zone = parse_zone(zone)?;
        let fields = split_fields(expression)?;
        let cron = parse_fields(&fields)?;
        let expression = expression.trim().to_owned();
        if !fires_on_some_day(&cron) {
            return Err(CronError::NeverFires { expression });
        }
        let names_its_hours = !fields[HOUR].contains(['*', '/']) && cron.pattern.hours.values().len() < 24;
        Ok(Self { expression, zone, cron, names_its_hours })
    }

    /// The expression as it was given.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The zone its wall clock times are in.
    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// The first tick strictly after `after`.
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if after.year() >= YEAR_UPPER_LIMIT {
            return None;
        }
        let after = after.max(DateTime::UNIX_EPOCH - TimeDelta::seconds(1));
        if self.names_its_hours { self.next_by_the_wall_clock(after) } else { self.next_in_real_time(after) }
    }

    /// The next `count` ticks after `after`, at most [`MAX_TICKS`]: the preview of a schedule.
    pub fn upcoming(&self, after: DateTime<Utc>, count: usize) -> Vec<DateTime<Utc>> {
        self.ticks_after(after).take(count.min(MAX_TICKS)).collect()
    }

    /// The ticks in `(after, until]`, oldest first; where there are more than `limit`, the oldest `limit`.
    ///
    /// The interval is open at its start and closed at its end, so consecutive intervals neither share nor lose a tick.
    pub fn ticks_between(&self, after: DateTime<Utc>, until: DateTime<Utc>, limit: usize) -> Vec<DateTime<Utc>> {
        self.ticks_after(after).take_while(|tick| *tick <= until).take(limit).collect()
    }

    /// The shortest time between two ticks on days that follow each other, changes of the clock aside.
    pub fn shortest_interval(&self) -> Duration {
        const DAY: u64 = 24 * 60 * 60;
        let pattern = &self.cron.pattern;
        let (minutes, seconds) = (pattern.minutes.values(), pattern.seconds.values());
        let mut times = Vec::new();
        for hour in pattern.hours.values() {
            for minute in &minutes {
                times.extend(
                    seconds.iter().map(|second| u64::from(hour) * 3600 + u64::from(*minute) * 60 + u64::from(*second)),
                );
            }
        }
        let within_a_day = times.windows(2).map(|pair| pair[1] - pair[0]).min();
        let over_midnight = times.first().zip(times.last()).map(|(first, last)| first + DAY - last);
        Duration::from_secs(within_a_day.into_iter().chain(over_midnight).min().unwrap_or(DAY))
    }

    /// Refuses a schedule that fires more often than every `minimum`. One second is the least an expression can say.
    pub fn no_more_often_than(self, minimum: Duration) -> Result<Self, CronError> {
        let shortest = self.shortest_interval();
        if shortest < minimum { Err(CronError::TooOften { shortest, minimum }) } else { Ok(self) }
    }

    fn ticks_after(&self, after: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> {
        std::iter::successors(self.next_after(after), |tick| self.next_after(*tick))
    }

    /// The newest `count` ticks in `(after, until]`, oldest first.
    fn newest_ticks(&self, after: DateTime<Utc>, until: DateTime<Utc>, count: usize) -> Vec<DateTime<Utc>> {
        if count == 0 {
            return Vec::new();
        }
        let one_more = count.saturating_add(1);
        let all = self.ticks_between(after, until, one_more);
        if all.len() <= count {
            return all;
        }
        // Halve towards a start with exactly `count` ticks behind it. It is at least a second wide, so it is met.
        let (mut too_early, mut too_late) = (after, until);
        loop {
            let middle = too_early + (too_late - too_early) / 2;
            let ticks = self.ticks_between(middle, until, one_more);
            match ticks.len().cmp(&count) {
                Ordering::Less => too_late = middle,
                Ordering::Equal => return ticks,
                Ordering::Greater => too_early = middle,
            }
        }
    }

    /// Wall clock times come from the expression alone and are then placed on the time line. The placing keeps their
    /// order, so the first that lies after `after` is the answer; only inside a repeated hour, where `after` has its
    /// wall clock time for the second time, are some looked at in vain.
    fn next_by_the_wall_clock(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut wall = after.with_timezone(&self.zone).naive_local();
        loop {
            wall = self.cron.find_next_occurrence(&wall, false).ok()?;
            if let Some(tick) = self.place(wall).filter(|tick| *tick > after) {
                return Some(tick);
            }
        }
    }

    /// The instant of a wall clock time: the first of two, or the end of the gap it falls into.
    fn place(&self, wall: NaiveDateTime) -> Option<DateTime<Utc>> {
        match self.zone.from_local_datetime(&wall) {
            MappedLocalTime::Single(instant) | MappedLocalTime::Ambiguous(instant, _) => Some(instant),
            MappedLocalTime::None => GapInfo::new(&wall, &self.zone)?.end,
        }
        .map(|instant| instant.to_utc())
    }

    fn next_in_real_time(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let next = self.cron.find_next_occurrence(&after.with_timezone(&self.zone), false);
        next.ok().map(|instant| instant.to_utc())
    }
}

impl fmt::Display for CronSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.expression, self.zone)
    }
}

/// What is wrong with a schedule as somebody wrote it, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    #[error("the cron expression has {length} characters: write at most {MAX_EXPRESSION_LENGTH}")]
    TooLong { length: usize },
    #[error(
        "the cron expression has {found} fields: write 5 (minute, hour, day of month, month, day of week) \
         or 6 with the second first, such as `0 3 * * MON`"
    )]
    FieldCount { found: usize },
    #[error("`{nickname}` is not a known nickname: write one of {}", nicknames())]
    UnknownNickname { nickname: String },
    #[error(
        "{text:?} is not a valid {name}: write {allowed}, `*`, a list `a,b`, an upward range `a-b`, \
         or a step `*/n` or `a-b/n`"
    )]
    BadField { name: &'static str, text: String, allowed: &'static str },
    #[error(
        "the cron expression `{expression}` names a day that never comes: choose a day of the month that exists in \
         one of its months"
    )]
    NeverFires { expression: String },
    #[error(
        "the cron expression fires every {} s, the least that is allowed is every {} s: make it less frequent",
        shortest.as_secs(), minimum.as_secs()
    )]
    TooOften { shortest: Duration, minimum: Duration },
    #[error("{name:?} is not a known time zone: {}", zone_remedy(*nearest))]
    UnknownZone { name: String, nearest: Option<&'static str> },
}

impl CronError {
    /// The request field at fault.
    pub fn field(&self) -> &'static str {
        match self {
            Self::UnknownZone { .. } => "time_zone",
            _ => "cron",
        }
    }
}

const HOUR: usize = 2;

/// The fields of an expression from left to right.
const FIELDS: [Field; 6] = [
    Field { name: "second", allowed: "0-59", words: &[] },
    Field { name: "minute", allowed: "0-59", words: &[] },
    Field { name: "hour", allowed: "0-23", words: &[] },
    Field {
        name: "day of the month",
        allowed: "1-31, `L` for the last day, `15W` or `LW` for a weekday",
        words: &["L"],
    },
    Field {
        name: "month",
        allowed: "1-12 or JAN-DEC",
        words: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
    },
    Field {
        name: "day of the week",
        allowed: "0-7 or SUN-SAT, `MON#2` for the second Monday, `FRIL` for the last Friday",
        words: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
    },
];

struct Field {
    name: &'static str,
    allowed: &'static str,
    words: &'static [&'static str],
}

impl Field {
    /// croner replaces names wherever they stand (`JANFEB` becomes December) and reads over empty list items, so what
    /// reaches it are whole numbers and whole names only.
    fn is_made_of_whole_words(&self, text: &str) -> bool {
        text.split(',').all(|item| {
            !item.is_empty() && item.split(['-', '/', '#', '*', '?', '+']).all(|word| self.is_whole_word(word))
        })
    }

    fn is_whole_word(&self, word: &str) -> bool {
        let stem = word.strip_suffix(['L', 'W']).unwrap_or(word);
        let is_number = !stem.is_empty() && stem.bytes().all(|byte| byte.is_ascii_digit());
        word.is_empty() || is_number || self.words.contains(&stem) || self.words.contains(&word)
    }
}

const NICKNAMES: [(&str, &str); 7] = [
    ("@HOURLY", "0 * * * *"),
    ("@DAILY", "0 0 * * *"),
    ("@MIDNIGHT", "0 0 * * *"),
    ("@WEEKLY", "0 0 * * SUN"),
    ("@MONTHLY", "0 0 1 * *"),
    ("@YEARLY", "0 0 1 1 *"),
    ("@ANNUALLY", "0 0 1 1 *"),
];

fn nicknames() -> String {
    NICKNAMES.map(|(nickname, _)| nickname.to_ascii_lowercase()).join(" ")
}

/// The six fields of an expression in capitals, the second filled in.
fn split_fields(expression: &str) -> Result<[String; 6], CronError> {
    let length = expression.chars().count();
    if length > MAX_EXPRESSION_LENGTH {
        return Err(CronError::TooLong { length });
    }
    let capitals = expression.trim().to_ascii_uppercase();
    let spelled_out = match NICKNAMES.iter().find(|(nickname, _)| *nickname == capitals) {
        Some((_, fields)) => fields,
        None if capitals.starts_with('@') => {
            return Err(CronError::UnknownNickname { nickname: expression.trim().to_owned() });
        }
        None => capitals.as_str(),
    };
    let mut fields: Vec<String> = spelled_out.split_whitespace().map(str::to_owned).collect();
    if fields.len() == 5 {
        fields.insert(0, "0".to_owned());
    }
    fields.try_into().map_err(|fields: Vec<String>| CronError::FieldCount { found: fields.len() })
}

/// croner's errors do not say which field they are about, so each is tried on its own first.
fn parse_fields(fields: &[String; 6]) -> Result<Cron, CronError> {
    let parser = CronParser::builder().seconds(Seconds::Required).year(Year::Disallowed).build();
    for (position, (field, text)) in FIELDS.iter().zip(fields).enumerate() {
        let mut alone = ["*"; 6];
        alone[position] = text;
        if !field.is_made_of_whole_words(text) || parser.parse(&alone.join(" ")).is_err() {
            return Err(refusal(field, text));
        }
    }
    parser.parse(&fields.join(" ")).map_err(|_| refusal(&FIELDS[0], &fields[0]))
}

fn refusal(field: &Field, text: &str) -> CronError {
    CronError::BadField { name: field.name, text: text.to_owned(), allowed: field.allowed }
}

/// The years 2000 to 2027 begin on every day of the week both with and without a 29 February, so a day that does not
/// come in them never does.
fn fires_on_some_day(cron: &Cron) -> bool {
    let start = NaiveDate::from_ymd_opt(2000, 1, 1).unwrap_or_default();
    start.iter_days().take_while(|day| day.year() < 2028).any(|day| {
        let weekday = Weekday::from_days_from_sunday(day.weekday().num_days_from_sunday());
        cron.pattern.month_match(day.month()).unwrap_or(false)
            && cron.pattern.day_match(day.year(), day.month(), day.day(), weekday).unwrap_or(false)
    })
}

fn parse_zone(name: &str) -> Result<Tz, CronError> {
    let name = name.trim();
    name.parse().map_err(|_| CronError::UnknownZone {
        name: name.chars().take(MAX_ZONE_LENGTH).collect(),
        nearest: nearest_zone(name),
    })
}

fn zone_remedy(nearest: Option<&'static str>) -> String {
    match nearest {
        Some(zone) => format!("did you mean `{zone}`?"),
        None => "write an IANA name such as `Europe/Berlin` or `UTC`".to_owned(),
    }
}

/// Longer than any zone name; what is longer is not compared.
const MAX_ZONE_LENGTH: usize = 64;

/// The zone somebody probably meant: up to a quarter of the letters wrong, or only the city given.
fn nearest_zone(name: &str) -> Option<&'static str> {
    if name.len() > MAX_ZONE_LENGTH {
        return None;
    }
    let plain = |zone: &str| zone.to_lowercase().replace(' ', "_");
    let wanted = plain(name);
    let (distance, _, zone) = TZ_VARIANTS
        .iter()
        .map(|zone| {
            let zone = zone.name();
            let city = zone.rsplit('/').next().unwrap_or(zone);
            let (whole, part) = (edit_distance(&wanted, &plain(zone)), edit_distance(&wanted, &plain(city)));
            (whole.min(part), whole, zone)
        })
        .min()?;
    (distance <= wanted.chars().count() / 4).then_some(zone)
}

/// How many letters must be added, removed or replaced to turn `from` into `to`.
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut costs: Vec<usize> = (0..=to.len()).collect();
    for (row, letter) in from.chars().enumerate() {
        let mut diagonal = row;
        costs[0] = row + 1;
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = costs[column + 1];
            costs[column + 1] = replaced.min(diagonal + 1).min(costs[column] + 1);
        }
    }
    costs[to.len()]
}

/// What happens to ticks that came and went while nobody was there to act on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissedRuns {
    /// They are left out; only ticks within [`GRACE`] of now run.
    Skip,
    /// One run, for the latest of them, stands for all.
    Once,
    /// Each of them runs, as far as the bound goes.
    All,
}

/// What a scheduler does now, and what it remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The ticks to run, oldest first.
    pub ticks: Vec<DateTime<Utc>>,
    /// How many older ticks are left out, by the policy or by the bound; [`MAX_DROPPED_COUNT`] means that many or more.
    pub dropped: usize,
    /// The latest tick that is dealt with, run or left out: `last_tick` of the next question.
    pub last_tick: DateTime<Utc>,
    /// When to ask again; nothing is due before.
    pub next: Option<DateTime<Utc>>,
}

impl MissedRuns {
    /// Every policy there is.
    pub const ALL: [Self; 3] = [Self::Skip, Self::Once, Self::All];

    /// What is due in `(last_tick, now]`, where `last_tick` is the latest tick dealt with before, or the time the
    /// schedule was made. At most `limit` and never more than [`MAX_TICKS`] run; beyond that the newest do.
    ///
    /// A clock that stepped back makes the interval empty: nothing is due again, and `next` stays after `last_tick`.
    pub fn due(self, schedule: &CronSchedule, last_tick: DateTime<Utc>, now: DateTime<Utc>, limit: usize) -> Due {
        let limit = limit.min(MAX_TICKS);
        let ticks = match self {
            Self::Skip => schedule.newest_ticks(last_tick.max(a_grace_before(now)), now, limit),
            Self::Once => schedule.newest_ticks(last_tick, now, limit.min(1)),
            Self::All => schedule.newest_ticks(last_tick, now, limit),
        };
        let kept_from = ticks.first().map_or(now, |oldest| *oldest - TimeDelta::seconds(1));
        let latest = schedule.newest_ticks(last_tick, now, 1).pop();
        Due {
            dropped: schedule.ticks_between(last_tick, kept_from, MAX_DROPPED_COUNT).len(),
            last_tick: latest.unwrap_or(last_tick),
            next: schedule.next_after(last_tick.max(now)),
            ticks,
        }
    }

    /// The word for it in the database and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Once => "once",
            Self::All => "all",
        }
    }

    /// The policy a word stands for.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == word)
    }
}

fn a_grace_before(now: DateTime<Utc>) -> DateTime<Utc> {
    now.checked_sub_signed(GRACE).unwrap_or(now)
}

/// What happens to a tick whose predecessor's job is still running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Both run side by side.
    Allow,
    /// The new one is left out.
    Skip,
    /// The new one runs when the other has finished.
    Queue,
}

impl Overlap {
    /// Every policy there is.
    pub const ALL: [Self; 3] = [Self::Allow, Self::Skip, Self::Queue];

    /// The word for it in the database and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Skip => "skip",
            Self::Queue => "queue",
        }
    }

    /// The policy a word stands for.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == word)
    }
}

/// When the job of `tick` should start so that schedules with the same expression do not all start at once: up to
/// `max` later, always the same for the same tick and seed. Keep `max` below the schedule's interval.
pub fn jittered(tick: DateTime<Utc>, schedule_seed: u64, max: Duration) -> DateTime<Utc> {
    let span = i64::try_from(max.as_millis()).unwrap_or(i64::MAX - 1).min(i64::MAX - 1);
    let hash = scramble(schedule_seed ^ scramble(tick.timestamp().cast_unsigned()));
    let share = (u128::from(hash) * (u128::from(span.cast_unsigned()) + 1)) >> 64;
    let delay = i64::try_from(share).ok().and_then(TimeDelta::try_milliseconds);
    delay.and_then(|delay| tick.checked_add_signed(delay)).unwrap_or(tick)
}

/// The finalizer of `SplitMix64`. Written out because the standard library's hashes may change between its releases,
/// and an instance of the old release must agree with one of the new.
fn scramble(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn schedule(expression: &str, zone: &str) -> CronSchedule {
        CronSchedule::parse(expression, zone).unwrap()
    }

    fn refused(expression: &str, zone: &str) -> CronError {
        CronSchedule::parse(expression, zone).unwrap_err()
    }

    /// The next ticks as people on the spot would write them down.
    fn local(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = schedule(expression, zone);
        let ticks = schedule.upcoming(at(after), count);
        ticks.iter().map(|tick| tick.with_timezone(&schedule.zone).format("%m-%d %H:%M %:z").to_string()).collect()
    }

    mod reading {
        use super::*;

        #[test]
        fn five_fields_six_fields_names_and_nicknames_are_understood() {
            let sunday = "2026-03-01T00:00:00Z";
            for (expression, next) in [
                ("*/15 * * * *", "2026-03-01T00:15:00Z"),
                ("* * * * * *", "2026-03-01T00:00:01Z"),
                ("*/20 5 0 * * *", "2026-03-01T00:05:00Z"),
                ("  0\t3 * *  mon ", "2026-03-02T03:00:00Z"),
                ("0 3 * jul *", "2026-07-01T03:00:00Z"),
                ("0 0 * * 7", "2026-03-08T00:00:00Z"),
                ("0 0 * * fri-sun", "2026-03-06T00:00:00Z"),
                ("0 0 L * ?", "2026-03-31T00:00:00Z"),
                ("0 0 LW * *", "2026-03-31T00:00:00Z"),
                ("0 0 15W * *", "2026-03-16T00:00:00Z"),
                ("0 0 * * MON#2", "2026-03-09T00:00:00Z"),
                ("0 0 * * FRIL", "2026-03-27T00:00:00Z"),
                ("@hourly", "2026-03-01T01:00:00Z"),
                ("@midnight", "2026-03-02T00:00:00Z"),
                ("@Weekly", "2026-03-08T00:00:00Z"),
                ("@annually", "2027-01-01T00:00:00Z"),
            ] {
                assert_eq!(schedule(expression, "UTC").next_after(at(sunday)), Some(at(next)), "{expression}");
            }
        }

        #[test]
        fn two_restricted_day_fields_match_either_unless_a_plus_asks_for_both() {
            assert_eq!(
                local("0 0 13 * FRI", "UTC", "2026-02-01T00:00:00Z", 2),
                ["02-06 00:00 +00:00", "02-13 00:00 +00:00"]
            );
            assert_eq!(
                local("0 0 13 * +FRI", "UTC", "2026-02-01T00:00:00Z", 2),
                ["02-13 00:00 +00:00", "03-13 00:00 +00:00"]
            );
        }

        #[test]
        fn an_error_names_the_part_at_fault_and_what_to_write_instead() {
            for (expression, part) in [
                ("60 * * * *", "minute"),
                ("0 24 * * *", "hour"),
                ("0 0 0 * *", "day of the month"),
                ("0 0 32 * *", "day of the month"),
                ("0 0 * 13 *", "month"),
                ("0 0 * * 8", "day of the week"),
                ("0 0 * * MONDAY", "day of the week"),
                ("0 0 * * L", "day of the week"),
                ("0 0 * * MON,L", "day of the week"),
                ("0 0 * * MON#6", "day of the week"),
                ("60 0 0 * * *", "second"),
                ("*/0 * * * *", "minute"),
                ("0/15 * * * *", "minute"),
                ("30-10 * * * *", "minute"),
                ("1-2-3 * * * *", "minute"),
                ("99999999999 * * * *", "minute"),
                ("0 22-2 * * *", "hour"),
                ("0 -1 * * *", "hour"),
                ("0 , * * *", "hour"),
                ("0,,5 * * * *", "minute"),
                ("JAN * * * *", "minute"),
                ("0 0 1 JANFEB *", "month"),
                ("0 0 * * SUN1", "day of the week"),
                ("0 0 * * \u{661}", "day of the week"),
            ] {
                let error = refused(expression, "UTC");
                assert_eq!(error.field(), "cron", "{expression}");
                assert!(error.to_string().contains(&format!("is not a valid {part}: write ")), "{expression}: {error}");
            }
        }

        #[test]
        fn an_expression_with_too_few_or_too_many_fields_is_refused() {
            for (expression, found) in [("", 0), ("   ", 0), ("* * * *", 4), ("0 0 0 1 1 * 2030", 7), ("@daily *", 2)] {
                let error = refused(expression, "UTC");
                let expected = if expression.starts_with('@') {
                    CronError::UnknownNickname { nickname: expression.to_owned() }
                } else {
                    CronError::FieldCount { found }
                };
                assert_eq!(error, expected, "{expression}");
            }
            assert!(refused("@reboot", "UTC").to_string().contains("write one of @hourly @daily"));
        }

        #[test]
        fn an_expression_is_read_up_to_its_bound() {
            let longest = format!("{}* * * * *", " ".repeat(191));
            schedule(&longest, "UTC");
            assert_eq!(refused(&format!("{longest} "), "UTC"), CronError::TooLong { length: 201 });
        }

        #[test]
        fn a_day_that_never_comes_is_refused_at_once() {
            for expression in ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "* * * 30 2 *", "0 0 31W 2 *", "0 0 1-7 * +MON#2"] {
                let started = std::time::Instant::now();
                let error = refused(expression, "UTC");
                assert!(matches!(error, CronError::NeverFires { .. }), "{expression}: {error}");
                assert!(started.elapsed() < Duration::from_secs(1), "{expression}");
            }
        }

        #[test]
        fn an_unknown_zone_is_answered_with_the_one_that_was_meant() {
            for (name, meant) in [
                ("europe/berlin", "Europe/Berlin"),
                ("Europe/Berln", "Europe/Berlin"),
                ("America/New York", "America/New_York"),
                ("new york", "America/New_York"),
                ("Kathmandu", "Asia/Kathmandu"),
                ("utc", "UTC"),
            ] {
                let error = refused("* * * * *", name);
                assert_eq!(error.field(), "time_zone");
                assert_eq!(error, CronError::UnknownZone { name: name.to_owned(), nearest: Some(meant) });
                assert!(error.to_string().ends_with(&format!("did you mean `{meant}`?")));
            }
            for name in ["", "Middle/Earth", &"x".repeat(100_000)] {
                let error = refused("* * * * *", name);
                assert!(matches!(error, CronError::UnknownZone { nearest: None, .. }), "{error}");
                assert!(error.to_string().len() < 200);
            }
        }

        #[test]
        fn a_schedule_can_be_held_to_a_least_interval() {
            for (expression, seconds) in [
                ("* * * * * *", 1),
                ("*/20 * * * * *", 20),
                ("0,50 * * * * *", 10),
                ("* * * * *", 60),
                ("0,59 * * * *", 60),
                ("0 9-17 * * MON", 3600),
                ("5 0,23 * * *", 3600),
                ("0 3 * * *", 86_400),
                ("0 3 1 * *", 86_400),
            ] {
                let schedule = schedule(expression, "UTC");
                let interval = Duration::from_secs(seconds);
                assert_eq!(schedule.shortest_interval(), interval, "{expression}");
                assert!(schedule.clone().no_more_often_than(interval).is_ok());
                let error = schedule.no_more_often_than(interval + Duration::from_secs(1)).unwrap_err();
                assert!(matches!(error, CronError::TooOften { .. }));
                assert_eq!(error.field(), "cron");
            }
        }
    }

    mod the_calendar {
        use super::*;

        #[test]
        fn changes_of_the_clock_have_these_results() {
            const NEW_YORK: &str = "America/New_York";
            let cases: &[(&str, &str, &str, &[&str])] = &[
                // Spring in New York: 02:00 to 03:00 is missing on 8 March.
                ("30 2 * * *", NEW_YORK, "2026-03-07T12:00:00Z", &["03-08 03:00 -04:00", "03-09 02:30 -04:00"]),
                ("0 2,14 * * *", NEW_YORK, "2026-03-07T20:00:00Z", &["03-08 03:00 -04:00", "03-08 14:00 -04:00"]),
                ("*/20 2 * * *", NEW_YORK, "2026-03-08T00:00:00Z", &["03-08 03:00 -04:00", "03-09 02:00 -04:00"]),
                ("0 2,3 * * *", NEW_YORK, "2026-03-08T00:00:00Z", &["03-08 03:00 -04:00", "03-09 02:00 -04:00"]),
                ("30 2 8 3 *", NEW_YORK, "2026-01-01T00:00:00Z", &["03-08 03:00 -04:00", "03-08 02:30 -05:00"]),
                ("*/30 * * * *", NEW_YORK, "2026-03-08T06:00:00Z", &["03-08 01:30 -05:00", "03-08 03:00 -04:00"]),
                ("0 * * * *", NEW_YORK, "2026-03-08T05:30:00Z", &["03-08 01:00 -05:00", "03-08 03:00 -04:00"]),
                ("0 */2 * * *", NEW_YORK, "2026-03-08T04:30:00Z", &["03-08 00:00 -05:00", "03-08 04:00 -04:00"]),
                // Autumn in New York: 01:00 to 02:00 comes twice on 1 November.
                ("30 1 * * *", NEW_YORK, "2026-10-31T12:00:00Z", &["11-01 01:30 -04:00", "11-02 01:30 -05:00"]),
                ("30 1,13 * * *", NEW_YORK, "2026-10-31T20:00:00Z", &["11-01 01:30 -04:00", "11-01 13:30 -05:00"]),
                ("30 1 * * *", NEW_YORK, "2026-11-01T06:00:00Z", &["11-02 01:30 -05:00"]),
                ("0 2 * * *", NEW_YORK, "2026-11-01T05:45:00Z", &["11-01 02:00 -05:00"]),
                (
                    "*/15 * * * *",
                    NEW_YORK,
                    "2026-11-01T05:15:00Z",
                    &["11-01 01:30 -04:00", "11-01 01:45 -04:00", "11-01 01:00 -05:00", "11-01 01:15 -05:00"],
                ),
                (
                    "0 * * * *",
                    NEW_YORK,
                    "2026-11-01T04:30:00Z",
                    &["11-01 01:00 -04:00", "11-01 01:00 -05:00", "11-01 02:00 -05:00"],
                ),
                ("0 0-23 * * *", NEW_YORK, "2026-11-01T05:00:00Z", &["11-01 01:00 -05:00", "11-01 02:00 -05:00"]),
                // Lord Howe changes by half an hour: 02:00 to 02:30 is missing in October, 01:30 to 02:00 repeats in April.
                (
                    "15 2 * * *",
                    "Australia/Lord_Howe",
                    "2026-10-03T12:00:00Z",
                    &["10-04 02:30 +11:00", "10-05 02:15 +11:00"],
                ),
                (
                    "45 1 * * *",
                    "Australia/Lord_Howe",
                    "2026-04-04T12:00:00Z",
                    &["04-05 01:45 +11:00", "04-06 01:45 +10:30"],
                ),
                (
                    "*/15 * * * *",
                    "Australia/Lord_Howe",
                    "2026-04-04T14:30:00Z",
                    &["04-05 01:45 +11:00", "04-05 01:30 +10:30", "04-05 01:45 +10:30", "04-05 02:00 +10:30"],
                ),
                // Nuuk skips the last hour of a Saturday: the run is on Sunday, though the expression says Saturday.
                (
                    "30 23 * * SAT",
                    "America/Nuuk",
                    "2026-03-23T00:00:00Z",
                    &["03-29 00:00 -01:00", "04-04 23:30 -01:00"],
                ),
                // Beirut skips midnight itself.
                ("0 0 * * *", "Asia/Beirut", "2026-03-28T12:00:00Z", &["03-29 01:00 +03:00", "03-30 00:00 +03:00"]),
                // Apia had no 30 December 2011.
                (
                    "0 12 * * *",
                    "Pacific/Apia",
                    "2011-12-29T12:00:00Z",
                    &["12-29 12:00 -10:00", "12-31 00:00 +14:00", "12-31 12:00 +14:00"],
                ),
                ("0 12 30 * *", "Pacific/Apia", "2011-12-01T12:00:00Z", &["12-31 00:00 +14:00", "01-30 12:00 +14:00"]),
                ("0 */8 * * *", "Pacific/Apia", "2011-12-30T00:00:00Z", &["12-29 16:00 -10:00", "12-31 00:00 +14:00"]),
                // Kathmandu never changes, and is a quarter of an hour off.
                ("0 0 * * *", "Asia/Kathmandu", "2026-03-08T00:00:00Z", &["03-09 00:00 +05:45", "03-10 00:00 +05:45"]),
            ];
            for (expression, zone, after, expected) in cases {
                assert_eq!(&local(expression, zone, after, expected.len()), expected, "{expression} in {zone}");
            }
        }

        #[test]
        fn a_leap_day_is_waited_for() {
            let leap_day = schedule("0 0 29 2 *", "UTC");
            assert_eq!(leap_day.next_after(at("2026-01-01T00:00:00Z")), Some(at("2028-02-29T00:00:00Z")));
            assert_eq!(leap_day.next_after(at("2096-03-01T00:00:00Z")), Some(at("2104-02-29T00:00:00Z")));
            let on_a_monday = schedule("0 0 29 2 +MON", "UTC");
            assert_eq!(on_a_monday.next_after(at("2072-03-01T00:00:00Z")), Some(at("2112-02-29T00:00:00Z")));
        }

        #[test]
        fn the_ends_of_time_are_answered_not_suffered() {
            for expression in ["* * * * * *", "0 0 * * *", "0 0 29 2 +MON"] {
                for zone in ["UTC", "Pacific/Apia", "America/New_York"] {
                    let schedule = schedule(expression, zone);
                    let first = schedule.next_after(DateTime::<Utc>::MIN_UTC).unwrap();
                    assert!(first >= DateTime::UNIX_EPOCH);
                    assert_eq!(schedule.next_after(DateTime::<Utc>::MAX_UTC), None);
                    assert_eq!(schedule.next_after(at("9999-12-31T23:59:59Z")), None);
                    assert!(schedule.upcoming(at("4999-12-31T00:00:00Z"), 3).len() <= 3);
                    for policy in MissedRuns::ALL {
                        let due = policy.due(&schedule, DateTime::<Utc>::MIN_UTC, at("1970-03-01T00:00:00Z"), 5);
                        assert!(due.ticks.len() <= 5);
                        let due = policy.due(&schedule, DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MIN_UTC, 5);
                        assert_eq!((due.ticks, due.next), (vec![], None));
                    }
                }
            }
        }

        #[test]
        fn fractions_of_a_second_neither_repeat_nor_lose_a_tick() {
            let schedule = schedule("* * * * * *", "Europe/Berlin");
            assert_eq!(schedule.next_after(at("2026-01-01T00:00:00.999Z")), Some(at("2026-01-01T00:00:01Z")));
            assert_eq!(schedule.next_after(at("2026-01-01T00:00:00Z")), Some(at("2026-01-01T00:00:01Z")));
            let ticks = schedule.ticks_between(at("2026-01-01T00:00:00.5Z"), at("2026-01-01T00:00:02.5Z"), 10);
            assert_eq!(ticks, [at("2026-01-01T00:00:01Z"), at("2026-01-01T00:00:02Z")]);
        }

        #[test]
        fn a_preview_is_bounded() {
            let schedule = schedule("* * * * *", "UTC");
            assert_eq!(schedule.upcoming(at("2026-01-01T00:00:00Z"), usize::MAX).len(), MAX_TICKS);
            assert!(schedule.upcoming(at("2026-01-01T00:00:00Z"), 0).is_empty());
            let oldest = schedule.ticks_between(at("2026-01-01T00:00:00Z"), at("2027-01-01T00:00:00Z"), 2);
            assert_eq!(oldest, [at("2026-01-01T00:01:00Z"), at("2026-01-01T00:02:00Z")]);
        }
    }

    mod missed_runs {
        use super::*;

        const LAST: &str = "2026-05-01T10:00:00Z";

        fn due(policy: MissedRuns, expression: &str, now: &str, limit: usize) -> Due {
            policy.due(&schedule(expression, "UTC"), at(LAST), at(now), limit)
        }

        #[test]
        fn a_tick_on_time_runs_under_every_policy() {
            for policy in MissedRuns::ALL {
                let due = due(policy, "0 * * * *", "2026-05-01T11:00:00.2Z", 100);
                assert_eq!(due.ticks, [at("2026-05-01T11:00:00Z")], "{policy:?}");
                assert_eq!((due.dropped, due.last_tick), (0, at("2026-05-01T11:00:00Z")));
                assert_eq!(due.next, Some(at("2026-05-01T12:00:00Z")));
            }
        }

        #[test]
        fn nothing_is_due_between_two_ticks() {
            for policy in MissedRuns::ALL {
                let due = due(policy, "0 * * * *", "2026-05-01T10:59:59Z", 100);
                assert_eq!((due.ticks, due.dropped, due.last_tick), (vec![], 0, at(LAST)));
                assert_eq!(due.next, Some(at("2026-05-01T11:00:00Z")));
            }
        }

        #[test]
        fn skip_leaves_out_what_is_older_than_the_grace() {
            let late = due(MissedRuns::Skip, "0 * * * *", "2026-05-01T13:00:59Z", 100);
            assert_eq!((late.ticks, late.dropped), (vec![at("2026-05-01T13:00:00Z")], 2));
            let missed = due(MissedRuns::Skip, "0 * * * *", "2026-05-01T13:01:00Z", 100);
            assert_eq!((missed.ticks, missed.dropped), (vec![], 3));
            assert_eq!(missed.last_tick, at("2026-05-01T13:00:00Z"), "left out once, not counted again");
            assert_eq!(missed.next, Some(at("2026-05-01T14:00:00Z")));
        }

        #[test]
        fn once_runs_the_latest_for_all_of_them() {
            let due = due(MissedRuns::Once, "0 * * * *", "2026-05-01T13:30:00Z", 100);
            assert_eq!((due.ticks, due.dropped), (vec![at("2026-05-01T13:00:00Z")], 2));
        }

        #[test]
        fn all_runs_each_of_them_in_order() {
            let due = due(MissedRuns::All, "0 * * * *", "2026-05-01T13:30:00Z", 100);
            let expected = ["2026-05-01T11:00:00Z", "2026-05-01T12:00:00Z", "2026-05-01T13:00:00Z"].map(at);
            assert_eq!((due.ticks, due.dropped), (expected.to_vec(), 0));
        }

        #[test]
        fn beyond_the_bound_the_newest_run_and_the_rest_is_counted() {
            let three = due(MissedRuns::All, "* * * * *", "2026-05-01T11:00:30Z", 3);
            let expected = ["2026-05-01T10:58:00Z", "2026-05-01T10:59:00Z", "2026-05-01T11:00:00Z"].map(at);
            assert_eq!((three.ticks, three.dropped), (expected.to_vec(), 57));

            let thousand = due(MissedRuns::All, "* * * * *", "2026-05-02T10:00:00Z", usize::MAX);
            assert_eq!((thousand.ticks.len(), thousand.dropped), (MAX_TICKS, 440));
            assert_eq!(thousand.last_tick, at("2026-05-02T10:00:00Z"));
        }

        #[test]
        fn years_of_missed_seconds_are_dealt_with_in_bounded_time() {
            for policy in MissedRuns::ALL {
                let started = std::time::Instant::now();
                let due = due(policy, "* * * * * *", "2031-05-01T10:00:00Z", 10);
                assert_eq!(due.last_tick, at("2031-05-01T10:00:00Z"));
                assert_eq!(due.dropped, MAX_DROPPED_COUNT);
                assert!(started.elapsed() < Duration::from_secs(5), "{policy:?}");
            }
        }

        #[test]
        fn their_words_are_those_of_the_database_and_the_api() {
            for (policy, word) in MissedRuns::ALL.into_iter().zip(["skip", "once", "all"]) {
                assert_eq!((policy.as_str(), MissedRuns::parse(word)), (word, Some(policy)));
                assert_eq!(serde_json::to_value(policy).unwrap(), word);
            }
            for (policy, word) in Overlap::ALL.into_iter().zip(["allow", "skip", "queue"]) {
                assert_eq!((policy.as_str(), Overlap::parse(word)), (word, Some(policy)));
                assert_eq!(serde_json::to_value(policy).unwrap(), word);
            }
            assert_eq!((MissedRuns::parse("Skip"), Overlap::parse("")), (None, None));
        }
    }

    mod jitter {
        use super::*;

        #[test]
        fn is_the_same_in_every_process_and_every_release() {
            let tick = at("2026-05-01T10:00:00Z");
            assert_eq!(jittered(tick, 7, Duration::from_mins(1)), at("2026-05-01T10:00:46.559Z"));
            assert_eq!(jittered(tick, 8, Duration::from_mins(1)), at("2026-05-01T10:00:24.628Z"));
        }

        #[test]
        fn spreads_schedules_evenly_over_its_span() {
            let tick = at("2026-05-01T10:00:00Z");
            let mut in_quarter = [0_usize; 4];
            for seed in 0..4000 {
                let delay = jittered(tick, seed, Duration::from_secs(4)) - tick;
                in_quarter[usize::try_from(delay.num_seconds()).unwrap().min(3)] += 1;
            }
            assert!(in_quarter.iter().all(|count| (900..1100).contains(count)), "{in_quarter:?}");
        }

        #[test]
        fn of_no_span_changes_nothing_and_of_an_absurd_span_does_not_fail() {
            let tick = at("2026-05-01T10:00:00Z");
            assert_eq!(jittered(tick, 7, Duration::ZERO), tick);
            assert!(jittered(tick, 7, Duration::MAX) >= tick);
        }
    }

    mod properties {
        use super::*;

        fn field(from: u32, to: u32) -> impl Strategy<Value = String> {
            prop_oneof![
                3 => Just("*".to_owned()),
                2 => (2..=to).prop_map(|step| format!("*/{step}")),
                3 => (from..=to).prop_map(|value| value.to_string()),
                2 => (from..=to, from..=to).prop_map(|(one, other)| format!("{one},{other}")),
                2 => (from..=to, from..=to).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
            ]
        }

        fn mostly_any(field: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
            prop_oneof![4 => Just("*".to_owned()), 1 => field]
        }

        fn expression() -> impl Strategy<Value = String> {
            (field(0, 59), field(0, 23), mostly_any(field(1, 28)), mostly_any(field(1, 12)), mostly_any(field(0, 6)))
                .prop_map(|(minute, hour, day, month, weekday)| format!("{minute} {hour} {day} {month} {weekday}"))
        }

        fn any_schedule() -> impl Strategy<Value = CronSchedule> {
            (expression(), proptest::sample::select(TZ_VARIANTS.as_slice()))
                .prop_map(|(expression, zone)| schedule(&expression, zone.name()))
        }

        /// A schedule and a moment, mostly within a day of a change of its zone's clock.
        fn schedule_and_moment() -> impl Strategy<Value = (CronSchedule, DateTime<Utc>)> {
            let from_1975_to_2035 = 157_766_400..2_051_222_400_i64;
            (any_schedule(), from_1975_to_2035, -86_400..86_400_i64).prop_map(|(schedule, second, distance)| {
                let moment = DateTime::from_timestamp(second, 0).unwrap();
                let change = next_change(schedule.zone, moment).unwrap_or(moment);
                (schedule, change + TimeDelta::seconds(distance))
            })
        }

        /// The day within the next year on which the offset changes.
        fn next_change(zone: Tz, from: DateTime<Utc>) -> Option<DateTime<Utc>> {
            let wall_minus_utc = |at: DateTime<Utc>| at.with_timezone(&zone).naive_local() - at.naive_utc();
            let days = std::iter::successors(Some(from), |day| Some(*day + TimeDelta::days(1))).take(366);
            days.into_iter().find(|day| wall_minus_utc(*day) != wall_minus_utc(from))
        }

        /// The rules in their simplest form: walk every minute of the interval and of two days around it.
        fn minute_by_minute(schedule: &CronSchedule, after: DateTime<Utc>, until: DateTime<Utc>) -> Vec<DateTime<Utc>> {
            let start =
                DateTime::from_timestamp(after.timestamp().div_euclid(60) * 60, 0).unwrap() - TimeDelta::days(2);
            let minutes: Vec<(DateTime<Utc>, NaiveDateTime)> =
                std::iter::successors(Some(start), |minute| Some(*minute + TimeDelta::minutes(1)))
                    .take_while(|minute| *minute <= until + TimeDelta::days(2))
                    .map(|minute| (minute, minute.with_timezone(&schedule.zone).naive_local()))
                    .collect();
            let matches = |wall: &NaiveDateTime| schedule.cron.is_time_matching(wall).unwrap();

            let mut ticks = Vec::new();
            if schedule.names_its_hours {
                let (first, last) = (minutes[0].1, minutes[minutes.len() - 1].1);
                let mut wall = first;
                let mut reached = 0;
                while wall < last {
                    while minutes[reached].1 < wall {
                        reached += 1;
                    }
                    if matches(&wall) {
                        ticks.push(minutes[reached].0);
                    }
                    wall += TimeDelta::minutes(1);
                }
                ticks.dedup();
            } else {
                ticks.extend(minutes.iter().filter(|(_, wall)| matches(wall)).map(|(minute, _)| *minute));
            }
            ticks.retain(|tick| *tick > after && *tick <= until);
            ticks
        }

        proptest! {
            #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

            #[test]
            fn the_next_tick_lies_strictly_ahead_and_nothing_lies_before_it(
                (schedule, after) in schedule_and_moment(),
                share in 0..1000_i32,
            ) {
                let next = schedule.next_after(after).unwrap();
                prop_assert!(next > after);
                let between = after + (next - after) / 1000 * share;
                prop_assert_eq!(schedule.next_after(between), Some(next));
            }

            #[test]
            fn a_later_question_never_has_an_earlier_answer(
                (schedule, after) in schedule_and_moment(),
                later in 0..200_000_i64,
            ) {
                prop_assert!(schedule.next_after(after) <= schedule.next_after(after + TimeDelta::seconds(later)));
            }

            #[test]
            fn the_ticks_are_those_of_a_walk_minute_by_minute((schedule, after) in schedule_and_moment()) {
                let until = after + TimeDelta::hours(36);
                prop_assert_eq!(
                    schedule.ticks_between(after, until, usize::MAX),
                    minute_by_minute(&schedule, after, until)
                );
            }

            #[test]
            fn an_interval_is_the_sum_of_its_parts(
                (schedule, after) in schedule_and_moment(),
                (first, second) in (0..90_000_i64, 0..90_000_i64),
            ) {
                let cut = after + TimeDelta::seconds(first);
                let until = cut + TimeDelta::seconds(second);
                let mut parts = schedule.ticks_between(after, cut, usize::MAX);
                parts.extend(schedule.ticks_between(cut, until, usize::MAX));
                prop_assert!(parts.is_sorted_by(|one, next| one < next));
                prop_assert_eq!(parts, schedule.ticks_between(after, until, usize::MAX));
            }

            #[test]
            fn the_newest_ticks_are_the_tail_of_all_of_them(
                (schedule, after) in schedule_and_moment(),
                count in 0..40_usize,
            ) {
                let until = after + TimeDelta::hours(20);
                let all = schedule.ticks_between(after, until, usize::MAX);
                prop_assert_eq!(schedule.newest_ticks(after, until, count), &all[all.len().saturating_sub(count)..]);
            }

            #[test]
            fn a_clock_that_jumps_about_never_runs_a_tick_twice(
                (schedule, start) in schedule_and_moment(),
                policy in proptest::sample::select(MissedRuns::ALL.as_slice()),
                steps in proptest::collection::vec(-20_000..20_000_i64, 1..8),
            ) {
                let (mut now, mut last_tick, mut ran) = (start, start, Vec::new());
                for step in steps {
                    now += TimeDelta::seconds(step);
                    let due = policy.due(&schedule, last_tick, now, 50);
                    prop_assert!(due.last_tick >= last_tick);
                    prop_assert!(due.next > Some(due.last_tick.max(now)));
                    last_tick = due.last_tick;
                    ran.extend(due.ticks);
                }
                prop_assert!(ran.is_sorted_by(|one, next| one < next), "{:?}", ran);
            }

            #[test]
            fn all_forgets_nothing_however_it_is_asked(
                (schedule, start) in schedule_and_moment(),
                steps in proptest::collection::vec(0..20_000_i64, 1..6),
            ) {
                let (mut now, mut last_tick, mut ran) = (start, start, Vec::new());
                for step in steps {
                    now += TimeDelta::seconds(step);
                    let due = MissedRuns::All.due(&schedule, last_tick, now, MAX_TICKS);
                    prop_assert_eq!(due.dropped, 0);
                    last_tick = due.last_tick;
                    ran.extend(due.ticks);
                }
                prop_assert_eq!(ran, schedule.ticks_between(start, now, usize::MAX));
            }

            #[test]
            fn jitter_stays_within_its_span(seed: u64, second in 0..4_000_000_000_i64, millis in 0..10_000_000_u64) {
                let tick = DateTime::from_timestamp(second, 0).unwrap();
                let max = Duration::from_millis(millis);
                let delay = (jittered(tick, seed, max) - tick).to_std().unwrap();
                prop_assert!(delay <= max);
            }

            #[test]
            fn no_text_makes_reading_panic(expression in "[0-9*,/#@LW+? A-Z-]{0,40}|\\PC{0,40}", zone in "\\PC{0,40}") {
                if let Ok(schedule) = CronSchedule::parse(&expression, "UTC") {
                    prop_assert!(schedule.next_after(DateTime::UNIX_EPOCH).is_some());
                }
                if let Err(error) = CronSchedule::parse("* * * * *", &zone) {
                    prop_assert_eq!(error.field(), "time_zone");
                }
            }
        }
    }
}
