//! `coracle snapshot`: a whole cluster, kept and put back.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cluster::snapshot::{self, Listed, Manifest, Snapshots};
use cluster::{Home, Profile};
use http::Request;
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};

use super::consent::{self, Consent};
use super::{ask, past, require_running};
use crate::cli::{
    CloneCluster, DeleteSnapshots, ExportFormat, ExportSnapshot, Format, Global, ListSnapshots, RestoreSnapshot,
    SaveSnapshot, SnapshotCommand,
};
use crate::output;
use crate::progress::Progress;

/// Where a snapshot of a cluster that runs is asked for.
const PATH: &str = "/apis/snapshots.coracle.dev/v1/snapshots";
/// How often it is looked whether it is saved.
const POLL: Duration = Duration::from_millis(50);

pub(crate) fn run(home: &Home, global: &Global, command: &SnapshotCommand) -> Result<ExitCode> {
    let profile = || super::profile(home, global);
    let snapshots = Snapshots::of(home);
    match command {
        SnapshotCommand::Save(wanted) => save(&profile()?, wanted)?,
        SnapshotCommand::List(wanted) => list(&snapshots, wanted)?,
        SnapshotCommand::Restore(wanted) => return restore(home, global, wanted),
        SnapshotCommand::Clone(wanted) => clone(home, &profile()?, wanted)?,
        SnapshotCommand::Export(wanted) => export(home, wanted)?,
        SnapshotCommand::Delete(DeleteSnapshots { names }) => {
            for name in names {
                snapshots.delete(name)?;
                output::note(format!("The snapshot {name} is deleted."));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn save(profile: &Profile, wanted: &SaveSnapshot) -> Result<()> {
    snapshot::check_name(&wanted.name)?;
    if wanted.at.is_some() {
        require_running(profile)?;
    }
    let saved = make(profile, wanted)?;
    output::note(format!("✔ {}", said(&wanted.name, &saved, wanted.at.is_some())));
    if saved.left_out > 0 {
        output::warning(format!("{} pipes, sockets and devices in volumes are not in it.", saved.left_out));
    }
    Ok(())
}

/// Makes a snapshot, of a cluster that runs or one that does not.
fn make(profile: &Profile, wanted: &SaveSnapshot) -> Result<Manifest> {
    if !profile.exists() {
        bail!("there is no cluster {}", profile.name());
    }
    let mut progress = Progress::new();
    progress.step(&format!("Saving {}", profile.name()));
    let saved = if profile.daemon().is_some_and(|daemon| !daemon.stopping) {
        ask(profile, async |client| make_of_running(&client, profile, wanted).await)
            .and_then(|()| Ok(Snapshots::beside(profile)?.manifest(&wanted.name)?))
    } else {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(snapshot::save_stopped(profile, &wanted.name, !wanted.no_volumes))?)
    };
    progress.clear();
    saved
}

async fn make_of_running(client: &Client, profile: &Profile, wanted: &SaveSnapshot) -> Result<()> {
    let revision = match wanted.at {
        None => None,
        Some(moment) => Some(past::revision(client, profile, moment).await?.revision),
    };
    let body = json!({
        "apiVersion": "snapshots.coracle.dev/v1", "kind": "Snapshot", "metadata": { "name": wanted.name },
        "spec": { "revision": revision, "volumes": !wanted.no_volumes },
    });
    let request = Request::post(PATH)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body.to_string().into_bytes())?;
    let mut snapshot: Value = client.request(request).await?;
    loop {
        let status = &snapshot["status"];
        match status["phase"].as_str() {
            Some("Saved") => return Ok(()),
            Some("Failed") => bail!("{}", status["message"].as_str().unwrap_or("no snapshot was saved")),
            _ => tokio::time::sleep(POLL).await,
        }
        snapshot = client.request(Request::get(format!("{PATH}/{}", wanted.name)).body(Vec::new())?).await?;
    }
}

/// `The snapshot a has 12 objects of revision 34 and their volumes (5 MiB).`
fn said(name: &str, manifest: &Manifest, of_the_past: bool) -> String {
    let Manifest { objects, revision, volumes, .. } = manifest;
    let volumes = match (volumes, of_the_past) {
        (true, _) => " and what is in volumes",
        (false, true) => "; what was in volumes then is not known",
        (false, false) => ", without what is in volumes",
    };
    format!("The snapshot {name} has {objects} objects of revision {revision}{volumes} ({}).", size(manifest.bytes()))
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes.div_ceil(1024)),
        _ => format!("{} MiB", bytes.div_ceil(1_048_576)),
    }
}

fn list(snapshots: &Snapshots, wanted: &ListSnapshots) -> Result<()> {
    let all = snapshots.list()?;
    if wanted.output == Format::Json {
        let object = |(name, manifest): &Listed| match manifest {
            Ok(manifest) => json!({
                "name": name, "cluster": manifest.profile, "revision": manifest.revision.to_string(),
                "objects": manifest.objects, "volumes": manifest.volumes, "bytes": manifest.bytes(), "time": manifest.time,
            }),
            Err(error) => json!({ "name": name, "error": error.to_string() }),
        };
        return output::json(&all.iter().map(object).collect::<Vec<_>>());
    }
    if all.is_empty() {
        output::note("There are no snapshots; to make one: coracle snapshot save NAME");
        return Ok(());
    }
    table(&all).iter().try_for_each(output::line)
}

fn table(all: &[Listed]) -> Vec<String> {
    let head = ["NAME", "CLUSTER", "REVISION", "OBJECTS", "VOLUMES", "SIZE", "TIME"].map(str::to_owned);
    let row = |(name, manifest): &Listed| match manifest {
        Ok(manifest) => [
            name.clone(),
            manifest.profile.clone(),
            manifest.revision.to_string(),
            manifest.objects.to_string(),
            if manifest.volumes { "yes" } else { "no" }.to_owned(),
            size(manifest.bytes()),
            time(manifest.time),
        ],
        Err(error) => {
            let mut row: [String; 7] = std::array::from_fn(|_| "-".to_owned());
            row[0].clone_from(name);
            row[6] = error.to_string();
            row
        }
    };
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(all.iter().map(row)).collect();
    let widths: [usize; 7] = std::array::from_fn(|at| rows.iter().map(|row| row[at].len()).max().unwrap_or_default());
    // The last column is as long as it is.
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(widths).enumerate();
        let cells = cells.map(|(at, (cell, width))| if at == 6 { cell.clone() } else { format!("{cell:<width$}") });
        cells.collect::<Vec<_>>().join("  ")
    };
    rows.iter().map(line).collect()
}

fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn restore(home: &Home, global: &Global, wanted: &RestoreSnapshot) -> Result<ExitCode> {
    let RestoreSnapshot { name, yes } = wanted;
    let manifest = Snapshots::of(home).manifest(name)?;
    // Where nothing is said, the cluster that it is of: not whichever is the default now.
    let profile = match &global.profile {
        Some(_) => super::profile(home, global)?,
        None => home.profile(&manifest.profile)?,
    };
    profile.check_readable()?;
    require_stopped(&profile)?;
    if profile.exists() && !consent::obtain(|is_terminal| consent(&profile, name, &manifest, *yes, is_terminal))? {
        return Ok(ExitCode::FAILURE);
    }
    put_back(&profile, name)?;
    output::note(format!(
        "✔ The cluster {0} is what the snapshot {name} has; to start it: coracle start -p {0}",
        profile.name()
    ));
    Ok(ExitCode::SUCCESS)
}

fn put_back(profile: &Profile, name: &str) -> Result<()> {
    let mut progress = Progress::new();
    progress.step(&format!("Restoring {}", profile.name()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let restored = runtime.block_on(snapshot::restore(profile, name));
    progress.clear();
    restored?;
    Ok(())
}

fn require_stopped(profile: &Profile) -> Result<()> {
    if profile.daemon().is_some() {
        bail!("the cluster {0} is running; stop it first: coracle stop -p {0}", profile.name());
    }
    Ok(())
}

/// Whether a cluster that is there may be replaced.
fn consent(profile: &Profile, name: &str, manifest: &Manifest, yes: bool, is_terminal: bool) -> Consent {
    if yes {
        return Consent::Given;
    }
    let cluster = profile.name();
    if is_terminal {
        let (of, time) = (&manifest.profile, time(manifest.time));
        let what = if manifest.volumes { "all that the cluster" } else { "all objects that the cluster" };
        return Consent::Asked(format!(
            "This replaces {what} {cluster} has by the snapshot {name} (of {of}, {time}). Continue?"
        ));
    }
    Consent::Refused(format!(
        "cannot replace the cluster {cluster} without a confirmation; to confirm it: coracle snapshot restore {name} -p {cluster} --yes"
    ))
}

fn clone(home: &Home, profile: &Profile, wanted: &CloneCluster) -> Result<()> {
    let other = home.profile(&wanted.name)?;
    if other.exists() {
        bail!("there is a cluster {} already", other.name());
    }
    // Of no interest once it is restored.
    let name = format!("clone-of-{}-{}", profile.name(), std::process::id());
    make(profile, &SaveSnapshot { name: name.clone(), at: None, no_volumes: false })?;
    let restored = put_back(&other, &name);
    let deleted = Snapshots::of(home).delete(&name).context("cannot remove what was saved for the copy");
    restored?;
    deleted?;
    output::note(format!(
        "✔ The cluster {0} is a copy of {1}; to start it: coracle start -p {0}",
        other.name(),
        profile.name()
    ));
    Ok(())
}

fn export(home: &Home, wanted: &ExportSnapshot) -> Result<()> {
    let name = &wanted.name;
    match wanted.format {
        ExportFormat::Json => {
            output::json(&json!({ "apiVersion": "v1", "kind": "List", "items": snapshot::export(home, name)? }))
        }
        ExportFormat::Yaml => snapshot::export(home, name)?
            .iter()
            .try_for_each(|object| output::line(format!("---\n{}", serde_saphyr::to_string(object)?.trim_end()))),
        ExportFormat::Etcd if io::stdout().is_terminal() => {
            bail!(
                "a snapshot of etcd is no text; write it to a file: coracle snapshot export {name} --format etcd > FILE"
            )
        }
        ExportFormat::Etcd => Ok(snapshot::export_etcd(home, name, &mut io::stdout().lock())?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up() {
        for (bytes, expected) in [(0, "0 KiB"), (1, "1 KiB"), (1 << 20, "1 MiB"), ((1 << 20) + 1, "2 MiB")] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_and_says_what_is_wrong() {
        let missing = || snapshot::Error::Missing("a".to_owned());
        let all = [("a".to_owned(), Err(missing())), ("longer".to_owned(), Err(missing()))];
        let table = table(&all);
        assert_eq!(table[0], "NAME    CLUSTER  REVISION  OBJECTS  VOLUMES  SIZE  TIME");
        assert_eq!(table[1], format!("a       -        -         -        -        -     {}", missing()));
        assert!(table[2].starts_with("longer  -"));
    }
}
