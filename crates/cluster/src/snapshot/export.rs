//! Taking the objects out of a snapshot, for another cluster.

use std::fs::File;
use std::io::{BufReader, Write};

use serde_json::Value;
use store::Key;

use super::objects::{self, Stored};
use super::portable::{is_own_class, portable, rank};
use super::{Error, FILES, Manifest, Snapshots, etcd};
use crate::encryption;
use crate::profile::Home;

/// What somebody has written of a snapshot's objects, as it is applied to another cluster, in the order in which that is best done:
/// without what clusters make by themselves, and without what of an object is of one cluster alone. Secrets are readable.
///
/// # Errors
/// When there is no such snapshot, or it is not whole.
pub fn export(home: &Home, name: &str) -> Result<Vec<Value>, crate::Error> {
    let (_, mut objects) = read(home, name)?;
    objects.sort_by(|one, other| rank(&one.key).cmp(&rank(&other.key)));
    let parse = |stored: Stored| match serde_json::from_slice(&stored.value) {
        Ok(object) => Ok((stored.key, object)),
        Err(error) => Err(Error::Damaged { name: name.to_owned(), reason: format!("{}: {error}", stored.key) }),
    };
    let objects: Vec<(Key, Value)> = objects.into_iter().map(parse).collect::<Result<_, _>>()?;
    let classes = objects.iter().filter(|(key, object)| is_own_class(key, object));
    let classes = classes.map(|(key, _)| key.name.to_string()).collect();
    Ok(objects.into_iter().filter_map(|(key, object)| portable(&key, object, &classes)).collect())
}

/// Writes all objects of a snapshot as one of etcd, which a kube-apiserver takes for its own. Secrets are readable.
///
/// # Errors
/// As [`export`]; and what writing fails with.
pub fn export_etcd(home: &Home, name: &str, into: &mut impl Write) -> Result<(), crate::Error> {
    let (manifest, objects) = read(home, name)?;
    Ok(etcd::write(objects, manifest.revision, into)?)
}

/// A snapshot that is whole, and its objects.
fn read(home: &Home, name: &str) -> Result<(Manifest, Vec<Stored>), crate::Error> {
    let snapshots = Snapshots::of(home);
    let manifest = snapshots.manifest(name)?;
    snapshots.verify(name, &manifest)?;
    let folder = snapshots.folder().join(format!(".{name}.{}.exporting", std::process::id()));
    let keys = home.profile(&manifest.profile)?.in_folder(folder.clone());
    keys.create()?;
    let objects: Result<_, crate::Error> = (|| {
        let archive = snapshots.path(name)?.join(FILES);
        let files = File::open(&archive).map_err(|source| crate::Error::file(&archive, source))?;
        hostfs::unarchive_files(BufReader::new(files), keys.folder(), |path| keys.encrypts(path))
            .map_err(|source| crate::Error::file(&archive, source))?;
        let encryption = encryption::open(&keys)?;
        Ok(objects::read_all(&snapshots.path(name)?, name, &*encryption)?)
    })();
    if let Err(error) = hostfs::remove_tree(&folder) {
        tracing::warn!(folder = %folder.display(), %error, "keys of a snapshot are left");
    }
    Ok((manifest, objects?))
}
