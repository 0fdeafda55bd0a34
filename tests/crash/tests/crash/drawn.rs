//! A short run of what `cargo x crash` does at length.

use std::path::Path;
use std::time::Duration;

use crash_tests::faults::Fault;
use crash_tests::infra::Infra;
use crash_tests::report::shown;
use crash_tests::stage::{Plan, Stage};
use crash_tests::world::Member;

/// Long enough for a zombie relay and some ten faults of each place.
const LASTS: Duration = Duration::from_secs(90);
/// Past the lease of ten seconds.
const ZOMBIE: Duration = Duration::from_secs(12);
const SEED: u64 = 6536;

#[tokio::test(flavor = "multi_thread")]
async fn under_faults_nothing_is_lost_doubled_or_reordered() {
    let binary = Path::new(env!("CARGO_BIN_EXE_ledger"));
    let seed = std::env::var("CRASH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
    let mut plan = Plan::new(binary, "short", seed, LASTS);
    plan.first = Some((Fault::Pause(Member::relay(0)), ZOMBIE));
    let infra = Infra::start(1).await.expect("real Kafka and Postgres start");
    let stage = Stage::start(plan, infra).await.expect("it starts");
    stage.storm().await.expect("Kafka and Postgres come up again");
    let report = stage.finish().await.expect("Kafka and Postgres answer");
    println!("{}", shown(&report));
    assert!(report.violations.is_empty(), "{}", shown(&report));
    assert!(report.operations["ok"] > 500, "{:?}", report.operations);
}
