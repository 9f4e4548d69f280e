//! `cargo xtask dist` runs this: makes a release out of a program that is built.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use coracle_dist::{Options, make};

/// Make a release of coracle.
#[derive(Parser)]
struct Arguments {
    /// The program to release
    #[arg(long, value_name = "FILE")]
    binary: PathBuf,
    /// The same program for this machine, which writes the manual, where --binary is for another processor
    #[arg(long, value_name = "FILE")]
    local_binary: Option<PathBuf>,
    /// The folder to write to
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// The repository
    #[arg(long, default_value = ".", value_name = "DIR")]
    root: PathBuf,
    /// The time of all files, in seconds since 1970
    #[arg(long, env = "SOURCE_DATE_EPOCH", value_name = "SECONDS")]
    time: u64,
    /// How hard to compress, from 1 to 9
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=9), value_name = "LEVEL")]
    compression: u32,
    /// The address that the files will have, such as `https://example.com/coracle/v1.0.0`: for the installation script, the
    /// Homebrew formula and the GitHub Action; the last two are not made without it
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
}

fn main() -> ExitCode {
    let Arguments { binary, local_binary, output, root, time, compression, base_url } = Arguments::parse();
    let made = make(&Options { root, binary, local_binary, output, time, compression, base_url });
    let mut stderr = std::io::stderr();
    match made {
        Ok(files) => {
            for file in files {
                let size = file.metadata().map_or(0, |metadata| metadata.len());
                let _ = writeln!(stderr, "{size:>12} {}", file.display());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(stderr, "dist: {error:#}");
            ExitCode::FAILURE
        }
    }
}
