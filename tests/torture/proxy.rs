//! The network between one worker and one server: it can be cut, stalled, slowed and half closed.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of bytes and connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    /// Every piece of data takes so long, each way.
    Slow(Duration),
    /// Nothing arrives, nothing is refused.
    Stalled,
    /// New connections are closed at once.
    Cut,
}

#[derive(Debug, Clone, Copy)]
struct State {
    mode: Mode,
    /// Connections numbered below are closed.
    closed: u64,
    /// Of connections numbered below, the client sees the end; the server does not.
    half_closed: u64,
    /// The number of the next connection.
    next: u64,
}

/// A listening proxy. It ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where the worker finds it, on 127.0.0.1.
    pub port: u16,
    state: watch::Sender<State>,
    listening: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

impl Proxy {
    /// Listens, and connects to `to` for everybody who comes.
    pub async fn to(to: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let state = watch::Sender::new(State { mode: Mode::Open, closed: 0, half_closed: 0, next: 0 });
        let listening = tokio::spawn(listen(listener, to, state.clone()));
        Ok(Self { port, state, listening })
    }

    /// As if nothing had happened; connections that were closed stay closed.
    pub fn open(&self) {
        self.state.send_modify(|state| state.mode = Mode::Open);
    }

    /// Closes everything, and refuses whoever comes.
    pub fn cut(&self) {
        self.state.send_modify(|state| {
            state.mode = Mode::Cut;
            state.closed = state.next;
        });
    }

    /// Closes what is there; new connections are fine.
    pub fn reset(&self) {
        self.state.send_modify(|state| state.closed = state.next);
    }

    /// Nothing arrives any more.
    pub fn stall(&self) {
        self.state.send_modify(|state| state.mode = Mode::Stalled);
    }

    /// Everything takes so long.
    pub fn slow(&self, by: Duration) {
        self.state.send_modify(|state| state.mode = Mode::Slow(by));
    }

    /// The client sees the end of every connection there is; the server hears nothing of it.
    pub fn half_close(&self) {
        self.state.send_modify(|state| state.half_closed = state.next);
    }
}

async fn listen(listener: TcpListener, to: SocketAddr, state: watch::Sender<State>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let mut number = 0;
        let mut refused = false;
        state.send_modify(|state| {
            number = state.next;
            state.next += 1;
            refused = state.mode == Mode::Cut;
        });
        if !refused {
            tokio::spawn(join(client, to, number, state.subscribe()));
        }
    }
}

async fn join(client: TcpStream, to: SocketAddr, number: u64, state: watch::Receiver<State>) {
    // Closing without a word to the client is what a server does that is not there.
    let Ok(server) = TcpStream::connect(to).await else { return };
    drop(client.set_nodelay(true));
    drop(server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::join!(
        pump(from_client, to_server, number, state.clone(), |_| 0),
        pump(from_server, to_client, number, state, |state| state.half_closed),
    );
}

/// Carries bytes one way until an end closes, or somebody closes it.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    number: u64,
    mut state: watch::Receiver<State>,
    ended: fn(&State) -> u64,
) {
    let mut gate = state.clone();
    let over = state.wait_for(|state| number < state.closed.max(ended(state)));
    let carry = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let Ok(mode) = gate.wait_for(|state| state.mode != Mode::Stalled).await.map(|state| state.mode) else {
                break;
            };
            if let Mode::Slow(by) = mode {
                tokio::time::sleep(by).await;
            }
            if to.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        _ = over => {}
        () = carry => {}
    }
    drop(to.shutdown().await);
}
