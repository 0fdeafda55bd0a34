//! The contract of the query side, from the declarations.

use crate::filter::filterable;
use crate::list_query::{DEFAULT_LIMIT, MAX_FILTERS, MAX_LIMIT};
use crate::preferences::MAX_WAIT;
use crate::routes::{key_parameter, key_path, list_path};
use foldstream_core::{AnyReadModel, ColumnDef, ColumnType, Table};
use foldstream_service::ProblemKind;
use foldstream_service::openapi::{Conflict, Document, Operation, Parameter, ResponseDoc};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

/// The operations of these read models: a list and a row by key each.
///
/// # Errors
/// When two of them have the same name.
pub fn openapi(models: &[Arc<dyn AnyReadModel>]) -> Result<Document, Conflict> {
    let mut document = Document::new("Queries", "1", "Read models: lists, and rows by key.");
    for model in models {
        let table = model.table();
        document.tag(table.name, table.doc);
        let row = document.component(&component(table), row_schema(table, true))?;
        let part =
            document.component(&format!("{}Part", component(table)), row_schema(table, false))?;
        let list = Operation::new(Method::GET, list_path(table), format!("list_{}", table.name));
        document.operation(list_operation(list, table, &part))?;
        let get = Operation::new(Method::GET, key_path(table), format!("get_{}", table.name));
        document.operation(get_operation(get, table, &row, &part))?;
    }
    Ok(document)
}

/// `sales_by_day` to `SalesByDayRow`.
fn component(table: &Table) -> String {
    let words = table.name.split('_').map(|word| {
        let mut characters = word.chars();
        let first = characters.next().map(|c| c.to_ascii_uppercase());
        first.into_iter().chain(characters).collect::<String>()
    });
    words.chain(["Row".to_owned()]).collect()
}

/// A row; with `select` none of its columns is sure to be there.
fn row_schema(table: &'static Table, whole: bool) -> Value {
    let columns = table.shown().map(|c| (c.name.to_owned(), column_schema(c)));
    let names: Vec<_> = table.shown().map(|c| c.name).collect();
    let mut schema = json!({
        "type": "object",
        "description": table.doc,
        "properties": columns.collect::<serde_json::Map<_, _>>(),
        "additionalProperties": false,
    });
    if whole {
        schema["required"] = json!(names);
    }
    schema
}

/// A cell as it is answered.
fn column_schema(column: &ColumnDef) -> Value {
    let mut schema = value_schema(column);
    if column.nullable {
        if let Some(kind) = schema.get("type").cloned() {
            schema["type"] = json!([kind, "null"]);
        }
        if let Some(labels) = schema.get_mut("enum").and_then(Value::as_array_mut) {
            labels.push(Value::Null);
        }
    }
    if !column.doc.is_empty() {
        schema["description"] = column.doc.into();
    }
    schema
}

/// A value of the column's type, without null.
fn value_schema(column: &ColumnDef) -> Value {
    match column.column_type {
        ColumnType::Bool => json!({"type": "boolean"}),
        ColumnType::Int4 => json!({"type": "integer", "format": "int32"}),
        ColumnType::Int8 => json!({"type": "integer", "format": "int64"}),
        ColumnType::Numeric => json!({
            "type": "string", "pattern": r"^-?[0-9]{1,24}\.[0-9]{2,4}$", "examples": ["12.50"],
        }),
        ColumnType::Date => json!({"type": "string", "format": "date"}),
        ColumnType::Timestamptz => json!({"type": "string", "format": "date-time"}),
        ColumnType::Text if column.labels.is_empty() => json!({"type": "string"}),
        ColumnType::Text => json!({"type": "string", "enum": column.labels}),
        ColumnType::Uuid => json!({"type": "string", "format": "uuid"}),
        ColumnType::Jsonb => json!({}),
    }
}

fn list_operation(operation: Operation, table: &'static Table, row: &Value) -> Operation {
    let names: Vec<_> = filterable(table).map(|c| c.name).collect();
    let operation = operation
        .summary(format!("Lists {}", table.name))
        .description(format!(
            "{}\n\nFilters are written `column=operator.value`; up to {MAX_FILTERS} of them, all \
             of which must hold, several on one column too. Operators: `eq`, `neq`, `gt`, `gte`, \
             `lt`, `lte`, `in.(a,b,\"c,d\")`, `like.abc*` (columns of text), `is.null`, \
             `is.not_null`, each also as `not.<operator>`. As in SQL a null passes none of them \
             but `is.null`. Columns: {}.",
            table.doc,
            names.join(", ")
        ))
        .tag(table.name)
        .parameter(select_parameter(table))
        .parameter(Parameter::query(
            "order",
            json!({"type": "string"}),
            "Columns to order by, as `column`, `column.asc` or `column.desc`, separated by commas, \
             each also with `.nullsfirst` or `.nullslast`. Without them null is greater than every \
             value. The key's columns that are missing follow by themselves, in the direction of \
             the last one named.",
        ))
        .parameter(Parameter::query(
            "limit",
            json!({
                "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT,
            }),
            "Rows of a page.",
        ))
        .parameter(Parameter::query(
            "cursor",
            json!({"type": "string"}),
            "`page.next` or `page.prev` of an answer to the same filters, order and columns. \
             Opaque; expires after a day.",
        ));
    let filters = filterable(table).map(|column| {
        let detail = format!("Filter: {}", column.doc);
        Parameter::query(column.name, json!({"type": "string"}), detail.trim_end())
    });
    let operation = filters.fold(operation, Operation::parameter);
    let body = json!({
        "type": "object",
        "required": ["data", "page"],
        "properties": {
            "data": {"type": "array", "items": row, "maxItems": MAX_LIMIT},
            "page": {
                "type": "object",
                "required": ["next", "prev", "has_more"],
                "properties": {
                    "next": {"type": ["string", "null"], "description": "The next page."},
                    "prev": {"type": ["string", "null"], "description": "The page before."},
                    "has_more": {"type": "boolean", "description": "Whether there is a next page."},
                    "total": {
                        "type": "integer", "minimum": 0,
                        "description": "Rows that pass the filters; with `Prefer: count=exact`.",
                    },
                },
            },
        },
    });
    let answer = fresh(ResponseDoc::json(StatusCode::OK, "A page of rows", body))
        .header("Link", "The pages beside this one, `rel=\"next\"` and `rel=\"prev\"`.")
        .header("Preference-Applied", "`count=exact` where the rows were counted.");
    common(operation, ", `count=exact` counts all rows that pass the filters")
        .response(answer)
        .problem(ProblemKind::CursorInvalid)
        .problem(ProblemKind::CursorExpired)
}

fn get_operation(
    operation: Operation,
    table: &'static Table,
    row: &Value,
    part: &Value,
) -> Operation {
    let keys = (0..).zip(table.keys()).map(|(i, key)| {
        let (name, schema) = (key_parameter(i, key), value_schema(key));
        let detail = format!("`{}`: {}", key.name, key.doc);
        Parameter::path(name, schema, &detail)
    });
    let operation = operation
        .summary(format!("Reads one row of {}", table.name))
        .description(table.doc)
        .tag(table.name);
    let operation = keys.fold(operation, Operation::parameter).parameter(select_parameter(table));
    let body = json!({"anyOf": [row, part]});
    common(operation, "")
        .response(fresh(ResponseDoc::json(StatusCode::OK, "The row", body)))
        .problem(ProblemKind::InvalidPath)
        .problem(ProblemKind::NotFound)
}

fn select_parameter(table: &'static Table) -> Parameter {
    let names: Vec<_> = table.shown().map(|c| c.name).collect();
    let detail =
        format!("Columns to answer, separated by commas; without it all: {}.", names.join(", "));
    Parameter::query("select", json!({"type": "string"}), &detail)
}

/// What every read takes and how it may be refused.
fn common(operation: Operation, preferences: &str) -> Operation {
    let text = json!({"type": "string"});
    let prefer = format!(
        "`wait=S` lets a consistency token wait S seconds (1 unless given, at most {}), \
         `handling=lenient` answers from before the token rather than not at all{preferences}.",
        MAX_WAIT.as_secs()
    );
    operation
        .parameter(Parameter::header(
            "Consistency-Token",
            text.clone(),
            "A token that a command or query answered: the answer is not from before it.",
        ))
        .parameter(Parameter::header("Prefer", text.clone(), &prefer))
        .parameter(Parameter::header("If-None-Match", text, "`ETag` of an answer one has."))
        .response(fresh(ResponseDoc::empty(StatusCode::NOT_MODIFIED, "Nothing has changed")))
        .problem(ProblemKind::InvalidQuery)
        .problem(ProblemKind::InvalidHeader)
        .problem(ProblemKind::TokenInvalid)
        .problem(ProblemKind::NotAcceptable)
        .problem(ProblemKind::TokenOfOtherStore)
        .problem(ProblemKind::ReadModelBehind)
}

/// The headers of every answer.
fn fresh(answer: ResponseDoc) -> ResponseDoc {
    answer
        .header("ETag", "Of this answer, for `If-None-Match`.")
        .header("Consistency-Token", "What this answer has seen, merged with the token given.")
        .header(
            "Read-Model-Position",
            "Events folded: `topic/partition=position`, separated by commas.",
        )
        .header("Read-Model-Lag", "Seconds that the read model is behind at most, or `unknown`.")
}

#[cfg(test)]
mod tests;
