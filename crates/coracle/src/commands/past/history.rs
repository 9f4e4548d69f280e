//! `coracle history`: the versions of an object that are remembered.

use std::process::ExitCode;

use anyhow::{Result, bail};
use cluster::Profile;
use cluster::timeline::{Entry, What as Happened, Writer};
use jiff::Timestamp;
use kube::Client;
use machinery::changes::{self, Change};
use serde::Serialize;
use serde_json::{Value, json};

use super::{ask_for, past};
use crate::cli::{self, Format};
use crate::commands::resources::{self, Resource};
use crate::commands::{ask, require_running, timeline};
use crate::output;

/// A version of an object.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    revision: String,
    /// When it was written; of what was there before, when its fields were last set.
    time: Option<String>,
    /// The program that wrote it: the field manager that it names.
    manager: Option<String>,
    /// Whose program it was.
    user: Option<String>,
    verb: Option<String>,
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
        remembered(&client, &resource, &wanted.namespace, name).await
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

/// All that is remembered of an object.
async fn remembered(client: &Client, resource: &Resource, namespace: &str, name: &str) -> Result<Vec<Version>> {
    let spec = json!({ "object": timeline::named(resource, namespace, name), "itselfOnly": true });
    let entries = match timeline::story(client, &spec).await {
        Err(error) if has_code(&error, 404) => Vec::new(),
        story => story?.entries,
    };
    let mut versions: Vec<Version> = entries.into_iter().map(version).collect();
    if versions.first().is_none_or(|first| first.what != What::Created) {
        // To a read revision 0 is any; what every cluster has is written in the first.
        let oldest = past(client, "").await?.oldest.number()?.max(1);
        let path = format!("/at/{oldest}{}/{name}", resource.path(Some(namespace)));
        match ask_for(client, &path).await {
            Ok(object) => versions.insert(0, found(&object)),
            Err(error) if has_code(&error, 404) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(versions)
}

fn has_code(error: &anyhow::Error, code: u16) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == code)
}

fn version(entry: Entry) -> Version {
    let Entry { time_micros, what, revision, author, changes, .. } = entry;
    let time = Timestamp::from_microsecond(time_micros).ok();
    let Writer { user, program, verb, .. } = author.unwrap_or_default();
    let known = |text: String| Some(text).filter(|text| !text.is_empty());
    Version {
        revision: revision.map(|revision| revision.to_string()).unwrap_or_default(),
        time: time.map(|time| format!("{time:.3}")),
        manager: known(program).or_else(|| known(user.clone())),
        user: known(user),
        verb: known(verb),
        what: match what {
            Happened::Created => What::Created,
            Happened::Deleted => What::Deleted,
            _ => What::Changed,
        },
        changes,
    }
}

/// What was there when the history begins: who wrote it is known by its fields alone.
fn found(object: &Value) -> Version {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let entries = object["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    let entry = entries.iter().max_by_key(|entry| text(&entry["time"]));
    Version {
        revision: text(&object["metadata"]["resourceVersion"]).unwrap_or_default(),
        time: entry.and_then(|entry| text(&entry["time"])),
        manager: entry.and_then(|entry| text(&entry["manager"])),
        user: None,
        verb: None,
        what: What::Found,
        changes: Vec::new(),
    }
}

fn table(versions: &[Version]) -> Vec<String> {
    let wide = |text: fn(&Version) -> Option<&String>, least: usize| {
        versions.iter().filter_map(text).map(String::len).max().unwrap_or(0).max(least)
    };
    let revision = wide(|version| Some(&version.revision), 8);
    let time = wide(|version| version.time.as_ref(), 4);
    let manager = wide(|version| version.manager.as_ref(), 2);
    let mut lines = vec![format!("{:<revision$}  {:<time$}  {:<manager$}  WHAT", "REVISION", "TIME", "BY")];
    for version in versions {
        let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let line = format!(
            "{:<revision$}  {:<time$}  {:<manager$}  {}",
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
        What::Found => "as it was when the history begins".to_owned(),
        What::Created => "created".to_owned(),
        What::Deleted => "deleted".to_owned(),
        What::Changed => changes::summary(&version.changes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(revision: u64, what: &str, more: Value) -> Entry {
        let mut entry = json!({ "timeMicros": 1_767_348_240_123_000_i64, "revision": revision, "what": what });
        for (name, value) in more.as_object().expect("fields") {
            entry[name] = value.clone();
        }
        serde_json::from_value(entry).expect("an entry")
    }

    #[test]
    fn each_version_says_what_it_changed_and_who_did() {
        let fields = json!([
            { "manager": "older", "time": "2026-01-01T00:00:00Z" },
            { "manager": "kubectl", "time": "2026-01-02T00:00:00Z" },
        ]);
        let first = json!({ "metadata": { "resourceVersion": "5", "managedFields": fields } });
        let change = |path: &str| json!({ "path": path, "to": 1 });
        let by = |user: &str, program: &str, verb: &str| json!({ "user": user, "program": program, "verb": verb });
        let changes = ["spec.a", "spec.b", "spec.c", "spec.d"].map(change);
        let versions = [
            found(&first),
            version(entry(7, "Changed", json!({ "author": by("jane", "hpa", "patch"), "changes": changes }))),
            version(entry(9, "Deleted", json!({ "author": by("jane", "", "delete") }))),
            version(entry(11, "Created", json!({}))),
        ];
        assert_eq!(
            table(&versions),
            [
                "REVISION  TIME                      BY       WHAT",
                "5         2026-01-02T00:00:00Z      kubectl  as it was when the history begins",
                "7         2026-01-02T10:04:00.123Z  hpa      spec.a: + 1; spec.b: + 1; spec.c: + 1; and 1 more",
                "9         2026-01-02T10:04:00.123Z  jane     deleted",
                "11        2026-01-02T10:04:00.123Z  -        created",
            ]
        );
        assert_eq!((versions[1].user.as_deref(), versions[1].verb.as_deref()), (Some("jane"), Some("patch")));
    }
}
