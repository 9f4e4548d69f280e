//! Records as they are kept: hundreds of them name the same few nodes and plugins, which stand once.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Part, Record, Refused, Scored};

/// So many names are kept before those that no record has any more are looked for.
const NAMES: usize = 1024;

/// The plugins that gave scores, each with its weight.
type Plugins = Arc<[(&'static str, i64)]>;

/// A record without its lists, and what they say.
#[derive(Debug)]
pub(super) struct Kept {
    head: Record,
    plugins: Plugins,
    /// The nodes that would do, with their totals.
    scored: Box<[(Arc<str>, i64)]>,
    /// What each plugin gave each of them, node by node.
    scores: Box<[u8]>,
    refused: Box<[KeptRefusal]>,
}

#[derive(Debug)]
struct KeptRefusal {
    plugin: &'static str,
    reason: Arc<str>,
    count: usize,
    nodes: Box<[Arc<str>]>,
}

/// What records share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    names: HashSet<Arc<str>>,
    /// How many there may be before the next look for what can go.
    limit: usize,
    plugins: Plugins,
}

impl Shared {
    pub(super) fn pack(&mut self, mut record: Record) -> Kept {
        self.forget();
        let scored = std::mem::take(&mut record.scored);
        let refused = std::mem::take(&mut record.refused);
        // A score is 0 to 100; the parts of all nodes are those of the same plugins.
        let scores = scored.iter().flat_map(|node| &node.scores);
        let scores = scores.map(|part| u8::try_from(part.score).unwrap_or(u8::MAX)).collect();
        let parts = scored.first().map_or(&[][..], |node| &node.scores);
        Kept {
            head: record,
            plugins: self.plugins(parts),
            scores,
            scored: scored.into_iter().map(|node| (self.name(&node.node), node.total)).collect(),
            refused: refused
                .into_iter()
                .map(|one| KeptRefusal {
                    plugin: one.plugin,
                    reason: self.name(&one.reason),
                    count: one.count,
                    nodes: one.nodes.iter().map(|node| self.name(node)).collect(),
                })
                .collect(),
        }
    }

    /// The plugins of these parts: mostly those of the record before.
    fn plugins(&mut self, parts: &[Part]) -> Plugins {
        let wanted = || parts.iter().map(|part| (part.plugin, part.weight));
        if !self.plugins.iter().copied().eq(wanted()) {
            self.plugins = wanted().collect();
        }
        Arc::clone(&self.plugins)
    }

    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.names.insert(Arc::clone(&name));
        name
    }

    fn forget(&mut self) {
        if self.names.len() > self.limit {
            self.names.retain(|name| Arc::strong_count(name) > 1);
            self.names.shrink_to_fit();
            self.limit = (self.names.len() * 2).max(NAMES);
        }
    }
}

impl Kept {
    /// The record without its lists of nodes.
    pub(super) fn head(&self) -> &Record {
        &self.head
    }

    /// The record as it was.
    pub(super) fn unpack(&self) -> Record {
        let parts = |index: usize| {
            let scores = self.scores.iter().skip(index * self.plugins.len());
            let parts = self.plugins.iter().zip(scores);
            parts.map(|((plugin, weight), score)| Part { plugin, score: i64::from(*score), weight: *weight }).collect()
        };
        let scored = self.scored.iter().enumerate();
        Record {
            scored: scored
                .map(|(index, (node, total))| Scored { node: node.to_string(), total: *total, scores: parts(index) })
                .collect(),
            refused: self
                .refused
                .iter()
                .map(|one| Refused {
                    plugin: one.plugin,
                    reason: one.reason.to_string(),
                    count: one.count,
                    nodes: one.nodes.iter().map(ToString::to_string).collect(),
                })
                .collect(),
            ..self.head.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, nodes: &[&str], plugins: &[&'static str]) -> Record {
        let parts = |first: i64| {
            let parts = plugins.iter().zip(first..);
            parts.map(|(plugin, score)| Part { plugin, score, weight: 2 }).collect()
        };
        let scored = nodes.iter().zip(90..);
        Record {
            name: name.to_owned(),
            scored: scored
                .map(|(node, score)| Scored { node: (*node).to_owned(), total: score * 3, scores: parts(score) })
                .collect(),
            refused: vec![Refused {
                plugin: "NodeName",
                reason: "another".to_owned(),
                count: 30,
                nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
            }],
            ..Record::default()
        }
    }

    #[test]
    fn a_record_comes_out_as_it_went_in() {
        let mut shared = Shared::default();
        for record in [
            record("a", &["n1", "n2", "n3"], &["Fit", "Spread"]),
            record("b", &["n2"], &["Fit", "Spread"]),
            record("c", &["n2", "n9"], &["Fit"]),
            record("d", &[], &[]),
            Record::default(),
        ] {
            let text = |record: &Record| serde_json::to_value(record).unwrap();
            let expect = text(&record);
            assert_eq!(text(&shared.pack(record).unpack()), expect);
        }
    }

    #[test]
    fn names_stand_once_and_go_with_the_last_record() {
        let mut shared = Shared::default();
        let first = shared.pack(record("a", &["n1", "n2"], &["Fit"]));
        let second = shared.pack(record("b", &["n1", "n2"], &["Fit"]));
        assert!(Arc::ptr_eq(&first.scored[1].0, &second.scored[1].0) && Arc::ptr_eq(&first.plugins, &second.plugins));
        drop((first, second));
        let names: Vec<String> = (0..NAMES).map(|index| format!("m{index}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let kept = shared.pack(record("c", &names, &["Fit"]));
        assert!(shared.names.len() > NAMES);
        let last = shared.pack(record("d", &["n7"], &["Fit"]));
        assert!(!shared.names.contains("n1") && shared.names.contains("m7") && shared.names.contains("n7"));
        drop((kept, last));
    }
}
