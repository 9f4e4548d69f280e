//! What is run once more because an object was changed after it (`staging/src/k8s.io/apiserver/pkg/admission/reinvocation.go`).
//!
//! When a policy or a webhook has changed the object, all plugins run a second time. The built-in ones look at the object as it is
//! then. Of policies and webhooks only those are asked again whose `reinvocationPolicy` is `IfNeeded`, and which the object was
//! changed after.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use machinery::status::ApiError;
use serde_json::Value;

use super::Attributes;
use super::policy::Mutations;
use super::policy::configured::Table;
use super::webhook::Hook;
use crate::object::Object;

/// How far the plugins are with one request: upstream's `ReinvocationContext`.
#[derive(Default)]
pub struct Reinvocation {
    pub(super) policies: Round<Arc<Table<Mutations>>, PolicyKey>,
    pub(super) webhooks: Round<Arc<Vec<Hook>>, usize>,
}

/// A policy, its binding, and the namespace and name of its parameters.
pub(super) type PolicyKey = (String, String, String, String);

impl Reinvocation {
    /// Begins the second run, if one is needed.
    pub(crate) fn begin_second(&mut self) -> bool {
        let needed = self.policies.changed || self.webhooks.changed;
        (self.policies.is_second, self.webhooks.is_second) = (needed, needed);
        needed
    }
}

/// The runs of one plugin. Both are about what was configured at the first one.
pub(super) struct Round<T, K> {
    pub(super) configured: Option<T>,
    is_second: bool,
    /// Whether it has changed the object.
    changed: bool,
    /// What has been asked and may be asked again, and what the object has not been changed after yet.
    invoked: HashSet<K>,
    again: HashSet<K>,
    /// The object as it was at the end of the first run, where anything may be asked again.
    output: Option<Value>,
}

impl<T, K> Default for Round<T, K> {
    fn default() -> Self {
        let (invoked, again) = (HashSet::new(), HashSet::new());
        Self { configured: None, is_second: false, changed: false, invoked, again, output: None }
    }
}

impl<T, K: Eq + Hash> Round<T, K> {
    /// Begins a run.
    ///
    /// # Errors
    /// When the object cannot be represented as JSON.
    pub(super) fn begin(&mut self, attributes: &Attributes<'_>, object: Option<&dyn Object>) -> Result<(), ApiError> {
        let (Some(output), Some(object)) = (self.output.take(), object) else { return Ok(()) };
        if self.is_second && attributes.codec.encode(object)? != output {
            self.require();
        }
        Ok(())
    }

    /// Whether something is to be asked in this run: upstream asks nothing for the first time in the second.
    pub(super) fn asks(&self, key: &K) -> bool {
        !self.is_second || self.again.contains(key)
    }

    /// Notes that something was asked; whether it changed the object, and whether it may be asked again.
    pub(super) fn note(&mut self, key: K, changed: bool, reinvoke: bool) {
        if changed {
            self.changed = true;
            self.require();
        }
        if reinvoke {
            self.invoked.insert(key);
        }
    }

    /// Ends a run.
    ///
    /// # Errors
    /// As [`Round::begin`].
    pub(super) fn end(&mut self, attributes: &Attributes<'_>, object: Option<&dyn Object>) -> Result<(), ApiError> {
        if !self.is_second && !self.invoked.is_empty() {
            self.output = object.map(|object| attributes.codec.encode(object)).transpose()?;
        }
        Ok(())
    }

    fn require(&mut self) {
        self.again.extend(self.invoked.drain());
    }
}
