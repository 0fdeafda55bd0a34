//! The volume of Postgres runs full: what was acknowledged is kept, the rest hears 503.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use foldstream_local::{Local, Options};
use foldstream_testkit::eventually;
use system_tests::documents::{invoice, line, new_id};
use system_tests::place::Place;
use system_tests::shop::{DRAIN, Shop};

const VOLUME: &str = "size=300m";
/// What is left of the volume when the load begins.
const LEFT_BYTES: u64 = 12 << 20;
const PATIENCE: Duration = Duration::from_secs(90);

/// A small volume under Postgres' data, unmounted at the end.
struct Volume(PathBuf);

impl Volume {
    /// Moves the data of a server that is stopped onto a volume of their own; why not, where that
    /// is not permitted here.
    fn under(data: &Path) -> Result<Self, String> {
        let aside = data.with_extension("aside");
        run("cp", &["-a", text(data), text(&aside)])?;
        let mounted = run("mount", &["-t", "tmpfs", "-o", VOLUME, "tmpfs", text(data)]);
        if let Err(said) = mounted {
            let _ = fs::remove_dir_all(&aside);
            return Err(said);
        }
        let volume = Volume(data.to_owned());
        let contents = format!("{}/.", text(&aside));
        run("cp", &["-a", &contents, text(data)]).expect("the volume has room for the data");
        let _ = fs::remove_dir_all(&aside);
        Ok(volume)
    }
    fn free_bytes(&self) -> u64 {
        let output = Command::new("df").args(["--output=avail", "-B1", text(&self.0)]).output();
        let output = String::from_utf8_lossy(&output.expect("df is there").stdout).into_owned();
        output.lines().nth(1).and_then(|line| line.trim().parse().ok()).expect("a number")
    }
    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
    /// Fills it up to this rest.
    fn fill(&self, left: u64) {
        let size = self.free_bytes().saturating_sub(left).to_string();
        File::create(self.filler()).expect("root writes everywhere");
        run("fallocate", &["-l", &size, text(&self.filler())]).expect("there is room");
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = run("umount", &["--lazy", text(&self.0)]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output =
        Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{program}: {said}")) }
}

/// Infrastructure is started and stopped by calls that block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("it does not panic")
}

/// The folder of Postgres' data: its first process lives there.
fn data_of(local: &Local) -> PathBuf {
    let pid = local.postgres_pid().expect("it runs");
    fs::read_link(format!("/proc/{pid}/cwd")).expect("a process has a working directory")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_the_volume_was_full_is_kept() {
    let place = Place::new();
    let dir = place.dir().join("infrastructure");
    let local = blocking(move || Local::start(Options::in_dir(dir), &mut |_| {})).await;
    let local = std::sync::Arc::new(local.expect("real Kafka and Postgres start"));
    let data = data_of(&local);
    let stopping = local.clone();
    blocking(move || stopping.stop_postgres()).await;
    let volume = match Volume::under(&data) {
        Ok(volume) => volume,
        Err(said) => {
            println!("skipped: no volume can be mounted here ({})", said.trim());
            return;
        }
    };
    let starting = local.clone();
    blocking(move || starting.start_postgres()).await.expect("it starts on the volume");
    let given = [
        ("KAFKA_BOOTSTRAP", local.kafka().to_owned()),
        ("DATABASE_URL", local.postgres_url("postgres")),
    ];
    let env = given.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let shop = Shop::start_with(env).await;
    let (api, admin) = (shop.api(), shop.admin());
    api.post("/v1/invoices", &invoice(&new_id())).await.expect(201);

    volume.fill(LEFT_BYTES);
    // Documents of some hundred lines until it is full, and on: no answer but yes and 503.
    let (began, mut kept, mut refused) = (Instant::now(), Vec::new(), 0);
    let body = |id: &str| {
        let mut body = invoice(id);
        body["lines"] = vec![line(); 400].into();
        body
    };
    while refused < 10 {
        assert!(began.elapsed() < PATIENCE, "{} were taken and nothing is full", kept.len());
        let id = new_id();
        let answer = api.post("/v1/invoices", &body(&id)).await;
        match answer.status {
            201 => kept.push(id),
            503 => {
                answer.is_problem();
                answer.need("retry-after");
                refused += 1;
            }
            // The server went down with the command on its way: nobody knows, and it says so.
            504 => _ = answer.problem(504, "outcome-unknown"),
            _ => panic!("{}", answer.shown()),
        }
    }
    println!("{} documents were taken before the volume was full", kept.len());
    admin.get("/livez").await.expect(200);

    // Room again; the server is started anew, as an operator would.
    fs::remove_file(volume.filler()).expect("it was written");
    let restarting = local.clone();
    blocking(move || restarting.restart_postgres()).await.expect("it recovers");
    let created = eventually(PATIENCE, "commands are taken again", async || {
        let id = new_id();
        let answer = api.post("/v1/invoices", &body(&id)).await;
        if answer.status == 201 { Ok(id) } else { Err(answer.shown()) }
    })
    .await;
    kept.push(created);
    for id in &kept {
        let history = api.get(&format!("/v1/invoices/{id}/history")).await.expect(200).json();
        assert_eq!(history["data"].as_array().map(Vec::len), Some(1), "{id}");
    }
    assert!(shop.terminate(DRAIN).is_some_and(|status| status.success()));
    drop(shop);
    let ending = local.clone();
    blocking(move || ending.stop()).await;
    drop(volume);
}
