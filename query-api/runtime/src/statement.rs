//! SQL text of reads. Names come from the declaration and are quoted, values are parameters.

use crate::cursor::Cursor;
use crate::filter::{Filter, Test};
use crate::list_query::ListQuery;
use crate::order::Term;
use foldstream_core::{ColumnDef, ColumnType, Table, Value};
use foldstream_tables::cells::{Cell, CellArray};
use foldstream_tables::{Place, SNAPSHOT, quoted};
use sqlx::Arguments as _;
use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;

/// A parameter of a statement.
#[derive(Debug, Clone, PartialEq)]
enum Parameter {
    One(Value<'static>, ColumnType),
    Many(Vec<Value<'static>>, ColumnType),
}

/// One statement that reads rows and, in the same snapshot, the place of the build.
///
/// It answers at least one row, of the columns: snapshot (text, in the first row only; null when
/// there is no live build), total (bigint, null unless asked for), whether there is a row here
/// (boolean), then `columns`.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    pub(crate) text: String,
    pub(crate) columns: Vec<&'static ColumnDef>,
    read_model: &'static str,
    parameters: Vec<Parameter>,
}

impl Statement {
    /// The parameters, ready to be bound.
    pub(crate) fn arguments(&self) -> Result<PgArguments, BoxDynError> {
        let mut arguments = PgArguments::default();
        arguments.add(self.read_model)?;
        for parameter in &self.parameters {
            match parameter.clone() {
                Parameter::One(value, column_type) => arguments.add(Cell { value, column_type }),
                Parameter::Many(values, column_type) => {
                    arguments.add(CellArray { values, column_type })
                }
            }?;
        }
        Ok(arguments)
    }
}

/// Of the live build alone; the build that is known is none.
pub(crate) fn snapshot(table: &'static Table) -> Statement {
    let text = format!("select {SNAPSHOT}, null::int8, false");
    Statement { text, columns: Vec::new(), read_model: table.name, parameters: Vec::new() }
}

/// The row of a key, whose values stand in the order of the table's key columns.
pub(crate) fn get(
    place: Place,
    select: &[&'static ColumnDef],
    key: Vec<Value<'static>>,
) -> Statement {
    let mut sql = Sql::default();
    let keys = place.table.keys().zip(key);
    let terms: Vec<String> = keys
        .map(|(column, value)| {
            format!("{} = {}", quoted(column.name), sql.one(value, column.column_type))
        })
        .collect();
    let condition = terms.join(" and ");
    let page = format!(
        "select 1 as place, {} from {} where {condition}",
        numbered(select),
        place.qualified()
    );
    sql.statement(place, select.to_vec(), "null::int8", &page)
}

/// A page of a list, one row longer than its limit, and with `count` the number of all rows that
/// pass the filters. Backward pages come in reverse.
pub(crate) fn list(
    place: Place,
    query: &ListQuery,
    cursor: Option<&Cursor>,
    count: bool,
) -> Statement {
    let mut sql = Sql::default();
    let filters: Vec<String> = query.filters.iter().map(|filter| sql.filter(filter)).collect();
    let filtered = conjunction(&filters);
    let backward = cursor.is_some_and(|cursor| cursor.backward);
    let order: Vec<Term> = match backward {
        true => query.order.iter().map(|term| term.reversed()).collect(),
        false => query.order.clone(),
    };
    let mut conditions = filters;
    conditions.extend(cursor.map(|cursor| sql.after(&order, cursor)));
    let mut columns = query.select.clone();
    for term in &order {
        if !columns.iter().any(|known| known.name == term.column.name) {
            columns.push(term.column);
        }
    }
    let table = place.qualified();
    let total = match count {
        true => format!("(select count(*) from {table}{filtered})"),
        false => "null::int8".to_owned(),
    };
    let terms: Vec<String> = order.iter().map(order_term).collect();
    let page = format!(
        "select row_number() over () as place, chosen.* from (select {} from {table}{} \
         order by {} limit {}) chosen",
        numbered(&columns),
        conjunction(&conditions),
        terms.join(", "),
        query.limit + 1,
    );
    sql.statement(place, columns, &total, &page)
}

fn numbered(columns: &[&'static ColumnDef]) -> String {
    let named = |(i, column): (usize, &&ColumnDef)| format!("{} as c{i}", quoted(column.name));
    columns.iter().enumerate().map(named).collect::<Vec<_>>().join(", ")
}

fn conjunction(conditions: &[String]) -> String {
    match conditions.is_empty() {
        true => String::new(),
        false => format!(" where {}", conditions.join(" and ")),
    }
}

fn order_term(term: &Term) -> String {
    let direction = if term.descending { " desc" } else { "" };
    let nulls = match (term.column.nullable, term.nulls_first) {
        (false, _) => "",
        (true, true) => " nulls first",
        (true, false) => " nulls last",
    };
    format!("{}{direction}{nulls}", quoted(term.column.name))
}

/// A statement in the making; `$1` is the read model's name.
#[derive(Default)]
struct Sql {
    parameters: Vec<Parameter>,
}

impl Sql {
    fn statement(
        self,
        place: Place,
        columns: Vec<&'static ColumnDef>,
        total: &str,
        page: &str,
    ) -> Statement {
        let cells: Vec<String> = (0..columns.len()).map(|i| format!("page.c{i}")).collect();
        // The outer join answers a row also where the page is empty.
        let text = format!(
            "select case when coalesce(page.place, 1) = 1 then {SNAPSHOT} end, \
             case when coalesce(page.place, 1) = 1 then {total} end, \
             page.place is not null, {} \
             from (select 1) always left join ({page}) page on true order by page.place",
            cells.join(", ")
        );
        Statement { text, columns, read_model: place.table.name, parameters: self.parameters }
    }

    fn push(&mut self, parameter: Parameter) -> String {
        self.parameters.push(parameter);
        format!("${}", self.parameters.len() + 1)
    }

    fn one(&mut self, value: Value<'static>, column_type: ColumnType) -> String {
        self.push(Parameter::One(value, column_type))
    }

    fn filter(&mut self, filter: &Filter) -> String {
        let (name, column_type) = (quoted(filter.column.name), filter.column.column_type);
        let condition = match &filter.test {
            Test::Compare(comparison, value) => {
                format!("{name} {} {}", comparison.sql(), self.one(value.clone(), column_type))
            }
            Test::In(values) => {
                let list = self.push(Parameter::Many(values.clone(), column_type));
                format!("{name} = any({list})")
            }
            Test::Like(pattern) => {
                let pattern = Value::Text(pattern.clone().into());
                format!("{name} like {}", self.one(pattern, ColumnType::Text))
            }
            Test::Null => format!("{name} is null"),
            Test::NotNull => format!("{name} is not null"),
        };
        if filter.negated { format!("not ({condition})") } else { condition }
    }

    /// The rows that come after a place in this order.
    fn after(&mut self, order: &[Term], cursor: &Cursor) -> String {
        let plain = order.iter().all(|t| !t.column.nullable && t.descending == order[0].descending);
        if plain { self.after_plain(order, cursor) } else { self.after_any(order, cursor) }
    }

    /// No nulls, one direction: a row comparison, which an index can answer.
    fn after_plain(&mut self, order: &[Term], cursor: &Cursor) -> String {
        let names: Vec<_> = order.iter().map(|term| quoted(term.column.name)).collect();
        let cells = order.iter().zip(&cursor.values);
        let values: Vec<_> =
            cells.map(|(term, value)| self.one(value.clone(), term.column.column_type)).collect();
        let operator = match (order[0].descending, cursor.inclusive) {
            (false, false) => ">",
            (false, true) => ">=",
            (true, false) => "<",
            (true, true) => "<=",
        };
        format!("({}) {operator} ({})", names.join(", "), values.join(", "))
    }

    /// Equal in the columns before and after in this one, for each column in turn.
    fn after_any(&mut self, order: &[Term], cursor: &Cursor) -> String {
        let mut equal: Vec<String> = Vec::new();
        let mut ways: Vec<String> = Vec::new();
        // Says nothing new, but an index understands it.
        let mut bound = String::new();
        for (term, value) in order.iter().zip(&cursor.values) {
            let name = quoted(term.column.name);
            let parameter = match value {
                Value::Null => None,
                value => Some(self.one(value.clone(), term.column.column_type)),
            };
            if let Some(beyond) = beyond(term, &name, parameter.as_deref()) {
                ways.push(equal.iter().cloned().chain([beyond]).collect::<Vec<_>>().join(" and "));
            }
            if let (Some(parameter), true, false) =
                (&parameter, equal.is_empty(), nulls_follow(term))
            {
                let operator = if term.descending { "<=" } else { ">=" };
                bound = format!("{name} {operator} {parameter} and ");
            }
            equal.push(match parameter {
                Some(parameter) => format!("{name} = {parameter}"),
                None => format!("{name} is null"),
            });
        }
        if cursor.inclusive {
            ways.push(equal.join(" and "));
        }
        if ways.is_empty() {
            return "false".to_owned();
        }
        format!("{bound}({})", ways.join(" or "))
    }
}

fn nulls_follow(term: &Term) -> bool {
    term.column.nullable && !term.nulls_first
}

/// What comes after a value (`None`: null) in a column; `None` when nothing does.
fn beyond(term: &Term, name: &str, value: Option<&str>) -> Option<String> {
    let operator = if term.descending { "<" } else { ">" };
    match (value, term.nulls_first) {
        (None, true) => Some(format!("{name} is not null")),
        (None, false) => None,
        (Some(value), _) if nulls_follow(term) => {
            Some(format!("({name} {operator} {value} or {name} is null)"))
        }
        (Some(value), _) => Some(format!("{name} {operator} {value}")),
    }
}
