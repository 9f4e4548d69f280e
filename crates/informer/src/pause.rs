//! Pauses: how somebody stops a component and has it work step by step, to see what each piece of work does.
//!
//! A paused component goes on watching. What there is to do waits where it always waits, with its causes merged as always, so
//! a pause loses nothing. [`PauseSwitch::step`] lets one piece of work through and answers with what became of it. While
//! nobody pauses, all this costs an atomic load for each piece of work.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};

use crate::Reconcile;

/// Whether a component is paused, and who waits for a step of it.
#[derive(Debug, Default)]
pub struct PauseSwitch {
    /// Changed under the lock of `state` only.
    paused: AtomicBool,
    // Never held across an await.
    state: Mutex<State>,
    /// Told when the pause ends and when a step is asked for.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Steps that were asked for and nobody has taken yet, by their numbers.
    steps: VecDeque<(u64, StepPermit)>,
    /// Work that waits in [`PauseSwitch::pass`], oldest first: its key, and how many such pieces of work there are.
    waiting: BTreeMap<Place, (String, usize)>,
    /// The number given last.
    number: u64,
}

/// Since when somebody waits, and a number that tells apart those who came at the same time.
type Place = (Instant, u64);

/// Lets one piece of work of a paused component through. Whatever is done by it reports through a clone; the step has ended
/// when all of them are gone.
#[derive(Debug, Clone)]
pub struct StepPermit(mpsc::UnboundedSender<Arc<Reconcile>>);

impl StepPermit {
    pub(crate) fn report(&self, reconcile: Arc<Reconcile>) {
        // Whoever asked may not wait any more.
        let _ = self.0.send(reconcile);
    }
}

/// What became of a step.
#[derive(Debug)]
pub enum Step {
    /// It was taken, and this was done: mostly one reconcile, and one for each member where a gang is scheduled.
    Done(Vec<Arc<Reconcile>>),
    /// It was taken and goes on; this was done so far.
    UnderWay(Vec<Arc<Reconcile>>),
    /// There was nothing to do. The step is taken back.
    Idle,
    /// The component is not paused, or not any more.
    NotPaused,
}

impl PauseSwitch {
    /// Whether the component is paused.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Pauses the component; false if it was paused. What it is at goes on to its end.
    pub fn pause(&self) -> bool {
        let _state = self.state();
        !self.paused.swap(true, Ordering::Relaxed)
    }

    /// Ends the pause; false if there was none.
    pub fn resume(&self) -> bool {
        let steps = {
            let mut state = self.state();
            if !self.paused.swap(false, Ordering::Relaxed) {
                return false;
            }
            std::mem::take(&mut state.steps)
        };
        // Whoever waits for one of them hears of it by its end.
        drop(steps);
        self.changed.notify_waiters();
        true
    }

    /// Lets one piece of work through: waits so long for there to be one, and then so long for its end. Dropped before, it
    /// takes back what nobody has taken.
    pub async fn step(&self, wait: Duration, finish: Duration) -> Step {
        let (sender, mut reports) = mpsc::unbounded_channel();
        let asked = {
            let mut state = self.state();
            if !self.is_paused() {
                return Step::NotPaused;
            }
            state.number += 1;
            let number = state.number;
            state.steps.push_back((number, StepPermit(sender)));
            Asked { switch: self, number }
        };
        self.changed.notify_waiters();
        let mut done = Vec::new();
        match timeout(wait, reports.recv()).await {
            Ok(Some(reconcile)) => done.push(reconcile),
            Ok(None) if !self.is_paused() => return Step::NotPaused,
            // It was called off.
            Ok(None) => return Step::Done(done),
            Err(_) if asked.withdraw() => return Step::Idle,
            Err(_) => {}
        }
        let ended = timeout(finish, async {
            while let Some(reconcile) = reports.recv().await {
                done.push(reconcile);
            }
        });
        if ended.await.is_ok() { Step::Done(done) } else { Step::UnderWay(done) }
    }

    /// Waits while the component is paused, with work on `key` in hand that has been there `since`, one of so many pieces. The
    /// answer is the step that lets it through, if it is one: the oldest work goes first. Dropped, it has taken nothing.
    pub async fn pass(&self, key: &impl Display, since: Instant, pieces: usize) -> Option<StepPermit> {
        if !self.is_paused() {
            return None;
        }
        let waiter = {
            let mut state = self.state();
            state.number += 1;
            let place = (since, state.number);
            state.waiting.insert(place, (key.to_string(), pieces));
            Waiter { switch: self, place }
        };
        loop {
            // Registered before the state is read, so that no change falls in between.
            let changed = self.changed();
            {
                let mut state = self.state();
                if !self.is_paused() {
                    return None;
                }
                if state.waiting.keys().next() == Some(&waiter.place)
                    && let Some((_, step)) = state.steps.pop_front()
                {
                    return Some(step);
                }
            }
            changed.await;
        }
    }

    /// Takes a step that was asked for, if there is one.
    pub(crate) fn take_step(&self) -> Option<StepPermit> {
        self.state().steps.pop_front().map(|(_, step)| step)
    }

    /// Ends when the pause does, or when a step is asked for, from the moment of the call on.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// How many pieces of work wait in [`Self::pass`].
    pub(crate) fn waiting(&self) -> usize {
        self.state().waiting.values().map(|(_, pieces)| pieces).sum()
    }

    /// The work that goes first of what waits in [`Self::pass`], and since when it is there.
    pub(crate) fn next(&self) -> Option<(String, Instant)> {
        let state = self.state();
        state.waiting.first_key_value().map(|((since, _), (key, _))| (key.clone(), *since))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// A step that was asked for.
struct Asked<'a> {
    switch: &'a PauseSwitch,
    number: u64,
}

impl Asked<'_> {
    /// Takes it back; false if it was taken.
    fn withdraw(&self) -> bool {
        let mut state = self.switch.state();
        let place = state.steps.iter().position(|(number, _)| *number == self.number);
        place.and_then(|place| state.steps.remove(place)).is_some()
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// Somebody in [`PauseSwitch::pass`].
struct Waiter<'a> {
    switch: &'a PauseSwitch,
    place: Place,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut state = self.switch.state();
        state.waiting.remove(&self.place);
        // A step that is left is the next one's.
        let is_left = !state.steps.is_empty();
        drop(state);
        if is_left {
            self.switch.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
