//! `cargo x crash`: a long run.

use std::process::ExitCode;
use std::time::Duration;

use crash_tests::history::Outcome;
use crash_tests::infra::Infra;
use crash_tests::report::shown;
use crash_tests::stage::{Plan, Report, Stage};

const USAGE: &str = "\
usage: crash [--minutes N] [--seed S] [--rate R] [--json]

  --minutes N   how long there are load and faults (default 10)
  --seed S      decides load and faults (default: from the clock)
  --rate R      requests a second beside those to hot streams (default 60)
  --json        one JSON object at the end
";

struct Asked {
    minutes: f64,
    seed: u64,
    rate: Option<f64>,
    json: bool,
}

fn parse(mut args: impl Iterator<Item = String>) -> Option<Asked> {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
    let mut asked = Asked { minutes: 10.0, seed: clock.as_secs(), rate: None, json: false };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--minutes" => asked.minutes = args.next()?.parse().ok().filter(|n| *n > 0.0)?,
            "--seed" => asked.seed = args.next()?.parse().ok()?,
            "--rate" => asked.rate = Some(args.next()?.parse().ok().filter(|n| *n > 0.0)?),
            "--json" => asked.json = true,
            _ => return None,
        }
    }
    Some(asked)
}

fn main() -> ExitCode {
    let Some(asked) = parse(std::env::args().skip(1)) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(&asked)) {
        Ok(report) => {
            if asked.json {
                println!("{}", serde_json::to_string(&report).unwrap_or_default());
            } else {
                print!("{}", shown(&report));
            }
            if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(asked: &Asked) -> Result<Report, String> {
    let binary = foldstream_testkit::binary("ledger");
    let lasts = Duration::from_secs_f64(asked.minutes * 60.0);
    let mut plan = Plan::new(&binary, "long", asked.seed, lasts);
    if let Some(rate) = asked.rate {
        plan.load.rate = rate;
    }
    eprintln!("seed {}, {:.1} min", asked.seed, asked.minutes);
    let stage = Stage::start(plan, Infra::start(1).await?).await?;
    let (history, began) = (stage.history.clone(), std::time::Instant::now());
    let progress = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let Ok(attempts) = history.attempts.lock() else { return };
            let ok = attempts.iter().filter(|a| matches!(a.outcome, Outcome::Ok { .. })).count();
            let (seconds, requests) = (began.elapsed().as_secs(), attempts.len());
            eprintln!("{seconds:>5} s  {requests} requests, {ok} ok");
        }
    });
    let stormed = stage.storm().await;
    progress.abort();
    eprintln!("healed; settling and checking");
    stormed?;
    stage.finish().await
}
