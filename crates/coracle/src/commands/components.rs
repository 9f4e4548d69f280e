//! The components of a cluster, as its daemon tells of them.

use anyhow::Result;
use http::Request;
use kube::Client;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const PATH: &str = "/apis/stepping.coracle.dev/v1/components";

/// Components.
#[derive(Debug, Deserialize)]
struct List {
    items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    metadata: Name,
    status: Figures,
}

#[derive(Debug, Deserialize)]
struct Name {
    name: String,
}

/// A component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Component {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) figures: Figures,
}

/// What is known of a component.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Figures {
    /// The group by which it can be paused with others.
    pub(super) group: Option<String>,
    pub(super) pausable: bool,
    pub(super) paused: bool,
    /// How many keys wait.
    pub(super) waiting: u64,
    pub(super) next: Option<Next>,
    pub(super) running: u64,
    /// How many reconciles have ended, and how many of them failed.
    pub(super) reconciles: u64,
    pub(super) failures: u64,
    /// How long the latest ones took on average.
    pub(super) latest_took_micros: Option<u64>,
}

/// The key that is worked on next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Next {
    pub(super) key: String,
    pub(super) waited_millis: u64,
}

impl List {
    fn components(self) -> Vec<Component> {
        let component = |item: Item| Component { name: item.metadata.name, figures: item.status };
        self.items.into_iter().map(component).collect()
    }
}

/// All components, by name.
pub(super) async fn list(client: &Client) -> Result<Vec<Component>> {
    let request = Request::get(PATH).body(Vec::new())?;
    Ok(client.request::<List>(request).await?.components())
}

/// The names of all components that can be paused, and of their groups.
pub(crate) async fn names(client: &Client) -> Result<Vec<String>> {
    let pausable = list(client).await?.into_iter().filter(|component| component.figures.pausable);
    let mut names: Vec<String> =
        pausable.flat_map(|component| component.figures.group.into_iter().chain([component.name])).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Pauses or resumes; the answer is what was meant, or was paused.
pub(super) async fn change(client: &Client, what: &str, verb: &str) -> Result<Vec<Component>> {
    Ok(post::<List>(client, what, verb).await?.components())
}

/// Asks for what a subresource of a component, or of a group, does.
pub(super) async fn post<T: DeserializeOwned>(client: &Client, what: &str, verb: &str) -> Result<T> {
    let request = Request::post(format!("{PATH}/{what}/{verb}")).body(Vec::new())?;
    Ok(client.request(request).await?)
}

/// What is paused, in few words: a group whose parts all are is named instead of them.
pub(super) fn paused(components: &[Component]) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for component in components.iter().filter(|component| component.figures.paused) {
        let group = &component.figures.group;
        let mut of_group = components.iter().filter(|other| group.is_some() && other.figures.group == *group);
        let word = match group {
            Some(group) if of_group.all(|other| other.figures.paused) => group,
            _ => &component.name,
        };
        if !words.contains(word) {
            words.push(word.clone());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_paused_is_said_in_few_words() {
        let all = [
            ("deployment", Some("controllers")),
            ("extra_node", None),
            ("kube-scheduler", Some("scheduler")),
            ("replicaset", Some("controllers")),
        ];
        let check = |paused_names: &[&str], expected: &[&str]| {
            let component = |(name, group): (&str, Option<&str>)| Component {
                name: name.to_owned(),
                figures: Figures {
                    group: group.map(str::to_owned),
                    paused: paused_names.contains(&name),
                    ..Figures::default()
                },
            };
            assert_eq!(paused(&all.map(component)), expected);
        };
        check(&[], &[]);
        check(&["deployment"], &["deployment"]);
        check(&["deployment", "replicaset", "kube-scheduler"], &["controllers", "scheduler"]);
        check(&["deployment", "extra_node"], &["deployment", "extra_node"]);
    }
}
