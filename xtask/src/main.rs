//! The developer's own tool: `cargo xtask COMMAND`.
//!
//! Everything that a developer or CI does with this repository is a command here, so that there is one way to do it.

mod bench;
mod compare;
mod demo;
mod deny;
mod dist;
mod fuzz;
mod images;
mod kubectl;
mod rocksdb;
mod setup;
mod soak;
mod steps;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build, test, measure and show coracle.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Set up what is missing, start a cluster and run examples/nginx in it
    Demo,
    /// Run everything that CI checks
    Test(test::Options),
    /// Make sure that the images of the examples and tests exist in Docker
    Images,
    /// Measure: creates, reads, watches, rollouts; see CONTRIBUTING.md
    Bench(bench::Options),
    /// Send the same requests to two API servers and print what differs; see CONTRIBUTING.md
    Compare(compare::Options),
    /// Torture a cluster with faults, and check that nothing is lost; see CONTRIBUTING.md
    Soak(soak::Options),
    /// Feed what reads input from outside with whatever breaks it; see CONTRIBUTING.md
    Fuzz(fuzz::Options),
    /// Make a release in target/dist: archive, packages, image, checksums; see docs/releases.md
    Dist(dist::Options),
    /// Check what no compiler checks: import directions, file lengths, module docs
    Tidy,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo => demo::run(),
        Command::Test(options) => test::run(&options),
        Command::Images => setup::test_machine().and_then(|()| images::ensure()),
        Command::Bench(options) => bench::run(&options),
        Command::Compare(options) => compare::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Dist(options) => dist::run(&options),
        Command::Tidy => tidy::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            steps::say(format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
