//! Where two answers to one request differ.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cluster::{Reply, Request};
use crate::normalize;

/// Texts are shown up to here.
const SHOWN: usize = 600;

/// Headers that are no part of what is compared: of the connection, or different with each answer.
const IGNORED: [&str; 3] = ["date", "content-length", "transfer-encoding"];
/// Headers of which only the presence is compared.
const UNIQUE: [&str; 3] = ["audit-id", "x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid"];

/// One difference.
pub(crate) struct Difference {
    /// What it shares with others: `status`, `header NAME`, `body PATH` with `*` for positions.
    pub(crate) kind: String,
    pub(crate) request: String,
    /// Where exactly.
    pub(crate) path: String,
    pub(crate) ours: String,
    pub(crate) theirs: String,
}

/// What differs in the answers to `request`. Where the statuses do, nothing else counts.
pub(crate) fn replies(request: &Request, ours: &Reply, theirs: &Reply) -> Vec<Difference> {
    let title = request.title();
    let difference = |kind: String, path: &str, ours: String, theirs: String| Difference {
        kind,
        request: title.clone(),
        path: path.to_owned(),
        ours: shortened(ours),
        theirs: shortened(theirs),
    };
    if ours.status != theirs.status {
        let show = |reply: &Reply| format!("{} {}", reply.status.as_u16(), message(reply));
        return vec![difference("status".to_owned(), "", show(ours), show(theirs))];
    }
    let mut differences = Vec::new();
    let (our_headers, their_headers) = (ours.headers(), theirs.headers());
    let names: BTreeSet<&str> = our_headers.keys().chain(their_headers.keys()).copied().collect();
    for name in names.into_iter().filter(|name| !IGNORED.contains(name)) {
        let (ours, theirs) = (our_headers.get(name), their_headers.get(name));
        let same = if UNIQUE.contains(&name) {
            ours.is_some() == theirs.is_some()
        } else {
            ours.map(|text| normalize::text(text)) == theirs.map(|text| normalize::text(text))
        };
        if !same {
            let show = |value: Option<&String>| value.cloned().unwrap_or_else(|| "(none)".to_owned());
            differences.push(difference(format!("header {name}"), "", show(ours), show(theirs)));
        }
    }
    let (our_body, their_body) = (body(ours), body(theirs));
    let (Some(our_body), Some(their_body)) = (our_body, their_body) else {
        let (ours, theirs) = (normalize::text(&ours.text), normalize::text(&theirs.text));
        if ours != theirs {
            let (ours, theirs) = first_different_line(&ours, &theirs);
            differences.push(difference("text".to_owned(), "", ours, theirs));
        }
        return differences;
    };
    let mut found = Vec::new();
    values("$", "$", &our_body, &their_body, &mut found);
    // The causes of a Status are what its message says.
    if found.iter().any(|(kind, ..)| kind == "$.message") {
        found.retain(|(kind, ..)| !kind.starts_with("$.details.causes"));
    }
    if found.is_empty() && our_body["kind"] == "Status" {
        let (ours, theirs) = (normalize::text(&ours.text), normalize::text(&theirs.text));
        if ours != theirs {
            found.push(("order of fields".to_owned(), String::new(), ours, theirs));
        }
    }
    differences.extend(
        found.into_iter().map(|(kind, path, ours, theirs)| difference(format!("body {kind}"), &path, ours, theirs)),
    );
    differences
}

/// A body of JSON, or of one JSON document for each line, as those of watches.
fn body(reply: &Reply) -> Option<Value> {
    let mut documents: Vec<Value> =
        serde_json::Deserializer::from_str(&reply.text).into_iter().collect::<Result<_, _>>().ok()?;
    documents.iter_mut().for_each(normalize::json);
    Some(if documents.len() == 1 { documents.swap_remove(0) } else { Value::Array(documents) })
}

/// What differs, as kind, path and both sides.
type Found = (String, String, String, String);

fn values(kind: &str, path: &str, ours: &Value, theirs: &Value, found: &mut Vec<Found>) {
    match (ours, theirs) {
        (Value::Object(our_fields), Value::Object(their_fields)) => {
            let names: BTreeSet<&String> = our_fields.keys().chain(their_fields.keys()).collect();
            for name in names {
                let (kind, path) = (format!("{kind}.{name}"), format!("{path}.{name}"));
                match (our_fields.get(name), their_fields.get(name)) {
                    (Some(ours), Some(theirs)) => values(&kind, &path, ours, theirs, found),
                    (ours, theirs) => found.push((kind, path, shown(ours), shown(theirs))),
                }
            }
        }
        (Value::Array(our_items), Value::Array(their_items)) if our_items.len() == their_items.len() => {
            for (index, (ours, theirs)) in our_items.iter().zip(their_items).enumerate() {
                values(&format!("{kind}.*"), &format!("{path}.{index}"), ours, theirs, found);
            }
        }
        (ours, theirs) if ours == theirs => {}
        (ours, theirs) => found.push((kind.to_owned(), path.to_owned(), shown(Some(ours)), shown(Some(theirs)))),
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "(none)".to_owned(), Value::to_string)
}

fn message(reply: &Reply) -> String {
    let status: Value = serde_json::from_str(&reply.text).unwrap_or_default();
    status["message"].as_str().map_or_else(|| shortened(reply.text.clone()), str::to_owned)
}

fn first_different_line(ours: &str, theirs: &str) -> (String, String) {
    let (mut ours, mut theirs) = (ours.lines(), theirs.lines());
    loop {
        match (ours.next(), theirs.next()) {
            (Some(our), Some(their)) if our == their => {}
            (our, their) => return (our.unwrap_or("(end)").to_owned(), their.unwrap_or("(end)").to_owned()),
        }
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > SHOWN {
        text.truncate(text.floor_char_boundary(SHOWN));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn reply(status: u16, headers: &[(&'static str, &str)], text: &str) -> Reply {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        Reply { status: StatusCode::from_u16(status).unwrap(), headers: map, text: text.to_owned() }
    }

    fn kinds(ours: &Reply, theirs: &Reply) -> Vec<String> {
        replies(&Request::get("/x"), ours, theirs).into_iter().map(|one| one.kind).collect()
    }

    #[test]
    fn a_difference_is_found_where_it_is() {
        let ours = reply(200, &[("audit-id", "1"), ("warning", "299 - \"a\"")], r#"{"items":[{"a":1},{"a":2,"b":3}]}"#);
        let theirs = reply(200, &[("audit-id", "2")], r#"{"items":[{"a":1},{"a":3}]}"#);
        assert_eq!(kinds(&ours, &theirs), ["header warning", "body $.items.*.a", "body $.items.*.b"]);
        assert_eq!(kinds(&ours, &ours), [""; 0]);
    }

    #[test]
    fn the_fields_of_a_status_have_an_order() {
        let ours = reply(404, &[], r#"{"kind":"Status","code":404}"#);
        let theirs = reply(404, &[], r#"{"code":404,"kind":"Status"}"#);
        assert_eq!(kinds(&ours, &theirs), ["body order of fields"]);
        assert_eq!(kinds(&ours, &reply(410, &[], "")), ["status"]);
    }

    #[test]
    fn the_events_of_a_watch_are_compared_one_by_one() {
        let ours = reply(200, &[], "{\"type\":\"ADDED\"}\n{\"type\":\"MODIFIED\"}\n");
        let theirs = reply(200, &[], "{\"type\":\"ADDED\"}\n{\"type\":\"DELETED\"}\n");
        assert_eq!(kinds(&ours, &theirs), ["body $.*.type"]);
    }
}
