//! Mistakes that are easily made, compiled in by the feature `planted-faults` and chosen by an
//! environment variable: the crash tests prove with them that they would find such a mistake.
//! Without the feature [`planted`] is false at compile time and nothing of this is left.

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Gaps between positions are not minded.
    PollBySequence,
    /// Progress is what was sent, and the next owner believes it.
    ProgressBeforeDelivery,
    /// As [`Fault::PollBySequence`], for relays that share a partition and believe what is
    /// recorded.
    SkipLocked,
    /// After a delivery that failed, the relay resumes after the last record of the topic, and what
    /// its producer still holds is sent all the same.
    TailTakeover,
}

/// Whether this process makes this mistake.
#[cfg(feature = "planted-faults")]
pub(crate) fn planted(fault: Fault) -> bool {
    std::env::var("FOLDSTREAM_PLANTED_FAULT").is_ok_and(|name| name == format!("{fault:?}"))
}
/// No process does.
#[cfg(not(feature = "planted-faults"))]
pub(crate) const fn planted(_: Fault) -> bool {
    false
}

/// Whether this process goes on at the next position there is, whatever is missing before it.
pub(crate) fn skips_gaps() -> bool {
    planted(Fault::PollBySequence) || planted(Fault::SkipLocked)
}
