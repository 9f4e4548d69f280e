//! The images that the examples and tests run.
//!
//! They are pulled where a registry is in reach. Where none is, they are built from the distribution's own packages and
//! carry the label [`BUILT`]: a real nginx, though not the one that the registry has under that name.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::steps::{self, cache, output, root, say, step};

/// The label of images that were built here, with the name of the image they stand for.
const BUILT: &str = "io.coracle.stands-for";

/// The images of `examples/nginx` and of the walkthrough.
const NGINX: [&str; 2] = ["nginx:latest", "nginx:1.21.0"];

/// The tests' own small image: a shell and the usual tools. Never pulled.
const BUSYBOX: &str = "coracle.test/busybox:1";

/// The image of `examples/redis`. Never pulled.
const REDIS: &str = "coracle.test/redis:1";

/// The server of `examples/llm-autoscale`, and its source.
const LLM: (&str, &str) = ("coracle.example/llm-autoscale:1", "examples/llm-autoscale/src/main.rs");

/// What goes into the nginx image. Their dependencies come by themselves.
const NGINX_PACKAGES: [&str; 10] =
    ["nginx-light", "bash", "coreutils", "tar", "curl", "grep", "sed", "procps", "netbase", "base-files"];

/// What goes into the redis image. The server is in this package, under another of its names; the one called after it
/// brings nothing but what a distribution wants beside a server.
const REDIS_PACKAGES: [&str; 1] = ["redis-tools"];

/// Makes sure that the images of `examples/nginx` exist: all that the demo needs.
pub(crate) fn ensure_nginx() -> Result<()> {
    for image in NGINX {
        if exists(image) {
            continue;
        }
        let pulled = step(&format!("Pull {image}"), || output("docker", &["pull", "--quiet", image]));
        if pulled.is_err() {
            say(format!("  no registry has {image} for us; building it from this distribution's packages"));
            step(&format!("Build {image}"), || nginx(image))?;
        }
    }
    Ok(())
}

/// Makes sure that every image exists. Those of the tests take a static busybox ([`static_busybox`]).
pub(crate) fn ensure() -> Result<()> {
    ensure_nginx()?;
    if !exists(BUSYBOX) {
        step(&format!("Build {BUSYBOX}"), busybox)?;
    }
    if !exists(REDIS) {
        step(&format!("Build {REDIS}"), redis)?;
    }
    if !exists(LLM.0) {
        step(&format!("Build {}", LLM.0), llm)?;
    }
    Ok(())
}

/// A busybox of this machine that runs in an image without libraries: one that names no dynamic linker.
pub(crate) fn static_busybox() -> Option<PathBuf> {
    let is_static = |path: &PathBuf| {
        let program = fs::read(path).unwrap_or_default();
        let names = |linker: &[u8]| program.windows(linker.len()).any(|window| window == linker);
        !program.is_empty() && !names(b"/ld-linux") && !names(b"/ld-musl")
    };
    steps::find("busybox").into_iter().chain([PathBuf::from("/bin/busybox")]).find(is_static)
}

fn exists(image: &str) -> bool {
    output("docker", &["image", "inspect", "--format", "{{.Id}}", image]).is_ok()
}

/// Builds an nginx image from the distribution's packages and calls it `image`.
fn nginx(image: &str) -> Result<()> {
    let root = unpacked("nginx", &NGINX_PACKAGES, "usr/sbin/nginx", finish_nginx)?;
    // Two images of the same content would be one image with two names, and an update from one to the other no change.
    fs::write(root.join("etc/image-reference"), format!("{image}\n"))?;
    import(
        &root,
        image,
        &[
            "CMD [\"nginx\", \"-g\", \"daemon off;\"]",
            "EXPOSE 80",
            "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ],
    )
}

/// A redis, and a shell to start it by.
fn redis() -> Result<()> {
    let root = unpacked("redis", &REDIS_PACKAGES, "usr/bin/redis-server", finish_redis)?;
    import(&root, REDIS, &["CMD [\"redis-server\"]", "EXPOSE 6379", "WORKDIR /data", "ENV PATH=/usr/bin:/bin"])
}

/// The file system of an image, unpacked once and kept: it is complete when `marker` is there, which `finish` sees to.
fn unpacked(name: &str, packages: &[&str], marker: &str, finish: fn(&Path) -> Result<()>) -> Result<PathBuf> {
    let folder = cache()?.join("images").join(name);
    let root = folder.join("root");
    if root.join(marker).exists() {
        return Ok(root);
    }
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    let archives = folder.join("archives");
    fs::create_dir_all(archives.join("partial"))?;
    let status = folder.join("status");
    // To apt it looks like a machine on which nothing is installed: all dependencies are downloaded.
    fs::write(&status, "")?;
    let status = format!("Dir::State::status={}", status.display());
    let cache = format!("Dir::Cache::archives={}", archives.display());
    let mut arguments =
        vec!["install", "--yes", "-qq", "--no-install-recommends", "--download-only", "-o", &status, "-o", &cache];
    arguments.extend(packages);
    // A new machine has no lists of packages, or old ones.
    output("apt-get", &["update", "-qq"])?;
    output("apt-get", &arguments)?;

    for folder in ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "tmp", "run", "proc", "sys", "dev", "root"] {
        fs::create_dir_all(root.join(folder))?;
    }
    for folder in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{folder}"), root.join(folder))?;
    }
    for entry in fs::read_dir(&archives)?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "deb") {
            unpack(&entry.path(), &root)?;
        }
    }
    finish(&root)?;
    Ok(root)
}

/// What the packages' own scripts would have done, as far as redis needs it.
fn finish_redis(root: &Path) -> Result<()> {
    shell(root)?;
    fs::create_dir_all(root.join("data"))?;
    fs::create_dir_all(root.join("etc"))?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    symlink("redis-check-rdb", root.join("usr/bin/redis-server"))?;
    Ok(())
}

/// What the packages' own scripts would have done, as far as nginx and a shell need it.
fn finish_nginx(root: &Path) -> Result<()> {
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    )?;
    fs::write(root.join("etc/group"), "root:x:0:\nadm:x:4:\nwww-data:x:33:\nnogroup:x:65534:\n")?;
    let shell = root.join("usr/bin/sh");
    if !shell.exists() {
        symlink("bash", shell)?;
    }
    fs::create_dir_all(root.join("var/log/nginx"))?;
    fs::create_dir_all(root.join("var/lib/nginx"))?;
    for (log, stream) in [("access.log", "/dev/stdout"), ("error.log", "/dev/stderr")] {
        let log = root.join("var/log/nginx").join(log);
        if fs::symlink_metadata(&log).is_err() {
            symlink(stream, log)?;
        }
    }
    // As the official image has it, and as exec and probes of examples expect it.
    let page = "<!DOCTYPE html>\n<html>\n<head><title>Welcome to nginx!</title></head>\n<body>\n<h1>Welcome to nginx!</h1>\n</body>\n</html>\n";
    let pages = root.join("usr/share/nginx/html");
    fs::create_dir_all(&pages)?;
    fs::write(pages.join("index.html"), page)?;
    let sites = root.join("etc/nginx/sites-enabled");
    if sites.exists() {
        fs::remove_dir_all(&sites)?;
    }
    fs::create_dir_all(root.join("etc/nginx/conf.d"))?;
    fs::write(
        root.join("etc/nginx/conf.d/default.conf"),
        "server {\n    listen 80;\n    server_name localhost;\n    location / {\n        root /usr/share/nginx/html;\n        index index.html;\n    }\n}\n",
    )?;
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    Ok(())
}

/// Unpacks a Debian package, keeping the links that merge `/bin` and its like into `/usr`.
fn unpack(package: &Path, root: &Path) -> Result<()> {
    let mut archive = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(package).stdout(Stdio::piped()).spawn()?;
    let stream = archive.stdout.take().context("dpkg-deb has a pipe")?;
    let unpacked =
        Command::new("tar").args(["-x", "--keep-directory-symlink", "-C"]).arg(root).stdin(stream).status()?;
    if !(archive.wait()?.success() && unpacked.success()) {
        bail!("cannot unpack {}", package.display());
    }
    Ok(())
}

/// A shell and the usual tools in one static program.
fn busybox() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for folder_name in ["bin", "tmp", "proc", "sys", "dev", "etc", "root"] {
        fs::create_dir_all(folder.path().join(folder_name))?;
    }
    shell(folder.path())?;
    fs::write(
        folder.path().join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    fs::write(folder.path().join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    import(folder.path(), BUSYBOX, &["CMD [\"sh\"]", "ENV PATH=/bin"])
}

/// Puts a shell and the usual tools into `root`, where nothing else has their names.
fn shell(root: &Path) -> Result<()> {
    let bin = root.join("bin");
    let busybox =
        static_busybox().context("there is no static busybox; install it (Debian's package busybox-static)")?;
    fs::copy(&busybox, bin.join("busybox"))?;
    for applet in output(&busybox.to_string_lossy(), &["--list"])?.lines() {
        let link = bin.join(applet);
        if applet != "busybox" && fs::symlink_metadata(&link).is_err() {
            symlink("busybox", link)?;
        }
    }
    Ok(())
}

/// One static program, and nothing else.
fn llm() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("server");
    let source = root().join(LLM.1);
    let status = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args([
            "--edition",
            "2024",
            "-C",
            "opt-level=2",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "strip=symbols",
            "-o",
        ])
        .arg(&program)
        .arg(source)
        .status()?;
    if !status.success() {
        bail!("cannot compile {}", LLM.1);
    }
    import(folder.path(), LLM.0, &["CMD [\"/server\"]", "EXPOSE 8080"])
}

/// Makes an image of the folder `root`.
fn import(root: &Path, image: &str, changes: &[&str]) -> Result<()> {
    let label = format!("LABEL {BUILT}={image}");
    let mut command = Command::new("docker");
    command.arg("import");
    for change in changes.iter().copied().chain([label.as_str()]) {
        command.args(["--change", change]);
    }
    let mut docker = command.args(["-", image]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let mut stdin = docker.stdin.take().context("docker has a pipe")?;
    let mut tar = Command::new("tar")
        .args(["-c", "--numeric-owner", "--owner=0", "--group=0", "-C"])
        .arg(root)
        .arg(".")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut archive = tar.stdout.take().context("tar has a pipe")?;
    std::io::copy(&mut archive, &mut stdin)?;
    stdin.flush()?;
    drop(stdin);
    if !(tar.wait()?.success() && docker.wait()?.success()) {
        bail!("cannot import {image}");
    }
    Ok(())
}
