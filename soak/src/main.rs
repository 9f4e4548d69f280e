//! Torture of a whole cluster: the release binary with clients, watchers and hostile pods, while it is killed, paused, and
//! robbed of its disk, its descriptors, its clock and its Docker.
//!
//! Faults come at random, one after the other, from a seed that is printed. Clients write all the while and keep account of what
//! was acknowledged to them ([`history`]); after each fault the cluster must be whole again within a time, and must not
//! have lost, changed or repeated anything of it. The first thing that is wrong ends the run with the seed and the log.

mod cluster;
mod faults;
mod history;
mod socket_proxy;
mod traffic;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::Victim;
use crate::faults::Fault;
use crate::history::History;
use crate::socket_proxy::SocketProxy;
use crate::traffic::Traffic;

/// So long the cluster may take to be whole after a fault. Far more than it should: a loaded machine is no failure.
const RECOVERY: Duration = Duration::from_secs(120);

/// Torture a cluster of its own with faults, and check that it loses nothing.
#[derive(Parser)]
struct Arguments {
    /// For how long
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// The seed of an earlier run, whose faults come again in the same order
    #[arg(long)]
    seed: Option<u64>,
    /// The binary
    #[arg(long, env = "CORACLE_BINARY")]
    binary: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("soak: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    let seed = arguments.seed.unwrap_or_else(|| rand::rng().next_u64());
    say(&format!("seed {seed}"));
    let mut random = StdRng::seed_from_u64(seed);
    let proxy = SocketProxy::open().await?;
    let victim = Victim::start(&arguments.binary, proxy.address()).await?;
    let history = Arc::new(History::default());
    let traffic = Traffic::start(&victim, Arc::clone(&history)).await?;
    let result = tokio::select! {
        result = torture(&victim, &proxy, &history, arguments.minutes, &mut random) => result,
        () = interrupted() => Err(anyhow!("interrupted")),
    };
    traffic.end().await;
    let result = match result {
        Ok(faults) => history.check_watchers().map(|()| faults),
        Err(error) => Err(error),
    };
    match result {
        Ok(faults) => {
            say(&format!("{faults} faults; {}", history.summary()));
            Ok(())
        }
        Err(error) => {
            say(&victim.log_tail());
            Err(error.context(format!("seed {seed}")))
        }
    }
}

/// Whoever ends this early wants the cluster gone, too.
async fn interrupted() {
    let Ok(mut terminated) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}

/// Faults until the time is over, each followed by a look at everything. The answer is their number.
async fn torture(
    victim: &Victim,
    proxy: &SocketProxy,
    history: &History,
    minutes: u64,
    random: &mut StdRng,
) -> Result<usize> {
    whole(victim, history).await.context("before the first fault")?;
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    let mut number = 0;
    while Instant::now() < end {
        number += 1;
        let fault = Fault::choose(random);
        let name = fault.to_string();
        if !fault.apply(victim, proxy, random).await.with_context(|| format!("fault {number}, {name}"))? {
            say(&format!("{number:>4} {name}: not possible here"));
            continue;
        }
        let took = whole(victim, history).await.with_context(|| format!("after fault {number}, {name}"))?;
        say(&format!(
            "{number:>4} {name}: whole after {:.1} s; {}; {}",
            took.as_secs_f64(),
            victim.measures()?,
            history.summary()
        ));
    }
    Ok(number)
}

/// Waits until everything works again, and looks at what must hold at any time.
async fn whole(victim: &Victim, history: &History) -> Result<Duration> {
    let started = Instant::now();
    let acknowledged = history.acknowledged();
    loop {
        history.verdict()?;
        victim.check_process()?;
        let missing = match victim.missing().await {
            Some(what) => what,
            None if history.acknowledged() <= acknowledged => "no write is acknowledged".to_owned(),
            None => return Ok(started.elapsed()),
        };
        if started.elapsed() > RECOVERY {
            bail!("not whole after {} s: {missing}", RECOVERY.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Prints a line.
fn say(text: &str) {
    // Where nobody listens there is nobody to tell.
    let _ = writeln!(io::stdout(), "{text}");
}
