//! What JSON allows and this API does not, because two readers would understand it differently or nobody could store
//! it: the same key twice in an object, deep nesting, half of a surrogate pair, U+0000, and numbers beyond any column.
//!
//! One pass over the text, before anything is made of it. It keeps the keys of the objects that are open and nothing
//! else, so its memory is bounded whatever the text is.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write as _;

use crate::error::{Code, Error};

/// Objects and lists in each other.
const MAX_DEPTH: usize = 64;

/// Keys of one object.
const MAX_KEYS: usize = 10_000;

/// The longest number: more digits than a `double` has, fewer than would be work.
const MAX_NUMBER: usize = 400;

/// What is said of a place, at most.
const MAX_PATH: usize = 200;

/// Looks for what is not allowed. What is no JSON at all is left to whoever reads it.
///
/// # Errors
/// Names the field.
pub(crate) fn check(text: &str) -> Result<(), Error> {
    let mut scan = Scan { text, bytes: text.as_bytes(), at: 0, open: Vec::new() };
    match scan.document() {
        Ok(()) | Err(Stop::NoJson) => Ok(()),
        Err(Stop::Refused(error)) => Err(error),
    }
}

/// Why the pass ends early.
enum Stop {
    /// It is no JSON.
    NoJson,
    /// It is not allowed.
    Refused(Error),
}

/// What is open around the place.
enum Open<'a> {
    Object { keys: HashSet<Cow<'a, str>>, key: Cow<'a, str> },
    List { index: usize },
}

struct Scan<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    open: Vec<Open<'a>>,
}

impl<'a> Scan<'a> {
    fn document(&mut self) -> Result<(), Stop> {
        loop {
            if self.value()? {
                continue;
            }
            // A value is complete; what surrounds it goes on, or is complete too.
            loop {
                let next = self.next_byte();
                match (self.open.last_mut(), next) {
                    (None, _) => return Ok(()),
                    (Some(Open::List { index }), Some(b',')) => {
                        *index += 1;
                        break;
                    }
                    (Some(Open::Object { .. }), Some(b',')) => {
                        self.key()?;
                        break;
                    }
                    (Some(Open::List { .. }), Some(b']')) | (Some(Open::Object { .. }), Some(b'}')) => {
                        self.open.pop();
                    }
                    _ => return Err(Stop::NoJson),
                }
            }
        }
    }

    /// Reads the beginning of a value; answers whether another one follows inside it.
    fn value(&mut self) -> Result<bool, Stop> {
        match self.next_byte() {
            Some(b'{') => {
                self.enter(Open::Object { keys: HashSet::new(), key: Cow::Borrowed("") })?;
                if self.closes(b'}') {
                    return Ok(false);
                }
                self.key()?;
                Ok(true)
            }
            Some(b'[') => {
                self.enter(Open::List { index: 0 })?;
                Ok(!self.closes(b']'))
            }
            Some(b'"') => self.string().map(|_| false),
            Some(b'-' | b'0'..=b'9') => self.number().map(|()| false),
            Some(b'N' | b'I') => Err(self.refuse_as(Code::MalformedJson, NO_NUMBER)),
            Some(b't' | b'f' | b'n') => {
                while self.bytes.get(self.at).is_some_and(u8::is_ascii_lowercase) {
                    self.at += 1;
                }
                Ok(false)
            }
            _ => Err(Stop::NoJson),
        }
    }

    fn enter(&mut self, open: Open<'a>) -> Result<(), Stop> {
        if self.open.len() == MAX_DEPTH {
            // Where the depth begins says enough.
            self.open.truncate(1);
            self.open.retain(|open| matches!(open, Open::Object { .. }));
            let detail =
                format!("objects and lists may lie {MAX_DEPTH} deep in each other, and these lie deeper; flatten them");
            return Err(self.refuse(detail));
        }
        self.open.push(open);
        Ok(())
    }

    fn closes(&mut self, with: u8) -> bool {
        self.skip_blanks();
        let closes = self.bytes.get(self.at) == Some(&with);
        if closes {
            self.at += 1;
            self.open.pop();
        }
        closes
    }

    /// Reads a key and the colon.
    fn key(&mut self) -> Result<(), Stop> {
        // While the key is not known, what is wrong is wrong with the object.
        let outside = self.open.pop();
        if self.next_byte() != Some(b'"') {
            return Err(Stop::NoJson);
        }
        let read = self.string()?;
        let Some(Open::Object { mut keys, .. }) = outside else { return Err(Stop::NoJson) };
        let taken = !keys.insert(read.clone());
        let count = keys.len();
        self.open.push(Open::Object { keys, key: read });
        if taken {
            return Err(self.refuse("the object has this key twice; leave one of them out"));
        }
        if count > MAX_KEYS {
            self.open.pop();
            return Err(self.refuse(format!("an object may have {MAX_KEYS} keys, and this one has more; use a list")));
        }
        if self.next_byte() == Some(b':') { Ok(()) } else { Err(Stop::NoJson) }
    }

    /// Reads a string from behind its first quote.
    fn string(&mut self) -> Result<Cow<'a, str>, Stop> {
        let begin = self.at;
        let mut escaped = false;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => self.at += 1,
                None => return Err(Stop::NoJson),
            }
        }
        let inner = self.text.get(begin..self.at).ok_or(Stop::NoJson)?;
        self.at += 1;
        if !escaped {
            return Ok(Cow::Borrowed(inner));
        }
        let quoted = self.text.get(begin - 1..self.at).ok_or(Stop::NoJson)?;
        serde_json::from_str(quoted).map(Cow::Owned).map_err(|_| Stop::NoJson)
    }

    fn escape(&mut self) -> Result<(), Stop> {
        if self.bytes.get(self.at + 1) != Some(&b'u') {
            self.at += 2;
            return Ok(());
        }
        match self.code_unit()? {
            0 => Err(self.refuse("it contains the character U+0000, which cannot be stored; leave it out")),
            0xD800..=0xDBFF => {
                let follows = self.bytes.get(self.at) == Some(&b'\\') && self.bytes.get(self.at + 1) == Some(&b'u');
                if follows && matches!(self.code_unit()?, 0xDC00..=0xDFFF) { Ok(()) } else { Err(self.half()) }
            }
            0xDC00..=0xDFFF => Err(self.half()),
            _ => Ok(()),
        }
    }

    /// The four digits of an escape that begins here.
    fn code_unit(&mut self) -> Result<u16, Stop> {
        let digits = self.text.get(self.at + 2..self.at + 6).ok_or(Stop::NoJson)?;
        self.at += 6;
        u16::from_str_radix(digits, 16).map_err(|_| Stop::NoJson)
    }

    fn half(&self) -> Stop {
        self.refuse("it contains half of a surrogate pair, which is no character; write both halves, or neither")
    }

    /// Reads the rest of a number.
    fn number(&mut self) -> Result<(), Stop> {
        let begin = self.at - 1;
        if self.bytes.get(self.at) == Some(&b'I') {
            return Err(self.refuse_as(Code::MalformedJson, NO_NUMBER));
        }
        while self.bytes.get(self.at).is_some_and(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
        {
            self.at += 1;
        }
        let number = self.text.get(begin..self.at).ok_or(Stop::NoJson)?;
        let exponent = number.split_once(['e', 'E']).map_or(Ok(0), |(_, exponent)| exponent.parse::<i32>());
        let storable = exponent.is_ok_and(|exponent| exponent.abs() <= 308);
        let beyond = !storable || number.parse::<f64>().is_ok_and(f64::is_infinite);
        if number.len() > MAX_NUMBER || beyond {
            return Err(self.refuse("the number is too large, too small or too long to be stored; write it as a text"));
        }
        Ok(())
    }

    fn next_byte(&mut self) -> Option<u8> {
        self.skip_blanks();
        let byte = self.bytes.get(self.at).copied();
        self.at += usize::from(byte.is_some());
        byte
    }

    fn skip_blanks(&mut self) {
        while self.bytes.get(self.at).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn refuse(&self, detail: impl Into<String>) -> Stop {
        self.refuse_as(Code::InvalidField, detail)
    }

    fn refuse_as(&self, code: Code, detail: impl Into<String>) -> Stop {
        Stop::Refused(Error::new(code, detail).at(self.path()))
    }

    /// The place: `payload.lines[2].price`.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match open {
                Open::List { index } if path.is_empty() => drop(write!(path, "body[{index}]")),
                Open::List { index } => drop(write!(path, "[{index}]")),
                Open::Object { key, .. } if path.is_empty() => path.push_str(key),
                Open::Object { key, .. } => drop(write!(path, ".{key}")),
            }
        }
        match path.char_indices().nth(MAX_PATH) {
            _ if path.is_empty() => path.push_str("body"),
            Some((end, _)) => {
                path.truncate(end);
                path.push('…');
            }
            None => {}
        }
        path
    }
}

const NO_NUMBER: &str = "JSON has no NaN and no Infinity; write null, or a text";

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Option<(Code, String)> {
        let error = check(text).err()?;
        Some((error.code(), error.problem("", "").field.unwrap_or_default()))
    }

    #[test]
    fn what_two_readers_would_understand_differently_is_refused_by_its_place() {
        let invalid = |field: &str| Some((Code::InvalidField, field.to_owned()));
        let cases = [
            (r#"{"a": 1, "a": 2}"#, "a"),
            (r#"{"a": {"b": [{}, {"c": 1, "d": {}, "c": 1}]}}"#, "a.b[1].c"),
            (r#"{"a": 1, "\u0061": 2}"#, "a"),
            (r#"{"a": "\ud800"}"#, "a"),
            (r#"{"a": "\udc00\ud800"}"#, "a"),
            (r#"{"a": ["x", "\ud800\u0041"]}"#, "a[1]"),
            (r#"{"a": "x\u0000"}"#, "a"),
            (r#"{"a": {"\u0000": 1}}"#, "a"),
            (r#"{"\ud800": 1}"#, "body"),
            (r#"{"a": 1e999}"#, "a"),
            (r#"{"a": -1E+400}"#, "a"),
            (r#"{"a": 1e-9999}"#, "a"),
            (r#"["\u0000"]"#, "body[0]"),
            (r#""\u0000""#, "body"),
        ];
        for (text, field) in cases {
            assert_eq!(refused(text), invalid(field), "{text}");
        }
        let long = format!("{{\"a\": {}}}", "9".repeat(500));
        assert_eq!(refused(&long), invalid("a"));
    }

    #[test]
    fn what_is_no_number_is_no_json() {
        for text in [r#"{"a": [NaN]}"#, r#"{"a": [Infinity]}"#, r#"{"a": [-Infinity]}"#] {
            assert_eq!(refused(text), Some((Code::MalformedJson, "a[0]".to_owned())), "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded_and_the_field_it_is_in_is_named() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(refused(&nested(MAX_DEPTH - 1)), None);
        assert_eq!(refused(&nested(MAX_DEPTH)), Some((Code::InvalidField, "a".to_owned())));
        assert_eq!(refused(&"[".repeat(1_000_000)).map(|(code, _)| code), Some(Code::InvalidField));
        let objects = r#"{"a":"#.repeat(1_000_000);
        assert_eq!(refused(&objects), Some((Code::InvalidField, "a".to_owned())));
    }

    #[test]
    fn keys_and_what_is_said_of_a_place_are_bounded() {
        let keys = |count: usize| {
            let keys: Vec<String> = (0..count).map(|key| format!("\"{key}\":0")).collect();
            format!("{{\"a\":{{{}}}}}", keys.join(","))
        };
        assert_eq!(refused(&keys(MAX_KEYS)), None);
        assert_eq!(refused(&keys(MAX_KEYS + 1)), Some((Code::InvalidField, "a".to_owned())));
        let long = "é".repeat(10_000);
        let (_, field) = refused(&format!("{{\"{long}\": \"\\u0000\"}}")).unwrap();
        assert_eq!(field.chars().count(), MAX_PATH + 1);
    }

    #[test]
    fn everything_else_is_left_to_whoever_reads_it() {
        let fine = r#" { "a" : [ ] , "b":{}, "c": [1, -2.5e+10, true, null, "\ud83d\ude00 \\u0000 \"", {"a": {"a": 0}}], "d": "a" } "#;
        assert_eq!(refused(fine), None);
        for text in
            ["", "{", "{\"a\"", "{\"a\" 1}", "[1,,2]", "\"\\u12", "{'a': 1}", "{]", "[1}", "{} {}", "\"\\", "tru"]
        {
            assert_eq!(refused(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_text_is_the_pass_ends(text in r#"[\[\]{}",:\\u0d8Nae1\- ]{0,60}"#) {
            drop(check(&text));
        }

        #[test]
        fn what_serde_writes_is_allowed(keys in proptest::collection::btree_map(r"[^\x00]{0,8}", r"[^\x00]{0,8}", 0..8)) {
            proptest::prop_assert!(check(&serde_json::to_string(&keys).unwrap_or_default()).is_ok());
        }
    }
}
