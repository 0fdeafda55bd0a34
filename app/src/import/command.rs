//! `import KIND FILE…`

use super::{ImportError, ImportOptions, ImportOutcome, ImportSummary, run};
use crate::cli::ImportArgs;
use crate::{App, Exit, Failure, run as process};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Runs an import; its exit code says whether every row was read and every server answered.
pub(crate) async fn command(app: &App, args: ImportArgs) -> Result<ExitCode, Failure> {
    let Some(importer) = app.importer_named(&args.kind) else {
        let kinds: Vec<&str> = app.importers.iter().map(|importer| importer.name()).collect();
        let message =
            format!("`{}` cannot be imported; there are: {}", args.kind, kinds.join(", "));
        return Err(Failure::new(Exit::Usage, message));
    };
    let default_rejects = PathBuf::from(format!("{}.rejects.csv", args.kind));
    let rejects = args.rejects.clone().unwrap_or(default_rejects);
    let options = ImportOptions {
        url: args.url.clone(),
        concurrency: usize::from(args.concurrency),
        rejects: Some(rejects.clone()),
        quiet: args.json,
        patience: Duration::from_secs(args.patience),
    };
    let outcome = run(importer, &args.files, &options, &process::on_signals()?).await;
    let ImportOutcome { summary, bad_files, error } = outcome;
    for bad in &bad_files {
        eprintln!("error: {bad}");
    }
    match args.json {
        true => println!("{}", summary.json()),
        false => println!("{}", in_words(&summary, &rejects)),
    }
    match error {
        Some(error) => {
            let exit = match &error {
                ImportError::Unreachable { .. } => Exit::DependencyDown,
                ImportError::Interrupted => Exit::Interrupted,
                ImportError::File(_) | ImportError::Rejects(_) => Exit::Failed,
            };
            Err(Failure::new(exit, error))
        }
        None if summary.rows_malformed > 0 => {
            let first = summary.first_malformed.unwrap_or_default();
            let rows = summary.rows_malformed;
            let message = format!("{rows} rows could not be read; the first: {first}");
            Err(Failure::failed(message))
        }
        None if !bad_files.is_empty() => Err(Failure::failed("not all files could be read")),
        None if summary.rejected_by_server > 0 => {
            let count = summary.rejected_by_server;
            Err(Failure::failed(format!("the server rejected {count} documents")))
        }
        None => Ok(ExitCode::SUCCESS),
    }
}

fn in_words(summary: &ImportSummary, rejects: &Path) -> String {
    let documents: Vec<String> =
        summary.documents.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let see = match summary.rows_refused {
        0 => String::new(),
        _ => format!(", see {}", rejects.display()),
    };
    format!(
        "{} rows of {} files in {:.1} s: {} posted ({}), {} refused{see}",
        summary.rows,
        summary.files,
        summary.seconds,
        summary.rows_posted,
        documents.join(", "),
        summary.rows_refused,
    )
}
