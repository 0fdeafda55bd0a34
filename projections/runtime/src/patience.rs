use crate::writer::Writer;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Waits between tries while a dependency is away.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// While a dependency is away it is said this often.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// Waiting for a dependency, longer each time, with a word about it now and then.
pub(crate) struct Patience<'a> {
    writer: &'a Writer,
    pause: Duration,
    said: Option<Instant>,
}
impl<'a> Patience<'a> {
    pub(crate) fn new(writer: &'a Writer) -> Self {
        Patience { writer, pause: FIRST_PAUSE, said: None }
    }
    /// `false` at shutdown.
    pub(crate) async fn wait(&mut self, reason: &str) -> bool {
        self.writer.waiting.store(true, Ordering::Relaxed);
        let model = self.writer.build.read_model;
        if self.said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
            self.said = Some(Instant::now());
            tracing::warn!(read_model = model, reason, "a dependency is away, waiting");
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LAST_PAUSE);
        tokio::select! {
            () = self.writer.shutdown.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }
    /// It answered.
    pub(crate) fn over(&mut self) {
        if self.said.take().is_some() {
            self.pause = FIRST_PAUSE;
            self.writer.waiting.store(false, Ordering::Relaxed);
            tracing::info!(read_model = self.writer.build.read_model, "goes on");
        }
    }
}
