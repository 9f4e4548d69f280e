//! What the runtime has of one pod.

use std::cmp::Reverse;

use runtime::{Container, ContainerState, Sandbox};

/// The sandboxes of one pod with their containers, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Observed {
    sandboxes: Vec<Sandbox>,
}

impl Observed {
    /// Sorts what the runtime answered.
    pub(crate) fn new(mut sandboxes: Vec<Sandbox>) -> Self {
        sandboxes.sort_by_key(|sandbox| Reverse((sandbox.attempt, sandbox.created)));
        for sandbox in &mut sandboxes {
            sandbox.containers.sort_by_key(|container| Reverse((container.attempt, container.created)));
        }
        Self { sandboxes }
    }

    /// Nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.sandboxes.is_empty()
    }

    /// All sandboxes, newest first.
    pub(crate) fn sandboxes(&self) -> &[Sandbox] {
        &self.sandboxes
    }

    /// The newest sandbox.
    pub(crate) fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first()
    }

    /// The newest sandbox, if containers can be created in it.
    pub(crate) fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandbox().filter(|sandbox| sandbox.ready)
    }

    /// All containers, in no particular order.
    pub(crate) fn containers(&self) -> impl Iterator<Item = &Container> {
        self.sandboxes.iter().flat_map(|sandbox| &sandbox.containers)
    }

    /// The containers made for `name`, newest first.
    pub(crate) fn history(&self, name: &str) -> Vec<&Container> {
        let mut history: Vec<&Container> = self.containers().filter(|container| container.name == name).collect();
        history.sort_by_key(|container| Reverse((container.attempt, container.created)));
        history
    }

    /// The newest container made for `name`.
    pub(crate) fn latest(&self, name: &str) -> Option<&Container> {
        self.containers()
            .filter(|container| container.name == name)
            .max_by_key(|container| (container.attempt, container.created))
    }

    /// The newest container made for `name` in the newest sandbox.
    pub(crate) fn current(&self, name: &str) -> Option<&Container> {
        let sandbox = self.sandbox()?;
        self.latest(name).filter(|container| container.sandbox_id == sandbox.id)
    }

    /// The containers whose process runs, or may run.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Container> {
        self.containers()
            .filter(|container| matches!(container.state, ContainerState::Running { .. } | ContainerState::Unknown))
    }

    /// The containers that have ended and that nobody needs when the disk is full: those that were replaced, and all of a
    /// pod that has `ended` itself. How a container ended that runs no more decides whether it is started again.
    pub(crate) fn dead(&self, ended: bool) -> impl Iterator<Item = &Container> {
        self.containers().filter(move |container| {
            let is_latest = || self.latest(&container.name).is_some_and(|latest| latest.id == container.id);
            container.state.is_exited() && (ended || !is_latest())
        })
    }

    /// The container with this id.
    pub(crate) fn container(&self, id: &str) -> Option<&Container> {
        self.containers().find(|container| container.id == id)
    }

    /// Puts a container's new state in place of the old, or adds it; `None` removes it.
    #[must_use]
    pub(crate) fn with_container(&self, id: &str, state: Option<Container>) -> Self {
        let mut sandboxes = self.sandboxes.clone();
        for sandbox in &mut sandboxes {
            sandbox.containers.retain(|container| container.id != id);
        }
        if let Some(container) = state {
            match sandboxes.iter_mut().find(|sandbox| sandbox.id == container.sandbox_id) {
                Some(sandbox) => sandbox.containers.push(container),
                None => sandboxes.push(Sandbox {
                    id: container.sandbox_id.clone(),
                    pod: container.pod.clone(),
                    containers: vec![container],
                    ..Sandbox::default()
                }),
            }
        }
        Self::new(sandboxes)
    }

    /// Adds a sandbox, or replaces what was known of it but its containers.
    #[must_use]
    pub(crate) fn with_sandbox(&self, mut sandbox: Sandbox) -> Self {
        let mut sandboxes = self.sandboxes.clone();
        if let Some(at) = sandboxes.iter().position(|known| known.id == sandbox.id) {
            sandbox.containers = sandboxes.swap_remove(at).containers;
        }
        sandboxes.push(sandbox);
        Self::new(sandboxes)
    }

    /// Marks a sandbox as stopped.
    #[must_use]
    pub(crate) fn with_sandbox_stopped(&self, id: &str) -> Self {
        let mut sandboxes = self.sandboxes.clone();
        for sandbox in sandboxes.iter_mut().filter(|sandbox| sandbox.id == id) {
            sandbox.ready = false;
            sandbox.ips.clear();
        }
        Self { sandboxes }
    }

    /// Forgets a sandbox with its containers.
    #[must_use]
    pub(crate) fn without_sandbox(&self, id: &str) -> Self {
        let mut sandboxes = self.sandboxes.clone();
        sandboxes.retain(|sandbox| sandbox.id != id);
        Self { sandboxes }
    }
}
