//! Which images a node has pulled itself, so that no other is ever removed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use runtime::Image;

/// The longest file that is read, in bytes: some ten thousand images.
const LONGEST_FILE: u64 = 4 << 20;

/// By id of image: the names that pulls of this node gave it.
type Names = BTreeMap<String, BTreeSet<String>>;

/// The images that a node has pulled, kept in a file. One that cannot be read or written means that images stay.
#[derive(Debug, Clone)]
pub(crate) struct PulledImages {
    path: PathBuf,
    names: Arc<Mutex<Names>>,
}

impl PulledImages {
    /// What the kubelet with this directory has pulled so far.
    pub(crate) fn load(state_dir: &Path) -> Self {
        let path = state_dir.join("pulled-images.json");
        let text = hostfs::read(&path, LONGEST_FILE).unwrap_or_default();
        let names = serde_json::from_slice(&text).unwrap_or_default();
        Self { path, names: Arc::new(Mutex::new(names)) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.lock().is_empty()
    }

    /// Notes an image after its pull; `before` is what had its name until then, and `was_here` whether it was here by another
    /// name, or none.
    pub(crate) async fn note(&self, before: Option<&Image>, was_here: bool, image: &Image) {
        // It was here.
        if before.is_some_and(|before| before.id == image.id) {
            return;
        }
        let changed = {
            let mut names = self.names.lock();
            // Whoever has it by its digest, or had another image by this name, goes on using it.
            if was_here && !names.contains_key(&image.id)
                || before.is_some_and(|before| !names.contains_key(&before.id))
            {
                return;
            }
            let known = names.get(&image.id).cloned().unwrap_or_default();
            let fresh: Vec<&String> = image.repo_tags.iter().filter(|tag| !known.contains(*tag)).collect();
            match fresh.as_slice() {
                // Pulled by its digest.
                [] => names.insert(image.id.clone(), known).is_none(),
                [tag] => names.entry(image.id.clone()).or_default().insert((*tag).clone()),
                // A pull gives one name: the others are somebody else's, and so is the image.
                _ => false,
            }
        };
        if changed {
            self.save().await;
        }
    }

    /// Forgets images that are no more.
    pub(crate) async fn retain(&self, images: &[Image]) {
        let changed = {
            let mut names = self.names.lock();
            let before = names.len();
            names.retain(|id, _| images.iter().any(|image| image.id == *id));
            names.len() != before
        };
        if changed {
            self.save().await;
        }
    }

    /// By which names to remove an image; none where it is somebody else's, or has a name that is.
    pub(crate) fn names_to_remove(&self, image: &Image) -> Option<Vec<String>> {
        let names = self.names.lock();
        let known = names.get(&image.id)?;
        image.repo_tags.iter().all(|tag| known.contains(tag)).then(|| match image.repo_tags.is_empty() {
            true => vec![image.id.clone()],
            false => image.repo_tags.clone(),
        })
    }

    async fn save(&self) {
        let Self { path, names } = self.clone();
        let save = tokio::task::spawn_blocking(move || {
            // Held while the file is written, so that an older state does not overwrite a newer one.
            let names = names.lock();
            let text = serde_json::to_string(&*names).map_err(std::io::Error::other)?;
            hostfs::write_private(&path, &text)
        });
        if let Ok(Err(error)) = save.await {
            tracing::warn!(%error, "cannot note which images were pulled: they are not removed when the disk is full");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, tags: &[&str]) -> Image {
        let repo_tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        Image { id: id.to_owned(), repo_tags, ..Image::default() }
    }

    #[tokio::test]
    async fn only_what_was_pulled_here_and_has_no_further_name() {
        let folder = tempfile::tempdir().unwrap();
        let pulled = PulledImages::load(folder.path());
        let check = |pulled: &PulledImages, image: &Image, expect: Option<&[&str]>| {
            let expect = expect.map(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
            assert_eq!(pulled.names_to_remove(image), expect, "{image:?}");
        };
        let (own, users) = (image("1", &["own:1"]), image("2", &["users:1"]));
        pulled.note(None, false, &own).await;
        // A pull of what was here, and of what the user had under another name.
        pulled.note(Some(&users), true, &users).await;
        pulled.note(None, true, &image("3", &["built:1", "pulled:1"])).await;
        pulled.note(None, false, &image("6", &["built:1", "pulled:1"])).await;
        // The user's name moves on, and the user's image that only has a digest gets a name.
        pulled.note(Some(&users), false, &image("4", &["users:1"])).await;
        pulled.note(None, true, &image("7", &["digest:1"])).await;
        pulled.note(None, false, &image("5", &[])).await;
        // So does a name of this node's own.
        pulled.note(Some(&image("5", &["moving:1"])), false, &image("8", &["moving:1"])).await;
        let pulled = PulledImages::load(folder.path());
        check(&pulled, &own, Some(&["own:1"]));
        check(&pulled, &users, None);
        check(&pulled, &image("3", &["built:1", "pulled:1"]), None);
        check(&pulled, &image("6", &["built:1", "pulled:1"]), None);
        check(&pulled, &image("4", &["users:1"]), None);
        check(&pulled, &image("7", &["digest:1"]), None);
        check(&pulled, &image("8", &["moving:1"]), Some(&["moving:1"]));
        check(&pulled, &image("5", &[]), Some(&["5"]));
        // Its name went to a newer image; the user gave it one.
        check(&pulled, &image("1", &[]), Some(&["1"]));
        check(&pulled, &image("1", &["own:1", "users:2"]), None);
        // A second pull gives it a second name.
        pulled.note(None, true, &image("1", &["own:1", "own:2"])).await;
        check(&pulled, &image("1", &["own:1", "own:2"]), Some(&["own:1", "own:2"]));
        pulled.retain(&[own]).await;
        assert_eq!(PulledImages::load(folder.path()).names.lock().len(), 1);
    }
}
