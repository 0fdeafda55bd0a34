//! Filters in the style of PostgREST: `column=op.value`, `column=not.op.value`.

use crate::query_string::echo;
use foldstream_core::{ColumnDef, ColumnType, Table, Value};
use foldstream_service::FieldError;

/// How many values `in` takes.
pub(crate) const MAX_IN: usize = 200;
/// How many `*` a `like` pattern takes: each multiplies what a match may cost.
const MAX_STARS: usize = 3;
const OPERATORS: &str = "eq, neq, gt, gte, lt, lte, in, like, is, each also as not.<operator>";

/// A condition on one column.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    pub(crate) column: &'static ColumnDef,
    pub(crate) negated: bool,
    pub(crate) test: Test,
}

/// What a column is tested for. As in SQL, a null passes none of them but [`Test::Null`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Test {
    Compare(Comparison, Value<'static>),
    In(Vec<Value<'static>>),
    /// A pattern of SQL's `like`, already escaped.
    Like(String),
    Null,
    NotNull,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Comparison {
    fn parse(operator: &str) -> Option<Self> {
        Some(match operator {
            "eq" => Self::Equal,
            "neq" => Self::NotEqual,
            "gt" => Self::Greater,
            "gte" => Self::GreaterOrEqual,
            "lt" => Self::Less,
            "lte" => Self::LessOrEqual,
            _ => return None,
        })
    }

    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
        }
    }

    fn names_a_value(self) -> bool {
        matches!(self, Self::Equal | Self::NotEqual)
    }
}

/// The columns that may be filtered and sorted by, as the API has them.
pub(crate) fn filterable(table: &'static Table) -> impl Iterator<Item = &'static ColumnDef> {
    table.shown().filter(|c| c.filter && c.column_type != ColumnType::Jsonb)
}

/// The filter of one parameter.
pub(crate) fn parse(table: &'static Table, name: &str, text: &str) -> Result<Filter, FieldError> {
    let Some(column) = filterable(table).find(|c| c.name == name) else {
        return Err(unknown(table, name));
    };
    let (negated, rest) = match text.strip_prefix("not.") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let Some((operator, operand)) = rest.split_once('.') else {
        return Err(bad_operator(name, rest));
    };
    let test = match (Comparison::parse(operator), operator) {
        (Some(comparison), _) => {
            Test::Compare(comparison, value(column, operand, comparison.names_a_value())?)
        }
        (None, "in") => Test::In(in_list(column, operand)?),
        (None, "like") => Test::Like(like(column, operand)?),
        (None, "is") => is(column, operand)?,
        (None, other) => return Err(bad_operator(name, other)),
    };
    Ok(Filter { column, negated, test })
}

fn unknown(table: &'static Table, name: &str) -> FieldError {
    let columns: Vec<_> = filterable(table).map(|c| c.name).collect();
    let known = table.shown().any(|c| c.name == name);
    let (code, what) = match known {
        true => ("not-filterable", "the column cannot be filtered by"),
        false => ("unknown-parameter", "there is no such parameter or column"),
    };
    let detail = format!(
        "{what}; allowed: select, order, limit, cursor and the columns {}",
        columns.join(", ")
    );
    FieldError::new(echo(name), code, detail)
}

fn bad_operator(name: &str, operator: &str) -> FieldError {
    let detail = format!(
        "\"{}\" is no operator; write {name}=<operator>.<value> with one of: {OPERATORS}",
        echo(operator)
    );
    FieldError::new(name, "unknown-operator", detail)
}

/// A text as a value of the column. `exact`: where the column knows its texts, it is one of them.
pub(crate) fn value(
    column: &'static ColumnDef,
    text: &str,
    exact: bool,
) -> Result<Value<'static>, FieldError> {
    let wrong = |code, detail| FieldError::new(column.name, code, detail);
    let value =
        Value::parse(column.column_type, text).map_err(|fault| wrong(fault.code, fault.detail))?;
    if exact && !column.labels.is_empty() && !column.labels.contains(&text) {
        let detail = format!("the value is not one of: {}", column.labels.join(", "));
        return Err(wrong("unknown-value", detail));
    }
    Ok(value)
}

fn is(column: &'static ColumnDef, operand: &str) -> Result<Test, FieldError> {
    match operand {
        "null" => Ok(Test::Null),
        "not_null" => Ok(Test::NotNull),
        _ => {
            let detail = "is takes null or not_null";
            Err(FieldError::new(column.name, "wrong-operand", detail))
        }
    }
}

/// `(a,b,"c,d")`
fn in_list(column: &'static ColumnDef, operand: &str) -> Result<Vec<Value<'static>>, FieldError> {
    let wrong = |detail: &str| FieldError::new(column.name, "bad-list", detail.to_owned());
    let inner = operand.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    let inner = inner.ok_or_else(|| wrong("in takes a list in brackets, such as in.(a,b)"))?;
    let texts = split_list(inner).map_err(wrong)?;
    if texts.len() > MAX_IN {
        let detail = format!("in takes at most {MAX_IN} values");
        return Err(FieldError::new(column.name, "too-many-values", detail));
    }
    texts.iter().map(|text| value(column, text, true)).collect()
}

/// The items of a list; one that holds a comma, a bracket or a quote stands in double quotes, in
/// which a backslash keeps the character after it.
fn split_list(inner: &str) -> Result<Vec<String>, &'static str> {
    const EMPTY: &str = "an item of the list is empty; write \"\" for an empty text";
    let mut items = Vec::new();
    let mut rest = inner;
    loop {
        let (item, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_item(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let item = &rest[..end];
                if item.is_empty() {
                    return Err(EMPTY);
                }
                if item.contains(['"', '(', ')']) {
                    return Err("an item with quotes or brackets stands in double quotes");
                }
                (item.to_owned(), &rest[end..])
            }
        };
        items.push(item);
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None if after.is_empty() => return Ok(items),
            None => return Err("after a closing quote comes a comma or the end"),
        }
    }
}

fn quoted_item(text: &str) -> Result<(String, &str), &'static str> {
    let mut item = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((item, &text[at + 1..])),
            '\\' => match characters.next() {
                Some((_, kept)) => item.push(kept),
                None => break,
            },
            plain => item.push(plain),
        }
    }
    Err("a double quote is not closed")
}

/// `abc*`: `*` stands for any run of characters; everything else, `%` and `_` too, for itself.
fn like(column: &'static ColumnDef, operand: &str) -> Result<String, FieldError> {
    let wrong = |code, detail: String| FieldError::new(column.name, code, detail);
    if column.column_type != ColumnType::Text {
        return Err(wrong("wrong-operand", "like is for columns of text".to_owned()));
    }
    if operand.is_empty() || operand.starts_with('*') {
        let detail = "the pattern begins with what the text begins with, not with *";
        return Err(wrong("leading-wildcard", detail.to_owned()));
    }
    if operand.matches('*').count() > MAX_STARS {
        return Err(wrong("too-many-wildcards", format!("a pattern has at most {MAX_STARS} *")));
    }
    let mut pattern = String::with_capacity(operand.len());
    for character in operand.chars() {
        match character {
            '*' => pattern.push('%'),
            '%' | '_' | '\\' => pattern.extend(['\\', character]),
            plain => pattern.push(plain),
        }
    }
    Ok(pattern)
}
