//! Children: how they are started, watched and stopped, and what becomes of orphans.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

use crate::LocalError;
use crate::place::{Owner, Place};

/// How often a state of the world is looked at again.
pub(crate) const POLL: Duration = Duration::from_millis(20);
/// A log that has grown beyond this is set aside at the next start.
const LOG_LIMIT: u64 = 16 << 20;

/// What to run.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<OsString>,
    /// Asks it to stop in order; also sent by the kernel when this process dies.
    pub(crate) stop: Signal,
}

/// A running child.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    stop: Signal,
    log: PathBuf,
}

impl Process {
    /// Starts a program as the child user; its output goes to its log.
    pub(crate) fn start(place: &Place, program: Program) -> Result<Self, LocalError> {
        let log = place.log(program.name);
        let mut command = Command::new(&program.path);
        command
            .args(&program.args)
            .current_dir(&place.work)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(open_log(&log)?)
            .stderr(open_log(&log)?)
            // Ctrl-C is for the parent, which stops its children in order.
            .process_group(0);
        if let Some(Owner { uid, gid }) = place.owner {
            command.gid(gid).uid(uid);
        }
        die_with_parent(&mut command, program.stop);
        let child = spawn(command).map_err(LocalError::io("cannot start", &program.path))?;
        Ok(Self { name: program.name, child, stop: program.stop, log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until `ready` says so; an error if the child ends or the time is over.
    pub(crate) fn wait_ready(
        &mut self,
        patience: Duration,
        ready: impl Fn() -> bool,
    ) -> Result<(), LocalError> {
        let began = Instant::now();
        loop {
            if !self.is_running() {
                return Err(self.ended());
            }
            if ready() {
                return Ok(());
            }
            if began.elapsed() > patience {
                let tail = tail(&self.log);
                let seconds = patience.as_secs();
                return Err(LocalError::NotReady {
                    name: self.name,
                    seconds,
                    log: self.log.clone(),
                    tail,
                });
            }
            thread::sleep(POLL);
        }
    }

    /// Waits until a program that does one thing has done it.
    pub(crate) fn wait_success(mut self, patience: Duration) -> Result<(), LocalError> {
        match self.wait(patience) {
            Some(status) if status.success() => Ok(()),
            Some(_) => Err(self.ended()),
            None => {
                self.kill();
                Err(self.ended())
            }
        }
    }

    /// Stops in order, by force when that takes longer than `patience`.
    pub(crate) fn stop(&mut self, patience: Duration) {
        if self.is_running() {
            let _ = kill(pid(self.child.id()), self.stop);
            if self.wait(patience).is_none() {
                self.kill();
            }
        }
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let began = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                // It cannot be waited for: somebody else has. It is gone.
                Err(_) => return Some(ExitStatus::from_raw(0)),
                Ok(None) if began.elapsed() > patience => return None,
                Ok(None) => thread::sleep(POLL),
            }
        }
    }

    fn ended(&self) -> LocalError {
        LocalError::Ended { name: self.name, log: self.log.clone(), tail: tail(&self.log) }
    }
}

/// Asks the kernel to signal the child when the thread that starts it ends.
///
/// std changes group and user before it runs `pre_exec`, and must: a change of user clears the
/// request. The parent may die between fork and request, hence the look at who the parent is.
#[expect(unsafe_code, reason = "pre_exec is unsafe: its closure runs between fork and exec")]
fn die_with_parent(command: &mut Command, signal: Signal) {
    let parent = Pid::this();
    // SAFETY: the closure makes two system calls that are safe after fork; it allocates nothing.
    unsafe {
        command.pre_exec(move || {
            set_pdeathsig(signal)?;
            if getppid() == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        });
    }
}

type Job = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts a command on the one thread that lives as long as the process: the kernel sends the
/// death signal when the *thread* that started a child ends, and callers' threads come and go.
fn spawn(command: Command) -> io::Result<Child> {
    static STARTER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, answer) in jobs {
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, result) = mpsc::channel();
    let gone = || io::Error::other("the thread that starts children is gone");
    starter.send((command, answer)).map_err(|_| gone())?;
    result.recv().map_err(|_| gone())?
}

/// Ends a process of an earlier run: exactly this pid, and only if its command line names `path`.
pub(crate) fn end_orphan(
    orphan: i32,
    path: &Path,
    signal: Signal,
    patience: Duration,
) -> Result<(), LocalError> {
    if orphan <= 1 || !runs_over(orphan, path) {
        return Ok(());
    }
    let _ = kill(Pid::from_raw(orphan), signal);
    let began = Instant::now();
    let mut forced = false;
    while runs_over(orphan, path) {
        if !forced && began.elapsed() > patience {
            forced = true;
            let _ = kill(Pid::from_raw(orphan), Signal::SIGKILL);
        }
        if began.elapsed() > patience + Duration::from_secs(5) {
            return Err(LocalError::Orphan { pid: orphan });
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Whether the process lives and one of its arguments is the path. A zombie has none.
fn runs_over(pid: i32, path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let wanted = path.as_os_str().as_bytes();
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line.split(|byte| *byte == 0).any(|argument| argument == wanted))
}

fn pid(id: u32) -> Pid {
    // The kernel's pids are positive i32s; std shows them as u32.
    Pid::from_raw(id.cast_signed())
}

/// Opens a log to append to; a large one is first set aside as `<name>.old`.
fn open_log(path: &Path) -> Result<File, LocalError> {
    if fs::metadata(path).is_ok_and(|meta| meta.len() > LOG_LIMIT) {
        let _ = fs::rename(path, path.with_extension("old"));
    }
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(LocalError::io("cannot open", path))
}

/// The last lines of a log, for error messages.
pub(crate) fn tail(path: &Path) -> String {
    const BYTES: u64 = 2_000;
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
        let mut bytes = Vec::new();
        file.take(BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    read().unwrap_or_else(|error| format!("(cannot read it: {error})"))
}

/// The first executable of this name in PATH.
pub(crate) fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(argument: &Path) -> Child {
        let script = "while true; do sleep 1; done";
        Command::new("sh").args(["-c", script]).arg(argument).spawn().unwrap()
    }

    #[test]
    fn an_orphan_is_ended_only_if_it_runs_over_the_path() {
        let (ours, other) = (Path::new("/nowhere/ours"), Path::new("/nowhere/other"));
        let mut child = sleeper(ours);
        let id = pid(child.id()).as_raw();
        let began = Instant::now();
        // Between fork and exec it still has our own command line.
        while !runs_over(id, ours) {
            assert!(began.elapsed() < Duration::from_secs(10));
            thread::sleep(POLL);
        }
        end_orphan(id, other, Signal::SIGTERM, POLL).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "another's process is left alone");
        end_orphan(id, ours, Signal::SIGTERM, Duration::from_secs(5)).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGTERM as i32));
    }

    #[test]
    fn the_tail_of_a_log_is_its_end() {
        let path = std::env::temp_dir().join(format!("foldstream-tail-{}", std::process::id()));
        fs::write(&path, format!("{}the end\n", "x".repeat(5_000))).unwrap();
        let end = tail(&path);
        fs::remove_file(&path).unwrap();
        assert!(end.ends_with("xthe end") && end.len() < 2_001, "{}", end.len());
    }
}
