//! Waiting for something to come true, with a deadline.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// What a condition may answer: `bool`, `Option` or `Result`.
pub trait Seen {
    /// What it yields when it holds.
    type Value;

    /// The value, or why not (yet).
    fn seen(self) -> Result<Self::Value, String>;
}

impl Seen for bool {
    type Value = ();

    fn seen(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("it was false".into()) }
    }
}

impl<T> Seen for Option<T> {
    type Value = T;

    fn seen(self) -> Result<T, String> {
        self.ok_or_else(|| "there was nothing".into())
    }
}

impl<T, E: Display> Seen for Result<T, E> {
    type Value = T;

    fn seen(self) -> Result<T, String> {
        self.map_err(|error| error.to_string())
    }
}

/// Asks again and again until the condition holds, and answers what it yields.
///
/// # Panics
/// It does not hold before the deadline; the message says what was waited for and the last answer.
pub async fn eventually<S: Seen>(
    within: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> S,
) -> S::Value {
    let deadline = Instant::now() + within;
    let mut last = "the condition never answered".to_owned();
    loop {
        match timeout_at(deadline, condition()).await.map(Seen::seen) {
            Ok(Ok(value)) => return value,
            Ok(Err(reason)) => last = reason,
            Err(_) => {}
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what} (last: {last})");
        sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_waits_until_the_condition_holds() {
        let mut tries = 0;
        let counted = eventually(Duration::from_secs(5), "three tries", async || {
            tries += 1;
            (tries == 3).then_some(tries)
        });
        assert_eq!(counted.await, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "not within 50ms: the impossible (last: never)")]
    async fn it_says_what_it_waited_for() {
        eventually(Duration::from_millis(50), "the impossible", async || Err::<(), _>("never"))
            .await;
    }
}
