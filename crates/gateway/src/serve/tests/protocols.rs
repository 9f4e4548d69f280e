//! Bodies, upgrades, and HTTP/2 on either side.

use futures::StreamExt;
use http::{HeaderValue, Version};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Body as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::*;

type Piece = Result<Frame<Bytes>, Infallible>;

/// A body whose frames are what is sent here.
fn pieces() -> (mpsc::UnboundedSender<Piece>, impl http_body::Body<Data = Bytes, Error = Infallible> + Send + Unpin) {
    let (sender, receiver) = mpsc::unbounded_channel::<Piece>();
    let stream = futures::stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((piece, receiver))
    });
    (sender, StreamBody::new(stream.boxed()))
}

/// A backend that sends back the body as it comes, trailers included, and says which version it was asked in.
async fn echo() -> Backend {
    Backend::answering(|request: Request<Incoming>| async move {
        let version = HeaderValue::from_str(&format!("{:?}", request.version())).unwrap();
        let te = request.headers().get("te").cloned().unwrap_or(HeaderValue::from_static("none"));
        let mut response = Response::new(request.into_body());
        response.headers_mut().insert("x-version", version);
        response.headers_mut().insert("x-te", te);
        response
    })
    .await
}

#[tokio::test]
async fn bodies_pass_piece_by_piece() {
    let running = Running::start(Limits::default(), everything(to(&[echo().await.address])));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(running.connect().await)).await.unwrap();
    tokio::spawn(connection);
    let (send, body) = pieces();
    let request = Request::post("/").header("host", "foo.com").body(body).unwrap();
    send.send(Ok(Frame::data(Bytes::from_static(b"first")))).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.headers()["x-version"], "HTTP/1.1");
    let mut body = response.into_body();
    // Each piece comes back before the next is sent: nobody gathers them.
    for next in [Some("second"), Some("third"), None] {
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(!frame.is_empty());
        if let Some(next) = next {
            send.send(Ok(Frame::data(Bytes::from_static(next.as_bytes())))).unwrap();
        }
    }
    drop(send);
    assert_eq!(body.collect().await.unwrap().to_bytes(), Bytes::new());

    let large = Bytes::from(vec![b'x'; 4 * 1024 * 1024]);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(running.connect().await)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("/").header("host", "foo.com").body(Full::new(large.clone())).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.body().size_hint().exact(), Some(large.len() as u64), "its length is passed on");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), large);
}

#[tokio::test]
async fn a_client_of_http2_without_tls_reaches_http1() {
    let backend = Backend::telling("one").await;
    let running = Running::start(Limits::default(), everything(to(&[backend.address])));
    let stream = TokioIo::new(running.connect().await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://foo.com:8080/x?y").header("cookie", "a=1").header("cookie", "b=2");
    let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    assert_eq!((response.status(), response.version()), (StatusCode::OK, Version::HTTP_2));
    let asked: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!((&asked["version"], &asked["uri"]), (&json!("HTTP/1.1"), &json!("/x?y")));
    assert_eq!((&asked["headers"]["host"], &asked["headers"]["cookie"]), (&json!("foo.com:8080"), &json!("a=1; b=2")));
}

#[tokio::test]
async fn grpc_passes_with_its_trailers() {
    // Whether or not the Service says what it speaks: nothing but HTTP/2 carries gRPC.
    for protocol in [Protocol::H2c, Protocol::Http] {
        let backend = echo().await;
        let action = Action::to(target(protocol, &[backend.address]));
        let running = Running::start(Limits::default(), everything(action));
        let stream = TokioIo::new(running.connect().await);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..3 {
            let (send, body) = pieces();
            let request = Request::post("http://foo.com/pkg.Service/Method")
                .header("content-type", "application/grpc")
                .header("te", "trailers");
            send.send(Ok(Frame::data(Bytes::from_static(b"message")))).unwrap();
            let trailers = [("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))].into_iter().collect();
            send.send(Ok(Frame::trailers(trailers))).unwrap();
            drop(send);
            let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
            assert_eq!(
                (&response.headers()["x-version"], &response.headers()["x-te"]),
                (&"HTTP/2.0".parse().unwrap(), &"trailers".parse().unwrap())
            );
            let collected = response.into_body().collect().await.unwrap();
            assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
            assert_eq!(collected.to_bytes(), "message");
        }
        assert_eq!(backend.connections(), 1, "requests share a connection");
    }
}

#[tokio::test]
async fn a_client_of_http1_reaches_h2c() {
    let backend = Backend::telling("one").await;
    let running = Running::start(Limits::default(), everything(Action::to(target(Protocol::H2c, &[backend.address]))));
    let asked = running.get("foo.com:8080", "/x?y").await;
    assert_eq!((&asked["version"], &asked["uri"]), (&json!("HTTP/2.0"), &json!("http://foo.com:8080/x?y")));
    let (status, headers, _) = running.ask(get("foo.com", "/")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers.get("connection"), None);
}

#[tokio::test]
async fn connections_are_upgraded() {
    let backend = Backend::answering(|mut request: Request<Incoming>| async move {
        if request.headers().get("upgrade").map(HeaderValue::as_bytes) != Some(b"websocket") {
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
            return response;
        }
        assert_eq!(request.headers()["sec-websocket-key"], "key");
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
            tokio::io::copy(&mut read, &mut write).await
        });
        let response = Response::builder().status(101).header("connection", "Upgrade").header("upgrade", "websocket");
        response.header("sec-websocket-accept", "yes").body(Empty::new()).unwrap()
    })
    .await;
    let running = Running::start(Limits::default(), everything(to(&[backend.address])));
    assert_eq!(running.status("foo.com", "/").await, 426);

    let mut stream = running.connect().await;
    let request = "GET /ws HTTP/1.1\r\nhost: foo.com\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-key: key\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    for expected in
        ["HTTP/1.1 101 ", "connection: upgrade\r\n", "upgrade: websocket\r\n", "sec-websocket-accept: yes\r\n"]
    {
        assert!(head.contains(expected), "{head}");
    }
    for message in ["hello", "world"] {
        stream.write_all(message.as_bytes()).await.unwrap();
        let mut echoed = vec![0; message.len()];
        stream.read_exact(&mut echoed).await.unwrap();
        assert_eq!(echoed, message.as_bytes());
    }
    // Its end is passed on, in both directions.
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}
