//! A receiver of webhooks that costs little: it reads a request, notes when it came, and answers 204, late, or never.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::http::find;

/// How late a slow receiver answers.
const LATE: Duration = Duration::from_secs(2);

/// A receiver. What it does depends on the path's beginning: `/well`, `/slow` or `/dead`.
#[derive(Clone)]
pub struct Sink {
    /// Where it listens.
    pub address: SocketAddr,
    received: Rc<Received>,
}

#[derive(Default)]
struct Received {
    well: Cell<usize>,
    /// When each event was first received, where somebody wants to know.
    when: RefCell<Option<HashMap<String, Instant>>>,
}

impl Sink {
    /// Begins to receive. Needs a local set.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let sink = Self { address: listener.local_addr()?, received: Rc::default() };
        let received = Rc::clone(&sink.received);
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A sender that goes away is none of the receiver's business.
                let received = Rc::clone(&received);
                spawn_local(async move { drop(receive(stream, &received).await) });
            }
        });
        Ok(sink)
    }

    /// How many requests were answered at once.
    pub fn well_received(&self) -> usize {
        self.received.well.get()
    }

    /// Notes from now on when each event is first received.
    pub fn note_times(&self) {
        self.received.when.replace(Some(HashMap::new()));
    }

    /// Of how many events it is noted so far when they were received.
    pub fn noted(&self) -> usize {
        self.received.when.borrow().as_ref().map_or(0, HashMap::len)
    }

    /// When the events were received, by `webhook-id`.
    pub fn times(&self) -> HashMap<String, Instant> {
        self.received.when.take().unwrap_or_default()
    }
}

async fn receive(mut stream: TcpStream, received: &Received) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(2_048);
    loop {
        let head = loop {
            if let Some(end) = find(&buffer, b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let now = Instant::now();
        let text = std::str::from_utf8(&buffer[..head])?;
        let path = text.split(' ').nth(1).context("no path")?;
        let (slow, dead) = (path.starts_with("/slow"), path.starts_with("/dead"));
        let length: usize = header(text, "content-length").map_or(Ok(0), str::parse)?;
        if let (Some(when), Some(id)) = (&mut *received.when.borrow_mut(), header(text, "webhook-id")) {
            when.entry(id.to_owned()).or_insert(now);
        }
        while buffer.len() < head + length {
            anyhow::ensure!(stream.read_buf(&mut buffer).await? > 0, "cut off");
        }
        buffer.drain(..head + length);
        if dead {
            // Until the sender has lost its patience.
            while stream.read_buf(&mut buffer).await? > 0 {
                buffer.clear();
            }
            return Ok(());
        }
        if slow {
            tokio::time::sleep(LATE).await;
        } else {
            received.well.set(received.well.get() + 1);
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
    }
}

fn header<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(wanted).then_some(value.trim())
    })
}
