//! What the read models must say, computed straight from the files: no type, no rule and no code
//! of the project, and amounts as whole ten-thousandths.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use chrono::{DateTime, NaiveDateTime};

use crate::models::{Cells, Rows, amount_text};

/// What a month comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Lines of the file without the header.
    pub rows: u64,
    /// Those that are lines of a document.
    pub rows_posted: u64,
    /// The other ones.
    pub rows_refused: u64,
    /// Documents that are sales.
    pub invoices: u64,
    /// Documents that are credits.
    pub credit_notes: u64,
    /// Of sales, in ten-thousandths.
    pub gross: i128,
    /// Of credits, positive.
    pub credited: i128,
}

#[derive(Debug)]
struct Line {
    sku: String,
    description: String,
    quantity: i128,
    price: i128,
}

#[derive(Debug)]
struct Document {
    credit: bool,
    /// In microseconds since 1970.
    issued_at: i64,
    customer: Option<String>,
    country: String,
    lines: Vec<Line>,
}

/// All documents of some files.
#[derive(Debug, Default)]
pub struct Oracle {
    documents: BTreeMap<String, Document>,
    /// What they come to.
    pub totals: Totals,
    /// The line numbers of the rows that are part of no document.
    pub refused_lines: Vec<u64>,
}

impl Oracle {
    /// Reads a file, gzip.
    ///
    /// # Panics
    /// It cannot be read, or is not as its documentation says.
    #[must_use]
    pub fn of(file: &Path) -> Self {
        let mut oracle = Self::default();
        let bytes = std::fs::read(file).expect("the sample is part of the checkout");
        let mut text = String::new();
        let mut plain = flate2::read::MultiGzDecoder::new(&bytes[..]);
        plain.read_to_string(&mut text).expect("the sample is text in gzip");
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let header = reader.headers().expect("the sample has a header").clone();
        for record in reader.records() {
            let record = record.expect("the sample is CSV");
            let row: BTreeMap<&str, &str> = header.iter().zip(record.iter()).collect();
            let line = record.position().map_or(0, csv::Position::line);
            oracle.take(line, &row);
        }
        for document in oracle.documents.values() {
            let amount = document.amount();
            match document.credit {
                true => (oracle.totals.credit_notes += 1, oracle.totals.credited += amount),
                false => (oracle.totals.invoices += 1, oracle.totals.gross += amount),
            };
        }
        oracle
    }

    fn take(&mut self, line_number: u64, row: &BTreeMap<&str, &str>) {
        self.totals.rows += 1;
        let id = row["InvoiceNo"];
        let quantity: i128 = row["Quantity"].parse().expect("a quantity is a whole number");
        let price = ten_thousandths(row["UnitPrice"]);
        let credit = id.starts_with('C');
        let sale = !id.is_empty() && id.chars().all(|c| c.is_ascii_digit()) && quantity > 0;
        if price < 0 || !(sale || credit && quantity != 0) {
            self.totals.rows_refused += 1;
            self.refused_lines.push(line_number);
            return;
        }
        self.totals.rows_posted += 1;
        let issued_at = micros(row["InvoiceDate"]);
        let customer = Some(row["CustomerID"].trim_end_matches(".0")).filter(|c| !c.is_empty());
        let document = self.documents.entry(id.to_owned()).or_insert_with(|| Document {
            credit,
            issued_at,
            customer: customer.map(str::to_owned),
            country: row["Country"].to_owned(),
            lines: Vec::new(),
        });
        document.issued_at = document.issued_at.min(issued_at);
        assert_eq!(document.customer.as_deref(), customer, "{id} has two customers");
        assert_eq!(document.country, row["Country"], "{id} has two countries");
        document.lines.push(Line {
            sku: row["StockCode"].to_owned(),
            description: row["Description"].to_owned(),
            quantity: quantity.abs(),
            price,
        });
    }

    /// The rows of a read model.
    ///
    /// # Panics
    /// It is none of the four.
    #[must_use]
    pub fn rows(&self, model: &str) -> Rows {
        match model {
            "invoices" => self.invoices(),
            "sales_by_day" => self.sales_by_day(),
            "sales_by_product" => self.sales_by_product(),
            "sales_by_customer" => self.sales_by_customer(),
            other => panic!("no read model {other}"),
        }
    }

    fn invoices(&self) -> Rows {
        let row = |(id, document): (&String, &Document)| {
            let sign = if document.credit { -1 } else { 1 };
            let cells: Cells = vec![
                text(if document.credit { "credit" } else { "sale" }),
                number(document.issued_at.into()),
                document.customer.clone(),
                text(&document.country),
                text("GBP"),
                number(document.lines.len() as i128),
                number(sign * document.units()),
                amount(sign * document.amount()),
            ];
            (vec![id.clone()], cells)
        };
        self.documents.iter().map(row).collect()
    }

    fn sales_by_day(&self) -> Rows {
        let mut days: BTreeMap<Vec<String>, [i128; 5]> = BTreeMap::new();
        for document in self.documents.values() {
            let day = DateTime::from_timestamp_micros(document.issued_at);
            let day = day.expect("it was read from a date").date_naive().to_string();
            let key = vec![day, document.country.clone(), "GBP".to_owned()];
            let [invoices, credit_notes, units, gross, credited] = days.entry(key).or_default();
            match document.credit {
                false => {
                    *invoices += 1;
                    *units += document.units();
                    *gross += document.amount();
                }
                true => {
                    *credit_notes += 1;
                    *units -= document.units();
                    *credited += document.amount();
                }
            }
        }
        let cells = |[invoices, credit_notes, units, gross, credited]: [i128; 5]| {
            let counts = [number(invoices), number(credit_notes), number(units)];
            let amounts = [amount(gross), amount(credited), amount(gross - credited)];
            counts.into_iter().chain(amounts).collect::<Cells>()
        };
        days.into_iter().map(|(key, sums)| (key, cells(sums))).collect()
    }

    fn sales_by_product(&self) -> Rows {
        #[derive(Default)]
        struct Product<'a> {
            units: i128,
            gross: i128,
            credited: i128,
            last_sold_at: Option<i64>,
            description: Option<((i64, &'a str, usize), &'a str)>,
        }
        let mut products: BTreeMap<&str, Product<'_>> = BTreeMap::new();
        for (id, document) in &self.documents {
            for (line_number, line) in document.lines.iter().enumerate() {
                let product = products.entry(&line.sku).or_default();
                if document.credit {
                    product.units -= line.quantity;
                    product.credited += line.amount();
                    continue;
                }
                product.units += line.quantity;
                product.gross += line.amount();
                product.last_sold_at = product.last_sold_at.max(Some(document.issued_at));
                let by = (document.issued_at, id.as_str(), line_number);
                let newer = product.description.is_none_or(|(known, _)| by > known);
                if !line.description.is_empty() && newer {
                    product.description = Some((by, &line.description));
                }
            }
        }
        let row = |(sku, product): (&str, Product<'_>)| {
            let cells: Cells = vec![
                product.description.map(|(_, description)| description.to_owned()),
                number(product.units),
                amount(product.gross),
                amount(product.credited),
                amount(product.gross - product.credited),
                product.last_sold_at.map(|at| at.to_string()),
            ];
            (vec![sku.to_owned(), "GBP".to_owned()], cells)
        };
        products.into_iter().map(row).collect()
    }

    fn sales_by_customer(&self) -> Rows {
        let mut customers: BTreeMap<&str, Vec<(&String, &Document)>> = BTreeMap::new();
        for (id, document) in &self.documents {
            if let Some(customer) = &document.customer {
                customers.entry(customer).or_default().push((id, document));
            }
        }
        let row = |(customer, documents): (&str, Vec<(&String, &Document)>)| {
            let latest = documents.iter().max_by_key(|(id, document)| (document.issued_at, *id));
            let times = documents.iter().map(|(_, document)| document.issued_at);
            let credits = documents.iter().filter(|(_, document)| document.credit).count();
            let signed = |document: &Document| match document.credit {
                true => -document.amount(),
                false => document.amount(),
            };
            let net = documents.iter().map(|(_, document)| signed(document)).sum();
            let cells: Cells = vec![
                latest.map(|(_, document)| document.country.clone()),
                number((documents.len() - credits) as i128),
                number(credits as i128),
                amount(net),
                times.clone().min().map(|at| at.to_string()),
                times.max().map(|at| at.to_string()),
            ];
            (vec![customer.to_owned(), "GBP".to_owned()], cells)
        };
        customers.into_iter().map(row).collect()
    }
}

impl Line {
    fn amount(&self) -> i128 {
        self.quantity * self.price
    }
}

impl Document {
    fn amount(&self) -> i128 {
        self.lines.iter().map(Line::amount).sum()
    }

    fn units(&self) -> i128 {
        self.lines.iter().map(|line| line.quantity).sum()
    }
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn number(number: i128) -> Option<String> {
    Some(number.to_string())
}

fn amount(ten_thousandths: i128) -> Option<String> {
    Some(amount_text(ten_thousandths))
}

/// `2010-12-01 08:26:00`, read as UTC.
fn micros(text: &str) -> i64 {
    let time = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S");
    time.expect("a date is as documented").and_utc().timestamp_micros()
}

/// A decimal text as whole ten-thousandths.
///
/// # Panics
/// It is no decimal, or finer.
#[must_use]
pub fn ten_thousandths(text: &str) -> i128 {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    assert!(fraction.len() <= 4, "{text} has more than four decimals");
    let all = format!("{whole}{fraction:0<4}");
    sign * all.parse::<i128>().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_month_is_what_its_documentation_says() {
        let oracle = Oracle::of(&crate::sample());
        let expected = Totals {
            rows: 42_481,
            rows_posted: 42_411,
            rows_refused: 70,
            invoices: 1_629,
            credit_notes: 326,
            gross: 8_237_461_400,
            credited: 747_891_200,
        };
        assert_eq!(oracle.totals, expected);
        assert_eq!(expected.gross - expected.credited, 7_489_570_200);
        assert_eq!(oracle.rows("invoices").len(), 1_955);
    }

    #[test]
    fn decimals_are_read_exactly() {
        let cases = [("2.55", 25_500), ("0", 0), ("-0.0001", -1), ("11062.06", 110_620_600)];
        for (text, expected) in cases {
            assert_eq!(ten_thousandths(text), expected, "{text}");
        }
    }
}
