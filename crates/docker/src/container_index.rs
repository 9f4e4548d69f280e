//! The index of inspected containers and images: what does not change need not be asked again.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bollard::models::ContainerSummaryStateEnum as ListState;
use runtime::Container;

/// The results of inspections, by id. Its locks are held for a lookup only.
#[derive(Debug, Default)]
pub(crate) struct ContainerIndex {
    containers: Mutex<HashMap<String, (ListState, Container)>>,
    terminals: Mutex<HashMap<String, bool>>,
    stop_signals: Mutex<HashMap<String, String>>,
    images: Mutex<HashMap<String, Vec<String>>>,
}

impl ContainerIndex {
    /// A container as it was when the list last showed it in this state. Running and exited containers do not change until
    /// the list shows another state: they are started once.
    pub(crate) fn container(&self, id: &str, state: ListState) -> Option<Container> {
        lock(&self.containers).get(id).filter(|(then, _)| *then == state).map(|(_, container)| container.clone())
    }

    /// Remembers an inspected container, if what was seen is as final as the listed state.
    pub(crate) fn set_container(&self, state: ListState, container: &Container) {
        let settled = match state {
            ListState::RUNNING => container.state.is_running(),
            ListState::EXITED => container.state.is_exited(),
            _ => false,
        };
        if settled {
            lock(&self.containers).insert(container.id.clone(), (state, container.clone()));
        }
    }

    /// Forgets containers that are no longer listed.
    pub(crate) fn retain(&self, listed: &HashSet<&str>) {
        lock(&self.containers).retain(|id, _| listed.contains(id.as_str()));
        lock(&self.terminals).retain(|id, _| listed.contains(id.as_str()));
        lock(&self.stop_signals).retain(|id, _| listed.contains(id.as_str()));
    }

    /// Whether a container has a terminal, which decides how its output is framed.
    pub(crate) fn terminal(&self, id: &str) -> Option<bool> {
        lock(&self.terminals).get(id).copied()
    }

    /// Remembers whether a container has a terminal.
    pub(crate) fn set_terminal(&self, id: &str, tty: bool) {
        lock(&self.terminals).insert(id.to_owned(), tty);
    }

    /// The signal that asks a container to end.
    pub(crate) fn stop_signal(&self, id: &str) -> Option<String> {
        lock(&self.stop_signals).get(id).cloned()
    }

    /// Remembers the signal that asks a container to end.
    pub(crate) fn set_stop_signal(&self, id: &str, signal: String) {
        lock(&self.stop_signals).insert(id.to_owned(), signal);
    }

    /// The repository digests of an image.
    pub(crate) fn digests(&self, image: &str) -> Option<Vec<String>> {
        lock(&self.images).get(image).cloned()
    }

    /// Remembers the repository digests of an image.
    pub(crate) fn set_digests(&self, image: &str, digests: Vec<String>) {
        lock(&self.images).insert(image.to_owned(), digests);
    }

    /// Forgets an image, or all: a pull may have given an old one new names.
    pub(crate) fn forget_images(&self) {
        lock(&self.images).clear();
    }
}

/// What is behind these locks is consistent after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
