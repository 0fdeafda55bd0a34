//! What `cargo x new` writes compiles, passes its own tests and is tidy, at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it lies in the workspace").into()
}

/// Copies the sources; not what was built, nor hidden data, but the settings of cargo.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a temporary folder");
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let text = name.to_string_lossy();
        let (from, to) = (entry.path(), to.join(&name));
        if from.is_dir() {
            if text != "target" && (!text.starts_with('.') || text == ".cargo") {
                copy(&from, &to);
            }
        } else {
            fs::copy(from, to).expect("a source file can be copied");
        }
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{command:?}:\n{said}");
    said
}

fn x(copy: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.env("CARGO_MANIFEST_DIR", copy.join("xtask")).args(args);
    command
}

#[test]
fn a_new_aggregate_and_a_new_read_model_work_at_once() {
    // Always the same place: what cargo builds of the copy replaces what it built before.
    let built = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let copied = built.join("new");
    let _ = fs::remove_dir_all(&copied);
    copy(&root(), &copied);
    let at = copied.to_str().unwrap();
    run(&mut x(&copied, &["new", "aggregate", "gift-cards", "--root", at]));
    run(&mut x(&copied, &["new", "read-model", "invoices-by-day", "--root", at]));
    let again = x(&copied, &["new", "aggregate", "gift-cards", "--root", at]).output().unwrap();
    assert!(!again.status.success(), "it never overwrites");

    // A target directory of its own, kept between runs: cargo names what it builds by the place in
    // the workspace, so the copy's crates would take the place of the real ones.
    let target = built.join("new-target");
    let mut tests = Command::new(env!("CARGO"));
    tests.current_dir(&copied).env("CARGO_TARGET_DIR", target).args(["test", "--offline"]);
    for package in ["shop-schemas", "shop-invoicing", "shop-projections"] {
        tests.args(["--package", package]);
    }
    let said = run(tests.args(["--lib"]));
    assert!(
        said.contains("gift_cards::tests::opening_for_the_first_time_says_so ... ok"),
        "{said}"
    );

    let tidy = x(&copied, &["tidy"]).output().unwrap();
    let said = String::from_utf8_lossy(&tidy.stderr);
    let ours = ["gift_cards", "invoices_by_day"];
    assert!(!said.lines().any(|line| ours.iter().any(|name| line.contains(name))), "{said}");
    fs::remove_dir_all(&copied).unwrap();
}
