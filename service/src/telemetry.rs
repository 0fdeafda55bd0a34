//! Logs on stderr, as JSON lines for machines or as text for people.

use tracing::Dispatch;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line: `timestamp`, `level`, `target`, `message`, the event's fields, and
    /// in `spans` the fields of what it happened in, such as `trace_id` and `correlation_id`.
    #[default]
    Json,
    /// Lines for people.
    Text,
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not valid, such as `info,access=warn`.
    #[error("log filter {filter:?}: {reason}")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The process logs already.
    #[error("logging is set up already")]
    Twice,
}

/// Starts logging to stderr. `filter` is a list of `level` and `target=level`; the access log has
/// the target `access`. Panics are logged too, with the target `panic`.
///
/// # Errors
/// When the filter is not valid, or logging was started before.
pub fn init(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(filter).map_err(|error| TelemetryError::Filter {
        filter: filter.to_owned(),
        reason: error.to_string(),
    })?;
    subscriber(format, filter, std::io::stderr).try_init().map_err(|_| TelemetryError::Twice)?;
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("of unknown type");
        tracing::error!(target: "panic", location, "panic: {text}");
    }));
    Ok(())
}

fn subscriber<W>(format: LogFormat, filter: EnvFilter, writer: W) -> Dispatch
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match format {
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false);
            lines.with_span_list(true).finish().into()
        }
        LogFormat::Text => lines.finish().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_line_has_its_fields_and_those_of_its_spans() {
        let lines = Lines::default();
        let writer = lines.clone();
        let filter = EnvFilter::new("info");
        let subscriber = subscriber(LogFormat::Json, filter, move || writer.clone());
        tracing::dispatcher::with_default(&subscriber, || {
            let request = tracing::info_span!("request", trace_id = "t", correlation_id = "c");
            request.in_scope(|| {
                tracing::info_span!("inner").in_scope(|| tracing::info!(rows = 3, "stored"));
                tracing::debug!("not shown");
            });
        });
        let text = lines.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let line: serde_json::Value = serde_json::from_slice(&text).expect("one JSON line");
        assert_eq!(line["message"], "stored");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["rows"], 3);
        assert_eq!(line["spans"][0]["trace_id"], "t");
        assert_eq!(line["spans"][0]["correlation_id"], "c");
        assert!(line["timestamp"].is_string() && line["target"].is_string());
    }

    #[test]
    fn a_filter_that_is_not_valid_is_named() {
        let refused = init(LogFormat::Json, "info,=[").expect_err("not a filter");
        assert!(refused.to_string().contains("info,=["), "{refused}");
    }
}
