//! From the command line to an exit code.

use crate::cli::{Action, Cli, ConfigAction, ProjectionsAction, SchemasAction, TopicsAction};
use crate::process::Process;
use crate::settings::{self, Settings};
use crate::{App, Failure, dev, import, operations, roles, schemas};
use clap::{CommandFactory, FromArgMatches};
use foldstream_service::{shutdown, telemetry};
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

/// The first line of the help.
const ABOUT: &str = "Commands over HTTP, events in topics, read models that follow from them.";

pub(crate) fn run(app: App) -> ExitCode {
    let matches = Cli::command().name(app.name).about(ABOUT).get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    // One provider of cryptography for all TLS; a second call would only say so.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    // The children that `dev` starts die with the thread that started them, and the main thread
    // lives as long as the process.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(act(app, cli));
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Failure::failed(format!("no runtime: {error}"))),
    };
    match result {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

async fn act(app: App, cli: Cli) -> Result<ExitCode, Failure> {
    let file = cli.config.as_deref();
    match cli.action {
        Action::Dev(args) => dev::run(app, args).await,
        Action::Commands { services } => {
            role(app, file, "commands", &services, async |process| {
                roles::commands::start(process, &services).await
            })
            .await
        }
        Action::Relay => role(app, file, "relay", &[], roles::relay::start).await,
        Action::Projections { only, operation: None } => {
            role(app, file, "projections", &only, async |process| {
                roles::projections::start(process, &only).await
            })
            .await
        }
        Action::Projections { operation: Some(operation), .. } => match operation {
            ProjectionsAction::Ls(admin) => operations::projections_ls(&admin).await,
            ProjectionsAction::Show { name, admin } => {
                operations::projections_show(&name, &admin).await
            }
        },
        Action::Queries => role(app, file, "queries", &[], roles::queries::start).await,
        Action::Registry => role(app, file, "registry", &[], roles::registry::start).await,
        Action::Migrate => {
            let settings = configured(file)?;
            start_logs(&settings)?;
            roles::migrate::run(&app, &settings).await.map(|()| ExitCode::SUCCESS)
        }
        Action::Import(args) => import::command(&app, args).await,
        Action::Outbox(action) => operations::outbox::run(action).await,
        Action::Streams(action) => operations::streams::run(action).await,
        Action::Topics(TopicsAction::Ls(admin)) => operations::topics_ls(&admin).await,
        Action::Schemas(action) => manage_schemas(&app, action, file).await,
        Action::Status(admin) => operations::status(&admin).await,
        Action::Doctor(admin) => operations::doctor(&admin).await,
        Action::Config(ConfigAction::Show { json }) => {
            operations::config_show(&settings::load(file)?.entries, json)
        }
        Action::Completions { shell } => {
            let mut command = Cli::command().name(app.name);
            clap_complete::generate(shell, &mut command, app.name, &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn manage_schemas(
    app: &App,
    action: SchemasAction,
    file: Option<&std::path::Path>,
) -> Result<ExitCode, Failure> {
    let registry = || configured(file).map(|settings| settings.registry);
    match action {
        SchemasAction::Ls(args) => schemas::ls(app, &args, &registry()?).await,
        SchemasAction::Check(args) => schemas::check(app, &args, &registry()?).await,
        SchemasAction::Register(args) => schemas::register(app, &args, &registry()?).await,
        SchemasAction::Generate { dir } => schemas::generate(app, &dir),
    }
}

fn configured(file: Option<&std::path::Path>) -> Result<Settings, Failure> {
    Ok(settings::load(file)?.value)
}

pub(crate) fn start_logs(settings: &Settings) -> Result<(), Failure> {
    let format = match settings.log.format.as_str() {
        "text" => telemetry::LogFormat::Text,
        _ => telemetry::LogFormat::Json,
    };
    telemetry::init(format, &settings.log.filter)
        .map_err(|error| Failure::new(crate::Exit::Configuration, format!("`log.filter`: {error}")))
}

/// A token that signals cancel.
pub(crate) fn on_signals() -> Result<CancellationToken, Failure> {
    shutdown::on_signals().map_err(|error| Failure::failed(format!("no signal handlers: {error}")))
}

/// Runs one role until its end.
async fn role(
    app: App,
    file: Option<&std::path::Path>,
    name: &str,
    only: &[String],
    start: impl AsyncFnOnce(&std::sync::Arc<Process>) -> Result<(), Failure>,
) -> Result<ExitCode, Failure> {
    let settings = configured(file)?;
    roles::require(name, only, &app, &settings)?;
    start_logs(&settings)?;
    let process = Process::new(app, settings, name, on_signals()?)?;
    process.serve_admin(operations::routes(&process)).await?;
    start(&process).await?;
    process.health.set_started();
    process.until_ended().await;
    Ok(process.exit_code())
}
