//! Deciding a command over several streams: all of its parts, or none.

use super::{Batch, Command, Decision, Outcome, decide, unmet};
use crate::batch::{Event, Rules};
use crate::cache::Cached;
use crate::jobs::Job;
use crate::several::AcceptedPart;
use crate::{ExecuteError, Verdict};

/// What belongs to the streams of a command after its first one.
#[derive(Default)]
pub(crate) struct Others {
    /// The part that the outcome is about, when it is about one.
    pub(crate) part: Option<usize>,
    pub(crate) streams: Vec<usize>,
    /// In the same order; of a refusal, the versions that it rests on.
    pub(crate) accepted: Vec<AcceptedPart>,
}

/// All parts were accepted, or one of them was not.
enum Decided {
    All(Vec<(Verdict, Option<Decision>)>),
    NotAll(usize, Outcome),
}

impl Batch {
    /// As [`Batch::offer`], with the bases of all its streams in the order of the parts.
    pub(crate) fn offer_all(
        &mut self,
        job: Job,
        bases: Vec<Cached>,
        rules: &Rules<'_>,
    ) -> Option<Job> {
        let streams: Vec<usize> = job
            .streams()
            .zip(bases)
            .map(|(of, base)| self.stream(of.stream, of.partition, base))
            .collect();
        let decided = match self.decide_all(&job, &streams, rules) {
            Ok(decided) => decided,
            Err((part, error)) => {
                job.take_back();
                job.fail(error, Some(part));
                return None;
            }
        };
        let verdicts = match decided {
            Decided::All(verdicts) => verdicts,
            Decided::NotAll(part, outcome) => {
                self.note(job, &streams, part, outcome);
                return None;
            }
        };
        let of_all = verdicts.iter().filter_map(|(_, decision)| decision.as_ref());
        let (events, bytes) = of_all.fold((0, 0), |(events, bytes), decision| {
            (events + decision.events.len(), bytes + decision.bytes)
        });
        if bytes > rules.limits.command_bytes {
            job.take_back();
            job.fail(ExecuteError::TooLarge, None);
            return None;
        }
        if events > 0 && !self.fits(events, bytes) {
            return Some(job);
        }
        self.take_all(job, &streams, verdicts);
        None
    }

    fn decide_all(
        &self,
        job: &Job,
        streams: &[usize],
        rules: &Rules<'_>,
    ) -> Result<Decided, (usize, ExecuteError)> {
        let mut verdicts = Vec::with_capacity(streams.len());
        for (part, (of, stream)) in job.streams().zip(streams).enumerate() {
            let stream = &self.streams[*stream];
            if let Some(unmet) = unmet(of.expected, stream.version) {
                return Ok(Decided::NotAll(part, Outcome::Unmet(unmet)));
            }
            match decide(&of, stream, rules).map_err(|error| (part, error))? {
                (Outcome::Verdict(verdict @ Verdict::Accepted { .. }), decision) => {
                    verdicts.push((verdict, decision));
                }
                (outcome, _) => return Ok(Decided::NotAll(part, outcome)),
            }
        }
        Ok(Decided::All(verdicts))
    }

    /// Takes in a command of which nothing is written.
    fn note(&mut self, job: Job, streams: &[usize], part: usize, outcome: Outcome) {
        let at = |place: &usize| {
            let stream = &self.streams[*place];
            let version = stream.version;
            AcceptedPart { stream: stream.key.as_ref().clone(), version, events: Vec::new() }
        };
        let others = Others {
            part: Some(part),
            streams: streams[1..].to_vec(),
            accepted: streams[1..].iter().map(at).collect(),
        };
        let (stream, version) = (streams[0], self.streams[streams[0]].version);
        self.commands.push(Command { job, stream, outcome, has_events: false, version, others });
    }

    fn take_all(
        &mut self,
        job: Job,
        streams: &[usize],
        verdicts: Vec<(Verdict, Option<Decision>)>,
    ) {
        let (command, mut ordinal) = (self.commands.len(), 0);
        let mut accepted = Vec::with_capacity(streams.len());
        for (&place, (verdict, decision)) in streams.iter().zip(verdicts) {
            if let Some(decision) = decision {
                self.evolved(place, &decision);
                for event in decision.events {
                    self.events.push(Event { command, stream: place, ordinal, ..event });
                    ordinal += 1;
                }
            }
            accepted.push((place, verdict));
        }
        let mut accepted = accepted.into_iter();
        let Some((stream, first)) = accepted.next() else { return };
        let mut others = Others::default();
        for (place, verdict) in accepted {
            let Verdict::Accepted { version, events } = verdict else { continue };
            others.streams.push(place);
            let stream = self.streams[place].key.as_ref().clone();
            others.accepted.push(AcceptedPart { stream, version, events });
        }
        let (outcome, version) = (Outcome::Verdict(first), self.streams[stream].version);
        let has_events = ordinal > 0;
        self.commands.push(Command { job, stream, outcome, has_events, version, others });
    }
}
