//! Compiles the pause program for the target as a static executable without libraries. It needs no more than what
//! building a Rust program needs anyway: `rustc` and the linker it uses.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "pause/main.rs";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(variable("OUT_DIR")).join("pause");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc
        .arg(SOURCE)
        .args(["--crate-name", "pause", "--crate-type", "bin"])
        .args(["--edition", "2024", "--target", &variable("TARGET")])
        .args(["-C", "opt-level=s", "-C", "panic=abort"])
        .args(["-C", "strip=symbols", "-C", "relocation-model=static"])
        // An overflow check is a call to the panic machinery, which is not linked.
        .args(["-C", "overflow-checks=off", "-C", "debug-assertions=off"])
        .args(["-C", "link-arg=-nostartfiles", "-C", "link-arg=-nostdlib"])
        .args(["-C", "link-arg=-static"])
        .args(["-C", "link-arg=-Wl,--build-id=none,-z,norelro"])
        .arg("-o")
        .arg(&out);
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.args(["-C", &format!("linker={linker}")]);
    }
    let status = rustc.status().expect("rustc can be run");
    assert!(status.success(), "compiling {SOURCE} failed: {status}");
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
