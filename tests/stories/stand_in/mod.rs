//! What stands in for a cloud, where the wiring of clouds is tried: DigitalOcean's API as far as the platform and its
//! templates ask it, and machines that do what their user data says.

mod machine;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

pub(crate) use machine::{Machine, possible};

/// What Terraform is here.
const TERRAFORM: &str = include_str!("terraform.py");

/// An account at the cloud.
#[derive(Default)]
struct Account {
    /// What there is: by path and id.
    things: BTreeMap<(String, u64), Value>,
    machines: BTreeMap<u64, Machine>,
    /// What was asked, in order.
    asked: Vec<String>,
    droplet_limit: u64,
    made: u64,
}

/// The cloud, until the story ends.
#[derive(Clone)]
pub(crate) struct Cloud {
    pub address: SocketAddr,
    token: String,
    directory: PathBuf,
    account: Arc<Mutex<Account>>,
}

impl Cloud {
    /// One with an account that this token opens. Its machines lie in the directory.
    pub async fn start(token: &str, droplet_limit: u64, directory: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let account = Arc::new(Mutex::new(Account { droplet_limit, ..Account::default() }));
        let cloud = Self { address: listener.local_addr().unwrap(), token: token.to_owned(), directory, account };
        let serving = cloud.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let cloud = serving.clone();
                tokio::spawn(async move { cloud.serve(stream).await });
            }
        });
        cloud
    }

    /// The program that stands in for Terraform there.
    pub fn terraform(&self) -> String {
        TERRAFORM.replace("@CLOUD@", &format!("http://{}", self.address))
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<String> {
        self.account.lock().unwrap().asked.clone()
    }

    /// What there is.
    pub fn things(&self) -> Vec<String> {
        self.account.lock().unwrap().things.keys().map(|(path, id)| format!("{path}/{id}")).collect()
    }

    /// The host keys of the only machine: the one it was made with, and the one it uses.
    pub fn host_keys(&self) -> (String, String) {
        self.account.lock().unwrap().machines.values().next().unwrap().host_keys()
    }

    async fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok()?;
            let (method, path) = line.strip_suffix(" HTTP/1.1\r\n")?.split_once(' ')?;
            let (method, url) = (method.to_owned(), Url::parse(&format!("http://cloud{path}")).ok()?);
            let mut headers = BTreeMap::new();
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).await.ok()?;
                let Some((name, value)) = line.trim_end().split_once(": ") else { break };
                headers.insert(name.to_ascii_lowercase(), value.to_owned());
            }
            let length = headers.get("content-length").map_or(0, |it| it.parse().unwrap());
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.ok()?;
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let (status, answer) = if headers.get("authorization") == Some(&format!("Bearer {}", self.token)) {
                self.answer(&method, &url, body)
            } else {
                (401, json!({ "id": "Unauthorized", "message": "Unable to authenticate you" }))
            };
            let answer = if answer.is_null() { String::new() } else { answer.to_string() };
            let length = answer.len();
            let head = format!(
                "HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.ok()?;
            stream.write_all(answer.as_bytes()).await.ok()?;
        }
    }

    fn answer(&self, method: &str, url: &Url, body: Value) -> (u16, Value) {
        let mut account = self.account.lock().unwrap();
        let path = url.path().strip_prefix("/v2/").unwrap_or_default().to_owned();
        account.asked.push(format!("{method} {path}"));
        match method {
            "GET" => (200, account.read(&path, url)),
            "POST" => {
                account.made += 1;
                let (id, mut made) = (account.made, body);
                made["id"] = id.into();
                if path == "droplets" {
                    let user_data = made["user_data"].take();
                    let machine = Machine::start(&self.directory.join(id.to_string()), user_data.as_str().unwrap());
                    made["address"] = "127.0.0.1".into();
                    made["port"] = machine.port.into();
                    account.machines.insert(id, machine);
                }
                account.things.insert((path, id), made.clone());
                (201, made)
            }
            "DELETE" => {
                let (kind, id) = path.rsplit_once('/').unwrap();
                let id = id.parse().unwrap();
                account.machines.remove(&id);
                match account.things.remove(&(kind.to_owned(), id)) {
                    Some(_) => (204, Value::Null),
                    None => (404, json!({ "id": "not_found", "message": "It is not there" })),
                }
            }
            _ => (405, json!({ "id": "method_not_allowed", "message": "No" })),
        }
    }
}

impl Account {
    fn read(&self, path: &str, url: &Url) -> Value {
        if path == "account" {
            return json!({ "account": {
                "droplet_limit": self.droplet_limit, "email": "ci@acme.example", "uuid": "b6fr89dbf6d9", "status": "active",
            } });
        }
        let tag = url.query_pairs().find(|(name, _)| name == "tag_name").map(|(_, tag)| tag.into_owned());
        let has = |it: &Value| {
            tag.as_ref().is_none_or(|tag| it["tags"].as_array().into_iter().flatten().any(|one| one == tag.as_str()))
        };
        let all: Vec<Value> = match path {
            "regions" => vec![json!({ "slug": "fra1", "name": "Frankfurt 1", "available": true })],
            "sizes" => vec![json!({
                "slug": "s-1vcpu-2gb", "memory": 2048, "vcpus": 1, "disk": 50, "price_monthly": 12.0,
                "price_hourly": 0.01786, "regions": ["fra1"], "available": true,
            })],
            "images" => vec![json!({
                "id": 1, "slug": "debian-12-x64", "name": "12 x64", "distribution": "Debian", "status": "available",
            })],
            _ => {
                let ours = self.things.iter().filter(|((kind, _), it)| kind == path && has(it));
                ours.map(|(_, it)| it.clone()).collect()
            }
        };
        let member = if path == "account/keys" { "ssh_keys" } else { path };
        json!({ member: all, "links": {}, "meta": { "total": all.len() } })
    }
}
