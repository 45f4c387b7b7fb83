//! Connections that count what they carry.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::connect::{Connected, Connection, HttpConnector, dns::Name},
    rt::TokioIo,
};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tower_service::Service;

use super::Addresses;
use crate::error::Cause;

/// A connection that is not made by then, encryption included, is given up, whatever time the caller has left.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// What a peer may send until a [`Meter`] starts anew: for the handshake, any answers before the answer and its head; and
/// again for the body, as far as it is read. A deadline alone would not do: who is busy with what is there already does not
/// look at the clock.
const MOST: usize = 128 * 1024;

/// A peer sends more than anybody waits for.
#[derive(Debug, thiserror::Error)]
#[error("more than {} KiB came, and no end of it", MOST / 1024)]
pub(crate) struct TooMuch;

/// What has come over a connection since it was started last: of everything the peer sent, encrypted or not, so that there
/// is nothing that it can send for nothing. A response has the meter of its connection among its extensions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter(Arc<AtomicUsize>);

impl Meter {
    /// What was waited for has come.
    pub(crate) fn restart(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) < MOST { Ok(()) } else { Err(io::Error::other(TooMuch)) }
    }

    fn count(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Makes connections with a meter, and encrypts them where the URL asks for it.
#[derive(Clone)]
pub(crate) struct Connector<R>(HttpsConnector<Plain<R>>);

impl<R> Connector<R>
where
    R: Service<Name, Response = Addresses, Error = Cause, Future: Send> + Clone + Send + Sync + 'static,
{
    pub(super) fn new(resolver: R, tls: ClientConfig) -> Self {
        let mut http = HttpConnector::new_with_resolver(resolver);
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_keepalive(Some(KEEP_ALIVE));
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        Self((Plain(http), tls).into())
    }
}

impl<R> Service<Uri> for Connector<R>
where
    R: Service<Name, Response = Addresses, Error = Cause, Future: Send> + Clone + Send + Sync + 'static,
{
    type Response = MaybeHttpsStream<TokioIo<Metered>>;
    type Error = Cause;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        // The client goes on connecting when its caller has left: others may need the connection.
        let connecting = timeout(CONNECT_TIMEOUT, self.0.call(uri));
        Box::pin(async { connecting.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))? })
    }
}

type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, Cause>> + Send>>;

/// Makes connections with a meter.
#[derive(Clone)]
struct Plain<R>(HttpConnector<R>);

impl<R> Service<Uri> for Plain<R>
where
    R: Service<Name, Response = Addresses, Error = Cause, Future: Send> + Clone + Send + Sync + 'static,
{
    type Response = TokioIo<Metered>;
    type Error = Cause;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async {
            let stream = connecting.await?.into_inner();
            Ok(TokioIo::new(Metered { stream, meter: Meter::default() }))
        })
    }
}

/// A stream that ends when its meter has counted enough.
#[derive(Debug)]
pub(crate) struct Metered {
    stream: TcpStream,
    meter: Meter,
}

impl Connection for Metered {
    fn connected(&self) -> Connected {
        self.stream.connected().extra(self.meter.clone())
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.meter.check()?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.meter.count(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
