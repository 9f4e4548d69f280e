//! Making a cluster of a snapshot.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use docker::Docker;
use store::{Imported, Options, Revision, Transformer};

use super::moved::{Move, Place};
use super::objects::{self, Stored};
use super::save::token_key;
use super::{Error, FILES, Manifest, Snapshots, blocking};
use crate::addresses::Addresses;
use crate::cluster::{delete, docker_config};
use crate::profile::{Profile, ProfileLock};
use crate::settings::Settings;
use crate::{descriptors, encryption, network};

/// Makes `profile` what the snapshot has; if it is there, all that it has is lost but for its certificates, addresses and
/// port. It takes its place at once and as a whole, when everything is ready. A snapshot without volumes leaves those of a cluster
/// that is there as they are, and its settings and keys: its objects alone take their place.
///
/// Revisions go on behind all that the cluster ever handed out, so that whoever watched it begins anew.
///
/// # Errors
/// When the cluster runs, or the snapshot is not whole: nothing is changed then. When it cannot be written, or Docker cannot be
/// reached: the cluster is what it was, but containers of its pods may be gone, which the next start makes again.
pub async fn restore(profile: &Profile, name: &str) -> Result<Manifest, crate::Error> {
    let snapshots = Snapshots::beside(profile)?;
    let manifest = snapshots.manifest(name)?;
    let (verified, all, snapshot) = (manifest.clone(), snapshots.clone(), name.to_owned());
    blocking(move || Ok(all.verify(&snapshot, &verified)?)).await?;
    descriptors::raise_limit();
    let docker = Docker::connect(docker_config(profile)).await?;
    let existed = profile.exists();
    let restored = replace(profile, existed, &docker, &snapshots, name, &manifest).await;
    if !existed && restored.is_err() {
        // There was nothing of it before.
        if let Err(error) = delete(profile).await {
            tracing::warn!(%error, "a part of a cluster is left");
        }
    }
    restored.map(|()| manifest)
}

async fn replace(
    profile: &Profile,
    existed: bool,
    docker: &Docker,
    snapshots: &Snapshots,
    name: &str,
    manifest: &Manifest,
) -> Result<(), crate::Error> {
    profile.create()?;
    let _lock = profile.lock()?;
    let settings = addresses(profile, docker, &manifest.settings).await?;
    let moving = Move {
        from: Place {
            name: manifest.profile.clone(),
            folder: manifest.folder.clone(),
            pods: manifest.settings.pod_subnet(profile)?,
            services: manifest.settings.service_subnet(profile)?,
            token_key: manifest.token_key.clone(),
        },
        to: Place {
            name: profile.name().to_owned(),
            folder: profile.canonical_folder(),
            pods: settings.pod_subnet(profile)?,
            services: settings.service_subnet(profile)?,
            token_key: token_key(profile),
        },
    };
    if moving.to.services.prefix() > moving.from.services.prefix() {
        let (subnet, needed) = (moving.to.services.to_string(), moving.from.services.to_string());
        return Err(Error::Services { name: profile.name().to_owned(), subnet, needed }.into());
    }
    let fresh = snapshots.folder().join(format!(".{}.restoring", profile.name()));
    let new = profile.in_folder(fresh.clone());
    // A crash may not leave the volumes where nobody looks for them, so they stay where they are.
    let objects_only = existed && !manifest.volumes;
    let build = Build {
        old: profile.clone(),
        new: new.clone(),
        objects_only,
        settings,
        moving,
        snapshot: snapshots.path(name)?,
        name: name.to_owned(),
        revision: manifest.revision,
    };
    let built = blocking(move || build.run()).await;
    let (replaced, replacement) =
        if objects_only { (profile.store(), new.store()) } else { (profile.canonical_folder(), fresh.clone()) };
    let done = match built {
        Ok(lock) => take_place(docker, existed, &replaced, &replacement).await.map(|()| drop(lock)),
        Err(error) => Err(error),
    };
    // What is in there now is what was in its place before, or what never came there.
    let removed = fresh.clone();
    if let Err(error) =
        blocking(move || hostfs::remove_tree(&removed).map_err(|source| crate::Error::file(&removed, source))).await
    {
        tracing::warn!(%error, "what the cluster was before is left in {}", fresh.display());
    }
    done
}

/// The subnets, port and domain of the cluster: its own, else those of the snapshot where they are free.
async fn addresses(profile: &Profile, docker: &Docker, wanted: &Settings) -> Result<Settings, crate::Error> {
    if let Some(settings) = Settings::load(profile)? {
        return Ok(settings);
    }
    let dns_domain = Some(wanted.dns_domain.clone());
    let (subnet, service_subnet) = (Some(wanted.pod_subnet(profile)?), Some(wanted.service_subnet(profile)?));
    let same = Addresses { subnet, service_subnet, dns_domain: dns_domain.clone(), ..Addresses::default() };
    let established = match network::establish(profile, docker, &same).await {
        Err(crate::Error::SubnetTaken { .. } | crate::Error::NoSubnet) => {
            let free = Addresses { dns_domain, ..Addresses::default() };
            network::establish(profile, docker, &free).await
        }
        established => established,
    };
    Ok(established?.0)
}

/// A cluster that is made in a folder of its own.
pub(super) struct Build {
    /// What is there of it, whose certificates and keys it keeps.
    pub(super) old: Profile,
    /// The same profile in the other folder.
    pub(super) new: Profile,
    /// Whether only the store is to take its place, as the rest of what is there goes on.
    pub(super) objects_only: bool,
    pub(super) settings: Settings,
    pub(super) moving: Move,
    /// The snapshot's folder, and its name.
    pub(super) snapshot: PathBuf,
    pub(super) name: String,
    /// The snapshot's revision.
    pub(super) revision: Revision,
}

impl Build {
    /// Makes it. Whoever has what is returned keeps others from starting it.
    pub(super) fn run(&self) -> Result<ProfileLock, crate::Error> {
        let folder = self.new.folder();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| crate::Error::file(&path, source)
        };
        hostfs::remove_tree(folder).map_err(failed(folder))?;
        self.new.create()?;
        let lock = self.new.lock()?;
        let archive = self.snapshot.join(FILES);
        let files = File::open(&archive).map_err(failed(&archive))?;
        let files = BufReader::with_capacity(1 << 20, files);
        if self.objects_only {
            hostfs::unarchive_files(files, folder, |path| self.new.encrypts(path)).map_err(failed(folder))?;
        } else {
            hostfs::unarchive(files, folder).map_err(failed(folder))?;
            self.rename_nodes()?;
            self.keep_identity().map_err(failed(folder))?;
            self.settings.save(&self.new)?;
        }
        let kept = encryption::open(&self.new)?;
        let objects = self.objects(&*kept)?;
        let encryption = if self.objects_only { encryption::open(&self.old)? } else { kept };
        encryption::save_key(&encryption)?;
        let transformer: Arc<dyn Transformer> = encryption;
        let used = store::newest_revision(&Options::new(self.old.store()))?.max(self.revision);
        let options = Options { transformer: Some(transformer), ..Options::new(self.new.store()) };
        store::import(&options, used, objects)?;
        // It is about to become all that there is of the cluster.
        File::open(folder).and_then(|folder| Ok(rustix::fs::syncfs(folder)?)).map_err(failed(folder))?;
        Ok(lock)
    }

    /// All objects, in their new place.
    fn objects(&self, transformer: &dyn Transformer) -> Result<Vec<Imported>, crate::Error> {
        let damaged = |reason| Error::Damaged { name: self.name.clone(), reason };
        let mut all = Vec::new();
        for Stored { key, revision, create_revision, value } in
            objects::read_all(&self.snapshot, &self.name, transformer)?
        {
            let Some((key, value)) = self.moving.object(key, value).map_err(damaged)? else { continue };
            all.push(Imported { key, value, revision, create_revision });
        }
        Ok(all)
    }

    /// The folders of further nodes are called after them.
    fn rename_nodes(&self) -> Result<(), crate::Error> {
        for path in self.new.kubelet_folders()?.into_iter().skip(1) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let renamed = self.moving.node(name);
            if renamed != name {
                fs::rename(&path, self.new.node(&renamed)).map_err(|source| crate::Error::file(&path, source))?;
            }
        }
        Ok(())
    }

    /// The cluster's certificates and keys stay: whoever trusts them, and is known by them, does not notice.
    fn keep_identity(&self) -> io::Result<()> {
        let (from, to) = (self.old.pki(), self.new.pki());
        if from.is_dir() {
            fs::DirBuilder::new().mode(0o700).create(&to)?;
            for file in fs::read_dir(&from)? {
                let file = file?;
                // With its permissions.
                fs::copy(file.path(), to.join(file.file_name()))?;
            }
        }
        match fs::copy(self.old.kubeconfig(), self.new.kubeconfig()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Exchanges a folder of a cluster for another one.
async fn take_place(docker: &Docker, existed: bool, folder: &Path, other: &Path) -> Result<(), crate::Error> {
    if existed {
        // What its containers have mounted, and have done, is of what was.
        docker.delete_profile().await?;
    }
    exchange(folder, other).map_err(|error| crate::Error::file(folder, error))
}

/// Exchanges two folders, at once where the file system can: else there is a moment in which the first one is not there.
fn exchange(folder: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags};
    use rustix::io::Errno;
    match rustix::fs::renameat_with(CWD, other, CWD, folder, RenameFlags::EXCHANGE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => step_aside(folder, other),
        result => Ok(result?),
    }
}

fn step_aside(folder: &Path, other: &Path) -> io::Result<()> {
    let aside = other.with_extension("aside");
    fs::rename(folder, &aside)?;
    if let Err(error) = fs::rename(other, folder) {
        fs::rename(&aside, folder)?;
        return Err(error);
    }
    fs::rename(&aside, other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_exchanged_also_one_after_the_other() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (one, other) = (folder.path().join("one"), folder.path().join(".other.restoring"));
        for path in [&one, &other] {
            fs::create_dir(path).expect("made");
            fs::write(path.join("file"), path.display().to_string()).expect("written");
        }
        let is = |path: &Path, was: &Path| {
            assert_eq!(fs::read_to_string(path.join("file")).expect("there"), was.display().to_string());
        };
        exchange(&one, &other).expect("exchanged");
        is(&one, &other);
        is(&other, &one);
        step_aside(&one, &other).expect("exchanged");
        is(&one, &one);
        is(&other, &other);
        assert!(step_aside(&one, &folder.path().join("none")).is_err());
        is(&one, &one);
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 2);
    }
}
