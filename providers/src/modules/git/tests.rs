//! With the real git on both ends: its own server (`git http-backend`) behind a certificate of the test's.

use std::convert::Infallible;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use super::*;
use crate::error::Cause;

/// Every name is here.
struct Here;

#[async_trait]
impl Lookup for Here {
    async fn addresses(&self, _: &str) -> Result<Vec<IpAddr>, Cause> {
        Ok(vec![IpAddr::from([127, 0, 0, 1])])
    }
}

fn git(directory: &Path, told: &[&str]) -> String {
    #[expect(clippy::disallowed_methods, reason = "a test, of what it made itself")]
    let mut command = std::process::Command::new("git");
    let who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "init.defaultBranch=main"];
    let command = command.args(who).args(told).current_dir(directory).env("GIT_CONFIG_GLOBAL", "/dev/null");
    let done = command.output().unwrap();
    assert!(done.status.success(), "{told:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// What git's own server answers.
async fn answered(root: PathBuf, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    if parts.uri.path().starts_with("/elsewhere") {
        let to = Response::builder().status(301).header("location", "https://127.0.0.1/metadata");
        return to.body(Full::default()).unwrap();
    }
    let header = |name: &str| parts.headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned();
    #[expect(clippy::disallowed_methods, reason = "a test's stand-in")]
    let mut command = tokio::process::Command::new("git");
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("HTTP_GIT_PROTOCOL", header("git-protocol"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&body).await.unwrap();
    let said = child.wait_with_output().await.unwrap().stdout;
    let end = said.windows(4).position(|part| part == b"\r\n\r\n").unwrap();
    let mut response = Response::builder();
    for line in String::from_utf8_lossy(&said[..end]).lines() {
        let (name, value) = line.split_once(": ").unwrap();
        response = match name {
            "Status" => response.status(value.split(' ').next().unwrap().parse::<u16>().unwrap()),
            name => response.header(name, value),
        };
    }
    response.body(Full::new(Bytes::copy_from_slice(&said[end + 4..]))).unwrap()
}

/// Serves the repositories of a directory. Answers the port, and writes the certificate to trust.
async fn serve(root: PathBuf, trusted: &Path) -> u16 {
    let made = rcgen::generate_simple_self_signed(vec!["git.test".to_owned()]).unwrap();
    std::fs::write(trusted, made.cert.pem()).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, root) = (acceptor.clone(), root.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let answer = service_fn(|request| {
                    let root = root.clone();
                    async move { Ok::<_, Infallible>(answered(root, request).await) }
                });
                drop(http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await);
            });
        }
    });
    port
}

struct Scene {
    folder: tempfile::TempDir,
    policy: AddressPolicy,
    port: u16,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let work = folder.path().join("work");
        std::fs::create_dir_all(work.join("modules/web")).unwrap();
        std::fs::write(work.join("modules/web/main.tf"), "# first").unwrap();
        git(&work, &["init", "--quiet"]);
        git(&work, &["add", "."]);
        git(&work, &["commit", "--quiet", "--message=first"]);
        git(&work, &["tag", "v1.0.0"]);
        std::fs::write(work.join("modules/web/main.tf"), "# second").unwrap();
        git(&work, &["commit", "--quiet", "--all", "--message=second"]);
        std::os::unix::fs::symlink("/etc/passwd", work.join("link.tf")).unwrap();
        git(&work, &["checkout", "--quiet", "-b", "linked"]);
        git(&work, &["add", "."]);
        git(&work, &["commit", "--quiet", "--message=linked"]);
        git(folder.path(), &["clone", "--quiet", "--bare", "work", "served/web.git"]);
        let port = serve(folder.path().join("served"), &folder.path().join("trusted.pem")).await;
        Self { folder, policy: AddressPolicy::default().allow("git.test").unwrap(), port }
    }

    async fn fetch(&self, path: &str, reference: &str) -> Result<Fetched, Refused> {
        let trusted = self.folder.path().join("trusted.pem");
        let directory = self.folder.path().join("fetched");
        let place =
            Place { directory: directory.clone(), policy: &self.policy, lookup: &Here, trusted: Some(&trusted) };
        let url = format!("https://git.test:{}/{path}", self.port);
        let fetched = fetch(&place, &Repository { url: &url, reference }, std::future::pending()).await;
        assert!(!directory.exists(), "nothing is left behind");
        fetched
    }
}

#[tokio::test]
async fn a_tag_a_branch_and_a_commit_are_fetched_from_where_the_name_was_said_to_be() {
    let scene = Scene::new().await;
    let work = scene.folder.path().join("work");
    for (reference, says) in [("v1.0.0", "# first"), ("main", "# second")] {
        let fetched = scene.fetch("web.git", reference).await.unwrap();
        let files: Vec<_> = fetched.tree.files().collect();
        assert_eq!(files, [("modules/web/main.tf", says.as_bytes())]);
        assert_eq!(fetched.commit, git(&work, &["rev-parse", &format!("{reference}^{{commit}}")]));
    }
    let linked = scene.fetch("web.git", "linked").await.unwrap_err();
    assert_eq!(linked.fault, Fault::ArchiveUnsafe, "{linked}");
    for (path, reference) in [("web.git", "v9.9.9"), ("other.git", "main"), ("elsewhere", "main")] {
        let refused = scene.fetch(path, reference).await.unwrap_err();
        assert_eq!(refused.fault, Fault::Fetch, "{refused}");
        assert!(refused.said.starts_with("git fetch: "), "{refused}");
    }
}

#[tokio::test]
async fn nobody_has_us_call_what_is_inside_or_speak_anything_but_https() {
    let folder = tempfile::tempdir().unwrap();
    let public = AddressPolicy::default();
    let place = Place { directory: folder.path().join("fetched"), policy: &public, lookup: &Here, trusted: None };
    for (url, reference) in [
        ("http://git.example/x", "main"),
        ("file:///etc", "main"),
        ("ssh://git@git.example/x", "main"),
        ("ext::sh -c id", "main"),
        ("https://user:secret@git.example/x", "main"),
        ("https://127.0.0.1/x", "main"),
        ("https://169.254.169.254/x", "main"),
        // It is here, going by who was asked.
        ("https://git.example/x", "main"),
        ("https://git.example/x", "--upload-pack=id"),
        ("https://git.example/x", "a:b"),
        ("https://git.example/x", "../a"),
        ("https://git.example/x", ""),
    ] {
        let refused = fetch(&place, &Repository { url, reference }, std::future::pending()).await.unwrap_err();
        assert_eq!(refused.fault, Fault::Fetch, "{url} {reference}");
        assert!(!refused.said.starts_with("git "), "{url} {reference}: {refused}");
    }
    assert!(!folder.path().join("fetched").exists());
}
