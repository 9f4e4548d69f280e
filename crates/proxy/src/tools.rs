//! The programs that change the machine's network, `nft` and `ip`, and who runs them.

use std::fmt::Debug;
use std::io;
use std::process::Stdio;

use async_trait::async_trait;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Runs programs that change the machine's network. [`LocalTools`] does it where this process has the privilege.
#[async_trait]
pub trait NetworkTools: Debug + Send + Sync {
    /// Runs a program with this standard input to its end.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when there is no such program, [`io::ErrorKind::PermissionDenied`] when nothing can be run
    /// with the privilege that it takes.
    async fn run(&self, program: &str, arguments: &[&str], input: &str) -> io::Result<ToolOutput>;
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOutput {
    /// Whether it succeeded.
    pub success: bool,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// Runs them as this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalTools;

/// Not everybody's search path has the second one.
const FOLDERS: [&str; 2] = ["", "/usr/sbin/"];

#[async_trait]
impl NetworkTools for LocalTools {
    async fn run(&self, program: &str, arguments: &[&str], input: &str) -> io::Result<ToolOutput> {
        let mut missing = io::Error::from(io::ErrorKind::NotFound);
        for folder in FOLDERS {
            let child = Command::new(format!("{folder}{program}"))
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
                    let output = child.wait_with_output().await?;
                    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                    return Ok(ToolOutput { success: output.status.success(), stderr });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing = error,
                Err(error) => return Err(error),
            }
        }
        Err(missing)
    }
}
