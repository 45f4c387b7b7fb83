use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use rcgen::CertifiedKey;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer},
};

use super::*;
use crate::hooks::{
    contract::{self, Receiver},
    testing::{Reply, Server},
};

/// Answers each question with the next of the given answers, and the last for ever.
struct Names {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Names {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let answers =
            answers.iter().map(|answer| answer.iter().map(|address| address.parse().unwrap()).collect()).collect();
        Arc::new(Self { answers: Mutex::new(answers), asked: AtomicUsize::new(0) })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Lookup for Names {
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Cause> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if host.starts_with("missing") {
            return Err(io::Error::other("no such name").into());
        }
        let mut answers = self.answers.lock().unwrap();
        Ok(if answers.len() > 1 { answers.pop_front().unwrap() } else { answers.front().cloned().unwrap() })
    }
}

fn config() -> Config {
    Config { allow_private: true, ..Config::default() }
}

fn sender(names: &Arc<Names>) -> HttpHookSender {
    HttpHookSender::with_lookup(&config(), Arc::clone(names) as _).unwrap()
}

fn here() -> HttpHookSender {
    sender(&Names::new(&[&["127.0.0.1"]]))
}

fn to(server: &Server) -> HookRequest {
    HookRequest::new(server.url("/"), "{}").within(Duration::from_secs(5))
}

fn to_name(name: &str, server: &Server) -> HookRequest {
    HookRequest::new(format!("http://{name}:{}/", server.address.port()).parse().unwrap(), "{}")
        .within(Duration::from_secs(5))
}

async fn code(sender: &HttpHookSender, request: HookRequest) -> &'static str {
    match sender.send(request).await {
        Ok(answer) => panic!("answered with {}", answer.status),
        Err(error) => {
            println!("{}", error.explain());
            error.code()
        }
    }
}

#[tokio::test]
async fn the_real_sender_keeps_the_contract_of_senders() {
    contract::suite(&here(), &Server::start().await).await;
}

#[tokio::test]
async fn the_resolver_of_the_system_is_asked_and_checked() {
    let server = Server::start().await;
    let private = HttpHookSender::new(&config()).unwrap();
    assert!(private.send(to_name("localhost", &server)).await.unwrap().is_success());

    let public = HttpHookSender::new(&Config::default()).unwrap();
    let request = HookRequest::new(format!("https://localhost:{}/", server.address.port()).parse().unwrap(), "{}");
    assert_eq!(code(&public, request).await, "refused_address");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn it_says_who_it_is_and_measures_how_long_the_answer_took() {
    let server = Server::start().await;
    server.reply_next(Reply::Drip(
        b"HTTP/1.1 204 No Content\r\nx-answer: yes\r\n\r\n".to_vec(),
        Duration::from_millis(1),
    ));
    let answer = here().send(to(&server)).await.unwrap();
    assert_eq!(answer.header("x-answer"), Some("yes"));
    assert!(answer.latency >= Duration::from_millis(40), "{:?}", answer.latency);
    let headers = server.received()[0].headers.clone();
    assert!(headers.contains(&("user-agent".into(), http::USER_AGENT.into())), "{headers:?}");
}

#[tokio::test]
async fn one_connection_carries_many_deliveries() {
    let server = Server::start().await;
    let (names, count) = (Names::new(&[&["127.0.0.1"]]), 50);
    let sender = sender(&names);
    for _ in 0..count {
        server.reply_next(Reply::body(b"thanks"));
        assert_eq!(sender.send(to_name("hooks.example", &server)).await.unwrap().body, "thanks");
    }
    assert_eq!((server.received().len(), server.connections(), names.asked()), (count, 1, 1));
}

#[tokio::test]
async fn an_answer_that_drips_is_cut_off_at_the_deadline() {
    let server = Server::start().await;
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
    for reply in [
        Reply::Drip(head.to_vec(), Duration::from_millis(50)),
        Reply::Drip(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), Duration::from_secs(1)),
    ] {
        server.reply_next(reply);
        let started = Instant::now();
        assert_eq!(code(&here(), to(&server).within(Duration::from_millis(200))).await, "timeout");
        assert!(started.elapsed() < Duration::from_millis(900));
    }

    server.reply_next(Reply::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhalf".to_vec()));
    assert_eq!(code(&here(), to(&server).within(Duration::from_millis(200))).await, "timeout");
}

#[tokio::test]
async fn the_beginning_of_a_long_body_is_kept_and_the_rest_is_not_read() {
    let server = Server::start().await;
    server.reply_next(Reply::body(&vec![b'x'; 3000]));
    let answer = here().send(to(&server)).await.unwrap();
    assert_eq!((answer.body.len(), answer.truncated), (KEPT_BODY, true));

    server.reply_next(Reply::body(&[b'x'; KEPT_BODY]));
    let answer = here().send(to(&server)).await.unwrap();
    assert_eq!((answer.body.len(), answer.truncated), (KEPT_BODY, false));

    let chunk = [b"ffff\r\n".as_slice(), &vec![b'x'; 0xffff], b"\r\n"].concat();
    server.reply_next(Reply::Pour(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(), chunk));
    let answer = here().send(to(&server)).await.unwrap();
    assert_eq!((answer.status, answer.body.len(), answer.truncated), (200, KEPT_BODY, true));
    // What is beyond the bound was on its way in the buffers of the two sockets.
    assert!(server.poured() < 32 * 1024 * 1024, "{}", server.poured());
}

#[tokio::test]
async fn a_body_in_the_smallest_pieces_is_read_as_far_as_it_costs_no_more_than_another() {
    let server = Server::start().await;
    let pieces = b"1\r\nx\r\n".repeat(1_000);
    server.reply_next(Reply::Pour(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(), pieces));
    let answer = here().send(to(&server).within(Duration::from_mins(1))).await.unwrap();
    assert_eq!((answer.status, answer.body.len(), answer.truncated), (200, KEPT_BODY, true));
}

#[tokio::test]
async fn a_connection_that_serves_for_long_is_counted_anew_for_each_answer() {
    let (server, sender) = (Server::start().await, here());
    for _ in 0..20 {
        server.reply_next(Reply::body(&vec![b'x'; 32 * 1024]));
        assert_eq!(sender.send(to(&server)).await.unwrap().status, 200);
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn an_answer_with_too_many_or_too_large_headers_is_too_large() {
    let server = Server::start().await;
    server
        .reply_next(Reply::Send([b"HTTP/1.1 200 OK\r\n".to_vec(), b"x: y\r\n".repeat(257), b"\r\n".to_vec()].concat()));
    assert_eq!(code(&here(), to(&server)).await, "too_large");
    server
        .reply_next(Reply::Pour(b"HTTP/1.1 200 OK\r\n".to_vec(), [b"x: ".as_slice(), &[b'y'; 8000], b"\r\n"].concat()));
    assert_eq!(code(&here(), to(&server)).await, "too_large");
    server.reply_next(Reply::Pour(b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'y'; 8000]));
    assert_eq!(code(&here(), to(&server)).await, "too_large");

    server.reply_next(Reply::Send(
        [
            b"HTTP/1.1 204 OK\r\n".to_vec(),
            [b"x: ".as_slice(), &[b'y'; 100], b"\r\n"].concat().repeat(256),
            b"\r\n".to_vec(),
        ]
        .concat(),
    ));
    let answer = here().send(to(&server)).await.unwrap();
    assert_eq!(answer.headers.len(), KEPT_HEADERS / 101);
}

#[tokio::test]
async fn answers_before_the_answer_without_end_are_too_large_however_much_time_is_left() {
    let server = Server::start().await;
    for early in
        ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n"]
    {
        server.reply_next(Reply::Pour(Vec::new(), early.repeat(100).into()));
        assert_eq!(code(&here(), to(&server).within(Duration::from_mins(1))).await, "too_large", "{early}");
        server.reply_next(Reply::Send(format!("{}HTTP/1.1 204 OK\r\n\r\n", early.repeat(3)).into()));
        assert_eq!(here().send(to(&server)).await.unwrap().status, 204);
    }
    // What is beyond the bound was on its way in the buffers of the two sockets.
    assert!(server.poured() < 64 * 1024 * 1024, "{}", server.poured());
    server.reply_next(Reply::SendAndClose(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n".to_vec()));
    assert!(!here().send(to(&server)).await.is_ok_and(|answer| answer.is_success()));
}

#[tokio::test]
async fn a_compressed_answer_is_kept_as_it_came() {
    let server = Server::start().await;
    // The beginning of a stream that unpacks to a thousand times its size.
    let bomb = [[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3].as_slice(), &vec![0xec; 40_000]].concat();
    for encoding in ["gzip", "br", "zstd", "deflate"] {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: {encoding}\r\ncontent-length: {}\r\n\r\n", bomb.len());
        server.reply_next(Reply::Send([head.as_bytes(), &bomb].concat()));
        let answer = here().send(to(&server)).await.unwrap();
        assert_eq!((&answer.body[..], answer.truncated), (&bomb[..KEPT_BODY], true), "{encoding}");
    }
    let asked_for = server.received().pop().unwrap().headers;
    assert!(!asked_for.iter().any(|(name, _)| name == "accept-encoding"), "nobody asked for it: {asked_for:?}");
}

#[tokio::test]
async fn a_connection_that_closes_in_the_middle_is_a_reset() {
    let server = Server::start().await;
    for part in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhalf",
    ] {
        server.reply_next(Reply::SendAndClose(part.into()));
        assert_eq!(code(&here(), to(&server)).await, "reset", "{part}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_http_says_so() {
    let server = Server::start().await;
    for nonsense in ["SSH-2.0-OpenSSH_9.2\r\n\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"] {
        server.reply_next(Reply::SendAndClose(nonsense.into()));
        assert_eq!(code(&here(), to(&server)).await, "protocol", "{nonsense}");
    }
}

#[tokio::test]
async fn a_closed_port_and_a_missing_name_are_told_apart() {
    let server = Server::start().await;
    let refused = HookRequest::new("http://127.0.0.1:1/".parse().unwrap(), "{}");
    assert_eq!(code(&here(), refused).await, "connect");
    assert_eq!(code(&here(), to_name("missing.example", &server)).await, "dns");
    assert_eq!(code(&sender(&Names::new(&[&[]])), to_name("empty.example", &server)).await, "dns");
}

#[tokio::test]
async fn a_redirect_to_a_private_address_is_only_an_answer() {
    let server = Server::start().await;
    let target = Server::start().await;
    server.reply_next(Reply::Send(
        format!("HTTP/1.1 307 Moved\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", target.url("/")).into(),
    ));
    let answer = here().send(to(&server)).await.unwrap();
    assert_eq!(answer.status, 307);
    assert_eq!(answer.header("location"), Some(target.url("/").as_str()));
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn a_name_with_one_forbidden_address_is_not_called_at_all() {
    let server = Server::start().await;
    for addresses in
        [["127.0.0.1", "169.254.169.254"], ["169.254.169.254", "127.0.0.1"], ["127.0.0.1", "64:ff9b::7f00:1"]]
    {
        assert_eq!(
            code(&sender(&Names::new(&[&addresses])), to_name("mixed.example", &server)).await,
            "refused_address"
        );
    }
    let public = HttpHookSender::with_lookup(&Config::default(), Names::new(&[&["8.8.8.8", "127.0.0.1"]])).unwrap();
    let request = HookRequest::new(format!("https://mixed.example:{}/", server.address.port()).parse().unwrap(), "{}");
    assert_eq!(code(&public, request).await, "refused_address");
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_name_that_changes_is_called_at_the_address_that_was_checked() {
    let server = Server::start().await;
    let names = Names::new(&[&["127.0.0.1"], &["169.254.169.254"]]);
    let sender = sender(&names);
    assert!(sender.send(to_name("rebinding.example", &server)).await.unwrap().is_success());
    assert_eq!(names.asked(), 1);

    server
        .reply_next(Reply::SendAndClose(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec()));
    assert!(sender.send(to_name("rebinding.example", &server)).await.unwrap().is_success());
    assert_eq!((names.asked(), server.connections()), (1, 1), "the connection stays with the checked address");

    assert_eq!(code(&sender, to_name("rebinding.example", &server)).await, "refused_address");
    assert_eq!((names.asked(), server.connections()), (2, 1));
}

#[tokio::test]
async fn a_listed_network_is_called_where_private_addresses_are_not() {
    let server = Server::start().await;
    let listed = Config { allow: vec!["127.0.0.1".into()], ..Config::default() };
    let sender = HttpHookSender::with_lookup(&listed, Names::new(&[&["127.0.0.1"]])).unwrap();
    assert!(sender.send(to(&server)).await.unwrap().is_success());
    let beside = HookRequest::new("https://127.0.0.2/".parse().unwrap(), "{}");
    assert_eq!(code(&sender, beside).await, "refused_address");
}

/// A server with a certificate for `name` that nobody but itself signed, and that certificate in PEM.
async fn with_certificate(name: &str) -> (Server, String) {
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der()).into();
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (Server::with_tls(TlsAcceptor::from(Arc::new(config))).await, cert.pem())
}

fn to_https(name: &str, server: &Server) -> HookRequest {
    HookRequest::new(format!("https://{name}:{}/", server.address.port()).parse().unwrap(), "{}")
        .within(Duration::from_secs(5))
}

#[tokio::test]
async fn a_certificate_must_be_trusted_and_made_out_to_the_name() {
    let (server, pem) = with_certificate("hooks.example").await;
    assert_eq!(code(&here(), to_https("hooks.example", &server)).await, "tls");

    let trusting = Config { trusted_roots_pem: Some(pem), ..config() };
    let trusting = HttpHookSender::with_lookup(&trusting, Names::new(&[&["127.0.0.1"]])).unwrap();
    assert_eq!(code(&trusting, to_https("other.example", &server)).await, "tls");
    assert!(server.received().is_empty());
    assert!(trusting.send(to_https("hooks.example", &server)).await.unwrap().is_success());
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn a_receiver_without_tls_behind_an_https_url_is_a_tls_failure() {
    let server = Server::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        std::future::pending::<()>().await;
    });
    let request =
        HookRequest::new(format!("https://127.0.0.1:{port}/").parse().unwrap(), "{}").within(Duration::from_secs(5));
    assert_eq!(code(&here(), request).await, "tls");
    drop(server);
}

#[test]
fn a_configuration_that_cannot_be_used_is_named() {
    let names = Names::new(&[&[]]);
    let with = |config: &Config| HttpHookSender::with_lookup(config, Arc::clone(&names) as _).map(|_| ()).unwrap_err();
    let error = with(&Config { allow: vec!["10.0.0.0/99".into()], ..config() });
    assert!(error.explain().contains("10.0.0.0/99"), "{}", error.explain());
    let error = with(&Config {
        trusted_roots_pem: Some("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----".into()),
        ..config()
    });
    assert_eq!(error.code(), "configuration");
}

#[test]
fn the_configuration_is_read_from_text() {
    let read = |text: &str| serde_json::from_str::<crate::Config>(text);
    let config = read(r#"{"hooks": {"provider": "http", "deadline_seconds": 5, "allow": ["10.0.0.0/8"]}}"#).unwrap();
    let crate::hooks::Config::Http(http) = config.hooks else { panic!("not http") };
    assert_eq!((http.deadline_seconds, http.allow_private), (5, false));
    assert!(matches!(read(r#"{"hooks": {"provider": "sandbox"}}"#).unwrap().hooks, crate::hooks::Config::Sandbox));
    assert!(read(r#"{"hooks": {"provider": "http", "alow": []}}"#).is_err());
    assert!(read(r#"{"hook": {"provider": "http"}}"#).is_err());
}
