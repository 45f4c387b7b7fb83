//! Which part of a list a query answers.
//!
//! Ids begin with the time they were made at, so a list by id is a list by age, and a stretch of time is a stretch of
//! ids. A query is always given both bounds, so it reads its index from one to the other and nothing else, however
//! deep in the list that is.

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// In which direction a list goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// Oldest first; A before B.
    Ascending,
    /// Newest first; B before A.
    Descending,
}

/// A query in the direction that is asked for: each is a statement of its own, which the same index serves.
macro_rules! in_order {
    ($order:expr, $query:ident) => {
        match $order {
            $crate::Order::Ascending => $query!("asc"),
            $crate::Order::Descending => $query!("desc"),
        }
    };
}
pub(crate) use in_order;

/// A part of a list that is ordered by id: what lies strictly between two ids, up to a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The direction.
    pub order: Order,
    /// The most rows to be answered.
    pub limit: i64,
    low: Uuid,
    high: Uuid,
}

impl Window {
    /// The beginning of the whole list.
    #[must_use]
    pub const fn new(order: Order, limit: i64) -> Self {
        Self { order, limit, low: Uuid::nil(), high: Uuid::max() }
    }

    /// What follows after a row.
    #[must_use]
    pub fn after(self, id: impl Into<Uuid>) -> Self {
        match self.order {
            Order::Ascending => Self { low: self.low.max(id.into()), ..self },
            Order::Descending => Self { high: self.high.min(id.into()), ..self },
        }
    }

    /// Only what was made from a moment on, and before another.
    #[must_use]
    pub fn within(self, since: Option<DateTime<Utc>>, until: Option<DateTime<Utc>>) -> Self {
        let before = since.map(|moment| Uuid::from_u128(first_of(moment).as_u128() - 1));
        let low = before.map_or(self.low, |before| self.low.max(before));
        Self { low, high: until.map_or(self.high, |until| self.high.min(first_of(until))), ..self }
    }

    /// Every id in it is larger.
    #[must_use]
    pub const fn low(&self) -> Uuid {
        self.low
    }

    /// Every id in it is smaller.
    #[must_use]
    pub const fn high(&self) -> Uuid {
        self.high
    }
}

/// The smallest version-7 id of a moment, as `id_at` in the database.
fn first_of(moment: DateTime<Utc>) -> Uuid {
    const LATEST: u128 = (1 << 48) - 1;
    let millis = u128::try_from(moment.timestamp_millis()).unwrap_or(0).min(LATEST);
    Uuid::from_u128(millis << 80 | 7 << 76 | 2 << 62)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::JobId;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
    }

    fn holds(window: &Window, id: Uuid) -> bool {
        window.low() < id && id < window.high()
    }

    #[test]
    fn a_stretch_of_time_has_its_beginning_and_not_its_end() {
        let window = Window::new(Order::Ascending, 1).within(Some(at(1)), Some(at(3)));
        let found: Vec<i64> = (0..5).filter(|seconds| holds(&window, first_of(at(*seconds)))).collect();
        assert_eq!(found, [1, 2]);
        let long_ago =
            Window::new(Order::Ascending, 1).within(Some(DateTime::<Utc>::MIN_UTC), Some(DateTime::<Utc>::MAX_UTC));
        assert!(holds(&long_ago, first_of(at(0))));
    }

    #[test]
    fn the_next_page_is_behind_the_last_row_in_either_direction() {
        let (first, second) = (first_of(at(1)), first_of(at(2)));
        let after = |order, id| Window::new(order, 1).after(JobId::from_uuid(id));
        assert!(holds(&after(Order::Ascending, first), second) && !holds(&after(Order::Ascending, first), first));
        assert!(holds(&after(Order::Descending, second), first) && !holds(&after(Order::Descending, first), second));
        let bounded = Window::new(Order::Descending, 1).within(None, Some(at(1))).after(second);
        assert!(!holds(&bounded, first), "a row that was read does not widen what was asked for");
    }
}
