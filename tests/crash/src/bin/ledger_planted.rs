//! The application under test, built with the faults that [`crash_tests::planted`] names.

use std::process::ExitCode;

fn main() -> ExitCode {
    crash_tests::ledger::app().run()
}
