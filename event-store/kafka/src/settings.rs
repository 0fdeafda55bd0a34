//! What every client of ours is configured with, and where its log lines go.

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError as Client;
use std::time::Duration;

/// No call to a broker takes longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// A record's value is no larger (4 MiB); topics are created to take it.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// The configuration that all clients begin with.
pub(crate) fn client(bootstrap: &str, id: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("client.id", id)
        .set("allow.auto.create.topics", "false")
        .set("socket.keepalive.enable", "true")
        .set("socket.timeout.ms", "10000")
        .set("socket.nagle.disable", "true")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        // A topic that is created, or created again, is seen within this time.
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set("message.max.bytes", MAX_MESSAGE_BYTES.to_string())
        .set_log_level(RDKafkaLogLevel::Warning);
    config
}

/// A consumer that takes no offset from the group and no record that fails its checksum.
/// `queue_kbytes` bounds what it holds before it is asked for.
pub(crate) fn consumer(bootstrap: &str, id: &str, group: &str, queue_kbytes: u32) -> ClientConfig {
    let mut config = client(bootstrap, id);
    config
        .set("group.id", group)
        .set("group.protocol", "classic")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("check.crcs", "true")
        .set("queued.max.messages.kbytes", queue_kbytes.to_string())
        // Its default of 1 s is a stall whenever the queue was full.
        .set("fetch.queue.backoff.ms", "5")
        // The broker answers at once when there is a record: this is the pace when there is none,
        // and how long a partition that joins the others may wait for its first.
        .set("fetch.wait.max.ms", "500")
        .set("fetch.min.bytes", "1")
        .set("fetch.error.backoff.ms", "100");
    config
}

/// Sends a client's log lines where ours go, and the noise of a broker that is away to `debug`:
/// what matters of it is in a state that somebody reads.
#[derive(Debug, Clone, Default)]
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }
    fn error(&self, error: Client, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
    }
}

pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, "kafka client: {message}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
            let away = matches!(facility, "FAIL" | "ERROR" | "MAXPOLL" | "SESSTMOUT");
            if away {
                tracing::debug!(facility, "kafka client: {message}");
            } else {
                tracing::warn!(facility, "kafka client: {message}");
            }
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(facility, "kafka client: {message}");
        }
    }
}

/// Runs a call that blocks on the network where blocking is allowed.
pub(crate) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, crate::KafkaError> + Send + 'static,
) -> Result<T, crate::KafkaError> {
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result,
        Err(ended) => Err(crate::KafkaError::Unavailable(format!("the call ended: {ended}"))),
    }
}
