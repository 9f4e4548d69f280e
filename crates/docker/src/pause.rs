//! The image of the sandboxes: the pause program and nothing else, packed here, so that no registry is needed.

use std::io;
use std::sync::OnceLock;

use bollard::body_full;
use bollard::query_parameters::ImportImageOptionsBuilder;
use bytes::Bytes;
use futures::TryStreamExt;
use runtime::Error;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{CALL_TIMEOUT, Docker};

/// The program, compiled by `build.rs`.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// Where it is in the image.
pub(crate) const PATH: &str = "/pause";

/// Its argument to leave the network it is started in for one of its own.
pub(crate) const ISOLATE: &str = "isolate";

/// Its argument to become another program, below another root.
pub(crate) const CHROOT: &str = "chroot";

/// Name of the image: its tag is the hash of its content, so another version of the program is another image.
pub(crate) fn image() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("coracle/pause:{}", &hash(PROGRAM)[..12]))
}

/// Loads the image, if the daemon does not have it.
pub(crate) async fn ensure(docker: &Docker) -> Result<(), Error> {
    match docker.call(CALL_TIMEOUT, docker.client().inspect_image(image())).await {
        Ok(_) => Ok(()),
        Err(Error::NotFound(_) | Error::ImageNotFound { .. }) => load(docker).await,
        Err(error) => Err(error),
    }
}

async fn load(docker: &Docker) -> Result<(), Error> {
    let archive = archive().map_err(|error| Error::Other(error.to_string()))?;
    let options = ImportImageOptionsBuilder::new().quiet(true).build();
    let load = docker.client().import_image(options, body_full(archive.into()), None);
    docker.call(CALL_TIMEOUT, load.try_collect::<Vec<_>>()).await?;
    tracing::debug!(image = image(), "loaded the pause image");
    Ok(())
}

/// The image as `docker save` would write it. The same bytes every time, so the same image id.
fn archive() -> io::Result<Vec<u8>> {
    let layer = tar(&[(PATH.trim_start_matches('/'), PROGRAM, 0o555)])?;
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": { "Entrypoint": [PATH], "StopSignal": "SIGTERM", "User": "65535:65535" },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hash(&layer))] },
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "coracle" }],
    })
    .to_string();
    let config_name = format!("{}.json", hash(config.as_bytes()));
    let manifest = json!([{
        "Config": config_name,
        "RepoTags": [image()],
        "Layers": ["layer.tar"],
    }])
    .to_string();
    tar(&[
        ("layer.tar", &layer, 0o644),
        (&config_name, config.as_bytes(), 0o644),
        ("manifest.json", manifest.as_bytes(), 0o644),
    ])
}

fn tar(files: &[(&str, &[u8], u32)]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content, mode) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(0);
        header.set_cksum();
        archive.append_data(&mut header, path, Bytes::copy_from_slice(content).as_ref())?;
    }
    archive.into_inner()
}

fn hash(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_tiny_and_always_the_same() {
        let archive = archive().unwrap();
        assert!(archive.len() < 32 * 1024, "{} bytes", archive.len());
        assert_eq!(archive, super::archive().unwrap());
        assert_eq!(&PROGRAM[..4], b"\x7fELF");
    }
}
