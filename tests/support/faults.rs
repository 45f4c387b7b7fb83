//! Making one call of a handler fail: the answer of the outside world, or a statement of the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use gantry_providers::hooks::{HookRequest, HookResponse, HookSender};
use gantry_providers::mail::{Accepted, Letter, MailSender};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// When a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before it had any effect.
    Before,
    /// After it had its effect: only the answer is lost.
    After,
}

/// Counts calls, and lets one of them fail. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fault(Arc<State>);

#[derive(Debug)]
struct State {
    call: usize,
    when: When,
    calls: AtomicUsize,
}

impl Fault {
    /// Lets the `call`th call fail, from 1.
    #[must_use]
    pub fn at(call: usize, when: When) -> Self {
        Self(Arc::new(State { call, when, calls: AtomicUsize::new(0) }))
    }

    /// Counts a call. Answers how it fails, if it does.
    fn next(&self) -> Option<When> {
        let call = self.0.calls.fetch_add(1, Ordering::SeqCst) + 1;
        (call == self.0.call).then_some(self.0.when)
    }

    /// Was there such a call?
    #[must_use]
    pub fn happened(&self) -> bool {
        self.0.calls.load(Ordering::SeqCst) >= self.0.call
    }
}

/// A sender of webhooks that fails when told to.
pub struct Flaky {
    /// Who delivers.
    pub hooks: Arc<dyn HookSender>,
    /// When that fails.
    pub fault: Fault,
}

#[async_trait]
impl HookSender for Flaky {
    async fn send(&self, request: HookRequest) -> gantry_providers::Result<HookResponse> {
        let lost = || gantry_providers::Error::Reset("the story wants it so".into());
        match self.fault.next() {
            Some(When::Before) => Err(lost()),
            Some(When::After) => {
                self.hooks.send(request).await?;
                Err(lost())
            }
            None => self.hooks.send(request).await,
        }
    }
}

/// A sender of mail that fails when told to.
pub struct FlakyMail {
    /// Who takes it.
    pub mail: Arc<dyn MailSender>,
    /// When that fails.
    pub fault: Fault,
}

#[async_trait]
impl MailSender for FlakyMail {
    fn name(&self) -> &'static str {
        self.mail.name()
    }

    async fn send(&self, letter: &Letter) -> gantry_providers::Result<Accepted> {
        let lost = || gantry_providers::Error::Reset("the story wants it so".into());
        match self.fault.next() {
            Some(When::Before) => Err(lost()),
            Some(When::After) => {
                self.mail.send(letter).await?;
                Err(lost())
            }
            None => self.mail.send(letter).await,
        }
    }
}

/// Stands between a handler and the database, and cuts the connection at one of its statements.
/// Answers the port it listens on.
///
/// # Panics
/// When the database cannot be reached through a socket or over TCP.
pub async fn proxy(options: &sqlx::postgres::PgConnectOptions, fault: Fault) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let (socket, host, upstream_port) =
        (options.get_socket().cloned(), options.get_host().to_owned(), options.get_port());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let fault = fault.clone();
            let (socket, host) = (socket.clone(), host.clone());
            tokio::spawn(async move {
                let directory = socket.or_else(|| host.starts_with('/').then(|| host.clone().into()));
                match directory {
                    Some(directory) => {
                        let path = directory.join(format!(".s.PGSQL.{upstream_port}"));
                        pump(client, UnixStream::connect(path).await?, fault).await
                    }
                    None => pump(client, TcpStream::connect((host.as_str(), upstream_port)).await?, fault).await,
                }
            });
        }
    });
    port
}

/// Passes messages on until one of them is to fail.
async fn pump<S>(client: TcpStream, server: S, fault: Fault) -> std::io::Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite,
{
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let (lose, lost) = tokio::sync::watch::channel(false);
    let forward = async move {
        // The start-up message has no type.
        let mut length = [0; 4];
        from_client.read_exact(&mut length).await?;
        let mut body = vec![0; size_of_body(length)];
        from_client.read_exact(&mut body).await?;
        to_server.write_all(&length).await?;
        to_server.write_all(&body).await?;
        loop {
            let kind = from_client.read_u8().await?;
            from_client.read_exact(&mut length).await?;
            let mut body = vec![0; size_of_body(length)];
            from_client.read_exact(&mut body).await?;
            // A simple query, or the execution of a prepared statement.
            if matches!(kind, b'Q' | b'E') {
                match fault.next() {
                    Some(When::Before) => return Ok(()),
                    Some(When::After) => drop(lose.send(true)),
                    None => {}
                }
            }
            to_server.write_u8(kind).await?;
            to_server.write_all(&length).await?;
            to_server.write_all(&body).await?;
            to_server.flush().await?;
        }
    };
    let back = async move {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from_server.read(&mut buffer).await?;
            // It was done, or it has at least begun; nobody hears of it.
            if read == 0 || *lost.borrow() {
                return std::io::Result::Ok(());
            }
            to_client.write_all(&buffer[..read]).await?;
        }
    };
    tokio::select! {
        ended = forward => ended,
        ended = back => ended,
    }
}

fn size_of_body(length: [u8; 4]) -> usize {
    usize::try_from(u32::from_be_bytes(length)).unwrap_or(4).saturating_sub(4)
}
