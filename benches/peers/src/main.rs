//! The same appends through Foldstream and through its peers.
//!
//! `cargo x bench peers [--json]`. What each of them does, with which settings, and what the
//! figures mean is in `docs/performance.md`.

// What the other benchmarks have is compiled here too; this one does not need all of it.
#[path = "../../src/arguments.rs"]
#[allow(dead_code)]
mod arguments;
#[path = "../../src/infra.rs"]
#[allow(dead_code)]
mod infra;
#[path = "../../src/load.rs"]
#[allow(dead_code)]
mod load;
#[path = "../../src/notes.rs"]
#[allow(dead_code)]
mod notes;
#[path = "../../src/plain.rs"]
#[allow(dead_code)]
mod plain;
#[path = "../../src/report.rs"]
#[allow(dead_code)]
mod report;

mod child;
mod cqrs;
mod decisions;
mod emmett;
mod ours;
mod peer;
mod transaction;
mod uma;
mod versions;
mod work;

use anyhow::{Context, Result, bail};
use arguments::{Arguments, Asked};
use infra::{Infra, Needs};
use peer::Peer;
use report::{Case, Report};
use std::process::ExitCode;
use std::time::Duration;
use work::{Figures, Run, Way};

const WRITERS: [usize; 3] = [1, 32, 128];

fn main() -> ExitCode {
    let mut given = std::env::args().skip(1);
    if std::env::args().nth(1).as_deref() == Some(uma::SERVER) {
        // The child of another run of this program.
        given.next();
        return uma::serve(given.collect());
    }
    let arguments = match arguments::read(given, &["peers"]) {
        Ok(Asked::Run(arguments)) => arguments,
        Ok(Asked::Help) => {
            println!(
                "{}\n  peers          the same appends through other libraries",
                arguments::USAGE
            );
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("{wrong}\n\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    let mut report = Report::new(arguments.json);
    let ended = run(&arguments, &mut report);
    report.finish();
    if !arguments.json {
        println!("\n{}", versions::table());
    }
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("peers failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs all cases; false if a peer had to be left out.
fn run(arguments: &Arguments, report: &mut Report) -> Result<bool> {
    eprintln!("peers\n{}", versions::table());
    let infra = Infra::start(Needs::Postgres)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut complete = true;
        for writers in WRITERS {
            for peer in Peer::ALL {
                let name = format!("{}-{writers}", peer.name());
                if !arguments.wants(&name) {
                    continue;
                }
                eprintln!("  {name}");
                match Box::pin(case(&infra, peer, writers, name, arguments)).await {
                    Ok(case) => report.add(case),
                    Err(error) => {
                        eprintln!("  {} is left out: {error:#}", peer.name());
                        complete = false;
                    }
                }
            }
        }
        Ok(complete)
    })
}

async fn case(
    infra: &Infra,
    peer: Peer,
    writers: usize,
    name: String,
    arguments: &Arguments,
) -> Result<Case> {
    let mut run = Run { writers, way: Way::Append, setting: 0, plan: arguments.plan() };
    run.setting = setting(infra, peer, &run, arguments).await?;
    let theirs = measured(infra, peer, &run).await?;
    // Ours right after it, so that both meet the same machine.
    let ours = Box::pin(ours::measure(infra, &run, arguments.writers)).await.context("ours")?;
    let command = measured(infra, peer, &Run { way: Way::Command, ..run }).await?;

    let mut case = Case::new("peers", name, "events/s");
    case.ours = ours.rate;
    case.baseline = Some(theirs.rate);
    case.ratio = Some(ours.rate / theirs.rate);
    case.p50_ms = ours.p50_ms;
    case.p99_ms = ours.p99_ms;
    case.rss_mb = ours.rss_mb;
    case.note("cpu_us", ours.cpu_us);
    case.note("baseline_cpu_us", theirs.cpu_us);
    case.note("baseline_p50_ms", theirs.p50_ms.unwrap_or_default());
    case.note("baseline_p99_ms", theirs.p99_ms.unwrap_or_default());
    case.note("baseline_rss_mb", theirs.rss_mb.unwrap_or_default());
    case.note("baseline_retries", theirs.retries as f64);
    case.note("command", command.rate);
    case.note("command_retries", command.retries as f64);
    case.note(peer.setting_name(), f64::from(run.setting));
    Ok(case)
}

/// The setting under which this peer is fastest: each is tried for a moment.
async fn setting(infra: &Infra, peer: Peer, run: &Run, arguments: &Arguments) -> Result<u32> {
    let candidates = match (peer.setting_name(), arguments.pool) {
        (peer::POOL, Some(pool)) => vec![pool],
        _ => peer.settings(run.writers),
    };
    let mut plan = run.plan;
    plan.measured = (plan.measured / 3).max(Duration::from_secs(1));
    let mut best = None;
    for &setting in &candidates {
        if candidates.len() == 1 {
            return Ok(setting);
        }
        let tried = measured(infra, peer, &Run { setting, plan, ..*run }).await?;
        eprintln!("    {} {setting}: {:.0} events/s", peer.setting_name(), tried.rate);
        if best.is_none_or(|(rate, _)| tried.rate > rate) {
            best = Some((tried.rate, setting));
        }
    }
    Ok(best.context("a peer has settings")?.1)
}

async fn measured(infra: &Infra, peer: Peer, run: &Run) -> Result<Figures> {
    let what = || format!("{} with {} writers, {:?}", peer.name(), run.writers, run.way);
    let figures = Box::pin(peer.measure(infra, run)).await.with_context(what)?;
    if figures.rate <= 0.0 {
        bail!("{}: nothing was appended in time", what());
    }
    Ok(figures)
}
