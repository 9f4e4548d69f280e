//! Port-forward: a connection to a port as seen inside a sandbox, so that what listens on the pod's loopback only is
//! reached, too, and sees its peer there.
//!
//! On the daemon's own machine and with the privilege, the connection is made in the sandbox's network namespace
//! directly. Everywhere else the pause program makes it, run by an exec in the sandbox.

use std::io;

use futures::StreamExt;
use runtime::Error;
use streaming::{CommandOptions, Duplex};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::codec::FramedRead;

use crate::stdcopy::{Source, StdcopyDecoder};
use crate::{CALL_TIMEOUT, Docker, exec, host, pause};

/// Connects `io` to the port until either side closes.
pub(crate) async fn forward(docker: &Docker, sandbox: &str, port: u16, io: Box<dyn Duplex>) -> Result<(), Error> {
    let found = docker.call(CALL_TIMEOUT, docker.client().inspect_container(sandbox, None)).await?;
    let pid = found.state.and_then(|state| state.pid).unwrap_or_default();
    let id = found.id.unwrap_or_default();
    match host::connect_in(&id, pid, port).await {
        Ok(Ok(stream)) => {
            let stream = TcpStream::from_std(stream).map_err(|error| failed(port, &error))?;
            direct(stream, io).await.map_err(|error| failed(port, &error))
        }
        Ok(Err(error)) => Err(failed(port, &error)),
        Err(reason) => {
            tracing::debug!(%reason, sandbox, "cannot enter the sandbox's network: forwarding through an exec");
            through_exec(docker, sandbox, port, io).await
        }
    }
}

fn failed(port: u16, error: &io::Error) -> Error {
    Error::Other(format!("failed to connect to localhost:{port} inside the pod: {error}"))
}

/// The far end decides when it is over: the near end may have sent all it wants long before it got the answer.
async fn direct(stream: TcpStream, io: Box<dyn Duplex>) -> io::Result<()> {
    let (mut near_read, mut near_write) = tokio::io::split(io);
    let (mut far_read, mut far_write) = stream.into_split();
    let up = async {
        tokio::io::copy(&mut near_read, &mut far_write).await?;
        far_write.shutdown().await?;
        std::future::pending().await
    };
    let down = async {
        tokio::io::copy(&mut far_read, &mut near_write).await?;
        near_write.shutdown().await
    };
    tokio::select! { result = up => result, result = down => result }
}

async fn through_exec(docker: &Docker, sandbox: &str, port: u16, io: Box<dyn Duplex>) -> Result<(), Error> {
    let options = CommandOptions { stdin: true, stdout: true, stderr: true, tty: false };
    let command = [pause::PATH.to_owned(), "forward".to_owned(), port.to_string()];
    let exec = exec::create(docker, sandbox, command.to_vec(), options).await?;
    let stream = exec::start(docker, &exec, false).await?;
    let (far_read, mut far_write) = tokio::io::split(stream);
    let (mut near_read, mut near_write) = tokio::io::split(io);
    let up = async {
        tokio::io::copy(&mut near_read, &mut far_write).await?;
        far_write.shutdown().await?;
        std::future::pending().await
    };
    let mut complaint = Vec::new();
    let down = copy_frames(FramedRead::new(far_read, StdcopyDecoder), &mut near_write, &mut complaint);
    let result = tokio::select! { result = up => result, result = down => result };
    if !complaint.is_empty() {
        let text = String::from_utf8_lossy(&complaint).trim().to_owned();
        return Err(failed(port, &io::Error::other(text)));
    }
    result.map_err(|error| failed(port, &error))
}

async fn copy_frames(
    mut frames: FramedRead<impl AsyncReadExt + Unpin, StdcopyDecoder>,
    to: &mut (impl AsyncWrite + Unpin),
    complaint: &mut Vec<u8>,
) -> io::Result<()> {
    while let Some(frame) = frames.next().await {
        match frame? {
            (Source::Stdout, data) => {
                to.write_all(&data).await?;
                to.flush().await?;
            }
            (Source::Stderr, data) => complaint.extend_from_slice(&data),
        }
    }
    to.shutdown().await
}
