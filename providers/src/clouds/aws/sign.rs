//! Signatures, version 4: what is asked is signed with a key that is made anew for each day, region and service.

use std::fmt::Write as _;

use aws_lc_rs::{digest, hmac};
use chrono::DateTime;

use super::super::wire::Ask;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Who signs, and for whom.
#[derive(Clone, Copy)]
pub(super) struct Signer<'a> {
    pub(super) id: &'a str,
    pub(super) secret: &'a str,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
}

impl Signer<'_> {
    /// Signs what is asked: of its address the host, the path and the query, of its headers all that it has by now, and its
    /// body. `at` is in seconds since 1970.
    pub(super) fn sign(self, ask: Ask, at: i64) -> Option<Ask> {
        let url: url::Url = ask.url.parse().ok()?;
        let moment = DateTime::from_timestamp(at, 0)?.format("%Y%m%dT%H%M%SZ").to_string();
        let day = moment.get(..8)?;
        let host = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str()?),
            None => url.host_str()?.to_owned(),
        };
        let mut headers: Vec<(String, String)> =
            vec![("host".to_owned(), host), ("x-amz-date".to_owned(), moment.clone())];
        headers.extend(ask.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.trim().to_owned())));
        headers.sort();
        let signed: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        let signed = signed.join(";");
        let mut query: Vec<String> =
            url.query_pairs().map(|(name, value)| format!("{}={}", escape(&name), escape(&value))).collect();
        query.sort();
        let mut canonical = format!("{}\n{}\n{}\n", ask.method, url.path(), query.join("&"));
        for (name, value) in &headers {
            let _infallible = writeln!(canonical, "{name}:{value}");
        }
        let _infallible = write!(canonical, "\n{signed}\n{}", hex(digest::digest(&digest::SHA256, &ask.body).as_ref()));
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let digest = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let to_sign = format!("{ALGORITHM}\n{moment}\n{scope}\n{digest}");
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{}", self.secret).as_bytes());
        for part in [day, self.region, self.service, "aws4_request"] {
            key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref());
        }
        let signature = hex(hmac::sign(&key, to_sign.as_bytes()).as_ref());
        let authorization =
            format!("{ALGORITHM} Credential={}/{scope}, SignedHeaders={signed}, Signature={signature}", self.id);
        Some(
            ask.header(hyper::header::HeaderName::from_static("x-amz-date"), moment)
                .header(hyper::header::AUTHORIZATION, authorization),
        )
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _infallible = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use hyper::header;

    use super::*;

    #[test]
    fn the_example_of_awss_own_documentation_is_signed_as_there() {
        let signer = Signer {
            id: "AKIDEXAMPLE",
            secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            region: "us-east-1",
            service: "iam",
        };
        let ask = Ask::get("https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded; charset=utf-8");
        let signed = signer.sign(ask, 1_440_938_160).unwrap();
        let authorization = signed.headers.iter().find(|(name, _)| *name == header::AUTHORIZATION).unwrap();
        assert_eq!(
            authorization.1,
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, \
             Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }
}
