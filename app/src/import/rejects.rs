//! The rejects file: every row that did not get in, with its place and the reason.

use super::Row;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// `file,line,document,reason`, made when the first row is refused.
pub(super) struct Rejects {
    path: Option<PathBuf>,
    files: Vec<PathBuf>,
    out: Option<BufWriter<File>>,
    rows: u64,
}

impl Rejects {
    /// Into this file; an older one of that name goes away, so that it never speaks of another run.
    pub(super) fn new(path: Option<&Path>, files: &[PathBuf]) -> io::Result<Self> {
        if let Some(path) = path {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        let path = path.map(Path::to_owned);
        Ok(Rejects { path, files: files.to_owned(), out: None, rows: 0 })
    }
    pub(super) fn add(&mut self, row: &Row, document: &str, reason: &str) -> io::Result<()> {
        self.rows += 1;
        let Some(path) = &self.path else { return Ok(()) };
        let out = match &mut self.out {
            Some(out) => out,
            none => {
                let out = none.insert(BufWriter::new(File::create(path)?));
                writeln!(out, "file,line,document,reason")?;
                out
            }
        };
        let file = self.files.get(row.file).map(|file| file.display().to_string());
        let file = quoted(&file.unwrap_or_default());
        writeln!(out, "{file},{},{},{}", row.line, quoted(document), quoted(reason))
    }
    /// `file:line`
    pub(super) fn place(&self, row: &Row) -> String {
        let file = self.files.get(row.file).map(|file| file.display().to_string());
        format!("{}:{}", file.unwrap_or_default(), row.line)
    }
    /// How many rows were refused.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.out.as_mut().map_or(Ok(()), Write::flush)
    }
}

/// A CSV field (RFC 4180).
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
