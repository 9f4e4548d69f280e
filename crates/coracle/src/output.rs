//! The two places this program writes to. Answers go to standard output, all else to standard error.

use std::io::{self, BufRead, Read, Write};

use anyhow::Result;
use serde::Serialize;

/// Prints a line of the answer. A reader that has gone away (`coracle logs | head`) ends the program quietly.
pub(crate) fn line(text: impl AsRef<str>) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{}", text.as_ref()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => Ok(result?),
    }
}

/// Prints the answer for programs.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    line(serde_json::to_string_pretty(value)?)
}

/// Prints a remark for people.
pub(crate) fn note(text: impl AsRef<str>) {
    // Where standard error is gone there is nobody left to tell.
    let _ = writeln!(io::stderr(), "{}", text.as_ref());
}

/// Asks somebody at the terminal; anything but a yes is a no.
pub(crate) fn question(text: &str) -> Result<bool> {
    let mut stderr = io::stderr();
    write!(stderr, "{text} [y/N] ").and_then(|()| stderr.flush())?;
    let mut answer = String::new();
    io::stdin().lock().take(64).read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Prints a warning for people: what does not work.
pub(crate) fn warning(text: impl AsRef<str>) {
    note(format!("Warning: {}", text.as_ref()));
}

/// Prints a failure: what was attempted and why it failed, on one line.
pub(crate) fn error(error: &anyhow::Error) {
    note(format!("coracle: {}", told(error)));
}

/// The causes one after the other; what the API server refused, in its own words and no others.
fn told(error: &anyhow::Error) -> String {
    let mut words = Vec::new();
    for cause in error.chain() {
        if let Some(kube::Error::Api(status)) = cause.downcast_ref() {
            words.push(status.message.clone());
            break;
        }
        words.push(cause.to_string());
    }
    words.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_refused_is_said_once() {
        let status = kube::core::Status::failure("nodes \"a\" already exists", "AlreadyExists").with_code(409).boxed();
        let error = anyhow::Error::from(kube::Error::Api(status)).context("cannot add the node a");
        assert_eq!(told(&error), "cannot add the node a: nodes \"a\" already exists");
        let error = anyhow::Error::msg("no disk").context("cannot write");
        assert_eq!(told(&error), "cannot write: no disk");
    }
}
