//! UmaDB: its server as a child process, with the command line of its own program, and a client
//! connection per writer, as its benchmarks have it. A stream is the events with the tag of a pad.
//! Append is `append` with a condition, command reads by the tag first.
//!
//! It has a storage of its own, which makes events durable before it acknowledges them.

use crate::child::Child;
use crate::infra::Infra;
use crate::load::Client;
use crate::notes::{self, ACTOR};
use crate::work::{Figures, Note, Place, Retries, Run, Scene, Way, check, drive};
use anyhow::{Context, Result};
use foldstream_core::Uuid;
use foldstream_local::free_port;
use std::io::Read;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::Command;
use umadb_client::{AsyncUmaDbClient, UmaDbClient};
use umadb_dcb::{
    DcbAppendCondition, DcbEvent, DcbEventStoreAsync, DcbQuery, DcbQueryItem, DcbSequencedEvent,
};

/// The first argument of this program when it is to be the server.
pub(crate) const SERVER: &str = "umadb-server";

/// How long the server may take to come up.
const START: Duration = Duration::from_secs(20);

/// What `umadb` does with these arguments. Should the run end before it has tidied up, standard
/// input ends: then this ends too and removes the folder, which is the last argument.
pub(crate) fn serve(arguments: Vec<String>) -> ExitCode {
    let folder = arguments.last().cloned().unwrap_or_default();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = std::fs::remove_dir_all(folder);
        std::process::exit(0);
    });
    let program = std::iter::once("umadb".to_owned());
    let served = umadb::parse_cli_options(program.chain(arguments))
        .and_then(umadb::start_server_with_cli_options);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("umadb: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A directory beside those of Postgres, on the same disk; removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = PathBuf::from("/var/tmp").join(format!("foldstream-peers-{}", Uuid::now_v7()));
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn start(folder: &Folder, port: u16, pipelined: bool) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(SERVER).args(["--listen", &format!("127.0.0.1:{port}")]);
    command.args(["--pipelined-writer", &pipelined.to_string(), "--db-path"]).arg(&folder.0);
    Child::start(command.stdout(Stdio::null()))
}

async fn connect(port: u16) -> Result<AsyncUmaDbClient> {
    let deadline = Instant::now() + START;
    loop {
        match UmaDbClient::new(format!("http://127.0.0.1:{port}")).connect_async().await {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() > deadline => {
                return Err(error).context("the server does not answer");
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

struct Writer {
    client: Arc<AsyncUmaDbClient>,
    way: Way,
    place: Place,
    text: String,
}

impl Writer {
    fn pad(&self) -> DcbQuery {
        DcbQuery::new().item(DcbQueryItem::new().tags([self.place.stream.as_str()]))
    }
    /// How many events the pad has, and the position after which there is none.
    async fn read(&self) -> Result<(i64, Option<u64>)> {
        let (events, head) =
            self.client.read_with_head(Some(self.pad()), None, false, None).await?;
        let number = |last: &DcbSequencedEvent| -> Result<i64> {
            Ok(serde_json::from_slice::<Note>(&last.event.data)?.number)
        };
        Ok((events.last().map(number).transpose()?.unwrap_or(0), head))
    }
}

impl Client for Writer {
    async fn once(&mut self) -> Result<u64> {
        let (version, after) = match self.way {
            Way::Append => {
                let position = self.place.position.unsigned_abs();
                (self.place.version, (position > 0).then_some(position))
            }
            Way::Command => self.read().await?,
        };
        let note = Note { number: version + 1, text: self.text.clone() };
        let event = DcbEvent::new()
            .event_type("NoteTaken")
            .data(serde_json::to_vec(&note)?)
            .tags([self.place.stream.as_str()])
            .metadata_entry("actor", ACTOR);
        let condition = DcbAppendCondition::new(self.pad()).after(after);
        let position = self.client.append(vec![event], Some(condition), None).await?;
        self.place.advance(i64::try_from(position)?);
        Ok(1)
    }
}

/// Reads all events.
async fn stored(client: &AsyncUmaDbClient) -> Result<u64> {
    let mut all = client.read(None, None, false, None).await?;
    let mut count = 0;
    loop {
        let batch = all.next_batch().await?;
        if batch.is_empty() {
            return Ok(count);
        }
        count += batch.len() as u64;
    }
}

pub(crate) async fn measure(infra: &Infra, run: &Run) -> Result<Figures> {
    let (folder, port) = (Folder::new()?, free_port());
    let server = start(&folder, port, run.setting == 1)?;
    let mut clients = Vec::with_capacity(run.writers);
    for _ in 0..run.writers {
        clients.push(Arc::new(connect(port).await?));
    }
    let retries = Retries::default();
    let scene = Scene { infra, url: None, server: Some(&server), retries };
    let writer = |writer: usize| Writer {
        client: clients[writer].clone(),
        way: run.way,
        place: Place::new(),
        text: notes::text(),
    };
    let (figures, acknowledged) = drive(&scene, run, writer).await?;
    let client = clients.first().context("there is a writer")?;
    check(stored(client).await?, acknowledged)?;
    server.kill().await?;
    drop(folder);
    Ok(figures)
}
