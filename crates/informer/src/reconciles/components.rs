//! What can be seen of each component from outside, and its pause.

use std::sync::Arc;
use std::time::Duration;

use super::{Next, Reconcile, Reconciles, Stats};
use crate::PauseSwitch;

/// A controller or another component. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub struct Component(Arc<Stats>);

impl Reconciles {
    /// All controllers and components, by name.
    pub fn components(&self) -> Vec<Component> {
        self.all().into_iter().map(Component).collect()
    }
}

impl Component {
    /// Its name.
    pub fn name(&self) -> &'static str {
        self.0.name()
    }

    /// Whether it has a work queue, as controllers do.
    pub fn has_queue(&self) -> bool {
        self.0.queue().is_some()
    }

    /// The switch by which it is paused, if it heeds one.
    pub fn pause(&self) -> Option<&PauseSwitch> {
        self.0.is_pausable().then(|| self.0.pause())
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.pause().is_some_and(PauseSwitch::is_paused)
    }

    /// How much work waits: in its queue, or, without one, for the end of the pause.
    pub fn waiting(&self) -> usize {
        self.0.waiting()
    }

    /// The key that is worked on next, and for how long it has waited.
    pub fn next(&self) -> Option<(String, Duration)> {
        self.0.next().map(|Next { key, since }| (key, since.elapsed()))
    }

    /// How many reconciles are running; known of work queues alone.
    pub fn running(&self) -> usize {
        self.0.unfinished().len()
    }

    /// How many reconciles have ended.
    pub fn reconciles(&self) -> u64 {
        let results = &self.0.results;
        results.success.get() + results.requeue_after.get() + results.error.get()
    }

    /// How many of them failed or panicked.
    pub fn failures(&self) -> u64 {
        self.0.results.error.get()
    }

    /// The latest reconciles, oldest first.
    pub fn latest(&self) -> Vec<Arc<Reconcile>> {
        self.0.latest().iter().cloned().collect()
    }
}
