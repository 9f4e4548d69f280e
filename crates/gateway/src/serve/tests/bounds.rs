//! What takes too long or too much, and the end.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::*;
use crate::route::Timeouts;

const SHORT: Duration = Duration::from_millis(50);

/// A backend that answers when it is told, `begun` having been told that it was asked.
async fn waiting(begun: Arc<Notify>, go: Arc<Notify>) -> Backend {
    Backend::answering(move |_: Request<Incoming>| {
        let (begun, go) = (Arc::clone(&begun), Arc::clone(&go));
        async move {
            begun.notify_one();
            go.notified().await;
            Response::new(Full::new(Bytes::from_static(b"done")))
        }
    })
    .await
}

#[tokio::test]
async fn backends_that_take_too_long() {
    let silent = waiting(Arc::default(), Arc::default()).await;
    let check = async |limits: Limits, timeouts: Timeouts| {
        let running = Running::start(limits, everything(Action { timeouts, ..to(&[silent.address]) }));
        assert_eq!(running.status("foo.com", "/").await, 504, "{timeouts:?}");
    };
    check(Limits::default(), Timeouts { request: Some(SHORT), ..Timeouts::default() }).await;
    check(Limits::default(), Timeouts { backend_request: Some(SHORT), ..Timeouts::default() }).await;
    check(Limits { response: SHORT, ..Limits::default() }, Timeouts::default()).await;

    // One that begins and does not go on: the response is cut off, not left open.
    let stuck = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = stuck.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = stuck.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
            open.push(stream);
        }
    });
    // Long enough for the head to come, however busy the machine is.
    let time = Duration::from_secs(1);
    let timeouts = Timeouts { request: Some(time), ..Timeouts::default() };
    for (limits, timeouts) in
        [(Limits::default(), timeouts), (Limits { response: time, ..Limits::default() }, Timeouts::default())]
    {
        let running = Running::start(limits, everything(Action { timeouts, ..to(&[address]) }));
        let mut stream = running.connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: foo.com\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        // However it ends, it ends.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.ends_with(b"half"), "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn what_backends_get_wrong() {
    for (answer, expected) in [("", 502), ("nonsense\r\n\r\n", 502), ("HTTP/1.1 101 Switching Protocols\r\n\r\n", 502)]
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let running = Running::start(Limits::default(), everything(to(&[address])));
        assert_eq!(running.status("foo.com", "/").await, expected, "{answer}");
    }
}

#[tokio::test]
async fn clients_that_take_too_long_or_too_much() {
    let backend = Backend::telling("one").await;
    let limits = Limits { head: SHORT, stall: SHORT, ..Limits::default() };
    let running = Running::start(limits, everything(to(&[backend.address])));
    let check = async |sent: String, expected: &str| {
        let mut stream = running.connect().await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // The proxy hangs up by itself; with a reset where it has not read all.
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.starts_with(expected), "{:?}: {answer:?}", &sent[..sent.len().min(80)]);
        assert_eq!(answer.is_empty(), expected.is_empty(), "{answer}");
    };
    check(String::new(), "").await;
    check("P".to_owned(), "").await;
    check("GET / HTTP/1.1\r\nhost:".to_owned(), "").await;
    check("GET / HTTP/1.1\r\nhost: foo.com\r\n\r\n".to_owned(), "HTTP/1.1 200 ").await;
    check(format!("GET / HTTP/1.1\r\nhost: foo.com\r\nx: {}\r\n\r\n", "x".repeat(100_000)), "HTTP/1.1 431 ").await;
    check("GET / HTTP/1.1\r\nhost: foo.com\r\nhost: bar.com\r\n\r\n".to_owned(), "HTTP/1.1 400 ").await;
    check("GET / HTTP/1.1\r\n\r\n".to_owned(), "HTTP/1.1 400 ").await;
    check("CONNECT foo.com:443 HTTP/1.1\r\nhost: foo.com:443\r\n\r\n".to_owned(), "HTTP/1.1 405 ").await;
    // HTTP/2 that begins and says nothing more.
    let mut stream = running.connect().await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    until("all places are free again", || running.proxy.connections.available_permits() == 1024).await;
}

#[tokio::test]
async fn there_are_so_many_connections_and_requests_at_a_time() {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let backend = waiting(Arc::clone(&begun), Arc::clone(&go)).await;
    let limits = Limits { requests: 1, connections: 2, ..Limits::default() };
    let running = Running::start(limits, everything(to(&[backend.address])));
    let first = async { running.status("foo.com", "/").await };
    let second = async {
        begun.notified().await;
        let refused = running.status("foo.com", "/").await;
        // The connection of the second request is gone, or this would wait for ever.
        let refused_again = running.status("foo.com", "/").await;
        go.notify_one();
        (refused, refused_again)
    };
    assert_eq!(tokio::join!(first, second), (200, (503, 503)));
}

#[tokio::test]
async fn running_requests_finish_before_the_end() {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let backend = waiting(Arc::clone(&begun), Arc::clone(&go)).await;
    let running = Running::start(Limits::default(), everything(to(&[backend.address])));
    let idle = running.connect().await;
    let address = running.address();
    let request = async { running.status("foo.com", "/").await };
    let end = async {
        begun.notified().await;
        let go_later = async {
            until("nobody is accepted any more", || running.proxy.stopping.is_cancelled()).await;
            go.notify_one();
        };
        tokio::join!(running.proxy.shutdown(), go_later);
    };
    assert_eq!(tokio::join!(request, end).0, 200);
    assert!(TcpStream::connect(address).await.is_err());
    assert_eq!(idle.peek(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn what_does_not_finish_is_ended() {
    let begun = Arc::new(Notify::new());
    let backend = waiting(Arc::clone(&begun), Arc::default()).await;
    let limits = Limits { drain: SHORT, ..Limits::default() };
    let running = Running::start(limits, everything(to(&[backend.address])));
    let mut stream = running.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: foo.com\r\n\r\n").await.unwrap();
    begun.notified().await;
    running.proxy.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(answer, b"");
}

#[tokio::test]
async fn ports_that_are_taken() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let proxy = Proxy::new(Limits::default());
    let mut listeners = Listeners::new(Arc::clone(&proxy), Ports { http: vec![port, 0], https: vec![port] });
    let failed = listeners.set(&BTreeSet::from([HTTP, HTTPS]));
    assert_eq!(failed.keys().collect::<Vec<_>>(), [&HTTPS]);
    assert_ne!(proxy.port(HTTP), Some(port));
    assert_eq!(proxy.port(HTTPS), None);
    let open = proxy.port(HTTP).unwrap();
    drop(taken);
    assert_eq!(listeners.set(&BTreeSet::from([HTTP, HTTPS])), [].into());
    assert_eq!((proxy.port(HTTP), proxy.port(HTTPS)), (Some(open), Some(port)), "what is open stays");
    assert_eq!(listeners.set(&BTreeSet::from([HTTPS])), [].into());
    assert_eq!(proxy.port(HTTP), None);
    until("the port is closed", || std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, open)).is_err()).await;
}
