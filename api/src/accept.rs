//! Accepting connections: so many at a time, and each has to say what it wants within a bounded time.

use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use poem::http::uri::Scheme;
use poem::listener::Acceptor;
use poem::web::{LocalAddr, RemoteAddr};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tracing::warn;

/// How long the head of a request may take from its first byte to its last.
const HEAD: Duration = Duration::from_secs(10);

/// What somebody gets for whom there is no place.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
content-length: 197\r\nconnection: close\r\n\r\n\
{\"type\":\"urn:gantry:problem:overloaded\",\"title\":\"More is asked for than can be done\",\"status\":503,\
\"code\":\"overloaded\",\"detail\":\"there are too many connections at the moment; try again in a second\"}";

/// Accepts connections that send small writes at once: an event of a stream must not wait for the acknowledgement
/// of the one before.
pub struct Prompt {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Prompt {
    /// Accepts so many at a time.
    pub fn new(listener: TcpListener, most: usize) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))) }
    }
}

impl Acceptor for Prompt {
    type Io = Connection<TcpStream>;

    fn local_addr(&self) -> Vec<LocalAddr> {
        self.listener.local_addr().map(|address| LocalAddr(address.into())).into_iter().collect()
    }

    async fn accept(&mut self) -> io::Result<(Self::Io, LocalAddr, RemoteAddr, Scheme)> {
        loop {
            let (stream, remote) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: the server would ask again at once, and for ever.
                    warn!("A connection could not be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    return Err(error);
                }
            };
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                metrics::counter!("gantry_api_shed_total", "what" => "connections").increment(1);
                turn_away(stream);
                continue;
            };
            stream.set_nodelay(true)?;
            let local = LocalAddr(stream.local_addr()?.into());
            return Ok((Connection::new(stream, place), local, RemoteAddr(remote.into()), Scheme::HTTP));
        }
    }
}

/// Says that there is no place, without waiting for anything.
fn turn_away(stream: TcpStream) {
    if let Ok(mut stream) = stream.into_std() {
        // It fits into any send buffer; who does not get it sees a closed connection.
        drop(stream.write(FULL).and_then(|_| stream.shutdown(std::net::Shutdown::Write)));
    }
}

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing of a request has come. Others end it when that takes too long.
    Between,
    /// A head is coming; so many characters of its end were the last that came.
    Head(usize),
    /// The head is complete.
    After,
    /// Frames of HTTP/2, which the protocol's own limits bound.
    Frames,
}

/// As much as tells HTTP/2 from the methods of HTTP/1.1 that begin like its preface.
#[derive(Debug, Default)]
struct Beginning {
    bytes: [u8; 3],
    length: usize,
}

impl Beginning {
    fn came(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// The end of a head.
const END: &[u8] = b"\r\n\r\n";

/// How HTTP/2 begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// A connection that is cut when the head of a request takes too long: one byte a second holds a place for ever
/// otherwise.
///
/// The server looks for the preface of HTTP/2 first, and hands what it read to HTTP/1.1 as a piece of its own, behind
/// which a second buffer is made for the rest: 8 KB more for as long as the connection lives. An empty read tells it that
/// there is no preface, and leaves everything to HTTP/1.1.
pub struct Connection<S> {
    stream: S,
    place: Place,
    /// What was read to see whether it begins a preface; `None`: that was seen.
    beginning: Option<Beginning>,
    deadline: Pin<Box<Sleep>>,
    _counted: OwnedSemaphorePermit,
}

impl<S> Connection<S> {
    fn new(stream: S, counted: OwnedSemaphorePermit) -> Self {
        let deadline = Box::pin(tokio::time::sleep(HEAD));
        Self { stream, place: Place::Between, beginning: Some(Beginning::default()), deadline, _counted: counted }
    }

    /// Reads the first bytes, and answers whether they are none of HTTP/2.
    fn begin(&mut self, cx: &mut Context<'_>, beginning: &mut Beginning) -> Poll<io::Result<bool>>
    where
        S: AsyncRead + Unpin,
    {
        let mut first = ReadBuf::new(&mut beginning.bytes);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut first))?;
        beginning.length = first.filled().len();
        Poll::Ready(Ok(beginning.length > 0 && !PREFACE.starts_with(beginning.came())))
    }

    fn came(&mut self, bytes: &[u8]) {
        if self.place == Place::Between && !bytes.is_empty() {
            self.deadline.as_mut().reset(Instant::now() + HEAD);
            self.place = if bytes.starts_with(PREFACE) { Place::Frames } else { Place::Head(0) };
        }
        let Place::Head(mut matched) = self.place else { return };
        for byte in bytes {
            matched = match END.get(matched) {
                Some(next) if next == byte => matched + 1,
                _ => usize::from(*byte == b'\r'),
            };
            if matched == END.len() {
                self.place = Place::After;
                return;
            }
        }
        self.place = Place::Head(matched);
    }

    fn went(&mut self) {
        if self.place == Place::After {
            self.place = Place::Between;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let mut beginning = self.beginning.take();
        if let Some(unseen) = beginning.as_mut().filter(|beginning| beginning.length == 0) {
            match self.begin(cx, unseen) {
                Poll::Ready(Ok(false)) => {}
                unready_or_http1 => {
                    self.beginning = beginning;
                    return unready_or_http1.map_ok(drop);
                }
            }
        }
        // Of the bytes that were looked at and what is there besides.
        let held = beginning.as_ref().map_or(&[][..], Beginning::came);
        buffer.put_slice(held);
        let read = match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Pending if !held.is_empty() => Poll::Ready(Ok(())),
            read => read,
        };
        if read.is_ready() {
            let came = buffer.filled().get(before..).unwrap_or_default();
            self.came(came);
        }
        if matches!(self.place, Place::Head(_)) && self.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        self.went();
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, parts));
        self.went();
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    fn connection() -> (DuplexStream, Connection<DuplexStream>) {
        let (client, server) = duplex(1024);
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        (client, Connection::new(server, place))
    }

    /// The first read of a connection of HTTP/1.1.
    async fn says_it_is_not_http2(server: &mut Connection<DuplexStream>) {
        assert_eq!(server.read(&mut [0; 24]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn what_a_connection_begins_with_is_read_in_one_piece() {
        let mut buffer = [0; 100];
        for request in ["GET / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\n\r\n", "PUT / HTTP/1.1\r\n\r\n"] {
            let (mut client, mut server) = connection();
            client.write_all(request.as_bytes()).await.unwrap();
            says_it_is_not_http2(&mut server).await;
            assert_eq!(server.read(&mut buffer).await.unwrap(), request.len());
            assert_eq!(&buffer[..request.len()], request.as_bytes());
        }
        let (mut client, mut server) = connection();
        client.write_all(PREFACE).await.unwrap();
        assert_eq!(server.read(&mut buffer).await.unwrap(), PREFACE.len(), "HTTP/2 begins at once");
        let (client, mut server) = connection();
        drop(client);
        assert_eq!(server.read(&mut buffer).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_drips_is_cut() {
        let (mut client, mut server) = connection();
        let drips = tokio::spawn(async move {
            for byte in b"GET / HTTP/1.1\r\nHost: a\r\n" {
                if client.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            client
        });
        says_it_is_not_http2(&mut server).await;
        let mut read = Vec::new();
        let error = server.read_to_end(&mut read).await.unwrap_err();
        assert_eq!((error.kind(), read.len()), (io::ErrorKind::TimedOut, 10));
        drips.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_after_a_head_may_take_its_time_and_so_may_the_next_request() {
        let (mut client, mut server) = connection();
        let mut buffer = [0; 100];
        for round in 0..3 {
            client.write_all(b"POST / HTTP/1.1\r\n").await.unwrap();
            if round == 0 {
                says_it_is_not_http2(&mut server).await;
            }
            assert_ne!(server.read(&mut buffer).await.unwrap(), 0);
            client.write_all(b"\r\nbo").await.unwrap();
            assert_ne!(server.read(&mut buffer).await.unwrap(), 0);
            tokio::time::sleep(HEAD * 5).await;
            client.write_all(b"dy").await.unwrap();
            assert_eq!(server.read(&mut buffer).await.unwrap(), 2);
            server.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            assert_ne!(client.read(&mut buffer).await.unwrap(), 0);
            tokio::time::sleep(HEAD * 5).await;
        }
        let (mut client, mut server) = connection();
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        assert_ne!(server.read(&mut buffer).await.unwrap(), 0);
        tokio::time::sleep(HEAD * 5).await;
        client.write_all(b"frame").await.unwrap();
        assert_eq!(server.read(&mut buffer).await.unwrap(), 5);
    }

    #[test]
    fn what_is_said_to_somebody_without_a_place_is_whole() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{} bytes", body.len());
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["code"], "overloaded");
    }

    #[tokio::test]
    async fn beyond_the_most_connections_somebody_is_told_to_come_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut prompt = Prompt::new(listener, 1);
        let first = TcpStream::connect(address).await.unwrap();
        let accepted = prompt.accept().await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        let mut said = Vec::new();
        let told = tokio::spawn(async move {
            second.read_to_end(&mut said).await.unwrap();
            said
        });
        let third = tokio::spawn(async move { prompt.accept().await.map(drop) });
        assert_eq!(told.await.unwrap(), FULL);
        drop((first, accepted));
        let _third = TcpStream::connect(address).await.unwrap();
        third.await.unwrap().unwrap();
    }
}
