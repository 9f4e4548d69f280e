//! Prefers nodes that have the pod's images, the more the larger and the more widely spread they are.

use crate::cache::Cache;
use crate::framework::{Candidate, MAX_SCORE, NodeInfo, Plugin};

/// Images that sum up to less are pulled in no time; those above the second number, for each container, are all alike.
const SIZES: (i64, i64) = (23 << 20, 1_000 << 20);

pub(super) struct ImageLocality;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn score(&self, pod: &Candidate, cache: &Cache, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        let spec = pod.spec();
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let images: Vec<String> =
            containers.map(|container| full_name(container.image.as_deref().unwrap_or(""))).collect();
        // With each image, the part of all nodes that have it: upstream, so that pods do not pile up on the one that has.
        let spread: Vec<(&String, f64)> = images
            .iter()
            .filter_map(|image| match cache.nodes_with_image(image) {
                0 => None,
                count => Some((image, count as f64 / cache.len().max(1) as f64)),
            })
            .collect();
        if spread.is_empty() {
            return None;
        }
        let largest = SIZES.1 * i64::try_from(images.len()).unwrap_or(1);
        let score = |node: &&NodeInfo| {
            let sum: i64 =
                spread.iter().filter_map(|(image, part)| Some((*node.images.get(*image)? as f64 * part) as i64)).sum();
            MAX_SCORE * (sum.clamp(SIZES.0, largest) - SIZES.0) / (largest - SIZES.0)
        };
        Some(nodes.iter().map(score).collect())
    }
}

/// With its tag, as nodes report it.
fn full_name(image: &str) -> String {
    let tagged = image.rfind(':').is_some_and(|colon| image.rfind('/').is_none_or(|slash| slash < colon));
    if tagged { image.to_owned() } else { format!("{image}:latest") }
}
