//! `coracle schedule --dry-run`: where a pod would go, and why, without creating it.
//!
//! The API server admits the pod by a create with `dryRun=All`, so that defaults, priority and what is injected are in it;
//! then the scheduler is asked what it would decide about the result now.

mod manifest;

use std::fmt::Write;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use cluster::Profile;
use http::Request;
use http::header::CONTENT_TYPE;
use kube::Client;
use serde_json::{Value, json};

use super::explain::decision;
use super::{ask, require_running};
use crate::cli::{Format, Schedule};
use crate::output;

/// A manifest is read whole.
const MOST: u64 = 4 << 20;

pub(crate) fn run(profile: &Profile, wanted: &Schedule) -> Result<ExitCode> {
    require_running(profile)?;
    let file = &wanted.filename;
    let text = read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let pod = manifest::pod(&text).with_context(|| format!("cannot use {}", file.display()))?;
    let namespace = namespace(&pod, wanted.namespace.as_deref())?;
    let decision = ask(profile, async |client| {
        let admitted = admit(&client, &namespace, pod).await?;
        let path = format!("/apis/explain.coracle.dev/v1/namespaces/{namespace}/schedulingreviews");
        let review = json!({
            "apiVersion": "explain.coracle.dev/v1", "kind": "SchedulingReview", "spec": { "pod": admitted },
        });
        let mut review = post(&client, &path, &review).await?;
        Ok(review["status"].take())
    })?;
    match wanted.output {
        Format::Json => output::json(&decision)?,
        Format::Text => {
            output::line(self::text(&decision)?.trim_end())?;
            output::note("\nNothing was created, bound or preempted.");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = match file.to_str() {
        Some("-") => io::stdin().lock().take(MOST).read_to_string(&mut text)?,
        _ => fs::File::open(file)?.take(MOST).read_to_string(&mut text)?,
    };
    if read as u64 == MOST {
        return Err(io::Error::other("it is too large for a manifest"));
    }
    Ok(text)
}

/// The pod's own namespace, or else the one that is typed.
fn namespace(pod: &Value, typed: Option<&str>) -> Result<String> {
    match (pod["metadata"]["namespace"].as_str(), typed) {
        (Some(own), Some(typed)) if own != typed => {
            bail!("the manifest is for the namespace {own}, and --namespace says {typed}: leave one of them out")
        }
        (own, typed) => Ok(own.or(typed).unwrap_or("default").to_owned()),
    }
}

/// The pod as a create would store it. If there is one of its name, as another one.
async fn admit(client: &Client, namespace: &str, mut pod: Value) -> Result<Value> {
    let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    match post(client, &path, &pod).await {
        Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {
            bail!("{}; create it with: kubectl create namespace {namespace}", status.message)
        }
        answer => return Ok(answer?),
    }
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    output::note(format!("There is a pod {name} already; this is about another one like it."));
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        metadata.remove("name");
        metadata.insert("generateName".to_owned(), format!("{name}-").into());
    }
    Ok(post(client, &path, &pod).await?)
}

async fn post(client: &Client, path: &str, object: &Value) -> kube::Result<Value> {
    let request = Request::post(path).header(CONTENT_TYPE, "application/json");
    let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
    client.request(request.body(body).map_err(kube::Error::HttpError)?).await
}

/// What the scheduler would decide, for people.
fn text(decision: &Value) -> Result<String> {
    let mut out = String::new();
    let word = |name: &str| decision[name].as_str().unwrap_or_default();
    let number = |name: &str| decision[name].as_u64().unwrap_or(0);
    let words =
        |name: &str| decision[name].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>();
    writeln!(out, "Pod:        {}/{}", word("namespace"), word("name"))?;
    writeln!(out, "Node:       {}", decision["node"].as_str().unwrap_or("none"))?;
    writeln!(out, "Scheduler:  {}; {} of {} nodes would do", word("scheduler"), number("feasible"), number("nodes"))?;
    if let Some(group) = decision["group"].as_str() {
        writeln!(out, "Group:      {group}, placed whole or not at all; this is about the pod alone")?;
    }
    if !word("message").is_empty() {
        writeln!(out, "Message:    {}", word("message"))?;
    }
    for what in words("waitsFor") {
        writeln!(out, "Waits for:  {what}")?;
    }
    if let Some(node) = decision["nominated"].as_str() {
        writeln!(out, "Preempts:   {}, to make room on {node}", words("victims").join(", "))?;
    }
    out.push_str(&decision::verdicts(decision)?);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_is_said_once() {
        let pod = |namespace: Option<&str>| json!({ "metadata": { "namespace": namespace } });
        for (own, typed, expected) in [
            (None, None, Some("default")),
            (None, Some("a"), Some("a")),
            (Some("a"), None, Some("a")),
            (Some("a"), Some("a"), Some("a")),
            (Some("a"), Some("b"), None),
        ] {
            assert_eq!(namespace(&pod(own), typed).ok().as_deref(), expected, "{own:?} {typed:?}");
        }
    }

    #[test]
    fn who_would_have_to_go() {
        let decision = json!({
            "namespace": "n", "name": "p", "scheduler": "default-scheduler", "nodes": 2, "feasible": 0, "evaluated": 2,
            "message": "0/2 nodes are available: 2 Insufficient cpu.", "nominated": "b", "victims": ["n/x", "m/y"],
            "refused": [{ "plugin": "NodeResourcesFit", "reason": "Insufficient cpu", "count": 2, "nodes": ["a", "b"] }],
        });
        let expected = "Pod:        n/p\nNode:       none\nScheduler:  default-scheduler; 0 of 2 nodes would do\n\
            Message:    0/2 nodes are available: 2 Insufficient cpu.\nPreempts:   n/x, m/y, to make room on b\n\n\
            Refused:\n  2 by NodeResourcesFit: Insufficient cpu (a, b)\n";
        assert_eq!(text(&decision).expect("a text"), expected);
    }
}
