//! Bytes that are no event: each is refused with a reason, none costs more than it weighs.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs, reason = "tests")]

#[path = "../../fuzz/src/decode.rs"]
mod decode;

use decode::{Changed, Mood, Part, ThingEvent, WRITERS};
use foldstream_core::{EventSet, MAX_VALUES, Timestamp, Uuid, WriterSchema};
use std::collections::HashMap;

fn thing() -> Changed {
    Changed {
        at: Timestamp::EPOCH,
        id: Uuid::from_u128(7),
        name: "thing".into(),
        nick: Some("it".into()),
        count: -5,
        small: 5,
        chance: f32::NAN,
        real: true,
        mood: Mood::Well,
        parts: vec![Part {
            name: "leg".into(),
            weight: f64::INFINITY,
            price: "-0.5".parse().unwrap(),
        }],
        notes: HashMap::from([("one".to_owned(), Some(1))]),
        added: 9,
    }
}
fn record(fields: &str) -> WriterSchema {
    let text = format!(
        r#"{{"type":"record","name":"Changed","namespace":"fuzz.things","fields":[{fields}]}}"#
    );
    WriterSchema::parse(1, &text).unwrap()
}
/// Why bytes are refused under a record of one field of this type.
fn why(field_type: &str, datum: &[u8]) -> String {
    let writer = record(&format!(r#"{{"name":"a","type":{field_type}}}"#));
    ThingEvent::decode(&writer, datum).unwrap_err().reason
}
fn assert_bytes_are_sound(field_type: &str, datum: &[u8]) {
    let reason = why(field_type, datum);
    assert!(!reason.contains(" at byte "), "{field_type}: {reason}");
    assert!(!reason.contains("after the end"), "{field_type}: {reason}");
}

#[test]
fn every_kind_of_bad_bytes_has_its_reason() {
    let huge = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let minimum = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let longs = r#"{"type":"array","items":"long"}"#;
    let nulls = r#"{"type":"array","items":"null"}"#;
    let map = r#"{"type":"map","values":"long"}"#;
    let three = r#"{"type":"enum","name":"E","symbols":["A","B","C"]}"#;
    let decimal = r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#;
    let fixed = r#"{"type":"fixed","name":"F","size":1000000000000}"#;
    let ended = "the bytes end before the record does";
    let length = "a length that is negative or past the end";
    let many = "more values than an event may hold";
    let long = "an over-long number";
    let table: &[(&str, &[u8], &str)] = &[
        // Lengths.
        (r#""string""#, &huge, length),
        (r#""bytes""#, &huge, length),
        (r#""string""#, &minimum, length),
        (r#""bytes""#, &[0x09], length),
        (r#""string""#, &[0x04, b'a'], length),
        (fixed, &[1, 2, 3], ended),
        // Blocks.
        (longs, &huge, many),
        (longs, &minimum, ended),
        (longs, &[minimum.as_slice(), &[0x00]].concat(), many),
        (longs, &[0x04, 0x02], ended),
        (longs, &[0x03, 0x06, 0x02, 0x02, 0x00], "a block that is not as long as it says"),
        (longs, &[0x01, 0x09, 0x02, 0x00], length),
        (nulls, &huge, many),
        // 10⁶ nulls, as the array says, in 7 bytes.
        (nulls, &[0x80, 0x89, 0x7a, 0x00], many),
        (map, &huge, many),
        (map, &[0x02, 0x02, 0xff, 0x02, 0x00], "text that is not UTF-8"),
        // Numbers.
        (r#""long""#, &[], ended),
        (r#""long""#, &[0x80], ended),
        (r#""long""#, &[0xff; 12], long),
        (r#""long""#, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02], long),
        (r#""long""#, &[0x80, 0x00], long),
        (r#""int""#, &[0x80, 0x80, 0x80, 0x80, 0x10], "a number that does not fit its type"),
        (r#""float""#, &[0, 0, 0], ended),
        (r#""double""#, &[0; 7], ended),
        (r#""boolean""#, &[], ended),
        (r#""boolean""#, &[2], "a boolean that is neither 0 nor 1"),
        // Text, symbols, branches.
        (r#""string""#, &[0x04, 0xc3, 0x28], "text that is not UTF-8"),
        (three, &[0x06], "no symbol of the enum"),
        (three, &[0x01], "no symbol of the enum"),
        (r#"["null","long"]"#, &[0x04], "no branch of the union"),
        (r#"["null","long"]"#, &[0x01], "no branch of the union"),
        (r#"["null","long"]"#, &[], ended),
        (decimal, &[0x00], length),
        // What follows.
        (r#""long""#, &[0x02, 0x00], "1 bytes after the end of the record"),
        (r#""null""#, &[0x00], "1 bytes after the end of the record"),
    ];
    for (field_type, datum, expected) in table {
        let reason = why(field_type, datum);
        assert!(reason.starts_with(expected), "{field_type} {datum:02x?}: {reason}");
    }
    for (field_type, datum) in [
        (longs, &[0x03, 0x04, 0x02, 0x02, 0x00][..]),
        (longs, &[0x02, 0x02, 0x02, 0x04, 0x00]),
        (map, &[0x00]),
        (r#""long""#, &huge),
        (r#""long""#, &minimum),
        (r#""double""#, &[0xff; 8]),
        (nulls, &[0xd0, 0x0f, 0x00]),
    ] {
        assert_bytes_are_sound(field_type, datum);
    }
}

#[test]
fn an_event_cut_short_anywhere_is_refused() {
    // The library alone reads missing text and missing optional fields as nulls.
    let datum = ThingEvent::from(thing()).encode().unwrap();
    let newer =
        record(r#"{"name":"x","type":["null","string"]},{"name":"y","type":["null","string"]}"#);
    for writer in WRITERS.iter().chain([&newer]) {
        for end in 0..datum.len() {
            let _ = ThingEvent::decode(writer, &datum[..end]);
        }
    }
    let own = &WRITERS[0];
    for end in 0..datum.len() {
        assert!(ThingEvent::decode(own, &datum[..end]).is_err(), "{end} of {}", datum.len());
    }
    for extra in 0..=255 {
        let longer = [datum.as_slice(), &[extra]].concat();
        assert!(ThingEvent::decode(own, &longer).is_err());
    }
    // A NaN and an infinity are numbers of their type: they come back.
    let back = ThingEvent::decode(own, &datum).unwrap();
    assert_eq!(back.encode().unwrap(), datum);
}

#[test]
fn schemas_without_bounds_are_refused() {
    let refused = |text: &str| WriterSchema::parse(1, text).unwrap_err().reason;
    let tree = refused(
        r#"{"type":"record","name":"Tree","fields":[
            {"name":"inner","type":["null","Tree"],"default":null}]}"#,
    );
    assert_eq!(tree, "`Tree` holds itself; recursive types are refused");
    let deep = |levels: usize| {
        let mut inner = r#""long""#.to_owned();
        for n in 0..levels {
            inner = format!(
                r#"{{"type":"record","name":"R{n}","fields":[{{"name":"f","type":{inner}}}]}}"#
            );
        }
        inner
    };
    assert!(refused(&deep(40)).contains("nested more than 20 deep"));
    let big = refused(
        r#"{"type":"record","name":"R","fields":[
            {"name":"f","type":{"type":"bytes","logicalType":"big-decimal"}}]}"#,
    );
    assert!(big.contains("big-decimal"), "{big}");
    assert!(refused(&" ".repeat(2 << 20)).contains("no schema of ours"));
    assert!(refused(r#""long""#).contains("not the schema of a record"));
    assert!(!refused("{").is_empty());

    // As deep as it may be, on the stack of a test's thread, the long way: through values.
    let name = r#""name":"R19""#;
    let text = deep(20).replacen(name, r#""name":"Changed","namespace":"fuzz.things""#, 1);
    let writer = WriterSchema::parse(1, &text).unwrap();
    assert!(ThingEvent::decode(&writer, &[0x02]).is_err());
}

#[test]
fn types_that_double_at_every_level_cost_no_more_than_they_weigh() {
    // A0 holds two A1, which hold two A2 …: a few bytes of schema, 2¹⁸ values of no bytes.
    let mut inner = r#""null""#.to_owned();
    for n in (0..18).rev() {
        let name = if n == 0 { "Changed".to_owned() } else { format!("A{n}") };
        let again =
            if n == 17 { r#""null""#.to_owned() } else { format!(r#""fuzz.things.A{}""#, n + 1) };
        inner = format!(
            r#"{{"type":"record","name":"{name}","namespace":"fuzz.things","fields":[
                {{"name":"a","type":{inner}}},{{"name":"b","type":{again}}}]}}"#
        );
    }
    let writer = WriterSchema::parse(1, &inner).unwrap();
    let reason = ThingEvent::decode(&writer, &[]).unwrap_err().reason;
    assert!(reason.starts_with("more values than an event may hold"), "{reason}");
}

#[test]
fn what_could_not_be_read_is_not_written() {
    let mut large = thing();
    large.parts = vec![large.parts[0].clone(); MAX_VALUES / 4];
    let refused = ThingEvent::from(large).encode().unwrap_err();
    assert!(refused.reason.starts_with("more values than an event may hold"), "{refused}");
    let mut fits = thing();
    fits.parts = vec![fits.parts[0].clone(); MAX_VALUES / 4 - 10];
    let datum = ThingEvent::from(fits).encode().unwrap();
    assert!(ThingEvent::decode(&WRITERS[0], &datum).is_ok());
}

/// The kept corpus of the fuzzer, once each: what was ever found stays found.
#[test]
fn the_corpus_is_borne() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/decode");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        decode::attempt(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 50, "{count} files in {folder}");
}
