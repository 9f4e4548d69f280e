//! `coracle addons`: kinds of other projects, switched on and off through the API.

use std::collections::BTreeMap;
use std::process::ExitCode;

use ::addons::{ALL, Addon, LABEL};
use ::node::Profile;
use anyhow::{Context, Result, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use serde_json::Value;

use super::{ask, require_running};
use crate::cli::AddonsCommand;
use crate::output;

/// Who claims the fields of the definitions.
const MANAGER: &str = "coracle-addons";

/// The definitions there are, and to which addon each belongs.
type Present = BTreeMap<String, Option<String>>;

pub(crate) fn run(profile: &Profile, command: &AddonsCommand) -> Result<ExitCode> {
    require_running(profile)?;
    match command {
        AddonsCommand::List => list(&ask(profile, present)?)?,
        AddonsCommand::Enable(wanted) => {
            let addons = find(&wanted.names)?;
            ask(profile, async |client| {
                for addon in &addons {
                    enable(&client, addon).await?;
                }
                Ok(())
            })?;
        }
        AddonsCommand::Disable(wanted) => {
            let addons = find(&wanted.names)?;
            ask(profile, async |client| {
                for addon in &addons {
                    disable(&client, addon).await?;
                }
                Ok(())
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn find(names: &[String]) -> Result<Vec<&'static Addon>> {
    let known = || ALL.map(|addon| addon.name).join(", ");
    let find =
        |name: &String| Addon::find(name).with_context(|| format!("there is no addon {name}; there are {}", known()));
    names.iter().map(find).collect()
}

fn list(present: &Present) -> Result<()> {
    output::line(format!("{:<6} {:<10} {}", "NAME", "STATUS", "WHAT FOR"))?;
    for addon in &ALL {
        let status = if is_enabled(addon, present) { "enabled" } else { "disabled" };
        output::line(format!("{:<6} {status:<10} {}", addon.name, addon.about))?;
    }
    Ok(())
}

/// Whether all definitions of an addon are there and its own.
fn is_enabled(addon: &Addon, present: &Present) -> bool {
    let own =
        |definition: &Value| present.get(name(definition)).is_some_and(|owner| owner.as_deref() == Some(addon.name));
    addon.definitions().iter().all(own)
}

fn name(definition: &Value) -> &str {
    definition["metadata"]["name"].as_str().unwrap_or_default()
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

async fn enable(client: &Client, addon: &Addon) -> Result<()> {
    let present = present(client.clone()).await?;
    let definitions = addon.definitions();
    let foreign = definitions.iter().find(|definition| matches!(present.get(name(definition)), Some(None)));
    if let Some(foreign) = foreign {
        bail!(
            "{} is there already and does not belong to the addon {}; delete it first, or keep yours",
            name(foreign),
            addon.name
        );
    }
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in &definitions {
        let apply = PatchParams::apply(MANAGER).force();
        let name = name(definition);
        api.patch(name, &apply, &Patch::Apply(definition)).await.with_context(|| format!("cannot apply {name}"))?;
    }
    output::note(format!("Enabled {}.", addon.name));
    Ok(())
}

async fn disable(client: &Client, addon: &Addon) -> Result<()> {
    let present = present(client.clone()).await?;
    let own = present.iter().filter(|(_, owner)| owner.as_deref() == Some(addon.name));
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut any = false;
    for (name, _) in own {
        any = true;
        api.delete(name, &DeleteParams::default()).await.with_context(|| format!("cannot delete {name}"))?;
    }
    output::note(if any { format!("Disabled {}.", addon.name) } else { format!("{} is not enabled.", addon.name) });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_addon_is_enabled_when_all_of_it_is_there() {
        let Some(addon) = Addon::find("gang") else { panic!("an addon") };
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
}
