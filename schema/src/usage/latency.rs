//! How long answers took, as a histogram that can be added up: a bucket is a quarter of an octave wide, so a quantile
//! that is read from it is off by a fifth at most, from a tenth of a millisecond to a minute and a half.

use std::sync::LazyLock;
use std::time::Duration;

/// Buckets, each for what took no longer than its bound; the last for whatever took longer than the one before.
pub const BUCKETS: usize = 80;

/// The bounds, in microseconds.
static BOUNDS: LazyLock<[u32; BUCKETS]> = LazyLock::new(|| {
    let mut bounds = [0; BUCKETS];
    let mut octave: u32 = 100;
    for four in bounds.chunks_mut(4) {
        // 2 to the power of 0, 1/4, 2/4 and 3/4, in millionths.
        for (bound, factor) in four.iter_mut().zip([1_000_000_u64, 1_189_207, 1_414_214, 1_681_793]) {
            *bound = u32::try_from(u64::from(octave) * factor / 1_000_000).unwrap_or(u32::MAX);
        }
        octave = octave.saturating_mul(2);
    }
    bounds
});

/// The bucket of an answer that took so long.
#[must_use]
pub fn bucket(took: Duration) -> usize {
    let micros = took.as_micros();
    BOUNDS.partition_point(|bound| u128::from(*bound) < micros).min(BUCKETS - 1)
}

/// The time within which this part of the answers, in thousandths, was given; `None`: there were none.
#[must_use]
pub fn quantile(buckets: &[i64], thousandths: u32) -> Option<Duration> {
    let count = |bucket: &i64| u64::try_from(*bucket).unwrap_or(0);
    let total: u64 = buckets.iter().map(count).sum();
    if total == 0 {
        return None;
    }
    let rank = (total * u64::from(thousandths)).div_ceil(1_000).max(1);
    let mut before = 0;
    for (at, bucket) in buckets.iter().enumerate().take(BUCKETS) {
        let within = count(bucket);
        if before + within >= rank {
            let (low, high) = (at.checked_sub(1).map_or(0, |below| BOUNDS[below]), BOUNDS[at]);
            let part = u64::from(high - low) * (rank - before) / within;
            return Some(Duration::from_micros(u64::from(low) + part));
        }
        before += within;
    }
    Some(Duration::from_micros(u64::from(BOUNDS[BUCKETS - 1])))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn histogram(micros: &[u64]) -> Vec<i64> {
        let mut buckets = vec![0; BUCKETS];
        for one in micros {
            buckets[bucket(Duration::from_micros(*one))] += 1;
        }
        buckets
    }

    #[test]
    fn bounds_rise_from_a_tenth_of_a_millisecond_to_a_minute_and_a_half() {
        assert!(BOUNDS.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!((BOUNDS[0], BOUNDS[4], BOUNDS[BUCKETS - 1]), (100, 200, 88_174_388));
        assert_eq!((bucket(Duration::ZERO), bucket(Duration::from_hours(1))), (0, BUCKETS - 1));
        assert_eq!((bucket(Duration::from_micros(100)), bucket(Duration::from_micros(101))), (0, 1));
    }

    #[test]
    fn quantiles_of_nothing_are_none_and_of_a_shorter_array_are_as_of_a_longer() {
        assert_eq!(quantile(&[], 500), None);
        assert_eq!(quantile(&[0; BUCKETS], 990), None);
        let whole = histogram(&[1_000, 2_000, 3_000]);
        assert_eq!(quantile(&whole[..30], 500), quantile(&whole, 500));
    }

    proptest! {
        #[test]
        fn a_quantile_is_off_by_a_fifth_at_most(
            mut micros in proptest::collection::vec(200_u64..80_000_000, 1..200),
            thousandths in 1_u32..=1_000,
        ) {
            let read = quantile(&histogram(&micros), thousandths).unwrap().as_micros();
            micros.sort_unstable();
            let rank = (micros.len() as u64 * u64::from(thousandths)).div_ceil(1_000);
            let truth = u128::from(micros[usize::try_from(rank).unwrap() - 1]);
            prop_assert!(read * 100 >= truth * 83 && read * 100 <= truth * 120, "{} for {}", read, truth);
        }

        #[test]
        fn a_higher_quantile_is_no_shorter(micros in proptest::collection::vec(0_u64..10_000_000, 1..100)) {
            let buckets = histogram(&micros);
            let read = [1, 500, 950, 990, 1_000].map(|at| quantile(&buckets, at));
            prop_assert!(read.is_sorted());
        }
    }
}
