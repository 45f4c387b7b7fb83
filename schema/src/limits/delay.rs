//! How long to wait after guesses that were wrong.

use std::time::Duration;

/// Wrong guesses that cost nothing: people mistype.
pub const FREE_FAILURES: u32 = 2;

/// The longest wait: nobody is locked out for good by what others guess.
pub const LONGEST_DELAY: Duration = Duration::from_mins(15);

/// How long nothing is taken after so many wrong guesses in a row: a second after the third, and twice as long after each
/// further one.
#[must_use]
pub fn delay(failures: u32) -> Duration {
    let Some(doubled) = failures.checked_sub(FREE_FAILURES + 1) else { return Duration::ZERO };
    let seconds = 1_u64.checked_shl(doubled).unwrap_or(u64::MAX);
    Duration::from_secs(seconds).min(LONGEST_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_guess_after_the_second_doubles_the_wait_up_to_a_quarter_of_an_hour() {
        let seconds = |failures| delay(failures).as_secs();
        assert_eq!([0, 1, 2, 3, 4, 5, 12].map(seconds), [0, 0, 0, 1, 2, 4, 512]);
        assert_eq!([13, 14, 66, 67, u32::MAX].map(seconds), [900; 5]);
    }
}
