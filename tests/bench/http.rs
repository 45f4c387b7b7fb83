//! A client that costs little: HTTP/1.1 over one connection that is kept, no more than the benchmarks need. It shares
//! the machine with what it measures.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::future::try_join_all;
use gantry_tests::percentile::percentile;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::measure::rate;

/// Who asks, and where.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where the API listens.
    pub address: SocketAddr,
    /// The API key.
    pub key: String,
}

impl Target {
    /// A request as bytes, at the end of `into`.
    pub fn write(&self, into: &mut Vec<u8>, method: &str, path: &str, body: &str) {
        let Self { address, key } = self;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\n");
        into.extend_from_slice(head.as_bytes());
        if method != "GET" {
            let length = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
            into.extend_from_slice(length.as_bytes());
        }
        into.extend_from_slice(b"\r\n");
        into.extend_from_slice(body.as_bytes());
    }

    /// A request as bytes.
    pub fn request(&self, method: &str, path: &str, body: &str) -> Vec<u8> {
        let mut request = Vec::with_capacity(200 + body.len());
        self.write(&mut request, method, path, body);
        request
    }

    /// One request over a connection of its own; the answer is to be of the 2xx.
    pub async fn ask(&self, method: &str, path: &str, body: &str) -> anyhow::Result<Value> {
        let mut connection = Connection::open(self.address).await?;
        let (status, answer) = connection.exchange(&self.request(method, path, body)).await?;
        let text = String::from_utf8_lossy(answer);
        anyhow::ensure!((200..300).contains(&status), "{method} {path} answers {status}: {text}");
        if text.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
    }

    /// So many connections.
    pub async fn connections(&self, count: usize) -> anyhow::Result<Vec<Connection>> {
        try_join_all((0..count).map(|_| Connection::open(self.address))).await
    }
}

/// A connection that is kept.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(2_048) })
    }

    /// Sends a request, and reads the whole answer: its status and body.
    pub async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<(u16, &[u8])> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let head = self.read_until(b"\r\n\r\n").await?;
        let (status, length) = head_of(&self.buffer[..head])?;
        while self.buffer.len() < head + length {
            self.read_some().await?;
        }
        Ok((status, &self.buffer[head..head + length]))
    }

    /// Sends a request whose answer does not end, and reads its head.
    pub async fn begin(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let head = self.read_until(b"\r\n\r\n").await?;
        let (status, _) = head_of(&self.buffer[..head])?;
        self.buffer.drain(..head);
        Ok(status)
    }

    /// The next part of an answer that does not end, up to a mark.
    pub async fn next_part(&mut self, mark: &[u8]) -> anyhow::Result<Vec<u8>> {
        let end = self.read_until(mark).await?;
        Ok(self.buffer.drain(..end).collect())
    }

    /// Where the mark ends in what was received.
    async fn read_until(&mut self, mark: &[u8]) -> anyhow::Result<usize> {
        let mut searched = 0;
        loop {
            if let Some(at) = find(&self.buffer[searched..], mark) {
                return Ok(searched + at + mark.len());
            }
            searched = (self.buffer.len() + 1).saturating_sub(mark.len());
            self.read_some().await?;
        }
    }

    async fn read_some(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the connection was closed");
        Ok(())
    }
}

/// Where a text begins.
pub fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}

/// The status and the length of the body.
fn head_of(head: &[u8]) -> anyhow::Result<(u16, usize)> {
    let head = std::str::from_utf8(head)?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    let length = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse())
    });
    Ok((status, length.transpose()?.unwrap_or(0)))
}

/// What a load came to.
#[derive(Debug)]
pub struct Load {
    /// Requests per second.
    pub rate: f64,
    /// How long each took, in milliseconds.
    pub times: Vec<f64>,
}

impl Load {
    /// The 99th percentile of the times.
    pub fn p99(&mut self) -> f64 {
        percentile(&mut self.times, 99)
    }
}

/// Asks over all connections at once, each again as soon as it was answered, for so long. `request` writes the next
/// request, told its number.
pub async fn load(
    connections: &mut [Connection],
    time: Duration,
    wanted: u16,
    request: impl Fn(&mut Vec<u8>, usize),
) -> anyhow::Result<Load> {
    let (begun, request, count) = (Instant::now(), &request, connections.len());
    let loops = connections.iter_mut().enumerate().map(|(index, connection)| async move {
        let (mut times, mut bytes, mut number) = (Vec::new(), Vec::new(), index);
        while begun.elapsed() < time {
            bytes.clear();
            request(&mut bytes, number);
            number += count;
            let sent = Instant::now();
            let (status, answer) = connection.exchange(&bytes).await?;
            anyhow::ensure!(status == wanted, "answered {status}: {}", String::from_utf8_lossy(answer));
            times.push(sent.elapsed().as_secs_f64() * 1000.0);
        }
        Ok(times)
    });
    let times: Vec<f64> = try_join_all(loops).await?.concat();
    Ok(Load { rate: rate(times.len(), begun.elapsed()), times })
}
