//! The guard with a real resolver in front of a name server that lies.

use std::collections::HashMap;
use std::sync::Mutex;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::net::UdpSocket;

use super::*;
use crate::hooks::testing::{Reply, Server};

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// What the name server says of a name, and how often it was asked for its addresses.
#[derive(Debug, Default, Clone)]
struct Entry {
    /// Each asking gets the next, and the last for ever.
    answers: Vec<Vec<IpAddr>>,
    alias: Option<&'static str>,
    /// For how many seconds an answer says that it is good.
    good_for: u32,
    asked: usize,
}

/// A name server of RFC 1035, as far as a resolver asks it.
struct NameServer {
    address: SocketAddr,
    entries: Arc<Mutex<HashMap<String, Entry>>>,
}

impl NameServer {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let entries: Arc<Mutex<HashMap<String, Entry>>> = Arc::default();
        let known = Arc::clone(&entries);
        tokio::spawn(async move {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question).await {
                let answer = answer(&question[..length], &mut known.lock().unwrap());
                socket.send_to(&answer, from).await.unwrap();
            }
        });
        Self { address, entries }
    }

    fn tells(&self, name: &str, answers: &[&[&str]]) {
        let parse = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        let entry = Entry { answers: answers.iter().map(parse).collect(), ..Entry::default() };
        self.entries.lock().unwrap().insert(name.to_owned(), entry);
    }

    fn tells_for(&self, name: &str, seconds: u32, answers: &[&[&str]]) {
        self.tells(name, answers);
        self.entries.lock().unwrap().get_mut(name).unwrap().good_for = seconds;
    }

    fn is_alias(&self, name: &str, of: &'static str) {
        self.entries.lock().unwrap().insert(name.to_owned(), Entry { alias: Some(of), ..Entry::default() });
    }

    fn asked(&self, name: &str) -> usize {
        self.entries.lock().unwrap()[name].asked
    }

    fn sender(&self, config: &Config) -> HttpHookSender {
        self.sender_believing(config, LONGEST_BELIEF)
    }

    fn sender_believing(&self, config: &Config, longest: Duration) -> HttpHookSender {
        let mut connection = ConnectionConfig::udp();
        connection.port = self.address.port();
        let server = NameServerConfig::new(self.address.ip(), true, vec![connection]);
        let config_of_resolver = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let mut resolver = TokioResolver::builder_with_config(config_of_resolver, TokioRuntimeProvider::default());
        believing(resolver.options_mut(), longest);
        HttpHookSender::with_lookup(config, Arc::new(resolver.build().unwrap())).unwrap()
    }
}

/// Reads the one question of a message and answers it. Unless a name says otherwise, its addresses are good for no time at
/// all: each delivery asks anew.
fn answer(question: &[u8], entries: &mut HashMap<String, Entry>) -> Vec<u8> {
    let (mut name, mut at) = (Vec::new(), 12);
    while question[at] != 0 {
        let end = at + 1 + usize::from(question[at]);
        name.push(String::from_utf8_lossy(&question[at + 1..end]).to_ascii_lowercase());
        at = end;
    }
    let wanted = u16::from_be_bytes([question[at + 1], question[at + 2]]);
    let asked = &question[12..at + 5];
    let mut records: Vec<Vec<u8>> = Vec::new();
    let mut name = name.join(".");
    if let Some(of) = entries.get(&name).and_then(|entry| entry.alias) {
        records.push(record(&wire(&name), CNAME, 0, &wire(of)));
        of.clone_into(&mut name);
    }
    if let Some(entry) = entries.get_mut(&name) {
        let turn = entry.asked.min(entry.answers.len().saturating_sub(1));
        for address in entry.answers.get(turn).into_iter().flatten() {
            match (wanted, address) {
                (A, IpAddr::V4(address)) => records.push(record(&wire(&name), A, entry.good_for, &address.octets())),
                (AAAA, IpAddr::V6(address)) => {
                    records.push(record(&wire(&name), AAAA, entry.good_for, &address.octets()));
                }
                _ => {}
            }
        }
        if wanted == A {
            entry.asked += 1;
        }
    }
    let count = u16::try_from(records.len()).unwrap().to_be_bytes();
    // The id as it came; an answer, with recursion, without error.
    let head = [question[0], question[1], 0x81, 0x80, 0, 1, count[0], count[1], 0, 0, 0, 0];
    [head.as_slice(), asked, &records.concat()].concat()
}

fn wire(name: &str) -> Vec<u8> {
    let label = |label: &str| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat();
    name.split('.').flat_map(label).chain([0]).collect()
}

fn record(name: &[u8], kind: u16, good_for: u32, data: &[u8]) -> Vec<u8> {
    let (kind, length) = (kind.to_be_bytes(), u16::try_from(data.len()).unwrap().to_be_bytes());
    [name, &kind, &[0, 1], &good_for.to_be_bytes(), &length, data].concat()
}

fn request(url: &str) -> HookRequest {
    HookRequest::new(url.parse().unwrap(), "{}").within(Duration::from_secs(5))
}

async fn code(sender: &HttpHookSender, url: &str) -> &'static str {
    match sender.send(request(url)).await {
        Ok(_) => "answered",
        Err(error) => error.code(),
    }
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_before_anything_is_connected() {
    let names = NameServer::start().await;
    let sender = names.sender(&Config::default());
    for inside in [
        "127.0.0.1",
        "127.8.8.8",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "100.64.0.1",
        "192.0.0.1",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "fe80::1",
        "fc00::1",
        "fd12::1",
        "ff02::1",
        "2001:db8::1",
        "3fff::1",
        "100::1",
        "2002:7f00:1::1",
        "5f00::1",
    ] {
        names.tells("inside.example", &[&[inside]]);
        assert_eq!(code(&sender, "https://inside.example/").await, "refused_address", "{inside}");
        names.tells("both.example", &[&["1.1.1.1", inside]]);
        assert_eq!(code(&sender, "https://both.example/").await, "refused_address", "{inside} beside a public one");
    }
    names.tells("secret.example", &[&["10.0.0.1"]]);
    names.is_alias("alias.example", "secret.example");
    assert_eq!(code(&sender, "https://alias.example/").await, "refused_address", "through another name");
    assert_eq!(code(&sender, "https://unknown.example/").await, "dns");
}

#[tokio::test]
async fn an_address_in_an_odd_spelling_is_the_address_it_is() {
    let names = NameServer::start().await;
    let sender = names.sender(&Config::default());
    for odd in [
        "0x7f000001",
        "017700000001",
        "2130706433",
        "127.1",
        "0x7f.1",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::1]",
        "%31%32%37.0.0.1",
        "127.0.0.1.",
        "[64:ff9b::a00:1]",
        "\u{ff11}27.0.0.1",
    ] {
        assert_eq!(code(&sender, &format!("https://{odd}/")).await, "refused_address", "{odd}");
    }
    assert_eq!(code(&sender, "https://me@1.1.1.1/").await, "invalid_url");
}

#[tokio::test]
async fn a_name_that_is_bound_anew_is_called_at_the_address_that_was_checked() {
    let names = NameServer::start().await;
    let server = Server::start().await;
    // Only the listed address may be called; what the name says afterwards may not.
    let config = Config { allow: vec!["127.0.0.1".to_owned()], ..Config::default() };
    let sender = names.sender(&config);
    names.tells("rebound.example", &[&["127.0.0.1"], &["169.254.169.254"]]);
    let url = format!("http://rebound.example:{}/", server.address.port());
    // http on such a port is for listed hosts; reach is not widened by it.
    let listed = names.sender(&Config { allow_private: true, ..config });
    let answer = listed.send(request(&url)).await.unwrap();
    assert_eq!((answer.status, names.asked("rebound.example")), (200, 1), "one look, and the connection went there");
    drop(listed);
    let again = names.sender(&Config { allow_private: true, ..Config::default() });
    assert_eq!(code(&again, &url).await, "refused_address", "the second look is checked as well");
    assert_eq!(code(&sender, "https://rebound.example/").await, "refused_address");
}

#[tokio::test]
async fn a_host_the_operator_lists_is_called_wherever_it_is() {
    let names = NameServer::start().await;
    let server = Server::start().await;
    names.tells("hooks.internal", &[&["127.0.0.1"]]);
    names.tells("other.internal", &[&["127.0.0.1"]]);
    let sender = names.sender(&Config { allow: vec!["hooks.internal".to_owned()], ..Config::default() });
    let port = server.address.port();
    assert_eq!(code(&sender, &format!("http://hooks.internal:{port}/")).await, "answered");
    assert_eq!(code(&sender, "https://other.internal/").await, "refused_address");
}

#[tokio::test]
async fn an_answer_is_not_believed_for_as_long_as_it_says() {
    const DAY: u32 = 86_400;
    let names = NameServer::start().await;
    let server = Server::start().await;
    let config = Config { allow_private: true, ..Config::default() };
    let url = format!("http://lasting.example:{}/", server.address.port());
    // Each delivery needs a connection of its own, and so an address.
    let deliver = async |sender: &HttpHookSender| {
        server.reply_next(Reply::SendAndClose(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec(),
        ));
        code(sender, &url).await
    };
    let answers: &[&[&str]] = &[&["127.0.0.1"], &["169.254.169.254"]];
    names.tells_for("lasting.example", DAY, answers);
    let soon = names.sender_believing(&config, Duration::ZERO);
    assert_eq!((deliver(&soon).await, deliver(&soon).await), ("answered", "refused_address"));

    names.tells_for("lasting.example", DAY, answers);
    let within_the_minute = names.sender(&config);
    assert_eq!((deliver(&within_the_minute).await, deliver(&within_the_minute).await), ("answered", "answered"));
    assert_eq!((names.asked("lasting.example"), server.connections()), (1, 3));

    names.tells_for("gone.example", DAY, &[&[]]);
    let url = format!("http://gone.example:{}/", server.address.port());
    for _ in 0..2 {
        assert_eq!(code(&soon, &url).await, "dns");
    }
    assert!(names.asked("gone.example") >= 2);
}
