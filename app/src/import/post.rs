//! Posts documents, many at a time, each until the server has given a verdict.

use super::progress::Progress;
use super::rejects::Rejects;
use super::{BadFile, Document, ImportItem, Importer};
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, StatusCode};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The longest pause between two tries of one document.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How to import.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// Where the commands go, such as `http://127.0.0.1:7400`.
    pub url: String,
    /// How many documents are under way at a time.
    pub concurrency: usize,
    /// Where refused rows are written; nowhere when there is none.
    pub rejects: Option<PathBuf>,
    /// No bar and no lines.
    pub quiet: bool,
    /// How long a server may be away before the import gives up.
    pub patience: Duration,
}

/// What an import came to. Rows read = rows posted + rows refused.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImportSummary {
    /// Files that were read.
    pub files: usize,
    /// Rows in them.
    pub rows: u64,
    /// Rows of documents that the server has.
    pub rows_posted: u64,
    /// The other rows.
    pub rows_refused: u64,
    /// Documents that the server has, by aggregate type.
    pub documents: BTreeMap<&'static str, u64>,
    /// Documents that the server refused.
    pub rejected_by_server: u64,
    /// Rows that could not be read; their whole documents are refused with them.
    pub rows_malformed: u64,
    /// File, line and reason of the first of them.
    pub first_malformed: Option<String>,
    /// How long it took.
    pub seconds: f64,
}
impl ImportSummary {
    /// As the last line of `--json`.
    pub fn json(&self) -> Value {
        let mut all = Map::new();
        all.insert("files".into(), self.files.into());
        all.insert("rows".into(), self.rows.into());
        all.insert("rows_posted".into(), self.rows_posted.into());
        all.insert("rows_refused".into(), self.rows_refused.into());
        for (aggregate, documents) in &self.documents {
            all.insert(aggregate.replace('-', "_"), (*documents).into());
        }
        all.insert("rejected_by_server".into(), self.rejected_by_server.into());
        all.insert("seconds".into(), ((self.seconds * 1000.0).round() / 1000.0).into());
        Value::Object(all)
    }
}

/// Why an import stopped before its end. What was posted stays; a second run takes it up.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file changed or broke while it was read.
    #[error(transparent)]
    File(#[from] BadFile),
    /// The rejects file cannot be written.
    #[error("the rejects file cannot be written: {0}")]
    Rejects(io::Error),
    /// The server was away for too long.
    #[error("{url} gives no answer: {reason}")]
    Unreachable {
        /// Where.
        url: String,
        /// The last error.
        reason: String,
    },
    /// Stopped from outside.
    #[error("interrupted; run the same import again to take it up")]
    Interrupted,
}

/// What became of an import: the summary, the files that could not be read, and why it stopped.
pub struct ImportOutcome {
    /// As far as it came.
    pub summary: ImportSummary,
    /// Files of which nothing was imported.
    pub bad_files: Vec<BadFile>,
    /// Why it stopped before its end, when it did.
    pub error: Option<ImportError>,
}

enum Posted {
    Accepted,
    Refused(String),
}

struct Tally {
    summary: ImportSummary,
    rejects: Rejects,
    progress: Progress,
}

/// Reads the files and posts their documents.
pub async fn run(
    importer: &dyn Importer,
    files: &[PathBuf],
    options: &ImportOptions,
    shutdown: &CancellationToken,
) -> ImportOutcome {
    let begun = Instant::now();
    let (survey, mut reader) = importer.open(files);
    let summary = ImportSummary {
        files: files.len() - survey.bad_files.len(),
        rows: survey.rows,
        documents: importer.aggregates().iter().map(|aggregate| (*aggregate, 0)).collect(),
        ..ImportSummary::default()
    };
    let rejects = match Rejects::new(options.rejects.as_deref(), files) {
        Ok(rejects) => rejects,
        Err(error) => {
            let error = Some(ImportError::Rejects(error));
            return ImportOutcome { summary, bad_files: survey.bad_files, error };
        }
    };
    let progress = Progress::new(survey.rows, options.quiet);
    let tally = Arc::new(Mutex::new(Tally { summary, rejects, progress }));
    let (items, queue) = mpsc::channel(options.concurrency * 2);
    let reading = tokio::task::spawn_blocking(move || -> Result<(), BadFile> {
        while let Some(item) = reader.next()? {
            if items.blocking_send(item).is_err() {
                return Ok(()); // the posting side has stopped and says why
            }
        }
        Ok(())
    });
    let posting = post_all(queue, &tally, options, shutdown).await;
    let read = reading.await.unwrap_or(Ok(()));
    let mut tally = tally.lock().await;
    tally.progress.finish();
    let written = tally.rejects.finish().map_err(ImportError::Rejects);
    tally.summary.rows_refused = tally.rejects.rows();
    tally.summary.seconds = begun.elapsed().as_secs_f64();
    let error = posting.err().or(read.err().map(ImportError::File)).or(written.err());
    ImportOutcome { summary: tally.summary.clone(), bad_files: survey.bad_files, error }
}

async fn post_all(
    queue: mpsc::Receiver<ImportItem>,
    tally: &Arc<Mutex<Tally>>,
    options: &ImportOptions,
    shutdown: &CancellationToken,
) -> Result<(), ImportError> {
    let client = Client::builder()
        .pool_max_idle_per_host(options.concurrency)
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(30))
        .build()
        .map_err(|e| ImportError::Unreachable {
            url: options.url.clone(),
            reason: e.to_string(),
        })?;
    let queue = Arc::new(Mutex::new(queue));
    let stop = shutdown.child_token();
    let mut posters = JoinSet::new();
    for _ in 0..options.concurrency.max(1) {
        let poster = Poster {
            client: client.clone(),
            options: options.clone(),
            stop: stop.clone(),
            tally: tally.clone(),
        };
        posters.spawn(poster.run(queue.clone()));
    }
    let mut first = Ok(());
    while let Some(ended) = posters.join_next().await {
        if let Ok(Err(error)) = ended {
            stop.cancel();
            if first.is_ok() {
                first = Err(error);
            }
        }
    }
    first
}

struct Poster {
    client: Client,
    options: ImportOptions,
    stop: CancellationToken,
    tally: Arc<Mutex<Tally>>,
}

impl Poster {
    async fn run(self, queue: Arc<Mutex<mpsc::Receiver<ImportItem>>>) -> Result<(), ImportError> {
        loop {
            let next = async { queue.lock().await.recv().await };
            let item = tokio::select! {
                item = next => item,
                () = self.stop.cancelled() => return Err(ImportError::Interrupted),
            };
            match item {
                None => return Ok(()),
                Some(ImportItem::Refused(refused)) => {
                    let mut tally = self.tally.lock().await;
                    if refused.malformed {
                        tally.summary.rows_malformed += 1;
                        let place = tally.rejects.place(&refused.row);
                        let said = || format!("{place}: {}", refused.reason);
                        tally.summary.first_malformed.get_or_insert_with(said);
                    }
                    let added = tally.rejects.add(&refused.row, &refused.document, &refused.reason);
                    added.map_err(ImportError::Rejects)?;
                    tally.progress.add(1, 0);
                }
                Some(ImportItem::Document(document)) => {
                    let posted = self.until_answered(&document).await?;
                    self.note(&document, &posted).await.map_err(ImportError::Rejects)?;
                }
            }
        }
    }

    async fn note(&self, document: &Document, posted: &Posted) -> io::Result<()> {
        let mut tally = self.tally.lock().await;
        let rows = document.rows.len() as u64;
        match posted {
            Posted::Accepted => {
                tally.summary.rows_posted += rows;
                *tally.summary.documents.entry(document.aggregate).or_default() += 1;
            }
            Posted::Refused(reason) => {
                tally.summary.rejected_by_server += 1;
                for row in &document.rows {
                    tally.rejects.add(row, &document.key, reason)?;
                }
            }
        }
        tally.progress.add(rows, 1);
        Ok(())
    }

    /// Tries again, with the same key, until the server has said yes or no.
    async fn until_answered(&self, document: &Document) -> Result<Posted, ImportError> {
        let mut away_since: Option<Instant> = None;
        let mut tries = 0_u32;
        loop {
            let (reason, wanted_pause) = match self.post(document).await {
                Ok(Ok(posted)) => return Ok(posted),
                Ok(Err((status, pause))) => (format!("status {status}"), pause),
                Err(error) => (error.without_url().to_string(), None),
            };
            let since = *away_since.get_or_insert_with(Instant::now);
            if since.elapsed() > self.options.patience {
                let url = self.options.url.clone();
                return Err(ImportError::Unreachable { url, reason });
            }
            tries += 1;
            let pause = wanted_pause.unwrap_or_else(|| backoff(tries, &document.key));
            tokio::select! {
                () = tokio::time::sleep(pause.min(LONGEST_PAUSE)) => {}
                () = self.stop.cancelled() => return Err(ImportError::Interrupted),
            }
        }
    }

    /// A verdict; or a status that asks for another try, with the pause it wants.
    async fn post(
        &self,
        document: &Document,
    ) -> reqwest::Result<Result<Posted, (StatusCode, Option<Duration>)>> {
        let url = format!("{}/v1/{}", self.options.url.trim_end_matches('/'), document.aggregate);
        let request =
            self.client.post(url).header("Idempotency-Key", &document.key).json(&document.body);
        let response = request.send().await?;
        let status = response.status();
        if status.is_success() {
            response.bytes().await?; // to the end, so that the connection is used again
            return Ok(Ok(Posted::Accepted));
        }
        let seconds =
            response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        let problem: Value = response.json().await.unwrap_or_default();
        let code = problem["code"].as_str().unwrap_or_default().to_owned();
        let passing = status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            || code == "idempotency-key-in-progress";
        if passing {
            return Ok(Err((status, seconds.map(Duration::from_secs))));
        }
        let detail = problem["detail"].as_str().unwrap_or_default();
        Ok(Ok(Posted::Refused(format!("{} {code}: {detail}", status.as_u16()))))
    }
}

/// Doubles from 50 ms, and spreads by the document's key so that not all come back at once.
fn backoff(tries: u32, key: &str) -> Duration {
    let spread = u64::from(key.bytes().fold(tries, |sum, b| sum.wrapping_mul(31) ^ u32::from(b)));
    Duration::from_millis((50_u64 << tries.min(6)) + spread % 50)
}
