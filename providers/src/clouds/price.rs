//! What things cost, exactly: as many billionths of the currency as there are.

use std::fmt;
use std::ops::{Add, Mul};

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Hours of a month, as clouds count them where they say only what an hour costs.
pub const HOURS: u32 = 730;

const DIGITS: usize = 9;
const WHOLE: i64 = 1_000_000_000;

/// An amount of money in the currency of its catalogue, in billionths of it. What clouds write more finely is rounded up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Price(i64);

impl Price {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// So many billionths.
    #[must_use]
    pub const fn of_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// In billionths of the currency.
    #[must_use]
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// In hundredths of the currency, rounded up.
    #[must_use]
    pub const fn cents(self) -> i64 {
        self.0.div_euclid(WHOLE / 100) + if self.0.rem_euclid(WHOLE / 100) > 0 { 1 } else { 0 }
    }

    /// Reads what clouds write: `0.0104`, `5`, `1.1900000000000000`. No signs and no exponents beside those of small numbers.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        // How JSON's numbers below a hundred-thousandth come out.
        let (text, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok().filter(|it| (-18..=0).contains(it))?),
            None => (text, 0),
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !are_digits(whole) || !are_digits(fraction) || whole.len() > 9 || fraction.len() > 40 {
            return None;
        }
        let shift = usize::try_from(-exponent).ok()?;
        let digits = format!("{}{whole}{fraction}", "0".repeat(shift));
        let (whole, fraction) = digits.split_at_checked(whole.len())?;
        let (kept, rest) = fraction.split_at_checked(DIGITS).unwrap_or((fraction, ""));
        let mut nanos = whole.parse::<i64>().ok()?.checked_mul(WHOLE)?;
        nanos = nanos.checked_add(format!("{kept:0<DIGITS$}").parse::<i64>().ok()?)?;
        let more = i64::from(rest.bytes().any(|byte| byte != b'0'));
        nanos.checked_add(more).map(Self)
    }

    /// For a month, of what costs this in an hour.
    #[must_use]
    pub fn monthly(self) -> Self {
        self * HOURS
    }
}

impl Add for Price {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Mul<u32> for Price {
    type Output = Self;

    fn mul(self, times: u32) -> Self {
        Self(self.0.saturating_mul(i64::from(times)))
    }
}

impl std::iter::Sum for Price {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:09}", self.0.unsigned_abs() % WHOLE.unsigned_abs());
        let fraction = fraction.trim_end_matches('0');
        write!(f, "{}.{fraction:0<2}", self.0 / WHOLE)
    }
}

impl Serialize for Price {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Price {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = match serde_json::Value::deserialize(from)? {
            serde_json::Value::String(text) => text,
            serde_json::Value::Number(number) => number.to_string(),
            _ => return Err(D::Error::custom("a price is a text or a number")),
        };
        Self::read(&text).ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &"a price"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prices_are_read_to_the_last_digit_that_counts() {
        for (text, nanos) in [
            ("0.0104000000", 10_400_000),
            ("5", 5_000_000_000),
            ("1.1900000000000000", 1_190_000_000),
            ("0.0000000001", 1),
            ("5.95e-3", 5_950_000),
            ("1e-6", 1_000),
            ("48.0", 48_000_000_000),
        ] {
            assert_eq!(Price::read(text), Some(Price::of_nanos(nanos)), "{text}");
        }
        for bad in ["", "-1", "1,5", "1e5", "1e-99", "NaN", ".5", "1.2.3", "12345678901"] {
            assert_eq!(Price::read(bad), None, "{bad}");
        }
        assert_eq!(Price::of_nanos(10_400_000).monthly().to_string(), "7.592");
        assert_eq!(Price::of_nanos(10_400_000).monthly().cents(), 760);
        assert_eq!(Price::of_nanos(5_000_000_000).to_string(), "5.00");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(nanos in 0..i64::from(i32::MAX) * 100) {
            let price = Price::of_nanos(nanos);
            prop_assert_eq!(Price::read(&price.to_string()), Some(price));
            prop_assert!(price.cents() * 10_000_000 >= nanos && (price.cents() - 1) * 10_000_000 < nanos);
        }

        #[test]
        fn whatever_is_written_is_looked_at_without_a_panic(text in ".{0,40}") {
            let _read = Price::read(&text);
        }
    }
}
