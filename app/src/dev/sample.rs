//! The sample: real data, posted over HTTP like everybody's.

use super::CATCH_UP;
use super::ready::Addresses;
use crate::import::{self, ImportOptions, ImportSummary};
use crate::process::Process;
use crate::{Exit, Failure, operations};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Says that this data directory has the sample.
const MARK: &str = "sample.loaded";
/// How often to look whether the read models have caught up.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Loads the sample unless it is there already; none when there is nothing to say.
pub(super) async fn load(
    process: &Process,
    data_dir: &Path,
    addresses: &Addresses,
) -> Result<Option<ImportSummary>, Failure> {
    let (Some(sample), Some(url)) = (&process.app.sample, &addresses.api) else { return Ok(None) };
    let Some(importer) = process.app.importer_named(sample.importer) else { return Ok(None) };
    let mark = data_dir.join(MARK);
    if mark.exists() {
        return Ok(None);
    }
    let failed = |error: std::io::Error| {
        Failure::failed(format!("the sample in {}: {error}", data_dir.display()))
    };
    let file = data_dir.join(sample.file_name);
    fs::write(&file, sample.bytes).map_err(failed)?;
    let options = ImportOptions {
        url: url.clone(),
        concurrency: 64,
        rejects: None,
        quiet: false,
        patience: Duration::from_secs(60),
    };
    let outcome = import::run(importer, &[file], &options, &process.shutdown).await;
    match outcome.error {
        None => {}
        Some(import::ImportError::Interrupted) => return Ok(None),
        Some(error) => return Err(Failure::failed(format!("the sample: {error}"))),
    }
    if let Some(bad) = outcome.bad_files.first() {
        return Err(Failure::failed(format!("the sample: {bad}")));
    }
    caught_up(process).await?;
    fs::write(&mark, "").map_err(failed)?;
    Ok(Some(outcome.summary))
}

/// Waits until the read models have everything.
async fn caught_up(process: &Process) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        if operations::caught_up(process).await || process.shutdown.is_cancelled() {
            return Ok(());
        }
        if began.elapsed() > CATCH_UP {
            let message = "the read models have not caught up with the sample; see `status`";
            return Err(Failure::new(Exit::Timeout, message));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
