//! Which passwords may be chosen (NIST SP 800-63B-4, 3.1.1.2): long ones, none that is tried first by whoever guesses,
//! none that follows from whose it is. No rules about which characters, and no change without a reason.

use secrecy::{ExposeSecret as _, SecretString};
use unicode_normalization::UnicodeNormalization as _;

use super::Email;
use crate::digest::sha256_alone;

/// Characters a password has at least that is the only proof.
pub const ALONE: usize = 15;

/// Characters a password has at least that is one proof of two.
pub const WITH_ANOTHER: usize = 8;

/// Characters a password may have.
pub const LONGEST: usize = 256;

/// What scripts/common-passwords writes: the first bytes of digests, in order.
static COMMON: &[u8] = include_bytes!("common_passwords.bin");

/// Bytes of a digest in the list.
const DIGEST: usize = 6;

/// A password as somebody typed it, in the one form in which it is hashed (NFC).
#[derive(Debug, Clone)]
pub struct Typed(SecretString);

impl Typed {
    /// Takes what was typed.
    #[must_use]
    pub fn new(text: &str) -> Self {
        // What is longer than any password is not looked at whole: it is wrong however it goes on.
        Self(text.chars().take(LONGEST + 1).nfc().collect::<String>().into())
    }

    /// The bytes that are hashed.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret().as_bytes()
    }

    fn length(&self) -> usize {
        self.0.expose_secret().chars().count()
    }

    /// Whether it is long enough to be the only proof.
    #[must_use]
    pub fn stands_alone(&self) -> bool {
        self.length() >= ALONE
    }
}

/// Whose password it is to be.
#[derive(Debug, Clone, Copy)]
pub struct Whose<'a> {
    /// His address.
    pub email: &'a Email,
    /// What he is called.
    pub name: &'a str,
    /// He proves himself with something else as well.
    pub has_second_factor: bool,
}

/// Why a password cannot be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Weak {
    /// It is too short.
    #[error("a password has at least {least} characters; a sentence of a few words is a good one")]
    Short {
        /// What it would have to have.
        least: usize,
    },
    /// It is too long.
    #[error("a password has at most {LONGEST} characters; shorten it")]
    Long,
    /// It is among those that are tried first.
    #[error("this password is one of those that are tried first by whoever guesses; choose one of your own")]
    Common,
    /// It is one piece again and again, or hardly more than one character.
    #[error("this password repeats itself, which adds nothing to it; choose one that does not")]
    Repeats,
    /// It follows from whose it is.
    #[error("this password is made of your name, your address or ours, which are tried first; choose another")]
    Yours,
}

/// Checks a password that somebody wants to choose.
///
/// # Errors
/// Says why he cannot.
pub fn check(password: &Typed, whose: &Whose<'_>) -> Result<(), Weak> {
    let least = if whose.has_second_factor { WITH_ANOTHER } else { ALONE };
    let length = password.length();
    if length > LONGEST {
        return Err(Weak::Long);
    }
    if length < least {
        return Err(Weak::Short { least });
    }
    let lower = password.0.expose_secret().to_lowercase();
    if is_common(&lower) {
        return Err(Weak::Common);
    }
    let characters: Vec<char> = lower.chars().collect();
    if repeats(&characters) {
        return Err(Weak::Repeats);
    }
    if is_of(&lower, whose) { Err(Weak::Yours) } else { Ok(()) }
}

fn is_common(lower: &str) -> bool {
    let digest = sha256_alone(lower.as_bytes());
    let Some(wanted) = digest.first_chunk::<DIGEST>() else { return false };
    let (digests, _) = COMMON.as_chunks::<DIGEST>();
    digests.binary_search(wanted).is_ok()
}

/// One piece again and again, up to where it is cut off; three different characters or fewer; or characters in a row.
fn repeats(characters: &[char]) -> bool {
    let again = |piece: usize| characters.iter().skip(piece).zip(characters).all(|(one, other)| one == other);
    let mut different = characters.to_vec();
    different.sort_unstable();
    different.dedup();
    let step = |from: char, to: char| i64::from(u32::from(to)) - i64::from(u32::from(from));
    let in_a_row = |by: i64| characters.windows(2).filter(|pair| step(pair[0], pair[1]) == by).count();
    let mostly = characters.len().saturating_sub(3);
    different.len() <= 3 || (1..=characters.len() / 2).any(again) || in_a_row(1) >= mostly || in_a_row(-1) >= mostly
}

/// Letters and digits only: how they are joined makes them no better.
fn bare(text: &str) -> String {
    text.to_lowercase().chars().filter(|character| character.is_alphanumeric()).collect()
}

/// Whether hardly anything is left of it without his name, his address and ours.
fn is_of(lower: &str, whose: &Whose<'_>) -> bool {
    let key = whose.email.key();
    let mut known: Vec<String> = whose.name.split_whitespace().chain(key.split(['@', '.', '+'])).map(bare).collect();
    known.extend([bare(key), bare(whose.name), "gantry".to_owned(), "password".to_owned()]);
    known.retain(|word| word.chars().count() >= 3);
    known.sort_by_key(|word| std::cmp::Reverse(word.len()));
    let whole = bare(lower);
    let left = known.iter().fold(whole.clone(), |left, word| left.replace(word.as_str(), ""));
    left.len() < whole.len() && left.chars().count() < 5
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(password: &str, has_second_factor: bool) -> Result<(), Weak> {
        let email = "ada.lovelace@example.com".parse().unwrap();
        check(&Typed::new(password), &Whose { email: &email, name: "Ada Lovelace", has_second_factor })
    }

    #[test]
    fn length_is_what_counts_and_less_is_needed_beside_a_second_proof() {
        assert_eq!(verdict("fourteen chars", false), Err(Weak::Short { least: 15 }));
        assert_eq!(verdict("fifteen chars !", false), Ok(()));
        assert_eq!(verdict("sev en7", true), Err(Weak::Short { least: 8 }));
        assert_eq!(verdict("ei ght88", true), Ok(()));
        assert_eq!(verdict(&"a bc d".repeat(43), true), Err(Weak::Long));
        let long: String =
            ('!'..'\u{ff}').filter(|character| !character.is_control()).rev().step_by(3).take(64).collect();
        assert_eq!((long.chars().count(), verdict(&long, false)), (63, Ok(())));
        // Characters are counted, not bytes, and every one is allowed.
        assert_eq!(verdict("пятнадцать букв", false), Ok(()));
        assert_eq!(verdict("🐎🔋📎 correct 🐎🔋📎", false), Ok(()));
    }

    #[test]
    fn what_is_tried_first_is_refused_however_it_is_capitalised() {
        for common in ["password1", "12345678", "qwertyuiop", "PassWord", "iloveyou1", "1qaz2wsx3edc4rfv"] {
            assert_eq!(verdict(common, true), Err(Weak::Common), "{common}");
        }
        for repeats in ["xkcdxkcdxkcd", "yzyyzyzzzyyzyzy", "ghijklmnopqrstuv", "vutsrqponmlkjihg", "aababbabaabbaab"] {
            assert_eq!(verdict(repeats, true), Err(Weak::Repeats), "{repeats}");
        }
    }

    #[test]
    fn what_follows_from_whose_it_is_is_refused() {
        for yours in ["ada.lovelace@example.com", "Lovelace Ada 1815", "gantry-lovelace!", "adalovelaceadalovelace1"] {
            assert_eq!(verdict(yours, false), Err(Weak::Yours), "{yours}");
        }
        assert_eq!(verdict("the analytical engine weaves", false), Ok(()));
    }

    #[test]
    fn a_password_is_the_same_however_its_characters_are_composed() {
        assert_eq!(Typed::new("b\u{fc}cher").expose(), Typed::new("bu\u{308}cher").expose());
        // Compatibility is not equality: what looks like another character is another one.
        assert_ne!(Typed::new("ﬁne").expose(), Typed::new("fine").expose());
        assert!(!format!("{:?}", Typed::new("hunter2")).contains("hunter2"));
    }

    #[test]
    fn the_list_is_in_order() {
        let (digests, rest) = COMMON.as_chunks::<DIGEST>();
        assert!(rest.is_empty() && digests.len() > 40_000 && digests.is_sorted());
    }
}
