//! The body of an answer, of which is counted what was sent of it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::combinators::BoxBody;
use poem::Body;

use super::counted::{Place, Usage};

pub(super) struct Counting {
    inner: BoxBody<Bytes, io::Error>,
    sent: u64,
    usage: Arc<Usage>,
    place: Place,
}

impl Counting {
    pub(super) fn of(body: Body, usage: Arc<Usage>, place: Place) -> BoxBody<Bytes, io::Error> {
        BoxBody::new(Self { inner: body.into(), sent: 0, usage, place })
    }
}

impl http_body::Body for Counting {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.sent += data.len() as u64;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.usage.sent(self.place, self.sent);
    }
}
