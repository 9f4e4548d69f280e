//! How the scheduler is to work: upstream's `KubeSchedulerConfiguration`, v1.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::framework::Plugin;
use crate::plugins::{BUILT_IN, ROWS};
use crate::profile::{DEFAULT_SCHEDULER, Entry, Profile};
use crate::queue::BackOff;
use crate::record::Records;
use crate::service::Previews;
use crate::types::Family;

/// Names under which pods ask for gangs, and the PodGroups that each schedules by. The default profile serves them too
/// while the addon defines those PodGroups: else they are names of somebody else's schedulers.
pub(crate) const GANG_SCHEDULERS: [(&str, Family); 2] =
    [("volcano", Family::Volcano), ("scheduler-plugins-scheduler", Family::Coscheduling)];

/// How the scheduler is to work.
#[derive(Debug, Clone)]
pub struct Config {
    /// The profiles; a pod is scheduled by the one it names.
    pub profiles: Vec<Profile>,
    /// Whether schedulers that are known for gangs are stood in for.
    pub stand_in: bool,
    /// How long a refused pod waits at least.
    pub back_off: BackOff,
    /// Where decisions are recorded.
    pub records: Records,
    /// Where decisions are asked for that are not to be carried out.
    pub previews: Previews,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            profiles: vec![Profile::default()],
            stand_in: true,
            back_off: BackOff::default(),
            records: Records::default(),
            previews: Previews::default(),
        }
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// It is no `KubeSchedulerConfiguration`.
    #[error("not a KubeSchedulerConfiguration of kubescheduler.config.k8s.io/v1: {0}")]
    Malformed(String),
    /// A profile names a plugin that does not exist.
    #[error("profiles[{profile}]: there is no plugin {plugin}")]
    UnknownPlugin {
        /// Which profile, counted from 0.
        profile: usize,
        /// The plugin.
        plugin: String,
    },
    /// Arguments that a plugin does not take.
    #[error("profiles[{profile}].pluginConfig: {plugin}: {reason}")]
    Arguments {
        /// Which profile, counted from 0.
        profile: usize,
        /// The plugin.
        plugin: String,
        /// What is wrong with them.
        reason: String,
    },
    /// Two profiles have one name.
    #[error("profiles[{profile}].schedulerName: {name} is another profile's already")]
    Duplicate {
        /// Which profile, counted from 0.
        profile: usize,
        /// The name.
        name: String,
    },
}

/// What upstream knows and this does not, its extenders among them, is refused: whoever writes it expects it to happen.
/// What is about upstream's process alone is taken and left.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code, reason = "some fields are there to be allowed")]
struct File {
    api_version: String,
    kind: String,
    parallelism: Option<IgnoredAny>,
    leader_election: Option<IgnoredAny>,
    client_connection: Option<IgnoredAny>,
    enable_profiling: Option<IgnoredAny>,
    enable_contention_profiling: Option<IgnoredAny>,
    delay_cache_until_active: Option<IgnoredAny>,
    percentage_of_nodes_to_score: Option<usize>,
    pod_initial_backoff_seconds: Option<u64>,
    pod_max_backoff_seconds: Option<u64>,
    #[serde(default)]
    profiles: Vec<FileProfile>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct FileProfile {
    scheduler_name: Option<String>,
    percentage_of_nodes_to_score: Option<usize>,
    plugins: Plugins,
    plugin_config: Vec<PluginConfig>,
}

/// The points at which plugins take part. Those before a filter or score go with it here, and the rest is fixed.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Plugins {
    multi_point: Set,
    pre_enqueue: Set,
    queue_sort: Set,
    pre_filter: Set,
    filter: Set,
    post_filter: Set,
    pre_score: Set,
    score: Set,
    reserve: Set,
    permit: Set,
    pre_bind: Set,
    bind: Set,
    post_bind: Set,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Set {
    enabled: Vec<Named>,
    disabled: Vec<Named>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
    #[serde(default)]
    weight: i64,
}

impl Set {
    fn disables(&self, name: &str) -> bool {
        self.disabled.iter().any(|named| named.name == name || named.name == "*")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginConfig {
    name: String,
    #[serde(default)]
    args: Value,
}

impl Config {
    /// Adds a plugin of one's own to all profiles; with weight 0 its scores are not asked for.
    #[must_use]
    pub fn plugin(mut self, plugin: &Arc<dyn Plugin>, weight: i64) -> Self {
        for profile in &mut self.profiles {
            profile.plugins.push(Entry { plugin: Arc::clone(plugin), weight, filters: true });
        }
        self
    }

    /// Reads a configuration, from JSON that was YAML maybe. With profiles of one's own, only those are served.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn read(value: &Value) -> Result<Self, ConfigError> {
        let file = File::deserialize(value).map_err(|error| ConfigError::Malformed(error.to_string()))?;
        if file.kind != "KubeSchedulerConfiguration" || file.api_version != "kubescheduler.config.k8s.io/v1" {
            return Err(ConfigError::Malformed(format!("it is a {} of {}", file.kind, file.api_version)));
        }
        let mut config = Self::default();
        if let Some(seconds) = file.pod_initial_backoff_seconds {
            config.back_off.0 = Duration::from_secs(seconds);
        }
        if let Some(seconds) = file.pod_max_backoff_seconds {
            config.back_off.1 = Duration::from_secs(seconds);
        }
        if !file.profiles.is_empty() {
            config.stand_in = false;
            config.profiles.clear();
        }
        for (index, given) in file.profiles.iter().enumerate() {
            let profile = profile(index, given)?;
            if config.profiles.iter().any(|other| other.scheduler_name == profile.scheduler_name) {
                return Err(ConfigError::Duplicate { profile: index, name: profile.scheduler_name });
            }
            config.profiles.push(profile);
        }
        for (index, profile) in config.profiles.iter_mut().enumerate() {
            let own = file.profiles.get(index).and_then(|given| given.percentage_of_nodes_to_score);
            profile.percentage = own.or(file.percentage_of_nodes_to_score).unwrap_or(0);
        }
        Ok(config)
    }
}

fn profile(index: usize, given: &FileProfile) -> Result<Profile, ConfigError> {
    let points = &given.plugins;
    let Plugins { multi_point, filter, post_filter, score, .. } = points;
    let before = [&points.pre_enqueue, &points.queue_sort, &points.pre_filter, &points.pre_score];
    let after = [&points.reserve, &points.permit, &points.pre_bind, &points.bind, &points.post_bind];
    for set in [multi_point, filter, post_filter, score].into_iter().chain(before).chain(after) {
        let unknown = |name: &str| name != "*" && !BUILT_IN.contains(&name) && ROWS.iter().all(|row| row.name != name);
        if let Some(named) = set.enabled.iter().find(|named| unknown(&named.name)) {
            return Err(ConfigError::UnknownPlugin { profile: index, plugin: named.name.clone() });
        }
    }
    let args: HashMap<&str, &Value> = given.plugin_config.iter().map(|one| (one.name.as_str(), &one.args)).collect();
    if let Some(name) = args.keys().find(|name| !BUILT_IN.contains(*name) && ROWS.iter().all(|row| row.name != **name))
    {
        return Err(ConfigError::UnknownPlugin { profile: index, plugin: (*name).to_owned() });
    }
    let enabled = |set: &Set, name: &str| set.enabled.iter().find(|named| named.name == name).map(|named| named.weight);
    let mut plugins = Vec::new();
    for row in ROWS {
        // What is switched on by name stays on where `*` switches off; upstream's rule, too.
        let anywhere = enabled(multi_point, row.name);
        let base = anywhere.is_some() || !multi_point.disables(row.name);
        let filters = enabled(filter, row.name).is_some() || base && !filter.disables(row.name);
        let scored = enabled(score, row.name);
        let scores = scored.is_some() || base && !score.disables(row.name);
        if !filters && !scores {
            continue;
        }
        let named = [scored, anywhere].into_iter().flatten().find(|weight| *weight > 0);
        let weight = if scores { named.unwrap_or(row.weight) } else { 0 };
        let plugin = (row.new)(args.get(row.name).copied().unwrap_or(&Value::Null));
        let plugin =
            plugin.map_err(|reason| ConfigError::Arguments { profile: index, plugin: row.name.to_owned(), reason })?;
        plugins.push(Entry { plugin, weight, filters });
    }
    let preemption = "DefaultPreemption";
    Ok(Profile {
        scheduler_name: given.scheduler_name.clone().unwrap_or_else(|| DEFAULT_SCHEDULER.to_owned()),
        plugins,
        percentage: 0,
        preempts: enabled(post_filter, preemption).is_some()
            || !multi_point.disables(preemption) && !post_filter.disables(preemption),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A profile's name, and the weights of its plugins.
    type Weights = (String, Vec<(&'static str, i64)>);

    fn read(profiles: Value) -> Result<Vec<Weights>, ConfigError> {
        let config = Config::read(&json!({
            "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration", "profiles": profiles,
        }))?;
        let plugins = |profile: &Profile| {
            let scored = profile.plugins.iter().filter(|entry| entry.weight > 0);
            scored.map(|entry| (entry.plugin.name(), entry.weight)).collect()
        };
        Ok(config.profiles.iter().map(|profile| (profile.scheduler_name.clone(), plugins(profile))).collect())
    }

    #[test]
    fn weights_and_plugins_are_those_of_the_file() {
        let all = read(json!([])).expect("the defaults");
        assert_eq!(
            all[0].1,
            [
                ("TaintToleration", 3),
                ("NodeAffinity", 2),
                ("NodeResourcesFit", 1),
                ("PodTopologySpread", 2),
                ("InterPodAffinity", 2),
                ("NodeResourcesBalancedAllocation", 1),
                ("ImageLocality", 1),
            ]
        );
        let few = read(json!([
            { "schedulerName": "a", "plugins": { "score": {
                "disabled": [{ "name": "*" }], "enabled": [{ "name": "NodeResourcesFit", "weight": 7 }] } } },
            { "schedulerName": "b", "plugins": { "multiPoint": { "disabled": [{ "name": "ImageLocality" }] } } },
        ]))
        .expect("two profiles");
        assert_eq!(few[0], ("a".to_owned(), vec![("NodeResourcesFit", 7)]));
        assert_eq!(few[1].1.len(), 6);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let check = |profiles: Value, expected: &str| {
            assert_eq!(read(profiles).expect_err("wrong").to_string(), expected);
        };
        check(
            json!([{ "plugins": { "score": { "enabled": [{ "name": "Magic" }] } } }]),
            "profiles[0]: there is no plugin Magic",
        );
        check(
            json!([{}, { "schedulerName": "default-scheduler" }]),
            "profiles[1].schedulerName: default-scheduler is another profile's already",
        );
        let args = json!({ "scoringStrategy": { "type": "Best" } });
        let wrong = read(json!([{ "pluginConfig": [{ "name": "NodeResourcesFit", "args": args }] }]));
        assert!(
            wrong.expect_err("wrong").to_string().starts_with("profiles[0].pluginConfig: NodeResourcesFit: unknown")
        );
        let malformed = |fields: Value| {
            let mut file = json!({
                "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
                "leaderElection": { "leaderElect": false }, "parallelism": 16,
            });
            file.as_object_mut().expect("fields").extend(fields.as_object().expect("fields").clone());
            let read = Config::read(&file).map(drop);
            read.map_or_else(|error| error.to_string(), |()| String::new())
        };
        let no_scores =
            json!({ "preScore": { "disabled": [{ "name": "*" }] }, "score": { "disabled": [{ "name": "*" }] } });
        assert_eq!(malformed(json!({ "profiles": [{ "plugins": no_scores }] })), "");
        for wrong in [
            json!({ "profils": [] }),
            json!({ "extenders": [{}] }),
            json!({ "profiles": [{ "plugin": {} }] }),
            json!({ "profiles": [{ "plugins": { "scores": {} } }] }),
            json!({ "apiVersion": "v1", "kind": "Pod" }),
        ] {
            let told = malformed(wrong.clone());
            assert!(told.starts_with("not a KubeSchedulerConfiguration"), "{wrong}: {told}");
        }
    }
}
