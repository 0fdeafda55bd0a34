//! Levels of compatibility, and whether a schema keeps one.

use apache_avro::Schema;
use apache_avro::error::CompatibilityError;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};

use crate::schema::AvroSchema;

/// What a new schema of a subject must be able to do with the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Anything goes.
    None,
    /// The new schema reads what the latest one wrote.
    Backward,
    /// The new schema reads what any earlier one wrote.
    BackwardTransitive,
    /// The latest schema reads what the new one writes.
    Forward,
    /// Every earlier schema reads what the new one writes.
    ForwardTransitive,
    /// Both ways with the latest.
    Full,
    /// Both ways with every earlier one.
    FullTransitive,
}

impl Level {
    /// The level of a registry in which none was set.
    pub(crate) const DEFAULT: Self = Self::Backward;

    const ALL: [Self; 7] = [
        Self::None,
        Self::Backward,
        Self::BackwardTransitive,
        Self::Forward,
        Self::ForwardTransitive,
        Self::Full,
        Self::FullTransitive,
    ];

    /// Its name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Backward => "BACKWARD",
            Self::BackwardTransitive => "BACKWARD_TRANSITIVE",
            Self::Forward => "FORWARD",
            Self::ForwardTransitive => "FORWARD_TRANSITIVE",
            Self::Full => "FULL",
            Self::FullTransitive => "FULL_TRANSITIVE",
        }
    }

    /// The level of that name, in any case.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name().eq_ignore_ascii_case(name))
    }

    /// Whether all earlier versions count, not the latest alone.
    pub(crate) fn is_transitive(self) -> bool {
        match self {
            Self::BackwardTransitive | Self::ForwardTransitive | Self::FullTransitive => true,
            Self::None | Self::Backward | Self::Forward | Self::Full => false,
        }
    }

    fn new_reads_old(self) -> bool {
        match self {
            Self::Backward | Self::BackwardTransitive | Self::Full | Self::FullTransitive => true,
            Self::None | Self::Forward | Self::ForwardTransitive => false,
        }
    }

    fn old_reads_new(self) -> bool {
        match self {
            Self::Forward | Self::ForwardTransitive | Self::Full | Self::FullTransitive => true,
            Self::None | Self::Backward | Self::BackwardTransitive => false,
        }
    }
}

/// A version of a subject to compare with.
#[derive(Debug, Clone)]
pub(crate) struct Earlier {
    pub(crate) version: i32,
    pub(crate) text: String,
}

/// Says what stands against `candidate`; nothing does where the list is empty.
///
/// `earlier` are the versions to compare with, as many as the level asks for.
///
/// # Errors
/// A sentence when a stored schema can no longer be read.
pub(crate) fn objections(
    level: Level,
    candidate: &AvroSchema,
    earlier: &[Earlier],
) -> Result<Vec<String>, String> {
    let mut objections = Vec::new();
    if level == Level::None {
        return Ok(objections);
    }
    for old in earlier {
        let schema = AvroSchema::parse(&old.text)
            .map_err(|error| format!("stored version {} is unreadable: {error}", old.version))?;
        let (new, old_form) = (&candidate.written_out, &schema.written_out);
        let mut found = Vec::new();
        if level.new_reads_old() {
            found.extend(cannot_read(old_form, new, "the new schema", "the old one"));
        }
        if level.old_reads_new() {
            found.extend(cannot_read(new, old_form, "the old schema", "the new one"));
        }
        if !found.is_empty() {
            objections.extend(found);
            objections.push(format!("{{oldSchemaVersion: {}}}", old.version));
        }
    }
    if !objections.is_empty() {
        objections.push(format!("{{compatibility: '{}'}}", level.name()));
    }
    Ok(objections)
}

/// Why a reader's schema does not read all that a writer's schema allows. Avro's "partial", some
/// data can be read and some cannot, is no compatibility.
fn cannot_read(writer: &Schema, reader: &Schema, who: &str, whom: &str) -> Option<String> {
    match SchemaCompatibility::can_read(writer, reader) {
        Ok(Compatibility::Full) => None,
        Ok(Compatibility::Partial) => Some(format!(
            "{who} reads only a part of what {whom} writes: \
             a union lost a type or an enum a symbol"
        )),
        Err(error) => Some(format!("{who} cannot read {whom}: {}", explain(&error))),
    }
}

fn explain(error: &CompatibilityError) -> String {
    if let CompatibilityError::WrongType { writer_schema_type, reader_schema_type } = error {
        // Both hold the whole type in many lines; its first word is its kind.
        let kind = |text: &str| {
            text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_lowercase()
        };
        return format!(
            "the type was {} and would be read as {}",
            kind(writer_schema_type),
            kind(reader_schema_type)
        );
    }
    if let CompatibilityError::FieldTypeMismatch(field, inner) = error {
        return format!("field '{field}': {}", explain(inner));
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(text: &str) -> AvroSchema {
        AvroSchema::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn record(fields: &str) -> String {
        format!(r#"{{"type":"record","name":"Sold","namespace":"shop","fields":[{fields}]}}"#)
    }

    /// Whether `new` may follow `old` at this level.
    fn may_follow(level: Level, old: &str, new: &str) -> bool {
        let earlier = [Earlier { version: 1, text: old.to_owned() }];
        objections(level, &schema(new), &earlier).expect("stored schema is valid").is_empty()
    }

    #[test]
    fn names_of_levels_are_read_in_any_case() {
        for level in Level::ALL {
            assert_eq!(Level::from_name(level.name()), Some(level));
            assert_eq!(Level::from_name(&level.name().to_lowercase()), Some(level));
        }
        assert_eq!(Level::from_name("LOUD"), None);
        assert_eq!(Level::from_name(""), None);
    }

    #[test]
    fn levels_judge_changes_as_avro_does() {
        const A: &str = r#"{"name":"a","type":"int"}"#;
        const A_LONG: &str = r#"{"name":"a","type":"long"}"#;
        const A_OR_NULL: &str = r#"{"name":"a","type":["null","int"]}"#;
        const B: &str = r#"{"name":"b","type":"string"}"#;
        const B_DEFAULT: &str = r#"{"name":"b","type":"string","default":""}"#;
        const B_WAS_A: &str = r#"{"name":"b","type":"int","aliases":["a"]}"#;
        const ENUM_XY: &str =
            r#"{"name":"e","type":{"type":"enum","name":"E","symbols":["X","Y"]}}"#;
        const ENUM_X: &str = r#"{"name":"e","type":{"type":"enum","name":"E","symbols":["X"]}}"#;
        let a_and = |other: &str| format!("{A},{other}");
        // (old, new, backward, forward)
        let table = [
            (A.to_owned(), A.to_owned(), true, true),
            (A.to_owned(), a_and(B), false, true),
            (A.to_owned(), a_and(B_DEFAULT), true, true),
            (a_and(B), A.to_owned(), true, false),
            (a_and(B_DEFAULT), A.to_owned(), true, true),
            (A.to_owned(), A_LONG.to_owned(), true, false),
            (A_LONG.to_owned(), A.to_owned(), false, true),
            (A.to_owned(), A_OR_NULL.to_owned(), true, false),
            (A_OR_NULL.to_owned(), A.to_owned(), false, true),
            (A.to_owned(), B_WAS_A.to_owned(), true, false),
            (ENUM_X.to_owned(), ENUM_XY.to_owned(), true, false),
            (ENUM_XY.to_owned(), ENUM_X.to_owned(), false, true),
            (A.to_owned(), r#"{"name":"a","type":"string"}"#.to_owned(), false, false),
        ];
        for (old, new, backward, forward) in &table {
            let (old, new) = (record(old), record(new));
            for (level, expected) in [
                (Level::None, true),
                (Level::Backward, *backward),
                (Level::BackwardTransitive, *backward),
                (Level::Forward, *forward),
                (Level::ForwardTransitive, *forward),
                (Level::Full, *backward && *forward),
                (Level::FullTransitive, *backward && *forward),
            ] {
                assert_eq!(may_follow(level, &old, &new), expected, "{level:?}: {old} -> {new}");
            }
        }
    }

    #[test]
    fn a_type_used_twice_is_compared_wherever_it_is_used() {
        let money = |extra: &str| {
            format!(
                r#"{{"type":"record","name":"Money","fields":[
                    {{"name":"amount","type":"string"}}{extra}]}}"#
            )
        };
        let two = |first: &str, name: &str| {
            record(&format!(
                r#"{{"name":"{name}","type":{first},"default":{{"amount":"0","unit":""}}}},
                   {{"name":"tax","type":"Money"}}"#
            ))
        };
        let old = record(&format!(r#"{{"name":"tax","type":{}}}"#, money("")));
        // The definition moved to another field; the type itself is the same.
        assert!(may_follow(Level::Full, &old, &two(&money(""), "net")));
        // It moved and changed, between two fields that are both only references.
        let changed = two(&money(r#",{"name":"unit","type":"string"}"#), "gross");
        assert!(!may_follow(Level::Backward, &two(&money(""), "net"), &changed));
    }

    #[test]
    fn recursive_types_can_be_compared() {
        let tree = |extra: &str| {
            format!(
                r#"{{"type":"record","name":"Tree","fields":[
                    {{"name":"children","type":{{"type":"array","items":"Tree"}}}}{extra}]}}"#
            )
        };
        assert!(may_follow(Level::Full, &tree(""), &tree("")));
        let with_default = tree(r#",{"name":"label","type":"string","default":""}"#);
        assert!(may_follow(Level::Full, &tree(""), &with_default));
        let without = tree(r#",{"name":"label","type":"string"}"#);
        assert!(!may_follow(Level::Backward, &tree(""), &without));
    }

    #[test]
    fn objections_name_the_field_the_version_and_the_level() {
        let old = [Earlier { version: 7, text: record(r#"{"name":"a","type":"int"}"#) }];
        let new = schema(&record(r#"{"name":"a","type":"string"}"#));
        let said = objections(Level::Full, &new, &old).expect("stored schema is valid");
        assert_eq!(said.len(), 4, "{said:?}");
        assert!(said[0].contains("'a'"), "{said:?}");
        assert!(said[0].ends_with("the type was int and would be read as string"), "{said:?}");
        assert_eq!(said[2], "{oldSchemaVersion: 7}");
        assert_eq!(said[3], "{compatibility: 'FULL'}");
    }
}
