//! Running `nft`.

use std::io;
use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Why a transaction did not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// This machine cannot do it at all: the program or the privilege is missing. The text says what to do.
    Unavailable(String),
    /// This transaction was refused.
    Refused(String),
}

/// Not everybody's search path has the second one.
const PROGRAMS: [&str; 2] = ["nft", "/usr/sbin/nft"];

/// Runs a transaction: all of it or nothing.
pub(crate) async fn run(script: &str) -> Result<(), Failure> {
    judge(call(&["-f", "-"], script).await)
}

/// Whether a table is there.
pub(crate) async fn has(table: &str, chain: &str) -> bool {
    judge(call(&["list", "chain", "ip", table, chain], "").await).is_ok()
}

fn judge(output: io::Result<Output>) -> Result<(), Failure> {
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if message.contains("Operation not permitted") {
                return Err(Failure::Unavailable("this needs root (CAP_NET_ADMIN)".to_owned()));
            }
            Err(Failure::Refused(message))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Failure::Unavailable("the program nft is missing: install the package nftables".to_owned()))
        }
        Err(error) => Err(Failure::Refused(error.to_string())),
    }
}

async fn call(arguments: &[&str], input: &str) -> io::Result<Output> {
    let mut missing = io::Error::from(io::ErrorKind::NotFound);
    for program in PROGRAMS {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        match child {
            Ok(mut child) => {
                if let Some(mut stdin) = child.stdin.take() {
                    // When it ends early, its exit status tells more than this error.
                    let _ = stdin.write_all(input.as_bytes()).await;
                }
                return child.wait_with_output().await;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing = error,
            Err(error) => return Err(error),
        }
    }
    Err(missing)
}
