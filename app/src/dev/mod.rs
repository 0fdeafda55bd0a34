//! `shop dev`: all roles in one process, with Kafka and Postgres as its children.

mod infra;
mod ready;
mod sample;

pub use ready::Addresses;

use crate::cli::DevArgs;
use crate::process::Process;
use crate::settings::{Listen, Settings};
use crate::{App, Exit, Failure, operations, roles, run, settings};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long read models may take to catch up with the sample.
const CATCH_UP: Duration = Duration::from_secs(120);

pub(crate) async fn run(app: App, args: DevArgs) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    if args.port_base == 0 || args.port_base > u16::MAX - 100 {
        return Err(Failure::new(Exit::Usage, "--port-base is from 1 to 65435"));
    }
    let mut settings = settings::load(None)?.value;
    settings.listen = Listen::on(args.port_base);
    start_logs(&mut settings, args.json)?;
    let shutdown = run::on_signals()?;
    let infra = tokio::select! {
        infra = infra::start(&args, &mut settings, &app) => infra?,
        () = shutdown.cancelled() => return Ok(ExitCode::from(Exit::Interrupted as u8)),
    };
    let process = Process::new(app, settings, "dev", shutdown)?;
    let outcome = start(&process, &args, &infra, began).await;
    if let Err(failure) = &outcome {
        tracing::error!(failure = failure.message, "cannot start");
        process.shutdown.cancel();
    }
    process.until_ended().await;
    // Children last: everything of ours has let go of them.
    let stopped = tokio::task::spawn_blocking(move || drop(infra)).await;
    stopped.map_err(Failure::failed)?;
    outcome.map(|()| process.exit_code())
}

fn start_logs(settings: &mut Settings, json: bool) -> Result<(), Failure> {
    let unset = Settings::default().log;
    if !json && settings.log.format == unset.format && settings.log.filter == unset.filter {
        // At a terminal people want to see what goes wrong and not every request.
        settings.log.format = "text".into();
        settings.log.filter = "warn,rdkafka=error,librdkafka=error".into();
    }
    run::start_logs(settings)
}

async fn start(
    process: &Arc<Process>,
    args: &DevArgs,
    infra: &infra::Infra,
    began: Instant,
) -> Result<(), Failure> {
    let addresses = Addresses::new(&process.settings, infra, args.only_infra);
    if infra.own_registry {
        roles::registry::start(process).await?;
    }
    process.serve_admin(operations::routes(process)).await?;
    if !args.only_infra {
        roles::migrate::run(&process.app, &process.settings).await?;
        infra.grant_analyst(&process.settings).await?;
        roles::relay::start(process).await?;
        roles::projections::start(process, &[]).await?;
        roles::serve_all(process).await?;
    }
    process.health.set_started();
    let sample = match args.no_sample || args.only_infra {
        true => None,
        false => sample::load(process, &args.data_dir, &addresses).await?,
    };
    if process.shutdown.is_cancelled() {
        return Ok(());
    }
    ready::print(&process.app, &addresses, sample.as_ref(), began.elapsed(), args.json);
    Ok(())
}
