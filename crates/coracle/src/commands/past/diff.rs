//! `coracle diff`: what changed between two moments.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use cluster::Profile;
use futures::stream::{self, StreamExt, TryStreamExt};
use kube::Client;
use machinery::changes::{self, Change};
use serde::Serialize;
use serde_json::Value;

use super::{ask_for, revision};
use crate::cli::{self, Format};
use crate::commands::resources::{self, Resource};
use crate::commands::{ask, require_running};
use crate::output;

/// So many kinds are asked for at once.
const AT_ONCE: usize = 8;

/// An object that differs.
#[derive(Debug, PartialEq, Serialize)]
struct Difference {
    object: String,
    /// `+` it came, `-` it went, `~` it changed.
    what: char,
    changes: Vec<Change>,
}

pub(crate) fn run(profile: &Profile, wanted: &cli::Diff) -> Result<ExitCode> {
    require_running(profile)?;
    let found = ask(profile, async |client| {
        let (from, to) =
            (revision(&client, profile, wanted.from).await?, revision(&client, profile, wanted.to()).await?);
        let (from, to) = (from.revision, to.revision);
        let all = resources::all(&client).await?;
        let kinds: Vec<(Resource, Option<String>)> = match wanted.object() {
            Some(object) => {
                let (resource, name) = resources::find(&all, object)?;
                vec![(resource, Some(name.to_owned()))]
            }
            // Events are about changes, and there are as many; the two groups of them are one.
            None => all.into_iter().filter(|kind| kind.plural != "events").map(|kind| (kind, None)).collect(),
        };
        let namespace = wanted.object().is_some().then_some(&*wanted.namespace);
        let differences = stream::iter(kinds)
            .map(async |(kind, name)| {
                let path = match &name {
                    Some(name) => format!("{}?fieldSelector=metadata.name%3D{name}", kind.path(namespace)),
                    None => kind.path(None),
                };
                let (old, new) = (list(&client, &from, &path).await?, list(&client, &to, &path).await?);
                anyhow::Ok(differences(&kind, old, new))
            })
            .buffered(AT_ONCE)
            .try_collect::<Vec<_>>();
        Ok(differences.await?.into_iter().flatten().collect::<Vec<_>>())
    })?;
    match wanted.output {
        Format::Json => output::json(&found)?,
        Format::Text if found.is_empty() => output::note("Nothing differs."),
        Format::Text => found.iter().flat_map(lines).try_for_each(output::line)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The objects of a list at a revision; none of a kind that has no past.
async fn list(client: &Client, revision: &str, path: &str) -> Result<Vec<Value>> {
    match ask_for(client, &format!("/at/{revision}{path}")).await {
        Ok(mut list) => Ok(list["items"].as_array_mut().map(std::mem::take).unwrap_or_default()),
        Err(error) => match error.downcast_ref() {
            Some(kube::Error::Api(status)) if [400, 404].contains(&status.code) => Ok(Vec::new()),
            _ => Err(error),
        },
    }
}

fn differences(kind: &Resource, old: Vec<Value>, new: Vec<Value>) -> Vec<Difference> {
    // One that is made anew is another one.
    let by_uid = |objects: Vec<Value>| -> BTreeMap<(String, String), Value> {
        let uid = |object: &Value| object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        objects.into_iter().map(|object| ((kind.name_of(&object), uid(&object)), object)).collect()
    };
    let (old, new) = (by_uid(old), by_uid(new));
    let keys: std::collections::BTreeSet<&(String, String)> = old.keys().chain(new.keys()).collect();
    let difference = |key: &(String, String)| {
        let (what, changes) = match (old.get(key), new.get(key)) {
            (Some(_), None) => ('-', Vec::new()),
            (None, _) => ('+', Vec::new()),
            (Some(old), Some(new)) => ('~', changes::between(old, new)),
        };
        (what != '~' || !changes.is_empty()).then(|| Difference { object: key.0.clone(), what, changes })
    };
    keys.into_iter().filter_map(difference).collect()
}

fn lines(difference: &Difference) -> Vec<String> {
    let head = format!("{} {}", difference.what, difference.object);
    std::iter::once(head).chain(difference.changes.iter().map(|change| format!("    {change}"))).collect()
}
