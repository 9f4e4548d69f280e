//! Commands in containers.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::time::Duration;

use bollard::models::ExecConfig;
use bollard::query_parameters::ResizeExecOptionsBuilder;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use runtime::{Error, ExecOutput};
use serde_json::json;
use streaming::{CommandOptions, Streams, TerminalSize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::codec::FramedRead;

use crate::stdcopy::{Source, StdcopyDecoder};
use crate::{CALL_TIMEOUT, Docker, host};

/// Docker watches the input of a terminal for a key sequence that detaches; its default swallows ctrl-p, which shells use.
/// This one nobody types.
pub(crate) const DETACH_KEYS: &str = "ctrl-^,ctrl-_,ctrl-^,ctrl-_,ctrl-^";

/// How often and how long to ask again for what Docker knows only a moment later.
pub(crate) const RETRIES: u32 = 50;
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Why a relay ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The command closed its outputs.
    Finished,
    /// The caller reads no more.
    CallerLeft,
}

/// Runs a command connected to `streams`.
pub(crate) async fn exec(
    docker: &Docker,
    id: &str,
    command: Vec<String>,
    options: CommandOptions,
    streams: Streams,
) -> Result<i32, Error> {
    let exec = create(docker, id, command, options).await?;
    let io = start(docker, &exec, options.tty).await?;
    let resize = |size: TerminalSize| {
        let (docker, exec) = (docker.clone(), exec.clone());
        async move {
            // Docker refuses until the process exists, which may be a moment after the connection is there.
            for _ in 0..RETRIES {
                let options = ResizeExecOptionsBuilder::new().w(size.width.into()).h(size.height.into()).build();
                if docker.call(CALL_TIMEOUT, docker.client().resize_exec(&exec, options)).await.is_ok() {
                    break;
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    };
    let (reader, writer) = tokio::io::split(io);
    match relay(reader, writer, options.tty, streams, resize).await {
        Ok(End::Finished) => exit_code(docker, &exec).await,
        Ok(End::CallerLeft) => Err(Error::Other("the caller left".to_owned())),
        Err(error) => Err(Error::Other(format!("lost the connection to the command: {error}"))),
    }
}

/// Runs a command without input to its end.
pub(crate) async fn exec_sync(
    docker: &Docker,
    id: &str,
    command: Vec<String>,
    timeout: Duration,
) -> Result<ExecOutput, Error> {
    let shown = command.join(" ");
    let options = CommandOptions { stdout: true, stderr: true, ..CommandOptions::default() };
    let exec = create(docker, id, command, options).await?;
    let run = async {
        let io = start(docker, &exec, false).await?;
        let mut frames = FramedRead::new(io, StdcopyDecoder);
        let mut output = BytesMut::new();
        while let Some(frame) = frames.next().await {
            let (_, data) = frame.map_err(|error| Error::Other(error.to_string()))?;
            let room = ExecOutput::LIMIT - output.len();
            output.extend_from_slice(&data[..data.len().min(room)]);
        }
        Ok(ExecOutput { exit_code: exit_code(docker, &exec).await?, output: output.freeze() })
    };
    match tokio::time::timeout(timeout, run).await {
        Ok(result) => result,
        Err(_) => {
            kill(docker, id, &exec).await;
            Err(Error::Timeout(format!("command {shown:?} timed out after {}s", timeout.as_secs_f64())))
        }
    }
}

/// Prepares a command and answers its id.
pub(crate) async fn create(
    docker: &Docker,
    id: &str,
    command: Vec<String>,
    options: CommandOptions,
) -> Result<String, Error> {
    let config = ExecConfig {
        attach_stdin: Some(options.stdin),
        attach_stdout: Some(options.stdout),
        attach_stderr: Some(options.stderr && !options.tty),
        tty: Some(options.tty),
        detach_keys: Some(DETACH_KEYS.to_owned()),
        cmd: Some(command),
        ..ExecConfig::default()
    };
    let created = docker.call(CALL_TIMEOUT, docker.client().create_exec(id, config)).await?;
    Ok(created.id)
}

/// Starts a prepared command and answers the connection to it.
pub(crate) async fn start(
    docker: &Docker,
    exec: &str,
    tty: bool,
) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>, Error> {
    let body = json!({ "Detach": false, "Tty": tty }).to_string();
    docker.transport().hijack(&format!("/exec/{exec}/start"), body.into()).await.map_err(|error| match error {
        Error::Invalid(message) => Error::Other(message),
        error => error,
    })
}

/// The exit code of a command whose outputs are closed.
pub(crate) async fn exit_code(docker: &Docker, exec: &str) -> Result<i32, Error> {
    for _ in 0..RETRIES {
        let found = docker.call(CALL_TIMEOUT, docker.client().inspect_exec(exec)).await?;
        match found.exit_code {
            Some(code) if found.running != Some(true) => {
                return Ok(i32::try_from(code).unwrap_or(-1));
            }
            // Closing its outputs is not yet the end.
            _ => tokio::time::sleep(RETRY_PAUSE).await,
        }
    }
    Err(Error::Other("the command closed its outputs but goes on".to_owned()))
}

/// Docker cannot end a command by its id. Its process can be killed when it is on this machine.
async fn kill(docker: &Docker, container: &str, exec: &str) {
    let found = docker.call(CALL_TIMEOUT, docker.client().inspect_exec(exec)).await;
    let pid = match found {
        Ok(found) if found.running == Some(true) => found.pid,
        _ => None,
    };
    if let Some(pid) = pid
        && let Err(error) = host::kill_in(container, pid)
    {
        tracing::debug!(%error, container, "cannot kill a command that timed out");
    }
}

/// Copies between the connection and the caller's streams until either leaves.
pub(crate) async fn relay<F: Future<Output = ()>>(
    reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    tty: bool,
    streams: Streams,
    resize: impl Fn(TerminalSize) -> F,
) -> io::Result<End> {
    let Streams { stdin, stdout, stderr, resize: mut sizes } = streams;
    let input = async {
        if let Some(mut stdin) = stdin {
            while let Some(data) = stdin.recv().await {
                // An error here is the command not reading any more; what it says is still wanted.
                if writer.write_all(&data).await.is_err() || writer.flush().await.is_err() {
                    break;
                }
            }
            // End of file for the command. That it is gone already is no matter.
            let _ = writer.shutdown().await;
        }
        std::future::pending::<Infallible>().await
    };
    let terminal = async {
        while let Some(size) = sizes.recv().await {
            resize(size).await;
        }
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        end = output(reader, tty, stdout.clone(), stderr.clone()) => end,
        () = left(stdout.clone().or(stderr.clone())) => Ok(End::CallerLeft),
        never = input => match never {},
        never = terminal => match never {},
    }
}

async fn output(
    mut reader: impl AsyncRead + Unpin,
    tty: bool,
    stdout: Option<mpsc::Sender<Bytes>>,
    stderr: Option<mpsc::Sender<Bytes>>,
) -> io::Result<End> {
    if tty {
        let mut buffer = BytesMut::with_capacity(16 * 1024);
        while reader.read_buf(&mut buffer).await? > 0 {
            if !send(stdout.as_ref(), buffer.split().freeze()).await {
                return Ok(End::CallerLeft);
            }
            buffer.reserve(4 * 1024);
        }
        return Ok(End::Finished);
    }
    let mut frames = FramedRead::new(reader, StdcopyDecoder);
    while let Some(frame) = frames.next().await {
        let (source, data) = frame?;
        let to = match source {
            Source::Stdout => stdout.as_ref(),
            Source::Stderr => stderr.as_ref(),
        };
        if !send(to, data).await {
            return Ok(End::CallerLeft);
        }
    }
    Ok(End::Finished)
}

/// Whether somebody still wants it. What nobody asked for is dropped.
async fn send(to: Option<&mpsc::Sender<Bytes>>, data: Bytes) -> bool {
    match to {
        Some(to) => to.send(data).await.is_ok(),
        None => true,
    }
}

async fn left(caller: Option<mpsc::Sender<Bytes>>) {
    match caller {
        Some(caller) => caller.closed().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Caller {
        stdin: Option<mpsc::Sender<Bytes>>,
        stdout: mpsc::Receiver<Bytes>,
        stderr: mpsc::Receiver<Bytes>,
        sizes: mpsc::Sender<TerminalSize>,
    }

    fn pair() -> (Streams, Caller) {
        let (stdin, stdin_end) = mpsc::channel(4);
        let (stdout, stdout_end) = mpsc::channel(4);
        let (stderr, stderr_end) = mpsc::channel(4);
        let (sizes, sizes_end) = mpsc::channel(4);
        let streams = Streams { stdin: Some(stdin_end), stdout: Some(stdout), stderr: Some(stderr), resize: sizes_end };
        let caller = Caller { stdin: Some(stdin), stdout: stdout_end, stderr: stderr_end, sizes };
        (streams, caller)
    }

    #[tokio::test]
    async fn both_outputs_and_the_input_are_relayed() {
        let (streams, mut caller) = pair();
        let (near, mut far) = tokio::io::duplex(1024);
        let (reader, writer) = tokio::io::split(near);
        let relay = tokio::spawn(relay(reader, writer, false, streams, async |_| {}));
        caller.stdin.take().unwrap().send("typed".into()).await.unwrap();
        let mut typed = String::new();
        // The sender is gone, so this sees the end of file that follows.
        far.read_to_string(&mut typed).await.unwrap();
        assert_eq!(typed, "typed");
        far.write_all(b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x03err").await.unwrap();
        assert_eq!(caller.stdout.recv().await.unwrap(), "out");
        assert_eq!(caller.stderr.recv().await.unwrap(), "err");
        drop(far);
        assert_eq!(relay.await.unwrap().unwrap(), End::Finished);
    }

    #[tokio::test]
    async fn a_terminal_is_raw_and_has_sizes() {
        let (streams, mut caller) = pair();
        let (near, mut far) = tokio::io::duplex(1024);
        let (seen, mut sizes) = mpsc::channel(1);
        let (reader, writer) = tokio::io::split(near);
        let relay = tokio::spawn(relay(reader, writer, true, streams, move |size: TerminalSize| {
            let seen = seen.clone();
            async move { seen.send(size).await.unwrap() }
        }));
        let size = TerminalSize { width: 80, height: 24 };
        caller.sizes.send(size).await.unwrap();
        assert_eq!(sizes.recv().await, Some(size));
        // Looks like a frame's header, but is what the program printed.
        far.write_all(b"\x01\0\0\0\0\0\0\x09").await.unwrap();
        assert_eq!(&caller.stdout.recv().await.unwrap()[..], b"\x01\0\0\0\0\0\0\x09");
        drop(caller.stdout);
        assert_eq!(relay.await.unwrap().unwrap(), End::CallerLeft);
    }
}
