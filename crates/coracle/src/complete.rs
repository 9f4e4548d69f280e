//! What can stand in the place of a name: the shell asks the program with each press of the tab key, through what `coracle
//! completion SHELL` prints.
//!
//! Nothing is ever wrong here: where a cluster cannot be asked, there is nothing to complete.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::time::Duration;

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::CompleteEnv;
use clap_complete::engine::CompletionCandidate;
use cluster::snapshot::Snapshots;
use cluster::{Home, Profile};
use http::Request;
use http::header::ACCEPT;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::api::ListParams;
use kube::core::{NamespaceResourceScope, ObjectList, PartialObjectMeta};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::cli::{Arguments, Global};
use crate::commands::{self, resources};
use crate::course::{LESSONS, Language};

/// By which the shell says that it asks.
pub(crate) const VARIABLE: &str = "CORACLE_COMPLETE";
/// Of a list, the metadata alone.
const NAMES: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
/// Somebody waits at a prompt.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Answers the shell and ends, if it is the shell that asks.
pub(crate) fn answer() {
    CompleteEnv::with_factory(Arguments::command).var(VARIABLE).complete();
}

/// The clusters of this home.
pub(crate) fn clusters() -> Vec<CompletionCandidate> {
    let profiles = home(&words()).and_then(|home| home.profiles().ok()).unwrap_or_default();
    profiles.iter().map(|profile| CompletionCandidate::new(profile.name())).collect()
}

/// The snapshots of this home.
pub(crate) fn snapshots() -> Vec<CompletionCandidate> {
    let snapshots = home(&words()).and_then(|home| Snapshots::of(&home).list().ok()).unwrap_or_default();
    snapshots.into_iter().map(|(name, _)| CompletionCandidate::new(name)).collect()
}

/// The addons of this build.
pub(crate) fn addons() -> Vec<CompletionCandidate> {
    let candidate =
        |addon: &&'static addons::Addon| CompletionCandidate::new(addon.name).help(Some(addon.about.into()));
    cluster::addons::ADDONS.iter().map(candidate).collect()
}

/// The lessons of the course.
pub(crate) fn lessons() -> Vec<CompletionCandidate> {
    let titles = LESSONS.iter().filter_map(|lesson| lesson.title(Language::En).split_once(". "));
    titles.map(|(number, title)| CompletionCandidate::new(number).help(Some(title.into()))).collect()
}

/// What can be paused in the cluster that is meant.
pub(crate) fn components() -> Vec<CompletionCandidate> {
    let words = words();
    let Some(profile) = profile(&words).filter(|profile| profile.daemon().is_some()) else { return Vec::new() };
    let listed = commands::ask(&profile, async |client| {
        tokio::time::timeout(TIMEOUT, commands::components::names(&client)).await?
    });
    listed.unwrap_or_default().into_iter().map(CompletionCandidate::new).collect()
}

/// The nodes of the cluster that is meant.
pub(crate) fn nodes() -> Vec<CompletionCandidate> {
    let words = words();
    names::<Node>(&words, Api::all)
}

/// The pods of the namespace that is meant.
pub(crate) fn pods() -> Vec<CompletionCandidate> {
    namespaced::<Pod>()
}

/// The services of the namespace that is meant.
pub(crate) fn services() -> Vec<CompletionCandidate> {
    namespaced::<Service>()
}

/// What stands for an object: kinds, and behind a kind its objects in the namespace that is meant.
pub(crate) fn objects(current: &OsStr) -> Vec<CompletionCandidate> {
    let words = words();
    let (Some(word), Some(profile)) = (current.to_str(), profile(&words)) else { return Vec::new() };
    if profile.daemon().is_none() {
        return Vec::new();
    }
    let namespace = option(&words, "-n", "--namespace").unwrap_or_else(|| "default".to_owned());
    let listed = commands::ask(&profile, async |client| {
        tokio::time::timeout(TIMEOUT, objects_of(&client, word, &namespace)).await?
    });
    listed.unwrap_or_default().into_iter().filter(|one| one.starts_with(word)).map(CompletionCandidate::new).collect()
}

async fn objects_of(client: &Client, word: &str, namespace: &str) -> Result<Vec<String>> {
    let resources = resources::all(client).await?;
    let Some((kind, _)) = word.split_once('/') else {
        return Ok(resources.iter().map(|resource| format!("{}/", resource.singular)).collect());
    };
    let path = resources::of_kind(&resources, kind)?.path(Some(namespace));
    let request = Request::get(path).header(ACCEPT, NAMES).body(Vec::new())?;
    let found: ObjectList<PartialObjectMeta> = client.request(request).await?;
    Ok(found.items.iter().map(|object| format!("{kind}/{}", object.name_any())).collect())
}

fn namespaced<K>() -> Vec<CompletionCandidate>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let words = words();
    let namespace = option(&words, "-n", "--namespace").unwrap_or_else(|| "default".to_owned());
    names::<K>(&words, |client| Api::namespaced(client, &namespace))
}

fn names<K>(words: &[String], api: impl FnOnce(Client) -> Api<K>) -> Vec<CompletionCandidate>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let Some(profile) = profile(words).filter(|profile| profile.daemon().is_some()) else { return Vec::new() };
    let listed = commands::ask(&profile, async |client| {
        Ok(tokio::time::timeout(TIMEOUT, api(client).list_metadata(&ListParams::default())).await??)
    });
    let objects = listed.map(|list| list.items).unwrap_or_default();
    objects.iter().map(|object| CompletionCandidate::new(object.name_any())).collect()
}

/// The words of the line that is being completed, which stand behind `--`.
fn words() -> Vec<String> {
    std::env::args().skip_while(|word| word != "--").skip(1).collect()
}

/// The value of an option on the line, however it is written; the last one counts.
fn option(words: &[String], short: &str, long: &str) -> Option<String> {
    let mut found = None;
    for (index, word) in words.iter().enumerate() {
        let attached = word.strip_prefix(long).and_then(|rest| rest.strip_prefix('='));
        if let Some(value) = attached {
            found = Some(value.to_owned());
        } else if word == long || word == short {
            found = words.get(index + 1).cloned().or(found);
        }
    }
    found
}

fn home(words: &[String]) -> Option<Home> {
    let given = option(words, "--home", "--home").or_else(|| std::env::var("CORACLE_HOME").ok());
    Home::resolve(given.as_deref().map(AsRef::as_ref)).ok()
}

fn profile(words: &[String]) -> Option<Profile> {
    let profile = option(words, "-p", "--profile").or_else(|| std::env::var("CORACLE_PROFILE").ok());
    commands::profile(&home(words)?, &Global { profile, home: None }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_line_are_found() {
        let check = |line: &str, expected: Option<&str>| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(option(&words, "-p", "--profile").as_deref(), expected, "{line}");
        };
        check("coracle node delete a", None);
        check("coracle -p one node delete", Some("one"));
        check("coracle node delete --profile two", Some("two"));
        check("coracle --profile=two node delete -p one", Some("one"));
        check("coracle node delete -p", None);
        check("coracle node delete --profiles=x", None);
    }
}
