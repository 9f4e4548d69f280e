//! `coracle node`: further nodes for the cluster.

use std::collections::{BTreeMap, HashSet};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cluster::Profile;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use machinery::quantity::Quantity as Amount;
use machinery::well_known::{
    ARCH, CONTROL_PLANE, EXTRA_NODE, FAKE_NODE, HOSTNAME, MAX_PODS, NODE_CAPACITY, OS, is_fake_node,
};

use super::{ask, require_running};
use crate::cli::{NodeAdd, NodeCommand, NodeDelete};
use crate::output;

/// The taint of a fake node: pods that could run for real do, and only those that fit nowhere else seem to.
const FAKE_EFFECT: &str = "PreferNoSchedule";
/// The label by which kubectl shows what it is: `fake` among the ROLES.
const FAKE_ROLE: &str = "node-role.kubernetes.io/fake";
/// How often it is looked whether nodes are Ready.
const LOOK: Duration = Duration::from_millis(50);
const GPU: &str = "nvidia.com/gpu";
/// So many requests are under way at once.
const AT_ONCE: usize = 16;

pub(crate) fn run(profile: &Profile, command: &NodeCommand) -> Result<ExitCode> {
    match command {
        NodeCommand::Stop(_) => bail!(
            "nodes do not stop one by one: take one out of use with kubectl drain NODE --ignore-daemonsets, or end it with \
             coracle node delete NODE"
        ),
        NodeCommand::Start(_) => {
            bail!("nodes run as long as the cluster: take one into use again with kubectl uncordon NODE")
        }
        NodeCommand::Add(add) => require_running(profile).and_then(|()| self::add(profile, add)),
        NodeCommand::List => require_running(profile).and_then(|()| list(profile)),
        NodeCommand::Delete(delete) => require_running(profile).and_then(|()| self::delete(profile, delete)),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn add(profile: &Profile, add: &NodeAdd) -> Result<()> {
    let make = if add.fake { fake_node } else { here };
    let nodes = names(&add.name, add.count).map(|name| make(name, add)).collect::<Result<Vec<_>>>()?;
    ask(profile, async |client| create(client, &nodes).await)?;
    let fake = if add.fake { " (fake)" } else { "" };
    output::note(match nodes.len() {
        1 => format!("Added the node {}{fake}.", add.name),
        count => format!("Added {count} nodes{fake}: {0}-0 to {0}-{1}.", add.name, count - 1),
    });
    Ok(())
}

async fn create(client: Client, nodes: &[Node]) -> Result<()> {
    let api: Api<Node> = Api::all(client);
    let created = stream::iter(nodes).map(async |node| {
        let name = node.metadata.name.clone().unwrap_or_default();
        let created = api.create(&PostParams::default(), node).await;
        created.map(drop).with_context(|| format!("cannot add the node {name}"))
    });
    created.buffer_unordered(AT_ONCE).try_collect::<()>().await
}

/// Adds those of the nodes with these names that are not there.
async fn create_missing(client: Client, names: Vec<String>, make: impl Fn(String) -> Result<Node>) -> Result<()> {
    let known: HashSet<String> =
        nodes(client.clone()).await?.into_iter().filter_map(|node| node.metadata.name).collect();
    let missing = names.into_iter().filter(|name| !known.contains(name)).map(make).collect::<Result<Vec<_>>>()?;
    create(client, &missing).await
}

/// Adds what is missing of `count` nodes, the first of which is the cluster's own, and waits until all are Ready.
pub(super) fn ensure(profile: &Profile, count: u16, wait: Option<Instant>) -> Result<()> {
    let names: Vec<String> = (2..=count).map(|number| format!("{}-m{number:02}", profile.name())).collect();
    ask(profile, async |client| {
        create_missing(client.clone(), names.clone(), |name| Ok(here_with(name, BTreeMap::new()))).await?;
        let is_ready = |name: &String, nodes: &[Node]| {
            let node = nodes.iter().find(|node| node.metadata.name.as_ref() == Some(name));
            super::status::readiness(node) == "Ready"
        };
        while let Some(deadline) = wait {
            let known = nodes(client.clone()).await?;
            let Some(waiting) = names.iter().find(|name| !is_ready(name, &known)) else { break };
            if Instant::now() > deadline {
                bail!("the node {waiting} did not get ready in time; see: coracle logs -p {}", profile.name());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    })
}

/// Adds what is missing of `count` fake nodes.
pub(super) fn ensure_fake(profile: &Profile, count: u16) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    let add = NodeAdd {
        name: "fake".to_owned(),
        fake: true,
        cpu: None,
        memory: None,
        gpu: None,
        pods: MAX_PODS,
        labels: Vec::new(),
        annotations: Vec::new(),
        taints: Vec::new(),
        count,
    };
    ask(profile, async |client| {
        let names = (0..count).map(|number| format!("fake-{number}")).collect();
        create_missing(client, names, |name| fake_node(name, &add)).await
    })
}

/// `NAME`, or with a count above one `NAME-0`, `NAME-1` and so on.
fn names(name: &str, count: u16) -> impl Iterator<Item = String> {
    (0..count).map(move |number| if count == 1 { name.to_owned() } else { format!("{name}-{number}") })
}

/// A node whose pods run on this machine: its kubelet fills in the rest.
fn here(name: String, add: &NodeAdd) -> Result<Node> {
    let pods = (add.pods != MAX_PODS).then(|| add.pods.to_string());
    let amounts = [
        ("cpu", add.cpu.clone()),
        ("memory", add.memory.clone()),
        ("pods", pods),
        (GPU, add.gpu.map(|gpu| gpu.to_string())),
    ];
    let offered: BTreeMap<&str, String> =
        amounts.into_iter().filter_map(|(name, amount)| Some((name, amount?))).collect();
    for (what, amount) in &offered {
        amount.parse::<Amount>().ok().with_context(|| format!("{amount:?} is no amount of {what}; write 2 or 4Gi"))?;
    }
    let mut node = here_with(name, offered);
    node.metadata.labels = Some(labels(add)?).filter(|labels| !labels.is_empty());
    node.spec = Some(NodeSpec { taints: taints(add)?, ..NodeSpec::default() });
    Ok(node)
}

fn here_with(name: String, offered: BTreeMap<&str, String>) -> Node {
    let mut annotations = BTreeMap::from([(EXTRA_NODE.0.to_owned(), EXTRA_NODE.1.to_owned())]);
    if !offered.is_empty() {
        annotations.insert(NODE_CAPACITY.to_owned(), serde_json::json!(offered).to_string());
    }
    let metadata = ObjectMeta { name: Some(name), annotations: Some(annotations), ..ObjectMeta::default() };
    Node { metadata, ..Node::default() }
}

fn fake_node(name: String, add: &NodeAdd) -> Result<Node> {
    let mut all = BTreeMap::from(
        [(HOSTNAME, name.as_str()), (OS, "linux"), (ARCH, "amd64"), (FAKE_ROLE, "")]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    all.extend(labels(add)?);
    let mut annotations = pairs(&add.annotations, "annotation")?;
    annotations.insert(FAKE_NODE.0.to_owned(), FAKE_NODE.1.to_owned());
    let or = |amount: &Option<String>, default: &str| amount.clone().unwrap_or_else(|| default.to_owned());
    let mut offered = BTreeMap::from(
        [("cpu", or(&add.cpu, "8")), ("memory", or(&add.memory, "32Gi")), ("pods", add.pods.to_string())]
            .map(|(name, amount)| (name.to_owned(), Quantity(amount))),
    );
    if let Some(gpu) = add.gpu {
        offered.insert(GPU.to_owned(), Quantity(gpu.to_string()));
    }
    Ok(Node {
        metadata: ObjectMeta {
            name: Some(name),
            labels: Some(all),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec { taints: Some(taints_of_fake_node(add)?), ..NodeSpec::default() }),
        status: Some(NodeStatus {
            capacity: Some(offered.clone()),
            allocatable: Some(offered),
            ..NodeStatus::default()
        }),
    })
}

fn labels(add: &NodeAdd) -> Result<BTreeMap<String, String>> {
    pairs(&add.labels, "label")
}

/// What stands before and behind the first `=` of each text.
fn pairs(texts: &[String], what: &str) -> Result<BTreeMap<String, String>> {
    let pair = |text: &String| {
        let (key, value) = text.split_once('=').with_context(|| format!("{text:?} is no {what}; write key=value"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    texts.iter().map(pair).collect()
}

fn taints(add: &NodeAdd) -> Result<Option<Vec<Taint>>> {
    let taints: Vec<Taint> = add.taints.iter().map(|text| taint(text)).collect::<Result<_>>()?;
    Ok((!taints.is_empty()).then_some(taints))
}

/// The taints that were asked for, and the one that keeps pods on real nodes while there is room, unless its key was given.
fn taints_of_fake_node(add: &NodeAdd) -> Result<Vec<Taint>> {
    let mut taints = taints(add)?.unwrap_or_default();
    if !taints.iter().any(|taint| taint.key == FAKE_NODE.0) {
        let (key, value) = (FAKE_NODE.0.to_owned(), Some(FAKE_NODE.1.to_owned()));
        taints.push(Taint { key, value, effect: FAKE_EFFECT.to_owned(), time_added: None });
    }
    Ok(taints)
}

/// `key=value:Effect` or `key:Effect`, as `kubectl taint` takes it.
fn taint(text: &str) -> Result<Taint> {
    let wrong =
        || format!("{text:?} is no taint; write key=value:Effect, with NoSchedule, PreferNoSchedule or NoExecute");
    let (subject, effect) = text.rsplit_once(':').with_context(wrong)?;
    let (key, value) = match subject.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (subject, None),
    };
    if key.is_empty() || !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
        bail!(wrong());
    }
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

fn list(profile: &Profile) -> Result<()> {
    let nodes = ask(profile, async |client| Ok(nodes(client).await?))?;
    let mut rows = vec![["NAME", "STATUS", "KIND", "CPU", "MEMORY", "GPU", "PODS", "TAINTS"].map(str::to_owned)];
    rows.extend(nodes.iter().map(row));
    let widths: Vec<usize> =
        (0..rows[0].len()).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        output::line(cells.join("   ").trim_end())?;
    }
    Ok(())
}

async fn nodes(client: Client) -> kube::Result<Vec<Node>> {
    Ok(Api::<Node>::all(client).list(&ListParams::default()).await?.items)
}

fn row(node: &Node) -> [String; 8] {
    let status = node.status.as_ref();
    let offered = |name: &str| {
        let amounts = status.and_then(|status| status.allocatable.as_ref());
        amounts.and_then(|amounts| amounts.get(name)).map_or_else(|| "-".to_owned(), |amount| amount.0.clone())
    };
    let spec = node.spec.as_ref();
    let taints = spec.and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
    let taints: Vec<String> = taints
        .map(|taint| match &taint.value {
            Some(value) => format!("{}={value}:{}", taint.key, taint.effect),
            None => format!("{}:{}", taint.key, taint.effect),
        })
        .collect();
    [
        node.metadata.name.clone().unwrap_or_default(),
        super::status::readiness(Some(node)).to_owned(),
        kind(node).to_owned(),
        offered("cpu"),
        offered("memory"),
        offered(GPU),
        offered("pods"),
        if taints.is_empty() { "-".to_owned() } else { taints.join(",") },
    ]
}

/// `fake`, `control-plane` for the node that the cluster came with, else `worker`.
fn kind(node: &Node) -> &'static str {
    let labels = node.metadata.labels.as_ref();
    if is_fake_node(node.metadata.annotations.as_ref()) {
        "fake"
    } else if labels.is_some_and(|labels| labels.contains_key(CONTROL_PLANE)) {
        "control-plane"
    } else {
        "worker"
    }
}

fn delete(profile: &Profile, wanted: &NodeDelete) -> Result<()> {
    if wanted.names.is_empty() && !wanted.fake {
        bail!("say which nodes: coracle node delete NAME..., or --fake for all fake nodes");
    }
    let deleted = ask(profile, async |client| {
        let known = nodes(client.clone()).await?;
        let mut names = Vec::new();
        for name in &wanted.names {
            // One name stands for all nodes of `add --count`, too.
            let numbered = |other: &&Node| is_numbered(other.metadata.name.as_deref().unwrap_or_default(), name);
            let exact = known.iter().find(|node| node.metadata.name.as_ref() == Some(name));
            let found: Vec<&Node> = match exact {
                Some(node) => vec![node],
                None => known.iter().filter(|node| kind(node) == "fake").filter(numbered).collect(),
            };
            if found.is_empty() {
                bail!("there is no node {name}; see: coracle node list");
            }
            if found.iter().any(|node| kind(node) == "control-plane") {
                bail!("the node {name} is the cluster's own; to delete the cluster: coracle delete");
            }
            names.extend(found.into_iter().filter_map(|node| node.metadata.name.clone()));
        }
        if wanted.fake {
            let fakes = known.iter().filter(|node| kind(node) == "fake");
            names.extend(fakes.filter_map(|node| node.metadata.name.clone()));
        }
        names.sort();
        names.dedup();
        let api: Api<Node> = Api::all(client);
        let deletions = stream::iter(&names).map(async |name| {
            let deleted = api.delete(name, &DeleteParams::default()).await;
            deleted.map(drop).with_context(|| format!("cannot delete the node {name}"))
        });
        deletions.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        Ok(names.len())
    })?;
    output::note(match deleted {
        1 => "Deleted 1 node.".to_owned(),
        count => format!("Deleted {count} nodes."),
    });
    Ok(())
}

/// Whether `name` is `base-NUMBER`.
fn is_numbered(name: &str, base: &str) -> bool {
    let number = name.strip_prefix(base).and_then(|rest| rest.strip_prefix('-'));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn taints_read_as_kubectl_writes_them() {
        let check = |text: &str, expected: Option<(&str, Option<&str>, &str)>| {
            let taint = taint(text).ok();
            let actual = taint.as_ref().map(|it| (it.key.as_str(), it.value.as_deref(), it.effect.as_str()));
            assert_eq!(actual, expected, "{text}");
        };
        check("gpu=a100:NoSchedule", Some(("gpu", Some("a100"), "NoSchedule")));
        check("gpu:NoExecute", Some(("gpu", None, "NoExecute")));
        check("example.com/a=:PreferNoSchedule", Some(("example.com/a", Some(""), "PreferNoSchedule")));
        for wrong in ["gpu", "gpu=a", "gpu:Never", ":NoSchedule", "=a:NoSchedule"] {
            check(wrong, None);
        }
    }

    #[test]
    fn pods_prefer_real_nodes_to_fake_ones() {
        let check = |given: &[&str], expected: &[&str]| {
            let taints = given.iter().flat_map(|taint| ["--taint", taint]);
            let arguments = ["coracle", "node", "add", "n", "--fake"].into_iter().chain(taints);
            let parsed = crate::cli::Arguments::try_parse_from(arguments).expect("valid");
            let crate::cli::Command::Node(NodeCommand::Add(add)) = parsed.command else { panic!("node add") };
            let node = fake_node("n".to_owned(), &add).expect("a node");
            let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
            let taints: Vec<String> = taints
                .iter()
                .map(|taint| format!("{}={}:{}", taint.key, taint.value.as_deref().unwrap_or_default(), taint.effect))
                .collect();
            assert_eq!(taints, expected, "{given:?}");
        };
        check(&[], &["kwok.x-k8s.io/node=fake:PreferNoSchedule"]);
        check(&["gpu=a:NoSchedule"], &["gpu=a:NoSchedule", "kwok.x-k8s.io/node=fake:PreferNoSchedule"]);
        check(&["kwok.x-k8s.io/node=fake:NoSchedule"], &["kwok.x-k8s.io/node=fake:NoSchedule"]);
    }

    #[test]
    fn many_nodes_are_numbered() {
        assert_eq!(names("a", 1).collect::<Vec<_>>(), ["a"]);
        assert_eq!(names("a", 2).collect::<Vec<_>>(), ["a-0", "a-1"]);
        assert!(is_numbered("a-10", "a") && !is_numbered("a", "a") && !is_numbered("a-x", "a"));
        assert!(!is_numbered("ab-1", "a") && !is_numbered("a-", "a"));
    }
}
