//! Claim codes: what people type or read out to fetch a key. Crockford's base32 in groups, with a symbol that tells a
//! mistake: a wrong symbol, or two that changed places.

use std::fmt;
use std::str::FromStr;

use crate::digest::sha256;

/// The symbols; the last five are for the check only.
const SYMBOLS: &[u8; 37] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ*~$=U";

/// Symbols that carry something.
const LENGTH: u32 = 16;

/// A claim code: 80 bits of chance, used once and for a while.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClaimCode(u128);

/// The text is no code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCode {
    /// It has other symbols, or another number of them.
    #[error("a claim code is {LENGTH} letters and digits and a last symbol, in groups such as 7C3M-0Q9R-1ZK8-WT5A-H")]
    Form,
    /// Its last symbol does not fit.
    #[error("the claim code has a typing mistake; compare it once more")]
    Check,
}

impl ClaimCode {
    /// A new one, of a source of randomness that must be a cryptographic one.
    pub fn generate(random: &mut impl rand::CryptoRng) -> Self {
        use rand::RngExt as _;
        Self(random.random::<u128>() >> (128 - 5 * LENGTH))
    }

    /// What is stored.
    #[must_use]
    pub fn hash(self) -> [u8; 32] {
        sha256(&[b"license claim code", &self.0.to_be_bytes()])
    }

    const fn check(self) -> usize {
        (self.0 % 37) as usize
    }
}

impl fmt::Display for ClaimCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in 0..LENGTH {
            let symbol = SYMBOLS[(self.0 >> (5 * (LENGTH - 1 - place)) & 31) as usize];
            write!(f, "{}{}", char::from(symbol), if place % 4 == 3 { "-" } else { "" })?;
        }
        write!(f, "{}", char::from(SYMBOLS[self.check()]))
    }
}

impl fmt::Debug for ClaimCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimCode(…)")
    }
}

impl FromStr for ClaimCode {
    type Err = InvalidCode;

    fn from_str(text: &str) -> Result<Self, InvalidCode> {
        let symbol = |character: char| {
            let symbol = match character.to_ascii_uppercase() {
                // What looks alike is taken for the same.
                'O' => '0',
                'I' | 'L' => '1',
                other => other,
            };
            SYMBOLS.iter().position(|known| char::from(*known) == symbol).ok_or(InvalidCode::Form)
        };
        let written = text.chars().filter(|character| !matches!(character, '-' | ' '));
        let symbols = written.take(LENGTH as usize + 2).map(symbol).collect::<Result<Vec<_>, _>>()?;
        let [data @ .., check] = symbols.as_slice() else { return Err(InvalidCode::Form) };
        if data.len() != LENGTH as usize || data.iter().any(|symbol| *symbol > 31) {
            return Err(InvalidCode::Form);
        }
        let code = Self(data.iter().fold(0, |value, symbol| value << 5 | *symbol as u128));
        if code.check() == *check { Ok(code) } else { Err(InvalidCode::Check) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_code_is_read_back_however_it_is_typed(value in 0_u128..1 << 80) {
            let code = ClaimCode(value);
            let text = code.to_string();
            prop_assert_eq!(text.len(), 21);
            prop_assert_eq!(text.parse(), Ok(code));
            prop_assert_eq!(text.to_lowercase().replace('-', " ").parse(), Ok(code));
            prop_assert_eq!(text.get(..19).unwrap().replace('0', "o").replace('1', "l").parse::<ClaimCode>(), Err(InvalidCode::Form));
            let alike = format!("{}{}", text.get(..20).unwrap().replace('0', "O").replace('1', "I"), text.get(20..).unwrap());
            prop_assert_eq!(alike.parse(), Ok(code));
        }

        #[test]
        fn one_wrong_symbol_and_two_that_changed_places_are_noticed(value in 0_u128..1 << 80, at in 0_usize..15, by in 1_u128..32) {
            let place = 5 * (15 - at);
            let was = value >> place & 31;
            let check = char::from(SYMBOLS[ClaimCode(value).check()]);
            let with_check = |value: u128| {
                let text = ClaimCode(value).to_string();
                format!("{}{check}", text.get(..20).unwrap())
            };
            let wrong = value & !(31 << place) | ((was + by) % 32) << place;
            prop_assert_eq!(with_check(wrong).parse::<ClaimCode>(), Err(InvalidCode::Check));
            let next = value >> (place - 5) & 31;
            if was != next {
                let swapped = value & !(31 << place | 31 << (place - 5)) | next << place | was << (place - 5);
                prop_assert_eq!(with_check(swapped).parse::<ClaimCode>(), Err(InvalidCode::Check));
            }
        }
    }
}
