//! `coracle history`: the versions of an object that are remembered.

use std::process::ExitCode;

use anyhow::{Result, bail};
use cluster::Profile;
use http::Request;
use serde::Serialize;
use serde_json::Value;

use super::{ask_for, past, resources};
use crate::changes::{self, Change};
use crate::cli::{self, Format};
use crate::commands::{ask, require_running};
use crate::output;

/// So many changes of a version are shown in a line.
const SHOWN: usize = 3;

/// A version of an object.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    revision: String,
    /// When its fields were last set; of a deletion nobody has noted it.
    time: Option<String>,
    /// Who set them.
    manager: Option<String>,
    what: What,
    changes: Vec<Change>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum What {
    /// It was there when the history begins.
    Found,
    Created,
    Changed,
    Deleted,
}

pub(crate) fn run(profile: &Profile, wanted: &cli::HistoryOf) -> Result<ExitCode> {
    require_running(profile)?;
    let versions = ask(profile, async |client| {
        let all = resources::all(&client).await?;
        let (resource, name) = resources::find(&all, &wanted.object)?;
        // To a watch revision 0 is any; what every cluster has is written in the first.
        let oldest = past(&client, "").await?.oldest.number()?.max(1);
        let path = resource.path(Some(&wanted.namespace));
        let first = match ask_for(&client, &format!("/at/{oldest}{path}/{name}")).await {
            Ok(object) => Some(object),
            Err(error) if is_not_found(&error) => None,
            Err(error) => return Err(error),
        };
        // What has happened is sent at once, and then the watch ends.
        let watch = format!(
            "{path}?watch=true&allowWatchBookmarks=false&timeoutSeconds=1&resourceVersion={oldest}&fieldSelector=metadata.name%3D{name}"
        );
        let events = client.request_text(Request::get(watch).body(Vec::new())?).await?;
        versions(first, &events)
    })?;
    if versions.is_empty() {
        bail!("there is no {} in what is remembered; see: coracle at --help", wanted.object);
    }
    match wanted.output {
        Format::Json => output::json(&versions)?,
        Format::Text => table(&versions).iter().try_for_each(output::line)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn is_not_found(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 404)
}

/// The versions of an object: what was there first, and what a watch tells, an event in a line.
fn versions(first: Option<Value>, events: &str) -> Result<Vec<Version>> {
    let mut versions: Vec<Version> = first.iter().map(|object| version(What::Found, None, object)).collect();
    let mut before = first;
    for line in events.lines().filter(|line| !line.trim().is_empty()) {
        let mut event: Value = serde_json::from_str(line)?;
        let object = event["object"].take();
        let what = match event["type"].as_str().unwrap_or_default() {
            "ADDED" => What::Created,
            "MODIFIED" => What::Changed,
            "DELETED" => What::Deleted,
            // An error, such as that all of this has just been forgotten.
            _ => bail!("{}", object["message"].as_str().unwrap_or("the history cannot be read")),
        };
        versions.push(version(what, before.as_ref().filter(|_| what != What::Created), &object));
        before = (what != What::Deleted).then_some(object);
    }
    Ok(versions)
}

fn version(what: What, before: Option<&Value>, object: &Value) -> Version {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let fields = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let latest = fields.iter().max_by_key(|entry| entry["time"].as_str().unwrap_or_default().to_owned());
    let latest = latest.filter(|_| what != What::Deleted);
    Version {
        revision: text(&object["metadata"]["resourceVersion"]).unwrap_or_default(),
        time: latest.and_then(|entry| text(&entry["time"])),
        manager: latest.and_then(|entry| text(&entry["manager"])),
        what,
        changes: before.map(|before| changes::between(before, object)).unwrap_or_default(),
    }
}

fn table(versions: &[Version]) -> Vec<String> {
    let wide = |text: fn(&Version) -> usize, least: usize| versions.iter().map(text).max().unwrap_or(0).max(least);
    let revision = wide(|version| version.revision.len(), 8);
    let manager = wide(|version| version.manager.as_ref().map_or(1, String::len), 2);
    let mut lines = vec![format!("{:<revision$}  {:<20}  {:<manager$}  WHAT", "REVISION", "TIME", "BY")];
    for version in versions {
        let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let line = format!(
            "{:<revision$}  {:<20}  {:<manager$}  {}",
            version.revision,
            or(&version.time),
            or(&version.manager),
            summary(version)
        );
        lines.push(line.trim_end().to_owned());
    }
    lines
}

fn summary(version: &Version) -> String {
    match version.what {
        What::Found => return "as it was when the history begins".to_owned(),
        What::Created => return "created".to_owned(),
        What::Deleted => return "deleted".to_owned(),
        What::Changed => {}
    }
    let shown: Vec<String> = version.changes.iter().take(SHOWN).map(ToString::to_string).collect();
    match version.changes.len() - shown.len() {
        0 => shown.join("; "),
        more => format!("{}; and {more} more", shown.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(revision: &str, manager: &str, time: &str, spec: Value) -> Value {
        let older = json!({ "manager": "older", "time": "2026-01-01T00:00:00Z" });
        let fields = json!([{ "manager": manager, "time": time }, older]);
        json!({ "metadata": { "name": "web", "resourceVersion": revision, "managedFields": fields }, "spec": spec })
    }

    #[test]
    fn each_version_says_what_it_changed() {
        let first = object("5", "kubectl", "2026-01-02T00:00:00Z", json!({ "a": 1 }));
        let event = |kind: &str, object: Value| json!({ "type": kind, "object": object }).to_string();
        let events = [
            event("MODIFIED", object("7", "hpa", "2026-01-02T00:00:05Z", json!({ "a": 2, "b": 1, "c": 1, "d": 1 }))),
            event("DELETED", object("9", "hpa", "2026-01-02T00:00:05Z", json!({ "a": 2 }))),
            event("ADDED", object("11", "kubectl", "2026-01-02T00:01:00Z", json!({ "a": 1 }))),
        ]
        .join("\n");
        let lines = table(&versions(Some(first), &events).expect("versions"));
        assert_eq!(
            lines,
            [
                "REVISION  TIME                  BY       WHAT",
                "5         2026-01-02T00:00:00Z  kubectl  as it was when the history begins",
                "7         2026-01-02T00:00:05Z  hpa      spec.a: 1 → 2; spec.b: + 1; spec.c: + 1; and 1 more",
                "9         -                     -        deleted",
                "11        2026-01-02T00:01:00Z  kubectl  created",
            ]
        );
        assert_eq!(versions(None, "").expect("none"), []);
        let error = json!({ "type": "ERROR", "object": { "message": "too old" } }).to_string();
        assert_eq!(versions(None, &error).expect_err("an error").to_string(), "too old");
    }
}
