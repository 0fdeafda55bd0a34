//! What is appended, as it is committed: a stream of JSON lines.
//!
//! A tail goes by positions, which are gapless and in the order of commits: it can miss nothing.

use super::admin::{Asked, Held, all_held, held, last_version, no_stream, refuse};
use crate::cli::StreamName;
use crate::process::Process;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use foldstream_commands::history_json;
use foldstream_core::{StreamRef, TopicPartition, partition_of};
use foldstream_postgres::{Appended, HistoryEntry, StoreError};
use foldstream_service::{Problem, ProblemKind};
use futures_util::stream::try_unfold;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Between two looks while nothing comes.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// An empty line goes out when there was no event for so long: who listens knows that it lives.
pub(super) const SILENCE: Duration = Duration::from_secs(10);
/// Events of a partition, or of a stream, read at once.
const PAGE: u32 = 100;
/// Tails of one process at a time; each asks its stores five times a second.
const TAILS: usize = 32;
/// Where the tail of an answer began: a `from` for the next one.
pub(super) const TAIL_FROM: &str = "tail-from";
const FROM: &str = "`start`, or [AGGREGATE:]PARTITION:POSITION with numbers from 0 and 1, \
                    with commas between them; of one stream a version";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TailQuery {
    aggregate: Option<String>,
    stream: Option<String>,
    from: Option<String>,
    last: Option<u32>,
    #[serde(default)]
    follow: bool,
}

/// What of one store is still to be sent.
enum Source {
    /// Of each partition what comes after the first position, up to the second.
    Partitions { store: Held, spans: BTreeMap<TopicPartition, (u64, u64)> },
    /// Of one stream what comes from the first version, up to the second.
    Stream { store: Held, stream: StreamRef, next: u64, until: u64 },
}

struct Tail {
    sources: Vec<Source>,
    /// By topic.
    held: HashMap<String, Held>,
    follow: bool,
    shutdown: CancellationToken,
    spoke: Instant,
    _room: OwnedSemaphorePermit,
}

/// `GET /admin/streams/tail?aggregate=|stream=&from=|last=&follow=`: events as JSON lines.
pub(super) async fn route(
    State(process): State<Arc<Process>>,
    Asked(query): Asked<TailQuery>,
) -> Result<Response, Problem> {
    let room = room().ok_or_else(|| Problem::new(ProblemKind::Overloaded))?;
    let last = query.last.unwrap_or(10);
    if last > 500 {
        return Err(refuse("last", "a number up to 500"));
    }
    let (sources, held) = match (&query.stream, &query.aggregate) {
        (Some(_), Some(_)) => return Err(refuse("stream", "a stream or an aggregate, not both")),
        (Some(name), None) => {
            let name: StreamName = name.parse().map_err(|rule: String| refuse("stream", &rule))?;
            let held = held(&process, &name.aggregate).await?;
            let source = of_stream(&held, &name.id, query.from.as_deref(), last, query.follow);
            (vec![source.await?], vec![held])
        }
        (None, aggregate) => {
            let held = match aggregate {
                Some(name) => vec![held(&process, name).await?],
                None => all_held(&process).await?,
            };
            let asked = of_partitions(&held, query.from.as_deref(), last, query.follow);
            (asked.await?, held)
        }
    };
    let begins = begins(&sources);
    let tail = Tail {
        sources,
        held: held.into_iter().map(|held| (held.topic.clone(), held)).collect(),
        follow: query.follow,
        shutdown: process.shutdown.clone(),
        spoke: Instant::now(),
        _room: room,
    };
    let lines = try_unfold(tail, |mut tail| async move {
        let lines = tail.next().await.inspect_err(|error| {
            tracing::warn!(%error, "a tail ends: events cannot be read");
        });
        let lines = lines.map_err(std::io::Error::other)?;
        Ok::<_, std::io::Error>(lines.map(|lines| (lines, tail)))
    });
    let media_type = (CONTENT_TYPE.as_str(), "application/x-ndjson".to_owned());
    Ok(([media_type, (TAIL_FROM, begins)], Body::from_stream(lines)).into_response())
}

fn room() -> Option<OwnedSemaphorePermit> {
    static ROOM: std::sync::OnceLock<Arc<Semaphore>> = std::sync::OnceLock::new();
    let room = ROOM.get_or_init(|| Arc::new(Semaphore::new(TAILS)));
    Arc::clone(room).try_acquire_owned().ok()
}

/// Where everything begins, as a `from`.
fn begins(sources: &[Source]) -> String {
    let mut all = Vec::new();
    for source in sources {
        match source {
            Source::Stream { next, .. } => all.push(next.to_string()),
            Source::Partitions { spans, .. } => all.extend(spans.iter().map(|(at, (after, _))| {
                let aggregate = at.topic.rsplit('.').next().unwrap_or_default();
                format!("{aggregate}:{}:{}", at.partition, after + 1)
            })),
        }
    }
    all.join(",")
}

async fn of_stream(
    held: &Held,
    id: &str,
    from: Option<&str>,
    last: u32,
    follow: bool,
) -> Result<Source, Problem> {
    let version = last_version(held, id).await?;
    if version.is_none() && !follow {
        return Err(no_stream(held, id));
    }
    let version = version.unwrap_or(0);
    let next = match from {
        None => version.saturating_sub(u64::from(last)) + 1,
        Some("start") => 1,
        Some(text) => {
            let from = text.parse::<u64>().ok().filter(|from| *from > 0);
            from.ok_or_else(|| refuse("from", FROM))?
        }
    };
    let until = if follow { u64::MAX } else { version };
    Ok(Source::Stream { store: held.clone(), stream: held.stream(id), next, until })
}

/// One source per store, over its partitions of these aggregates.
async fn of_partitions(
    all: &[Held],
    from: Option<&str>,
    last: u32,
    follow: bool,
) -> Result<Vec<Source>, Problem> {
    let given = from.map(|text| begin_at(text, all)).transpose()?;
    let mut sources: Vec<Source> = Vec::new();
    let mut seen = Vec::new();
    for held in all {
        if seen.contains(&held.store.store_id()) {
            continue;
        }
        seen.push(held.store.store_id());
        let asked = |at: &TopicPartition| all.iter().any(|held| held.topic == at.topic);
        let heads = held.store.heads().await.map_err(|error| super::admin::away(&error))?;
        let heads: BTreeMap<TopicPartition, u64> = heads
            .into_iter()
            .filter(|head| asked(&head.partition))
            .map(|head| (head.partition, head.position))
            .collect();
        // Those that nothing says anything about begin at their end.
        let mut begin = heads.clone();
        match &given {
            None => {
                let partitions: Vec<TopicPartition> = heads.keys().cloned().collect();
                let places = held.store.before_last(&partitions, last).await;
                begin.extend(places.map_err(|error| super::admin::away(&error))?);
            }
            Some(Begin::Start) => begin.values_mut().for_each(|after| *after = 0),
            Some(Begin::At(places)) => {
                for (at, after) in places.iter().filter(|(at, _)| asked(at)) {
                    match begin.get_mut(at) {
                        Some(begin) => *begin = *after,
                        None if held.store.partitions().contains(at) => {}
                        None => return Err(refuse("from", &format!("there is no partition {at}"))),
                    }
                }
            }
        }
        let until = |at: &TopicPartition| if follow { u64::MAX } else { heads[at] };
        let spans = begin.into_iter().map(|(at, after)| (at.clone(), (after, until(&at))));
        sources.push(Source::Partitions { store: held.clone(), spans: spans.collect() });
    }
    Ok(sources)
}

/// Where tails of partitions begin.
#[derive(Debug, PartialEq)]
enum Begin {
    Start,
    /// After these positions.
    At(Vec<(TopicPartition, u64)>),
}

fn begin_at(text: &str, all: &[Held]) -> Result<Begin, Problem> {
    let names: Vec<(&str, &str)> =
        all.iter().map(|held| (held.aggregate.name(), held.topic.as_str())).collect();
    parse_from(text, &names).ok_or_else(|| refuse("from", FROM))
}

/// `names`: aggregates with their topics. An aggregate may be left out where there is only one.
fn parse_from(text: &str, names: &[(&str, &str)]) -> Option<Begin> {
    if text == "start" {
        return Some(Begin::Start);
    }
    let place = |part: &str| {
        let mut parts = part.rsplit(':');
        let position = parts.next()?.parse::<u64>().ok()?.checked_sub(1)?;
        let partition = parts.next()?.parse::<i32>().ok().filter(|partition| *partition >= 0)?;
        let (_, topic) = match (parts.next(), names) {
            (None, [only]) => only,
            (None, _) => return None,
            (Some(name), names) => names.iter().find(|(known, _)| *known == name)?,
        };
        parts.next().is_none().then(|| (TopicPartition::new(*topic, partition), position))
    };
    text.split(',').map(place).collect::<Option<Vec<_>>>().map(Begin::At)
}

impl Tail {
    /// The next lines; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            let mut lines = String::new();
            let mut ended = true;
            for source in &mut self.sources {
                match source.read().await {
                    Ok(read) => {
                        for event in read {
                            lines.push_str(&line(&self.held, &event)?);
                        }
                    }
                    // Whoever follows waits for the database to come back.
                    Err(StoreError::Unavailable(_)) if self.follow => {}
                    Err(error) => return Err(error),
                }
                ended &= source.is_at_end();
            }
            if lines.is_empty() && ended {
                return Ok(None);
            }
            if lines.is_empty() && self.spoke.elapsed() > SILENCE {
                lines.push('\n');
            }
            if !lines.is_empty() {
                self.spoke = Instant::now();
                return Ok(Some(lines.into()));
            }
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = self.shutdown.cancelled() => return Ok(None),
            }
        }
    }
}

impl Source {
    /// What comes next of it.
    async fn read(&mut self) -> Result<Vec<Appended>, StoreError> {
        match self {
            Source::Partitions { store, spans } => {
                let open = |(at, (after, until)): (&TopicPartition, &(u64, u64))| {
                    (after < until).then(|| (at.clone(), *after))
                };
                let after: Vec<_> = spans.iter().filter_map(open).collect();
                if after.is_empty() {
                    return Ok(Vec::new());
                }
                let mut appended = store.store.appended(&after, PAGE).await?;
                for event in &appended {
                    if let Some(span) = spans.get_mut(&event.partition) {
                        span.0 = event.entry.record.position;
                    }
                }
                let until = |event: &Appended| spans.get(&event.partition).map_or(0, |s| s.1);
                appended.retain(|event| event.entry.record.position <= until(event));
                Ok(appended)
            }
            Source::Stream { store, stream, next, until } => {
                if *next > *until {
                    return Ok(Vec::new());
                }
                let mut page = store.store.history_page(stream, *next, PAGE).await?;
                page.entries.retain(|entry| entry.record.version <= *until);
                *next = page.entries.last().map_or(*next, |last| last.record.version + 1);
                let topic = &stream.topic;
                let own = store.store.partitions().iter().filter(|p| p.topic == *topic).count();
                let own = i32::try_from(own).unwrap_or(i32::MAX);
                let at = TopicPartition::new(topic, partition_of(&stream.stream_id, own));
                let placed = |entry| Appended { partition: at.clone(), entry };
                Ok(page.entries.into_iter().map(placed).collect())
            }
        }
    }

    fn is_at_end(&self) -> bool {
        match self {
            Source::Partitions { spans, .. } => spans.values().all(|(after, until)| after >= until),
            Source::Stream { next, until, .. } => next > until,
        }
    }
}

fn line(held: &HashMap<String, Held>, event: &Appended) -> Result<String, StoreError> {
    let entry: &HistoryEntry = &event.entry;
    let Some(held) = held.get(&event.partition.topic) else {
        return Err(StoreError::UnknownTopic(event.partition.topic.clone()));
    };
    let mut shown = history_json(held.aggregate.as_ref(), entry)?;
    shown["stream"] = held.shown(&entry.record.stream_id).into();
    shown["partition"] = event.partition.partition.into();
    Ok(format!("{shown}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_the_start_or_places() {
        let two = [("invoices", "shop.invoices"), ("credit-notes", "shop.credit-notes")];
        let at = |topic: &str, partition, after| (TopicPartition::new(topic, partition), after);
        assert_eq!(parse_from("start", &two), Some(Begin::Start));
        let places = vec![at("shop.invoices", 3, 11), at("shop.credit-notes", 0, 0)];
        let parsed = parse_from("invoices:3:12,credit-notes:0:1", &two);
        assert_eq!(parsed, Some(Begin::At(places)));
        let only = parse_from("3:12", &two[..1]);
        assert_eq!(only, Some(Begin::At(vec![at("shop.invoices", 3, 11)])));
        for text in ["", "12", "3:12", "orders:3:1", "invoices:3:0", "invoices:-1:1", "a:b:c:d"] {
            assert_eq!(parse_from(text, &two), None, "{text}");
        }
    }
}
