//! Given, when, then: rules tested without IO.
//!
//! ```ignore
//! given::<Invoice>([issued()]).when(IssueInvoice(other())).then_refused(Rejection::Exists);
//! ```

use crate::{Aggregate, At, Decision, Timestamp};
use std::fmt::Debug;
use uuid::Uuid;

/// An aggregate with a history.
pub struct Given<A: Aggregate> {
    history: Vec<A::Event>,
    state: A,
    at: At,
}
/// What a command led to.
pub struct When<A: Aggregate> {
    told: String,
    decision: Decision<A>,
    state: A,
}

/// An aggregate to which these events have happened, in order.
pub fn given<A: Aggregate>(events: impl IntoIterator<Item = A::Event>) -> Given<A> {
    let history: Vec<_> = events.into_iter().collect();
    let state = history.iter().fold(A::default(), A::evolve);
    let at = At { now: Timestamp::EPOCH, actor: "test".into(), command_id: Uuid::nil() };
    Given { history, state, at }
}
impl<A: Aggregate> Given<A> {
    /// At this time, by this actor.
    #[must_use]
    pub fn at(self, at: At) -> Self {
        Given { at, ..self }
    }
    /// The command is given.
    pub fn when(self, command: impl Into<A::Command>) -> When<A> {
        let command = command.into();
        let told = format!("given {:#?}\nwhen {command:#?}", self.history);
        When { told, decision: self.state.decide(command, &self.at), state: self.state }
    }
}
impl<A: Aggregate> When<A> {
    /// Exactly these events follow.
    ///
    /// # Panics
    /// When others do, with the whole story.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = A::Event>) {
        let expected: Vec<_> = expected.into_iter().collect();
        match &self.decision {
            Ok(events) if events.0 == expected => {}
            Ok(events) => self.fail(&expected, &events.0),
            Err(rejection) => self.fail(&expected, rejection),
        }
    }
    /// The command is refused for this reason.
    ///
    /// # Panics
    /// When it is accepted, or refused for another, with the whole story.
    #[track_caller]
    pub fn then_refused(self, expected: A::Rejection) {
        match &self.decision {
            Err(rejection) if *rejection == expected => {}
            Err(rejection) => self.fail(&expected, rejection),
            Ok(events) => self.fail(&expected, &events.0),
        }
    }
    /// The events that followed lead to a state of which this is true.
    ///
    /// # Panics
    /// When it is not, or the command was refused, with the whole story.
    #[track_caller]
    pub fn then_state(self, expected: impl FnOnce(&A) -> bool) {
        match &self.decision {
            Ok(events) => {
                let state = events.0.iter().fold(self.state.clone(), A::evolve);
                assert!(expected(&state), "{}\nthen the state is {state:#?}", self.told);
            }
            Err(rejection) => self.fail(&"a state", rejection),
        }
    }
    #[track_caller]
    fn fail(&self, expected: &dyn Debug, found: &dyn Debug) -> ! {
        panic!("{}\nthen expected {expected:#?}\nbut found {found:#?}", self.told)
    }
}
