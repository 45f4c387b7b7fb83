//! A server that stands in for a cloud: it speaks HTTP, has an answer for each question, and remembers what was asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::account::{Account, Key, Reach, open};

/// What was asked.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: String,
    /// With its query.
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

/// What is answered.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: String,
    pub(super) body: Vec<u8>,
    /// More of the same after it, until the other side has enough.
    pub(super) endless: bool,
    /// Nothing at all.
    pub(super) silent: bool,
}

impl Reply {
    pub(super) fn of(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: String::new(), body: body.into(), endless: false, silent: false }
    }

    pub(super) fn header(mut self, line: &str) -> Self {
        self.headers.push_str(line);
        self.headers.push_str("\r\n");
        self
    }
}

type Answers = dyn Fn(&Asked) -> Reply + Send + Sync;

/// The stand-in, until the test ends.
#[derive(Clone)]
pub(super) struct Cloud {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Cloud {
    /// One that answers by a function.
    pub(super) async fn start(answers: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cloud = Self { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let (asked, answers): (_, Arc<Answers>) = (Arc::clone(&cloud.asked), Arc::new(answers));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (asked, answers) = (Arc::clone(&asked), Arc::clone(&answers));
                tokio::spawn(async move { serve(stream, &asked, &*answers).await });
            }
        });
        cloud
    }

    /// One that answers to whatever is asked with the same.
    pub(super) async fn always(reply: Reply) -> Self {
        Self::start(move |_| reply.clone()).await
    }

    pub(super) fn reach(&self) -> Reach {
        let real = Reach { deadline: Duration::from_secs(5), ..Reach::real(Arc::new(|| NOW)) };
        real.at(&format!("http://{}", self.address)).unwrap()
    }

    pub(super) fn account(&self, key: Key) -> Arc<dyn Account> {
        open(key, &self.reach()).unwrap()
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// When all of this happens: the moment of AWS's example of a signature.
pub(super) const NOW: i64 = 1_440_938_160;

async fn serve(stream: TcpStream, asked: &Mutex<Vec<Asked>>, answers: &Answers) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let (method, path) = line.strip_suffix(" HTTP/1.1\r\n")?.split_once(' ')?;
        let (method, path) = (method.to_owned(), path.to_owned());
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let length: usize = headers.get("content-length").map_or(0, |it| it.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let question = Asked { method, path, headers, body: String::from_utf8(body).unwrap() };
        let reply = answers(&question);
        asked.lock().unwrap().push(question);
        if reply.silent {
            std::future::pending::<()>().await;
        }
        let length = if reply.endless { usize::MAX / 2 } else { reply.body.len() };
        let head = format!("HTTP/1.1 {} Status\r\ncontent-length: {length}\r\n{}\r\n", reply.status, reply.headers);
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(&reply.body).await.ok()?;
        if reply.endless {
            loop {
                stream.write_all(&reply.body).await.ok()?;
            }
        }
    }
}

/// What every account does, whatever stands in for its cloud: it gives up in time, reads no more than anybody needs, tells
/// what passes from what does not, and says nothing of what opens it. `secret` is what must not be seen.
pub(super) async fn suite(key: &Key, secret: &str) {
    let of = |cloud: &Cloud| cloud.account(key.clone());
    for (reply, code, transient) in [
        (Reply::of(500, "oops"), "put_off", true),
        (Reply::of(503, format!("<html>{secret}</html>")), "put_off", true),
        (Reply::of(429, "{}").header("retry-after: 7"), "put_off", true),
        (Reply::of(401, "{}"), "credential_refused", false),
        (Reply::of(200, "\u{0}garbage"), "protocol", true),
        (Reply::of(200, "[]"), "protocol", true),
        (Reply::of(302, "").header("location: http://169.254.169.254/"), "rejected", false),
        (Reply { endless: true, ..Reply::of(200, vec![b' '; 64 * 1024]) }, "too_large", true),
    ] {
        let shown = format!("{} {}", reply.status, reply.headers);
        let cloud = Cloud::always(reply).await;
        let error = of(&cloud).validate().await.unwrap_err();
        assert_eq!((error.code(), error.is_transient()), (code, transient), "{shown}: {}", error.explain());
        assert!(!format!("{error:?} {}", error.explain()).contains(secret), "{}", error.explain());
        if let crate::Error::PutOff { wait, .. } = error {
            assert_eq!(wait, shown.contains("retry-after").then(|| Duration::from_secs(7)));
        }
    }
    let cloud = Cloud::always(Reply { silent: true, ..Reply::of(200, "") }).await;
    let hurried = Reach { deadline: Duration::from_millis(200), ..cloud.reach() };
    let error = open(key.clone(), &hurried).unwrap().validate().await.unwrap_err();
    assert_eq!(error.code(), "timeout");
    assert!(!format!("{key:?}").contains(secret));
    assert!(key.environment("somewhere").iter().any(|(_, value)| value.contains(secret)));
}
