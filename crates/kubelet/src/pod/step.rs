//! One piece of a worker's work: whether it is under way, done, or to be tried again.

use jiff::Timestamp;

/// A piece of work that is done once for its inputs, and again when they have changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Step<T = ()> {
    /// Not begun.
    #[default]
    Idle,
    /// Under way.
    Busy,
    /// Under way, with inputs that have changed since: whatever comes of it, it is begun again.
    Outdated,
    /// Done, with this result.
    Done(T),
    /// Failed; to be tried again at this time.
    Failed(Timestamp),
}

/// What happens to a [`Step`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StepEvent<T = ()> {
    /// The work has begun.
    Begun,
    /// What the work is done from has changed, or may have.
    InputsChanged,
    /// The work has succeeded, with this result.
    Succeeded(T),
    /// The work has failed; it need not be tried again before this time.
    Failed(Timestamp),
    /// The work was called off, or its result is not to be kept.
    Abandoned,
}

impl<T> Step<T> {
    /// The one transition function. Work under way is never begun a second time beside itself, and a change that comes
    /// meanwhile is never lost: the work reads its inputs early and ends late.
    pub(crate) fn apply(&mut self, event: StepEvent<T>) {
        *self = match (&*self, event) {
            (_, StepEvent::Begun) => Self::Busy,
            (Self::Busy | Self::Outdated, StepEvent::InputsChanged) => Self::Outdated,
            (_, StepEvent::InputsChanged | StepEvent::Abandoned) => Self::Idle,
            (Self::Outdated, StepEvent::Succeeded(_) | StepEvent::Failed(_)) => Self::Idle,
            (_, StepEvent::Succeeded(result)) => Self::Done(result),
            (_, StepEvent::Failed(until)) => Self::Failed(until),
        };
    }

    /// Whether it is under way.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self, Self::Busy | Self::Outdated)
    }

    /// Whether it is done.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }

    /// Whether it may be begun at `now`.
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        match self {
            Self::Idle => true,
            Self::Busy | Self::Outdated | Self::Done(_) => false,
            Self::Failed(until) => *until <= now,
        }
    }

    /// When it may be begun, if that is later than `now`.
    pub(crate) fn wake_at(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Failed(until) => Some(*until).filter(|until| *until > now),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    #[test]
    fn steps() {
        use StepEvent::{Abandoned, Begun, Failed, InputsChanged, Succeeded};
        let check = |events: &[StepEvent], expect: Step| {
            let mut step = Step::Idle;
            events.iter().for_each(|event| step.apply(event.clone()));
            assert_eq!(step, expect, "{events:?}");
        };
        check(&[Begun], Step::Busy);
        check(&[Begun, Succeeded(())], Step::Done(()));
        check(&[Begun, Failed(at(9))], Step::Failed(at(9)));
        check(&[Begun, Abandoned], Step::Idle);
        // What has ended is begun again for new inputs, at once.
        check(&[Begun, Succeeded(()), InputsChanged], Step::Idle);
        check(&[Begun, Failed(at(9)), InputsChanged], Step::Idle);
        // What is under way is not begun twice, and ends as if it had not been done.
        check(&[Begun, InputsChanged, InputsChanged], Step::Outdated);
        for end in [Succeeded(()), Failed(at(9)), Abandoned] {
            check(&[Begun, InputsChanged, end.clone()], Step::Idle);
            check(&[Begun, InputsChanged, end, Begun, Succeeded(())], Step::Done(()));
        }
        assert!(Step::<()>::Outdated.is_busy() && !Step::<()>::Outdated.is_due(at(1_000_000)));
    }
}
