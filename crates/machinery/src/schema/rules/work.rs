//! How much work the schemas of one definition may make when they are compiled: when it is written, and at each start.
//!
//! Upstream has no such limits: there a definition of three megabytes may take minutes, of each API server.

use std::collections::HashSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;

use super::{additional, items};
use crate::expression::{self, TOGETHER_MAX};
use crate::field::{ErrorList, FieldError, Path};
use crate::schema::pattern;

/// What all patterns of a definition may take when they are compiled, in bytes; each counts once, and as the next power of two.
const PATTERNS_MAX: usize = 64 << 20;

/// What a compiled pattern counts at least, and may take at most: the default of the library.
const PATTERN: (usize, usize) = (16 << 10, 10 << 20);

/// What the schemas of one definition have cost so far.
#[derive(Debug)]
pub struct Work {
    patterns: usize,
    patterns_max: usize,
    expressions: usize,
    expressions_max: usize,
    /// The patterns that were compiled.
    seen: HashSet<String>,
}

impl Default for Work {
    fn default() -> Self {
        Self { patterns_max: PATTERNS_MAX, expressions_max: TOGETHER_MAX, ..Self::unlimited() }
    }
}

impl Work {
    /// As much as it takes.
    pub(super) fn unlimited() -> Self {
        let max = usize::MAX;
        Self { patterns: 0, patterns_max: max, expressions: 0, expressions_max: max, seen: HashSet::new() }
    }

    /// Compiles the pattern of a node. Once there were too many, no other is looked at.
    pub(super) fn pattern(&mut self, text: &str, path: &Path, errors: &mut ErrorList) {
        if self.seen.contains(text) {
            return;
        }
        let path = path.child("pattern");
        let mut size = PATTERN.0;
        // It costs no more than twice what is counted.
        loop {
            if self.patterns + size > self.patterns_max {
                let why =
                    format!("all patterns together must not take more than {} bytes when compiled", self.patterns_max);
                errors.push(FieldError::forbidden(&path, why));
                return;
            }
            match pattern::compile_within(text, size) {
                Ok(_) => {
                    self.patterns += size;
                    self.seen.insert(text.to_owned());
                    return;
                }
                Err(regex::Error::CompiledTooBig(_)) if size < PATTERN.1 => size = (size * 2).min(PATTERN.1),
                Err(error) => {
                    if matches!(error, regex::Error::CompiledTooBig(_)) {
                        self.patterns += size;
                    }
                    let why = error.to_string();
                    let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
                    let detail = format!("must be a valid regular expression, but isn't: {why}");
                    errors.push(FieldError::invalid(&path, text, detail));
                    return;
                }
            }
        }
    }

    /// Counts the expressions of a schema. Returns why they must not be compiled, if there are too many.
    pub(super) fn expressions(&mut self, props: &JSONSchemaProps, path: &Path) -> Option<FieldError> {
        count(props, &mut self.expressions);
        (self.expressions > self.expressions_max)
            .then(|| FieldError::forbidden(path, expression::too_long("all rules of a definition")))
    }
}

/// Adds the length of the expressions of a schema.
fn count(props: &JSONSchemaProps, length: &mut usize) {
    for rule in props.x_kubernetes_validations.iter().flatten() {
        for text in [Some(&rule.rule), rule.message_expression.as_ref()].into_iter().flatten() {
            *length += expression::length(text);
        }
    }
    let below =
        items(props).into_iter().chain(additional(props)).chain(props.properties.iter().flatten().map(|(_, p)| p));
    for schema in below {
        count(schema, length);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patterns(max: usize, texts: impl IntoIterator<Item = String>) -> Vec<String> {
        let (mut work, mut errors) = (Work { patterns_max: max, ..Work::default() }, ErrorList::new());
        for text in texts {
            work.pattern(&text, &Path::new("spec"), &mut errors);
        }
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn patterns_have_a_budget() {
        // Those of real definitions; whoever uses one a hundred times pays once.
        let name = |n: usize| format!("^[a-z0-9]([-a-z0-9]{{0,{}}}[a-z0-9])?$", n % 3 + 61);
        assert_eq!(patterns(PATTERNS_MAX / 64, (0..100).map(name)), [""; 0]);
        let wrong = patterns(1 << 20, (0..9).map(|n| format!("^[a-z]{{{}}}$", 2000 + n)));
        let beyond =
            "spec.pattern: Forbidden: all patterns together must not take more than 1048576 bytes when compiled";
        assert!(!wrong.is_empty() && wrong.len() < 9 && wrong.iter().all(|why| why == beyond), "{wrong:?}");
    }

    #[test]
    fn a_pattern_that_is_too_large_is_work_too() {
        let wrong = patterns(21 << 20, (0..3).map(|n| format!("\\p{{L}}{{1,{}}}", 999 - n)));
        assert!(wrong[0].contains("Compiled regex exceeds size limit of 10485760 bytes"), "{wrong:?}");
        assert!(wrong[2].contains("all patterns together"), "{wrong:?}");
    }

    #[test]
    fn expressions_have_a_budget() {
        let rules = |count: usize, rule: &str| -> JSONSchemaProps {
            let rules = vec![json!({"rule": rule}); count];
            let list = json!({"type": "array", "items": {"type": "string", "x-kubernetes-validations": rules}});
            serde_json::from_value(json!({"type": "object", "properties": {"list": list}})).unwrap()
        };
        let path = Path::new("schema");
        let mut work = Work::default();
        assert!(work.expressions(&rules(2500, "self != ''"), &path).is_none());
        // The versions of a definition count together.
        assert!(work.expressions(&rules(2500, "self != ''"), &path).is_none());
        let wrong = work.expressions(&rules(1, "self != ''"), &path).map(|error| error.to_string()).unwrap_or_default();
        assert!(wrong.starts_with("schema: Forbidden: all rules of a definition together"), "{wrong}");
        assert!(Work::default().expressions(&rules(3, &"x".repeat(70_000)), &path).is_some());
    }
}
