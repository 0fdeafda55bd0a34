//! Apache Kafka: its configuration, its storage, and whether the broker answers.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::child::{Process, Program, end_orphan, find_in_path};
use crate::place::{Place, State};
use crate::{Detour, LocalError};

const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(20);

/// Where this broker's things are.
#[derive(Debug, Clone)]
pub(crate) struct Kafka {
    java: PathBuf,
    /// `<jars>/*`
    class_path: OsString,
    dir: PathBuf,
    config: PathBuf,
    pid_file: PathBuf,
    port: u16,
}

impl Kafka {
    /// Writes the configuration and formats the storage if that was not done before.
    pub(crate) fn prepare(
        place: &Place,
        state: &State,
        jars: &Path,
        detours: &[Detour],
        formatting: impl FnOnce(),
    ) -> Result<Self, LocalError> {
        let dir = place.child_dir("kafka")?;
        let kafka = Self {
            java: java()?,
            class_path: jars.join("*").into_os_string(),
            config: place.work.join("server.properties"),
            pid_file: pid_file(&place.work),
            dir,
            port: state.kafka_port,
        };
        kafka.write_config(place, state, detours)?;
        let formatted = place.work.join("kafka.formatted");
        if !formatted.exists() {
            formatting();
            let data = kafka.dir.join("data");
            let _ = fs::remove_dir_all(&data);
            kafka.format(place, state)?;
            fs::write(&formatted, "").map_err(LocalError::io("cannot write", &formatted))?;
        }
        Ok(kafka)
    }

    /// Starts the broker without waiting for it; see [`Self::wait_ready`].
    pub(crate) fn start(&self, place: &Place) -> Result<Process, LocalError> {
        // Native libraries that a killed broker has unpacked lie here.
        let _ = fs::remove_dir_all(self.dir.join("tmp"));
        place.child_dir("kafka/tmp")?;
        let mut args: Vec<OsString> =
            ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
                .map(OsString::from)
                .to_vec();
        args.extend(self.common_args(place));
        args.extend(["kafka.Kafka".into(), self.config.clone().into_os_string()]);
        let program =
            Program { name: "kafka", path: self.java.clone(), args, stop: Signal::SIGTERM };
        let process = Process::start(place, program)?;
        fs::write(&self.pid_file, process.pid().to_string())
            .map_err(LocalError::io("cannot write", &self.pid_file))?;
        Ok(process)
    }

    /// Waits until the broker answers and counts itself among the living.
    pub(crate) fn wait_ready(&self, process: &mut Process) -> Result<(), LocalError> {
        process.wait_ready(START, || answers(self.port)).inspect_err(|_| process.kill())
    }

    fn format(&self, place: &Place, state: &State) -> Result<(), LocalError> {
        place.child_dir("kafka/tmp")?;
        let mut args: Vec<OsString> = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
            .map(OsString::from)
            .to_vec();
        args.extend(self.common_args(place));
        args.extend(["kafka.tools.StorageTool", "format", "-t"].map(OsString::from));
        args.extend([state.cluster_id.clone().into(), "-c".into()]);
        args.extend([self.config.clone().into_os_string(), "--ignore-formatted".into()]);
        let program =
            Program { name: "kafka-format", path: self.java.clone(), args, stop: Signal::SIGTERM };
        Process::start(place, program)?.wait_success(START)
    }

    fn common_args(&self, place: &Place) -> Vec<OsString> {
        let option = |name: &str, path: PathBuf| {
            let mut text = OsString::from(name);
            text.push(path);
            text
        };
        vec![
            "-XX:-UsePerfData".into(),
            option("-Djava.io.tmpdir=", self.dir.join("tmp")),
            option("-Dlog4j2.configurationFile=", place.work.join("log4j2.properties")),
            "-cp".into(),
            self.class_path.clone(),
        ]
    }

    fn write_config(
        &self,
        place: &Place,
        state: &State,
        detours: &[Detour],
    ) -> Result<(), LocalError> {
        let (port, controller) = (state.kafka_port, state.controller_port);
        let (mut listen, mut advertise, mut protocol) =
            (String::new(), String::new(), String::new());
        for (number, detour) in detours.iter().enumerate() {
            listen += &format!(",DETOUR{number}://127.0.0.1:{}", detour.listen);
            advertise += &format!(",DETOUR{number}://127.0.0.1:{}", detour.advertise);
            protocol += &format!(",DETOUR{number}:PLAINTEXT");
        }
        let data = self.dir.join("data");
        let server = format!(
            "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{listen}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertise}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT{protocol}
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
log.retention.ms=-1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=3
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=3
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
num.io.threads=2
",
            data = data.display()
        );
        let logging = "status=error
appender.stdout.type=Console
appender.stdout.name=stdout
appender.stdout.layout.type=PatternLayout
appender.stdout.layout.pattern=%d{ISO8601} %p %c{1}: %m%n
rootLogger.level=warn
rootLogger.appenderRef.stdout.ref=stdout
logger.started.name=org.apache.kafka.common.utils.AppInfoParser
logger.started.level=info
";
        for (path, text) in
            [(&self.config, server.as_str()), (&place.work.join("log4j2.properties"), logging)]
        {
            fs::write(path, text).map_err(LocalError::io("cannot write", path))?;
            make_readable(path)?;
        }
        Ok(())
    }
}

/// Stops the broker in order.
pub(crate) fn stop(process: &mut Process) {
    process.stop(STOP);
}

/// Ends a broker of an earlier run over the same configuration.
pub(crate) fn end_earlier(work: &Path) -> Result<(), LocalError> {
    let Ok(text) = fs::read_to_string(pid_file(work)) else { return Ok(()) };
    let Ok(pid) = text.trim().parse() else { return Ok(()) };
    end_orphan(pid, &work.join("server.properties"), Signal::SIGTERM, STOP)
}

/// The Java that runs the broker.
pub(crate) fn java() -> Result<PathBuf, LocalError> {
    std::env::var_os("JAVA_HOME")
        .map(|home| Path::new(&home).join("bin/java"))
        .filter(|java| java.is_file())
        .or_else(|| find_in_path("java"))
        .ok_or(LocalError::MissingTool { tool: "java", package: "default-jre-headless" })
}

fn pid_file(work: &Path) -> PathBuf {
    work.join("kafka.pid")
}

fn make_readable(path: &Path) -> Result<(), LocalError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
        .map_err(LocalError::io("cannot change the mode of", path))
}

/// Whether the broker answers and lists itself: it is past recovery and not fenced.
fn answers(port: u16) -> bool {
    const API_VERSIONS: [u8; 4] = [0, 18, 0, 0];
    const METADATA_V4: [u8; 4] = [0, 3, 0, 4];
    let ask = || -> std::io::Result<bool> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let versions = request(&mut stream, API_VERSIONS, &[])?;
        // Body: error code. Metadata of no topic: throttle time, then the number of brokers.
        let metadata = request(&mut stream, METADATA_V4, &[0, 0, 0, 0, 0])?;
        let brokers = metadata.get(4..8).is_some_and(|count| count != [0, 0, 0, 0]);
        Ok(versions.starts_with(&[0, 0]) && brokers)
    };
    ask().unwrap_or(false)
}

/// One request of Kafka's protocol with header version 1; the body of the answer.
fn request(stream: &mut TcpStream, api: [u8; 4], body: &[u8]) -> std::io::Result<Vec<u8>> {
    const CORRELATION: [u8; 4] = [0, 0, 0, 7];
    const CLIENT_ID: &[u8] = b"\x00\x05probe";
    let content = [&api[..], &CORRELATION, CLIENT_ID, body].concat();
    let length = u32::try_from(content.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &content].concat())?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if !(4..1 << 20).contains(&length) {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    Ok(answer.split_off(4))
}
