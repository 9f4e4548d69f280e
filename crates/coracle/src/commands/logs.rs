//! `coracle logs`.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use cluster::Profile;

use crate::cli;
use crate::output;

/// A person does not see a shorter delay, and looking costs next to nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

pub(crate) fn run(profile: &Profile, logs: &cli::Logs) -> Result<ExitCode> {
    let path = profile.log();
    let file = File::open(&path).with_context(|| format!("there is no log of the cluster {} yet", profile.name()))?;
    let mut reader = BufReader::new(file);
    let lines: Vec<String> = reader.by_ref().lines().collect::<io::Result<_>>()?;
    let skipped = logs.tail.map_or(0, |tail| lines.len().saturating_sub(tail));
    for line in &lines[skipped..] {
        output::line(line)?;
    }
    if logs.follow {
        follow(reader, &path)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what is written from now on, until the program is interrupted.
fn follow(mut reader: BufReader<File>, path: &Path) -> Result<Infallible> {
    let mut line = String::new();
    loop {
        match reader.read_line(&mut line)? {
            0 if replaced(&reader, path) => reader = BufReader::new(File::open(path)?),
            0 => thread::sleep(LOOK_AGAIN),
            _ if line.ends_with('\n') => {
                output::line(line.trim_end_matches('\n'))?;
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
