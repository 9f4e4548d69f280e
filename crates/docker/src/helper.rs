//! The helper: a container that changes the machine's network where this process may not.
//!
//! Whoever may use Docker may have a container in the machine's network with the capability for it. The helper is one of
//! the pause image, with nothing beyond `CAP_NET_ADMIN` and what it takes to run the machine's own `nft` and `ip`, from the
//! machine's root file system, mounted read-only. It runs while the cluster does, is made again when somebody removed it
//! or Docker was restarted, and what it did to the network does not depend on it.

use std::io;
use std::path::Path;
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountBindOptions, MountType};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use runtime::{Error, labels};
use streaming::CommandOptions;
use tokio::io::AsyncWriteExt;
use tokio_util::codec::FramedRead;

use crate::stdcopy::{Source, StdcopyDecoder};
use crate::{Docker, exec, network_name, pause};

/// Where the machine's root file system is in the helper.
const ROOT: &str = "/host";
/// Where the machine's programs for its network are looked for.
const FOLDERS: [&str; 5] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/run/current-system/sw/bin"];
/// How long a program may take.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(60);
/// Most of what a program says that is kept, in bytes.
const LIMIT: usize = 16 * 1024;
/// Most processes in the helper.
const PROCESSES: i64 = 64;
/// The pause program's exit code where there is no such program.
const NO_SUCH_PROGRAM: i32 = 127;

/// How a program in the helper ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelperOutput {
    /// Its exit code.
    pub exit_code: i32,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Docker {
    /// Runs one of the machine's programs (`nft`, `ip`) in the machine's network with the right to change it.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the machine has no such program; others when there can be no helper.
    pub async fn run_in_helper(&self, program: &str, arguments: &[&str], input: &str) -> Result<HelperOutput, Error> {
        let mut paths = FOLDERS.iter().map(|folder| Path::new(folder).join(program));
        let path = paths.find(|path| path.exists());
        let missing = || Error::NotFound(format!("the program {program} is missing"));
        let path = path.ok_or_else(missing)?;
        let path = path.to_string_lossy();
        let command: Vec<String> = [pause::PATH, pause::CHROOT, ROOT, &*path]
            .iter()
            .chain(arguments)
            .map(|&argument| argument.to_owned())
            .collect();
        let id = self.helper().await?;
        let ran = match self.run_in(&id, command.clone(), input).await {
            // It was removed, or ended with Docker.
            Err(Error::NotFound(_) | Error::Conflict(_)) => {
                self.forget_helper(&id).await;
                let id = self.helper().await?;
                self.run_in(&id, command, input).await
            }
            result => result,
        };
        match ran? {
            // The machine whose Docker this is has no such program.
            HelperOutput { exit_code: NO_SUCH_PROGRAM, .. } => Err(missing()),
            output => Ok(output),
        }
    }

    /// Removes the helper, there or not. What it did stays.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when Docker cannot be reached.
    pub async fn remove_helper(&self) -> Result<(), Error> {
        let mut known = self.0.daemon.helper.lock().await;
        *known = None;
        self.remove_helpers().await
    }

    /// The id of the helper, which is made if it does not run.
    async fn helper(&self) -> Result<String, Error> {
        // Held while it is made: several callers want one helper.
        let mut known = self.0.daemon.helper.lock().await;
        if let Some(id) = &*known {
            return Ok(id.clone());
        }
        self.remove_helpers().await?;
        pause::ensure(self).await?;
        let id = self.create(&format!("{}-helper", network_name(self.profile())), &self.helper_body()).await?;
        if let Err(failure) = self.start(&id).await {
            if let Err(error) = self.remove(&id).await {
                tracing::warn!(%error, "cannot remove a helper that did not start");
            }
            return Err(failure);
        }
        *known = Some(id.clone());
        Ok(id)
    }

    async fn forget_helper(&self, id: &str) {
        let mut known = self.0.daemon.helper.lock().await;
        if known.as_deref() == Some(id) {
            *known = None;
        }
    }

    async fn remove_helpers(&self) -> Result<(), Error> {
        let label = format!("{}={}", labels::HELPER, self.profile());
        let mut found = self.list(vec![label]).await?;
        // A pod may have any label of its own, but what belongs to pods has that of a profile.
        found.retain(|found| found.labels.as_ref().is_none_or(|all| !all.contains_key(labels::PROFILE)));
        self.remove_all(found).await
    }

    fn helper_body(&self) -> ContainerCreateBody {
        let host = HostConfig {
            network_mode: Some("host".to_owned()),
            // A daemon that gives containers other user ids has the machine's network for none of them.
            userns_mode: Some("host".to_owned()),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(["NET_ADMIN", "SYS_CHROOT"].map(str::to_owned).to_vec()),
            // SELinux would keep the machine's programs from it.
            security_opt: Some(["no-new-privileges", "label=disable"].map(str::to_owned).to_vec()),
            mounts: Some(vec![Mount {
                typ: Some(MountType::BIND),
                source: Some("/".to_owned()),
                target: Some(ROOT.to_owned()),
                read_only: Some(true),
                // Without what is mounted below: a file system that is unmounted must not stay in use here.
                bind_options: Some(MountBindOptions { non_recursive: Some(true), ..MountBindOptions::default() }),
                ..Mount::default()
            }]),
            readonly_rootfs: Some(true),
            pids_limit: Some(PROCESSES),
            init: Some(false),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            ..HostConfig::default()
        };
        ContainerCreateBody {
            image: Some(pause::image().to_owned()),
            user: Some("0:0".to_owned()),
            labels: Some([(labels::HELPER.to_owned(), self.profile().to_owned())].into()),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        }
    }

    async fn run_in(&self, id: &str, command: Vec<String>, input: &str) -> Result<HelperOutput, Error> {
        let failed = |error: io::Error| Error::Other(format!("lost the connection to the helper: {error}"));
        let options = CommandOptions { stdin: true, stdout: true, stderr: true, tty: false };
        let exec = exec::create(self, id, command, options).await?;
        let run = async {
            let (reader, mut writer) = tokio::io::split(exec::start(self, &exec, false).await?);
            let write = async {
                // When the program ends early, its exit code tells more than this error.
                if writer.write_all(input.as_bytes()).await.is_ok() {
                    let _ = writer.shutdown().await;
                }
            };
            let read = async {
                let mut frames = FramedRead::new(reader, StdcopyDecoder);
                let mut stderr = BytesMut::new();
                while let Some(frame) = frames.next().await {
                    let (source, data): (Source, Bytes) = frame?;
                    if matches!(source, Source::Stderr) {
                        let room = LIMIT - stderr.len();
                        stderr.extend_from_slice(&data[..data.len().min(room)]);
                    }
                }
                Ok::<_, io::Error>(stderr)
            };
            let ((), stderr) = tokio::join!(write, read);
            let stderr = String::from_utf8_lossy(&stderr.map_err(failed)?).trim().to_owned();
            Ok(HelperOutput { exit_code: exec::exit_code(self, &exec).await?, stderr })
        };
        match tokio::time::timeout(PROGRAM_TIMEOUT, run).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout(format!("the helper did not end within {} s", PROGRAM_TIMEOUT.as_secs()))),
        }
    }
}
