//! Receivers that misbehave, behind real sockets: what is recorded of each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gantry_providers::hooks::HttpHookSender;
use gantry_providers::hooks::client::Config;
use gantry_schema::webhooks::Attempt;
use gantry_tests::{Platform, Receiver};
use serde_json::json;
use sqlx::PgPool;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

/// Answers one request as its path says.
async fn misbehave(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let path = String::from_utf8_lossy(&request).split(' ').nth(1).unwrap_or_default().to_owned();
    match path.as_str() {
        "/drips" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await?;
            loop {
                stream.write_all(b"x").await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        "/a-gigabyte" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n").await?;
            for _ in 0..1024 * 1024 {
                stream.write_all(&[b'x'; 1024]).await?;
            }
        }
        "/closes" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await?;
            stream.shutdown().await?;
        }
        "/redirects" => {
            stream
                .write_all(b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n")
                .await?;
        }
        "/hints-for-ever" => loop {
            stream.write_all(&b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n".repeat(100)).await?;
        },
        _ => stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?,
    }
    Ok(())
}

/// Listens until the story ends; with TLS, by a certificate that nobody but itself signed.
async fn listen(tls: bool) -> SocketAddr {
    let acceptor = tls.then(|| {
        let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()).into();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = versions.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                match acceptor {
                    None => misbehave(stream).await,
                    Some(acceptor) => misbehave(acceptor.accept(stream).await?).await,
                }
            });
        }
    });
    address
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_a_receiver_does_wrong_is_recorded_and_harms_nobody(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let (plain, encrypted) = (listen(false).await, listen(true).await);
    let mut receivers: Vec<Receiver> = Vec::new();
    for path in ["drips", "a-gigabyte", "closes", "redirects", "hints-for-ever", "behaves"] {
        receivers.push(acme.endpoint(&format!("http://{plain}/{path}")).await);
    }
    receivers.push(acme.endpoint(&format!("https://{encrypted}/")).await);
    acme.event("invoice.paid", json!({})).await;
    let config = Config { deadline_seconds: 1, allow_private: true, ..Config::default() };
    platform.run_jobs_sending(Arc::new(HttpHookSender::new(&config).unwrap())).await;

    let mut recorded = Vec::new();
    for receiver in &receivers {
        let attempts = acme.attempts(receiver.id).await;
        assert_eq!(attempts.len(), 1, "{}", receiver.url);
        let Attempt { status, succeeded, ref error, .. } = attempts[0];
        recorded.push((status, succeeded, error.as_deref().and_then(|text| text.split(':').next()).map(str::to_owned)));
    }
    let failed = |error: &str| (None, false, Some(error.to_owned()));
    assert_eq!(
        recorded,
        [
            failed("there was no complete answer within 1s"),
            (Some(200), true, None),
            failed("the connection was closed before the answer was complete"),
            (Some(302), false, None),
            failed("the head of the answer is too large"),
            (Some(204), true, None),
            failed("no trusted encrypted connection could be made"),
        ]
    );
    assert_eq!(acme.attempts(receivers[1].id).await[0].answer.as_ref().map(String::len), Some(1024));
    platform.leaves_jobs();
}
