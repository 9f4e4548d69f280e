//! Tables of matches, precedence, weights and rewrites.

use super::*;

fn wanted<'a>(method: &'a Method, path: &'a str, query: &'a str, headers: &'a HeaderMap) -> Wanted<'a> {
    Wanted { host: "", method, path, query, headers }
}

#[test]
fn paths_match_by_elements() {
    // The tables of networking.k8s.io/v1 Ingress (concepts, "Examples") and of HTTPRoute's PathMatchPathPrefix.
    let check = |path: PathMatch, matching: &[&str], other: &[&str]| {
        for (requests, expected) in [(matching, true), (other, false)] {
            for request in requests {
                assert_eq!(path.matches(request), expected, "{path:?} {request}");
            }
        }
    };
    let prefix = PathMatch::prefix;
    let exact = |path: &str| PathMatch::Exact(path.to_owned());
    check(prefix("/"), &["/", "/foo", "//", "/a/b"], &[]);
    check(exact("/foo"), &["/foo"], &["/foo/", "/bar", "/Foo", "/foo/bar"]);
    check(exact("/foo/"), &["/foo/"], &["/foo"]);
    check(prefix("/foo"), &["/foo", "/foo/", "/foo/bar"], &["/foobar", "/fo", "/", "/FOO"]);
    check(prefix("/foo/"), &["/foo", "/foo/", "/foo/bar"], &["/foobar"]);
    check(prefix("/aaa/bb"), &["/aaa/bb"], &["/aaa/bbb"]);
    check(prefix("/aaa/bbb"), &["/aaa/bbb", "/aaa/bbb/ccc"], &["/aaa/bbbxyz", "/aaa"]);
    check(prefix("/aaa/bbb/"), &["/aaa/bbb"], &["/aaa"]);
    let regex = PathMatch::Regex(whole_regex("/v[0-9]+/x|/y").unwrap());
    check(regex, &["/v1/x", "/y"], &["/v1/xx", "/a/y", "/yy"]);
    assert!(whole_regex("(").is_err());
    assert!(whole_regex(r"(\w{1000}){1000}").is_err(), "too large");
}

#[test]
fn headers_queries_and_methods_match() {
    let exact = |text: &str| ValueMatch::Exact(text.to_owned());
    let regex = |text: &str| ValueMatch::Regex(whole_regex(text).unwrap());
    let header = |value: ValueMatch| Match {
        headers: vec![(HeaderName::from_static("version"), value)],
        ..Match::path(PathMatch::all())
    };
    let query =
        |value: ValueMatch| Match { query: vec![("animal".to_owned(), value)], ..Match::path(PathMatch::all()) };
    let method = Match { method: Some(Method::POST), ..Match::path(PathMatch::all()) };
    let check = |matches: &Match, method: Method, query: &str, values: &[&'static str], expected: bool| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("version", HeaderValue::from_static(value));
        }
        let found = matches.matches(&wanted(&method, "/", query, &headers));
        assert_eq!(found, expected, "{matches:?} {method} {query} {values:?}");
    };
    check(&header(exact("two")), Method::GET, "", &["two"], true);
    check(&header(exact("two")), Method::GET, "", &["Two"], false);
    check(&header(exact("two")), Method::GET, "", &[], false);
    check(&header(exact("one,two")), Method::GET, "", &["one", "two"], true);
    check(&header(regex("t.*")), Method::GET, "", &["two"], true);
    check(&header(regex("t")), Method::GET, "", &["two"], false);
    check(&query(exact("whale")), Method::GET, "animal=whale", &[], true);
    check(&query(exact("whale")), Method::GET, "a=b&animal=whale&animal=dolphin", &[], true);
    check(&query(exact("whale")), Method::GET, "animal=dolphin&animal=whale", &[], false);
    check(&query(exact("a whale&")), Method::GET, "%61nimal=a+whale%26", &[], true);
    check(&query(exact("")), Method::GET, "animal", &[], true);
    check(&query(exact("whale")), Method::GET, "animals=whale", &[], false);
    check(&query(regex("wh.*")), Method::GET, "animal=whale", &[], true);
    check(&method, Method::POST, "", &[], true);
    check(&method, Method::GET, "", &[], false);
}

#[test]
fn the_closest_match_has_precedence() {
    let origin = |seconds: i64, name: &str| Origin {
        created: Timestamp::from_second(seconds).unwrap(),
        key: ObjectKey::new("a", name),
    };
    let matches = |path: PathMatch| Match::path(path);
    let with = |path: PathMatch, method: bool, headers: usize, query: usize| Match {
        path,
        method: method.then_some(Method::GET),
        headers: vec![(HeaderName::from_static("h"), ValueMatch::Exact(String::new())); headers],
        query: vec![(String::new(), ValueMatch::Exact(String::new())); query],
    };
    let prefix = |path: &str| PathMatch::prefix(path);
    let old = origin(1, "b");
    let first_to_last = [
        Precedence::new(&matches(PathMatch::Exact("/a/b".to_owned())), &old, 9),
        Precedence::new(&matches(PathMatch::Exact("/a".to_owned())), &old, 9),
        Precedence::new(&with(prefix("/a/b/c"), false, 0, 0), &old, 9),
        Precedence::new(&with(prefix("/a"), true, 0, 0), &old, 9),
        Precedence::new(&with(prefix("/a"), false, 2, 0), &old, 9),
        Precedence::new(&with(prefix("/a"), false, 1, 5), &old, 9),
        Precedence::new(&with(prefix("/a"), false, 1, 1), &old, 9),
        Precedence::new(&with(prefix("/a/"), false, 0, 0), &origin(0, "z"), 9),
        Precedence::new(&with(prefix("/a"), false, 0, 0), &origin(1, "a"), 9),
        Precedence::new(&with(prefix("/a"), false, 0, 0), &old, 0),
        Precedence::new(&with(prefix("/a"), false, 0, 0), &old, 1),
        Precedence::new(&with(prefix("/a"), false, 0, 0), &origin(2, "a"), 0),
        Precedence::new(&with(prefix("/"), false, 0, 0), &old, 0),
    ];
    assert!(first_to_last.is_sorted_by(|one, next| one < next), "{first_to_last:#?}");
}

#[test]
fn backends_get_their_share() {
    let check = |weights: &[u32], expected: &[usize]| {
        let backends = weights.iter().enumerate().map(|(index, weight)| WeightedBackend {
            weight: *weight,
            target: Target::Invalid(StatusCode::from_u16(200 + u16::try_from(index).unwrap()).unwrap()),
            filters: Filters::default(),
        });
        let action = Action { backends: backends.collect(), ..Action::default() };
        let mut counts = vec![0; weights.len()];
        for number in 0..100 {
            if let Some(WeightedBackend { target: Target::Invalid(status), .. }) = action.choose(number) {
                counts[usize::from(status.as_u16() - 200)] += 1;
            }
        }
        assert_eq!(counts, expected, "{weights:?}");
    };
    check(&[1], &[100]);
    check(&[70, 30, 0], &[70, 30, 0]);
    check(&[0, 1, 3], &[0, 25, 75]);
    check(&[0, 0], &[0, 0]);
    check(&[u32::MAX, u32::MAX], &[100, 0]);
    check(&[], &[]);
}

#[test]
fn mirrors_get_their_share() {
    let check = |share: (u32, u32), expected: usize| {
        let (endpoints, protocol) = (Vec::new(), crate::backend::Protocol::Http);
        let mirror = Mirror { endpoints: Arc::new(Endpoints::new(String::new(), protocol, endpoints)), share };
        assert_eq!((0..100).filter(|number| mirror.is_drawn(*number)).count(), expected, "{share:?}");
    };
    check((100, 100), 100);
    check((0, 100), 0);
    check((42, 100), 42);
    check((1, 4), 25);
    check((1, 0), 0);
}

#[test]
fn paths_are_rewritten() {
    // The table at `HTTPPathModifier.replacePrefixMatch`.
    let check = |path: &str, matched: &str, with: &str, expected: &str| {
        let matched = matched.trim_end_matches('/').to_owned();
        let rewrite = PathRewrite::Prefix { matched, with: with.to_owned() };
        assert_eq!(rewrite.apply(path), expected, "{path} {rewrite:?}");
    };
    check("/foo/bar", "/foo", "/xyz", "/xyz/bar");
    check("/foo/bar", "/foo", "/xyz/", "/xyz/bar");
    check("/foo/bar", "/foo/", "/xyz", "/xyz/bar");
    check("/foo/bar", "/foo/", "/xyz/", "/xyz/bar");
    check("/foo", "/foo", "/xyz", "/xyz");
    check("/foo/", "/foo", "/xyz", "/xyz/");
    check("/foo/bar", "/foo", "", "/bar");
    check("/foo/", "/foo", "", "/");
    check("/foo", "/foo", "", "/");
    check("/foo/", "/foo", "/", "/");
    check("/foo", "/foo", "/", "/");
    check("/foo/bar", "/", "/xyz", "/xyz/foo/bar");
    check("/", "/", "/xyz", "/xyz/");
    check("/foo", "/foo", "xyz", "/xyz");
    assert_eq!(PathRewrite::Full("/new".to_owned()).apply("/a/b"), "/new");
    assert_eq!(PathRewrite::Full("new".to_owned()).apply("/a/b"), "/new");
}

#[test]
fn headers_are_set_added_and_removed() {
    let pair =
        |name: &'static str, value: &'static str| (HeaderName::from_static(name), HeaderValue::from_static(value));
    let modifier = HeaderModifier {
        set: vec![pair("x-set", "new")],
        add: vec![pair("x-add", "second")],
        remove: vec![HeaderName::from_static("x-remove")],
    };
    let mut headers: HeaderMap =
        [pair("x-set", "old"), pair("x-add", "first"), pair("x-remove", "gone"), pair("x", "kept")]
            .into_iter()
            .collect();
    modifier.apply(&mut headers);
    let mut found: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    found.sort_unstable();
    assert_eq!(found, [("x", "kept"), ("x-add", "first"), ("x-add", "second"), ("x-set", "new")]);
}
