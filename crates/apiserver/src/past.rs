//! The past: `/at/REVISION/...` is the whole API as it was at a revision, to be read only. Our own, not upstream's.
//!
//! What is in front of the path of a request is taken away, and what was there becomes [`AsOf`], which reads heed. Discovery
//! and schemas are those of now; what has no past says so.

use http::{Method, Request, Uri};
use machinery::status::{ApiError, Reason};
use serde_json::{Value, json};
use store::{Past, Revision, Store};

use crate::body::RequestBody;
use crate::path::Route;
use crate::query::Query;

/// The revision that a request asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AsOf(pub(crate) Revision);

/// What a request to the past asks of the handlers of the present; any other as it is.
///
/// # Errors
/// 400 for what is no revision and for what has no past, 405 for whatever would change it.
pub(crate) fn translate(mut request: Request<RequestBody>) -> Result<Request<RequestBody>, ApiError> {
    let Some(rest) = request.uri().path().strip_prefix("/at/") else { return Ok(request) };
    let (revision, path) = rest.find('/').map_or((rest, "/"), |end| rest.split_at(end));
    let is_number = !revision.is_empty() && revision.bytes().all(|byte| byte.is_ascii_digit());
    let revision: Revision = revision.parse().ok().filter(|_| is_number).ok_or_else(|| {
        ApiError::bad_request(format!("{revision:?} is no revision: a number is expected behind /at/"))
    })?;
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Err(ApiError::new(405, Reason::MethodNotAllowed, "the past cannot be changed"));
    }
    if let Route::Resource(place) = Route::parse(path) {
        if place.watch || Query::parse(request.uri().query()).flag("watch") {
            return Err(ApiError::new(
                405,
                Reason::MethodNotAllowed,
                "nothing happens in the past that could be watched",
            ));
        }
        if !place.subresource.is_empty() {
            return Err(no_past(place.subresource));
        }
    }
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let uri: Uri = format!("{path}{query}").parse().map_err(|error| ApiError::bad_request(format!("{error}")))?;
    *request.uri_mut() = uri;
    request.extensions_mut().insert(AsOf(revision));
    Ok(request)
}

/// 400: only stored objects have a past.
pub(crate) fn no_past(what: &str) -> ApiError {
    ApiError::bad_request(format!("{what} has no past: only objects are remembered"))
}

/// `/at`: how far back objects are remembered, and which revision was the newest `ago` seconds ago, or at a `time` in
/// milliseconds since 1970.
///
/// # Errors
/// 400 for what is no number.
pub(crate) async fn document(store: &Store, query: &Query<'_>, now: jiff::Timestamp) -> Result<Value, ApiError> {
    let now = u64::try_from(now.as_millisecond()).unwrap_or_default();
    let number =
        |name| query.integer(name).map(|number| number.map(|number| u64::try_from(number).unwrap_or_default()));
    let time = match (number("ago")?, number("time")?) {
        (Some(seconds), _) => now.saturating_sub(seconds.saturating_mul(1_000)),
        (None, Some(time)) => time,
        (None, None) => now,
    };
    let Past { horizon, since, newest, at } = store.past(time).await.map_err(ApiError::internal)?;
    let moment = |revision: Revision, time: Option<u64>| {
        let time = time.and_then(|time| jiff::Timestamp::from_millisecond(i64::try_from(time).ok()?).ok());
        json!({ "revision": revision.to_string(), "time": time.map(|time| time.to_string()) })
    };
    Ok(json!({
        "oldest": moment(horizon, since),
        "newest": moment(newest.map_or(horizon, |newest| newest.revision), newest.map(|newest| newest.time)),
        "at": moment(at.0, at.1),
    }))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn request(method: &str, uri: &str) -> Request<RequestBody> {
        Request::builder().method(method).uri(uri).body(RequestBody::Whole(Bytes::new())).unwrap()
    }

    #[test]
    fn paths_to_the_past() {
        for (uri, path, revision) in [
            ("/api/v1/pods?limit=5", "/api/v1/pods?limit=5", None),
            ("/at/12/api/v1/pods?limit=5", "/api/v1/pods?limit=5", Some(12)),
            ("/at/12/apis", "/apis", Some(12)),
            ("/at/12", "/", Some(12)),
            ("/at", "/at", None),
            ("/attic/12", "/attic/12", None),
        ] {
            let translated = translate(request("GET", uri)).ok().unwrap();
            assert_eq!(translated.uri().to_string(), path);
            assert_eq!(translated.extensions().get(), revision.map(AsOf).as_ref(), "{uri}");
        }
    }

    #[test]
    fn what_is_refused() {
        for (method, uri, code) in [
            ("GET", "/at/x/api", 400),
            ("GET", "/at/-1/api", 400),
            ("GET", "/at//api", 400),
            ("GET", "/at/99999999999999999999/api", 400),
            ("POST", "/at/1/api/v1/namespaces/a/pods", 405),
            ("DELETE", "/at/1/api/v1/namespaces/a/pods/p", 405),
            ("GET", "/at/1/api/v1/pods?watch=true", 405),
            ("GET", "/at/1/api/v1/watch/pods", 405),
            ("GET", "/at/1/api/v1/namespaces/a/pods/p/log", 400),
            ("GET", "/at/1/api/v1/namespaces/a/pods/p/exec", 400),
        ] {
            assert_eq!(translate(request(method, uri)).err().map(|error| error.code), Some(code), "{method} {uri}");
        }
    }
}
