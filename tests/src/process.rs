//! Child processes of a test: they die with it, and their output is kept for its failure.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

/// How much of what it said is shown when a test fails.
const TAIL: u64 = 6 * 1024;
const POLL: Duration = Duration::from_millis(10);

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Mutex<Child>,
    stdout: Arc<Mutex<Vec<String>>>,
    reader: Mutex<Option<JoinHandle<()>>>,
    stderr: PathBuf,
}

impl Process {
    /// Starts a program; its standard error goes to the end of the file `stderr`.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn start(name: &str, mut command: Command, stderr: &Path) -> Self {
        let log = File::options().create(true).append(true).open(stderr);
        let log = log.unwrap_or_else(|error| panic!("{}: {error}", stderr.display()));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        die_with_parent(&mut command);
        let mut child =
            spawn(command).unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let stdout = Arc::default();
        let reader = child.stdout.take().map(|pipe| collect(pipe, Arc::clone(&stdout)));
        let (child, reader) = (Mutex::new(child), Mutex::new(reader));
        Self { name: name.to_owned(), child, stdout, reader, stderr: stderr.to_owned() }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child().id().cast_signed()
    }

    /// The lines it has written to standard output so far.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All lines of standard output of a process that has ended.
    pub fn output(&self) -> Vec<String> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reader) = reader {
            let _ = reader.join();
        }
        self.stdout()
    }

    /// All that was written to standard error so far.
    pub fn stderr(&self) -> String {
        fs::read(&self.stderr).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child().try_wait().ok().flatten()
    }

    /// Asks it to end, without waiting.
    pub fn ask_to_end(&self) {
        if self.ended().is_none() {
            let _ = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
        }
    }

    /// SIGTERM; then how it ended, or `None` when it still runs after `within`.
    pub fn terminate(&self, within: Duration) -> Option<ExitStatus> {
        self.ask_to_end();
        self.wait(within)
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&self) {
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// How it ended, or `None` when it still runs after `within`.
    pub fn wait(&self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            let ended = self.ended();
            if ended.is_some() || Instant::now() > deadline {
                return ended;
            }
            thread::sleep(POLL);
        }
    }

    /// The end of what it said on standard error, for people who look into a failure.
    pub fn tail(&self) -> String {
        let tail = tail(&self.stderr).unwrap_or_else(|error| error.to_string());
        format!("── the end of what {} said:\n{tail}\n──", self.name)
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.tail());
        }
        self.kill();
    }
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn collect(pipe: ChildStdout, lines: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    })
}

#[expect(unsafe_code, reason = "std has no safe way to set the death signal of a child")]
fn die_with_parent(command: &mut Command) {
    let parent = Pid::this();
    // SAFETY: the closure makes two system calls that are safe after fork; it allocates nothing.
    unsafe {
        command.pre_exec(move || {
            set_pdeathsig(Signal::SIGKILL)?;
            if getppid() == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        });
    }
}

type Job = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts a command on a thread that lives as long as the process: the kernel sends the death
/// signal when the *thread* that started a child ends, and those of tests come and go.
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
