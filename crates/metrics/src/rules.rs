//! Which series become which metric: rules in the form of the Prometheus adapter's, and what holds without any.
//!
//! They are read from the ConfigMap `coracle-metrics-rules` in `kube-system`, under the key `config.yaml`:
//!
//! ```yaml
//! rules:                                   # custom.metrics.k8s.io
//! - seriesQuery: 'http_requests_total{namespace!="",pod!=""}'
//!   resources:                             # which label names which object
//!     overrides: {namespace: {resource: namespace}, pod: {resource: pod}}
//!     # or: template: "kube_<<.Resource>>"
//!   name: {matches: "^(.*)_total$", as: "${1}_per_second"}
//!   metricsQuery: 'sum(rate(<<.Series>>{<<.LabelMatchers>>}[2m])) by (<<.GroupBy>>)'
//! externalRules: []                        # external.metrics.k8s.io, of the same form
//! ```
//!
//! What [`query`](crate::query) does not understand is refused with an event on the ConfigMap; the other rules hold. Behind
//! them stand the built-in ones: a gauge of a pod is the metric of its name, of the pod and of its namespace (the sum over
//! its series), a counter `NAME_total` is `NAME` per second; external metrics are the series themselves, named alike.

use std::collections::BTreeMap;

use regex::Regex;
use serde::Deserialize;

use crate::prometheus::Kind;
use crate::query::{Query, Selector};
use crate::scrape::Series;

/// Key of the ConfigMap under which the rules are.
pub(crate) const KEY: &str = "config.yaml";
/// More rules than this are not taken.
const MOST: usize = 1_000;

/// The rules of one API, those of the user first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    /// For custom metrics.
    pub(crate) custom: Vec<Rule>,
    /// For external metrics.
    pub(crate) external: Vec<Rule>,
}

/// From series to a metric.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    series: Vec<Selector>,
    excluded: Vec<Selector>,
    naming: Naming,
    resources: Resources,
    /// How its value is computed.
    pub(crate) query: Query,
}

#[derive(Debug, Clone)]
enum Naming {
    /// As the series; a counter without its `_total`.
    Kind(Kind),
    /// What a pattern finds, put into a template.
    Pattern(Regex, String),
}

#[derive(Debug, Clone, Default)]
struct Resources {
    /// Label → resource.
    overrides: BTreeMap<String, String>,
    /// What stands before and after the name of the resource in a label.
    template: Option<(String, String)>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    rules: Vec<RuleConfig>,
    external_rules: Vec<RuleConfig>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RuleConfig {
    series_query: String,
    series_filters: Vec<FilterConfig>,
    resources: ResourcesConfig,
    name: NameConfig,
    metrics_query: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct FilterConfig {
    is: String,
    is_not: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ResourcesConfig {
    overrides: BTreeMap<String, ResourceConfig>,
    template: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ResourceConfig {
    group: String,
    resource: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NameConfig {
    matches: String,
    r#as: String,
}

impl Rules {
    /// The built-in ones.
    pub(crate) fn built_in() -> Self {
        let rule = |kind: Kind, query: Query| Rule {
            series: Vec::new(),
            excluded: Vec::new(),
            naming: Naming::Kind(kind),
            resources: Resources {
                overrides: ["namespace", "pod"].map(|name| (name.to_owned(), name.to_owned())).into(),
                template: None,
            },
            query,
        };
        Self {
            custom: vec![rule(Kind::Gauge, Query::sum(false)), rule(Kind::Counter, Query::sum(true))],
            external: vec![rule(Kind::Gauge, Query::each(false)), rule(Kind::Counter, Query::each(true))],
        }
    }

    /// Those of a configuration before the built-in ones, and what is wrong with the others.
    pub(crate) fn parse(text: &str) -> (Self, Vec<String>) {
        let mut rules = Self::default();
        let mut errors = Vec::new();
        match serde_saphyr::from_str::<Config>(text) {
            Ok(config) => {
                for (name, from, to) in [
                    ("rules", config.rules, &mut rules.custom),
                    ("externalRules", config.external_rules, &mut rules.external),
                ] {
                    for (at, rule) in from.iter().take(MOST).enumerate() {
                        match Rule::new(rule) {
                            Ok(rule) => to.push(rule),
                            Err(error) => errors.push(format!("{name}[{at}].{error}")),
                        }
                    }
                }
            }
            Err(error) => errors.push(error.to_string()),
        }
        let built_in = Self::built_in();
        rules.custom.extend(built_in.custom);
        rules.external.extend(built_in.external);
        (rules, errors)
    }
}

impl Rule {
    fn new(config: &RuleConfig) -> Result<Self, String> {
        let selector = Selector::parse(&config.series_query).map_err(|error| format!("seriesQuery: {error}"))?;
        let mut rule = Self {
            series: vec![selector],
            excluded: Vec::new(),
            naming: Naming::Pattern(pattern("^.*$")?, "$0".to_owned()),
            resources: Resources::default(),
            query: Query::parse(&config.metrics_query).map_err(|error| format!("metricsQuery: {error}"))?,
        };
        for filter in &config.series_filters {
            let by_name = |pattern: &str| {
                let pattern = pattern.replace('\\', "\\\\").replace('"', "\\\"");
                // Filters search where matchers compare the whole.
                let text = format!("{{__name__=~\".*(?:{pattern}).*\"}}");
                Selector::parse(&text).map_err(|error| format!("seriesFilters: {error}"))
            };
            if !filter.is.is_empty() {
                rule.series.push(by_name(&filter.is)?);
            }
            if !filter.is_not.is_empty() {
                rule.excluded.push(by_name(&filter.is_not)?);
            }
        }
        if !config.name.matches.is_empty() || !config.name.r#as.is_empty() {
            let matches = if config.name.matches.is_empty() { ".*" } else { &config.name.matches };
            let matches = pattern(matches)?;
            // The adapter's default: what the one group found, else all.
            let replacement = match (config.name.r#as.as_str(), matches.captures_len()) {
                ("", 1) => "$0",
                ("", 2) => "$1",
                ("", _) => return Err("name.as: must be set where name.matches has several groups".to_owned()),
                (text, _) => text,
            };
            rule.naming = Naming::Pattern(matches, replacement.to_owned());
        }
        for (label, resource) in &config.resources.overrides {
            let group = if resource.group.is_empty() { String::new() } else { format!(".{}", resource.group) };
            let name = format!("{}{group}", singular(&resource.resource));
            rule.resources.overrides.insert(label.clone(), name);
        }
        if !config.resources.template.is_empty() {
            let template = &config.resources.template;
            let parts = template.split_once("<<.Resource>>");
            let (before, after) =
                parts.ok_or_else(|| format!("resources.template: {template:?} has no <<.Resource>>"))?;
            rule.resources.template = Some((before.to_owned(), after.to_owned()));
        }
        Ok(rule)
    }

    /// The metric that a series is a part of by this rule.
    pub(crate) fn metric(&self, series: &Series) -> Option<String> {
        let selected = self.series.iter().all(|selector| selector.matches(series))
            && !self.excluded.iter().any(|selector| selector.matches(series));
        if !selected {
            return None;
        }
        match &self.naming {
            Naming::Kind(Kind::Counter) if series.kind == Kind::Counter => {
                Some(series.name.strip_suffix("_total").unwrap_or(&series.name).to_owned())
            }
            // What nobody typed is taken for a gauge, but for the parts of histograms.
            Naming::Kind(Kind::Gauge) if series.kind == Kind::Gauge => Some(series.name.clone()),
            Naming::Kind(Kind::Gauge) if series.kind == Kind::Other && !is_part(&series.name) => {
                Some(series.name.clone())
            }
            Naming::Kind(_) => None,
            Naming::Pattern(pattern, replacement) => {
                let found = pattern.captures(&series.name)?;
                let mut name = String::new();
                found.expand(replacement, &mut name);
                Some(name).filter(|name| !name.is_empty())
            }
        }
    }

    /// The label that names objects of a resource: `pod`, `deployment.apps`.
    pub(crate) fn label(&self, resource: &str) -> Option<String> {
        if let Some((label, _)) = self.resources.overrides.iter().find(|(_, named)| *named == resource) {
            return Some(label.clone());
        }
        let (before, after) = self.resources.template.as_ref()?;
        // The template knows groups by an underscore, as the adapter writes them.
        Some(format!("{before}{}{after}", resource.replace('.', "_")))
    }

    /// The resources that a series has labels of.
    pub(crate) fn resources(&self, series: &Series) -> Vec<String> {
        let named = self.resources.overrides.iter().filter(|(label, _)| series.labels.contains_key(*label));
        let mut found: Vec<String> = named.map(|(_, resource)| resource.clone()).collect();
        if let Some((before, after)) = &self.resources.template {
            let inside =
                |label: &String| Some(label.strip_prefix(before.as_str())?.strip_suffix(after.as_str())?.to_owned());
            let known = ["namespace", "pod", "node", "service"];
            found.extend(series.labels.keys().filter_map(inside).filter(|resource| known.contains(&resource.as_str())));
        }
        found.sort();
        found.dedup();
        found
    }
}

/// Whether a series belongs to a histogram or summary.
fn is_part(name: &str) -> bool {
    ["_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end))
}

fn pattern(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| format!("name.matches: {error}"))
}

/// The singular of a resource, with its group: `pods` → `pod`, `deployments.apps` → `deployment.apps`.
pub(crate) fn singular(resource: &str) -> String {
    let (name, group) = match resource.split_once('.') {
        Some((name, group)) => (name, format!(".{group}")),
        None => (resource, String::new()),
    };
    let name = match name {
        name if name.ends_with("ies") => format!("{}y", &name[..name.len() - 3]),
        name if name.ends_with("sses") => name[..name.len() - 2].to_owned(),
        name if name.ends_with("ss") => name.to_owned(),
        name => name.strip_suffix('s').unwrap_or(name).to_owned(),
    };
    format!("{name}{group}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prometheus::Labels;

    fn series(name: &str, kind: Kind) -> Series {
        let labels: Labels = [("namespace", "n"), ("pod", "p")].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
        Series { name: name.to_owned(), labels, kind, value: 1.0, time: 0, rate: None }
    }

    #[test]
    fn built_in() {
        let rules = Rules::built_in();
        let names = |name: &str, kind: Kind| -> Vec<String> {
            rules.custom.iter().filter_map(|rule| rule.metric(&series(name, kind))).collect()
        };
        assert_eq!(names("queue_length", Kind::Gauge), ["queue_length"]);
        assert_eq!(names("requests_total", Kind::Counter), ["requests"]);
        assert_eq!(names("plain", Kind::Other), ["plain"]);
        assert!(names("latency_bucket", Kind::Other).is_empty());
        assert_eq!(rules.custom[0].resources(&series("q", Kind::Gauge)), ["namespace", "pod"]);
    }

    #[test]
    fn configured() {
        let (rules, errors) = Rules::parse(
            r#"
rules:
- seriesQuery: '{__name__=~"^http_.*",pod!=""}'
  seriesFilters: [{isNot: "_errors"}]
  resources: {overrides: {pod: {resource: pods}, app: {group: apps, resource: deployment}}}
  name: {matches: "^(.*)_total$", as: "${1}_per_second"}
  metricsQuery: 'sum(rate(<<.Series>>{<<.LabelMatchers>>}[2m])) by (<<.GroupBy>>)'
- seriesQuery: 'x'
  metricsQuery: 'histogram_quantile(0.9, <<.Series>>)'
externalRules:
- seriesQuery: 'queue'
  resources: {template: "kube_<<.Resource>>"}
  metricsQuery: 'max(<<.Series>>{<<.LabelMatchers>>})'
"#,
        );
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with("rules[1].metricsQuery: not understood from here on: \"histogram"), "{errors:?}");
        let rule = &rules.custom[0];
        assert_eq!(
            rule.metric(&series("http_requests_total", Kind::Counter)).as_deref(),
            Some("http_requests_per_second")
        );
        assert_eq!(rule.metric(&series("http_errors_total", Kind::Counter)), None);
        assert_eq!(rule.metric(&series("http_requests", Kind::Gauge)), None);
        assert_eq!(rule.label("pod").as_deref(), Some("pod"));
        assert_eq!(rule.label("deployment.apps").as_deref(), Some("app"));
        assert_eq!(rules.external[0].label("pod").as_deref(), Some("kube_pod"));
        assert_eq!(rules.custom.len(), 3, "the built-in ones stand behind");
        let (rules, errors) = Rules::parse("rules: 5");
        assert_eq!((rules.custom.len(), errors.len()), (2, 1));
    }

    #[test]
    fn singulars() {
        for (plural, expected) in [
            ("pods", "pod"),
            ("pod", "pod"),
            ("services", "service"),
            ("policies", "policy"),
            ("ingresses.networking.k8s.io", "ingress.networking.k8s.io"),
            ("deployments.apps", "deployment.apps"),
        ] {
            assert_eq!(singular(plural), expected);
        }
    }
}
