//! Garbage collection of images: what this node pulled and no container needs is removed when the disk fills (upstream:
//! `pkg/kubelet/images/image_gc_manager.go`).
//!
//! The runtime is the user's own, and so are its images. Only those are ever removed that a kubelet of this directory has
//! pulled itself ([`PulledImages`]) and that nobody has given a further name; and the runtime refuses what a container
//! uses, whosever that is.

mod pulled;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use runtime::Image;
use tokio::time::Instant;

pub(crate) use pulled::PulledImages;

use crate::eviction::signals::has_image_fs;
use crate::measures::{Amount, Measurement};
use crate::shared::Shared;

/// From so many hundredths of the disk on images are removed (upstream: `imageGCHighThresholdPercent`), until so many are
/// used (`imageGCLowThresholdPercent`).
pub(crate) const THRESHOLDS: (u64, u64) = (85, 80);
/// Where so much is left the disk is not too full, however much is used: laptops' disks are large, and mostly used for other
/// things.
const PLENTY: u64 = 10 << 30;
/// How often the disk is looked at for it (upstream: `ImageGCPeriod` in `pkg/kubelet/kubelet.go`).
const PERIOD: Duration = Duration::from_secs(300);
/// An image that was used so lately stays. A laptop's disk is often that full with other things, and a workload that is
/// restarted would have to pull its image again each time; upstream keeps images for two minutes (`imageMinimumGCAge`).
const KEPT: Duration = Duration::from_secs(3600);
/// The same when the disk is about to be full: upstream's two minutes.
const KEPT_UNDER_PRESSURE: Duration = Duration::from_secs(120);

/// Removes images of one node.
pub(crate) struct ImageGc {
    shared: Arc<Shared>,
    /// When a container that used it was last seen, by id; for others, when the image was first seen.
    last_used: HashMap<String, Instant>,
    due: Instant,
}

impl ImageGc {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, last_used: HashMap::new(), due: Instant::now() }
    }

    /// Looks at the disk once in a while, and removes images where it is too full.
    pub(crate) async fn collect_when_due(&mut self, found: &Measurement) {
        let now = Instant::now();
        // A runtime on another machine cares for its disk itself.
        let Some(disk) = found.image_fs.filter(|_| now >= self.due) else { return };
        self.due = now + PERIOD;
        let amount = amount_to_free(disk.bytes);
        if self.shared.pulled.is_empty() {
            return;
        }
        let removed = self.collect(amount, KEPT).await;
        if amount > 0 && removed < amount {
            let another = if has_image_fs(found) { "" } else { ", which other files share" };
            tracing::debug!(amount, removed, "there are no more images to remove from the disk{another}");
        }
    }

    /// Removes images that take `missing` bytes, if there are so many that nobody needs. Returns whether any was removed.
    pub(crate) async fn collect_all(&mut self, missing: u64) -> bool {
        !self.shared.pulled.is_empty() && self.collect(missing.max(1), KEPT_UNDER_PRESSURE).await > 0
    }

    /// Removes what was not used for `kept`, until `amount` bytes are free. Returns how many are.
    async fn collect(&mut self, amount: u64, kept: Duration) -> u64 {
        let Ok(images) = self.shared.runtime.images().await else { return 0 };
        let now = Instant::now();
        self.observe(&images, now);
        self.shared.pulled.retain(&images).await;
        let mut removed = 0;
        for image in candidates(images, &self.last_used, now, kept) {
            if removed >= amount {
                break;
            }
            let Some(names) = self.shared.pulled.names_to_remove(&image) else { continue };
            if self.remove(&image, &names).await {
                removed += image.size;
            }
        }
        removed
    }

    async fn remove(&self, image: &Image, names: &[String]) -> bool {
        for name in names {
            if let Err(error) = self.shared.runtime.remove_image(name).await {
                // Most often a container of somebody else uses it.
                tracing::debug!(%error, image = name, "an image that is not needed stays");
                return false;
            }
        }
        tracing::info!(image = names.join(", "), bytes = image.size, "removed an image to free the disk");
        true
    }

    /// Notes which images are in use.
    fn observe(&mut self, images: &[Image], now: Instant) {
        let mut used: HashSet<String> = HashSet::new();
        for pod in self.shared.pleg.pods() {
            for container in self.shared.pleg.observed(&pod.uid).containers() {
                let id = container.image_id.split_once("://").map_or(container.image_id.as_str(), |(_, id)| id);
                used.extend([id.to_owned(), container.image.clone()]);
            }
        }
        self.last_used.retain(|id, _| images.iter().any(|image| image.id == *id));
        for image in images {
            let names = image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]);
            let is_used = names.into_iter().any(|name| used.contains(name));
            let last_used = self.last_used.entry(image.id.clone()).or_insert(now);
            if is_used {
                *last_used = now;
            }
        }
    }
}

/// How many bytes must be freed of a disk that is too full.
fn amount_to_free(disk: Amount) -> u64 {
    match disk.used_percent() >= THRESHOLDS.0 && disk.available < PLENTY {
        // A large disk is not emptied of images because little of it is left.
        true => (disk.capacity / 100 * (100 - THRESHOLDS.1)).min(PLENTY + PLENTY / 2).saturating_sub(disk.available),
        false => 0,
    }
}

/// The images that have not been used for `kept`, those first that were not for longest.
fn candidates(
    mut images: Vec<Image>,
    last_used: &HashMap<String, Instant>,
    now: Instant,
    kept: Duration,
) -> Vec<Image> {
    let unused = |image: &Image| last_used.get(&image.id).map(|used| now.duration_since(*used));
    images.retain(|image| unused(image).is_some_and(|unused| unused >= kept));
    images.sort_by_key(|image| std::cmp::Reverse(unused(image)));
    images
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_the_thresholds() {
        let check = |available: u64, expect: u64| {
            assert_eq!(amount_to_free(Amount { available, capacity: 1_000 }), expect, "{available}");
        };
        check(500, 0);
        check(151, 0);
        check(150, 50);
        check(10, 190);
        let large = |available: u64| amount_to_free(Amount { available: available << 30, capacity: 1_000 << 30 });
        assert_eq!((large(10), large(9) > 0), (0, true));
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let begin = Instant::now();
        let at = |second: u64| begin + Duration::from_secs(second);
        let image = |id: &str| Image { id: id.to_owned(), ..Image::default() };
        let last_used = [("new", 100), ("old", 10), ("older", 5)].map(|(id, second)| (id.to_owned(), at(second)));
        let images = ["new", "old", "unknown", "older"].map(image).to_vec();
        let found = candidates(images, &last_used.into(), at(120), Duration::from_secs(60));
        assert_eq!(found.iter().map(|image| image.id.as_str()).collect::<Vec<_>>(), ["older", "old"]);
    }
}
