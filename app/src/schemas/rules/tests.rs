use super::*;

fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"Sold","namespace":"shop.orders","fields":[{fields}]}}"#)
}
/// File, field and rule of what stands against the last of these following the others.
fn faults(versions: &[&str]) -> Vec<(String, String, &'static str)> {
    let (new, older) = versions.split_last().unwrap();
    let older: Vec<Older> = older
        .iter()
        .enumerate()
        .map(|(n, text)| Older {
            file: format!("{}.avsc", n + 1),
            text: (*text).to_owned(),
            schema: serde_json::from_str(text).unwrap(),
        })
        .collect();
    let found = new_reads_old(&older, &serde_json::from_str(new).unwrap());
    found.into_iter().map(|fault| (fault.file, fault.field, fault.rule)).collect()
}
fn one(file: &str, field: &str, rule: &'static str) -> Vec<(String, String, &'static str)> {
    vec![(file.to_owned(), field.to_owned(), rule)]
}

const A: &str = r#"{"name":"a","type":"int"}"#;
const MOOD: &str = r#"{"name":"mood","type":{"type":"enum","name":"Mood","symbols":["X","Y"]}}"#;

#[test]
fn what_avro_can_read_is_allowed() {
    for (old, new) in [
        (A, r#"{"name":"a","type":"int"},{"name":"b","type":"string","default":""}"#),
        (A, r#"{"name":"a","type":"int"},{"name":"b","type":["null","string"],"default":null}"#),
        (A, r#"{"name":"b","type":"int","aliases":["a"]}"#),
        (A, r#"{"name":"a","type":"long"}"#),
        (A, r#"{"name":"a","type":["null","int"]}"#),
        (r#"{"name":"a","type":"float"}"#, r#"{"name":"a","type":"double"}"#),
        (A, ""),
        (MOOD, &MOOD.replace(r#""X","#, r#""W","X","#)),
        (MOOD, &MOOD.replace(r#""X","Y"]"#, r#""X"],"default":"X""#)),
    ] {
        assert_eq!(faults(&[&record(old), &record(new)]), [], "{old} -> {new}");
    }
}

#[test]
fn every_refusal_names_file_field_and_rule() {
    let nested = |fields: &str| {
        let line = format!(r#"{{"type":"record","name":"Line","fields":[{fields}]}}"#);
        record(&format!(r#"{{"name":"lines","type":{{"type":"array","items":{line}}}}}"#))
    };
    let plain = record(A);
    let with_b = record(&format!(r#"{A},{{"name":"b","type":"string"}}"#));
    assert_eq!(faults(&[&plain, &with_b]), one("1.avsc", "b", "field-without-default"));
    assert_eq!(
        faults(&[&nested(A), &nested(&format!(r#"{A},{{"name":"b","type":"string"}}"#))]),
        one("1.avsc", "lines.b", "field-without-default")
    );
    let fewer = MOOD.replace(r#""X","Y""#, r#""X""#);
    assert_eq!(faults(&[&record(MOOD), &record(&fewer)]), one("1.avsc", "mood", "symbol-removed"));
    let moved = plain.replace("shop.orders", "shop.sales");
    assert_eq!(faults(&[&plain, &moved]), one("1.avsc", "", "record-moved"));
    let other_line = nested(A).replace("Line", "Row");
    assert_eq!(faults(&[&nested(A), &other_line]), one("1.avsc", "lines", "record-moved"));
    let text = record(r#"{"name":"a","type":"string"}"#);
    assert_eq!(faults(&[&plain, &text]), one("1.avsc", "", "new-reads-old"));
    let narrower = record(r#"{"name":"a","type":"long"}"#);
    assert_eq!(faults(&[&narrower, &plain]), one("1.avsc", "", "new-reads-old"));
}

#[test]
fn all_older_ones_count_not_the_latest_alone() {
    // Two steps that are each allowed: the first one's events have no `b`.
    let with = |b: &str| record(&format!("{A}{b}"));
    let versions = [
        with(""),
        with(r#",{"name":"b","type":"int","default":0}"#),
        with(r#",{"name":"b","type":"int"}"#),
    ];
    let texts: Vec<&str> = versions.iter().map(String::as_str).collect();
    assert_eq!(faults(&texts), one("1.avsc", "b", "field-without-default"));
    assert_eq!(faults(&texts[1..]), []);
}

#[test]
fn a_name_that_was_gone_may_not_come_back_as_something_else() {
    let (with, without) = (record(A), record(""));
    let as_long = record(r#"{"name":"a","type":"long","default":0}"#);
    // Avro alone would read it: an int is promoted. It is not the same thing.
    assert_eq!(faults(&[&with, &without, &as_long]), one("1.avsc", "a", "name-reused"));
    let back = record(r#"{"name":"a","type":"int","default":0}"#);
    assert_eq!(faults(&[&with, &without, &back]), []);
    assert_eq!(faults(&[&with, &as_long]), []);
}

#[test]
fn older_code_is_asked_too() {
    let older = |text: &str| {
        vec![Older {
            file: "1.avsc".into(),
            text: text.to_owned(),
            schema: serde_json::from_str(text).unwrap(),
        }]
    };
    let new: Value = serde_json::from_str(&record(r#"{"name":"a","type":"long"}"#)).unwrap();
    let notes = old_reads_new(&older(&record(A)), &new);
    assert_eq!(notes.len(), 1);
    assert_eq!((notes[0].file.as_str(), notes[0].rule), ("1.avsc", "old-reads-new"));
    assert_eq!(old_reads_new(&older(&new.to_string()), &new), []);
}

#[test]
fn a_fault_reads_as_a_sentence() {
    let fault = Fault::new("x/1.avsc", "a.b", NO_DEFAULT, "it needs one");
    let said = "x/1.avsc: field `a.b`: it needs one [field-without-default]";
    assert_eq!(fault.to_string(), said);
    let whole = Fault::new("x", "", EVENT_GONE, "it is gone");
    assert_eq!(whole.to_string(), "x: it is gone [event-gone]");
}
