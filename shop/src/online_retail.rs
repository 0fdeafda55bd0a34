//! The UCI Online Retail files: every invoice line of a gift wholesaler, one row each.

use csv::{ByteRecord, StringRecord};
use flate2::read::MultiGzDecoder;
use foldstream::import::{
    BadFile, Document, ImportItem, ImportReader, Importer, RefusedRow, Row, Survey,
};
use foldstream_core::{Money, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

const COLUMNS: [&str; 8] = [
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
];
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// `shop import online-retail`.
pub(crate) struct OnlineRetail;

impl Importer for OnlineRetail {
    fn name(&self) -> &'static str {
        "online-retail"
    }
    fn about(&self) -> &'static str {
        "UCI Online Retail: CSV, plain or gzip, one row per invoice line"
    }
    fn aggregates(&self) -> &'static [&'static str] {
        &["invoices", "credit-notes"]
    }
    /// Counts the rows of each document, so that the second reading knows when one is complete:
    /// a document's rows need not stand together.
    fn open(&self, files: &[PathBuf]) -> (Survey, Box<dyn ImportReader>) {
        let mut survey = Survey::default();
        let mut left: HashMap<String, u32> = HashMap::new();
        let mut good = VecDeque::new();
        for (number, file) in files.iter().enumerate() {
            match count(file) {
                Ok(counts) => {
                    good.push_back((number, file.clone()));
                    for (document, rows) in counts {
                        survey.rows += u64::from(rows);
                        *left.entry(document).or_default() += rows;
                    }
                }
                Err(bad) => survey.bad_files.push(bad),
            }
        }
        survey.documents = left.len() as u64;
        let reader = Documents {
            files: good,
            rows: None,
            left,
            open: HashMap::new(),
            ready: VecDeque::new(),
        };
        (survey, Box::new(reader))
    }
}

fn count(file: &Path) -> Result<HashMap<String, u32>, BadFile> {
    let mut rows = Rows::open(0, file)?;
    let mut counts = HashMap::new();
    while let Some(raw) = rows.next()? {
        match counts.get_mut(raw.field(0)) {
            Some(count) => *count += 1,
            None => drop(counts.insert(raw.field(0).to_owned(), 1)),
        }
    }
    Ok(counts)
}

/// One row, its columns in the order of [`COLUMNS`].
struct Raw {
    row: Row,
    record: StringRecord,
    /// Why it is not a row like the header says, when it is not.
    broken: Option<String>,
}
impl Raw {
    fn field(&self, column: usize) -> &str {
        self.record.get(column).unwrap_or_default()
    }
}

/// The rows of one file.
struct Rows {
    number: usize,
    file: PathBuf,
    reader: csv::Reader<Box<dyn Read + Send>>,
    /// Where each of [`COLUMNS`] stands in the file.
    places: Vec<usize>,
    /// How many columns the header has.
    width: usize,
}
impl Rows {
    fn open(number: usize, file: &Path) -> Result<Self, BadFile> {
        let unreadable = |error: io::Error| BadFile::unreadable(file, None, &error);
        let mut plain = BufReader::new(File::open(file).map_err(unreadable)?);
        let gzip = io::BufRead::fill_buf(&mut plain).map_err(unreadable)?.starts_with(&GZIP);
        let named_gzip = file.extension().is_some_and(|extension| extension == "gz");
        if named_gzip && !gzip {
            let reason = "the file is named .gz, but is not gzip".to_owned();
            return Err(BadFile { file: file.to_owned(), line: None, reason });
        }
        let bytes: Box<dyn Read + Send> = if gzip {
            Box::new(BufReader::new(MultiGzDecoder::new(plain)))
        } else {
            Box::new(plain)
        };
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
        let header = reader.headers().map_err(|error| bad_csv(file, &error))?.clone();
        let place = |column: &&str| {
            // Excel writes a byte order mark.
            let found = header.iter().position(|h| h.trim_start_matches('\u{feff}') == *column);
            found.ok_or_else(|| BadFile {
                file: file.to_owned(),
                line: Some(1),
                reason: format!("the column `{column}` is missing"),
            })
        };
        let places = COLUMNS.iter().map(place).collect::<Result<_, _>>()?;
        Ok(Rows { number, file: file.to_owned(), reader, places, width: header.len() })
    }
    fn next(&mut self) -> Result<Option<Raw>, BadFile> {
        let mut bytes = ByteRecord::new();
        let more = self.reader.read_byte_record(&mut bytes);
        if !more.map_err(|error| bad_csv(&self.file, &error))? {
            return Ok(None);
        }
        let line = bytes.position().map_or(0, csv::Position::line);
        let (found, width) = (bytes.len(), self.width);
        let (record, utf8) = match StringRecord::from_byte_record(bytes) {
            Ok(record) => (record, true),
            Err(error) => (StringRecord::from_byte_record_lossy(error.into_byte_record()), false),
        };
        let broken = match (utf8, found == width) {
            (false, _) => Some("the row is not UTF-8".to_owned()),
            (true, false) => Some(format!("the row has {found} fields, the header {width}")),
            (true, true) => None,
        };
        let places = self.places.iter();
        let record = places.map(|place| record.get(*place).unwrap_or_default()).collect();
        Ok(Some(Raw { row: Row { file: self.number, line }, record, broken }))
    }
}

fn bad_csv(file: &Path, error: &csv::Error) -> BadFile {
    let line = error.position().map(csv::Position::line);
    BadFile { file: file.to_owned(), line, reason: error.to_string() }
}

/// Groups rows into documents; holds only those that are not complete yet.
struct Documents {
    files: VecDeque<(usize, PathBuf)>,
    rows: Option<Rows>,
    /// How many rows of each document are still to come.
    left: HashMap<String, u32>,
    open: HashMap<String, Vec<Raw>>,
    ready: VecDeque<ImportItem>,
}

impl ImportReader for Documents {
    fn next(&mut self) -> Result<Option<ImportItem>, BadFile> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            let Some(rows) = &mut self.rows else {
                let Some((number, file)) = self.files.pop_front() else { return Ok(None) };
                self.rows = Some(Rows::open(number, &file)?);
                continue;
            };
            match rows.next()? {
                None => self.rows = None,
                Some(raw) => self.take(raw),
            }
        }
    }
}
impl Documents {
    fn take(&mut self, raw: Raw) {
        let document = raw.field(0).to_owned();
        self.open.entry(document.clone()).or_default().push(raw);
        let complete = match self.left.get_mut(&document) {
            Some(left) => {
                *left = left.saturating_sub(1);
                *left == 0
            }
            None => true, // the file has grown since it was counted
        };
        if complete {
            self.left.remove(&document);
            let rows = self.open.remove(&document).unwrap_or_default();
            self.ready.extend(document_of(&document, rows));
        }
    }
}

/// What a row is, by its invoice number.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Invoice,
    CreditNote,
}

struct Line {
    row: Row,
    issued_at: Timestamp,
    customer: Option<String>,
    country: String,
    body: Value,
}

fn document_of(document: &str, rows: Vec<Raw>) -> Vec<ImportItem> {
    let refused = |row: Row, reason: String, malformed: bool| {
        ImportItem::Refused(RefusedRow { row, document: document.to_owned(), reason, malformed })
    };
    let kind = match document.as_bytes() {
        [b'C', ..] => Kind::CreditNote,
        digits if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => Kind::Invoice,
        _ => {
            let reason = "neither an invoice (digits) nor a credit note (C…)";
            return rows.into_iter().map(|raw| refused(raw.row, reason.into(), false)).collect();
        }
    };
    let (mut items, mut lines, mut malformed) = (Vec::new(), Vec::new(), None);
    for raw in rows {
        match line_of(kind, &raw) {
            Ok(line) => lines.push(line),
            Err(NoLine::NotImported(reason)) => items.push(refused(raw.row, reason, false)),
            Err(NoLine::Unreadable(reason)) => {
                malformed.get_or_insert(raw.row.line);
                items.push(refused(raw.row, reason, true));
            }
        }
    }
    if let Some(bad_line) = malformed {
        // A document without one of its lines would be another document.
        let reason = format!("line {bad_line} of the same document cannot be read");
        items.extend(lines.into_iter().map(|line| refused(line.row, reason.clone(), true)));
    } else if !lines.is_empty() {
        items.push(ImportItem::Document(post(kind, document, lines)));
    }
    items
}

/// Why a row is no line of a document.
enum NoLine {
    NotImported(String),
    Unreadable(String),
}

fn line_of(kind: Kind, raw: &Raw) -> Result<Line, NoLine> {
    let unreadable = |column: usize| {
        let (name, text) = (COLUMNS[column], raw.field(column));
        NoLine::Unreadable(format!("`{name}` cannot be read: {text:?}"))
    };
    if let Some(reason) = &raw.broken {
        return Err(NoLine::Unreadable(reason.clone()));
    }
    let quantity: i64 = raw.field(3).trim().parse().map_err(|_| unreadable(3))?;
    let issued_at = instant(raw.field(4)).ok_or_else(|| unreadable(4))?;
    let price: Money = raw.field(5).trim().parse().map_err(|_| unreadable(5))?;
    let quantity = match kind {
        Kind::Invoice => quantity,
        Kind::CreditNote => quantity.checked_abs().ok_or_else(|| unreadable(3))?,
    };
    if quantity <= 0 {
        let reason = format!("the quantity is {quantity}: a stock write-off, not a sale");
        return Err(NoLine::NotImported(reason));
    }
    if price < Money::ZERO {
        let reason = format!("the unit price is {price}: an adjustment, not a sale");
        return Err(NoLine::NotImported(reason));
    }
    let customer = raw.field(6).trim();
    let customer = customer.strip_suffix(".0").unwrap_or(customer);
    Ok(Line {
        row: raw.row.clone(),
        issued_at,
        customer: (!customer.is_empty()).then(|| customer.to_owned()),
        country: raw.field(7).to_owned(),
        body: json!({
            "sku": raw.field(1), "description": raw.field(2),
            "quantity": quantity, "unit_price": price.to_string(),
        }),
    })
}

/// `2010-12-01 08:26:00`; the files have no zone and are read as UTC.
fn instant(text: &str) -> Option<Timestamp> {
    let (day, time) = text.trim().split_once([' ', 'T'])?;
    format!("{day}T{time}Z").parse().ok()
}

fn post(kind: Kind, document: &str, lines: Vec<Line>) -> Document {
    let issued_at = lines.iter().map(|line| line.issued_at).min();
    let customer = lines.iter().find_map(|line| line.customer.clone());
    let country = lines.first().map(|line| line.country.clone());
    let (aggregate, id_field) = match kind {
        Kind::Invoice => ("invoices", "invoice_id"),
        Kind::CreditNote => ("credit-notes", "credit_note_id"),
    };
    let rows = lines.iter().map(|line| line.row.clone()).collect();
    let bodies: Vec<Value> = lines.into_iter().map(|line| line.body).collect();
    let body = json!({
        id_field: document, "issued_at": issued_at, "customer_id": customer, "country": country,
        "currency": "GBP", "lines": bodies,
    });
    // Part of the content is in the key, so that a changed document meets the rules of the
    // aggregate and not those of the key.
    let digest = Sha256::digest(body.to_string());
    let content: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let named: String = document.chars().filter(char::is_ascii_graphic).take(64).collect();
    Document { aggregate, key: format!("online-retail-{named}-{content}"), body, rows }
}
