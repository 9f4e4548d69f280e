//! From the bytes of a request to a typed object, in one pass.
//!
//! The object's own `Deserialize` runs over serde_json through a thin layer (`track`) which knows the path of the
//! value at hand and thereby
//!
//! - reports unknown and duplicate fields, as strict validation and warnings need them,
//! - says what upstream says about a value of the wrong type, with Go's names for the types,
//! - lets pass what Go lets pass and serde does not: numbers as quantities, `null` as the zero value,
//! - writes quantities in their canonical form, as upstream does whenever it has decoded one,
//! - bounds how deep the object may be nested, and how much memory it may take.

mod go;
mod keys;
#[cfg(test)]
mod tests;
mod track;

use serde::Deserialize;
use serde::de::DeserializeOwned;

pub(crate) use self::go::syntax_error;

/// What was unusual about a body, field by field, in the order in which it was found.
#[derive(Debug, Default)]
pub struct Report {
    collect: bool,
    findings: Vec<String>,
}

impl Report {
    /// Takes no notes: the body is known to be good, or nobody wants to know.
    #[must_use]
    pub fn ignore() -> Self {
        Self::default()
    }

    /// Takes notes.
    #[must_use]
    pub fn collect() -> Self {
        Self { collect: true, findings: Vec::new() }
    }

    /// The notes, each in upstream's words: `unknown field "spec.foo"`, `duplicate field "spec.replicas"`.
    #[must_use]
    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    /// The notes, to be sent as warnings.
    #[must_use]
    pub fn into_findings(self) -> Vec<String> {
        self.findings
    }

    /// All notes in one text, as strict validation refuses with it; `None` when there is nothing to say.
    #[must_use]
    pub fn strict_error(&self) -> Option<String> {
        (!self.findings.is_empty()).then(|| format!("strict decoding error: {}", self.findings.join(", ")))
    }

    /// Takes a note, unless nobody wants to know, or there are many already: sigs.k8s.io/json stops at 100, too.
    pub(crate) fn note(&mut self, finding: String) {
        const MAX: usize = 100;
        if self.collect && self.findings.len() < MAX && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }
}

/// Why a body is not an object of the type asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is not JSON.
    #[error("{0}")]
    Syntax(String),
    /// It is JSON, but a value in it is of the wrong type or cannot be read.
    #[error("{0}")]
    Value(String),
}

impl From<serde_json::Error> for DecodeError {
    fn from(error: serde_json::Error) -> Self {
        Self::Value(error.to_string())
    }
}

/// Decodes a body.
///
/// # Errors
/// When it is not JSON, or a value in it does not fit the type.
pub fn decode<T: DeserializeOwned>(body: &[u8], report: &mut Report) -> Result<T, DecodeError> {
    match attempt(body, report) {
        // Paths are kept track of only where notes are taken; an error is worth a second look.
        Err(DecodeError::Value(_)) if !report.collect => attempt(body, &mut Report::collect()),
        result => result,
    }
}

fn attempt<T: DeserializeOwned>(body: &[u8], report: &mut Report) -> Result<T, DecodeError> {
    let notes = track::Notes::new(report);
    let mut json = serde_json::Deserializer::from_slice(body);
    let result = T::deserialize(track::Track::root(&mut json, &notes)).and_then(|object| {
        json.end()?;
        Ok(object)
    });
    result.map_err(|error| match notes.failure.into_inner() {
        Some(failure) => DecodeError::Value(failure),
        None if error.is_syntax() || error.is_eof() => DecodeError::Syntax(syntax_error(&error, body)),
        None => DecodeError::Value(error.to_string()),
    })
}

/// What a body says it is. Fields it does not have are empty.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TypeMeta {
    /// `GROUP/VERSION`, or the version alone for the core group.
    pub api_version: String,
    /// Kind.
    pub kind: String,
}

impl TypeMeta {
    /// Reads just this much of a body; empty when that does not succeed.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }
}
