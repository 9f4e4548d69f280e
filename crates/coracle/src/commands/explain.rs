//! `coracle explain pod`: why a pod runs where it does, or what it waits for.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use cluster::Profile;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::Request;
use serde_json::Value;

use super::{ask, require_running};
use crate::cli::{Explain, ExplainPod, Format};
use crate::output;

pub(crate) fn run(profile: &Profile, explain: &Explain) -> Result<ExitCode> {
    require_running(profile)?;
    let Explain::Pod(wanted) = explain;
    let ExplainPod { name, namespace, output } = wanted;
    let (pod, decision) = ask(profile, async |client| {
        let path = format!("/apis/explain.coracle.dev/v1/namespaces/{namespace}/decisions");
        let pod = Api::<Pod>::namespaced(client.clone(), namespace).get_opt(name).await?;
        let request = Request::new(path).get(name, &kube::api::GetParams::default())?;
        let decision = match client.request::<Value>(request).await {
            Ok(object) => Some(object["decision"].clone()),
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => return Err(error.into()),
        };
        Ok((pod, decision))
    })?;
    // A pod of the same name may have been replaced since.
    let same = |decision: &Value| match &pod {
        Some(pod) => decision["uid"].as_str() == pod.metadata.uid.as_deref(),
        None => true,
    };
    match (decision.filter(same), pod) {
        (Some(decision), _) if *output == Format::Json => output::json(&decision)?,
        (Some(decision), _) => output::line(text(&decision)?.trim_end())?,
        (None, None) => bail!("there is no pod {name} in the namespace {namespace}; see: kubectl get pods -A"),
        (None, Some(pod)) => output::line(undecided(&pod))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Why there is no decision about the pod.
fn undecided(pod: &Pod) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let gates: Vec<String> = spec.scheduling_gates.unwrap_or_default().into_iter().map(|gate| gate.name).collect();
    if !gates.is_empty() {
        return format!("The pod {name} waits for its scheduling gates to be removed: {}.", gates.join(", "));
    }
    match spec.node_name {
        Some(node) => format!(
            "The pod {name} is on the node {node}. No decision about it is kept: the latest 512 are, since the last start."
        ),
        None => format!(
            "No scheduler has looked at the pod {name}. It names the scheduler {}.",
            spec.scheduler_name.as_deref().unwrap_or("default-scheduler")
        ),
    }
}

fn text(decision: &Value) -> Result<String> {
    let mut out = String::new();
    let word = |name: &str| decision[name].as_str().unwrap_or_default();
    let number = |name: &str| decision[name].as_u64().unwrap_or(0);
    let list = |name: &str| decision[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let words = |values: &[Value]| values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
    writeln!(out, "Pod:        {}/{}", word("namespace"), word("name"))?;
    match decision["node"].as_str() {
        Some(node) => writeln!(out, "Node:       {node}")?,
        None => writeln!(out, "Node:       none yet")?,
    }
    writeln!(out, "Decided:    {} by {}, attempt {}", word("at"), word("scheduler"), number("attempt"))?;
    writeln!(out, "Took:       {} µs, after {} ms in the queue", number("tookMicros"), number("waitedMillis"))?;
    writeln!(
        out,
        "Nodes:      {} of {} looked at, {} would do",
        number("evaluated"),
        number("nodes"),
        number("feasible")
    )?;
    if let Some(group) = decision["group"].as_str() {
        writeln!(out, "Group:      {group}, placed whole or not at all")?;
    }
    if !word("message").is_empty() {
        writeln!(out, "Message:    {}", word("message"))?;
    }
    for what in list("waitsFor") {
        writeln!(out, "Waits for:  {}", what.as_str().unwrap_or_default())?;
    }
    if let Some(node) = decision["nominated"].as_str() {
        writeln!(out, "Cleared:    {node}, from which have to go: {}", words(list("victims")))?;
    }
    let scored = list("scored");
    if scored.iter().any(|node| !node["scores"].as_array().is_none_or(Vec::is_empty)) {
        writeln!(out, "\nScores (score × weight):")?;
        write!(out, "{}", scores(scored)?)?;
    } else if let Some(only) = scored.first() {
        writeln!(out, "\nOnly {} would do, so no scores were asked for.", only["node"].as_str().unwrap_or_default())?;
    }
    if !list("refused").is_empty() {
        writeln!(out, "\nRefused:")?;
    }
    for refused in list("refused") {
        let (count, nodes) = (refused["count"].as_u64().unwrap_or(0), refused["nodes"].as_array());
        let nodes = nodes.map(Vec::as_slice).unwrap_or_default();
        let more = if (nodes.len() as u64) < count { ", ..." } else { "" };
        writeln!(
            out,
            "  {} by {}: {} ({}{more})",
            count,
            refused["plugin"].as_str().unwrap_or_default(),
            refused["reason"].as_str().unwrap_or_default(),
            words(nodes)
        )?;
    }
    Ok(out)
}

/// One line for each node: total, then each plugin's score and weight.
fn scores(scored: &[Value]) -> Result<String> {
    let first = scored.first().context("no node")?;
    let parts = |node: &Value| node["scores"].as_array().cloned().unwrap_or_default();
    let mut rows = vec![vec!["NODE".to_owned(), "TOTAL".to_owned()]];
    rows[0].extend(parts(first).iter().map(|part| part["plugin"].as_str().unwrap_or_default().to_owned()));
    for node in scored {
        let mut row = vec![node["node"].as_str().unwrap_or_default().to_owned(), node["total"].to_string()];
        row.extend(parts(node).iter().map(|part| format!("{} × {}", part["score"], part["weight"])));
        rows.push(row);
    }
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        writeln!(out, "  {}", cells.join("  ").trim_end())?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_decision_reads_as_a_table() {
        let part =
            |plugin: &str, score: i64, weight: i64| json!({ "plugin": plugin, "score": score, "weight": weight });
        let decision = json!({
            "namespace": "n", "name": "p", "node": "b", "at": "2026-01-01T00:00:00Z", "scheduler": "default-scheduler",
            "attempt": 1, "tookMicros": 80, "waitedMillis": 2, "nodes": 3, "evaluated": 3, "feasible": 2,
            "scored": [
                { "node": "b", "total": 350, "scores": [part("TaintToleration", 100, 3), part("NodeResourcesFit", 50, 1)] },
                { "node": "a", "total": 0, "scores": [part("TaintToleration", 0, 3), part("NodeResourcesFit", 0, 1)] },
            ],
            "refused": [{ "plugin": "NodeAffinity", "reason": "node(s) didn't match", "count": 1, "nodes": ["c"] }],
        });
        let text = text(&decision).expect("a text");
        for line in [
            "Node:       b",
            "Nodes:      3 of 3 looked at, 2 would do",
            "  NODE  TOTAL  TaintToleration  NodeResourcesFit",
            "  b     350    100 × 3          50 × 1",
            "  a     0      0 × 3            0 × 1",
            "  1 by NodeAffinity: node(s) didn't match (c)",
        ] {
            assert!(text.lines().any(|actual| actual == line), "{line:?} is missing in\n{text}");
        }
    }
}
