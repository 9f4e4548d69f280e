//! `coracle history`: the versions of an object that are remembered.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use cluster::Profile;
use http::Request;
use kube::Client;
use serde::Serialize;
use serde_json::Value;

use super::{ask_for, past};
use crate::changes::{self, Change};
use crate::cli::{self, Format};
use crate::commands::{ask, require_running, resources};
use crate::output;

/// How long, in seconds, a server may take to tell what has happened: one that is busy gets more.
const TIMEOUTS: [u8; 4] = [1, 2, 5, 15];
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
        let path = resource.path(Some(&wanted.namespace));
        for timeout in TIMEOUTS {
            match remembered(&client, &path, name, timeout).await {
                Ok(Some(versions)) => return Ok(versions),
                // It took too long, or what was the oldest revision when it began is forgotten.
                Ok(None) => {}
                Err(error) if has_code(&error, 410) => {}
                Err(error) => return Err(error),
            }
        }
        bail!("the API server is too slow to tell the history of {}; try again", wanted.object)
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

/// All that is remembered of an object; nothing if that does not come within so many seconds.
async fn remembered(client: &Client, path: &str, name: &str, timeout: u8) -> Result<Option<Vec<Version>>> {
    // To a watch revision 0 is any; what every cluster has is written in the first.
    let oldest = past(client, "").await?.oldest.number()?.max(1);
    let first = found(ask_for(client, &format!("/at/{oldest}{path}/{name}")).await)?;
    let now = found(ask_for(client, &format!("{path}/{name}")).await)?;
    // What has happened is sent at once, and then the watch ends.
    let watch = format!(
        "{path}?watch=true&allowWatchBookmarks=false&timeoutSeconds={timeout}&resourceVersion={oldest}&fieldSelector=metadata.name%3D{name}"
    );
    let events = client.request_text(Request::get(watch).body(Vec::new())?).await?;
    let versions = versions(first, &events)?;
    Ok(is_complete(&versions, now.as_ref())?.then_some(versions))
}

/// Whether versions reach up to an object as it was found before they were asked for.
fn is_complete(versions: &[Version], now: Option<&Value>) -> Result<bool> {
    let newest =
        versions.last().map(|version| Ok::<_, anyhow::Error>((version.revision.parse::<u64>()?, version.what)));
    Ok(match (newest.transpose()?, now) {
        (Some((newest, _)), Some(now)) => {
            newest >= now["metadata"]["resourceVersion"].as_str().unwrap_or_default().parse::<u64>()?
        }
        (None, Some(_)) => false,
        // It is gone, or was never there.
        (newest, None) => newest.is_none_or(|(_, what)| what == What::Deleted),
    })
}

fn found(answer: Result<Value>) -> Result<Option<Value>> {
    match answer {
        Err(error) if has_code(&error, 404) => Ok(None),
        answer => answer.map(Some),
    }
}

fn has_code(error: &anyhow::Error, code: u16) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == code)
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
            _ => {
                let status: kube::core::Status =
                    serde_json::from_value(object).context("the history cannot be read")?;
                return Err(kube::Error::Api(Box::new(status)).into());
            }
        };
        versions.push(version(what, before.as_ref().filter(|_| what != What::Created), &object));
        before = (what != What::Deleted).then_some(object);
    }
    Ok(versions)
}

fn version(what: What, before: Option<&Value>, object: &Value) -> Version {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let changes = before.map(|before| changes::between(before, object)).unwrap_or_default();
    let entry = author(what, before, object, &changes);
    Version {
        revision: text(&object["metadata"]["resourceVersion"]).unwrap_or_default(),
        time: entry.and_then(|entry| text(&entry["time"])),
        manager: entry.and_then(|entry| text(&entry["manager"])),
        what,
        changes,
    }
}

/// The entry of `metadata.managedFields` of whoever wrote a version: the latest with a new time, or with more fields. A manager
/// who writes the same fields twice in a second leaves its entry as it was; a deletion, a binding, and what only takes fields
/// away leave no entry at all.
fn author<'a>(what: What, before: Option<&Value>, object: &'a Value, changes: &[Change]) -> Option<&'a Value> {
    let latest = |entry: &&Value| entry["time"].as_str().unwrap_or_default().to_owned();
    let (Some(before), What::Changed) = (before, what) else {
        return entries(object).iter().max_by_key(latest).filter(|_| what != What::Deleted);
    };
    let is_of = |entry: &Value, other: &Value| {
        ["manager", "operation", "subresource", "apiVersion"].iter().all(|name| entry[name] == other[name])
    };
    let size = |entry: &Value| entry["fieldsV1"].to_string().len();
    let has_written = |entry: &&Value| match entries(before).iter().find(|earlier| is_of(earlier, entry)) {
        Some(earlier) => earlier["time"] != entry["time"] || size(earlier) < size(entry),
        None => true,
    };
    let again = || {
        let latest = entries(object).iter().max_by_key(latest)?;
        changes.iter().any(|change| owns(&latest["fieldsV1"], &change.path)).then_some(latest)
    };
    entries(object).iter().filter(has_written).max_by_key(latest).or_else(again)
}

fn entries(object: &Value) -> &[Value] {
    object["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Whether a field, or the list that it is in, is among managed fields.
fn owns(fields: &Value, path: &str) -> bool {
    let (path, is_in_list) = path.split_once('[').map_or((path, false), |(list, _)| (list, true));
    let mut fields = Some(fields);
    for name in path.split('.') {
        let below = fields.and_then(|fields| fields.get(format!("f:{name}")));
        // A field without fields is managed as a whole.
        if below.is_some_and(|below| below.as_object().is_some_and(serde_json::Map::is_empty)) {
            return true;
        }
        fields = below;
    }
    fields.is_some() && (is_in_list || path.contains('.'))
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
    let mut changes: Vec<&Change> = version.changes.iter().collect();
    changes.sort_by_key(|change| rank(change));
    let shown: Vec<String> = changes.iter().take(SHOWN).map(ToString::to_string).collect();
    match changes.len() - shown.len() {
        0 => shown.join("; "),
        more => format!("{}; and {more} more", shown.join("; ")),
    }
}

/// What a line has room for comes first: values, then lists and what is in them, then conditions, and last what comes along
/// with these.
fn rank(change: &Change) -> u8 {
    let is_large = |value: &Option<Value>| value.as_ref().is_some_and(|value| value.is_array() || value.is_object());
    let field = change.path.rsplit('.').next().unwrap_or_default();
    let comes_along = field.starts_with("last") && field.ends_with("Time") || field == "observedGeneration";
    let is_condition = change.path.contains("conditions");
    if comes_along || is_condition && ["message", "reason"].contains(&field) {
        3
    } else if is_condition {
        2
    } else {
        u8::from(change.path.contains('[') || is_large(&change.from) || is_large(&change.to))
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
        let error = versions(None, &error).expect_err("an error");
        assert!(error.to_string().contains("too old"), "{error}");
    }

    #[test]
    fn authors_are_those_whose_fields_were_written() {
        let entry = |manager: &str, time: &str, fields: Value| json!({ "manager": manager, "time": format!("2026-01-02T00:00:0{time}Z"), "fieldsV1": fields });
        let pod = |entries: &[Value]| json!({ "metadata": { "managedFields": entries } });
        let creator = entry("controller", "1", json!({ "f:spec": { "f:containers": {} } }));
        let status =
            json!({ "f:status": { "f:phase": {}, "f:conditions": { "k:{\"type\":\"Ready\"}": { ".": {} } } } });
        let kubelet = |time: &str| entry("kubelet", time, status.clone());
        let check = |before: &[Value], now: &[Value], path: &str, expected: Option<&str>| {
            let changes = [Change { path: path.to_owned(), from: None, to: None }];
            let now = pod(now);
            let found = author(What::Changed, Some(&pod(before)), &now, &changes);
            assert_eq!(found.and_then(|entry| entry["manager"].as_str()), expected, "{path}");
        };
        let created = [creator.clone()];
        let running = [creator.clone(), kubelet("2")];
        check(&created, &running, "status.phase", Some("kubelet"));
        check(&running, &[creator.clone(), kubelet("3")], "status.phase", Some("kubelet"));
        // The same fields within a second; and a write that is in nobody's fields, as a binding is.
        check(&running, &running, "status.phase", Some("kubelet"));
        check(&running, &running, "status.conditions[type=Ready].status", Some("kubelet"));
        check(&created, &created, "spec.nodeName", None);
        check(&created, &created, "spec.containers[name=web].image", Some("controller"));
        // What is taken away is in nobody's fields any more, and whoever had it did not write.
        let without = entry("controller", "1", json!({ "f:spec": { "f:a": {} } }));
        check(&created, &[without], "spec.containers[name=web]", None);
        // Whoever comes later may have the older entry changed: its time counts for as long as it changes.
        check(&running, &[entry("controller", "4", json!({})), kubelet("2")], "spec.x", Some("controller"));
    }

    #[test]
    fn what_matters_comes_first() {
        let old = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False", "lastTransitionTime": "1" }],
            "list": [], "phase": "Pending" } });
        let new = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2" }],
            "list": [1], "phase": "Running" } });
        let version = version(What::Changed, Some(&old), &new);
        assert_eq!(
            summary(&version),
            "status.phase: Pending → Running; status.list: [] → [1]; status.conditions[type=Ready].status: False → True; \
             and 1 more"
        );
    }

    #[test]
    fn a_history_that_was_cut_off_is_not_one() {
        let now = |revision: &str| Some(json!({ "metadata": { "resourceVersion": revision } }));
        let check = |versions: &[(&str, What)], now: Option<Value>, expected: bool| {
            let version = |(revision, what): &(&str, What)| Version {
                revision: (*revision).to_owned(),
                time: None,
                manager: None,
                what: *what,
                changes: Vec::new(),
            };
            let versions: Vec<Version> = versions.iter().map(version).collect();
            assert_eq!(is_complete(&versions, now.as_ref()).expect("numbers"), expected, "{versions:?}");
        };
        check(&[("5", What::Found)], now("5"), true);
        check(&[("5", What::Found)], now("10"), false);
        check(&[("5", What::Found), ("11", What::Changed)], now("10"), true);
        check(&[], now("5"), false);
        check(&[], None, true);
        check(&[("5", What::Created)], None, false);
        check(&[("5", What::Created), ("6", What::Deleted)], None, true);
    }

    #[test]
    fn what_is_forgotten_meanwhile_is_asked_for_again() {
        let gone =
            json!({ "kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old" });
        let events = json!({ "type": "ERROR", "object": gone }).to_string();
        let error = versions(None, &events).expect_err("an error");
        assert!(has_code(&error, 410) && !has_code(&error, 404), "{error:?}");
    }
}
