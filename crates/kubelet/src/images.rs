//! Images: when to pull, what to tell people about it, and how failures are named.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, Secret};
use parking_lot::{Mutex, MutexGuard};
use runtime::{Auth, Error, Image, Runtime};
use tokio_util::sync::CancellationToken;

use crate::image_gc::PulledImages;
use crate::time::go_duration;
use crate::types::waiting::{Waiting, WaitingReason};

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PullPolicy {
    /// Before every start.
    Always,
    /// When it is missing.
    IfNotPresent,
    /// Never.
    Never,
}

impl PullPolicy {
    /// The policy of a container. Without one, upstream's default: `Always` for `:latest`.
    pub(crate) fn of(container: &Container) -> Self {
        match container.image_pull_policy.as_deref() {
            Some("Always") => Self::Always,
            Some("Never") => Self::Never,
            Some(_) => Self::IfNotPresent,
            None => match tag(container.image.as_deref().unwrap_or_default()) {
                None | Some("latest") => Self::Always,
                Some(_) => Self::IfNotPresent,
            },
        }
    }
}

/// The tag of a reference; a digest counts as one.
fn tag(image: &str) -> Option<&str> {
    if let Some((_, digest)) = image.split_once('@') {
        return Some(digest);
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split_once(':').map(|(_, tag)| tag)
}

/// What to tell people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// Whether it is bad news.
    pub(crate) warning: bool,
    /// CamelCase reason.
    pub(crate) reason: &'static str,
    /// Sentence.
    pub(crate) message: String,
}

impl Note {
    fn normal(reason: &'static str, message: String) -> Self {
        Self { warning: false, reason, message }
    }

    fn warning(reason: &'static str, message: String) -> Self {
        Self { warning: true, reason, message }
    }
}

/// How long a registry that was out of reach is not asked again for an image that is here.
const OFFLINE: Duration = Duration::from_secs(30);

/// The images of one node.
pub(crate) struct Images {
    runtime: Arc<dyn Runtime>,
    pulled: PulledImages,
    run_local_when_offline: bool,
    /// Registries that were out of reach, and since when.
    offline: Mutex<HashMap<String, Instant>>,
}

impl Images {
    /// Images of `runtime`; `pulled` is told of those that were not here before.
    pub(crate) fn new(runtime: Arc<dyn Runtime>, pulled: PulledImages, run_local_when_offline: bool) -> Self {
        Self { runtime, pulled, run_local_when_offline, offline: Mutex::default() }
    }

    /// Makes sure that the image of `container` is present. `tell` is called as things happen. The error is what the
    /// container waits for; `None` when `cancel` was triggered.
    pub(crate) async fn ensure(
        &self,
        container: &Container,
        secrets: &[Arc<Secret>],
        cancel: &CancellationToken,
        tell: impl Fn(Note) + Sync,
    ) -> Result<Image, Option<Waiting>> {
        let name = container.image.as_deref().unwrap_or_default();
        let local = match self.runtime.image(name).await {
            Ok(local) => local,
            Err(error @ Error::InvalidImageName { .. }) => {
                return Err(Some(invalid(name, &error, &tell)));
            }
            Err(error) => {
                let message = format!("Failed to inspect image \"{name}\": {error}");
                tell(Note::warning("InspectFailed", message.clone()));
                return Err(Some(Waiting::new(WaitingReason::ImageInspectError, message)));
            }
        };
        match (PullPolicy::of(container), local) {
            (PullPolicy::IfNotPresent | PullPolicy::Never, Some(image)) => {
                let message =
                    format!("Container image \"{name}\" already present on machine and can be accessed by the pod");
                tell(Note::normal("Pulled", message));
                Ok(image)
            }
            (PullPolicy::Never, None) => {
                let message = format!("Container image \"{name}\" is not present with pull policy of Never");
                tell(Note::warning("ErrImageNeverPull", message.clone()));
                tell(Note::warning("Failed", "Error: ErrImageNeverPull".to_owned()));
                Err(Some(Waiting::new(WaitingReason::ErrImageNeverPull, message)))
            }
            (_, local) => {
                let auth = credentials(name, secrets);
                tokio::select! {
                    () = cancel.cancelled() => Err(None),
                    result = self.pull(name, local, auth, &tell) => result.map_err(Some),
                }
            }
        }
    }

    async fn pull(
        &self,
        name: &str,
        local: Option<Image>,
        auth: Option<Auth>,
        tell: &(impl Fn(Note) + Sync),
    ) -> Result<Image, Waiting> {
        let before = local.clone();
        let local = local.filter(|_| self.run_local_when_offline);
        let offline = |message: &str| {
            let message = format!(
                "Registry of image \"{name}\" is out of reach{message}; using the image already present on machine"
            );
            tell(Note::normal("Pulled", message));
        };
        let registry = registry(name);
        // Whoever scales up without a network does not wait for it again and again.
        if let Some(image) = &local
            && self.is_offline(&registry)
        {
            offline("");
            return Ok(image.clone());
        }
        tell(Note::normal("Pulling", format!("Pulling image \"{name}\"")));
        let begun = Instant::now();
        // What was here before is not this node's to remove, by whichever name; unless that is known it is left alone.
        let here = self.runtime.images().await.ok();
        let error = match self.runtime.pull_image(name, auth).await {
            Ok(_) => match self.runtime.image(name).await {
                Ok(Some(image)) => {
                    let was_here = here.is_none_or(|here| here.iter().any(|known| known.id == image.id));
                    self.pulled.note(before.as_ref(), was_here, &image).await;
                    let (took, size) = (go_duration(begun.elapsed()), image.size);
                    let message = format!(
                        "Successfully pulled image \"{name}\" in {took} ({took} including waiting). Image size: {size} bytes."
                    );
                    tell(Note::normal("Pulled", message));
                    return Ok(image);
                }
                Ok(None) => "the image is missing after its pull".to_owned(),
                Err(error) => error.to_string(),
            },
            Err(Error::RegistryUnavailable { message, .. }) => {
                if let Some(image) = local {
                    self.offline().insert(registry, Instant::now());
                    offline(&format!(" ({message})"));
                    return Ok(image);
                }
                message
            }
            Err(error @ Error::InvalidImageName { .. }) => return Err(invalid(name, &error, tell)),
            Err(error) => error.to_string(),
        };
        let message = format!("Failed to pull image \"{name}\": {error}");
        tell(Note::warning("Failed", message));
        tell(Note::warning("Failed", "Error: ErrImagePull".to_owned()));
        Err(Waiting::new(WaitingReason::ErrImagePull, error))
    }

    fn is_offline(&self, registry: &str) -> bool {
        let offline = self.offline();
        offline.get(registry).is_some_and(|since| since.elapsed() < OFFLINE)
    }

    fn offline(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.offline.lock()
    }
}

fn invalid(name: &str, error: &Error, tell: &impl Fn(Note)) -> Waiting {
    let message = format!("Failed to apply default image tag \"{name}\": {error}");
    tell(Note::warning("InspectFailed", message.clone()));
    tell(Note::warning("Failed", "Error: InvalidImageName".to_owned()));
    Waiting::new(WaitingReason::InvalidImageName, message)
}

/// The credentials for `image` among the pod's pull secrets.
fn credentials(image: &str, secrets: &[Arc<Secret>]) -> Option<Auth> {
    let registry = registry(image);
    secrets.iter().find_map(|secret| {
        let data = secret.data.as_ref()?;
        let auths: serde_json::Value = match (data.get(".dockerconfigjson"), data.get(".dockercfg")) {
            (Some(config), _) => {
                let mut config: serde_json::Value = serde_json::from_slice(&config.0).ok()?;
                config.get_mut("auths")?.take()
            }
            (None, Some(config)) => serde_json::from_slice(&config.0).ok()?,
            (None, None) => return None,
        };
        let (server, auth) = auths.as_object()?.iter().find(|(server, _)| host(server) == registry)?;
        let text = |field: &str| auth.get(field)?.as_str().map(str::to_owned);
        let (username, password) = match text("auth") {
            Some(encoded) => {
                use base64::Engine;
                let decoded = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
                let decoded = String::from_utf8(decoded).ok()?;
                let (username, password) = decoded.split_once(':')?;
                (username.to_owned(), password.to_owned())
            }
            None => (text("username").unwrap_or_default(), text("password").unwrap_or_default()),
        };
        Some(Auth {
            username,
            password,
            server: server.clone(),
            identity_token: text("identitytoken").unwrap_or_default(),
        })
    })
}

/// The registry of an image: its first part if that looks like a host.
fn registry(image: &str) -> String {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => host(first),
        _ => "docker.io".to_owned(),
    }
}

/// The host of a server's address. Docker Hub has several names.
fn host(server: &str) -> String {
    let server = server.split_once("://").map_or(server, |(_, rest)| rest);
    match server.split('/').next().unwrap_or_default() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn policies() {
        for (image, policy, expect) in [
            ("nginx", None, PullPolicy::Always),
            ("nginx:latest", None, PullPolicy::Always),
            ("nginx:1.21", None, PullPolicy::IfNotPresent),
            ("host:5000/nginx", None, PullPolicy::Always),
            ("host:5000/nginx:1", None, PullPolicy::IfNotPresent),
            ("nginx@sha256:abc", None, PullPolicy::IfNotPresent),
            ("nginx", Some("IfNotPresent"), PullPolicy::IfNotPresent),
            ("nginx:1", Some("Always"), PullPolicy::Always),
            ("nginx", Some("Never"), PullPolicy::Never),
        ] {
            let container = Container {
                image: Some(image.to_owned()),
                image_pull_policy: policy.map(str::to_owned),
                ..Container::default()
            };
            assert_eq!(PullPolicy::of(&container), expect, "{image} {policy:?}");
        }
    }

    #[test]
    fn credentials_by_registry() {
        let config = json!({"auths": {
            "https://index.docker.io/v1/": {"auth": "bWU6aHVzaA=="},
            "registry.example:5000": {"username": "you", "password": "x"}}});
        let secret: Secret = serde_json::from_value(json!({"stringData": {}})).unwrap();
        let secret = Secret {
            data: Some(
                [(".dockerconfigjson".to_owned(), k8s_openapi::ByteString(config.to_string().into_bytes()))].into(),
            ),
            ..secret
        };
        let secrets = [Arc::new(secret)];
        for (image, expect) in [
            ("nginx", Some("me")),
            ("library/nginx", Some("me")),
            ("registry.example:5000/a/b:1", Some("you")),
            ("quay.io/a/b", None),
        ] {
            let auth = credentials(image, &secrets);
            let user = auth.map(|auth| auth.username);
            assert_eq!(user.as_deref(), expect, "{image}");
        }
    }
}
