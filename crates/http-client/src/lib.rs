//! HTTP/1.1 requests, each on a connection of its own: what webhooks, probes and the `proxy` subresources are made of.
//!
//! Such requests go to servers that a user runs, one at a time and far between: there is nothing that a pool could keep.
//! What goes wrong is said in the words of Go's libraries (`dial tcp 10.0.0.1:80: connect: connection refused`, `EOF`),
//! since these are what the API's clients print, and what people search for.
//!
//! 1. [`dial()`] or [`dial_address`] opens the connection, [`handshake`] makes it one of TLS.
//! 2. [`send`] sends the request and waits for the head of its answer.
//! 3. [`Answer::read`] reads the body, within a bound; or the caller takes an answer apart and drives its [`Connection`].

mod dial;
mod tls;

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::{BoxFuture, Either, FutureExt, select};
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

pub use dial::{dial, dial_address};
pub use tls::{Trust, authenticated, handshake, trusting, verifying};

/// The answer to a request: its head has arrived.
#[derive(Debug)]
pub struct Answer {
    /// The head, and the body as it comes in while the connection is driven.
    pub response: Response<Incoming>,
    /// What the body comes in by.
    pub connection: Connection,
}

/// A connection, which carries bytes while it is polled; done when it has ended, however it ended. One that is upgraded
/// has ended as soon as the upgrade has what it needs of it.
#[must_use = "nothing is received while nobody polls it"]
pub struct Connection(BoxFuture<'static, ()>);

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

/// Sends a request on a connection that is used for nothing else, and waits for the head of the answer. Path and query of
/// the request are sent as they are, and its headers alone.
///
/// # Errors
/// When there is no answer: `EOF` when the server hung up.
pub async fn send<B>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<B>,
) -> Result<Answer, String>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let connected = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = connected.map_err(|error| words(&error))?;
    // How it ended, whoever waits for the answer is told.
    let connection = Connection(connection.with_upgrades().map(drop).fuse().boxed());
    let answered = Box::pin(async move { sender.send_request(request).await });
    let (answered, connection) = match select(answered, connection).await {
        Either::Left(done) => done,
        // It may have ended with the answer received, or is the reason why there is none.
        Either::Right(((), answering)) => (answering.await, Connection(futures::future::ready(()).boxed())),
    };
    Ok(Answer { response: answered.map_err(|error| words(&error))?, connection })
}

impl Answer {
    /// Reads the body.
    ///
    /// # Errors
    /// When it has more than `limit` bytes, or the server hung up in its middle.
    pub async fn read(self, limit: usize) -> Result<Bytes, String> {
        let body = Box::pin(Limited::new(self.response.into_body(), limit).collect());
        let read = match select(body, self.connection).await {
            Either::Left((read, _)) => read,
            Either::Right(((), reading)) => reading.await,
        };
        read.map(http_body_util::Collected::to_bytes).map_err(|error| error.to_string())
    }
}

/// An error with what led to it; `EOF` when the server hung up before it had answered.
fn words(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "EOF".to_owned();
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// What is read, at most so many bytes, from a server that sends `answer` and hangs up.
    async fn ask(answer: &'static str, limit: usize) -> Result<(u16, Bytes), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let serve = async {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let _ = stream.read(&mut [0; 1024]).await;
            stream.write_all(answer.as_bytes()).await.expect("written");
        };
        let asked = async {
            let request = Request::get("/").body(Empty::<Bytes>::new()).expect("a request");
            let answer = send(dial("127.0.0.1", port).await?, request).await?;
            Ok((answer.response.status().as_u16(), answer.read(limit).await?))
        };
        tokio::join!(asked, serve).0
    }

    #[tokio::test]
    async fn answers_are_read_within_their_bound() {
        let check = async |answer, expected: Result<(u16, &'static str), &str>| {
            let expected = expected.map(|(status, body)| (status, Bytes::from(body))).map_err(str::to_owned);
            assert_eq!(ask(answer, 5).await, expected, "{answer}");
        };
        check("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", Ok((200, "hello"))).await;
        check("HTTP/1.0 404 Not Found\r\n\r\nno", Ok((404, "no"))).await;
        check("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello!", Err("length limit exceeded")).await;
        check("", Err("EOF")).await;
        let cut = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell";
        assert!(ask(cut, 5).await.is_err(), "a body that was cut short is none");
    }
}
