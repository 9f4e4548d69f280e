//! Encryption of Secrets at rest: how a profile sets it up, and the API by which its key is exchanged while the cluster
//! runs: `encryption.coracle.dev/v1`, resource `keyrotations`, of which one can only be created.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::encryption::{Encryption, EncryptionConfiguration, Rotation};
use apiserver::{AggregatedApi, AggregatedResource, AggregatedService};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response};
use machinery::Verb;
use machinery::gvk::GroupResource;
use machinery::status::{ApiError, Reason};
use serde_json::{Value, json};
use store::Store;

use crate::Error;
use crate::cluster::{read_kept, read_yaml};
use crate::own_api;
use crate::profile::{Profile, write_private};

const GROUP: &str = "encryption.coracle.dev";
const VERSION: &str = "v1";
const RESOURCE: &str = "keyrotations";
/// How long a request waits for a rotation to end: less than a request may take.
const ROTATION_TIMEOUT: Duration = Duration::from_secs(30);

/// What encrypts the store of a profile: the configuration that was given for it, or else a key of its own.
pub(crate) fn open(profile: &Profile) -> Result<Arc<Encryption>, Error> {
    let path = profile.encryption();
    let given = read_kept(&path)?.map(|text| read(&path, &text)).transpose()?;
    let mut earlier = Vec::new();
    for (path, text) in previous(profile)? {
        match parse(&text) {
            Ok(configuration) => earlier.push(configuration),
            // It could not be used when it was in its place either, so it has encrypted nothing.
            Err(reason) => tracing::warn!(
                path = %path.display(),
                reason,
                "an earlier configuration of encryption cannot be used and is left out: correct the file if Secrets cannot be read, \
                 else `coracle secrets rotate` removes it"
            ),
        }
    }
    Ok(Arc::new(Encryption::open(given, earlier, &profile.encryption_key())?))
}

/// Writes the key of a new store to its file, once that is open. On a full disk the cluster runs without, as it does anyway:
/// to read and to delete.
pub(crate) fn save_key(encryption: &Encryption) -> Result<(), Error> {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    match encryption.save_key() {
        Err(::encryption::Error::File { path, source }) if matches!(source.kind(), StorageFull | QuotaExceeded) => {
            let path = path.display();
            tracing::warn!(%path, %source, "no Secret can be written until there is space for the key that encrypts it");
            Ok(())
        }
        saved => Ok(saved?),
    }
}

/// The file of an earlier configuration of encryption. The first one has number 1.
fn previous_path(profile: &Profile, number: usize) -> PathBuf {
    profile.encryption().with_extension(format!("yaml.{number}"))
}

/// The files that say how the store is encrypted: those of the key and of the configuration, which need not be there, and those of
/// the earlier configurations that are.
pub(crate) fn files(profile: &Profile) -> Vec<PathBuf> {
    let earlier = (1..).map(|number| previous_path(profile, number)).take_while(|path| path.exists());
    [profile.encryption_key(), profile.encryption()].into_iter().chain(earlier).collect()
}

/// The earlier configurations of encryption whose keys may still be needed, each with its file.
fn previous(profile: &Profile) -> Result<Vec<(PathBuf, String)>, Error> {
    let mut found = Vec::new();
    loop {
        let path = previous_path(profile, found.len() + 1);
        match read_kept(&path)? {
            Some(text) => found.push((path, text)),
            None => return Ok(found),
        }
    }
}

/// Keeps the configuration of encryption that `text` is about to replace: objects are encrypted by its keys until the next
/// rotation.
///
/// # Errors
/// When a file cannot be read or written.
pub fn keep_previous_encryption_config(profile: &Profile, text: &str) -> Result<(), Error> {
    let Some(before) = read_kept(&profile.encryption())? else { return Ok(()) };
    let kept = previous(profile)?;
    if before == text || kept.iter().any(|(_, known)| *known == before) {
        return Ok(());
    }
    write_private(&previous_path(profile, kept.len() + 1), &before)
}

/// Removes the earlier configurations of encryption, once nothing is encrypted by them any more.
fn forget_previous(profile: &Profile) -> Result<(), Error> {
    // The last one first, so that those that are left after a crash are still found.
    for (path, _) in previous(profile)?.iter().rev() {
        fs::remove_file(path).map_err(|source| Error::file(path, source))?;
    }
    Ok(())
}

fn read(path: &Path, text: &str) -> Result<EncryptionConfiguration, Error> {
    parse(text).map_err(|reason| Error::Encryption { path: path.to_owned(), reason })
}

fn parse(text: &str) -> Result<EncryptionConfiguration, String> {
    read_yaml(text).and_then(|value| EncryptionConfiguration::read(&value))
}

/// Whether a configuration of encryption can be used, before it is kept.
///
/// # Errors
/// What is wrong with it.
pub fn check_encryption_config(path: &Path, text: &str) -> Result<(), Error> {
    read(path, text).map(|_| ())
}

/// The API over the keys of a store.
pub(crate) fn extension(profile: Profile, store: Store, encryption: Arc<Encryption>) -> AggregatedApi {
    let resource = AggregatedResource {
        name: RESOURCE.to_owned(),
        singular: "keyrotation".to_owned(),
        kind: "KeyRotation".to_owned(),
        verbs: vec![Verb::Create],
        ..AggregatedResource::default()
    };
    let service = Arc::new(KeyRotations { profile, store, encryption, resources: [resource].into() });
    AggregatedApi { group: GROUP, version: VERSION, service }
}

struct KeyRotations {
    profile: Profile,
    store: Store,
    encryption: Arc<Encryption>,
    resources: Arc<[AggregatedResource]>,
}

impl KeyRotations {
    async fn create(&self, request: &Request<Bytes>) -> Result<Value, ApiError> {
        if request.uri().path().strip_prefix(&format!("/apis/{GROUP}/{VERSION}/")) != Some(RESOURCE) {
            return Err(ApiError::no_such_resource());
        }
        if request.method() != Method::POST {
            let resource = GroupResource::from_static(GROUP, RESOURCE);
            return Err(ApiError::method_not_supported(&resource, &request.method().as_str().to_lowercase()));
        }
        if request.uri().query().is_some_and(|query| query.contains("dryRun")) {
            return Err(ApiError::bad_request("dryRun is not supported for keyrotations: a key is exchanged or not"));
        }
        // Whether or not somebody waits for it: half of it leaves the old key where it is.
        let rotation = tokio::spawn(rotate(self.profile.clone(), self.store.clone(), Arc::clone(&self.encryption)));
        let status = match tokio::time::timeout(ROTATION_TIMEOUT, rotation).await {
            Err(_) => json!({ "underWay": true }),
            Ok(ended) => {
                let Rotation { key, objects } = ended.map_err(ApiError::internal)?.map_err(refusal)?;
                json!({ "key": key, "objects": objects })
            }
        };
        Ok(json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "KeyRotation", "metadata": {}, "status": status,
        }))
    }
}

/// Encrypts everything again, and removes what is not needed for that any more.
async fn rotate(profile: Profile, store: Store, encryption: Arc<Encryption>) -> Result<Rotation, ::encryption::Error> {
    let rotation = encryption.rotate(&store).await;
    match &rotation {
        Ok(Rotation { key, objects }) => {
            tracing::info!(?key, objects, "encrypted everything again");
            if let Err(error) = forget_previous(&profile) {
                tracing::warn!(%error, "an earlier configuration of encryption cannot be removed");
            }
        }
        Err(error) => tracing::warn!(%error, "not everything was encrypted again"),
    }
    rotation
}

/// Why no rotation was made, for whoever asked for one.
fn refusal(error: ::encryption::Error) -> ApiError {
    match error {
        ::encryption::Error::UnderWay => ApiError::new(409, Reason::Conflict, error.to_string()),
        _ => ApiError::internal(error),
    }
}

#[async_trait]
impl AggregatedService for KeyRotations {
    fn resources(&self, _group: &str, _version: &str) -> Arc<[AggregatedResource]> {
        Arc::clone(&self.resources)
    }

    async fn call(&self, request: Request<Bytes>) -> Response<Bytes> {
        own_api::response(request.method(), self.create(&request).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Home;

    #[test]
    fn every_earlier_configuration_is_kept_until_it_is_not_needed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let profile = Home::resolve(Some(folder.path())).expect("a path").profile("test").expect("a legal name");
        profile.create().expect("created");
        let replace = |text: &str| {
            keep_previous_encryption_config(&profile, text).expect("kept");
            fs::write(profile.encryption(), text).expect("written");
        };
        let kept = || previous(&profile).expect("read").into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        replace("one");
        replace("one");
        assert!(kept().is_empty(), "nothing was replaced");
        for text in ["two", "three", "two", "one"] {
            replace(text);
        }
        assert_eq!(kept(), ["one", "two", "three"]);
        forget_previous(&profile).expect("removed");
        assert!(kept().is_empty());
    }
}
