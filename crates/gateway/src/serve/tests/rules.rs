//! Requests find their backends, and backends are told where they come from.

use super::*;
use crate::route::{Filters, HeaderModifier, Mirror, PathRewrite, Redirect, Rewrite};

#[tokio::test]
async fn requests_are_led_by_host_and_path() {
    let [one, two] = [Backend::telling("one").await, Backend::telling("two").await];
    let mut entry = EntryPoint::default();
    add(&mut entry, "foo.com", "/", to(&[one.address]));
    add(&mut entry, "foo.com", "/api", to(&[two.address]));
    add(&mut entry, "empty.com", "/", to(&[]));
    add(&mut entry, "missing.com", "/", Action::to(Target::Invalid(StatusCode::SERVICE_UNAVAILABLE)));
    add(&mut entry, "none.com", "/", Action::default());
    let running = Running::start(Limits::default(), entry);

    let asked = running.get("Foo.com:8080", "/x?y=%20z").await;
    assert_eq!(
        (&asked["backend"], &asked["uri"], &asked["method"]),
        (&json!("one"), &json!("/x?y=%20z"), &json!("GET"))
    );
    let headers = &asked["headers"];
    assert_eq!(headers["host"], "Foo.com:8080");
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(headers["x-forwarded-proto"], "http");
    assert_eq!(headers["x-forwarded-host"], "Foo.com:8080");
    assert_eq!(headers["x-forwarded-port"], running.address().port().to_string());
    assert_eq!(running.get("foo.com", "/api/x").await["backend"], "two");
    assert_eq!(running.status("bar.com", "/").await, 404);
    assert_eq!(running.status("empty.com", "/").await, 503);
    assert_eq!(running.status("missing.com", "/").await, 503);
    assert_eq!(running.status("none.com", "/").await, 500);
    assert_eq!(running.status("a@foo.com", "/").await, 400);
    assert_eq!(running.status("foo.com", "/api/../x").await, 400);

    // Another table holds from the next request on.
    running.proxy.set_table(Table { entry_points: [(HTTP, Arc::new(everything(to(&[two.address]))))].into() });
    assert_eq!(running.get("bar.com", "/").await["backend"], "two");
}

#[tokio::test]
async fn endpoints_take_turns_and_stand_in_for_each_other() {
    let [one, two] = [Backend::telling("one").await, Backend::telling("two").await];
    let running = Running::start(Limits::default(), everything(to(&[one.address, two.address])));
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for _ in 0..10 {
        *counts.entry(running.get("foo.com", "/").await["backend"].to_string()).or_default() += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [5, 5]);
    // Connections are kept, though each request came on one of its own.
    assert_eq!((one.connections(), two.connections()), (1, 1));

    let running = Running::start(Limits::default(), everything(to(&[nobody().await, one.address, nobody().await])));
    for _ in 0..4 {
        assert_eq!(running.get("foo.com", "/").await["backend"], "one");
    }
    let running = Running::start(Limits::default(), everything(to(&[nobody().await])));
    assert_eq!(running.status("foo.com", "/").await, 502);
}

#[tokio::test]
async fn a_connection_that_the_backend_has_closed_is_made_anew() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let running = Running::start(Limits::default(), everything(to(&[listener.local_addr().unwrap()])));
    // Answers one request on each connection, does not say that it is the last, and hangs up when it has read the next.
    let serve = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                let _ = stream.read(&mut buffer).await.unwrap();
            });
        }
    });
    for _ in 0..3 {
        assert_eq!(running.status("foo.com", "/").await, 200);
    }
    serve.await.unwrap();
}

#[tokio::test]
async fn filters_change_requests_and_responses() {
    let backend = Backend::telling("one").await;
    let pair = |name: &'static str, value: &'static str| (name.parse().unwrap(), value.parse().unwrap());
    let modifier = |set: &'static str| HeaderModifier {
        set: vec![pair("x-set", set)],
        add: vec![pair("x-add", "added")],
        remove: vec!["x-remove".parse().unwrap(), "date".parse().unwrap()],
    };
    let mut action = to(&[backend.address]);
    action.filters = Filters {
        request_headers: modifier("rule"),
        response_headers: modifier("response"),
        rewrite: Some(Rewrite {
            hostname: Some("inside.example".to_owned()),
            path: Some(PathRewrite::Prefix { matched: "/a".to_owned(), with: "/b".to_owned() }),
        }),
        redirect: None,
    };
    action.backends[0].filters.request_headers.set = vec![pair("x-set", "backend")];
    let redirect = Action {
        filters: Filters {
            redirect: Some(Redirect {
                scheme: Some("https".to_owned()),
                hostname: None,
                port: Some(8443),
                path: None,
                status: StatusCode::MOVED_PERMANENTLY,
            }),
            ..Filters::default()
        },
        ..Action::default()
    };
    let mut entry = EntryPoint::default();
    add(&mut entry, "foo.com", "/a", action);
    add(&mut entry, "foo.com", "/old", redirect);
    let running = Running::start(Limits::default(), entry);

    let request = Request::get("/a/c?d").header("host", "foo.com").header("x-remove", "1").header("x-add", "0");
    let (_, headers, body) = running.ask(request.body(Empty::new()).unwrap()).await;
    let asked: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(asked["uri"], "/b/c?d");
    assert_eq!(asked["headers"]["host"], "inside.example");
    assert_eq!(asked["headers"]["x-forwarded-host"], "foo.com");
    assert_eq!(asked["headers"]["x-set"], "backend");
    assert_eq!(asked["headers"]["x-remove"], Value::Null);
    // The last of the two, as the backend tells it.
    assert_eq!(asked["headers"]["x-add"], "added");
    assert_eq!((&headers["x-set"], &headers["x-add"]), (&"response".parse().unwrap(), &"added".parse().unwrap()));

    let (status, headers, _) = running.ask(get("foo.com", "/old/x?y")).await;
    assert_eq!((status.as_u16(), &headers["location"]), (301, &"https://foo.com:8443/old/x?y".parse().unwrap()));
    assert_eq!(backend.connections(), 1, "nothing is asked for a redirect");
}

#[tokio::test]
async fn copies_go_to_mirrors() {
    let (seen, mut copies) = tokio::sync::mpsc::unbounded_channel();
    let mirror = Backend::answering(move |request: Request<Incoming>| {
        let seen = seen.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes().len());
            seen.send((parts.uri.to_string(), parts.headers["x-set"].clone(), body.ok())).unwrap();
            Response::new(Full::new(Bytes::from_static(b"nobody reads this")))
        }
    })
    .await;
    let counting = Backend::answering(|request: Request<Incoming>| async move {
        let length = request.into_body().collect().await.unwrap().to_bytes().len();
        Response::new(Full::new(Bytes::from(length.to_string())))
    })
    .await;
    let mut action = to(&[counting.address]);
    action.filters.request_headers.set = vec![("x-set".parse().unwrap(), "1".parse().unwrap())];
    let of = |address: SocketAddr, share: (u32, u32)| match target(Protocol::Http, &[address]) {
        Target::Endpoints(endpoints) => Mirror { endpoints, share },
        Target::Invalid(_) => unreachable!(),
    };
    let never = Backend::telling("never").await;
    // One that cannot be reached is nobody's concern.
    action.mirrors = vec![of(mirror.address, (1, 1)), of(nobody().await, (1, 1)), of(never.address, (0, 1))];
    let running = Running::start(Limits::default(), everything(action));
    for length in [0, 5, 300_000] {
        let stream = TokioIo::new(running.connect().await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let body = Full::new(Bytes::from(vec![b'x'; length]));
        let request = Request::post("/x?y").header("host", "foo.com").body(body).unwrap();
        let answer = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(answer, length.to_string());
        let (uri, header, copied) = copies.recv().await.unwrap();
        assert_eq!((uri.as_str(), header), ("/x?y", "1".parse().unwrap()));
        // A large one may have come faster than it was taken, and has broken off then.
        assert!(copied.is_none_or(|copied| copied == length) && (length > 5 || copied.is_some()), "{copied:?}");
    }
    assert_eq!(never.connections(), 0);
}

#[tokio::test]
async fn weights_share_out_requests() {
    let backend = |address: SocketAddr, weight: u32| WeightedBackend {
        weight,
        target: target(Protocol::Http, &[address]),
        filters: Filters::default(),
    };
    let [one, two] = [Backend::telling("one").await, Backend::telling("two").await];
    let action = Action { backends: vec![backend(one.address, 0), backend(two.address, 3)], ..Action::default() };
    let running = Running::start(Limits::default(), everything(action));
    for _ in 0..10 {
        assert_eq!(running.get("foo.com", "/").await["backend"], "two");
    }
}
