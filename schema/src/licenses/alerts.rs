//! What is told of a license before somebody is surprised by it: that it ends, and that much of what it allows is used.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Duration, Utc};

use super::evaluate::Evaluation;

/// So many days before the end it is told of, each once.
pub const DAYS: [i64; 4] = [30, 14, 7, 1];

/// So many percent of a limit are told of, each once.
pub const PERCENT: [u64; 3] = [80, 90, 100];

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alert {
    /// It ends within so many days.
    Ends {
        /// How many.
        days: i64,
        /// When.
        at: DateTime<Utc>,
    },
    /// So much of a limit is used.
    Used {
        /// Which.
        limit: String,
        /// How much of it: one of [`PERCENT`].
        percent: u64,
        /// How much that is.
        used: u64,
        /// How much there may be.
        most: u64,
    },
}

impl Alert {
    /// The word by which it is known that it was told.
    #[must_use]
    pub fn word(&self) -> String {
        match self {
            Self::Ends { days, .. } => format!("ends_within_{days}_days"),
            Self::Used { limit, percent, .. } => format!("{percent}_percent_of_{limit}"),
        }
    }
}

/// What is to be told now, and the words of all that need not be told any more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct News {
    /// Of each thing the most urgent.
    pub tell: Vec<Alert>,
    /// What is so now and was not told before, with what is less urgent.
    pub note: Vec<String>,
}

/// What follows from how a license is, when these were told before.
#[must_use]
pub fn news(evaluation: &Evaluation, usage: &BTreeMap<String, u64>, told: &BTreeSet<String>) -> News {
    let mut news = News::default();
    // From the least urgent.
    let ends = evaluation.ends_at.filter(|ends_at| *ends_at > evaluation.at && evaluation.state.grows());
    let ends = ends.into_iter().flat_map(|ends_at| {
        let left = ends_at - evaluation.at;
        DAYS.into_iter()
            .filter(move |days| left <= Duration::days(*days))
            .map(move |days| Alert::Ends { days, at: ends_at })
    });
    news.of(ends.collect(), told);
    for (limit, most) in &evaluation.limits {
        // Of what there may be none, none can be used up.
        let Some(most) = most.filter(|most| *most > 0) else { continue };
        let used = usage.get(limit).copied().unwrap_or(0);
        let reached = |percent: &u64| u128::from(used) * 100 >= u128::from(most) * u128::from(*percent);
        let alert = |percent: u64| Alert::Used { limit: limit.clone(), percent, used, most };
        news.of(PERCENT.into_iter().filter(reached).map(alert).collect(), told);
    }
    news
}

impl News {
    /// Takes what is so of one thing, the most urgent last.
    fn of(&mut self, alerts: Vec<Alert>, told: &BTreeSet<String>) {
        let words = alerts.iter().map(Alert::word).filter(|word| !told.contains(word));
        self.note.extend(words);
        self.tell.extend(alerts.into_iter().last().filter(|last| !told.contains(&last.word())));
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::tests::{begin, license};
    use super::super::evaluate::{Circumstances, Link, Status, evaluate};
    use super::*;

    fn at(now: DateTime<Utc>, servers: u64, told: &BTreeSet<String>) -> News {
        let claims = license(1);
        let usage = [("servers".to_owned(), servers), ("users".to_owned(), 1_000_000)].into();
        let circumstances = Circumstances { now, seen: None, instance: "", host: None, informed: None, usage: &usage };
        let evaluation = evaluate(&[Link { claims: &claims, status: Status::Active }], &circumstances);
        news(&evaluation, &usage, told)
    }

    /// Looks every hour, and writes down what is told when.
    fn told_in(hours: i64, servers: impl Fn(i64) -> u64) -> Vec<(i64, Alert)> {
        let (mut told, mut all) = (BTreeSet::new(), Vec::new());
        for hour in 0..hours {
            let news = at(begin() + Duration::hours(hour), servers(hour), &told);
            told.extend(news.note);
            all.extend(news.tell.into_iter().map(|alert| (hour, alert)));
        }
        all
    }

    #[test]
    fn its_end_is_told_four_times_and_no_more() {
        let told = told_in(400 * 24, |_| 0);
        let days: Vec<(i64, i64)> = told
            .iter()
            .filter_map(|(hour, alert)| match alert {
                Alert::Ends { days, .. } => Some((hour / 24, *days)),
                Alert::Used { .. } => None,
            })
            .collect();
        assert_eq!(days, [(335, 30), (351, 14), (358, 7), (364, 1)]);
        assert_eq!(told.len(), 4);
    }

    #[test]
    fn each_threshold_is_told_once_however_often_it_is_crossed() {
        let servers = |hour: i64| [0, 79, 80, 79, 85, 90, 80, 100, 120, 80][usize::try_from(hour).unwrap()];
        let told = told_in(10, servers);
        let of = |used, percent| Alert::Used { limit: "servers".to_owned(), percent, used, most: 100 };
        assert_eq!(told, [(2, of(80, 80)), (5, of(90, 90)), (7, of(100, 100))]);
    }

    #[test]
    fn of_what_is_so_at_once_the_most_urgent_is_told_and_the_others_never() {
        let late = begin() + Duration::days(362);
        let news = at(late, 95, &BTreeSet::new());
        assert_eq!(
            news.tell.iter().map(Alert::word).collect::<Vec<_>>(),
            ["ends_within_7_days", "90_percent_of_servers"]
        );
        assert_eq!(news.note.len(), 5);
        assert_eq!(at(late, 95, &news.note.into_iter().collect()), News::default());
    }

    #[test]
    fn of_what_has_ended_its_end_is_not_told() {
        let ended = begin() + Duration::days(366);
        assert_eq!(at(ended, 0, &BTreeSet::new()), News::default());
    }
}
