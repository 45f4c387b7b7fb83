//! A file of places, written as MaxMind's format has it (version 2.0): a tree of addresses, and what is known of each.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// What is known of a network.
pub struct Placed {
    pub network: (Ipv4Addr, u8),
    pub country: &'static str,
    pub city: &'static str,
    pub spot: (f64, f64, u16),
}

enum Value {
    Text(String),
    Double(f64),
    Small(u16),
    Large(u32),
    Long(u64),
    Map(Vec<(&'static str, Value)>),
    List(Vec<Value>),
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// The type and size of a value, then the value. Nothing here is longer than 284 bytes.
fn write(value: &Value, out: &mut Vec<u8>) {
    let control = |kind: u8, size: usize, out: &mut Vec<u8>| {
        let (short, rest) = if size < 29 { (size, None) } else { (29, Some(size - 29)) };
        let first = u8::try_from(short).unwrap() | if kind < 8 { kind << 5 } else { 0 };
        out.push(first);
        // Kinds beyond seven are said in a second byte.
        out.extend((kind >= 8).then(|| kind - 7));
        out.extend(rest.map(|rest| u8::try_from(rest).unwrap()));
    };
    match value {
        Value::Text(text) => {
            control(2, text.len(), out);
            out.extend(text.as_bytes());
        }
        Value::Double(number) => {
            control(3, 8, out);
            out.extend(number.to_be_bytes());
        }
        Value::Small(number) => {
            control(5, 2, out);
            out.extend(number.to_be_bytes());
        }
        Value::Large(number) => {
            control(6, 4, out);
            out.extend(number.to_be_bytes());
        }
        Value::Long(number) => {
            control(9, 8, out);
            out.extend(number.to_be_bytes());
        }
        Value::Map(members) => {
            control(7, members.len(), out);
            for (name, member) in members {
                write(&text(name), out);
                write(member, out);
            }
        }
        Value::List(items) => {
            control(11, items.len(), out);
            items.iter().for_each(|item| write(item, out));
        }
    }
}

#[derive(Clone, Copy)]
enum Leaf {
    Nothing,
    Node(usize),
    Data(usize),
}

/// The file.
pub fn file(places: &[Placed]) -> Vec<u8> {
    let mut data = Vec::new();
    let mut nodes: Vec<[Leaf; 2]> = vec![[Leaf::Nothing; 2]];
    for Placed { network: (address, length), country, city, spot } in places {
        let at = data.len();
        let names = |name: &str| Value::Map(vec![("en", text(name))]);
        let record = Value::Map(vec![
            ("country", Value::Map(vec![("iso_code", text(country))])),
            ("city", Value::Map(vec![("names", names(city))])),
            (
                "location",
                Value::Map(vec![
                    ("latitude", Value::Double(spot.0)),
                    ("longitude", Value::Double(spot.1)),
                    ("accuracy_radius", Value::Small(spot.2)),
                ]),
            ),
        ]);
        write(&record, &mut data);
        let mut node = 0;
        for depth in 0..*length {
            let bit = usize::try_from(address.to_bits() >> (31 - depth) & 1).unwrap();
            if depth + 1 == *length {
                nodes[node][bit] = Leaf::Data(at);
                break;
            }
            node = match nodes[node][bit] {
                Leaf::Node(next) => next,
                _ => {
                    nodes.push([Leaf::Nothing; 2]);
                    let next = nodes.len() - 1;
                    nodes[node][bit] = Leaf::Node(next);
                    next
                }
            };
        }
    }
    let count = nodes.len();
    let mut file = Vec::new();
    for leaf in nodes.into_iter().flatten() {
        let record = match leaf {
            Leaf::Nothing => count,
            Leaf::Node(node) => node,
            // Counted from the sixteen bytes between the tree and the data.
            Leaf::Data(at) => count + 16 + at,
        };
        file.extend(u32::try_from(record).unwrap().to_be_bytes());
    }
    file.extend([0; 16]);
    file.extend(data);
    file.extend(b"\xab\xcd\xefMaxMind.com");
    let about = Value::Map(vec![
        ("binary_format_major_version", Value::Small(2)),
        ("binary_format_minor_version", Value::Small(0)),
        ("build_epoch", Value::Long(1_768_478_400)),
        ("database_type", text("Test-City")),
        ("description", Value::Map(vec![("en", text("A test"))])),
        ("ip_version", Value::Small(4)),
        ("languages", Value::List(vec![text("en")])),
        ("node_count", Value::Large(u32::try_from(count).unwrap())),
        ("record_size", Value::Small(32)),
    ]);
    write(&about, &mut file);
    file
}

/// Vienna, Munich, New York and London, each a network of documentation.
pub fn cities() -> Vec<u8> {
    let placed =
        |last: u8, country, city, spot| Placed { network: (Ipv4Addr::new(203, 0, 113, last), 28), country, city, spot };
    file(&[
        placed(0, "AT", "Vienna", (48.2082, 16.3738, 20)),
        placed(16, "DE", "Munich", (48.1351, 11.582, 20)),
        placed(32, "US", "New York", (40.7128, -74.006, 20)),
        placed(48, "GB", "London", (51.5074, -0.1278, 20)),
    ])
}

#[test]
fn the_file_says_where_addresses_are() {
    let read = maxminddb::Reader::from_source(cities()).unwrap();
    let city = |address: &str| {
        let found: Option<BTreeMap<String, serde_json::Value>> =
            read.lookup(address.parse().unwrap()).unwrap().decode().unwrap();
        found.map(|found| found["city"]["names"]["en"].clone())
    };
    assert_eq!(city("203.0.113.1"), Some("Vienna".into()));
    assert_eq!(city("203.0.113.63"), Some("London".into()));
    assert_eq!(city("203.0.113.64"), None);
}
