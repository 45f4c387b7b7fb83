//! When a server is looked at again, and when somebody is told that it cannot be reached.

use chrono::Duration;

/// How often in a row nobody gets in before it counts: one connection may be lost on the way.
pub const MISSES: i32 = 3;

/// What a look at a server means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is as before.
    None,
    /// Nobody gets in any more.
    Unreachable,
    /// Somebody gets in again.
    Recovered,
}

/// What it means that a server was reached or not, after so many misses in a row; `down`: it counts as unreachable.
#[must_use]
pub const fn judge(reached: bool, misses: i32, down: bool) -> Change {
    match (reached, down) {
        (true, true) => Change::Recovered,
        (false, false) if misses + 1 >= MISSES => Change::Unreachable,
        _ => Change::None,
    }
}

/// When it is looked at again, after so many misses in a row: soon while it is in doubt, and less and less often when it is
/// known to be gone.
#[must_use]
pub fn next(misses: i32) -> Duration {
    match misses {
        0 => Duration::seconds(60),
        1..=MISSES => Duration::seconds(10),
        more => Duration::seconds(60 << (more - MISSES).min(4)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_miss_is_none_three_are_told_once_and_so_is_the_recovery() {
        let (mut misses, mut down, mut told) = (0, false, Vec::new());
        for reached in [true, false, true, false, false, false, false, true, true] {
            let change = judge(reached, misses, down);
            misses = if reached { 0 } else { misses + 1 };
            down = match change {
                Change::Unreachable => true,
                Change::Recovered => false,
                Change::None => down,
            };
            told.push(change);
        }
        use Change::{None, Recovered, Unreachable};
        assert_eq!(told, [None, None, None, None, None, Unreachable, None, Recovered, None]);
    }

    #[test]
    fn it_is_looked_at_soon_while_in_doubt_and_less_and_less_often_when_gone() {
        let waits: Vec<i64> = [0, 1, 3, 4, 5, 7, 100].map(|misses| next(misses).num_seconds()).into();
        assert_eq!(waits, [60, 10, 10, 120, 240, 960, 960]);
    }
}
