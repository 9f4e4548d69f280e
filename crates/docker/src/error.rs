//! Docker's errors as the runtime's: by HTTP status, and by what is wrong with the connection.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use bollard::errors::Error as Bollard;
use runtime::Error;

/// An error of bollard's.
pub(crate) fn map(error: &Bollard, host: &str) -> Error {
    match error {
        Bollard::DockerResponseServerError { status_code, message } => of_status(*status_code, message.clone()),
        Bollard::DockerStreamError { error } => Error::Other(error.clone()),
        Bollard::RequestTimeoutError => Error::Timeout("the Docker daemon did not answer in time".to_owned()),
        Bollard::HyperLegacyError { .. } | Bollard::HyperResponseError { .. } | Bollard::IOError { .. } => {
            unavailable(error, host)
        }
        other => Error::Other(other.to_string()),
    }
}

/// No answer within `limit`.
pub(crate) fn timeout(host: &str, limit: Duration) -> Error {
    Error::Timeout(format!("the Docker daemon at {host} did not answer within {} s", limit.as_secs()))
}

/// An answer that is not a success.
pub(crate) fn of_status(status: u16, message: String) -> Error {
    let message = message.trim().to_owned();
    match status {
        404 => match message.strip_prefix("No such image: ") {
            Some(image) => Error::ImageNotFound { image: image.to_owned() },
            None => Error::NotFound(message),
        },
        409 => Error::Conflict(message),
        400 => Error::Invalid(message),
        _ => Error::Other(message),
    }
}

/// The connection could not be made or was lost: one line that says what to do.
pub(crate) fn unavailable(error: &(dyn StdError + 'static), host: &str) -> Error {
    let mut cause = error;
    let mut kind = None;
    loop {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            kind = Some(io.kind());
        }
        match cause.source() {
            Some(source) => cause = source,
            None => break,
        }
    }
    Error::Unavailable(match kind {
        Some(io::ErrorKind::PermissionDenied) => format!(
            "no permission to use the Docker daemon at {host}: add yourself to its group (`sudo usermod -aG docker $USER`, then log in again)"
        ),
        Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => format!(
            "cannot connect to the Docker daemon at {host}: install and start it (`sudo systemctl start docker`), or set DOCKER_HOST"
        ),
        _ => format!("lost the Docker daemon at {host}: {cause}"),
    })
}

/// Why a container did not start, with the exit code Docker gives it.
pub(crate) fn start_failed(error: Error) -> Error {
    let message = match error {
        Error::Other(message) | Error::Invalid(message) | Error::Conflict(message) => message,
        // Docker answers 404 for a missing program, too.
        Error::NotFound(message) if !message.starts_with("No such container") => message,
        other => return other,
    };
    let has = |text: &str| message.contains(text);
    let exit_code = if has("executable file not found")
        || has("no such file or directory")
        || has("system cannot find the file specified")
    {
        127
    } else if has("permission denied") {
        126
    } else {
        128
    };
    Error::StartFailed { exit_code, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        let cases = [
            (404, "No such container: x", Error::NotFound("No such container: x".to_owned())),
            (404, "No such image: x:latest", Error::ImageNotFound { image: "x:latest".to_owned() }),
            (409, "in use\n", Error::Conflict("in use".to_owned())),
            (400, "bad", Error::Invalid("bad".to_owned())),
            (500, "boom", Error::Other("boom".to_owned())),
        ];
        for (status, message, expect) in cases {
            assert_eq!(of_status(status, message.to_owned()), expect);
        }
    }

    #[test]
    fn start_failures_get_dockers_exit_codes() {
        let cases = [
            (Error::Invalid("exec: \"x\": executable file not found in $PATH".to_owned()), Some(127)),
            (Error::NotFound("exec: \"/x\": stat /x: no such file or directory".to_owned()), Some(127)),
            (Error::Other("exec: \"/etc\": permission denied".to_owned()), Some(126)),
            (Error::Other("port is already allocated".to_owned()), Some(128)),
            (Error::NotFound("No such container: y".to_owned()), None),
            (Error::Unavailable("gone".to_owned()), None),
        ];
        for (error, expect) in cases {
            let code = match start_failed(error.clone()) {
                Error::StartFailed { exit_code, .. } => Some(exit_code),
                _ => None,
            };
            assert_eq!(code, expect, "{error}");
        }
    }
}
