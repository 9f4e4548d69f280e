//! `coracle logs`.

mod filter;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use cluster::Profile;
use jiff::Timestamp;

use self::filter::Filter;
use crate::{cli, log, output};

/// A person does not see a shorter delay, and looking costs next to nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

pub(crate) fn run(profile: &Profile, logs: &cli::Logs) -> Result<ExitCode> {
    let path = profile.log();
    let file = File::open(&path).with_context(|| format!("there is no log of the cluster {} yet", profile.name()))?;
    let mut filter = Filter::new(logs, Timestamp::now());
    let mut lines = VecDeque::new();
    // The last ones that are wanted are kept, however many there are.
    let mut keep = |line: String| {
        if filter.wants(&line) {
            if logs.tail.is_some_and(|tail| lines.len() >= tail) {
                lines.pop_front();
            }
            if logs.tail != Some(0) {
                lines.push_back(line);
            }
        }
    };
    if logs.since.is_some()
        && let Ok(earlier) = File::open(log::kept(&path))
    {
        BufReader::new(earlier).lines().try_for_each(|line| line.map(&mut keep))?;
    }
    let mut reader = BufReader::new(file);
    reader.by_ref().lines().try_for_each(|line| line.map(&mut keep))?;
    lines.iter().try_for_each(output::line)?;
    if let Some(unknown) = filter.unknown() {
        output::note(unknown);
    }
    if logs.follow {
        follow(reader, &path, filter)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what is written from now on, until the program is interrupted.
fn follow(mut reader: BufReader<File>, path: &Path, mut filter: Filter) -> Result<Infallible> {
    let mut line = String::new();
    loop {
        match reader.read_line(&mut line)? {
            0 if replaced(&reader, path) => reader = BufReader::new(File::open(path)?),
            0 => thread::sleep(LOOK_AGAIN),
            _ if line.ends_with('\n') => {
                let text = line.trim_end_matches('\n');
                if filter.wants(text) {
                    output::line(text)?;
                }
                line.clear();
            }
            // Half a line: the rest of it is still to come.
            _ => {}
        }
    }
}

/// Whether another file stands at `path` by now: a new start moved the old log away.
fn replaced(reader: &BufReader<File>, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (reader.get_ref().metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => open.ino() != named.ino(),
        _ => false,
    }
}
