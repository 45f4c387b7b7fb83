//! Numbers of telephones, as the world writes them (ITU-T E.164).

use std::fmt;
use std::str::FromStr;

/// A telephone's number: `+`, the country's code, and the rest, 7 to 15 digits in all.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Phone(String);

/// The text is no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a telephone's number begins with + and the country's code, and has 7 to 15 digits: +43 660 1234567")]
pub struct InvalidPhone;

impl Phone {
    /// With `+`, and without anything between the digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As much of it as its owner needs to know it again: `+43…67`.
    #[must_use]
    pub fn hinted(&self) -> String {
        let (first, last): (String, String) =
            (self.0.chars().take(3).collect(), self.0.chars().rev().take(2).collect());
        format!("{first}…{}", last.chars().rev().collect::<String>())
    }
}

impl FromStr for Phone {
    type Err = InvalidPhone;

    fn from_str(text: &str) -> Result<Self, InvalidPhone> {
        let rest = text.trim().strip_prefix('+').ok_or(InvalidPhone)?;
        if rest.len() > 40 || !rest.chars().all(|each| each.is_ascii_digit() || " -()./".contains(each)) {
            return Err(InvalidPhone);
        }
        let digits: String = rest.chars().filter(char::is_ascii_digit).collect();
        // No country's code begins with 0.
        if (7..=15).contains(&digits.len()) && !digits.starts_with('0') {
            Ok(Self(format!("+{digits}")))
        } else {
            Err(InvalidPhone)
        }
    }
}

impl fmt::Display for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them_and_nothing_else_is() {
        for text in ["+436601234567", " +43 660 1234567 ", "+43 (660) 123-45.67"] {
            assert_eq!(text.parse::<Phone>().map(|phone| phone.to_string()), Ok("+436601234567".to_owned()));
        }
        for bad in
            ["", "+", "436601234567", "+43", "+1234567890123456", "+0660123456", "+43660x123456", "+43\n6601234567"]
        {
            assert_eq!(bad.parse::<Phone>(), Err(InvalidPhone), "{bad}");
        }
        assert_eq!("+436601234567".parse::<Phone>().unwrap().hinted(), "+43…67");
    }
}
