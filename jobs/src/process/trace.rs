//! One trace from a request to the jobs it asks for: W3C Trace Context, with or without a collector.
//!
//! Where traces are exported, the ids are OpenTelemetry's. Where they are not, a span that [`continue_trace`] was called
//! on remembers its place, and everything below it finds it: the logs of a request and of its jobs share a trace id
//! either way.

use std::fmt;
use std::str::FromStr;

use opentelemetry::trace::{SpanContext, TraceContextExt as _, TraceState};
use opentelemetry::{Context, SpanId, TraceFlags, TraceId};
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Registry;
use tracing_subscriber::registry::LookupSpan as _;

/// The field of a span that [`continue_trace`] fills in, where the span declares it:
/// `info_span!("http.request", trace.id = tracing::field::Empty)`.
pub const TRACE_ID: &str = "trace.id";

/// A place in a trace: the W3C header `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traceparent {
    trace: TraceId,
    span: SpanId,
    sampled: bool,
}

impl Traceparent {
    /// The beginning of a new trace, which is to be recorded by whoever can.
    pub fn random() -> Self {
        let ids = RandomIdGenerator::default();
        Self { trace: ids.new_trace_id(), span: ids.new_span_id(), sampled: true }
    }

    /// A place below this one in the same trace.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span: RandomIdGenerator::default().new_span_id(), ..self }
    }

    /// 32 hexadecimal digits: the same in all parts of a trace.
    pub fn trace_id(self) -> String {
        self.trace.to_string()
    }

    fn of(context: &SpanContext) -> Option<Self> {
        context.is_valid().then(|| Self {
            trace: context.trace_id(),
            span: context.span_id(),
            sampled: context.is_sampled(),
        })
    }

    fn to_context(self) -> Context {
        let flags = if self.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
        Context::new().with_remote_span_context(SpanContext::new(self.trace, self.span, flags, true, TraceState::NONE))
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

/// Not a `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a W3C traceparent (version-trace-parent-flags in lower-case hexadecimal)")]
pub struct NotATraceparent;

impl FromStr for Traceparent {
    type Err = NotATraceparent;

    /// By the letter of W3C Trace Context: later versions may have more parts, which are left out.
    fn from_str(text: &str) -> Result<Self, NotATraceparent> {
        let mut parts = text.split('-');
        let mut digits = |count: usize| {
            let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            parts.next().filter(|part| part.len() == count && part.bytes().all(hexadecimal)).ok_or(NotATraceparent)
        };
        let (version, trace, span, flags) = (digits(2)?, digits(32)?, digits(16)?, digits(2)?);
        let trace = TraceId::from_hex(trace).map_err(|_| NotATraceparent)?;
        let span = SpanId::from_hex(span).map_err(|_| NotATraceparent)?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_| NotATraceparent)?;
        let known = match version {
            "ff" => false,
            "00" => parts.next().is_none(),
            _ => true,
        };
        if known && trace != TraceId::INVALID && span != SpanId::INVALID {
            Ok(Self { trace, span, sampled: flags & 1 == 1 })
        } else {
            Err(NotATraceparent)
        }
    }
}

/// Makes a new span, which nobody has entered yet, part of the trace of this `traceparent` header, and says which place
/// in it the span has. Without a header, or with one that is not valid, the span begins a trace of its own.
///
/// Fills in the span's field [`TRACE_ID`].
pub fn continue_trace<'a>(span: &Span, traceparent: impl Into<Option<&'a str>>) -> Traceparent {
    let above = traceparent.into().and_then(|text| text.parse::<Traceparent>().ok());
    if let Some(above) = above {
        // An error says that no traces are exported, or that the span is filtered out.
        let _ = span.set_parent(above.to_context());
    }
    let place = exported(span).unwrap_or_else(|| above.map_or_else(Traceparent::random, Traceparent::child));
    span.with_subscriber(|(id, dispatch)| {
        if let Some(span) = dispatch.downcast_ref::<Registry>().and_then(|registry| registry.span(id)) {
            span.extensions_mut().replace(place);
        }
    });
    span.record(TRACE_ID, tracing::field::display(place.trace));
    place
}

/// The `traceparent` header for what the current span asks for; nothing outside of a trace.
pub fn current_traceparent() -> Option<String> {
    let span = Span::current();
    exported(&span).or_else(|| remembered(&span)).map(|place| place.to_string())
}

/// The span's place where traces are exported.
fn exported(span: &Span) -> Option<Traceparent> {
    Traceparent::of(span.context().span().span_context())
}

/// The place of the span, or of the nearest one above it.
fn remembered(span: &Span) -> Option<Traceparent> {
    span.with_subscriber(|(id, dispatch)| {
        let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
        span.scope().find_map(|span| span.extensions().get::<Traceparent>().copied())
    })?
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing::{info_span, subscriber::with_default};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    const HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_written_as_it_was_read() {
        let place: Traceparent = HEADER.parse().unwrap();
        assert_eq!(
            (place.to_string(), place.trace_id()),
            (HEADER.to_owned(), "0af7651916cd43dd8448eb211c80319c".to_owned())
        );
        let below = place.child();
        assert_eq!(below.trace_id(), place.trace_id());
        assert_ne!(below.to_string(), place.to_string());
        assert_ne!(Traceparent::random().trace_id(), Traceparent::random().trace_id());
    }

    #[test]
    fn a_later_version_is_read_for_what_is_known_of_it() {
        let later: Traceparent =
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03-what-the-future-is".parse().unwrap();
        assert_eq!(later.to_string(), HEADER);
    }

    #[test]
    fn what_is_not_a_traceparent_is_refused() {
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333ß-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert!(bad.parse::<Traceparent>().is_err(), "{bad}");
        }
    }

    fn a_request_and_its_job_share_a_trace() {
        assert_eq!(current_traceparent(), None);
        let request = info_span!("request");
        let place = continue_trace(&request, HEADER);
        assert_eq!(place.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        let asked = request.in_scope(|| info_span!("below").in_scope(current_traceparent)).expect("inside of a trace");
        assert!(asked.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && asked != HEADER, "{asked}");

        let job = info_span!("job");
        assert_eq!(continue_trace(&job, Some(&*asked)).trace_id(), place.trace_id());
    }

    fn a_request_without_a_header_begins_a_trace() {
        for header in [None, Some("nonsense")] {
            let request = info_span!("request");
            let place = continue_trace(&request, header);
            assert_eq!(request.in_scope(current_traceparent), Some(place.to_string()));
        }
    }

    #[test]
    fn a_trace_goes_on_without_a_collector() {
        with_default(tracing_subscriber::registry(), || {
            a_request_and_its_job_share_a_trace();
            a_request_without_a_header_begins_a_trace();
        });
    }

    #[test]
    fn a_trace_goes_on_with_a_collector() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        with_default(tracing_subscriber::registry().with(layer), || {
            a_request_and_its_job_share_a_trace();
            a_request_without_a_header_begins_a_trace();
        });
    }

    #[test]
    fn without_a_subscriber_nothing_is_traced_and_nothing_breaks() {
        with_default(tracing::subscriber::NoSubscriber::default(), || {
            assert_eq!(continue_trace(&info_span!("request"), HEADER).trace_id(), "0af7651916cd43dd8448eb211c80319c");
            assert_eq!(current_traceparent(), None);
        });
    }
}
