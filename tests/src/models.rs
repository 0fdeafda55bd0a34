//! The four read models, read over HTTP and by SQL into one form, so that they can be compared.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::DateTime;
use foldstream_testkit::eventually;
use serde_json::Value;

use crate::api::Api;
use crate::oracle::ten_thousandths;
use crate::sql;

/// The values of a row that are not its key; none for null. Numbers in decimal, amounts with four
/// decimals, instants in microseconds since 1970.
pub type Cells = Vec<Option<String>>;
/// Rows by key.
pub type Rows = BTreeMap<Vec<String>, Cells>;

/// A page takes no longer, whatever else goes on.
const PAGE: Duration = Duration::from_secs(20);

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Count,
    Amount,
    Day,
    Instant,
}

/// A read model: its name, its keys, its other columns.
#[derive(Debug)]
pub struct Model {
    /// Its name in routes and in SQL.
    pub name: &'static str,
    keys: &'static [(&'static str, Kind)],
    columns: &'static [(&'static str, Kind)],
}

use Kind::{Amount, Count, Day, Instant, Text};

/// The read models, as they are published.
pub const MODELS: [Model; 4] = [
    Model {
        name: "invoices",
        keys: &[("invoice_id", Text)],
        columns: &[
            ("kind", Text),
            ("issued_at", Instant),
            ("customer_id", Text),
            ("country", Text),
            ("currency", Text),
            ("lines", Count),
            ("units", Count),
            ("amount", Amount),
        ],
    },
    Model {
        name: "sales_by_day",
        keys: &[("day", Day), ("country", Text), ("currency", Text)],
        columns: &[
            ("invoices", Count),
            ("credit_notes", Count),
            ("units", Count),
            ("gross", Amount),
            ("credited", Amount),
            ("net", Amount),
        ],
    },
    Model {
        name: "sales_by_product",
        keys: &[("sku", Text), ("currency", Text)],
        columns: &[
            ("description", Text),
            ("units", Count),
            ("gross", Amount),
            ("credited", Amount),
            ("net", Amount),
            ("last_sold_at", Instant),
        ],
    },
    Model {
        name: "sales_by_customer",
        keys: &[("customer_id", Text), ("currency", Text)],
        columns: &[
            ("country", Text),
            ("invoices", Count),
            ("credit_notes", Count),
            ("net", Amount),
            ("first_seen_at", Instant),
            ("last_seen_at", Instant),
        ],
    },
];

impl Model {
    /// All rows over HTTP, page by page.
    ///
    /// # Panics
    /// A page is not as published, a row comes twice, or the pages have no end.
    pub async fn over_http(&self, api: &Api) -> Rows {
        let mut rows = Rows::new();
        let first = format!("/v1/{}?limit=500", self.name);
        let mut path = first.clone();
        loop {
            let answer = eventually(PAGE, &path, async || {
                // On a machine that is busy with other tests a pool may say that it is, too.
                let answer = api.get(&path).await;
                if answer.status == 503 { Err(answer.shown()) } else { Ok(answer) }
            })
            .await;
            let page = answer.expect(200).json();
            let data = page["data"].as_array().expect("a list has data");
            assert!(data.len() <= 500, "{path}: {} rows", data.len());
            for row in data {
                let (key, cells) = self.of_json(row);
                assert_eq!(rows.insert(key.clone(), cells), None, "{path}: {key:?} comes twice");
            }
            let more = page["page"]["has_more"].as_bool().expect("a page says if there is more");
            match page["page"]["next"].as_str() {
                Some(cursor) if more => path = format!("{first}&cursor={cursor}"),
                None if !more => return rows,
                _ => panic!("{path}: {}", page["page"]),
            }
            assert!(!data.is_empty(), "{path} is empty and has more");
        }
    }

    /// All rows of the analysts' view.
    ///
    /// # Errors
    /// The database does not answer, or refuses.
    pub async fn by_sql(&self, analyst: &str) -> Result<Rows, String> {
        let all = self.keys.iter().chain(self.columns);
        let texts: Vec<String> = all.clone().map(|(name, kind)| as_text(name, *kind)).collect();
        let query = format!("select {} from analytics.{}", texts.join(", "), self.name);
        let found = sql::rows(analyst, &query).await?;
        let row = |cells: Vec<Option<String>>| {
            let exact = |(cell, (_, kind)): (Option<String>, &(_, Kind))| match kind {
                Amount => cell.map(|text| amount_text(ten_thousandths(&text))),
                Text | Count | Day | Instant => cell,
            };
            let mut cells: Cells = cells.into_iter().zip(all.clone()).map(exact).collect();
            let values = cells.split_off(self.keys.len());
            (cells.into_iter().map(Option::unwrap_or_default).collect(), values)
        };
        let count = found.len();
        let rows: Rows = found.into_iter().map(row).collect();
        match rows.len() == count {
            true => Ok(rows),
            false => Err(format!("{}: a key is there twice", self.name)),
        }
    }

    fn of_json(&self, row: &Value) -> (Vec<String>, Cells) {
        let cell = |(name, kind): &(&str, Kind)| {
            let value = row.get(*name).unwrap_or_else(|| panic!("no {name} in {row}"));
            of_json(value, *kind).unwrap_or_else(|why| panic!("{name} in {row}: {why}"))
        };
        let key = |column: &(&str, Kind)| {
            cell(column).unwrap_or_else(|| panic!("{} is null in {row}", column.0))
        };
        (self.keys.iter().map(key).collect(), self.columns.iter().map(cell).collect())
    }
}

fn as_text(name: &str, kind: Kind) -> String {
    match kind {
        Text | Count | Amount | Day => format!("\"{name}\"::text"),
        Instant => format!("(extract(epoch from \"{name}\") * 1000000)::bigint::text"),
    }
}

fn of_json(value: &Value, kind: Kind) -> Result<Option<String>, &'static str> {
    let text = value.as_str();
    Ok(match (value, kind) {
        (Value::Null, _) => None,
        (_, Text) => Some(text.ok_or("not a text")?.to_owned()),
        (_, Count) => Some(value.as_i64().ok_or("not a whole number")?.to_string()),
        (_, Amount) => {
            let text = text.ok_or("an amount is a decimal in a string")?;
            Some(amount_text(ten_thousandths(text)))
        }
        (_, Day) => {
            let text = text.ok_or("a day is a string")?;
            text.parse::<chrono::NaiveDate>().map_err(|_| "not a day")?;
            Some(text.to_owned())
        }
        (_, Instant) => {
            let text = text.ok_or("an instant is a string")?;
            let utc = text.ends_with('Z').then(|| DateTime::parse_from_rfc3339(text).ok());
            Some(utc.flatten().ok_or("not RFC 3339 in UTC")?.timestamp_micros().to_string())
        }
    })
}

/// Ten-thousandths as a decimal with four decimals.
#[must_use]
pub fn amount_text(ten_thousandths: i128) -> String {
    let sign = if ten_thousandths < 0 { "-" } else { "" };
    let all = ten_thousandths.abs();
    format!("{sign}{}.{:04}", all / 10_000, all % 10_000)
}

/// Whether two sets of rows are equal.
///
/// # Errors
/// The first few differences.
pub fn equal(model: &str, expected: &Rows, found: &Rows) -> Result<(), String> {
    let keys = expected.keys().chain(found.keys().filter(|key| !expected.contains_key(*key)));
    let differences: Vec<String> = keys
        .filter(|key| expected.get(*key) != found.get(*key))
        .map(|key| format!("{key:?}: {:?} expected, {:?} found", expected.get(key), found.get(key)))
        .collect();
    if differences.is_empty() {
        return Ok(());
    }
    let (count, of) = (differences.len(), expected.len());
    let first: Vec<_> = differences.into_iter().take(5).collect();
    Err(format!("{model}: {count} of {of} rows differ:\n  {}", first.join("\n  ")))
}
