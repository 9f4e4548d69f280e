//! A daemon that hangs: what it is given at most, and what becomes of it when it answers again. Needs no Docker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_docker::{Config, Docker};
use runtime::{Error, Runtime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// A daemon on a socket, which reads every request and answers while it is awake.
struct Daemon {
    awake: watch::Sender<bool>,
    /// How often each request came, `METHOD PATH` without version and query.
    seen: Mutex<HashMap<String, usize>>,
}

impl Daemon {
    async fn start(folder: &tempfile::TempDir) -> (Arc<Self>, Docker) {
        let path = folder.path().join("docker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let daemon = Arc::new(Self { awake: watch::Sender::new(true), seen: Mutex::default() });
        let server = Arc::clone(&daemon);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&server).serve(connection));
            }
        });
        let host = Some(format!("unix://{}", path.display()));
        let docker = Docker::connect(Config { host, ..Config::new("p") }).await.unwrap();
        (daemon, docker)
    }

    async fn serve(self: Arc<Self>, mut connection: UnixStream) {
        let mut request = Vec::new();
        loop {
            let Ok(1..) = connection.read_buf(&mut request).await else { return };
            // None of these requests has a body.
            let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let head = String::from_utf8(request.drain(..end + 4).collect()).unwrap();
            let mut words = head.split_whitespace();
            let (method, path) = (words.next().unwrap(), words.next().unwrap());
            let path = path.split('?').next().unwrap().trim_start_matches("/v1.41");
            *self.seen.lock().unwrap().entry(format!("{method} {path}")).or_default() += 1;
            let _ = self.awake.subscribe().wait_for(|awake| *awake).await;
            let (status, body) = match path {
                "/_ping" => ("200 OK", "OK"),
                "/networks" => ("200 OK", "[]"),
                _ => ("204 No Content", ""),
            };
            let head = format!("HTTP/1.1 {status}\r\nApi-Version: 1.41\r\nContent-Length: {}\r\n\r\n", body.len());
            if connection.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn count(&self, which: impl Fn(&str) -> bool) -> usize {
        self.seen.lock().unwrap().iter().filter(|(request, _)| which(request)).map(|(_, count)| count).sum()
    }
}

/// Waits until a count stays as it is.
async fn settled(count: impl Fn() -> usize) -> usize {
    let mut last = (count(), 0);
    while last.1 < 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = count();
        last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
    }
    last.0
}

#[tokio::test]
async fn a_hanging_daemon_is_given_a_few_requests_and_each_container_one() {
    let folder = tempfile::tempdir().unwrap();
    let (daemon, docker) = Daemon::start(&folder).await;
    daemon.awake.send_replace(false);
    let removals = || daemon.count(|request| request.starts_with("DELETE /containers/"));
    let starts = || daemon.count(|request| request.ends_with("/start"));

    // Whoever removes loses patience and tries again, as often as there is time for.
    let impatient = |number: usize| {
        let docker = docker.clone();
        tokio::spawn(async move {
            let id = format!("c{number}");
            for _ in 0..10 {
                let _ = tokio::time::timeout(Duration::from_millis(10), docker.remove_container(&id)).await;
            }
            docker.remove_container(&id).await
        })
    };
    let waiting: Vec<_> = (0..200).map(impatient).collect();
    let given = settled(removals).await;
    assert!((1..=8).contains(&given), "{given} removals for a daemon that answers none");
    // Starts have a lane of their own.
    let started: Vec<_> = (0..200)
        .map(|number| {
            let docker = docker.clone();
            tokio::spawn(async move { docker.start_container(&format!("s{number}")).await })
        })
        .collect();
    let given = settled(starts).await;
    assert!((1..=8).contains(&given), "{given} starts for a daemon that answers none");
    assert!(daemon.seen.lock().unwrap().values().all(|count| *count == 1), "{:?}", daemon.seen);

    // All is done once it answers again.
    daemon.awake.send_replace(true);
    for task in waiting.into_iter().chain(started) {
        task.await.unwrap().unwrap();
    }
    assert!(removals() >= 200 && starts() == 200, "{} {}", removals(), starts());
}

#[tokio::test]
async fn a_health_check_that_is_not_answered_is_asked_once() {
    let folder = tempfile::tempdir().unwrap();
    let (daemon, docker) = Daemon::start(&folder).await;
    assert_eq!(docker.status().await.unwrap().not_ready, None);
    daemon.awake.send_replace(false);
    for _ in 0..10 {
        assert!(tokio::time::timeout(Duration::from_millis(10), docker.status()).await.is_err());
    }
    let asked = || daemon.count(|request| request == "GET /networks");
    assert!(settled(asked).await <= 2, "one was answered, one hangs");
    daemon.awake.send_replace(true);
    assert_eq!(docker.status().await.unwrap().not_ready, None);
}

#[tokio::test]
async fn a_daemon_that_is_gone_is_an_error_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("docker.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let host = Some(format!("unix://{}", path.display()));
    let answer = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let _ = connection.read(&mut [0; 4096]).await;
        let answer = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nConnection: close\r\nContent-Length: 2\r\n\r\nOK";
        connection.write_all(answer.as_bytes()).await.unwrap();
    });
    let docker = Docker::connect(Config { host, ..Config::new("p") }).await.unwrap();
    answer.await.unwrap();
    let error = docker.status().await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
}
