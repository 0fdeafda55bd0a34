//! I3 and I4: the raw topic against the event table.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::{Facts, Findings, Invariant};
use crate::table::Event;
use crate::topic::{Record, partition_of};

pub(super) fn check(facts: &Facts, findings: &mut Findings) {
    let by_id: HashMap<Uuid, &Event> =
        facts.tables.events.iter().map(|event| (event.event_id, event)).collect();
    let mut first: HashMap<Uuid, &Record> = HashMap::new();
    let mut last: BTreeMap<i32, i64> = BTreeMap::new();
    let mut versions: HashMap<&str, i64> = HashMap::new();
    for record in &facts.records {
        let at = format!("partition {}, offset {}", record.partition, record.offset);
        let id = record.header("ce_id").and_then(|id| id.parse::<Uuid>().ok());
        let Some(event) = id.and_then(|id| by_id.get(&id)) else {
            let case = format!("{at}: id {id:?}");
            findings.add(Invariant::Topic, "a record is no event of the table", case);
            continue;
        };
        if let Some(before) = first.get(&event.event_id) {
            if !record.is_repeat_of(before) {
                let case = format!("{at}: another one at offset {}", before.offset);
                findings.add(Invariant::Topic, "a repeat is not byte-equal", case);
            }
            continue;
        }
        first.insert(event.event_id, record);
        compare(facts, record, event, &at, findings);
        let place = last.entry(record.partition).or_default();
        if event.position != *place + 1 {
            let case = format!("{at}: position {} after {place}", event.position);
            findings.add(Invariant::Topic, "first occurrences are not in order", case);
        }
        *place = event.position;
        let version = versions.entry(event.stream_id.as_str()).or_default();
        if event.version != *version + 1 {
            let case =
                format!("{at}: version {} of {} after {version}", event.version, event.stream_id);
            findings.add(Invariant::Topic, "first occurrences of a stream are not in order", case);
        }
        *version = event.version;
    }
    for event in &facts.tables.events {
        if !first.contains_key(&event.event_id) {
            let case = format!(
                "partition {}, position {}: {} version {}",
                event.partition, event.position, event.stream_id, event.version
            );
            findings.add(Invariant::Topic, "an event is not in the topic", case);
        }
    }
}

fn compare(facts: &Facts, record: &Record, event: &Event, at: &str, findings: &mut Findings) {
    let mut wrong = |what: &str| {
        findings.add(Invariant::Headers, "a record is not its event", format!("{at}: {what}"));
    };
    if record.key.as_deref() != Some(event.stream_id.as_bytes()) {
        wrong("key");
    }
    let wanted = partition_of(event.stream_id.as_bytes(), facts.partitions);
    if record.partition != wanted || event.partition != wanted {
        wrong("partition");
    }
    let mut value = vec![0];
    value.extend(u32::try_from(event.schema_id).unwrap_or(u32::MAX).to_be_bytes());
    value.extend(&event.data);
    if record.value.as_ref() != Some(&value) {
        wrong("value");
    }
    if record.timestamp != Some(event.recorded_at.timestamp_millis()) {
        wrong("timestamp");
    }
    let subject = event.stream_id.as_str();
    let (position, version) = (event.position.to_string(), event.version.to_string());
    let store = facts.tables.store_id.to_string();
    let exact = [
        ("ce_specversion", "1.0"),
        ("ce_type", event.event_type.as_str()),
        ("ce_source", "/ledgers"),
        ("ce_subject", subject),
        ("content-type", "application/avro"),
        ("ce_position", &position),
        ("ce_streamversion", &version),
        ("ce_storeid", &store),
    ];
    for (name, wanted) in exact {
        if record.header(name) != Some(wanted) {
            wrong(name);
        }
    }
    let time = record.header("ce_time").and_then(|time| time.parse::<chrono::DateTime<_>>().ok());
    if time.map(|time: chrono::DateTime<chrono::Utc>| time.timestamp_micros())
        != Some(event.recorded_at.timestamp_micros())
    {
        wrong("ce_time");
    }
    let schema = format!("/schemas/ids/{}", event.schema_id);
    if !record.header("ce_dataschema").is_some_and(|given| given.ends_with(&schema)) {
        wrong("ce_dataschema");
    }
    let from_metadata = [
        ("ce_correlationid", "correlation_id"),
        ("ce_causationid", "causation_id"),
        ("ce_actor", "actor"),
        ("traceparent", "traceparent"),
    ];
    for (name, member) in from_metadata {
        if record.header(name) != event.metadata.0[member].as_str() {
            wrong(name);
        }
    }
}
