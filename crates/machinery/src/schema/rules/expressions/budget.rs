//! What the rules of a schema may cost together. Upstream:
//! `staging/src/k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go`.

use crate::field::{ErrorList, FieldError, Path};

/// What one rule may cost in an object. Upstream: `StaticEstimatedCostLimit`.
pub(super) const RULE_LIMIT: u64 = 10_000_000;

/// What all rules of a schema may cost in an object. Upstream: `StaticEstimatedCRDCostLimit`.
const SCHEMA_LIMIT: u64 = 100_000_000;

/// How many rules are named when all of them together cost too much.
const NAMED: usize = 4;

/// What the rules cost that were looked at so far.
#[derive(Default)]
pub(super) struct Total {
    cost: u64,
    /// The most expensive ones, the worst first, of those that matter.
    most_expensive: Vec<(Path, u64)>,
}

impl Total {
    /// Counts the expression at `path`.
    pub(super) fn observe(&mut self, path: Path, cost: u64) {
        self.cost = self.cost.saturating_add(cost);
        if cost < SCHEMA_LIMIT / 100 {
            return;
        }
        let place = self.most_expensive.partition_point(|(_, other)| *other >= cost);
        self.most_expensive.insert(place, (path, cost));
        self.most_expensive.truncate(NAMED);
    }

    /// Adds what is wrong with the schema at `path`, if its rules cost too much together.
    pub(super) fn refuse(self, path: &Path, errors: &mut ErrorList) {
        let name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        let Some(why) = over(name, self.cost, SCHEMA_LIMIT) else { return };
        for (path, _) in self.most_expensive {
            let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            errors.push(FieldError::forbidden(&path, why));
        }
        errors.push(FieldError::forbidden(path, why));
    }
}

/// Why a cost is refused, if it is beyond the limit. Upstream: `getCostErrorMessage`.
pub(super) fn over(name: &str, cost: u64, limit: u64) -> Option<String> {
    if cost <= limit {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "it is shown to one or six decimals")]
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    Some(format!(
        "{name} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    ))
}
