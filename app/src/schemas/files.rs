//! The schemas of the events as files: `<dir>/<topic>/<Event>/<n>.avsc`, numbered, committed.
//! Older numbers never change; the newest is what the code has, and reads all older ones.

use super::Published;
use super::rules::{self, Fault};
use crate::{App, Failure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What was found in the files.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// What is refused.
    pub(crate) faults: Vec<Fault>,
    /// What older code cannot read, and may be meant so.
    pub(crate) notes: Vec<Fault>,
}

/// Writes what is missing; refuses what may not follow the files that are there.
pub(crate) fn generate(app: &App, dir: &Path) -> Result<ExitCode, Failure> {
    let events = Published::all(app);
    let findings = examine(&events, dir, false);
    let stale = |fault: &&Fault| fault.rule != rules::UP_TO_DATE;
    let faults: Vec<String> =
        findings.faults.iter().filter(stale).map(ToString::to_string).collect();
    if !faults.is_empty() {
        return Err(Failure::failed(faults.join("\n")));
    }
    let mut written = 0;
    for event in events {
        let folder = folder(dir, event);
        let failed = |error: io::Error| Failure::failed(format!("{}: {error}", folder.display()));
        let older = numbered(&folder).map_err(failed)?;
        let text = text(event);
        if newest(&older).is_some_and(|newest| fs::read_to_string(newest).is_ok_and(|t| t == text))
        {
            continue;
        }
        let number = older.last().map_or(1, |(number, _)| number + 1);
        let path = folder.join(format!("{number}.avsc"));
        fs::create_dir_all(&folder).map_err(failed)?;
        fs::write(&path, text).map_err(failed)?;
        println!("wrote {}", path.display());
        written += 1;
    }
    if written == 0 {
        println!("all schemas are up to date");
    }
    Ok(ExitCode::SUCCESS)
}

/// Compares the files with the code, and the code's schemas with all older ones. `both_ways` makes
/// a fault of what older code could not read.
pub(crate) fn check(app: &App, dir: &Path, both_ways: bool) -> Findings {
    examine(&Published::all(app), dir, both_ways)
}

/// The number of the file that has an event's schema as the code has it.
pub(crate) fn number(dir: &Path, event: Published) -> Option<u32> {
    let text = text(event);
    let files = numbered(&folder(dir, event)).unwrap_or_default();
    let same = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|found| found == text);
    files.into_iter().rev().find(|(_, path)| same(path)).map(|(number, _)| number)
}

fn examine(events: &[Published], dir: &Path, both_ways: bool) -> Findings {
    let mut findings = Findings::default();
    findings.faults.extend(rules::shared_names(events));
    findings.faults.extend(forgotten(events, dir));
    for event in events {
        if let Some(fault) = &event.schema.fault {
            let at = folder(dir, *event).display().to_string();
            findings.faults.push(Fault::new(at, "", rules::RECURSIVE, fault));
            continue;
        }
        if let Err(fault) = one(*event, &folder(dir, *event), both_ways, &mut findings) {
            findings.faults.push(fault);
        }
    }
    findings
}

fn one(
    event: Published,
    folder: &Path,
    both_ways: bool,
    findings: &mut Findings,
) -> Result<(), Fault> {
    let at = folder.display().to_string();
    let unreadable =
        |at: &str, why: &dyn std::fmt::Display| Fault::new(at, "", rules::FILE, why.to_string());
    let files = numbered(folder).map_err(|error| unreadable(&at, &error))?;
    let mut older = Vec::new();
    for (place, (number, path)) in files.iter().enumerate() {
        let at = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|error| unreadable(&at, &error))?;
        let schema = serde_json::from_str(&text).map_err(|error| unreadable(&at, &error))?;
        if usize::try_from(*number) != Ok(place + 1) {
            let why = "numbers count up from 1 without a gap: a file is missing, or named wrongly";
            return Err(unreadable(&at, &why));
        }
        older.push(rules::Older { file: at, text, schema });
    }
    let text = text(event);
    if older.last().is_none_or(|last| last.text != text) {
        let file = folder.join(format!("{}.avsc", older.len() + 1));
        let why = "missing, or not as the code has it: run `cargo x schemas`";
        findings.faults.push(Fault::new(file.display().to_string(), "", rules::UP_TO_DATE, why));
    }
    let before: Vec<_> = older.into_iter().filter(|older| older.text != text).collect();
    findings.faults.extend(rules::new_reads_old(&before, &event.schema.json));
    let forward = rules::old_reads_new(&before, &event.schema.json);
    if both_ways { &mut findings.faults } else { &mut findings.notes }.extend(forward);
    Ok(())
}

/// Folders of events that the code no longer has, or has elsewhere.
fn forgotten(events: &[Published], dir: &Path) -> Vec<Fault> {
    let mut faults = Vec::new();
    for aggregate in folders(dir) {
        for event in folders(&aggregate) {
            let known = |one: &&Published| folder(dir, **one) == event;
            if events.iter().any(|one| known(&one)) || numbered(&event).is_ok_and(|f| f.is_empty())
            {
                continue;
            }
            let name = event.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let moved = events.iter().find(|one| one.schema.name == name);
            let (rule, why) = match moved {
                Some(moved) => (
                    rules::RECORD_MOVED,
                    format!(
                        "the code has `{name}` among the events of `{}` now; a record's name stays \
                         where it is: give the new event another name",
                        moved.aggregate
                    ),
                ),
                None => (
                    rules::EVENT_GONE,
                    "the code no longer has this event, so stored ones cannot be read: keep it in \
                     `events!`"
                        .to_owned(),
                ),
            };
            faults.push(Fault::new(event.display().to_string(), "", rule, why));
        }
    }
    faults
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|e| e.path()).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

fn folder(dir: &Path, event: Published) -> PathBuf {
    dir.join(event.aggregate).join(event.schema.name)
}

fn text(event: Published) -> String {
    format!("{:#}\n", sorted(&event.schema.json))
}

fn newest(files: &[(u32, PathBuf)]) -> Option<&Path> {
    files.last().map(|(_, path)| path.as_path())
}

/// Members in the order of their names, whatever order the JSON library keeps in this build.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let ordered: BTreeMap<&String, &Value> = members.iter().collect();
            ordered.into_iter().map(|(name, value)| (name.clone(), sorted(value))).collect()
        }
        Value::Array(values) => values.iter().map(sorted).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// The numbered files of a folder, in order.
fn numbered(folder: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let (Some(number), Some("avsc")) = (number, path.extension().and_then(|e| e.to_str())) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
#[allow(unreachable_pub, reason = "the macros of events want it")]
mod tests {
    use super::*;
    use apache_avro::AvroSchema;
    use foldstream_core::{Event, EventSet, events, stream_id};
    use serde::{Deserialize, Serialize};

    stream_id! {
        /// An order.
        pub struct OrderId, check = |_| Ok(());
    }
    /// Holds itself.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, AvroSchema)]
    #[avro(namespace = "shop")]
    pub struct Tree {
        /// More of them.
        pub branches: Vec<Tree>,
    }
    /// Grown.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema)]
    #[avro(namespace = "shop.orders")]
    pub struct Grown {
        /// What.
        pub tree: Tree,
    }
    /// Sold.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema)]
    #[avro(namespace = "shop.orders")]
    pub struct Sold {
        /// What.
        pub sku: String,
        /// A note.
        pub note: Option<String>,
    }
    events! {
        /// Good ones.
        pub enum OrderEvent on "orders" of OrderId { Sold }
    }
    events! {
        /// Bad ones.
        pub enum BadEvent on "orders" of OrderId { Grown }
    }

    fn published<E: EventSet>() -> Vec<Published> {
        let one = |schema| Published { aggregate: E::TOPIC, schema };
        E::schemas().iter().map(one).collect()
    }
    fn rules(events: &[Published], dir: &Path) -> Vec<(String, &'static str)> {
        let findings = examine(events, dir, false);
        let short = |fault: Fault| {
            let file = fault.file.replace(&dir.display().to_string(), "");
            (file, fault.rule)
        };
        findings.faults.into_iter().map(short).collect()
    }

    #[test]
    fn files_are_compared_with_the_code() {
        let dir = tempfile::tempdir().unwrap();
        let events = published::<OrderEvent>();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let found = |rule| vec![("/orders/Sold/1.avsc".to_owned(), rule)];
        assert_eq!(rules(&events, dir.path()), found("up-to-date"));
        assert_eq!(number(dir.path(), events[0]), None);
        let newest = text(events[0]);
        put("orders/Sold/1.avsc", &newest);
        assert_eq!(rules(&events, dir.path()), []);
        assert_eq!(number(dir.path(), events[0]), Some(1));

        // An older one, and the newest after it.
        let older = newest.replace("A note.", "A word.");
        put("orders/Sold/1.avsc", &older);
        assert_eq!(rules(&events, dir.path())[0].0, "/orders/Sold/2.avsc");
        put("orders/Sold/2.avsc", &newest);
        assert_eq!(rules(&events, dir.path()), []);
        assert_eq!(number(dir.path(), events[0]), Some(2));
        put("orders/Sold/4.avsc", &newest);
        assert_eq!(rules(&events, dir.path()), [("/orders/Sold/4.avsc".to_owned(), "file")]);
        fs::remove_file(dir.path().join("orders/Sold/4.avsc")).unwrap();
        put("orders/Sold/1.avsc", "{");
        assert_eq!(rules(&events, dir.path()), found("file"));
        put("orders/Sold/1.avsc", &older);

        // Events that the code no longer has, or has elsewhere.
        put("orders/Lost/1.avsc", &newest);
        put("sales/Sold/1.avsc", &newest);
        let gone =
            [("/orders/Lost".to_owned(), "event-gone"), ("/sales/Sold".into(), "record-moved")];
        assert_eq!(rules(&events, dir.path()), gone);
    }

    #[test]
    fn a_recursive_type_is_refused_and_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let events = published::<BadEvent>();
        assert_eq!(rules(&events, dir.path()), [("/orders/Grown".into(), "recursive-type")]);
    }
}
