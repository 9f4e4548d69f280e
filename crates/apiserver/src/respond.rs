//! Responses. This is the one place where an [`ApiError`] becomes a `Status`.

use std::collections::HashSet;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WARNING, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use machinery::status::{ApiError, Reason};
use serde_json::Value;

use crate::body::ResponseBody;
use crate::negotiate::Encoding;
use crate::protobuf;

/// A response of the server.
pub(crate) type Answer = Response<ResponseBody>;

/// A body with its media type.
pub(crate) fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<ResponseBody>) -> Answer {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Plain text.
pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    with_type(status, "text/plain; charset=utf-8", text.into())
}

/// Plain text that browsers are told to take for nothing else, as Go's `http.Error` does.
pub(crate) fn plain_text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut response = self::text(status, text);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// What upstream says where it knows nothing of the path at all.
pub(crate) fn page_not_found() -> Answer {
    plain_text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// JSON, in the form asked for.
///
/// # Errors
/// 500 when the JSON cannot be read again in order to write it as YAML or protobuf.
pub(crate) fn json(status: StatusCode, encoding: Encoding, pretty: bool, json: Bytes) -> Result<Answer, ApiError> {
    let body = match encoding {
        Encoding::Json if pretty => indented(&json).into(),
        Encoding::Json => json,
        Encoding::Yaml => {
            let value: Value = serde_json::from_slice(&json).map_err(ApiError::internal)?;
            serde_saphyr::to_string(&value).map_err(ApiError::internal)?.into()
        }
        Encoding::Protobuf => protobuf::encode(&json).map_err(ApiError::internal)?,
    };
    Ok(with_type(status, encoding.content_type(), body))
}

/// A failure.
pub(crate) fn error(error: &ApiError, encoding: Encoding) -> Answer {
    let status = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // Strings and numbers always encode. Go's encoder ends a document with a line break.
    let mut body = serde_json::to_vec(error).unwrap_or_default();
    body.push(b'\n');
    let body = Bytes::from(body);
    let encoded = json(status, encoding, false, body.clone());
    let mut response = encoded.unwrap_or_else(|_| with_type(status, Encoding::Json.content_type(), body));
    let retry_after = error.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if retry_after > 0 {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after));
    }
    warn(&mut response, &error.warnings);
    response
}

/// 405.
pub(crate) fn method_not_allowed() -> ApiError {
    let mut error = ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED.as_u16(),
        Reason::MethodNotAllowed,
        "the server does not allow this method on the requested resource",
    );
    error.details = Some(Box::default());
    error
}

/// How many characters all warnings of a response may have, and each of them where they would be more. Upstream's figures
/// (apiserver `endpoints/filters/warning.go`).
const WARNINGS_MAX: usize = 4 * 1024;
const WARNING_MAX: usize = 256;

/// How many warnings are said. Clients refuse a response of more than a hundred headers (Python's `http.client`), of which
/// upstream sends as many as there are warnings.
const WARNINGS_COUNT_MAX: usize = 50;

/// The characters that are kept for the one that says how many more there are.
const MORE_MAX: usize = 64;

/// Adds `Warning` headers: code 299, no agent, the text in quotes. A write that was tried again has some of them twice;
/// each is said once.
pub(crate) fn warn(response: &mut Answer, warnings: &[String]) {
    let mut seen = HashSet::new();
    let once = warnings.iter().filter(|warning| seen.insert(warning.as_str())).map(String::as_str);
    let mut once: Vec<&str> = once.collect();
    let length = |warning: &str| warning.chars().count();
    let more;
    if once.len() > WARNINGS_COUNT_MAX || once.iter().map(|warning| length(warning)).sum::<usize>() > WARNINGS_MAX {
        for warning in &mut once {
            *warning = warning.char_indices().nth(WARNING_MAX).map_or(*warning, |(end, _)| &warning[..end]);
        }
        let mut said = 0;
        let fits = |warning: &&&str| {
            said += length(warning);
            said <= WARNINGS_MAX - MORE_MAX
        };
        let fit = once.iter().take(WARNINGS_COUNT_MAX).take_while(fits).count();
        if fit < once.len() {
            // One header is for how many there are.
            let kept = fit.min(WARNINGS_COUNT_MAX - 1);
            more = format!("{} more warnings", once.len() - kept);
            once.truncate(kept);
            once.push(&more);
        }
    }
    for warning in once {
        let mut header = String::with_capacity(warning.len() + 10);
        header.push_str("299 - \"");
        for character in warning.chars() {
            match character {
                '"' | '\\' => {
                    header.push('\\');
                    header.push(character);
                }
                // A header is one line.
                control if control.is_control() => header.push(' '),
                other => header.push(other),
            }
        }
        header.push('"');
        if let Ok(value) = HeaderValue::from_bytes(header.as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

/// JSON with line breaks and two spaces for each level, as Go writes it; the order of the members stays.
fn indented(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let break_line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', depth * 2));
    };
    let mut bytes = json.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if in_string {
            out.push(byte);
            (in_string, escaped) = match (byte, escaped) {
                (b'"', false) => (false, false),
                (b'\\', false) => (true, true),
                _ => (true, false),
            };
            continue;
        }
        match byte {
            b'"' => {
                in_string = true;
                out.push(byte);
            }
            b'{' | b'[' => {
                out.push(byte);
                while bytes.next_if(u8::is_ascii_whitespace).is_some() {}
                if let Some(close) = bytes.next_if(|next| matches!(next, b'}' | b']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    break_line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                break_line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            space if space.is_ascii_whitespace() => {}
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indented_as_go_does() {
        let json = r#"{"b":[1,2,{}],"a":{"x":"q\"{,:","y":[ ]},"c":null}"#;
        let expect = "{\n  \"b\": [\n    1,\n    2,\n    {}\n  ],\n  \"a\": {\n    \"x\": \"q\\\"{,:\",\n    \"y\": []\n  },\n  \"c\": null\n}";
        assert_eq!(String::from_utf8(indented(json.as_bytes())).unwrap(), expect);
    }

    #[test]
    fn warnings_fit_into_a_header() {
        let mut response = page_not_found();
        warn(&mut response, &["unknown field \"spec.foo\"".to_owned(), "two\nlines\\ é".to_owned()]);
        let found: Vec<_> =
            response.headers().get_all(WARNING).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        assert_eq!(found, [r#"299 - "unknown field \"spec.foo\"""#, r#"299 - "two lines\\ é""#]);
    }

    #[test]
    fn warnings_are_not_more_than_clients_take() {
        for (count, last) in [(50, "unknown field \"f49\""), (51, "2 more warnings"), (3000, "2951 more warnings")] {
            let mut response = page_not_found();
            let warnings: Vec<String> = (0..count).map(|n| format!("unknown field \"f{n}\"")).collect();
            warn(&mut response, &[&warnings[..], &warnings[..]].concat());
            let found: Vec<_> = response.headers().get_all(WARNING).iter().collect();
            assert_eq!(found.len(), 50);
            let expect = format!("299 - \"{}\"", last.replace('"', "\\\""));
            assert_eq!(found[49].to_str().unwrap(), expect);
        }
    }

    #[test]
    fn long_warnings_leave_room_for_how_many_there_are() {
        for (count, length, headers, last) in [
            (1, 5000, 1, 256),
            (15, 300, 15, 256),
            // 15 of 256 characters are said, the others counted.
            (40, 300, 16, "25 more warnings".len()),
            (3000, 5000, 16, "2985 more warnings".len()),
        ] {
            let mut response = page_not_found();
            let warnings: Vec<String> = (0..count).map(|n| format!("{n:0length$}")).collect();
            warn(&mut response, &warnings);
            let found: Vec<_> = response.headers().get_all(WARNING).iter().collect();
            assert_eq!(found.len(), headers, "{count} of {length}");
            let quoted = "299 - \"\"".len();
            assert_eq!(found[headers - 1].len() - quoted, last, "{count} of {length}");
        }
    }

    #[test]
    fn yaml() {
        let response = json(StatusCode::OK, Encoding::Yaml, false, Bytes::from_static(b"{\"a\":{\"b\":[1,\"2\"]}}"));
        assert_eq!(response.unwrap().headers()[CONTENT_TYPE], "application/yaml");
    }
}
