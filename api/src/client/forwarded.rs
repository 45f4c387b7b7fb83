//! What proxies write about whom they ask for.

use std::net::{IpAddr, SocketAddr};

use poem::http::header::FORWARDED;
use poem::http::{HeaderMap, HeaderName};

use super::ProxyHeader;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The hops from the farthest to the nearest, as they say of themselves; `None`: it names nobody.
pub(super) fn hops(header: ProxyHeader, headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let lines = |name| headers.get_all(name).iter().map(|line| line.to_str().unwrap_or("?"));
    match header {
        ProxyHeader::XForwardedFor => lines(&X_FORWARDED_FOR).flat_map(|line| line.split(',').map(node)).collect(),
        ProxyHeader::Forwarded => {
            lines(&FORWARDED).flat_map(|line| split(line, b',').into_iter().map(element)).collect()
        }
    }
}

/// `for=` of an element of `Forwarded`, such as `for="[2001:db8::1]:4711";proto=https`.
fn element(text: &str) -> Option<IpAddr> {
    let mut found = None;
    for pair in split(text, b';') {
        let (name, value) = pair.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("for") {
            // Given twice, either of them may be the stranger's.
            if found.replace(value.trim()).is_some() {
                return None;
            }
        }
    }
    let value = found?;
    match value.strip_prefix('"') {
        // None of an address' characters needs a backslash.
        Some(quoted) => node(quoted.strip_suffix('"')?),
        None => node(value),
    }
}

/// An address, with a port or without.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = || text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    bare().or_else(with_port).or_else(in_brackets).map(|address| address.to_canonical())
}

/// The parts between separators that stand in no quotes.
fn split(text: &str, separator: u8) -> Vec<&str> {
    let (mut parts, mut begin, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if std::mem::take(&mut escaped) => {}
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => {
                parts.extend(text.get(begin..at));
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.extend(text.get(begin..));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(hops: Vec<Option<IpAddr>>) -> Vec<String> {
        hops.into_iter().map(|hop| hop.map_or_else(|| "?".to_owned(), |hop| hop.to_string())).collect()
    }

    fn read(header: ProxyHeader, name: &'static str, value: &str) -> Vec<String> {
        let headers = HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().unwrap())]);
        shown(hops(header, &headers))
    }

    #[test]
    fn addresses_come_with_ports_and_without() {
        let read = |value: &str| read(ProxyHeader::XForwardedFor, "x-forwarded-for", value);
        assert_eq!(
            read("192.0.2.1, 192.0.2.2:4711,2001:db8::1 , [2001:db8::2]:4711, [2001:db8::3]"),
            ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8::3"]
        );
        assert_eq!(read("\"192.0.2.1\", 192.0.2.1:99999, [192.0.2.1"), ["?", "?", "?"]);
    }

    #[test]
    fn the_examples_of_rfc_7239_are_read() {
        let read = |value: &str| read(ProxyHeader::Forwarded, "forwarded", value);
        assert_eq!(read("for=\"_gazonk\""), ["?"]);
        assert_eq!(read("For=\"[2001:db8:cafe::17]:4711\""), ["2001:db8:cafe::17"]);
        assert_eq!(read("for=192.0.2.60;proto=http;by=203.0.113.43"), ["192.0.2.60"]);
        assert_eq!(read("for=192.0.2.43, for=198.51.100.17"), ["192.0.2.43", "198.51.100.17"]);
        assert_eq!(
            read("for=192.0.2.43,for=\"[2001:db8:cafe::17]\",for=unknown"),
            ["192.0.2.43", "2001:db8:cafe::17", "?"]
        );
    }

    #[test]
    fn quotes_hide_no_separator_and_nobody_is_named_twice() {
        let read = |value: &str| read(ProxyHeader::Forwarded, "forwarded", value);
        assert_eq!(read(r#"host="a\",for=1.1.1.1";for=192.0.2.43"#), ["192.0.2.43"]);
        assert_eq!(read("for=192.0.2.43;for=1.1.1.1"), ["?"]);
        assert_eq!(read("for=192.0.2.43;nonsense"), ["?"]);
        assert_eq!(read("by=192.0.2.43"), ["?"]);
        assert_eq!(read("for=\"192.0.2.43, for=1.1.1.1"), ["?"]);
    }
}
