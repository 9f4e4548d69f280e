//! The ConfigMaps, Secrets, claims and tokens that pods refer to.
//!
//! As upstream's kubelet, each object is watched on its own, as long as some pod here refers to it: a node needs to know
//! what its pods use, and may know no more.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use informer::{Cause, Informer, Object, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::runtime::watcher;
use kube::{Api, Client};
use machinery::references::PodReferences;
use parking_lot::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use crate::time::{after, between};
use crate::types::References;
use crate::volumes::claim;

/// A resource version as the number it is. Nothing if a server uses something else.
pub(crate) fn version(meta: &ObjectMeta) -> Option<u64> {
    meta.resource_version.as_deref()?.parse().ok()
}

/// Called with the change of an object that a pod refers to.
pub(crate) type Notify = Arc<dyn Fn(Cause) + Send + Sync>;

/// The objects that the pods of this node refer to.
pub(crate) struct Objects {
    client: Client,
    config_maps: Watched<ConfigMap>,
    secrets: Watched<Secret>,
    claims: Watched<PersistentVolumeClaim>,
    tokens: Mutex<HashMap<TokenKey, Token>>,
}

/// Pod uid, audience.
type TokenKey = (String, String);

#[derive(Clone)]
struct Token {
    text: String,
    renew: Timestamp,
}

impl Objects {
    /// Watches through `client` until `cancel` is triggered.
    pub(crate) fn new(client: Client, cancel: CancellationToken) -> Self {
        Self {
            config_maps: Watched::new(client.clone(), cancel.clone()),
            secrets: Watched::new(client.clone(), cancel.clone()),
            claims: Watched::new(client.clone(), cancel),
            tokens: Mutex::default(),
            client,
        }
    }

    /// Watches what `pod` refers to, and calls `notify` when it changes.
    pub(crate) fn track(&self, pod: &Pod, notify: &Notify) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let names = PodReferences::of(pod);
        self.config_maps.track(&uid, &namespace, &names.config_maps, notify);
        self.secrets.track(&uid, &namespace, &names.secrets, notify);
        self.claims.track(&uid, &namespace, &names.claims, notify);
    }

    /// Stops watching on behalf of the pod.
    pub(crate) fn release(&self, uid: &str) {
        self.config_maps.release(uid);
        self.secrets.release(uid);
        self.claims.release(uid);
        self.tokens().retain(|(owner, _), _| owner != uid);
    }

    /// What `pod` refers to, as far as it exists. Waits until that is known. With it the time when a token must be
    /// renewed.
    pub(crate) async fn references(&self, pod: &Pod) -> (References, Option<Timestamp>) {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let names = PodReferences::of(pod);
        let mut references = References::default();
        let tokens = names
            .tokens
            .iter()
            .map(async |(audience, seconds)| (audience.clone(), self.token(pod, &namespace, audience, *seconds).await));
        let objects = async {
            for name in &names.config_maps {
                if let Some(object) = self.config_maps.get(&namespace, name).await {
                    references.config_maps.insert(name.clone(), object);
                }
            }
            for name in &names.secrets {
                if let Some(object) = self.secrets.get(&namespace, name).await {
                    references.secrets.insert(name.clone(), object);
                }
            }
            for name in &names.claims {
                if let Some(claim) = self.claims.get(&namespace, name).await {
                    let behind = self.volume_behind(pod, name, &claim).await;
                    references.claims.insert(name.clone(), behind);
                }
            }
        };
        let (tokens, ()) = futures::join!(futures::future::join_all(tokens), objects);
        let mut renew: Option<Timestamp> = None;
        for (audience, token) in tokens {
            let token = token.map_err(|error| match error {
                kube::Error::Api(status) => status.message,
                error => error.to_string(),
            });
            if let Ok(token) = &token {
                renew = Some(renew.map_or(token.renew, |renew| renew.min(token.renew)));
            }
            references.tokens.insert(audience, token.map(|token| token.text));
        }
        (references, renew)
    }

    /// The volume behind a claim, or why the pod gets none by it.
    async fn volume_behind(
        &self,
        pod: &Pod,
        name: &str,
        claim: &PersistentVolumeClaim,
    ) -> Result<Arc<PersistentVolume>, String> {
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let mut volumes = volumes.filter(|volume| claim::name_of(pod, volume).as_deref() == Some(name));
        let ephemeral = volumes.any(|volume| volume.ephemeral.is_some());
        let name = claim::volume_name(pod, ephemeral, claim)?;
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        // Asked for rather than watched: once it is bound, nothing changes in it that the pod would see.
        let volume = api.get(name).await.map_err(|error| match error {
            kube::Error::Api(status) => format!("failed to fetch PV \"{name}\" from API server: {}", status.message),
            error => format!("failed to fetch PV \"{name}\" from API server: {error}"),
        })?;
        claim::belongs(&volume, claim)?;
        Ok(Arc::new(volume))
    }

    /// The pod's credentials for registries.
    pub(crate) async fn pull_secrets(&self, pod: &Pod) -> Vec<Arc<Secret>> {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let mut secrets = Vec::new();
        for name in PodReferences::of(pod).pull_secrets {
            secrets.extend(self.secrets.get(&namespace, &name).await);
        }
        secrets
    }

    /// A token bound to the pod, renewed after four fifths of its life, as upstream does.
    async fn token(&self, pod: &Pod, namespace: &str, audience: &str, seconds: i64) -> Result<Token, kube::Error> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let key = (uid, audience.to_owned());
        let now = Timestamp::now();
        if let Some(token) = self.tokens().get(&key)
            && token.renew > now
        {
            return Ok(token.clone());
        }
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(audience.to_owned())
                    .filter(|text| !text.is_empty())
                    .into_iter()
                    .collect::<Vec<_>>()
                    .into(),
                expiration_seconds: Some(seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
            }),
            ..TokenRequest::default()
        };
        let account = account.filter(|account| !account.is_empty());
        let account = account.unwrap_or_else(|| "default".to_owned());
        let parameters = PostParams::default();
        let answer = api.create_token_request(&account, &parameters, &request).await?;
        let status = answer.status.unwrap_or_default();
        let expires = status.expiration_timestamp.map_or(now, |time| time.0);
        let token = Token { text: status.token.unwrap_or_default(), renew: after(now, between(now, expires) * 4 / 5) };
        self.tokens().insert(key, token.clone());
        Ok(token)
    }

    fn tokens(&self) -> MutexGuard<'_, HashMap<TokenKey, Token>> {
        self.tokens.lock()
    }
}

/// Objects of one kind, each watched on its own.
struct Watched<K> {
    client: Client,
    cancel: CancellationToken,
    entries: Mutex<HashMap<ObjectKey, Entry<K>>>,
}

struct Entry<K> {
    informer: Informer<K>,
    cancel: CancellationToken,
    /// By uid of the pod.
    users: Arc<Mutex<HashMap<String, Notify>>>,
    /// Whether somebody has read the object: what was known before is no news.
    read: Arc<AtomicBool>,
}

impl<K> Watched<K>
where
    K: Object + kube::Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default + Clone,
{
    fn new(client: Client, cancel: CancellationToken) -> Self {
        Self { client, cancel, entries: Mutex::default() }
    }

    fn track(&self, uid: &str, namespace: &str, names: &BTreeSet<String>, notify: &Notify) {
        let mut entries = self.entries();
        for name in names {
            let key = ObjectKey::new(namespace, name.as_str());
            let entry = entries.entry(key).or_insert_with(|| self.watch(namespace, name));
            entry.users.lock().insert(uid.to_owned(), Arc::clone(notify));
        }
        drop_unused(&mut entries, uid, |key| key.namespace == namespace && names.contains(&key.name));
    }

    fn release(&self, uid: &str) {
        drop_unused(&mut self.entries(), uid, |_| false);
    }

    async fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let key = ObjectKey::new(namespace, name);
        let (informer, read) = {
            let entries = self.entries();
            let entry = entries.get(&key)?;
            (entry.informer.clone(), Arc::clone(&entry.read))
        };
        informer.synced().await;
        read.store(true, Ordering::SeqCst);
        informer.get(&key)
    }

    fn watch(&self, namespace: &str, name: &str) -> Entry<K> {
        let cancel = self.cancel.child_token();
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let informer = Informer::start(api, config, cancel.clone());
        let users: Arc<Mutex<HashMap<String, Notify>>> = Arc::default();
        let (woken, read) = (Arc::clone(&users), Arc::<AtomicBool>::default());
        let known = Arc::clone(&read);
        informer.on_change(move |change| {
            if known.load(Ordering::SeqCst) {
                woken.lock().values().for_each(|notify| notify(change.cause()));
            }
        });
        Entry { informer, cancel, users, read }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<ObjectKey, Entry<K>>> {
        self.entries.lock()
    }
}

/// Takes the user `uid` off all entries but those to `keep`, and ends the watches that nobody uses any more.
fn drop_unused<K>(entries: &mut HashMap<ObjectKey, Entry<K>>, uid: &str, keep: impl Fn(&ObjectKey) -> bool) {
    entries.retain(|key, entry| {
        let mut users = entry.users.lock();
        if !keep(key) {
            users.remove(uid);
        }
        if users.is_empty() {
            entry.cancel.cancel();
        }
        !users.is_empty()
    });
}
