//! Signals, sent to a process of its own.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Runs inside the child that the test below starts; alone it would wait for ever.
#[tokio::test]
#[ignore = "the child of the other test"]
async fn child() {
    let token = foldstream_service::shutdown::on_signals().expect("handlers can be set");
    println!("ready");
    token.cancelled().await;
    println!("draining");
    std::future::pending::<()>().await;
}

#[test]
fn the_first_signal_drains_and_the_second_ends_with_130() {
    let program = std::env::current_exe().expect("this test is a program");
    let mut child = Command::new(program)
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let pid = child.id().to_string();
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    // The test harness writes into the same line, so only its end counts. The reads end when the
    // child does.
    let mut wait_for = |text: &str| lines.any(|line| line.is_ok_and(|line| line.ends_with(text)));
    let send = |signal: &str| {
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {signal}");
    };
    assert!(wait_for("ready"));
    send("-TERM");
    assert!(wait_for("draining"));
    send("-INT");
    let status = child.wait().expect("it is our child");
    assert_eq!(status.code(), Some(foldstream_service::shutdown::INTERRUPTED));
}
