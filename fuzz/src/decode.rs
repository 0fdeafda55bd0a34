//! What the decoder of events must bear: any bytes, under any schema a registry may hand out.
//!
//! The first byte chooses the schema that the bytes are read with. Nothing may panic, and what is
//! read must be the same when it is written and read again.

use apache_avro::AvroSchema;
use foldstream_core::{
    Event, EventSet, Money, Timestamp, Undecodable, Uuid, WriterSchema, Written, events, stream_id,
};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::LazyLock;

stream_id! {
    /// A thing.
    pub struct ThingId, check = |_| Ok(());
}

/// How it is. The derive of schemas takes no comments at symbols.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "fuzz.things")]
pub enum Mood {
    #[default]
    Unknown,
    Well,
    Unwell,
}

/// A part of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "fuzz.things")]
pub struct Part {
    /// Its name.
    pub name: String,
    /// What it weighs.
    pub weight: f64,
    /// What it costs.
    pub price: Money,
}

/// All kinds of values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema)]
#[avro(namespace = "fuzz.things")]
#[event(upcast = join_names)]
pub struct Changed {
    /// When.
    pub at: Timestamp,
    /// Which one.
    pub id: Uuid,
    /// Its name.
    #[serde(alias = "title")]
    pub name: String,
    /// Another name.
    pub nick: Option<String>,
    /// How many.
    pub count: i64,
    /// How few.
    pub small: i32,
    /// How likely.
    pub chance: f32,
    /// Whether at all.
    pub real: bool,
    /// How it is.
    pub mood: Mood,
    /// What it consists of.
    pub parts: Vec<Part>,
    /// What else is known.
    pub notes: HashMap<String, Option<i64>>,
    /// What came later.
    #[avro(default = "7")]
    pub added: i64,
}

fn join_names(written: &mut Written<'_>) -> Result<(), Undecodable> {
    let first: Option<String> = written.take("first")?;
    let last: Option<String> = written.take("last")?;
    match (first, last) {
        (Some(first), Some(last)) => written.put("name", format!("{first} {last}")),
        _ => Ok(()),
    }
}

events! {
    /// What happens to things.
    pub enum ThingEvent on "things" of ThingId { Changed }
}

/// The schemas that bytes are read with: the code's, older and newer ones of ours, and odd ones
/// that only a stranger would register.
pub static WRITERS: LazyLock<Vec<WriterSchema>> = LazyLock::new(|| {
    let own = ThingEvent::schemas()[0].json.clone();
    let changed = |change: &dyn Fn(&mut Vec<serde_json::Value>)| {
        let mut schema = own.clone();
        let fields = schema["fields"].as_array_mut().expect("a record has fields");
        change(fields);
        schema.to_string()
    };
    let of = |fields: &str| {
        format!(
            r#"{{"type":"record","name":"Changed","namespace":"fuzz.things","fields":[{fields}]}}"#
        )
    };
    let named = |fields: &mut Vec<serde_json::Value>, name: &str| {
        fields.iter().position(|field| field["name"] == name).expect("the field is there")
    };
    let texts = [
        own.to_string(),
        // Older: fewer fields, other names, narrower types.
        changed(&|fields| {
            let name = named(fields, "name");
            fields[name]["name"] = "title".into();
            let count = named(fields, "count");
            fields[count]["type"] = "int".into();
            let added = named(fields, "added");
            fields.remove(added);
            fields.reverse();
        }),
        // Before the name was one.
        changed(&|fields| {
            let name = named(fields, "name");
            fields[name] = serde_json::json!({ "name": "first", "type": "string" });
            fields.push(serde_json::json!({ "name": "last", "type": "string" }));
        }),
        // Newer: wider types, a symbol more, a field that nobody here knows.
        changed(&|fields| {
            let small = named(fields, "small");
            fields[small]["type"] = "long".into();
            let chance = named(fields, "chance");
            fields[chance]["type"] = "double".into();
            let mood = named(fields, "mood");
            fields[mood]["type"]["symbols"] =
                serde_json::json!(["Unknown", "Better", "Well", "Unwell"]);
            fields.push(serde_json::json!({ "name": "more", "type": ["null", "bytes", "double"] }));
        }),
        of(r#"{"name":"a","type":{"type":"array","items":"null"}}"#),
        of(r#"{"name":"a","type":{"type":"array","items":{"type":"array","items":"boolean"}}}"#),
        of(r#"{"name":"a","type":{"type":"map","values":{"type":"map","values":"null"}}}"#),
        of(r#"{"name":"a","type":{"type":"fixed","name":"F","size":1000000000000}}"#),
        of(r#"{"name":"a","type":{"type":"bytes","logicalType":"decimal","precision":28,
            "scale":4}},{"name":"b","type":["string","long",{"type":"string",
            "logicalType":"uuid"}]}"#),
    ];
    let parse = |text: &String| WriterSchema::parse(1, text).ok();
    texts.iter().filter_map(parse).collect()
});

/// Reads the bytes; panics when the decoder breaks a promise.
pub fn attempt(data: &[u8]) {
    let Some((choice, datum)) = data.split_first() else { return };
    // Two choices are schemas made of the bytes themselves.
    if *choice >= 0xfe {
        attempt_schema(datum);
        return;
    }
    let writer = &WRITERS[usize::from(*choice) % WRITERS.len()];
    check(writer, datum);
}

fn attempt_schema(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (text, datum) = data.split_at(end);
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Ok(writer) = WriterSchema::parse(2, text) {
        check(&writer, datum.get(1..).unwrap_or_default());
    }
}

fn check(writer: &WriterSchema, datum: &[u8]) {
    let Ok(event) = ThingEvent::decode(writer, datum) else { return };
    let again = event.encode().expect("what was read can be written");
    let own = &WRITERS[0];
    let back = ThingEvent::decode(own, &again).expect("what was written can be read");
    // Not the events: a NaN is not equal to itself.
    assert_eq!(back.encode().map(|bytes| bytes.len()), Ok(again.len()));
}
