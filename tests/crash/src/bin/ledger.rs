//! The application under test, as a user of Foldstream would write it.

use std::process::ExitCode;

fn main() -> ExitCode {
    crash_tests::ledger::app().run()
}
