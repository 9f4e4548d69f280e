//! Logs, exec, attach and port-forward on a real daemon. Needs Docker and /bin/busybox (Debian's busybox-static).

mod support;

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use runtime::{ContainerConfig, Error, Runtime};
use streaming::{CommandOptions, LogOptions, LogStream, Streams, TerminalSize};
use support::{Fixture, eventually, with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

const MINUTE: Duration = Duration::from_secs(60);

struct Caller {
    stdin: mpsc::Sender<Bytes>,
    stdout: mpsc::Receiver<Bytes>,
    stderr: mpsc::Receiver<Bytes>,
    sizes: mpsc::Sender<TerminalSize>,
}

fn streams() -> (Streams, Caller) {
    let (stdin, stdin_end) = mpsc::channel(16);
    let (stdout, stdout_end) = mpsc::channel(16);
    let (stderr, stderr_end) = mpsc::channel(16);
    let (sizes, sizes_end) = mpsc::channel(16);
    let streams = Streams { stdin: Some(stdin_end), stdout: Some(stdout), stderr: Some(stderr), resize: sizes_end };
    let caller = Caller { stdin, stdout: stdout_end, stderr: stderr_end, sizes };
    (streams, caller)
}

async fn all(mut from: mpsc::Receiver<Bytes>) -> String {
    let mut text = Vec::new();
    while let Some(data) = from.recv().await {
        text.extend_from_slice(&data);
    }
    String::from_utf8(text).unwrap()
}

fn command(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

const PLAIN: CommandOptions = CommandOptions { stdin: true, stdout: true, stderr: true, tty: false };
const TERMINAL: CommandOptions = CommandOptions { stdin: true, stdout: true, stderr: false, tty: true };

#[tokio::test]
async fn logs() {
    with(async |fixture: Fixture| {
        let docker = &fixture.docker;
        let sandbox = fixture.sandbox("web").await;
        // Pauses, for the order of two outputs is not kept within a moment.
        let script = "echo one; sleep 0.3; echo two >&2; sleep 2; echo three; \
             dd if=/dev/zero bs=40000 count=1 2>/dev/null | busybox tr '\\0' x; echo";
        let id = fixture.run_script(&sandbox, "main", script).await;
        let read = async |options: LogOptions| {
            let log: Vec<Bytes> = docker.logs(&id, &options).await.unwrap().try_collect().await.unwrap();
            String::from_utf8(log.concat()).unwrap()
        };
        let long = "x".repeat(40000) + "\n";
        // Following ends with the container.
        let follow = LogOptions { follow: true, ..LogOptions::default() };
        assert_eq!(read(follow).await, format!("one\ntwo\nthree\n{long}"));
        let stderr = LogOptions { stream: LogStream::Stderr, ..LogOptions::default() };
        assert_eq!(read(stderr).await, "two\n");
        let limited = LogOptions { limit_bytes: Some(6), ..LogOptions::default() };
        assert_eq!(read(limited).await, "one\ntw");
        assert_eq!(read(LogOptions { tail_lines: Some(0), ..LogOptions::default() }).await, "");

        let stamped = read(LogOptions { timestamps: true, ..LogOptions::default() }).await;
        let lines: Vec<(&str, &str)> = stamped.lines().map(|line| line.split_once(' ').unwrap()).collect();
        let texts: Vec<&str> = lines.iter().map(|(_, text)| *text).collect();
        assert_eq!(texts, ["one", "two", "three", long.trim_end()]);
        for (time, _) in &lines {
            assert_eq!(time.len(), "2026-11-23T06:36:43.123456789Z".len(), "{time}");
            time.parse::<jiff::Timestamp>().unwrap();
        }
        let since = LogOptions { since_time: Some(lines[2].0.to_owned()), ..LogOptions::default() };
        assert_eq!(read(since).await, format!("three\n{long}"));

        let missing = docker.logs("0123456789ab", &LogOptions::default()).await.err().unwrap();
        assert!(missing.is_not_found(), "{missing:?}");
    })
    .await;
}

#[tokio::test]
async fn exec_has_streams_and_an_exit_code() {
    with(async |fixture: Fixture| {
        let docker = &fixture.docker;
        let sandbox = fixture.sandbox("web").await;
        let id = fixture.run_script(&sandbox, "main", "sleep 1000").await;

        let (streams, caller) = streams();
        let Caller { stdin, stdout, stderr, .. } = caller;
        let run = docker.exec(&id, command("cat; echo oops >&2; exit 5"), PLAIN, streams);
        let typed = async {
            stdin.send("hello\n".into()).await.unwrap();
            drop(stdin);
        };
        let (code, (), out, err) = tokio::join!(run, typed, all(stdout), all(stderr));
        assert_eq!((code.unwrap(), &out[..], &err[..]), (5, "hello\n", "oops\n"));

        // Large output, slowly read, loses nothing.
        let (streams, caller) = self::streams();
        let run = docker.exec(&id, command("seq 1 100000"), PLAIN, streams);
        let (code, out) = tokio::join!(run, all(caller.stdout));
        assert_eq!((code.unwrap(), out.lines().count()), (0, 100_000));

        let (streams, _caller) = self::streams();
        let gone = docker.exec("0123456789ab", command("true"), PLAIN, streams).await.unwrap_err();
        assert!(gone.is_not_found(), "{gone:?}");
    })
    .await;
}

#[tokio::test]
async fn exec_on_a_terminal() {
    with(async |fixture: Fixture| {
        let docker = &fixture.docker;
        let sandbox = fixture.sandbox("web").await;
        let id = fixture.run_script(&sandbox, "main", "sleep 1000").await;
        let (streams, mut caller) = streams();
        caller.sizes.send(TerminalSize { width: 132, height: 43 }).await.unwrap();
        let run = tokio::spawn({
            let (docker, id) = (docker.clone(), id.clone());
            async move { docker.exec(&id, vec!["sh".to_owned()], TERMINAL, streams).await }
        });
        // The size may arrive a moment after the shell; ctrl-p reaches the shell.
        let mut seen = String::new();
        while !seen.contains("43 132") {
            caller.stdin.send("stty size\r".into()).await.unwrap();
            let data = tokio::time::timeout(MINUTE, caller.stdout.recv()).await.unwrap().expect("it runs");
            seen += &String::from_utf8_lossy(&data);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        caller.stdin.send("\x10exit 9\r".into()).await.unwrap();
        caller.stdin.send("exit 9\r".into()).await.unwrap();
        tokio::spawn(async move { while caller.stdout.recv().await.is_some() {} });
        assert_eq!(run.await.unwrap().unwrap(), 9);
    })
    .await;
}

#[tokio::test]
async fn probes() {
    with(async |fixture: Fixture| {
        let docker = &fixture.docker;
        let sandbox = fixture.sandbox("web").await;
        let id = fixture.run_script(&sandbox, "main", "sleep 1000").await;
        let done = docker.exec_sync(&id, command("echo a; sleep 0.3; echo b >&2; exit 4"), MINUTE).await.unwrap();
        assert_eq!(done.exit_code, 4);
        assert_eq!(done.output, "a\nb\n");

        let error = docker.exec_sync(&id, command("exec sleep 777"), Duration::from_millis(500)).await.unwrap_err();
        assert!(matches!(error, Error::Timeout(_)), "{error:?}");
        // It was killed.
        eventually(async || {
            let ps = docker.exec_sync(&id, vec!["ps".to_owned()], MINUTE).await.unwrap();
            (!String::from_utf8_lossy(&ps.output).contains("sleep 777")).then_some(())
        })
        .await;

        let missing = docker.exec_sync(&id, vec!["/no/such".to_owned()], MINUTE).await;
        match missing {
            Ok(output) => assert!([126, 127].contains(&output.exit_code), "{output:?}"),
            Err(error) => assert!(error.to_string().contains("/no/such"), "{error:?}"),
        }
    })
    .await;
}

#[tokio::test]
async fn attach() {
    with(async |fixture: Fixture| {
        let docker = &fixture.docker;
        let sandbox = fixture.sandbox("web").await;
        let config = ContainerConfig {
            stdin: true,
            ..fixture.container_config(&sandbox, "main", "read a; echo got $a; exit 6")
        };
        let id = fixture.run(&sandbox, &config).await;
        let (streams, caller) = streams();
        let run = docker.attach(&id, PLAIN, streams);
        let Caller { stdin, stdout, .. } = caller;
        let typed = async { stdin.send("x\n".into()).await.unwrap() };
        let (code, (), out) = tokio::join!(run, typed, all(stdout));
        assert_eq!((code.unwrap(), &out[..]), (6, "got x\n"));
    })
    .await;
}

#[tokio::test]
async fn port_forward_reaches_the_pods_loopback() {
    with(async |fixture: Fixture| {
        let docker = &fixture.docker;
        let sandbox = fixture.sandbox("web").await;
        // Listens on the pod's loopback only, answers with what it got, and closes.
        let id = fixture.run_script(&sandbox, "main", "while true; do nc -l -p 7777 127.0.0.1 -e cat; done").await;
        let ask = async || {
            let (near, far) = tokio::io::duplex(1 << 16);
            let (docker, sandbox) = (docker.clone(), sandbox.id.clone());
            let run = tokio::spawn(async move { docker.port_forward(&sandbox, 7777, Box::new(far)).await });
            let (mut read, mut write) = tokio::io::split(near);
            let sent = vec![b'x'; 1 << 20];
            let sending = async {
                // It fails when nobody listens yet.
                let _ = write.write_all(&sent).await;
                let _ = write.shutdown().await;
            };
            let mut got = Vec::new();
            let (_, ()) = tokio::join!(read.read_to_end(&mut got), sending);
            run.await.unwrap().ok().map(|()| assert_eq!(got.len(), sent.len()))
        };
        eventually(ask).await;

        let (near, far) = tokio::io::duplex(16);
        let error = docker.port_forward(&sandbox.id, 7, Box::new(far)).await.unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
        drop(near);

        // The other way, for daemons that are not on this machine: the same through the pause program.
        let through_pause = async || {
            let forward = ["/pause", "forward", "7777"].map(str::to_owned).to_vec();
            let (streams, caller) = streams();
            let Caller { stdin, stdout, .. } = caller;
            let typed = async {
                stdin.send("hello".into()).await.unwrap();
                drop(stdin);
            };
            let (code, (), out) = tokio::join!(docker.exec(&sandbox.id, forward, PLAIN, streams), typed, all(stdout));
            (code.unwrap() == 0).then(|| assert_eq!(out, "hello"))
        };
        eventually(through_pause).await;
        let log = docker.logs(&id, &LogOptions::default()).await.unwrap();
        drop(log.collect::<Vec<_>>().await);
    })
    .await;
}
