//! The Kafka jars: fetched once per user from Maven Central.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};

use crate::child::find_in_path;
use crate::place::{create_enterable, owner, shadow};
use crate::{LocalError, Progress};

/// The version of Apache Kafka that is fetched.
pub const KAFKA_VERSION: &str = "4.1.1";

const PATIENCE: Duration = Duration::from_secs(15 * 60);

const POM: &str = r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>foldstream</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>4.1.1</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka-tools</artifactId>
      <version>4.1.1</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>2.24.3</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-core</artifactId>
      <version>2.24.3</version>
    </dependency>
  </dependencies>
</project>
"#;

/// The folder with the Kafka jars, readable by the user that runs the broker; fetched into the
/// user's cache if they are not there yet.
///
/// # Errors
/// Maven is missing or failed, or the cache cannot be written.
pub fn kafka_jars(progress: &mut dyn FnMut(Progress)) -> Result<PathBuf, LocalError> {
    let cache = cache_dir()?;
    let jars = cache.join(format!("kafka-{KAFKA_VERSION}"));
    // Two processes that start at once: the second waits for what the first fetches.
    let lock_path = cache.join("lock");
    let lock = File::create(&lock_path).map_err(LocalError::io("cannot create", &lock_path))?;
    lock.lock().map_err(LocalError::io("cannot lock", &lock_path))?;
    if !jars.is_dir() {
        fetch(&cache, &jars, progress)?;
    }
    match owner()? {
        None => Ok(jars),
        Some(_) => readable_copy(&jars),
    }
}

pub(crate) fn maven() -> Result<PathBuf, LocalError> {
    find_in_path("mvn").ok_or(LocalError::MissingTool { tool: "mvn", package: "maven" })
}

/// `$XDG_CACHE_HOME/foldstream` or `~/.cache/foldstream`.
fn cache_dir() -> Result<PathBuf, LocalError> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let home = || {
        let user = User::from_uid(Uid::effective()).ok().flatten();
        absolute("HOME").or_else(|| user.map(|user| user.dir))
    };
    // Nowhere else: who may write these jars decides what our children run.
    let base = absolute("XDG_CACHE_HOME")
        .or_else(|| Some(home()?.join(".cache")))
        .ok_or_else(|| LocalError::io("cannot find", "~")(ErrorKind::NotFound.into()))?;
    let dir = base.join("foldstream");
    fs::create_dir_all(&dir).map_err(LocalError::io("cannot create", &dir))?;
    Ok(dir)
}

/// Fetches into a new folder and gives it its name when it is complete.
fn fetch(cache: &Path, jars: &Path, progress: &mut dyn FnMut(Progress)) -> Result<(), LocalError> {
    let mvn = maven()?;
    let new = cache.join("fetching");
    let _ = fs::remove_dir_all(&new);
    fs::create_dir_all(&new).map_err(LocalError::io("cannot create", &new))?;
    let pom = new.join("pom.xml");
    fs::write(&pom, POM).map_err(LocalError::io("cannot write", &pom))?;
    progress(Progress::Fetching { jars: 0, bytes: 0 });
    let mut command = Command::new(mvn);
    command.args(["-B", "-f"]).arg(&pom);
    command.args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
    command.arg(format!("-DoutputDirectory={}", new.join("jars").display()));
    run_maven(command, progress)?;
    let (count, bytes) = make_readable(&new.join("jars"))?;
    if !new.join(format!("jars/kafka_2.13-{KAFKA_VERSION}.jar")).is_file() {
        return Err(LocalError::Fetch { reason: "Maven brought no broker".into() });
    }
    fs::rename(new.join("jars"), jars).map_err(LocalError::io("cannot name", jars))?;
    let _ = fs::remove_dir_all(&new);
    progress(Progress::Fetched { jars: count, bytes });
    Ok(())
}

fn run_maven(mut command: Command, progress: &mut dyn FnMut(Progress)) -> Result<(), LocalError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut maven = command.spawn().map_err(LocalError::io("cannot start", "mvn"))?;
    let (sender, lines) = mpsc::channel();
    if let Some(output) = maven.stdout.take() {
        thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|l| sender.send(l))
        });
    }
    let (began, mut jars, mut bytes, mut said) = (Instant::now(), 0, 0, Vec::new());
    loop {
        match lines.recv_timeout(PATIENCE.saturating_sub(began.elapsed())) {
            Ok(line) => {
                if let Some(size) = downloaded_jar(&line) {
                    (jars, bytes) = (jars + 1, bytes + size);
                    progress(Progress::Fetching { jars, bytes });
                } else if line.contains("ERROR") {
                    said.push(line);
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let _ = maven.kill();
                let _ = maven.wait();
                let reason = format!("no end after {} minutes", PATIENCE.as_secs() / 60);
                return Err(LocalError::Fetch { reason });
            }
        }
    }
    let status = maven.wait().map_err(LocalError::io("cannot wait for", "mvn"))?;
    said.truncate(4);
    if status.success() { Ok(()) } else { Err(LocalError::Fetch { reason: said.join("\n") }) }
}

/// The size of the jar that a line of Maven's says it has downloaded:
/// `[INFO] Downloaded from central: https://…/x.jar (1.2 MB at 3.4 MB/s)`.
fn downloaded_jar(line: &str) -> Option<u64> {
    let (address, size) = line.split_once("Downloaded from ")?.1.split_once(" (")?;
    let mut words = size.split_whitespace();
    let (number, unit) = (words.next()?.parse::<f64>().ok()?, words.next()?);
    let factor = match unit {
        "MB" => 1e6,
        "kB" | "KB" => 1e3,
        _ => 1.0,
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "for display")]
    address.ends_with(".jar").then_some((number * factor) as u64)
}

/// Hard links or copies of the jars where the child user may enter. Compared at each start, since
/// systems clean `/var/tmp` file by file.
fn readable_copy(jars: &Path) -> Result<PathBuf, LocalError> {
    let copy = shadow(jars);
    create_enterable(&copy)?;
    let list = fs::read_dir(jars).map_err(LocalError::io("cannot list", jars))?;
    for entry in list.flatten() {
        let to = copy.join(entry.file_name());
        let size = entry.metadata().map_err(LocalError::io("cannot look at", entry.path()))?.len();
        if fs::metadata(&to).is_ok_and(|meta| meta.len() == size) {
            continue;
        }
        let _ = fs::remove_file(&to);
        fs::hard_link(entry.path(), &to)
            .or_else(|_| fs::copy(entry.path(), &to).map(|_| ()))
            .map_err(LocalError::io("cannot copy to", &to))?;
    }
    make_readable(&copy)?;
    Ok(copy)
}

/// Lets everybody read the files, whatever the umask was. Answers how many, and their size.
fn make_readable(dir: &Path) -> Result<(usize, u64), LocalError> {
    let list = fs::read_dir(dir).map_err(LocalError::io("cannot list", dir))?;
    let (mut count, mut bytes) = (0, 0);
    for entry in list.flatten() {
        let path = entry.path();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))
            .map_err(LocalError::io("cannot change the mode of", &path))?;
        count += 1;
        bytes += entry.metadata().map_or(0, |meta| meta.len());
    }
    Ok((count, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maven_lines_about_jars_are_counted_and_others_are_not() {
        let line = "[INFO] Downloaded from central: https://repo/x/k-4.1.1.jar (5.2 MB at 9 MB/s)";
        assert_eq!(downloaded_jar(line), Some(5_200_000));
        let pom = "[INFO] Downloaded from central: https://repo/x/k-4.1.1.pom (12 kB at 9 MB/s)";
        assert_eq!(downloaded_jar(pom), None);
        assert_eq!(downloaded_jar("[INFO] BUILD SUCCESS"), None);
    }

    #[test]
    fn the_pom_names_the_version() {
        assert_eq!(POM.matches(&format!("<version>{KAFKA_VERSION}</version>")).count(), 2);
    }
}
