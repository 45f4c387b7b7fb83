//! Logs to standard error, and traces to a collector where there is one.

use std::fmt;
use std::io::IsTerminal as _;
use std::str::FromStr;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber, warn};
use tracing_subscriber::filter::{FilterExt as _, FilterFn, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Filter as LayerFilter, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use super::settings::{Settings, SettingsError, Together as _};
use super::span_fields::SpanFields;
use super::variables::Program;

/// How long the last spans may take to reach the collector.
const FLUSH: Duration = Duration::from_secs(3);

/// What is logged, how, and where traces go.
#[derive(Debug)]
pub struct Options {
    program: Program,
    filter: Filter,
    format: Format,
    collector: Option<Collector>,
}

impl Options {
    /// From `LOG`, `LOG_FORMAT` and `OTLP_ENDPOINT`.
    pub fn of(settings: &Settings) -> Result<Self, SettingsError> {
        let (filter, format, collector) =
            (settings.required("LOG"), settings.required("LOG_FORMAT"), settings.optional("OTLP_ENDPOINT"))
                .together()?;
        Ok(Self { program: settings.program(), filter, format, collector })
    }
}

/// Logs and traces as they run. Dropping it, or better [`Telemetry::shutdown`], sends the last spans.
#[derive(Debug)]
#[must_use = "the last spans are sent when it is dropped"]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Sends the last spans, for three seconds at most, without holding up the runtime.
    pub async fn shutdown(mut self) {
        if let Some(traces) = self.traces.take() {
            // Fails only if the runtime is going down itself.
            tokio::task::spawn_blocking(move || flush(&traces)).await.ok();
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(traces) = self.traces.take() {
            flush(&traces);
        }
    }
}

fn flush(traces: &SdkTracerProvider) {
    if let Err(error) = traces.shutdown_with_timeout(FLUSH) {
        warn!(%error, "The last traces did not reach the collector");
    }
}

/// Why logs and traces cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The exporter refuses its configuration.
    #[error("traces cannot be sent to GANTRY_OTLP_ENDPOINT")]
    Exporter(#[from] ExporterBuildError),
    /// This process logs already.
    #[error("logging was started twice in this process")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Begins to log and to trace, for the whole process. Needs the Tokio runtime where there is a collector.
pub fn init(options: Options) -> Result<Telemetry, TelemetryError> {
    let traces = options.collector.as_ref().map(|collector| provider(collector, options.program)).transpose()?;
    subscriber(&options, traces.as_ref(), std::io::stderr().is_terminal(), std::io::stderr).try_init()?;
    Ok(Telemetry { traces })
}

fn provider(collector: &Collector, program: Program) -> Result<SdkTracerProvider, ExporterBuildError> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(&collector.0).build()?;
    let resource = Resource::builder()
        .with_service_name(program.name())
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

fn subscriber<W>(
    options: &Options,
    traces: Option<&SdkTracerProvider>,
    colours: bool,
    writer: W,
) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let logs = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours);
    let logs: Box<dyn Layer<Registry> + Send + Sync> = match options.format {
        Format::Human => logs.compact().boxed(),
        Format::Json => logs.json().flatten_event(true).with_current_span(false).fmt_fields(SpanFields).boxed(),
    };
    // Our spans are kept whatever the filter says: an error is worth more with the request or job it happened in.
    let logs = logs.with_filter(options.filter.to_layer_filter().or(our_spans()));
    let traces = traces.map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(options.program.name()))
            // Only ours: the exporter's own spans would be exported for ever.
            .with_filter(filter_fn(is_ours).with_max_level_hint(LevelFilter::INFO))
    });
    tracing_subscriber::registry().with(logs).with(traces)
}

fn our_spans() -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    filter_fn(|metadata| metadata.is_span() && is_ours(metadata)).with_max_level_hint(LevelFilter::INFO)
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("gantry") && *metadata.level() <= LevelFilter::INFO
}

/// What is logged, in the words of tracing: `info,gantry_workers::engine=debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Filter(String);

impl Filter {
    /// Below HTTP/2 there is much to say at debug; who wants to hear it names the part.
    const QUIET: [&str; 6] = ["h2", "hyper", "hyper_util", "tonic", "tower", "opentelemetry"];

    fn to_layer_filter<S>(&self) -> impl LayerFilter<S> + use<S> {
        let quiet = Self::QUIET.map(|part| (part, !self.0.contains(part)));
        let heard = move |metadata: &Metadata<'_>| {
            let quiet = quiet.iter().any(|(part, quiet)| *quiet && metadata.target().starts_with(part));
            !quiet || *metadata.level() <= LevelFilter::INFO
        };
        EnvFilter::new(&self.0).and(filter_fn(heard))
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<EnvFilter>().map_err(|error| error.to_string())?;
        // tracing takes a single word that is no level for the name of a part, and would log nothing but that part.
        let lonely = |word: &&str| !word.contains(['=', ':', '[', ']']) && word.parse::<LevelFilter>().is_err();
        match text.split(',').map(str::trim).filter(|word| !word.is_empty() && !text.contains('[')).find(lonely) {
            Some(word) => Err(format!(
                "{word:?} is no level (error, warn, info, debug, trace, off), and a part is written part=level"
            )),
            None => Ok(Self(text.to_owned())),
        }
    }
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Human,
    Json,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => Err("the formats are human and json"),
        }
    }
}

/// Where traces go.
#[derive(Clone, PartialEq, Eq)]
struct Collector(String);

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Collector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = url::Url::parse(text).map_err(|error| error.to_string())?;
        match (url.scheme(), url.host_str()) {
            ("http", Some(_)) => Ok(Self(text.to_owned())),
            ("https", _) => Err("TLS to the collector is not built in: run a collector beside this process".to_owned()),
            _ => Err("it does not begin with http://".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use tokio::io::AsyncReadExt as _;
    use tracing::subscriber::with_default;
    use tracing::{error, error_span, info, info_span};

    use super::*;
    use crate::process::settings::tests::settings;
    use crate::process::trace::continue_trace;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(environment: &[(&str, &str)], work: impl FnOnce()) -> String {
        let options = Options::of(&settings(environment)).unwrap();
        let lines = Lines::default();
        let writer = lines.clone();
        with_default(subscriber(&options, None, false, move || writer.clone()), work);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_of_json_has_the_message_the_fields_and_the_trace_of_its_request() {
        let text = logged(&[], || {
            let request = info_span!("request", trace.id = tracing::field::Empty);
            continue_trace(&request, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
            request.in_scope(|| info!(job.id = 7, "Asked for job 7"));
        });
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&line["level"], &line["message"], &line["job.id"]),
            (&json!("INFO"), &json!("Asked for job 7"), &json!(7))
        );
        assert_eq!(line["spans"][0]["trace.id"], "0af7651916cd43dd8448eb211c80319c");
    }

    #[test]
    fn a_line_for_people_reads_as_one() {
        let text = logged(&[("GANTRY_LOG_FORMAT", "human")], || info!(job.id = 7, "Asked for job 7"));
        assert!(text.contains(" INFO ") && text.contains("Asked for job 7") && text.contains("job.id=7"), "{text}");
    }

    #[test]
    fn an_error_names_its_request_even_where_only_errors_are_logged() {
        let text = logged(&[("GANTRY_LOG", "error")], || {
            info_span!("request", trace.id = "of-the-request").in_scope(|| {
                info!("not logged");
                error!("logged");
            });
        });
        assert!(text.contains("of-the-request") && !text.contains("not logged"), "{text}");
    }

    #[test]
    fn a_part_can_be_logged_in_detail() {
        let text = logged(&[("GANTRY_LOG", "warn,gantry_jobs::process=debug")], || {
            tracing::debug!("in detail");
            tracing::info!(target: "elsewhere", "not logged");
        });
        assert!(text.contains("in detail") && !text.contains("not logged"), "{text}");
    }

    #[test]
    fn the_connections_below_are_quiet_until_they_are_named() {
        let talk = || {
            tracing::debug!(target: "h2::codec", "a frame");
            tracing::warn!(target: "h2::codec", "a broken frame");
        };
        let debug = logged(&[("GANTRY_LOG", "debug")], talk);
        assert!(!debug.contains("a frame") && debug.contains("a broken frame"), "{debug}");
        assert!(logged(&[("GANTRY_LOG", "info,h2=debug")], talk).contains("a frame"));
        assert_eq!(logged(&[("GANTRY_LOG", "error")], talk), "");
    }

    #[test]
    fn settings_that_would_log_nothing_are_refused() {
        for (name, value, reason) in [
            ("GANTRY_LOG", "verbose", "\"verbose\" is no level"),
            ("GANTRY_LOG", "info,gantry=loud", "error parsing level filter"),
            ("GANTRY_LOG_FORMAT", "xml", "the formats are human and json"),
            ("GANTRY_OTLP_ENDPOINT", "127.0.0.1:4317", "relative URL"),
            ("GANTRY_OTLP_ENDPOINT", "https://collector.test", "TLS to the collector is not built in"),
        ] {
            let said = Options::of(&settings(&[(name, value)])).expect_err(value).to_string();
            assert!(said.starts_with(&format!("{name} is \"{value}\", but ")) && said.contains(reason), "{said}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_last_spans_are_sent_over_grpc_when_the_process_ends() {
        let collector = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", collector.local_addr().unwrap());
        let options = Options::of(&settings(&[("GANTRY_OTLP_ENDPOINT", &endpoint), ("GANTRY_LOG", "off")])).unwrap();
        let traces = provider(options.collector.as_ref().unwrap(), options.program).unwrap();

        with_default(subscriber(&options, Some(&traces), false, std::io::sink), || {
            error_span!("request").in_scope(|| ());
        });
        let ending = tokio::spawn(Telemetry { traces: Some(traces) }.shutdown());

        let (mut connection, _) = collector.accept().await.unwrap();
        let mut preface = [0; 24];
        connection.read_exact(&mut preface).await.unwrap();
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        drop((connection, collector)); // refuses the rest, so that nothing waits for the time-out
        ending.await.unwrap();
    }
}
