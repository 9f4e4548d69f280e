//! A whole control plane through random faults.
//!
//! The real store, API server, controllers and scheduler run in one thread on a clock that jumps to the next thing that
//! happens; pods run on fake nodes. A user changes a Deployment, a StatefulSet, a DaemonSet, Jobs, gangs and nodes at random,
//! while watches are cut, late or dead, requests are refused, late, or done without anybody hearing of it, and components
//! crash. Every revision of the store is looked at:
//!
//! - pods of the Deployment are never more than `maxSurge` above it, nor fewer available than `maxUnavailable` below;
//! - members of the StatefulSet come in the order of their numbers and go in the reverse, one at a time;
//! - the DaemonSet has one pod on a node at a time, and no more than one node is without while it is updated;
//! - an index of a Job has one pod at a time, and none once it has succeeded;
//! - quotas are kept, and no node holds more than it offers;
//! - in the end all is as it was asked for, and each gang is there as a whole or not at all.
//!
//! Where the user deletes pods and nodes as well (a rough story), availability and order are nobody's to keep, but all the
//! rest is.
//!
//! Beside the stories, [`controllers`] has what must be so without any faults: statuses that others spoiled are put right,
//! and definitions that others installed are left alone.
//!
//! `CORACLE_SEED=N` runs the stories of that seed alone. The seed decides what the user and the faults do; how the store's
//! threads and the one of everything else follow each other is left to the machine.

mod chance;
mod controllers;
mod faults;
mod judge;
mod objects;
mod story;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds that are tried.
const SEEDS: u64 = 4;

fn run(calm: bool) {
    let chosen: Option<u64> = std::env::var("CORACLE_SEED").ok().and_then(|seed| seed.parse().ok());
    let (first, last) = chosen.map_or((1, SEEDS), |seed| (seed, seed));
    let next = AtomicU64::new(first);
    // The other kind of story runs beside this one.
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().div_ceil(2));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > last {
                        return;
                    }
                    tell(seed, calm);
                }
            });
        }
    });
}

/// One story, on a clock of its own.
fn tell(seed: u64, calm: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let started = std::time::Instant::now();
    let told = catch_unwind(AssertUnwindSafe(|| runtime.expect("a runtime").block_on(story::tell(seed, calm))));
    match told {
        Ok(Ok(summary)) => eprintln!("seed {seed}, calm {calm}: {summary}, in {:?}", started.elapsed()),
        Ok(Err(wrong)) => panic!("CORACLE_SEED={seed}, calm {calm}: {wrong}"),
        Err(panic) => {
            eprintln!("CORACLE_SEED={seed}, calm {calm}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn calm_stories() {
    run(true);
}

#[test]
fn rough_stories() {
    run(false);
}
