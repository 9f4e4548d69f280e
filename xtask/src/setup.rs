//! What the machine must have: installed here where that is possible, named in one line where it is not.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::images;
use crate::steps::{has, output, run_command, step};

/// A thing that must be there, how to tell, and the Debian packages that bring it.
struct Need {
    what: &'static str,
    present: fn() -> bool,
    packages: &'static [&'static str],
}

const NEEDS: &[Need] = &[
    Need { what: "a C++ compiler and make", present: || has("c++") && has("make"), packages: &["g++", "make"] },
    Need {
        what: "libclang (RocksDB's bindings are generated with it)",
        present: libclang,
        packages: &["libclang-dev"],
    },
    Need { what: "the Docker engine", present: || docker_answers() || has("dockerd"), packages: &["docker.io"] },
    Need { what: "nft", present: || has("nft") || Path::new("/usr/sbin/nft").exists(), packages: &["nftables"] },
    Need { what: "ip", present: || has("ip") || Path::new("/usr/sbin/ip").exists(), packages: &["iproute2"] },
];

/// What the tests need beyond that.
const TEST_NEEDS: &[Need] = &[
    Need { what: "curl", present: || has("curl"), packages: &["curl"] },
    Need {
        what: "pip or unzip (kubectl comes as a Python wheel)",
        present: || has("pip3") || has("pip"),
        packages: &["python3-pip"],
    },
    Need {
        what: "a static busybox (the small test image)",
        present: || images::static_busybox().is_some(),
        packages: &["busybox-static"],
    },
    Need { what: "libfaketime (the torture sets clocks)", present: faketime, packages: &["libfaketime"] },
];

/// Makes sure of everything that a demo or build needs.
pub(crate) fn machine() -> Result<()> {
    ensure(NEEDS)?;
    docker()
}

/// Makes sure of everything that the tests, and their images, need as well.
pub(crate) fn test_machine() -> Result<()> {
    ensure(NEEDS)?;
    ensure(TEST_NEEDS)?;
    docker()
}

fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !(need.present)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let what: Vec<&str> = missing.iter().map(|need| need.what).collect();
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.packages).copied().collect();
    if !(has("apt-get") && is_root()) {
        bail!("missing: {}; install it (on Debian: sudo apt-get install {})", what.join(", "), packages.join(" "));
    }
    step(&format!("Install {}", packages.join(" ")), || {
        output("apt-get", &["update", "-qq"])?;
        // Packages must not ask: there may be nobody to answer.
        let mut arguments = vec!["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq"];
        arguments.extend(packages);
        output("env", &arguments)?;
        Ok(())
    })
}

/// Makes sure that a Docker engine answers; starts one where this user may.
pub(crate) fn docker() -> Result<()> {
    if docker_answers() {
        return Ok(());
    }
    if !is_root() {
        bail!(
            "no Docker engine answers; start it (sudo systemctl start docker), or join its group (sudo usermod -aG docker $USER)"
        );
    }
    step("Start the Docker engine", || {
        if Path::new("/run/systemd/system").exists() {
            run_command(Command::new("systemctl").args(["start", "docker"]))?;
        } else {
            let log = File::create("/var/log/dockerd.log")?;
            // A session of its own: it outlives this command, as a service would.
            Command::new("setsid")
                .args(["--fork", "dockerd"])
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .status()?;
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while !docker_answers() {
            if Instant::now() > deadline {
                let log = fs::read_to_string("/var/log/dockerd.log").unwrap_or_default();
                let last = log.lines().last().unwrap_or("see its log").to_owned();
                bail!("the Docker engine does not answer: {last}");
            }
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    })
}

fn docker_answers() -> bool {
    output("docker", &["version", "--format", "{{.Server.Version}}"]).is_ok()
}

fn faketime() -> bool {
    let mut folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    folders.any(|folder| folder.path().join("faketime/libfaketimeMT.so.1").exists())
}

fn libclang() -> bool {
    let folders = ["/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];
    let holds = |folder: &Path| {
        fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            // `libclang.so.1` or `libclang-14.so.1`; `libclang-cpp.so.14` is another library.
            let rest = name.strip_prefix("libclang").unwrap_or_default();
            rest.starts_with(".so") || rest.strip_prefix('-').is_some_and(|rest| rest.starts_with(char::is_numeric))
        })
    };
    let llvm = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    std::env::var_os("LIBCLANG_PATH").is_some()
        || folders.iter().any(|folder| holds(Path::new(folder)))
        || llvm
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("llvm-"))
            .any(|entry| holds(&entry.path().join("lib")))
}

fn is_root() -> bool {
    output("id", &["-u"]).is_ok_and(|id| id.trim() == "0")
}
