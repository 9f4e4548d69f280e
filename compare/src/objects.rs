//! The objects that are sent: for each kind at least a minimal one, and one with as many fields as agree with each other.

use anyhow::{Context, Result};
use serde_json::Value;

/// The namespace of all that has one.
pub(crate) const NAMESPACE: &str = "compare";

const FILES: [(&str, &str); 5] = [
    ("core.yaml", include_str!("../objects/core.yaml")),
    ("workloads.yaml", include_str!("../objects/workloads.yaml")),
    ("network.yaml", include_str!("../objects/network.yaml")),
    ("cluster.yaml", include_str!("../objects/cluster.yaml")),
    ("custom.yaml", include_str!("../objects/custom.yaml")),
];
const REVIEWS: (&str, &str) = ("reviews.yaml", include_str!("../objects/reviews.yaml"));

/// Those that are kept. Custom resources are last: their definition comes before them.
pub(crate) fn all() -> Result<Vec<Value>> {
    FILES.iter().map(parse).collect::<Result<Vec<_>>>().map(|files| files.concat())
}

/// Those that are answered and not kept.
pub(crate) fn reviews() -> Result<Vec<Value>> {
    parse(&REVIEWS)
}

fn parse((name, text): &(&str, &str)) -> Result<Vec<Value>> {
    serde_saphyr::from_multiple(&text.replace("NAMESPACE", NAMESPACE))
        .with_context(|| format!("compare/objects/{name}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn each_kind_has_a_minimal_and_a_full_object() {
        let mut sizes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for object in all().unwrap() {
            assert!(object["metadata"]["name"].is_string(), "{object}");
            let kind = format!("{} {}", object["apiVersion"], object["kind"]);
            sizes.entry(kind).or_default().push(object.to_string().len());
        }
        for (kind, sizes) in sizes {
            assert!(sizes.len() > 1 && sizes.iter().min() != sizes.iter().max(), "{kind}: {sizes:?}");
        }
        assert!(!reviews().unwrap().is_empty());
    }
}
