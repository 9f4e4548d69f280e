//! Images: which are here, pulling others, and why that failed.

use std::collections::HashMap;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::models::{CreateImageInfo, ImageInspect, ImageSummary};
use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptions, RemoveImageOptions};
use futures::StreamExt;
use runtime::{Auth, Error, Image};

use crate::reference::{Reference, is_image_id};
use crate::{CALL_TIMEOUT, Docker};

/// A pull that makes no progress for so long is given up.
const PULL_PATIENCE: Duration = Duration::from_secs(120);

/// How far a pull has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PullProgress {
    /// Bytes downloaded so far.
    pub current: u64,
    /// Bytes to download, as far as known yet.
    pub total: u64,
    /// What the daemon does now, `Downloading`.
    pub status: String,
}

impl Docker {
    pub(crate) async fn find_image(&self, reference: &str) -> Result<Option<Image>, Error> {
        let name = canonical(reference)?;
        let found = self.call(CALL_TIMEOUT, self.client().inspect_image(&name)).await;
        match found {
            Ok(found) => {
                let image = of_inspect(found);
                self.index().set_digests(&image.id, image.repo_digests.clone());
                Ok(Some(image))
            }
            Err(Error::NotFound(_) | Error::ImageNotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Pulls an image, telling how far it has come, and answers its id.
    ///
    /// # Errors
    /// [`Error::InvalidImageName`], [`Error::PullFailed`], [`Error::RegistryUnavailable`] or [`Error::Unavailable`].
    pub async fn pull_with_progress(
        &self,
        reference: &str,
        auth: Option<Auth>,
        mut progress: impl FnMut(&PullProgress) + Send,
    ) -> Result<String, Error> {
        let parsed = Reference::parse(reference)?;
        let options = CreateImageOptionsBuilder::new().from_image(&parsed.repository).tag(parsed.version()).build();
        let mut steps = self.client().create_image(Some(options), None, auth.map(credentials));
        let mut layers = Layers::default();
        loop {
            let step = tokio::time::timeout(PULL_PATIENCE, steps.next()).await;
            match step {
                Ok(Some(Ok(step))) => progress(layers.update(step)),
                Ok(Some(Err(error))) => return Err(pull_failed(reference, self.error(&error))),
                Ok(None) => break,
                Err(_) => {
                    return Err(Error::PullFailed {
                        image: reference.to_owned(),
                        message: format!(
                            "Cancel pulling image {reference:?} because of no progress for {}m0s, latest progress: {:?}",
                            PULL_PATIENCE.as_secs() / 60,
                            layers.progress.status
                        ),
                    });
                }
            }
        }
        // The pull may have given new names to images that were here.
        self.index().forget_images();
        match self.find_image(reference).await? {
            Some(image) => Ok(image.id),
            None => Err(Error::ImageNotFound { image: reference.to_owned() }),
        }
    }

    pub(crate) async fn list_images(&self) -> Result<Vec<Image>, Error> {
        let found = self.call(CALL_TIMEOUT, self.client().list_images(None::<ListImagesOptions>)).await?;
        Ok(found.into_iter().map(of_summary).collect())
    }

    pub(crate) async fn delete_image(&self, reference: &str) -> Result<(), Error> {
        let name = canonical(reference)?;
        let removed =
            self.call(CALL_TIMEOUT, self.client().remove_image(&name, None::<RemoveImageOptions>, None)).await;
        self.index().forget_images();
        match removed {
            Ok(_) | Err(Error::NotFound(_) | Error::ImageNotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// An image as a pod's status names it, from what was asked for and its id.
    pub(crate) async fn image_id(&self, asked: &str, id: &str) -> String {
        if let Some(digests) = self.index().digests(id) {
            return pullable(asked, id, &digests);
        }
        // An image can be removed while a container uses it: then its id alone remains.
        let digests = match self.find_image(id).await {
            Ok(Some(image)) => image.repo_digests,
            _ => Vec::new(),
        };
        pullable(asked, id, &digests)
    }
}

/// The name Docker is asked for: an id as it is; of a tag and a digest the digest counts.
fn canonical(reference: &str) -> Result<String, Error> {
    if is_image_id(reference) {
        return Ok(reference.to_owned());
    }
    let parsed = Reference::parse(reference)?;
    Ok(match &parsed.digest {
        Some(digest) => format!("{}@{digest}", parsed.repository),
        None => format!("{}:{}", parsed.repository, parsed.version()),
    })
}

/// `docker-pullable://REPO@DIGEST` of the repository that was asked for, else of any; without one `docker://ID`.
fn pullable(asked: &str, id: &str, digests: &[String]) -> String {
    let repository = Reference::parse(asked).map(|parsed| parsed.repository);
    let same = |digest: &&String| {
        let of = digest.split_once('@').map(|(repository, _)| repository);
        repository.as_deref().ok() == of
    };
    match digests.iter().find(same).or_else(|| digests.first()) {
        Some(digest) => format!("docker-pullable://{digest}"),
        None => format!("docker://{id}"),
    }
}

fn of_inspect(found: ImageInspect) -> Image {
    let config = found.config.unwrap_or_default();
    Image {
        id: found.id.unwrap_or_default(),
        repo_tags: named(found.repo_tags.unwrap_or_default()),
        repo_digests: named(found.repo_digests.unwrap_or_default()),
        size: found.size.and_then(|size| size.try_into().ok()).unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        entrypoint: config.entrypoint.unwrap_or_default(),
        cmd: config.cmd.unwrap_or_default(),
        env: config.env.unwrap_or_default(),
    }
}

fn of_summary(found: ImageSummary) -> Image {
    Image {
        id: found.id,
        repo_tags: named(found.repo_tags),
        repo_digests: named(found.repo_digests),
        size: found.size.try_into().unwrap_or_default(),
        ..Image::default()
    }
}

/// Without Docker's stand-ins for "no name".
fn named(names: Vec<String>) -> Vec<String> {
    names.into_iter().filter(|name| !name.starts_with("<none>")).collect()
}

fn credentials(auth: Auth) -> DockerCredentials {
    let given = |text: String| (!text.is_empty()).then_some(text);
    DockerCredentials {
        username: given(auth.username),
        password: given(auth.password),
        serveraddress: given(auth.server),
        identitytoken: given(auth.identity_token),
        ..DockerCredentials::default()
    }
}

/// Tells a registry that is out of reach from one that refuses, in the words of Docker's client.
fn pull_failed(image: &str, error: Error) -> Error {
    const OUT_OF_REACH: [&str; 11] = [
        "dial tcp",
        "dial udp",
        "no such host",
        "i/o timeout",
        "connection refused",
        "connection reset",
        "network is unreachable",
        "TLS handshake timeout",
        "Client.Timeout exceeded",
        "request canceled while waiting for connection",
        "server misbehaving",
    ];
    let message = match error {
        Error::NotFound(text) | Error::Other(text) | Error::Invalid(text) | Error::Conflict(text) => text,
        Error::ImageNotFound { image } => format!("No such image: {image}"),
        other => return other,
    };
    let image = image.to_owned();
    let out_of_reach = OUT_OF_REACH.iter().any(|sign| message.contains(sign));
    let message = format!("Error response from daemon: {message}");
    if out_of_reach { Error::RegistryUnavailable { image, message } } else { Error::PullFailed { image, message } }
}

/// The layers of a pull, summed up.
#[derive(Default)]
struct Layers {
    by_id: HashMap<String, (u64, u64)>,
    progress: PullProgress,
}

impl Layers {
    fn update(&mut self, step: CreateImageInfo) -> &PullProgress {
        let status = step.status.unwrap_or_default();
        let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        if let (Some(id), Some(detail)) = (step.id, step.progress_detail) {
            let layer = self.by_id.entry(id).or_default();
            match (number(detail.current), number(detail.total)) {
                (Some(current), Some(total)) if status == "Downloading" => {
                    *layer = (current, total);
                }
                _ => layer.0 = layer.1,
            }
        }
        self.progress.current = self.by_id.values().map(|(current, _)| current).sum();
        self.progress.total = self.by_id.values().map(|(_, total)| total).sum();
        self.progress.status = status;
        &self.progress
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::*;

    #[test]
    fn image_ids_of_a_status() {
        let digests = ["mirror/nginx@sha256:1".to_owned(), "nginx@sha256:2".to_owned()];
        let cases = [
            ("nginx:latest", &digests[..], "docker-pullable://nginx@sha256:2"),
            ("docker.io/library/nginx", &digests[..], "docker-pullable://nginx@sha256:2"),
            ("other", &digests[..], "docker-pullable://mirror/nginx@sha256:1"),
            ("nginx", &[], "docker://sha256:0"),
        ];
        for (asked, digests, expect) in cases {
            assert_eq!(pullable(asked, "sha256:0", digests), expect, "{asked}");
        }
    }

    #[test]
    fn pull_errors() {
        let offline = "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io: no such host";
        let denied = "pull access denied for x, repository does not exist or may require 'docker login'";
        assert!(matches!(pull_failed("x", Error::Other(offline.to_owned())), Error::RegistryUnavailable { .. }));
        match pull_failed("x", Error::NotFound(denied.to_owned())) {
            Error::PullFailed { message, .. } => {
                assert_eq!(message, format!("Error response from daemon: {denied}"));
            }
            other => panic!("{other:?}"),
        }
        let gone = Error::Unavailable("gone".to_owned());
        assert_eq!(pull_failed("x", gone.clone()), gone);
    }

    #[test]
    fn progress_sums_up_layers() {
        let step = |id: &str, status: &str, current, total| CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: Some(ProgressDetail { current, total }),
            ..CreateImageInfo::default()
        };
        let mut layers = Layers::default();
        layers.update(step("a", "Downloading", Some(5), Some(10)));
        let progress = layers.update(step("b", "Downloading", Some(1), Some(20)));
        assert_eq!((progress.current, progress.total), (6, 30));
        let progress = layers.update(step("a", "Download complete", None, None));
        assert_eq!((progress.current, progress.total), (11, 30));
    }
}
