//! Imports: documents read from files and posted over HTTP, each once.

mod command;
mod post;
mod progress;
mod rejects;

pub(crate) use command::command;
pub use post::{ImportError, ImportOptions, ImportOutcome, ImportSummary, run};

use std::io;
use std::path::{Path, PathBuf};

/// One document, or a row that is none.
#[derive(Debug, Clone, PartialEq)]
pub enum ImportItem {
    /// A creating command.
    Document(Document),
    /// A row that is no part of a document.
    Refused(RefusedRow),
}

/// A creating command to post.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The aggregate type it is of, such as `invoices`: its route and its counter.
    pub aggregate: &'static str,
    /// The idempotency key: the same for the same document, another for other content.
    pub key: String,
    /// The body.
    pub body: serde_json::Value,
    /// The rows it is made of.
    pub rows: Vec<Row>,
}

/// The place of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The place of its file in the list of files.
    pub file: usize,
    /// Its line, from 1; the header is line 1.
    pub line: u64,
}

/// A row that is refused before anything is posted.
#[derive(Debug, Clone, PartialEq)]
pub struct RefusedRow {
    /// Where it stands.
    pub row: Row,
    /// What its document is called, as far as that can be read.
    pub document: String,
    /// Why.
    pub reason: String,
    /// Whether the row is malformed, so that the import as a whole has failed, and not merely of a
    /// kind that is not imported.
    pub malformed: bool,
}

/// A file that cannot be imported at all; the others can.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {reason}", file.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct BadFile {
    /// The file.
    pub file: PathBuf,
    /// Where in it, from 1.
    pub line: Option<u64>,
    /// Why.
    pub reason: String,
}
impl BadFile {
    /// A file that cannot be opened or read.
    pub fn unreadable(file: &Path, line: Option<u64>, error: &io::Error) -> Self {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => "there is no such file".to_owned(),
            _ => error.to_string(),
        };
        BadFile { file: file.to_owned(), line, reason }
    }
}

/// What a survey of the files found.
#[derive(Debug, Default)]
pub struct Survey {
    /// Rows of the files that can be read.
    pub rows: u64,
    /// Documents in them, about.
    pub documents: u64,
    /// Files that cannot be read; nothing of them is imported.
    pub bad_files: Vec<BadFile>,
}

/// Reads one kind of file. It runs on a thread of its own and may block.
pub trait Importer: Send + Sync {
    /// The name on the command line, such as `online-retail`.
    fn name(&self) -> &'static str;
    /// A line of help.
    fn about(&self) -> &'static str;
    /// The aggregate types it makes documents of; each is counted in the summary.
    fn aggregates(&self) -> &'static [&'static str];
    /// Looks through the files once, and gives a reader of the good ones.
    fn open(&self, files: &[PathBuf]) -> (Survey, Box<dyn ImportReader>);
}

/// Reads documents, in memory that does not grow with the files.
pub trait ImportReader: Send {
    /// The next item; none at the end.
    ///
    /// # Errors
    /// When a file changed or broke since the survey.
    fn next(&mut self) -> Result<Option<ImportItem>, BadFile>;
}
