//! The scheduler's latest decision about a pod.

use std::fmt::Write;

use anyhow::{Context, Result};
use jiff::Timestamp;
use kube::Client;
use kube::api::Request;
use serde_json::Value;

/// The decision that is kept about a pod of this name; nothing if there is none, or if the API server keeps none.
pub(super) async fn of_pod(client: &Client, namespace: &str, name: &str) -> Result<Option<Value>> {
    let path = format!("/apis/explain.coracle.dev/v1/namespaces/{namespace}/decisions");
    let request = Request::new(path).get(name, &kube::api::GetParams::default())?;
    match client.request::<Value>(request).await {
        Ok(object) => Ok(Some(object["decision"].clone())),
        Err(kube::Error::Api(status)) if [403, 404].contains(&status.code) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The decision as people read it.
pub(super) fn text(decision: &Value) -> Result<String> {
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
    out.push_str(&verdicts(decision)?);
    if !list("earlier").is_empty() {
        writeln!(out, "\nEarlier attempts:")?;
    }
    for attempts in list("earlier") {
        let time = |name: &str| attempts[name].as_str().and_then(|at| at.parse::<Timestamp>().ok());
        let (from, to) = (attempts["from"].as_u64().unwrap_or(0), attempts["to"].as_u64().unwrap_or(0));
        let time = |name: &str| time(name).map(|at| at.strftime("%H:%M:%S").to_string()).unwrap_or_default();
        let (since, until) = (time("since"), time("until"));
        let which =
            if from == to { format!("{from} at {since}") } else { format!("{from} to {to}, {since} to {until}") };
        writeln!(out, "  {which}: {}", attempts["outcome"].as_str().unwrap_or_default())?;
    }
    Ok(out)
}

/// What became of each node: the scores of those that would do, and why the others would not.
pub(in crate::commands) fn verdicts(decision: &Value) -> Result<String> {
    let mut out = String::new();
    let list = |name: &str| decision[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let words = |values: &[Value]| values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
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
