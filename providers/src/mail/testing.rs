//! A mail server with a socket, small enough to misbehave exactly as a test asks.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use super::{
    contract::{Mailbox, Plan, Received},
    smtp::Security,
};

/// A mail server that listens on a free port of this machine until the test ends.
#[derive(Clone)]
pub(super) struct Server(Arc<Inner>);

struct Inner {
    port: u16,
    security: Security,
    certificate: Option<String>,
    acceptor: Option<TlsAcceptor>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    plans: VecDeque<Plan>,
    received: Vec<Received>,
    signed_in_as: Option<String>,
    refuses_sign_in: bool,
    encrypted: bool,
}

/// What follows a conversation.
enum Next {
    End,
    Encrypt,
}

impl Server {
    pub(super) async fn start(security: Security) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (certificate, acceptor) = match security {
            Security::None => (None, None),
            Security::Starttls | Security::Tls => {
                let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
                let key = made.signing_key.serialize_der().try_into().unwrap();
                let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
                let config = ServerConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .unwrap()
                    .with_no_client_auth()
                    .with_single_cert(vec![made.cert.der().clone()], key)
                    .unwrap();
                (Some(made.cert.pem()), Some(TlsAcceptor::from(Arc::new(config))))
            }
        };
        let port = listener.local_addr().unwrap().port();
        let server = Self(Arc::new(Inner { port, security, certificate, acceptor, state: Mutex::default() }));
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().meet(stream));
            }
        });
        server
    }

    pub(super) fn port(&self) -> u16 {
        self.0.port
    }

    pub(super) fn certificate(&self) -> Option<String> {
        self.0.certificate.clone()
    }

    pub(super) fn signed_in_as(&self) -> Option<String> {
        self.state().signed_in_as.clone()
    }

    pub(super) fn was_encrypted(&self) -> bool {
        self.state().encrypted
    }

    pub(super) fn refuse_sign_in(&self) {
        self.state().refuses_sign_in = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    async fn meet(self, stream: TcpStream) -> Option<()> {
        match (self.0.security, &self.0.acceptor) {
            (Security::Tls, Some(acceptor)) => {
                let mut stream = BufReader::new(acceptor.accept(stream).await.ok()?);
                self.state().encrypted = true;
                self.talk(&mut stream, true, true).await?;
            }
            (Security::Starttls, Some(acceptor)) => {
                let mut stream = BufReader::new(stream);
                if let Next::Encrypt = self.talk(&mut stream, true, false).await? {
                    let mut stream = BufReader::new(acceptor.accept(stream.into_inner()).await.ok()?);
                    self.state().encrypted = true;
                    self.talk(&mut stream, false, true).await?;
                }
            }
            _ => {
                self.talk(&mut BufReader::new(stream), true, false).await?;
            }
        }
        Some(())
    }

    async fn talk<S>(&self, stream: &mut BufReader<S>, greet: bool, encrypted: bool) -> Option<Next>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if greet {
            say(stream, "220 mail.example ESMTP").await?;
        }
        let mut to = String::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return Some(Next::End);
            }
            let line = line.trim_end();
            let word = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
            match word.as_str() {
                "EHLO" => {
                    let offers = self.0.security == Security::Starttls && !encrypted;
                    let more = if offers { "250-STARTTLS\r\n" } else { "" };
                    say(stream, &format!("250-mail.example\r\n{more}250-8BITMIME\r\n250 AUTH PLAIN")).await?;
                }
                "STARTTLS" => {
                    say(stream, "220 go on").await?;
                    return Some(Next::Encrypt);
                }
                "AUTH" => {
                    let sent = STANDARD.decode(line.rsplit(' ').next()?).ok()?;
                    let sent = String::from_utf8(sent).ok()?;
                    let refuses = self.state().refuses_sign_in;
                    if !refuses {
                        self.state().signed_in_as = Some(sent.trim_start_matches('\0').replace('\0', ":"));
                    }
                    say(stream, if refuses { "535 5.7.8 no" } else { "235 2.7.0 welcome" }).await?;
                }
                "RCPT" => {
                    to = line.split_once('<')?.1.split_once('>')?.0.to_owned();
                    let plan = self.state().plans.pop_front();
                    match plan {
                        None => say(stream, "250 2.1.5 fine").await?,
                        Some(Plan::Code(code)) => say(stream, &format!("{code} no mailbox {to} here")).await?,
                        Some(Plan::Silence) => std::future::pending().await,
                        Some(Plan::HangUp) => return Some(Next::End),
                    }
                }
                "DATA" => {
                    say(stream, "354 go on").await?;
                    let text = read_data(stream).await?;
                    self.state().received.push(read_letter(&text, &to));
                    say(stream, "250 2.0.0 queued as 7").await?;
                }
                "QUIT" => {
                    say(stream, "221 2.0.0 bye").await?;
                    return Some(Next::End);
                }
                _ => say(stream, "250 2.0.0 fine").await?,
            }
        }
    }
}

impl Mailbox for Server {
    fn answer_next(&self, plan: Plan) {
        self.state().plans.push_back(plan);
    }

    fn received(&self) -> Vec<Received> {
        self.state().received.clone()
    }
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<S>, line: &str) -> Option<()> {
    stream.write_all(format!("{line}\r\n").as_bytes()).await.ok()?;
    stream.flush().await.ok()
}

/// Up to the line with nothing but a dot.
async fn read_data<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> Option<String> {
    let mut data = Vec::new();
    while !data.ends_with(b"\r\n.\r\n") {
        data.push(stream.read_u8().await.ok()?);
    }
    data.truncate(data.len() - 3);
    Some(String::from_utf8(data).ok()?.replace("\r\n..", "\r\n."))
}

fn read_letter(text: &str, to: &str) -> Received {
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let head = head.replace("\r\n ", " ");
    let header = |name: &str| {
        let lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next().unwrap()
    };
    let kind = header("Content-Type");
    assert!(kind.starts_with("multipart/alternative"), "{kind}");
    assert!(!header("Date").is_empty() && header("Reply-To") == "help@acme.example");
    assert!(header("From").ends_with("<no-reply@cloud.example>"), "{}", header("From"));
    let boundary = kind.split("boundary=\"").nth(1).unwrap().trim_end_matches('"');
    let boundary = format!("--{boundary}");
    let parts = body.split(&boundary).filter_map(|part| {
        let (head, content) = part.strip_prefix("\r\n")?.split_once("\r\n\r\n")?;
        Some(decode(head, content.strip_suffix("\r\n").unwrap_or(content)))
    });
    Received {
        to: to.to_owned(),
        message_id: header("Message-ID"),
        subject: words(&header("Subject")),
        parts: parts.collect(),
    }
}

fn decode(head: &str, content: &str) -> String {
    let encoding = head.to_ascii_lowercase();
    let bytes = if encoding.contains("base64") {
        STANDARD.decode(content.replace("\r\n", "")).unwrap()
    } else if encoding.contains("quoted-printable") {
        quoted(&content.replace("=\r\n", ""))
    } else {
        content.as_bytes().to_vec()
    };
    String::from_utf8(bytes).unwrap().replace("\r\n", "\n")
}

fn quoted(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&first, more)) = rest.split_first() {
        if first == b'=' {
            bytes.push(u8::from_str_radix(str::from_utf8(&more[..2]).unwrap(), 16).unwrap());
            rest = &more[2..];
        } else {
            bytes.push(first);
            rest = more;
        }
    }
    bytes
}

/// Encoded words of a header (RFC 2047), as far as they are UTF-8 in base64.
fn words(text: &str) -> String {
    let text = text.replace("?= =?", "?==?");
    let mut pieces = text.split("=?utf-8?b?");
    let mut decoded = pieces.next().unwrap().to_owned();
    for piece in pieces {
        let (word, after) = piece.split_once("?=").unwrap();
        decoded.push_str(str::from_utf8(&STANDARD.decode(word).unwrap()).unwrap());
        decoded.push_str(after);
    }
    decoded
}
