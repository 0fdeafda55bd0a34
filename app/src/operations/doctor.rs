//! What a process can see of its infrastructure: each line is well, doubtful or wrong, and says
//! what to do.

use crate::process::Process;
use foldstream_kafka::{Cluster, SchemaRegistry};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgConnection};
use std::time::Duration;

/// No check takes longer.
const DEADLINE: Duration = Duration::from_secs(5);
/// The oldest Postgres that is tested.
const OLDEST_POSTGRES: i32 = 150_000;

/// Well, doubtful or wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mark {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) check: String,
    pub(super) mark: Mark,
    pub(super) found: String,
    pub(super) remedy: String,
}
impl Line {
    pub(super) fn ok(check: &str, found: impl Into<String>) -> Self {
        Line::new(check, Mark::Ok, found, "")
    }
    pub(super) fn warn(check: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Line::new(check, Mark::Warn, found, remedy)
    }
    pub(super) fn fail(check: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Line::new(check, Mark::Fail, found, remedy)
    }
    fn new(check: &str, mark: Mark, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Line { check: check.to_owned(), mark, found: found.into(), remedy: remedy.into() }
    }
}

/// Looks at everything that the process has an address of.
pub(super) async fn examine(process: &Process) -> Vec<Line> {
    let settings = &process.settings;
    let mut lines = Vec::new();
    let services = settings.services.iter().map(|(name, place)| (name.as_str(), place));
    let databases = services.chain([("read", &settings.read)]);
    for (name, place) in databases {
        if let Some(url) = &place.database_url {
            lines.extend(postgres(&format!("Postgres of {name}"), url).await);
        }
    }
    if let Some(bootstrap) = &settings.kafka.bootstrap {
        lines.extend(kafka(bootstrap, &process.app.topics(), settings.kafka.partitions).await);
    }
    if let Some(url) = &settings.registry.url {
        lines.push(registry(url).await);
    }
    lines
}

async fn postgres(check: &str, url: &str) -> Vec<Line> {
    let asked = async {
        let mut connection = PgConnection::connect(url).await?;
        let row: (i32, String, String, String, i32, f64) = sqlx::query_as(
            "select current_setting('server_version_num')::int4, current_setting('fsync'),
                    current_setting('synchronous_commit'), current_setting('full_page_writes'),
                    current_setting('max_connections')::int4,
                    extract(epoch from clock_timestamp())::float8",
        )
        .fetch_one(&mut connection)
        .await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(row)
    };
    let (version, fsync, commit, pages, connections, clock) =
        match tokio::time::timeout(DEADLINE, asked).await {
            Ok(Ok(row)) => row,
            Ok(Err(error)) => {
                tracing::warn!(check, %error, "doctor cannot ask");
                let remedy = "start it, or correct its address and password in the configuration";
                return vec![Line::fail(check, "does not answer", remedy)];
            }
            Err(_) => return vec![Line::fail(check, "no answer in time", "look at its load")],
        };
    let mut lines = Vec::new();
    let number = format!("version {}.{}", version / 10_000, version % 10_000);
    lines.push(match version >= OLDEST_POSTGRES {
        true => Line::ok(check, format!("{number}, {connections} connections")),
        false => Line::warn(check, number, "use Postgres 15 or newer"),
    });
    let durable = format!("{check}: durability");
    let settings = [("fsync", fsync), ("synchronous_commit", commit), ("full_page_writes", pages)];
    let unsafe_ones: Vec<String> = settings
        .into_iter()
        .filter(|(_, value)| value == "off")
        .map(|(name, _)| format!("{name} is off"))
        .collect();
    lines.push(match unsafe_ones.is_empty() {
        true => Line::ok(&durable, "a commit survives a crash"),
        false => Line::fail(&durable, unsafe_ones.join(", "), "turn it on: acknowledged is kept"),
    });
    let own = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let skew = own.map_or(0.0, |own| (own.as_secs_f64() - clock).abs());
    if skew > 5.0 {
        let found = format!("{skew:.0} s away from this machine's");
        lines.push(Line::warn(&format!("{check}: clock"), found, "synchronise the clocks"));
    }
    lines
}

async fn kafka(bootstrap: &str, topics: &[String], partitions: i32) -> Vec<Line> {
    let cluster = match Cluster::new(bootstrap) {
        Ok(cluster) => cluster,
        Err(error) => return vec![Line::fail("Kafka", error.to_string(), "correct its address")],
    };
    let brokers = match cluster.brokers(DEADLINE).await {
        Ok(brokers) => brokers,
        Err(error) => {
            let remedy = "start it, or correct `kafka.bootstrap`";
            return vec![Line::fail("Kafka", error.to_string(), remedy)];
        }
    };
    let mut lines = vec![Line::ok("Kafka", format!("{} brokers", brokers.len()))];
    for address in brokers.iter().map(|broker| &broker.address) {
        let reached = tokio::time::timeout(DEADLINE, tokio::net::TcpStream::connect(address)).await;
        lines.push(match reached {
            Ok(Ok(_)) => Line::ok("Kafka: advertised address", address),
            Ok(Err(_)) | Err(_) => Line::fail(
                "Kafka: advertised address",
                format!("{address} cannot be reached from here"),
                "set `advertised.listeners` to an address that clients can reach",
            ),
        });
    }
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    match cluster.describe(&names).await {
        Ok(described) => {
            for topic in topics {
                let found = described.iter().find(|one| one.name == *topic);
                lines.push(match found {
                    None => Line::fail(
                        &format!("topic {topic}"),
                        "does not exist",
                        "the relay creates it when it starts; look at its logs",
                    ),
                    Some(found) => topic_line(topic, found, partitions),
                });
            }
        }
        Err(error) => lines.push(Line::warn("topics", error.to_string(), "try again")),
    }
    lines
}

fn topic_line(topic: &str, found: &foldstream_kafka::TopicDescription, partitions: i32) -> Line {
    let check = format!("topic {topic}");
    let count = found.partitions.len();
    if i32::try_from(count) != Ok(partitions) {
        let remedy = "partitions are fixed for life: set `kafka.partitions` to what it has";
        return Line::fail(&check, format!("{count} partitions, not {partitions}"), remedy);
    }
    let warnings = &found.warnings;
    if warnings.is_empty() {
        return Line::ok(&check, format!("{count} partitions, kept for ever"));
    }
    Line::warn(&check, warnings.join(", "), "set it with Kafka's own tools (kafka-configs)")
}

async fn registry(url: &str) -> Line {
    let asked = async {
        let registry = SchemaRegistry::new(url).map_err(|error| error.to_string())?;
        registry.check().await.map_err(|error| error.to_string())
    };
    match tokio::time::timeout(DEADLINE, asked).await {
        Ok(Ok(())) => Line::ok("schema registry", url),
        Ok(Err(reason)) => {
            Line::fail("schema registry", reason, "start it, or correct `registry.url`")
        }
        Err(_) => Line::fail("schema registry", "no answer in time", "look at its logs"),
    }
}
