//! E-mail addresses, as far as people have them: a name of ASCII characters and a domain.

use std::fmt;
use std::str::FromStr;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

/// An e-mail address that mail can be sent to. Two are equal when they are the same mailbox: letters are compared
/// without case, domains in their ASCII form.
#[derive(Debug, Clone)]
pub struct Email {
    text: String,
    key: String,
}

/// The text is no e-mail address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an e-mail address is name@domain: a name of ASCII letters, digits and .!#$%&'*+-/=?^_`{{|}}~, and a domain of two or more parts"
)]
pub struct InvalidEmail;

impl Email {
    /// As it was written, with the domain in ASCII: what mail is sent to.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// As it is compared.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl FromStr for Email {
    type Err = InvalidEmail;

    fn from_str(text: &str) -> Result<Self, InvalidEmail> {
        let text = text.trim();
        let (local, domain) = text.rsplit_once('@').ok_or(InvalidEmail)?;
        // RFC 5321, 4.5.3.1, as a dot-atom: quoted names are allowed there and used by nobody but attackers.
        let atext = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
        let atoms = local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(atext));
        if !atoms || local.len() > 64 || domain.len() > 1_000 {
            return Err(InvalidEmail);
        }
        let domain = Uts46::new()
            .to_ascii(domain.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast, DnsLength::Verify)
            .map_err(|_| InvalidEmail)?;
        let last = domain.rsplit('.').next().unwrap_or_default();
        // A domain whose last part is a number is an address (WHATWG URL), and mail goes to names.
        if !domain.contains('.') || last.bytes().all(|byte| byte.is_ascii_digit()) || local.len() + domain.len() > 253 {
            return Err(InvalidEmail);
        }
        let text = format!("{local}@{domain}");
        Ok(Self { key: text.to_ascii_lowercase(), text })
    }
}

impl PartialEq for Email {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Email {}

impl std::hash::Hash for Email {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_mailbox_are_equal_however_they_are_written() {
        let key = |text: &str| text.parse::<Email>().unwrap().key().to_owned();
        assert_eq!(key(" Ada.Lovelace+work@Example.COM "), "ada.lovelace+work@example.com");
        assert_eq!(key("ada@BÜCHER.example"), "ada@xn--bcher-kva.example");
        assert_eq!(key("ada@bu\u{308}cher.example"), "ada@xn--bcher-kva.example");
        assert_eq!(key("ada@xn--bcher-kva.example"), "ada@xn--bcher-kva.example");
        assert_eq!("O'Hara@Example.com".parse::<Email>().unwrap().as_str(), "O'Hara@example.com");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("{}@example.com", "a".repeat(65));
        let longer = format!("a@{}.com", vec!["b".repeat(60); 5].join("."));
        for bad in [
            "",
            "@",
            "ada",
            "ada@",
            "@example.com",
            "ada@localhost",
            "ada@127.0.0.1",
            "ada@[127.0.0.1]",
            "a da@example.com",
            "ada@exa mple.com",
            "ada..lovelace@example.com",
            ".ada@example.com",
            "ada.@example.com",
            "\"ada\"@example.com",
            "ada@example.com\r\nBcc: eve@example.com",
            "ada@example..com",
            "ada@-example.com",
            "ada@exam_ple.com",
            "ada\u{0}@example.com",
            "аda@example.com", // a Cyrillic а
            &long,
            &longer,
            &"a@".repeat(100_000),
        ] {
            assert!(bad.parse::<Email>().is_err(), "{bad}");
        }
    }
}
