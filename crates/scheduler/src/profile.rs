//! A profile: which plugins decide for the pods of one scheduler name, and how much each counts.

use std::sync::Arc;

use serde_json::Value;

use crate::framework::Plugin;
use crate::plugins::ROWS;

/// The name under which pods are scheduled that name no scheduler.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

/// Which plugins decide, and how much each counts.
#[derive(Clone)]
pub struct Profile {
    /// Pods whose `spec.schedulerName` is this are scheduled by this profile.
    pub scheduler_name: String,
    /// The plugins, in the order in which they filter.
    pub plugins: Vec<Entry>,
    /// The share of nodes, in percent, among which it is enough to choose; 0: upstream's rule by the cluster's size.
    pub percentage: usize,
    /// Whether pods of higher priority preempt others.
    pub preempts: bool,
}

/// A plugin of a profile.
#[derive(Clone)]
pub struct Entry {
    /// The plugin.
    pub plugin: Arc<dyn Plugin>,
    /// How much its scores count; with 0 it is not asked for any.
    pub weight: i64,
    /// Whether it is asked to filter.
    pub filters: bool,
}

impl Profile {
    /// Upstream's defaults, under this name.
    pub fn new(scheduler_name: impl Into<String>) -> Self {
        // Defaults need no arguments, so that none of them can be wrong.
        let entry = |row: &crate::plugins::Row| {
            Some(Entry { plugin: (row.new)(&Value::Null).ok()?, weight: row.weight, filters: true })
        };
        Self {
            scheduler_name: scheduler_name.into(),
            plugins: ROWS.iter().filter_map(entry).collect(),
            percentage: 0,
            preempts: true,
        }
    }

    /// The plugin of this name.
    pub fn plugin(&self, name: &str) -> Option<&dyn Plugin> {
        self.plugins.iter().map(|entry| entry.plugin.as_ref()).find(|plugin| plugin.name() == name)
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self::new(DEFAULT_SCHEDULER)
    }
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plugins: Vec<(&str, i64)> = self.plugins.iter().map(|entry| (entry.plugin.name(), entry.weight)).collect();
        f.debug_struct("Profile")
            .field("scheduler_name", &self.scheduler_name)
            .field("plugins", &plugins)
            .field("percentage", &self.percentage)
            .field("preempts", &self.preempts)
            .finish()
    }
}
