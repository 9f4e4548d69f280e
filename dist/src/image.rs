//! An image with the program and the libraries it is linked to: a layout of OCI (image-spec, `image-layout.md`) in a tar
//! archive, which also has the manifest that `docker load` of releases before 25 wants.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::archive::{File, gzip, tar};
use crate::{ABOUT, Release, hash};

/// The media types of image-spec.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The libraries that a program of this machine is linked to, dynamic linker included, at the places where it looks.
pub(crate) fn libraries(program: &Path) -> Result<Vec<File>> {
    let output = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || text.contains("not found") {
        bail!("ldd cannot find the libraries of {}", program.display());
    }
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    let file = |path: &str| {
        let content = fs::read(path).with_context(|| format!("cannot read {path}"))?;
        Ok(File::program(path.trim_start_matches('/'), content))
    };
    paths.map(file).collect()
}

/// The image, called `coracle:VERSION`.
pub(crate) fn image(release: &Release, libraries: &[File]) -> Result<Vec<u8>> {
    let mut files = vec![File::program("usr/bin/coracle", release.program.clone())];
    files.extend(libraries.iter().cloned());
    for name in ["LICENSE", "THIRD-PARTY.txt"] {
        let of = release.of(name).next().with_context(|| format!("the release has no {name}"))?;
        files.push(File { path: format!("usr/share/doc/coracle/{name}"), ..of.clone() });
    }
    let layer = tar("", &files, release.time)?;
    let compressed = gzip(&layer, release.compression)?;
    let name = format!("coracle:{}", release.version);
    let config = json!({
        "architecture": release.needs.arch.short(),
        "os": "linux",
        "created": release.date()?,
        "config": {
            "Entrypoint": ["/usr/bin/coracle"],
            "Env": ["PATH=/usr/bin"],
            "Labels": {
                "org.opencontainers.image.title": "coracle",
                "org.opencontainers.image.description": ABOUT,
                "org.opencontainers.image.licenses": "Apache-2.0",
                "org.opencontainers.image.version": release.version,
            },
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hash(&layer))] },
        "history": [{ "created": release.date()?, "created_by": "cargo xtask dist" }],
    });
    let mut blobs = Vec::new();
    let mut blob = |kind: &str, content: Vec<u8>| {
        let digest = hash(&content);
        let descriptor = json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": content.len() });
        blobs.push(File::new(format!("blobs/sha256/{digest}"), content));
        descriptor
    };
    let layer = blob(LAYER, compressed);
    let config = blob(CONFIG, serde_json::to_vec(&config)?);
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
    let mut manifest = blob(MANIFEST, serde_json::to_vec(&manifest)?);
    manifest["annotations"] = json!({
        "io.containerd.image.name": format!("docker.io/library/{name}"),
        "org.opencontainers.image.ref.name": release.version,
    });
    manifest["platform"] = json!({ "architecture": release.needs.arch.short(), "os": "linux" });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest] });
    let path =
        |descriptor: &Value| format!("blobs/{}", descriptor["digest"].as_str().unwrap_or_default()).replace(':', "/");
    let loaded = json!([{ "Config": path(&config), "RepoTags": [name], "Layers": [path(&layer)] }]);
    blobs.push(File::new("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#));
    blobs.push(File::new("index.json", serde_json::to_vec(&index)?));
    blobs.push(File::new("manifest.json", serde_json::to_vec(&loaded)?));
    tar("", &blobs, release.time)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::*;
    use crate::testing::release;

    #[test]
    fn each_blob_is_what_its_name_says() {
        let release = release();
        let image = image(&release, &[]).expect("an image");
        assert!(image == super::image(&release, &[]).expect("an image"), "byte for byte");
        let mut archive = tar::Archive::new(&image[..]);
        let mut files = BTreeMap::new();
        for entry in archive.entries().expect("entries") {
            let mut entry = entry.expect("an entry");
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            files.insert(entry.path().expect("a path").display().to_string(), content);
        }
        for (path, content) in &files {
            if let Some(digest) = path.strip_prefix("blobs/sha256/").filter(|name| !name.is_empty()) {
                assert_eq!(digest, hash(content), "{path}");
            }
        }
        let json = |path: &str| -> Value { serde_json::from_slice(&files[path]).expect("JSON") };
        let blob = |descriptor: &Value| {
            let path = format!("blobs/{}", descriptor["digest"].as_str().expect("a digest").replace(':', "/"));
            assert_eq!(descriptor["size"], files[&path].len(), "{path}");
            path
        };
        let manifest = json(&blob(&json("index.json")["manifests"][0]));
        let config = json(&blob(&manifest["config"]));
        let layer = blob(&manifest["layers"][0]);
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&files[&layer][..]).read_to_end(&mut unpacked).expect("gzip");
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", hash(&unpacked)));
        assert_eq!(json("manifest.json")[0]["Layers"][0], layer);
        assert_eq!(json("manifest.json")[0]["RepoTags"][0], "coracle:1.2.3");
        assert_eq!(config["created"], "2023-11-14T22:13:20Z");
    }
}
