//! Keys as OpenSSH writes them: public ones of people, to be let in; those of hosts, to be believed; and private ones that are
//! brought along.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use secrecy::ExposeSecretMut as _;
use zeroize::Zeroizing;

use super::keys;
use crate::digest::sha256_alone;
use crate::seal::SecretBytes;

/// Bytes a line may have: a key of RSA with 16384 bits has 2800.
const LONGEST: usize = 4_096;

/// Characters a comment may have.
const COMMENT: usize = 100;

/// Bits a key of RSA has at least.
const RSA: usize = 2_048;

/// Kinds of keys that are taken, as they begin.
const KINDS: [&str; 7] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// The four of them that hosts have, and that can be verified.
const OF_HOSTS: usize = 4;

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: &'static str,
    blob: Vec<u8>,
    /// What its owner wrote behind it.
    comment: String,
}

/// A text is no public key that is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotPublic {
    /// It is the other half.
    #[error(
        "this is a private key, which only its owner is to have: write the line of the .pub file beside it, and make a new pair"
    )]
    Private,
    /// There are several, or one that was wrapped.
    #[error("write one key, in one line")]
    Lines,
    /// What it may do is limited.
    #[error("a key is written without options before it: its kind, its data, and a comment if you like")]
    Options,
    /// It is of another kind.
    #[error("keys of the kind {0} are not taken; write one of ssh-ed25519, ecdsa-sha2-…, ssh-rsa or sk-…")]
    Kind(String),
    /// It is too short.
    #[error("a key of RSA with {0} bits is not taken; make one of 2048 bits or more, or of Ed25519")]
    Short(usize),
    /// What is behind it.
    #[error("the comment behind a key has at most 100 characters, none of them a control character; shorten it")]
    Comment,
    /// It is of a kind that hosts have, and that cannot be verified.
    #[error(
        "the platform cannot verify a host key of the kind {0}; write the server's ssh-ed25519 or ecdsa-sha2-… key"
    )]
    OfHost(&'static str),
    /// It is nothing of the kind.
    #[error(
        "this is no public key of OpenSSH; write the line of a .pub file, such as ssh-ed25519 AAAA… ada@example.com"
    )]
    Garbage,
}

/// A text is no private key that is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotPrivate {
    /// Nobody here knows it.
    #[error(
        "it has a passphrase, which the platform does not know: take it away with ssh-keygen -p -N '' -f, in a copy of the file"
    )]
    Passphrase,
    /// It is of another kind.
    #[error(
        "it is a key of the kind {0}, and the platform gets in with Ed25519: make one with ssh-keygen -t ed25519 -N ''"
    )]
    Kind(String),
    /// It is a key in another form.
    #[error("it is written in another form than OpenSSH's: ssh-keygen -p -N '' -f rewrites it, in a copy of the file")]
    Form,
    /// It is the other half.
    #[error("this is a public key; write the private one, the file without .pub")]
    Public,
    /// It is nothing of the kind.
    #[error(
        "this is no private key of OpenSSH; write all of the file, from -----BEGIN OPENSSH PRIVATE KEY----- to its end"
    )]
    Garbage,
}

/// Takes the parts of a message of SSH one after the other (RFC 4251, section 5).
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(usize::try_from(length).ok()?)
    }
}

impl PublicKey {
    /// Reads the line of a `.pub` file.
    ///
    /// # Errors
    /// Says why it is none that is taken, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, NotPublic> {
        let line = text.trim();
        if line.contains("PRIVATE KEY-----") {
            return Err(NotPublic::Private);
        }
        if line.len() > LONGEST {
            return Err(NotPublic::Garbage);
        }
        if line.contains(['\n', '\r']) {
            return Err(NotPublic::Lines);
        }
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        let Some(kind) = known(first) else {
            return Err(if words.any(|word| known(word).is_some()) {
                NotPublic::Options
            } else if looks_like_a_kind(first) {
                NotPublic::Kind(first.chars().take(60).collect())
            } else {
                NotPublic::Garbage
            });
        };
        let data = words.next().unwrap_or_default();
        let blob = STANDARD.decode(data).map_err(|_| NotPublic::Garbage)?;
        is_one(kind, &blob)?;
        let comment = words.collect::<Vec<_>>().join(" ");
        if comment.chars().count() > COMMENT || comment.chars().any(char::is_control) {
            return Err(NotPublic::Comment);
        }
        Ok(Self { kind, blob, comment })
    }

    /// Reads a host key: the line of a `.pub` file, or one of `known_hosts`, as `ssh-keyscan` writes it.
    ///
    /// # Errors
    /// Says why it is none that is taken, and what to write instead.
    pub fn parse_of_host(text: &str) -> Result<Self, NotPublic> {
        let line = text.trim();
        let of_key = match line.split_once(char::is_whitespace) {
            // Before it are the names of its host.
            Some((first, rest)) if known(first).is_none() && !first.starts_with('@') && !rest.contains('\n') => {
                let rest = rest.trim_start();
                let second = rest.split_ascii_whitespace().next().unwrap_or_default();
                if known(second).is_some() || looks_like_a_kind(second) { rest } else { line }
            }
            _ => line,
        };
        let key = Self::parse(of_key)?;
        if !KINDS[..OF_HOSTS].contains(&key.kind) {
            return Err(NotPublic::OfHost(key.kind));
        }
        Ok(key)
    }

    /// Its kind, and its data, without a comment.
    #[must_use]
    pub fn bare(&self) -> String {
        format!("{} {}", self.kind, STANDARD.encode(&self.blob))
    }

    /// By what people recognise it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", STANDARD_NO_PAD.encode(sha256_alone(&self.blob)))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.bare())?;
        if self.comment.is_empty() { Ok(()) } else { write!(f, " {}", self.comment) }
    }
}

fn known(word: &str) -> Option<&'static str> {
    KINDS.into_iter().find(|kind| *kind == word)
}

fn looks_like_a_kind(word: &str) -> bool {
    let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-@.".contains(&byte));
    plain && (word.starts_with("ssh-") || word.starts_with("ecdsa-") || word.ends_with("@openssh.com"))
}

/// Whether these bytes are a key of that kind, and nothing else.
fn is_one(kind: &'static str, blob: &[u8]) -> Result<(), NotPublic> {
    let mut parts = Parts(blob);
    let mut next = || parts.string().ok_or(NotPublic::Garbage);
    let right = next()? == kind.as_bytes()
        && match kind {
            "ssh-ed25519" => next()?.len() == 32,
            "sk-ssh-ed25519@openssh.com" => next()?.len() == 32 && !next()?.is_empty(),
            "ssh-rsa" => {
                let (exponent, modulus) = (next()?, next()?);
                let length = bits(modulus);
                if length < RSA {
                    return Err(NotPublic::Short(length));
                }
                let odd = exponent.last().is_some_and(|byte| byte & 1 == 1);
                length <= 16_384 && odd && (2..=64).contains(&bits(exponent))
            }
            "sk-ecdsa-sha2-nistp256@openssh.com" => {
                next()? == b"nistp256" && is_point("nistp256", next()?) && !next()?.is_empty()
            }
            ecdsa => {
                let curve = ecdsa.strip_prefix("ecdsa-sha2-").unwrap_or_default();
                next()? == curve.as_bytes() && is_point(curve, next()?)
            }
        };
    if right && parts.0.is_empty() { Ok(()) } else { Err(NotPublic::Garbage) }
}

/// How many bits a positive number has; a negative one, which begins with its highest bit, has none.
fn bits(number: &[u8]) -> usize {
    if number.first().is_some_and(|first| first & 0x80 != 0) {
        return 0;
    }
    let first = number.iter().position(|byte| *byte != 0);
    first.map_or(0, |first| (number.len() - first) * 8 - number[first].leading_zeros() as usize)
}

fn is_point(curve: &str, point: &[u8]) -> bool {
    let algorithm = match curve {
        "nistp256" => &ECDSA_P256_SHA256_ASN1,
        "nistp384" => &ECDSA_P384_SHA384_ASN1,
        "nistp521" => &ECDSA_P521_SHA512_ASN1,
        _ => return false,
    };
    // Uncompressed, as OpenSSH writes it.
    point.first() == Some(&4) && ParsedPublicKey::new(algorithm, point).is_ok()
}

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";

/// The 32 bytes of which the Ed25519 key in a file of OpenSSH is made.
///
/// # Errors
/// Says why it is none that is taken, and what to do about it.
pub fn seed(text: &str) -> Result<SecretBytes, NotPrivate> {
    let text = text.trim();
    let Some(body) = text.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END)) else {
        return Err(otherwise(text));
    };
    let body: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
    let bytes = Zeroizing::new(STANDARD.decode(body.as_bytes()).map_err(|_| NotPrivate::Garbage)?);
    read_seed(&bytes)
}

/// What else it may be.
fn otherwise(text: &str) -> NotPrivate {
    let has = |words: &str| text.contains(words);
    if has("BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED") {
        return NotPrivate::Passphrase;
    }
    for (begin, kind) in [("BEGIN RSA ", "RSA"), ("BEGIN EC ", "ECDSA"), ("BEGIN DSA ", "DSA")] {
        if has(begin) {
            return NotPrivate::Kind(kind.to_owned());
        }
    }
    if has("BEGIN PRIVATE KEY") || has("PuTTY-User-Key-File") {
        return NotPrivate::Form;
    }
    if PublicKey::parse(text).is_ok() { NotPrivate::Public } else { NotPrivate::Garbage }
}

/// The format is described in `PROTOCOL.key` of OpenSSH.
fn read_seed(bytes: &[u8]) -> Result<SecretBytes, NotPrivate> {
    let garbage = || NotPrivate::Garbage;
    let mut parts = Parts(bytes.strip_prefix(b"openssh-key-v1\0").ok_or_else(garbage)?);
    let mut next = || parts.string().ok_or_else(garbage);
    let (cipher, derived, _options) = (next()?, next()?, next()?);
    if cipher != b"none" || derived != b"none" {
        return Err(NotPrivate::Passphrase);
    }
    if parts.number() != Some(1) {
        return Err(garbage());
    }
    let (public, private) = (parts.string().ok_or_else(garbage)?, parts.string().ok_or_else(garbage)?);
    let kind = Parts(public).string().ok_or_else(garbage)?;
    if kind != b"ssh-ed25519" {
        let kind = String::from_utf8_lossy(kind);
        return Err(if looks_like_a_kind(&kind) {
            NotPrivate::Kind(kind.chars().take(60).collect())
        } else {
            garbage()
        });
    }
    let mut parts = Parts(private);
    // Twice the same: it was opened with the right key, which is none here.
    if parts.number().is_none_or(|first| parts.number() != Some(first)) {
        return Err(garbage());
    }
    let mut next = || parts.string().ok_or_else(garbage);
    let (kind, own, both, _comment) = (next()?, next()?, next()?, next()?);
    let (seed, other) = both.split_at_checked(32).ok_or_else(garbage)?;
    let padded = parts.0.len() < 8 && parts.0.iter().zip(1_u8..).all(|(byte, number)| *byte == number);
    let line = keys::public_key(seed).ok_or_else(garbage)?;
    let written = PublicKey::parse(&line).is_ok_and(|key| key.blob == public);
    if kind != b"ssh-ed25519" || own != other || !written || !public.ends_with(own) || own.len() != 32 || !padded {
        return Err(garbage());
    }
    let mut kept = SecretBytes::from(vec![0; 32]);
    kept.expose_secret_mut().copy_from_slice(seed);
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    use super::*;

    // Made by ssh-keygen, for this test and nothing else.
    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBufDTCwd50NKmUBDLrbhqTtoEloT3GiARMiHah3XZJD";
    const P256: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBDwuIK+cmN+6exSt4clmlgR1UM7n/5Tcd666TxtuTFw5d7t7wwzfafDY5ZIHvtZvkLMVfL3jC4JZxoV3buIIflU=";
    const P384: &str = "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBE+uylU9FhpZFxUCzeWVdXIP90MHrIabcPd7VuBHI54e3xBKE+JiKpD5RislPFfs+76idgf8c4f3IpBqrnNtu2WTZhERvx07BSF6U3InUJecowvrQpxNZlTaP6cr3QB8Ig==";
    const P521: &str = "ecdsa-sha2-nistp521 AAAAE2VjZHNhLXNoYTItbmlzdHA1MjEAAAAIbmlzdHA1MjEAAACFBAFuEXY4KGLqOoUws3tVa3J1mDO3unwhSojoqpxKYsHjWPyWMkJEIaHCJFZcQE5wXASyXUlZ9A5Tt8WxkL3wjoh6YQHCWa4CFTB+NlVi/J+Thuut0rfTzC3Wk6sepzXjdTqVkELqnI9YJQcjCgpdYLnjcxMBSQ5inXwolVx1sxy0foJFgg==";
    const RSA_2048: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQCkdtzXCUDu0oU+LiraLRBl/EmwUhPUemjWhkP71htV/7GJ1Y5RGOWQqKTGFaXasfAaWAZdsUwMvWeoeLc1yrKAmB+vkYusuBi8YZd7/U7p7rvb5M/WadRyuh8Rldd4zJzlj3EJe8nKcM5tL3qZxVCRrnhg1J5Rb2VD0Tfb4hW1ccZtUwSV5kXwvKxXn0jqJHnWXprtq0EfsXfqaPyqFbg/zAYCeFNT0IQY9Ry7VflzyGv2DRKxN7y0f4/qhutbjfwt3WCAk91XaLyzz8hRQTZX40bkgi5Ci9ghjq6PFNZDE9QPaKgRYBe9WzQpGqSlXipUoNOhLza34pG0KiPcG59R";
    const RSA_1024: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQDXJqDyJNejZNh64VwifKvBamuOANBkqSqQB37SAoNfm2Xydl6MhlZvp3VjvYCX/n4+a21K23f6UhynueHlhhGsNkGj9DI4Fj/YlQjv6YfG2LNO3DBTiPLL8zb2yDpYvXSJRHXGiLwWYkZzF22ZR0KH+7o8JbvID9taFWdj1WMnTw==";

    fn openssh(body: &str) -> String {
        format!("{BEGIN}\n{body}\n{END}\n")
    }

    const OWN: &str = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACAbnw0wsHedDSplAQy624ak7aBJaE9xogETIh2od12SQwAAAJiIhTiPiIU4
jwAAAAtzc2gtZWQyNTUxOQAAACAbnw0wsHedDSplAQy624ak7aBJaE9xogETIh2od12SQw
AAAEDesKgXpWE1VGnYDyySbJ+VgnwZC1uiluYHRrzlfEEsURufDTCwd50NKmUBDLrbhqTt
oEloT3GiARMiHah3XZJDAAAAD2FkYUBleGFtcGxlLmNvbQECAwQFBg==";
    const LOCKED: &str = "b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABDZTgcNQ4
dcpef7tueMYyOXAAAAEAAAAAEAAAAzAAAAC3NzaC1lZDI1NTE5AAAAIM/2nYSYevyZiMLm
CxGx60FDMVnraR6KcT7Y3a9Qxo25AAAAkIgVC74+90Hz04WvOQNIqqAxKwgRKz7MXPEU6c
HBF17D2kQdpYHOx/7dCPZWMe+7Lmw551BnQ805C+g+R/sZQ/IS21iVJwbkn8MLleVi5IGY
Fz8l6MEpGu1L5t++or2ZzXBAXzpjcLtZzC7C8N01h4+XmH9ozoHCtK5/dUr46yv+g9Lhhj
ItDTOcokMEBBiC5Q==";
    const OF_P256: &str = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAaAAAABNlY2RzYS
1zaGEyLW5pc3RwMjU2AAAACG5pc3RwMjU2AAAAQQQ8LiCvnJjfunsUreHJZpYEdVDO5/+U
3Heuuk8bbkxcOXe7e8MM32nw2OWSB77Wb5CzFXy94wuCWcaFd27iCH5VAAAAqOzEb27sxG
9uAAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBDwuIK+cmN+6exSt
4clmlgR1UM7n/5Tcd666TxtuTFw5d7t7wwzfafDY5ZIHvtZvkLMVfL3jC4JZxoV3buIIfl
UAAAAgZ1Ip7/7ke+PTp8O2kCv2n0yIxwhWuqKOG3RRdhonb/AAAAAPYWRhQGV4YW1wbGUu
Y29tAQ==";

    #[test]
    fn public_keys_of_every_kind_are_read_and_written_again() {
        let text = |part: &[u8]| [u32::try_from(part.len()).unwrap().to_be_bytes().as_slice(), part].concat();
        let sk = [text(b"sk-ssh-ed25519@openssh.com"), text(&[7; 32]), text(b"ssh:")].concat();
        let sk = format!("sk-ssh-ed25519@openssh.com {}", STANDARD.encode(sk));
        let point = STANDARD.decode(P256.split(' ').nth(1).unwrap()).unwrap()[39..].to_vec();
        let sk_ecdsa =
            [text(b"sk-ecdsa-sha2-nistp256@openssh.com"), text(b"nistp256"), text(&point), text(b"ssh:")].concat();
        let sk_ecdsa = format!("sk-ecdsa-sha2-nistp256@openssh.com {}", STANDARD.encode(sk_ecdsa));
        for line in [ED25519, P256, P384, P521, RSA_2048, &sk, &sk_ecdsa] {
            let key = PublicKey::parse(&format!("  {line}  Ada's  key \n")).unwrap();
            assert_eq!((key.bare(), key.to_string()), (line.to_owned(), format!("{line} Ada's key")));
        }
        // As ssh-keygen -l says it.
        let key = PublicKey::parse(ED25519).unwrap();
        assert_eq!(key.fingerprint().len(), "SHA256:".len() + 43);
        assert_eq!(key.to_string(), ED25519);
    }

    #[test]
    fn what_is_no_public_key_that_is_taken_is_told_apart() {
        let dsa = "ssh-dss AAAAB3NzaC1kc3MAAACBAP1/U4EddRIpUt9KnC7s5Of2EbdSPO9EAMMeP4C2USZpRV1AIlH7WT2NWPq";
        let certificate = "ssh-ed25519-cert-v01@openssh.com AAAA";
        for (text, wrong) in [
            (openssh(OWN).as_str(), NotPublic::Private),
            ("-----BEGIN RSA PRIVATE KEY-----", NotPublic::Private),
            (&format!("{ED25519}\n{P256}"), NotPublic::Lines),
            (&format!("command=\"rm -rf /\",no-pty {ED25519}"), NotPublic::Options),
            (&format!("from=\"10.0.0.0/8\" {ED25519}"), NotPublic::Options),
            (dsa, NotPublic::Kind("ssh-dss".to_owned())),
            (certificate, NotPublic::Kind("ssh-ed25519-cert-v01@openssh.com".to_owned())),
            (RSA_1024, NotPublic::Short(1_024)),
            (&format!("{ED25519} {}", "x".repeat(101)), NotPublic::Comment),
            (&format!("{ED25519} a\u{7}b"), NotPublic::Comment),
            ("", NotPublic::Garbage),
            ("ssh-ed25519", NotPublic::Garbage),
            ("ssh-ed25519 AAAA", NotPublic::Garbage),
            (ED25519.get(..70).unwrap(), NotPublic::Garbage),
            (&ED25519.replace("ssh-ed25519 ", "ssh-rsa "), NotPublic::Garbage),
            (&P256.replace("MVfL3j", "MVfL3k"), NotPublic::Garbage),
            (&format!("{ED25519}AAAA"), NotPublic::Garbage),
            ("ssh-ed25519 ☃", NotPublic::Garbage),
            (&"x".repeat(100_000), NotPublic::Garbage),
        ] {
            assert_eq!(PublicKey::parse(text).unwrap_err(), wrong, "{text:.80}");
        }
    }

    #[test]
    fn a_host_key_is_read_as_it_is_found() {
        let known = format!("[203.0.113.7]:2222 {ED25519}");
        for line in
            [ED25519, &known, &format!("db.example,203.0.113.7 {ED25519} root@db"), &format!("|1|x=|y= {ED25519}")]
        {
            assert_eq!(PublicKey::parse_of_host(line).unwrap().bare(), ED25519);
        }
        for (line, wrong) in [
            (format!("db.example {RSA_2048}"), NotPublic::OfHost("ssh-rsa")),
            (format!("@cert-authority *.example {ED25519}"), NotPublic::Options),
            (format!("db.example {ED25519}\ndb.example {P256}"), NotPublic::Lines),
            ("db.example ssh-dss AAAA".to_owned(), NotPublic::Kind("ssh-dss".to_owned())),
            ("SHA256:AAAA".to_owned(), NotPublic::Garbage),
        ] {
            assert_eq!(PublicKey::parse_of_host(&line).unwrap_err(), wrong, "{line:.80}");
        }
    }

    #[test]
    fn a_private_key_of_openssh_is_read_and_everything_else_has_a_reason() {
        let kept = seed(&openssh(OWN)).unwrap();
        assert_eq!(keys::public_key(kept.expose_secret()).as_deref(), Some(ED25519));
        assert!(seed(&openssh(OWN).replace('\n', "\r\n")).is_ok());
        let changed = openssh(&OWN.replace("KgXp", "KgYp"));
        for (text, wrong) in [
            (openssh(LOCKED), NotPrivate::Passphrase),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----".to_owned(), NotPrivate::Passphrase),
            ("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED".to_owned(), NotPrivate::Passphrase),
            (openssh(OF_P256), NotPrivate::Kind("ecdsa-sha2-nistp256".to_owned())),
            ("-----BEGIN RSA PRIVATE KEY-----\nMIIE".to_owned(), NotPrivate::Kind("RSA".to_owned())),
            ("-----BEGIN PRIVATE KEY-----\nMC4C".to_owned(), NotPrivate::Form),
            ("PuTTY-User-Key-File-3: ssh-ed25519".to_owned(), NotPrivate::Form),
            (ED25519.to_owned(), NotPrivate::Public),
            (changed, NotPrivate::Garbage),
            (openssh(OWN.get(..200).unwrap()), NotPrivate::Garbage),
            (openssh(""), NotPrivate::Garbage),
            (BEGIN.to_owned(), NotPrivate::Garbage),
            (String::new(), NotPrivate::Garbage),
        ] {
            assert_eq!(seed(&text).err(), Some(wrong), "{text:.60}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0_usize..280, to: u8) {
            drop(read_seed(&bytes));
            let text = String::from_utf8_lossy(&bytes);
            drop((PublicKey::parse(&text), PublicKey::parse_of_host(&text), seed(&text).err()));
            for kind in KINDS {
                drop(is_one(kind, &bytes));
            }
            // Whatever is changed in a key is noticed, but for what stands beside it.
            let mut own = STANDARD.decode(OWN.replace('\n', "")).unwrap();
            let at = at % own.len();
            own[at] = to;
            if let Ok(kept) = read_seed(&own) {
                prop_assert_eq!(keys::public_key(kept.expose_secret()), Some(ED25519.to_owned()));
            }
        }
    }
}
