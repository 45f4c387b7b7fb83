//! A receiver with a socket, small enough to misbehave exactly as a test asks.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use url::Url;

use super::contract::{Plan, Received, Receiver};

/// What the server does once it has read a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Sends this and reads the next request.
    Send(Vec<u8>),
    /// Sends this and closes.
    SendAndClose(Vec<u8>),
    /// Sends this one byte at a time, with this pause before each.
    Drip(Vec<u8>, Duration),
    /// Sends this again and again, until the other side has enough.
    Pour(Vec<u8>, Vec<u8>),
    /// Sends nothing and keeps the connection open.
    Silence,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self::Send(
            format!("HTTP/1.1 {status} Status\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n")
                .into_bytes(),
        )
    }

    pub(crate) fn body(body: &[u8]) -> Self {
        Self::Send([format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat())
    }
}

/// A receiver that listens on a free port of this machine until the test ends.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    replies: Mutex<VecDeque<Reply>>,
    received: Mutex<Vec<Received>>,
    connections: AtomicUsize,
    poured: AtomicUsize,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::listen(None).await
    }

    pub(crate) async fn with_tls(acceptor: TlsAcceptor) -> Self {
        Self::listen(Some(acceptor)).await
    }

    async fn listen(acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let state = Arc::clone(&server.state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                state.connections.fetch_add(1, Ordering::SeqCst);
                let (state, acceptor) = (Arc::clone(&state), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => state.serve(stream).await,
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => state.serve(stream).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        server
    }

    pub(crate) fn reply_next(&self, reply: Reply) {
        self.state.replies.lock().unwrap().push_back(reply);
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// How many bytes of an endless reply the other side took.
    pub(crate) fn poured(&self) -> usize {
        self.state.poured.load(Ordering::SeqCst)
    }
}

impl Receiver for Server {
    fn url(&self, path: &str) -> Url {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    fn answer_next(&self, plan: Plan) {
        self.reply_next(match plan {
            Plan::Status(status) => Reply::status(status),
            Plan::Silence => Reply::Silence,
            Plan::HangUp => Reply::SendAndClose(b"HTTP/1.1 200 OK\r\ncontent-".to_vec()),
        });
    }

    fn received(&self) -> Vec<Received> {
        self.state.received.lock().unwrap().clone()
    }
}

impl State {
    /// Serves one connection until one of both sides has enough.
    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> Option<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let received = read_request(&mut stream).await?;
            self.received.lock().unwrap().push(received);
            let reply = self.replies.lock().unwrap().pop_front().unwrap_or_else(|| Reply::status(200));
            self.reply(&mut stream, reply).await?;
        }
    }

    /// `None` ends the connection.
    async fn reply(&self, stream: &mut (impl AsyncWrite + Unpin), reply: Reply) -> Option<()> {
        match reply {
            Reply::Send(bytes) => stream.write_all(&bytes).await.ok(),
            Reply::SendAndClose(bytes) => {
                stream.write_all(&bytes).await.ok()?;
                stream.shutdown().await.ok()?;
                None
            }
            Reply::Drip(bytes, pause) => {
                for byte in bytes {
                    tokio::time::sleep(pause).await;
                    stream.write_all(&[byte]).await.ok()?;
                }
                Some(())
            }
            Reply::Pour(head, again) => {
                stream.write_all(&head).await.ok()?;
                loop {
                    stream.write_all(&again).await.ok()?;
                    self.poured.fetch_add(again.len(), Ordering::SeqCst);
                }
            }
            Reply::Silence => std::future::pending().await,
        }
    }
}

async fn read_request(stream: &mut (impl AsyncBufReadExt + Unpin)) -> Option<Received> {
    let first = read_line(stream).await?;
    let path = first.strip_prefix("POST ")?.strip_suffix(" HTTP/1.1")?.to_owned();
    let mut headers = Vec::new();
    loop {
        let line = read_line(stream).await?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.push((name.to_owned(), value.to_owned()));
    }
    let length =
        headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Received { path, headers, body: Bytes::from(body) })
}

async fn read_line(stream: &mut (impl AsyncBufReadExt + Unpin)) -> Option<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    Some(line.strip_suffix("\r\n")?.to_owned())
}
