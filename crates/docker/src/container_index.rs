//! The index of inspected containers and images: what does not change need not be asked again.

use std::collections::{HashMap, HashSet};

use bollard::models::ContainerSummaryStateEnum as ListState;
use parking_lot::Mutex;
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
        self.containers.lock().get(id).filter(|(then, _)| *then == state).map(|(_, container)| container.clone())
    }

    /// Remembers an inspected container, if what was seen is as final as the listed state.
    pub(crate) fn set_container(&self, state: ListState, container: &Container) {
        let settled = match state {
            ListState::RUNNING => container.state.is_running(),
            ListState::EXITED => container.state.is_exited(),
            _ => false,
        };
        if settled {
            self.containers.lock().insert(container.id.clone(), (state, container.clone()));
        }
    }

    /// Forgets containers that are no longer listed.
    pub(crate) fn retain(&self, listed: &HashSet<&str>) {
        self.containers.lock().retain(|id, _| listed.contains(id.as_str()));
        self.terminals.lock().retain(|id, _| listed.contains(id.as_str()));
        self.stop_signals.lock().retain(|id, _| listed.contains(id.as_str()));
    }

    /// Whether a container has a terminal, which decides how its output is framed.
    pub(crate) fn terminal(&self, id: &str) -> Option<bool> {
        self.terminals.lock().get(id).copied()
    }

    /// Remembers whether a container has a terminal.
    pub(crate) fn set_terminal(&self, id: &str, tty: bool) {
        self.terminals.lock().insert(id.to_owned(), tty);
    }

    /// The signal that asks a container to end.
    pub(crate) fn stop_signal(&self, id: &str) -> Option<String> {
        self.stop_signals.lock().get(id).cloned()
    }

    /// Remembers the signal that asks a container to end.
    pub(crate) fn set_stop_signal(&self, id: &str, signal: String) {
        self.stop_signals.lock().insert(id.to_owned(), signal);
    }

    /// The repository digests of an image.
    pub(crate) fn digests(&self, image: &str) -> Option<Vec<String>> {
        self.images.lock().get(image).cloned()
    }

    /// Remembers the repository digests of an image.
    pub(crate) fn set_digests(&self, image: &str, digests: Vec<String>) {
        self.images.lock().insert(image.to_owned(), digests);
    }

    /// Forgets an image, or all: a pull may have given an old one new names.
    pub(crate) fn forget_images(&self) {
        self.images.lock().clear();
    }
}
