//! Links that lead out of what is proxied, seen from outside: of redirects, and in HTML pages as they pass by.
//!
//! A server that is proxied knows nothing of the path it is reached by, so that what it calls `/login` is `PREFIX/login` for whoever
//! reads its page. Upstream: `k8s.io/apimachinery/pkg/util/proxy/transport.go`. Scripts and style sheets are passed on as they
//! are, as there; so is a page that is compressed although nobody asked for that.

use std::borrow::Cow;
use std::io;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use futures::stream::{Stream, try_unfold};
use futures::{StreamExt as _, TryStreamExt as _};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use lol_html::send::{Element, ElementContentHandlers, HtmlRewriter, Settings};
use lol_html::{HandlerResult, MemorySettings, OutputSink, Selector};
use parking_lot::Mutex;

use crate::body::ResponseBody;
use crate::respond::Answer;

/// Attributes whose values are links, and the elements that have them. HTML's index of attributes.
const LINKS: [(&str, &[&str]); 15] = [
    ("action", &["form"]),
    ("background", &["body"]),
    ("cite", &["blockquote", "del", "ins", "q"]),
    ("classid", &["object"]),
    ("codebase", &["applet", "object"]),
    ("data", &["object"]),
    ("formaction", &["button", "input"]),
    ("href", &["a", "area", "base", "link"]),
    ("icon", &["command"]),
    ("longdesc", &["frame", "iframe", "img"]),
    ("manifest", &["html"]),
    ("poster", &["video"]),
    ("profile", &["head"]),
    ("src", &["audio", "embed", "frame", "iframe", "img", "input", "script", "source", "track", "video"]),
    ("usemap", &["img", "input", "object"]),
];

/// All of them.
static SELECTOR: LazyLock<Option<Selector>> = LazyLock::new(|| {
    let all =
        LINKS.iter().flat_map(|(name, elements)| elements.iter().map(move |element| format!("{element}[{name}]")));
    all.collect::<Vec<_>>().join(",").parse().ok()
});

/// How much of a page is kept at a time, in bytes: a tag whose end has not come yet.
const TAG_BYTES: usize = 1 << 20;

/// How what is proxied is seen from outside.
#[derive(Debug, Clone)]
pub(super) struct Outside {
    /// The address of what is proxied.
    pub(super) host: String,
    /// The host that the client has asked.
    pub(super) asked: Option<String>,
    /// The path of `/`.
    pub(super) prefix: String,
}

impl Outside {
    /// A link as it is right for those outside; `None` where it is right already, and where it leads somewhere else.
    fn link(&self, link: &str) -> Option<String> {
        let (origin, path) = split(link);
        let authority = origin.rsplit_once("//").map_or("", |(_, authority)| authority);
        let is_asked = self.asked.as_deref() == Some(authority);
        if !(authority.is_empty() || authority == self.host || is_asked) || !path.starts_with('/') {
            return None;
        }
        let (kept, prefix) = (if is_asked { origin } else { "" }, self.prefix.as_str());
        let prefix = if path.starts_with(prefix) { "" } else { prefix };
        let new = format!("{kept}{prefix}{path}");
        (new != link).then_some(new)
    }

    fn links_of(&self, element: &mut Element<'_, '_>) -> HandlerResult {
        let tag = element.tag_name();
        for (name, _) in LINKS.iter().filter(|(_, elements)| elements.contains(&tag.as_str())) {
            if let Some(link) = element.get_attribute(name).and_then(|link| self.link(link.trim())) {
                element.set_attribute(name, &link)?;
            }
        }
        Ok(())
    }

    /// An answer with its redirect and its links as they are seen from outside.
    pub(super) fn of(self, mut answer: Answer) -> Answer {
        let headers = answer.headers_mut();
        if let Some(place) = headers.get(LOCATION) {
            let place = place.to_str().ok().and_then(|place| HeaderValue::from_str(&self.link(place)?).ok());
            place.map(|place| headers.insert(LOCATION, place));
            return answer;
        }
        if answer.status() == StatusCode::PARTIAL_CONTENT || !is_page(answer.headers()) {
            return answer;
        }
        answer.headers_mut().remove(CONTENT_LENGTH);
        let (parts, body) = answer.into_parts();
        http::Response::from_parts(parts, ResponseBody::stream(rewritten(body, self)))
    }
}

/// Scheme and host of a link, with the slashes between, and what comes behind.
fn split(link: &str) -> (&str, &str) {
    let begin = ["http://", "https://", "//"].into_iter().find(|begin| link.starts_with(begin)).map_or(0, str::len);
    let end = match begin {
        0 => 0,
        _ => link[begin..].find(['/', '?', '#']).map_or(link.len(), |end| begin + end),
    };
    link.split_at(end)
}

/// Whether there is HTML to be read.
fn is_page(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("text/html") && !headers.contains_key(CONTENT_ENCODING)
}

/// A page with its links changed, as it comes.
fn rewritten(body: ResponseBody, outside: Outside) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let written = Written::default();
    let handler = move |element: &mut Element<'_, '_>| outside.links_of(element);
    let mut settings = Settings::new_send()
        .with_memory_settings(MemorySettings::new().with_max_allowed_memory_usage(TAG_BYTES))
        .with_strict(false);
    if let Some(selector) = &*SELECTOR {
        let handlers = ElementContentHandlers::default().element(handler);
        settings = settings.append_element_content_handler((Cow::Borrowed(selector), handlers));
    }
    let rewriter = HtmlRewriter::new(settings, written.clone());
    let body = body.into_data_stream().map_err(io::Error::other).boxed();
    try_unfold((body, Some(rewriter)), move |(mut body, mut rewriter)| {
        let written = written.clone();
        async move {
            loop {
                let Some(active) = &mut rewriter else { return Ok(None) };
                match body.next().await {
                    Some(chunk) => active.write(&chunk?).map_err(io::Error::other)?,
                    None => rewriter.take().map_or(Ok(()), HtmlRewriter::end).map_err(io::Error::other)?,
                }
                let bytes = std::mem::take(&mut *written.0.lock());
                if !bytes.is_empty() {
                    return Ok(Some((Bytes::from(bytes), (body, rewriter))));
                }
            }
        }
    })
}

/// What has been rewritten and not been sent yet.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl OutputSink for Written {
    fn handle_chunk(&mut self, chunk: &[u8]) {
        self.0.lock().extend_from_slice(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "/api/v1/namespaces/n/pods/p/proxy";

    fn outside() -> Outside {
        Outside { host: "10.0.0.1:80".to_owned(), asked: Some("localhost:8001".to_owned()), prefix: PREFIX.to_owned() }
    }

    fn page(headers: &[(&'static str, &'static str)], pieces: &[&'static str]) -> Answer {
        let pieces = futures::stream::iter(pieces.to_vec()).map(|piece| Ok(Bytes::from(piece)));
        let mut answer = http::Response::new(ResponseBody::stream(pieces));
        for (name, value) in headers {
            answer.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        answer
    }

    async fn text(answer: Answer) -> io::Result<String> {
        let bytes = answer.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    #[test]
    fn links_lead_back_to_the_proxy() {
        let check = |link: &str, expected: Option<&str>| {
            let expected = expected.map(|link| link.replace("PREFIX", PREFIX));
            assert_eq!(outside().link(link), expected, "{link}");
        };
        check("/", Some("PREFIX/"));
        check("/login?x=1#top", Some("PREFIX/login?x=1#top"));
        check("http://10.0.0.1:80/a", Some("PREFIX/a"));
        check("//10.0.0.1:80/a", Some("PREFIX/a"));
        check("http://localhost:8001/a", Some("http://localhost:8001PREFIX/a"));
        // Right already.
        check(&format!("{PREFIX}/a"), None);
        check(&format!("http://localhost:8001{PREFIX}/a"), None);
        check(&format!("http://10.0.0.1:80{PREFIX}/a"), Some("PREFIX/a"));
        // Relative, or somewhere else.
        for link in ["login", "../a", "#a", "?a=/b", "", "mailto:a@b.c/d", "http://10.0.0.1:80", "javascript:f('/a')"] {
            check(link, None);
        }
        for link in
            ["http://example.com/a", "//example.com/a", "http://10.0.0.1:8080/a", "http://localhost:8001.evil/a"]
        {
            check(link, None);
        }
    }

    #[tokio::test]
    async fn a_page_is_rewritten_as_it_comes() {
        let pieces = [
            "<!doctype html><html><head><base href='/'><link rel=stylesheet href=/main.css></he",
            "ad><body><a class=\"x\" hre",
            "f=\"/lo&amp;gin\">in</a><a href=\"http://example.com/\">out</a><img src=a.png longdesc='/b'>",
            "<script src=\"/a.js\">if (a < b) { go('/x') }</script><form action=/go><p title=\"/no\">/no<!-- <a href=\"/no\"> -->",
        ];
        let found = text(outside().of(page(&[("content-type", "Text/HTML; charset=utf-8")], &pieces))).await.unwrap();
        let expected = "<!doctype html><html><head><base href=\"PREFIX/\"><link rel=stylesheet href=\"PREFIX/main.css\"></head>\
            <body><a class=\"x\" href=\"PREFIX/lo&amp;gin\">in</a><a href=\"http://example.com/\">out</a>\
            <img src=a.png longdesc=\"PREFIX/b\"><script src=\"PREFIX/a.js\">if (a < b) { go('/x') }</script>\
            <form action=\"PREFIX/go\"><p title=\"/no\">/no<!-- <a href=\"/no\"> -->";
        assert_eq!(found, expected.replace("PREFIX", PREFIX));
    }

    #[tokio::test]
    async fn all_that_have_links_are_looked_at() {
        let tags = LINKS.iter().flat_map(|(name, elements)| elements.iter().map(move |tag| (tag, name)));
        for (tag, name) in tags {
            let html: &'static str = format!("<{tag} {name}=\"/x\">").leak();
            let found = text(outside().of(page(&[("content-type", "text/html")], &[html]))).await.unwrap();
            assert_eq!(found, format!("<{tag} {name}=\"{PREFIX}/x\">"));
        }
    }

    #[tokio::test]
    async fn what_is_no_page_stays_as_it_is() {
        const HTML: &str = "<a href=\"/a\">";
        for headers in [
            &[("content-type", "text/plain")][..],
            &[],
            &[("content-type", "text/html"), ("content-encoding", "br")],
            &[("content-type", "text/html"), ("location", "http://example.com/")],
        ] {
            let answer = outside().of(page(headers, &[HTML]));
            assert_eq!(text(answer).await.unwrap(), HTML, "{headers:?}");
        }
        let mut part = page(&[("content-type", "text/html"), ("content-length", "13")], &[HTML]);
        *part.status_mut() = StatusCode::PARTIAL_CONTENT;
        let part = outside().of(part);
        assert_eq!(part.headers()[CONTENT_LENGTH], "13");
        assert_eq!(text(part).await.unwrap(), HTML);
        // Of a page that is rewritten the length is not known.
        let whole = outside().of(page(&[("content-type", "text/html"), ("content-length", "13")], &[HTML]));
        assert!(!whole.headers().contains_key(CONTENT_LENGTH));
    }

    #[tokio::test]
    async fn redirects_lead_back_to_the_proxy() {
        let answer = outside().of(page(&[("location", "/login")], &[]));
        assert_eq!(answer.headers()[LOCATION], format!("{PREFIX}/login"));
    }

    #[tokio::test]
    async fn a_tag_without_an_end_takes_no_memory() {
        const PIECE: &str =
            "<a href=\"/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        let endless = vec![PIECE; 4 * TAG_BYTES / PIECE.len()];
        let failed = text(outside().of(page(&[("content-type", "text/html")], &endless))).await;
        assert!(failed.unwrap_err().to_string().contains("memory"), "it ends");
    }
}
