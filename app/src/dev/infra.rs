//! Kafka and Postgres for `dev`: those that are given, else children of our own.

use crate::cli::DevArgs;
use crate::settings::Settings;
use crate::{App, Exit, Failure, roles};
use foldstream_local::{Local, LocalError, Options};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use uuid::Uuid;

pub(crate) struct Infra {
    /// Our children; dropping it stops them.
    _local: Option<Local>,
    pub(super) kafka: String,
    /// The administrator's address of Postgres.
    pub(super) postgres: String,
    pub(super) read_database: String,
    pub(super) analyst: Option<String>,
    analyst_password: String,
    pub(super) own_registry: bool,
}

/// Starts what is not given by `KAFKA_BOOTSTRAP`, `DATABASE_URL`, `SCHEMA_REGISTRY_URL`, and fills
/// in where everything is.
pub(super) async fn start(
    args: &DevArgs,
    settings: &mut Settings,
    app: &App,
) -> Result<Infra, Failure> {
    let given_postgres = std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty());
    let options = Options {
        data_dir: args.data_dir.clone(),
        postgres_port: Some(args.port_base + 32),
        kafka_port: Some(args.port_base + 92),
        controller_port: Some(args.port_base + 93),
        postgres: given_postgres.is_none(),
        kafka: settings.kafka.bootstrap.is_none(),
        kafka_detours: Vec::new(),
    };
    let local = if options.postgres || options.kafka {
        let started = tokio::task::spawn_blocking(|| {
            Local::start(options, &mut |step| eprintln!("  {step}"))
        });
        Some(started.await.map_err(Failure::failed)?.map_err(|error| cannot_start(&error))?)
    } else {
        None
    };
    let postgres_url = |database: &str| match (&given_postgres, &local) {
        (Some(url), _) => with_database(url, database),
        (None, Some(local)) => Ok(local.postgres_url(database)),
        (None, None) => Err(Failure::failed("no Postgres is given, and none was started")),
    };
    if let Some(local) = local.as_ref().filter(|_| settings.kafka.bootstrap.is_none()) {
        settings.kafka.bootstrap = Some(local.kafka().to_owned());
    }
    let own_registry = settings.registry.url.is_none();
    if own_registry {
        settings.registry.url = Some(format!("http://{}", settings.listen.registry));
        settings.registry.database_url = Some(postgres_url(&format!("{}_registry", app.name))?);
    }
    for service in &app.services {
        let place = settings.services.entry(service.name().to_owned()).or_default();
        if place.database_url.is_none() {
            let database = format!("{}_{}", app.name, service.name().replace('-', "_"));
            place.database_url = Some(postgres_url(&database)?);
        }
    }
    if settings.read.database_url.is_none() {
        settings.read.database_url = Some(postgres_url(&format!("{}_read", app.name))?);
    }
    if own_registry && let Some(url) = &settings.registry.database_url {
        roles::migrate::registry(url).await?;
    }
    let read_database = settings.read.database_url.clone().unwrap_or_default();
    let analyst_password = kept_password(&args.data_dir)
        .map_err(|error| Failure::failed(format!("{}: {error}", args.data_dir.display())))?;
    let analyst = as_analyst(&read_database, &analyst_password);
    Ok(Infra {
        kafka: settings.kafka.bootstrap.clone().unwrap_or_default(),
        postgres: postgres_url("postgres")?,
        read_database,
        analyst,
        analyst_password,
        own_registry,
        _local: local,
    })
}

impl Infra {
    /// Gives analysts their role.
    pub(super) async fn grant_analyst(&self, settings: &Settings) -> Result<(), Failure> {
        let url = roles::read_database(settings)?;
        let granted = async {
            let pool = foldstream_tables::pool(&url, 1, std::time::Duration::from_secs(10))?;
            foldstream_tables::grant_analyst(&pool, &self.analyst_password).await?;
            pool.close().await;
            Ok::<_, foldstream_tables::TableError>(())
        };
        granted.await.map_err(|error| Failure::failed(format!("the role `analyst`: {error}")))
    }
}

fn cannot_start(error: &LocalError) -> Failure {
    let exit = match error {
        LocalError::MissingTool { .. } => Exit::DependencyDown,
        _ => Exit::Failed,
    };
    Failure::new(exit, error)
}

/// The same server, another database.
fn with_database(url: &str, database: &str) -> Result<String, Failure> {
    let mut url: reqwest::Url =
        url.parse().map_err(|_| Failure::new(Exit::Configuration, "DATABASE_URL is not a URL"))?;
    url.set_path(database);
    Ok(url.into())
}

/// The same database, as an analyst.
fn as_analyst(url: &str, password: &str) -> Option<String> {
    let mut url: reqwest::Url = url.parse().ok()?;
    url.set_username("analyst").ok()?;
    url.set_password(Some(password)).ok()?;
    Some(url.into())
}

/// The analysts' password, made once and kept beside the data.
fn kept_password(data_dir: &Path) -> io::Result<String> {
    let file = data_dir.join("analyst.password");
    match fs::read_to_string(&file) {
        Ok(password) if !password.trim().is_empty() => Ok(password.trim().to_owned()),
        Ok(_) => make_password(data_dir, &file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_password(data_dir, &file),
        Err(error) => Err(error),
    }
}

fn make_password(data_dir: &Path, file: &Path) -> io::Result<String> {
    let password = Uuid::new_v4().simple().to_string();
    fs::create_dir_all(data_dir)?;
    let mut options = fs::OpenOptions::new();
    let mut kept = options.write(true).create(true).truncate(true).mode(0o600).open(file)?;
    kept.write_all(password.as_bytes())?;
    Ok(password)
}
