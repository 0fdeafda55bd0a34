//! Each planted fault is found; without it the same happenings violate nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crash_tests::check::Limits;
use crash_tests::infra::Infra;
use crash_tests::planted::{ALL, Planted, VARIABLE};
use crash_tests::report::shown;
use crash_tests::stage::{Plan, Report, Stage};

/// The application with faults. `cargo x test` has built it and says so; else it is built here, as
/// it is there.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("LEDGER_PLANTED") {
            return path.into();
        }
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--workspace", "--bin", "ledger-planted", "--test"]);
        build.args(["new", "--features", "crash-tests/planted-faults"]);
        assert!(build.status().is_ok_and(|status| status.success()), "{build:?}");
        foldstream_testkit::binary("ledger-planted")
    })
}

async fn stage(name: &str, planted: Option<Planted>) -> Stage {
    let binary = tokio::task::spawn_blocking(binary).await.expect("it is built");
    let mut plan = Plan::new(binary, name, 0, Duration::ZERO);
    plan.limits = Limits { drained: Duration::from_secs(20), ..Limits::default() };
    plan.env.extend(planted.map(|planted| (VARIABLE.to_owned(), format!("{planted:?}"))));
    plan.again = format!("cargo test -p crash-tests --test crash {name}");
    let infra = Infra::shared().await.expect("real Kafka and Postgres start");
    Stage::start(plan, infra).await.expect("it starts")
}

async fn finish(stage: Stage) -> Report {
    let report = stage.finish().await.expect("Kafka and Postgres answer");
    println!("{}", shown(&report));
    report
}

async fn is_found(planted: Planted) {
    let stage = stage(&format!("{planted:?}"), Some(planted)).await;
    planted.provoke(&stage, true).await.expect("the database answers");
    let report = finish(stage).await;
    let wanted = planted.violates();
    assert!(report.violates(wanted), "{wanted} should be violated\n{}", shown(&report));
    // Only a run that went wrong leaves traces.
    let _ = report.dir.map(std::fs::remove_dir_all);
}

macro_rules! found {
    ($($name:ident: $planted:ident;)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            is_found(Planted::$planted).await;
        })*
    };
}

found! {
    a_relay_that_polls_by_sequence_is_found: PollBySequence;
    a_version_check_in_the_statement_that_locks_is_found: CheckWithLock;
    relays_that_skip_what_is_locked_are_found: SkipLocked;
    an_answer_before_the_commit_is_found: AnswerBeforeCommit;
    progress_before_delivery_is_found: ProgressBeforeDelivery;
    a_takeover_by_the_tail_alone_is_found: TailTakeover;
    a_look_up_in_place_of_a_repetition_is_found: LookUp;
    a_refusal_from_a_stale_cache_is_found: StaleRejection;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_planted_fault_the_same_happenings_violate_nothing() {
    let stage = stage("nothing-planted", None).await;
    for planted in ALL {
        planted.provoke(&stage, false).await.expect("the database answers");
    }
    let report = finish(stage).await;
    assert!(report.violations.is_empty(), "{}", shown(&report));
}
