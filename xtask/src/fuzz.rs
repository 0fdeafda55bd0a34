//! `cargo x test --fuzz`: hostile bytes for the decoder of events, for a minute.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::dev::target_dir;
use crate::machine::{self, For};
use crate::run::{cargo, wait_until};

/// How long bytes are tried, in seconds.
const SECONDS: u32 = 60;
/// The first build takes a minute or two; the rest is the time above.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// What the fuzzer watches: blocks that are reached, and what is compared with what. All of it is
/// in the stable compiler.
const INSTRUMENTED: &str = "-Cpasses=sancov-module -Ccodegen-units=1 \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Builds the fuzzer apart from everything else and runs it over the kept corpus and what it found
/// before. New finds stay below the target directory; one that breaks the decoder is shown.
pub(crate) fn run() -> Result<ExitCode> {
    let root = crate::root()?;
    machine::check(For::Development)?;
    let deadline = Instant::now() + LIMIT;
    let target = target_dir(&root).join("fuzz");
    // With a target named, only what runs there is instrumented: no build script, no macro.
    let host = host()?;
    let mut build = cargo(&root, &["build", "--manifest-path", "fuzz/Cargo.toml", "--locked"]);
    build.args(["--target", &host]).arg("--target-dir").arg(&target).env("RUSTFLAGS", INSTRUMENTED);
    if !wait_until(&mut build, deadline)?.success() {
        return Ok(ExitCode::FAILURE);
    }
    let (kept, found, broken) =
        (root.join("fuzz/corpus/decode"), target.join("corpus"), target.join("broken"));
    for folder in [&found, &broken] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut fuzzer = Command::new(target.join(host).join("debug/decode"));
    fuzzer.arg(&found).arg(&kept).arg(format!("-max_total_time={SECONDS}"));
    // Memory and time of one input are bounded as well: past them it is a find.
    fuzzer.args(["-max_len=4096", "-rss_limit_mb=512", "-timeout=5", "-print_final_stats=1"]);
    fuzzer.arg(format!("-artifact_prefix={}/", broken.display()));
    if wait_until(&mut fuzzer, deadline)?.success() {
        eprintln!("{} s of hostile bytes: nothing broke", SECONDS);
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{}", advice(&broken, &kept));
    Ok(ExitCode::FAILURE)
}

fn advice(broken: &Path, kept: &Path) -> String {
    format!(
        "the bytes that broke it are in {}; mend the decoder and copy them to {}, where every \
         `cargo x test` tries them again",
        broken.display(),
        kept.display()
    )
}

/// The machine that this runs on, as the compiler calls it.
fn host() -> Result<String> {
    let asked = Command::new("rustc").arg("-vV").output().context("cannot start rustc")?;
    let said = String::from_utf8_lossy(&asked.stdout).into_owned();
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say its host")
}
