//! The list of differences that are meant: the tables of `docs/differences.md`.
//!
//! A row has a pattern for the request, one for what differs in its answers, and the reason. Patterns stand in backticks,
//! and `*` in them is any text.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::diff::Difference;

/// The rows.
pub(crate) struct Accepted(Vec<[String; 2]>);

impl Accepted {
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut rows = Vec::new();
        for line in text.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = line.trim_matches('|').splitn(3, '|').map(str::trim).collect();
            let [request, kind, reason] = cells[..] else { bail!("three columns are needed: {line}") };
            if reason.is_empty() {
                bail!("the reason is missing: {line}");
            }
            rows.push([request, kind].map(|cell| cell.trim_matches('`').to_owned()));
        }
        Ok(Self(rows))
    }

    /// Whether it is meant.
    pub(crate) fn lists(&self, difference: &Difference) -> bool {
        self.0.iter().any(|[request, kind]| matches(request, &difference.request) && matches(kind, &difference.kind))
    }
}

/// Whether `text` is `pattern` with any text for each `*`.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        assert!(matches("GET *", "GET /api"));
        assert!(matches("*pods*status*", "PUT /api/v1/pods/a/status"));
        assert!(matches("status", "status"));
        assert!(!matches("status", "status 2"));
        assert!(!matches("GET */b", "GET /b/c"));
    }

    #[test]
    fn rows_name_request_difference_and_reason() {
        let accepted =
            Accepted::parse("# Title\n| request | what |\n|---|---|---|\n| `GET /version` | `body *` | ours | too |\n");
        let difference = |request: &str| Difference {
            kind: "body $.gitCommit".to_owned(),
            request: request.to_owned(),
            path: String::new(),
            ours: String::new(),
            theirs: String::new(),
        };
        let accepted = accepted.unwrap();
        assert!(accepted.lists(&difference("GET /version")));
        assert!(!accepted.lists(&difference("GET /api")));
        assert!(Accepted::parse("| `GET /version` | `body *` | |\n").is_err(), "without a reason");
    }
}
