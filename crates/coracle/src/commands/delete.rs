//! `coracle delete`.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use cluster::snapshot::Snapshots;
use cluster::{Home, Profile};

use super::consent::{self, Consent};
use super::{autostart, config, stop};
use crate::{cli, kubeconfig, output};

pub(crate) fn run(profile: &Profile) -> Result<ExitCode> {
    let existed = profile.exists();
    delete(profile)?;
    if existed {
        output::note(format!("The cluster {} is deleted.", profile.name()));
    } else {
        output::note(format!("There was no cluster {}.", profile.name()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Deletes one cluster, there or not.
fn delete(profile: &Profile) -> Result<()> {
    // What tells its entries in the kubeconfig goes with its state.
    let cluster = kubeconfig::Cluster::of(profile);
    // And what would start it again goes before it.
    autostart::forget(profile)?;
    stop::stop(profile)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Also without state: a cluster whose folder somebody removed may have left containers behind.
    let other = runtime.block_on(cluster::delete(profile))?;
    for path in kubeconfig::paths()? {
        kubeconfig::remove(&path, &cluster)?;
    }
    if let Some(home) = other {
        output::note(format!(
            "Another cluster of this name, in the home {0}, is left as it is; to delete it: coracle delete --home {0} -p {1}",
            home.display(),
            profile.name()
        ));
    }
    Ok(())
}

/// Deletes all clusters of a home, and with `--purge` the home.
pub(crate) fn run_all(home: &Home, wanted: &cli::Delete) -> Result<ExitCode> {
    let profiles = home.profiles()?;
    let names: Vec<&str> = profiles.iter().map(Profile::name).collect();
    let snapshots = if wanted.purge { Snapshots::of(home).list()?.len() } else { 0 };
    if !consent::obtain(|is_terminal| consent(&names, snapshots, wanted, is_terminal))? {
        return Ok(ExitCode::FAILURE);
    }
    let mut failed = None;
    // One that cannot be deleted keeps none of the others.
    for profile in &profiles {
        match profile.check_readable().map_err(Into::into).and_then(|()| delete(profile)) {
            Ok(()) => output::note(format!("The cluster {} is deleted.", profile.name())),
            Err(error) => {
                let error = error.context(format!("cannot delete the cluster {}", profile.name()));
                failed.iter().for_each(output::error);
                failed = Some(error);
            }
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    if profiles.is_empty() {
        output::note(format!("There is no cluster in {}.", home.folder().display()));
    }
    if wanted.purge {
        purge(home)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes the settings and snapshots of a home without clusters, and the home unless somebody else keeps something there.
fn purge(home: &Home) -> Result<()> {
    let folder = home.folder();
    if !folder.exists() {
        return Ok(());
    }
    Snapshots::of(home).delete_all()?;
    let settings = config::path(home);
    if settings.exists() {
        fs::remove_file(&settings).with_context(|| format!("cannot remove {}", settings.display()))?;
    }
    match fs::remove_dir(folder) {
        Ok(()) => output::note(format!("{} is removed.", folder.display())),
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
            output::note(format!("{} is kept: something else is in it.", folder.display()));
        }
        Err(error) => return Err(error).with_context(|| format!("cannot remove {}", folder.display())),
    }
    Ok(())
}

/// Whether all these clusters may be deleted, and so many snapshots.
fn consent(names: &[&str], snapshots: usize, wanted: &cli::Delete, is_terminal: bool) -> Consent {
    if wanted.yes || names.is_empty() && snapshots == 0 {
        return Consent::Given;
    }
    let counted = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    let clusters = format!("{} ({})", counted(names.len(), "cluster"), names.join(", "));
    let all = match (names.is_empty(), snapshots) {
        (false, 0) => clusters,
        (false, _) => format!("{clusters} and {}", counted(snapshots, "snapshot")),
        (true, _) => counted(snapshots, "snapshot"),
    };
    if is_terminal {
        return Consent::Asked(format!("This deletes {all} with all data. Continue?"));
    }
    let flag = if wanted.purge { "--purge" } else { "--all" };
    Consent::Refused(format!("cannot delete {all} without a confirmation; to confirm it: coracle delete {flag} --yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_clusters_are_deleted_by_those_who_agree() {
        let wanted = |purge: bool, yes: bool| cli::Delete { all: !purge, purge, yes };
        let two = ["a", "b"];
        assert_eq!(consent(&[], 0, &wanted(true, false), false), Consent::Given);
        assert_eq!(consent(&two, 1, &wanted(false, true), false), Consent::Given);
        for (names, snapshots, what) in [
            (&two[..], 0, "2 clusters (a, b)"),
            (&two[..1], 1, "1 cluster (a) and 1 snapshot"),
            (&[], 3, "3 snapshots"),
        ] {
            let asked = format!("This deletes {what} with all data. Continue?");
            assert_eq!(consent(names, snapshots, &wanted(true, false), true), Consent::Asked(asked));
            for (purge, flag) in [(false, "--all"), (true, "--purge")] {
                let refused =
                    format!("cannot delete {what} without a confirmation; to confirm it: coracle delete {flag} --yes");
                assert_eq!(consent(names, snapshots, &wanted(purge, false), false), Consent::Refused(refused));
            }
        }
    }

    #[test]
    fn what_somebody_keeps_in_the_home_stays() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let home = Home::resolve(Some(&folder.path().join("home"))).expect("a path");
        purge(&home).expect("there is none");
        config::set_profile(&home, Some("dev")).expect("saved");
        fs::create_dir_all(home.folder().join(".snapshots/.cut-short.saving")).expect("made");
        fs::write(home.folder().join("notes"), "mine").expect("written");
        purge(&home).expect("the rest is removed");
        assert!(!config::path(&home).exists());
        fs::remove_file(home.folder().join("notes")).expect("there");
        purge(&home).expect("removed");
        assert!(!home.folder().exists());
    }
}
