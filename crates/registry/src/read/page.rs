//! Pages of a list: the token that leads from one to the next, and the body.

use std::collections::VecDeque;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use machinery::status::ApiError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Revision, Snapshot};

use super::Filter;
use crate::request::ListPage;
use crate::table::Resource;

impl ListPage {
    /// The `metadata` of a list that is this page.
    #[must_use]
    pub fn metadata(&self) -> Value {
        let mut metadata = json!({ "resourceVersion": self.revision.to_string() });
        if let Some(token) = &self.continue_token {
            metadata["continue"] = token.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        metadata
    }
}

/// The object after which a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    namespace: String,
    name: String,
}

/// A continue token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Continue {
    /// The state to go on reading; `None` for the latest one (the token of an expired page).
    pub(super) revision: Option<Revision>,
    pub(super) start: Start,
}

/// Upstream's form of a token, `-1` standing for the latest state.
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: i64,
    start: String,
}

impl Continue {
    /// Reads the query parameter; the empty string is none.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, ApiError> {
        if text.is_empty() {
            return Ok(None);
        }
        let invalid =
            |why: &str| ApiError::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let json = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|error| invalid(&error.to_string()))?;
        let token: Token = serde_json::from_slice(&json).map_err(|error| invalid(&error.to_string()))?;
        if token.v != "meta.k8s.io/v1" {
            return Err(invalid(&format!("server does not recognize this encoded version {:?}", token.v)));
        }
        let revision = match token.rv {
            -1 => None,
            rv => Some(Revision::try_from(rv).map_err(|_| invalid("incorrect encoded start resourceVersion"))?),
        };
        let (namespace, name) = token.start.split_once('/').ok_or_else(|| invalid("no start"))?;
        Ok(Some(Self { revision, start: Start { namespace: namespace.to_owned(), name: name.to_owned() } }))
    }

    pub(super) fn to_token(&self) -> String {
        let token = json!({
            "v": "meta.k8s.io/v1",
            "rv": self.revision.map_or(-1, Revision::cast_signed),
            "start": format!("{}/{}", self.start.namespace, self.start.name),
        });
        URL_SAFE_NO_PAD.encode(token.to_string())
    }
}

/// The objects of a snapshot which a filter shows, behind `start`, at most `limit` (0: all).
pub(super) fn cut(snapshot: &Snapshot, filter: &Filter, start: Option<&Start>, limit: u64) -> ListPage {
    let limit = if limit == 0 { usize::MAX } else { usize::try_from(limit).unwrap_or(usize::MAX) };
    let after = start.map(|start| (start.namespace.as_str(), start.name.as_str()));
    let mut shown = snapshot.range(filter.namespace(), after).filter(|entry| filter.matches(entry));
    let mut entries = Vec::new();
    if limit == usize::MAX && filter.is_everything() && filter.namespace().is_none() {
        entries.reserve_exact(snapshot.len());
    }
    entries.extend(shown.by_ref().take(limit).cloned());
    let more = entries.len() == limit && shown.next().is_some();
    let mut page = ListPage { entries, revision: snapshot.revision(), continue_token: None, remaining: None };
    if let (true, Some(last)) = (more, page.entries.last()) {
        let (namespace, name) = (&*last.key.namespace, &*last.key.name);
        // With selectors upstream does not count what is left either.
        if filter.is_everything() {
            page.remaining = u64::try_from(snapshot.count(filter.namespace(), Some((namespace, name)))).ok();
        }
        let start = Start { namespace: namespace.to_owned(), name: name.to_owned() };
        page.continue_token = Some(Continue { revision: Some(page.revision), start }.to_token());
    }
    page
}

/// The items of a page as they are served: those that have to be converted, all at once.
pub(super) fn bodies(resource: &Resource, page: &ListPage) -> Result<Vec<Bytes>, ApiError> {
    let stored = page.entries.iter().map(|entry| entry.value.clone()).collect();
    if resource.converts() { resource.served_all(stored).map_err(ApiError::internal) } else { Ok(stored) }
}

/// A page as the API's list in pieces, with the objects' own bytes, which are not copied. A Go program's typed list has no kind
/// and apiVersion in its items; custom resources have them.
pub(super) fn pieces(resource: &Resource, page: &ListPage) -> Result<VecDeque<Bytes>, ApiError> {
    let info = resource.info();
    let (kind, api_version, metadata) = (&info.list_kind, &info.api_version, page.metadata());
    let head = format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{metadata},"items":["#);
    // So begins what is stored; what begins in another way is left as it is.
    let known = format!(r#"{{"apiVersion":"{}","kind":"{}","#, info.api_version, info.kind);
    let mut pieces = VecDeque::with_capacity(page.entries.len() * 2 + 2);
    pieces.push_back(Bytes::from(head));
    for (index, item) in bodies(resource, page)?.into_iter().enumerate() {
        let start = if !info.custom && item.starts_with(known.as_bytes()) { known.len() } else { 1 };
        pieces.push_back(Bytes::from_static(if index > 0 { b",{" } else { b"{" }));
        pieces.push_back(item.slice(start.min(item.len())..));
    }
    pieces.push_back(Bytes::from_static(b"]}"));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_wire() {
        for (revision, namespace, name) in
            [(Some(7), "default", "a"), (None, "", "node-1"), (Some(u64::from(u32::MAX)), "ü", "x")]
        {
            let token = Continue { revision, start: Start { namespace: namespace.into(), name: name.into() } };
            assert_eq!(Continue::parse(&token.to_token()), Ok(Some(token)));
        }
        assert_eq!(Continue::parse(""), Ok(None));
        for broken in ["?", "e30", "eyJ2IjoieCIsInJ2IjoxLCJzdGFydCI6ImEvYiJ9"] {
            let error = Continue::parse(broken).unwrap_err();
            assert_eq!(error.code, 400);
            assert!(error.message.starts_with("invalid continue token: continue key is not valid"), "{error}");
        }
    }
}
