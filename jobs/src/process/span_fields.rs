//! The fields of a span as JSON text, for logs. Every request and every job has a span and hardly any of them is ever
//! logged, so this is the cost of logging nothing: fields are written once, and what is recorded later is appended,
//! where tracing's own formatter reads back and rewrites everything it had written.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::span::Record;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FormatFields, FormattedFields};

/// Writes fields as members of a JSON object.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct SpanFields;

impl<'writer> FormatFields<'writer> for SpanFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut members = Members(String::with_capacity(256));
        fields.record(&mut members);
        write!(writer, "{{{}}}", members.0)
    }

    fn add_fields(&self, current: &'writer mut FormattedFields<Self>, fields: &Record<'_>) -> fmt::Result {
        let mut members = Members(std::mem::take(&mut current.fields));
        if members.0.is_empty() {
            members.0.push('{');
        } else {
            members.0.pop();
        }
        fields.record(&mut members);
        members.0.push('}');
        current.fields = members.0;
        Ok(())
    }
}

/// Members of an object, the last of which may still be to come.
struct Members(String);

impl Members {
    fn name(&mut self, field: &Field) {
        if !self.0.is_empty() && !self.0.ends_with('{') {
            self.0.push(',');
        }
        let name = field.name();
        self.text(name.strip_prefix("r#").unwrap_or(name));
        self.0.push(':');
    }

    fn text(&mut self, text: &str) {
        let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
        if text.bytes().all(plain) {
            self.0.push('"');
            self.0.push_str(text);
            self.0.push('"');
        } else {
            self.0.push_str(&serde_json::Value::from(text).to_string());
        }
    }

    fn display(&mut self, field: &Field, value: impl fmt::Display) {
        self.name(field);
        // Writing to a String cannot fail.
        self.0.write_fmt(format_args!("{value}")).unwrap_or_default();
    }
}

impl Visit for Members {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        self.record_str(field, &text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field);
        self.text(value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.display(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.display(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.display(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // What is no number in JSON is null.
        self.display(field, serde_json::Value::from(value));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;
    use tracing::{field, info, info_span};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(log: impl FnOnce()) -> serde_json::Value {
        let written = Written::default();
        let writer = written.clone();
        let layer = tracing_subscriber::fmt::layer().json().with_writer(move || writer.clone()).fmt_fields(SpanFields);
        with_default(tracing_subscriber::registry().with(layer), log);
        let line = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        serde_json::from_str(&line).expect(&line)
    }

    #[test]
    fn fields_are_json_whatever_is_in_them_and_whenever_they_are_recorded() {
        let line = logged(|| {
            let span = info_span!(
                "request",
                quoted = "a \"b\" \\ c\nd",
                path = ?std::path::Path::new("/x"),
                shown = %"é",
                count = 7_u64,
                below = -1,
                yes = true,
                half = 0.5,
                no_number = f64::NAN,
                later = field::Empty,
                never = field::Empty
            );
            span.record("later", 202);
            span.in_scope(|| info!("said"));
        });
        assert_eq!(
            line["span"],
            serde_json::json!({
                "name": "request", "quoted": "a \"b\" \\ c\nd", "path": "\"/x\"", "shown": "é", "count": 7, "below": -1,
                "yes": true, "half": 0.5, "no_number": null, "later": 202,
            })
        );
    }

    #[test]
    fn a_span_without_fields_may_get_some() {
        let line = logged(|| {
            let span = info_span!("request", later = field::Empty, more = field::Empty);
            span.record("later", "a");
            span.record("more", "b");
            span.in_scope(|| info!("said"));
        });
        assert_eq!(line["span"], serde_json::json!({ "name": "request", "later": "a", "more": "b" }));
    }
}
