//! `coracle addons`: kinds of other projects, switched on and off through the API.

use std::collections::BTreeMap;
use std::process::ExitCode;

use ::addons::{Addon, LABEL};
use anyhow::{Context, Result, bail};
use cluster::{Profile, addons};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, Preconditions,
};
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use serde_json::json;

use super::consent::{self, Consent};
use super::{ask, require_running};
use crate::cli::{AddonsCommand, Format};
use crate::output;

/// Who claims the fields of the definitions.
const MANAGER: &str = "coracle-addons";

/// The definitions there are, and to which addon each belongs.
type Present = BTreeMap<String, Option<String>>;

pub(crate) fn run(profile: &Profile, command: &AddonsCommand) -> Result<ExitCode> {
    match command {
        AddonsCommand::Images(_) => output::note("Addons are parts of this program: they run no images."),
        AddonsCommand::Open(_) => {
            bail!("no addon has a page; see what it does with kubectl get, kubectl explain and coracle addons list")
        }
        AddonsCommand::List(wanted) => {
            require_running(profile)?;
            list(&ask(profile, present)?, wanted.output)?;
        }
        AddonsCommand::Enable(wanted) => {
            require_running(profile)?;
            enable_named(profile, &wanted.names)?;
        }
        AddonsCommand::Disable(wanted) => {
            require_running(profile)?;
            let addons = find(&wanted.addons.names)?;
            return ask(profile, async |client| disable(&client, &addons, wanted.yes).await);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Enables the addons of these names.
pub(super) fn enable_named(profile: &Profile, names: &[String]) -> Result<()> {
    let addons = find(names)?;
    ask(profile, async |client| enable(&client, &addons).await)
}

pub(super) fn find(names: &[String]) -> Result<Vec<&'static Addon>> {
    let known = || addons::ADDONS.map(|addon| addon.name).join(", ");
    let find =
        |name: &String| addons::find(name).with_context(|| format!("there is no addon {name}; there are {}", known()));
    names.iter().map(find).collect()
}

fn list(present: &Present, format: Format) -> Result<()> {
    let status = |addon: &Addon| if is_enabled(addon, present) { "enabled" } else { "disabled" };
    if format == Format::Json {
        let entry =
            |addon: &'static Addon| json!({ "name": addon.name, "status": status(addon), "about": addon.about });
        return output::json(&addons::ADDONS.map(entry));
    }
    let width = addons::ADDONS.iter().map(|addon| addon.name.len()).max().unwrap_or_default();
    output::line(format!("{:<width$} {:<10} {}", "NAME", "STATUS", "WHAT FOR"))?;
    for addon in addons::ADDONS {
        output::line(format!("{:<width$} {:<10} {}", addon.name, status(addon), addon.about))?;
    }
    Ok(())
}

/// Whether all definitions of an addon are there and its own.
fn is_enabled(addon: &Addon, present: &Present) -> bool {
    let own = |definition: &CustomResourceDefinition| {
        present.get(name(definition)).is_some_and(|owner| owner.as_deref() == Some(addon.name))
    };
    addon.definitions().iter().all(own)
}

fn name(definition: &CustomResourceDefinition) -> &str {
    definition.metadata.name.as_deref().unwrap_or_default()
}

async fn present(client: Client) -> Result<Present> {
    let api: Api<PartialObjectMeta<CustomResourceDefinition>> = Api::all(client);
    let list = api.list(&ListParams::default()).await.context("cannot list the definitions")?;
    let owner = |mut labels: BTreeMap<String, String>| labels.remove(LABEL);
    let entry = |object: PartialObjectMeta<CustomResourceDefinition>| {
        (object.metadata.name.unwrap_or_default(), object.metadata.labels.and_then(owner))
    };
    Ok(list.items.into_iter().map(entry).collect())
}

/// Enables all of them, or none where one is refused.
async fn enable(client: &Client, addons: &[&'static Addon]) -> Result<()> {
    let present = present(client.clone()).await?;
    for addon in addons {
        if let Some(refusal) = refusal(addon, &present) {
            bail!(refusal);
        }
    }
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for addon in addons {
        for definition in &addon.definitions() {
            let apply = PatchParams::apply(MANAGER).force();
            let name = name(definition);
            api.patch(name, &apply, &Patch::Apply(definition)).await.with_context(|| format!("cannot apply {name}"))?;
        }
        output::note(format!("Enabled {}.", addon.name));
    }
    Ok(())
}

/// Why an addon cannot be enabled beside what is there, and the ways out.
fn refusal(addon: &Addon, present: &Present) -> Option<String> {
    let definitions = addon.definitions();
    let is_foreign = |name: &&str| present.get(*name).is_some_and(|owner| owner.as_deref() != Some(addon.name));
    let foreign: Vec<&str> = definitions.iter().map(name).filter(is_foreign).collect();
    if foreign.is_empty() {
        return None;
    }
    let names = foreign.join(" ");
    Some(format!(
        "cannot enable {addon}: somebody else installed {list}, and its own controller may be running.\n\
         To keep that installation, leave the addon {addon} off. To use the addon, uninstall the other project and delete \
         its definitions with all their objects:\n  \
         kubectl delete customresourcedefinition {names}\n\
         Or, if nobody looks after these objects, hand them over to the addon and enable it again:\n  \
         kubectl label --overwrite customresourcedefinition {names} {LABEL}={addon}",
        addon = addon.name,
        list = foreign.join(", "),
    ))
}

/// Deletes the definitions that these addons installed, and no others; all of them, or none where somebody has to agree and
/// does not.
async fn disable(client: &Client, addons: &[&'static Addon], yes: bool) -> Result<ExitCode> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut installed = Vec::new();
    let mut in_use = Vec::new();
    for addon in addons {
        let own = ListParams::default().labels(&format!("{LABEL}={}", addon.name));
        let definitions = api.list(&own).await.context("cannot list the definitions")?.items;
        for definition in &definitions {
            let count =
                count(client, addon, definition).await.with_context(|| format!("cannot list {}", name(definition)))?;
            in_use.push((name(definition).to_owned(), count));
        }
        installed.push((addon, definitions));
    }
    in_use.retain(|(_, count)| *count > 0);
    let names: Vec<&str> = addons.iter().map(|addon| addon.name).collect();
    if !consent::obtain(|is_terminal| consent(&names, &in_use, yes, is_terminal))? {
        return Ok(ExitCode::FAILURE);
    }
    for (addon, definitions) in installed {
        for definition in &definitions {
            let name = name(definition);
            // Whoever has put another one in its place since keeps it.
            let preconditions = Preconditions { uid: definition.metadata.uid.clone(), resource_version: None };
            let params = DeleteParams::default().preconditions(preconditions);
            api.delete(name, &params).await.with_context(|| format!("cannot delete {name}"))?;
        }
        let any = !definitions.is_empty();
        output::note(if any { format!("Disabled {}.", addon.name) } else { format!("{} is not enabled.", addon.name) });
    }
    Ok(ExitCode::SUCCESS)
}

/// How many objects of users a definition has.
async fn count(client: &Client, addon: &Addon, definition: &CustomResourceDefinition) -> Result<u64> {
    let spec = &definition.spec;
    let Some(version) = spec.versions.iter().find(|version| version.served) else { return Ok(0) };
    let kind = GroupVersionKind::gvk(&spec.group, &version.name, &spec.names.kind);
    let api: Api<DynamicObject> =
        Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&kind, &spec.names.plural));
    let own = addon.makes.iter().find(|(made, _)| *made == name(definition));
    // One object, and the server says how many there are beside it; of those that a selector chooses it does not.
    let params = match own {
        Some((_, own)) => ListParams::default().fields(&format!("metadata.name!={own}")),
        None => ListParams::default().limit(1),
    };
    let list = match api.list_metadata(&params).await {
        // It is defined, and not served yet: then there is none.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(0),
        list => list?,
    };
    let beside = list.metadata.remaining_item_count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default();
    Ok(list.items.len() as u64 + beside)
}

/// Whether these addons may be disabled, with so many objects of the resources that they define.
fn consent(addons: &[&str], in_use: &[(String, u64)], yes: bool, is_terminal: bool) -> Consent {
    if yes || in_use.is_empty() {
        return Consent::Given;
    }
    let names = addons.join(" ");
    let counts: Vec<String> = in_use.iter().map(|(resource, count)| format!("{count} {resource}")).collect();
    let counts = counts.join(", ");
    let deleted = format!("{counts}, with all that was made of them");
    if is_terminal {
        return Consent::Asked(format!("Disabling {names} deletes {deleted}. Continue?"));
    }
    Consent::Refused(format!(
        "cannot disable {names} without a confirmation: it deletes {deleted}.\n\
         To confirm it, run: coracle addons disable --yes {names}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_addon_is_enabled_when_all_of_it_is_there() {
        let Some(addon) = addons::find("gang") else { panic!("an addon") };
        let names = addon.definitions();
        let all: Present =
            names.iter().map(|definition| (name(definition).to_owned(), Some("gang".to_owned()))).collect();
        let mut some = all.clone();
        some.pop_first();
        let foreign: Present = all.keys().map(|name| (name.clone(), None)).collect();
        assert!(is_enabled(addon, &all));
        assert!(!is_enabled(addon, &some));
        assert!(!is_enabled(addon, &foreign));
        assert!(find(&["lws".to_owned(), "x".to_owned()]).is_err());
    }

    #[test]
    fn what_somebody_else_installed_is_left_to_them() {
        let Some(addon) = addons::find("gang") else { panic!("an addon") };
        let check = |name: &str, owner: Option<&str>, expected: Option<&str>| {
            let present = Present::from([(name.to_owned(), owner.map(str::to_owned))]);
            let refusal = refusal(addon, &present);
            assert_eq!(refusal.is_some(), expected.is_some(), "{name} {owner:?}: {refusal:?}");
            for words in expected.into_iter().chain(expected.map(|_| "kubectl delete customresourcedefinition queues."))
            {
                assert!(refusal.as_ref().is_some_and(|refusal| refusal.contains(words)), "{refusal:?}");
            }
        };
        let queues = "queues.scheduling.volcano.sh";
        let told = "cannot enable gang: somebody else installed queues.scheduling.volcano.sh";
        check("widgets.example.com", None, None);
        check(queues, Some("gang"), None);
        check(queues, None, Some(told));
        check(queues, Some("lws"), Some(told));
    }

    #[test]
    fn objects_are_deleted_by_those_who_agree() {
        let check = |in_use: &[(&str, u64)], yes: bool, is_terminal: bool, expected: Result<&str, &str>| {
            let in_use: Vec<_> = in_use.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
            match (consent(&["lws", "gang"], &in_use, yes, is_terminal), expected) {
                (Consent::Given, Ok("")) => {}
                (Consent::Asked(text), Ok(words)) if !words.is_empty() => assert!(text.contains(words), "{text}"),
                (Consent::Refused(text), Err(words)) => assert!(text.contains(words), "{text}"),
                (consent, expected) => panic!("{consent:?} and not {expected:?}"),
            }
        };
        let some = [("leaderworkersets.leaderworkerset.x-k8s.io", 3), ("queues.scheduling.volcano.sh", 1)];
        let counts = "3 leaderworkersets.leaderworkerset.x-k8s.io, 1 queues.scheduling.volcano.sh";
        check(&[], false, false, Ok(""));
        check(&[], false, true, Ok(""));
        check(&some, true, false, Ok(""));
        check(&some, true, true, Ok(""));
        check(&some, false, true, Ok(counts));
        check(&some, false, false, Err(counts));
        check(&some, false, false, Err("coracle addons disable --yes lws gang"));
    }
}
