//! The generic cell rate algorithm: a bucket of cells that fills evenly. All there is to remember of a bucket is the
//! moment at which it will be full again; one that is full is forgotten.
//!
//! Times are microseconds of one clock, whichever.

/// How large a bucket is, and how fast it fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Cells a minute, as it was said.
    number: u32,
    /// Microseconds from one cell to the next.
    interval: u64,
    /// Cells of a full bucket.
    capacity: u64,
}

/// Microseconds in a minute.
const MINUTE: u64 = 60_000_000;

impl Rate {
    /// So many cells a minute, of which `burst` may be taken at once. Where a minute cannot be divided evenly, it is
    /// a little less.
    #[must_use]
    pub const fn per_minute(number: u32, burst: u32) -> Self {
        let (cells, burst) = (if number == 0 { 1 } else { number as u64 }, if burst == 0 { 1 } else { burst as u64 });
        Self { number, interval: MINUTE.div_ceil(cells), capacity: burst }
    }

    /// Cells a minute, as it was said.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.number
    }

    /// Microseconds from one cell to the next.
    #[must_use]
    pub const fn interval(self) -> u64 {
        self.interval
    }

    /// Cells of a full bucket.
    #[must_use]
    pub const fn capacity(self) -> u64 {
        self.capacity
    }

    /// Cells that can be taken from a bucket that will be full after so many microseconds.
    #[must_use]
    pub const fn available(self, until_full: u64) -> u64 {
        self.capacity.saturating_mul(self.interval).saturating_sub(until_full) / self.interval
    }

    /// Microseconds until so many cells can be taken; more than a full bucket has can never be.
    #[must_use]
    pub const fn wait(self, until_full: u64, cells: u64) -> u64 {
        until_full.saturating_sub(self.capacity.saturating_sub(cells).saturating_mul(self.interval))
    }

    /// Microseconds until there is a cell more than there are; 0: it is full.
    #[must_use]
    pub const fn next(self, until_full: u64) -> u64 {
        let available = self.available(until_full);
        if available >= self.capacity { 0 } else { self.wait(until_full, available + 1) }
    }

    /// Takes cells from a bucket that will be full at `full_at`. Answers when it will be full then.
    ///
    /// # Errors
    /// When there are not as many: the microseconds until there are.
    pub const fn take(self, full_at: u64, now: u64, cells: u64) -> Result<u64, u64> {
        let until_full = full_at.saturating_sub(now);
        if cells > self.available(until_full) {
            return Err(self.wait(until_full, cells));
        }
        Ok(now + until_full + cells * self.interval)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_vectors_of_a_bucket_of_three_cells_and_600_milliseconds() {
        let rate = Rate { number: 100, interval: 600_000, capacity: 3 };
        let mut full_at = 0;
        // Moment, then what is left and the time until full, or the time to wait; in milliseconds.
        for (at, expected) in [
            (0, Ok((2, 600))),
            (0, Ok((1, 1_200))),
            (0, Ok((0, 1_800))),
            (0, Err(600)),
            (599, Err(1)),
            (600, Ok((0, 1_800))),
            (600, Err(600)),
            (1_800, Ok((1, 1_200))),
            (3_000, Ok((2, 600))),
        ] {
            let now = at * 1_000;
            let taken = rate.take(full_at, now, 1).map(|next| {
                full_at = next;
                (rate.available(full_at - now), (full_at - now) / 1_000)
            });
            assert_eq!(taken.map_err(|wait| wait / 1_000), expected, "at {at}");
        }
    }

    #[test]
    fn more_than_a_full_bucket_has_is_never_to_be_had() {
        let rate = Rate::per_minute(60, 10);
        assert_eq!(rate.take(0, 5, 10), Ok(10_000_005));
        assert!(rate.take(0, 5, 11).is_err());
    }

    #[test]
    fn a_number_that_does_not_divide_a_minute_is_never_exceeded() {
        for number in [1, 7, 100, 499, 2_000, 4_321_000, 6_000_000] {
            let rate = Rate::per_minute(number, 1);
            assert!(MINUTE / rate.interval() <= u64::from(number), "{number}");
        }
    }

    proptest! {
        #[test]
        fn in_no_time_is_more_taken_than_a_full_bucket_and_what_flowed_in(
            number in 1_u32..10_000,
            burst in 1_u32..1_000,
            asks in prop::collection::vec((0_u64..2_000_000, 1_u64..20), 1..200),
        ) {
            let rate = Rate::per_minute(number, burst);
            let (mut full_at, mut now, mut taken) = (0, 1, Vec::new());
            for (pause, cells) in asks {
                now += pause;
                if let Ok(next) = rate.take(full_at, now, cells) {
                    full_at = next;
                    taken.push((now, cells));
                }
            }
            for (first, (begin, _)) in taken.iter().enumerate() {
                let mut sum = 0;
                for (at, cells) in &taken[first..] {
                    sum += cells;
                    prop_assert!(sum <= u64::from(burst) + (at - begin) / rate.interval() + 1);
                }
            }
        }

        #[test]
        fn who_waits_as_long_as_he_is_told_and_no_shorter_gets_what_he_asked_for(
            number in 1_u32..1_000_000,
            burst in 1_u32..1_000,
            until_full in 0_u64..100_000_000,
            cells in 1_u64..1_000,
        ) {
            let rate = Rate::per_minute(number, burst);
            let (now, cells) = (7, cells.min(rate.capacity()));
            // A bucket is at most empty.
            let full_at = now + until_full.min(rate.capacity() * rate.interval());
            if let Err(wait) = rate.take(full_at, now, cells) {
                prop_assert!(rate.take(full_at, now + wait, cells).is_ok());
                prop_assert!(rate.take(full_at, now + wait - 1, cells).is_err());
            }
        }

        #[test]
        fn many_cells_at_once_are_as_many_one_by_one(number in 1_u32..1_000_000, cells in 1_u64..100) {
            let rate = Rate::per_minute(number, 1_000);
            let one_by_one = (0..cells).try_fold(0, |full_at, _| rate.take(full_at, 9, 1));
            prop_assert_eq!(rate.take(0, 9, cells), one_by_one);
        }
    }
}
