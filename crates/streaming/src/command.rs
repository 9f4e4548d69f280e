//! Remote commands: `exec` and `attach`.
//!
//! A client has up to five streams: input, output, errors, the sizes of its terminal, and one on which the outcome goes back
//! as a `Status`. The transports differ in how they carry them; what they are for is the same, and lives here.

mod resize;
mod spdy;
#[cfg(test)]
mod tests;
mod websocket;

use std::future::Future;

use http::{Request, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::upgrade::{Refusal, Transport};
use crate::websocket::Encoding;
use crate::{CommandOptions, NodeError, Streams};

/// The version of the remote command protocol, which says how the outcome is told and what else there is.
///
/// From 3 on there are terminal sizes, from 4 on the outcome is a `Status`, from 5 on (over WebSocket) input can be closed.
type Version = u8;

const SPDY_PROTOCOLS: &[(&str, Version)] = &[
    ("v5.channel.k8s.io", 5),
    ("v4.channel.k8s.io", 4),
    ("v3.channel.k8s.io", 3),
    ("v2.channel.k8s.io", 2),
    ("channel.k8s.io", 1),
];

const WEBSOCKET_PROTOCOLS: &[(&str, (Version, Encoding))] = &[
    ("v5.channel.k8s.io", (5, Encoding::Binary)),
    ("v4.channel.k8s.io", (4, Encoding::Binary)),
    ("v4.base64.channel.k8s.io", (4, Encoding::Base64)),
    ("channel.k8s.io", (1, Encoding::Binary)),
    ("base64.channel.k8s.io", (1, Encoding::Base64)),
    ("", (1, Encoding::Binary)),
];

/// A request for a remote command, and what will be spoken.
#[derive(Clone, Debug)]
pub struct CommandUpgrade {
    transport: Transport,
    name: &'static str,
    protocol: Protocol,
}

#[derive(Clone, Copy, Debug)]
enum Protocol {
    Spdy(Version),
    WebSocket(Version, Encoding),
}

impl CommandUpgrade {
    /// Finds out what the client wants to speak.
    ///
    /// # Errors
    /// [`Refusal`] with the status to answer when the client speaks nothing that is known.
    pub fn negotiate<B>(request: &Request<B>) -> Result<Self, Refusal> {
        let transport = Transport::of(request)?;
        let (name, protocol) = match &transport {
            Transport::Spdy(_) => {
                let (name, version) = transport.choose(SPDY_PROTOCOLS)?;
                (name, Protocol::Spdy(version))
            }
            Transport::WebSocket { .. } => {
                let (name, (version, encoding)) = transport.choose(WEBSOCKET_PROTOCOLS)?;
                (name, Protocol::WebSocket(version, encoding))
            }
        };
        Ok(Self { transport, name, protocol })
    }

    /// What the server answers: 101 with the headers that belong to it.
    pub fn response(&self) -> Response<()> {
        self.transport.response(self.name)
    }

    /// Runs a command on the upgraded connection until it has ended and its outcome is told, or the client is gone.
    ///
    /// `command` is called once the client's streams are there. When the client leaves first, its future is dropped.
    pub async fn serve<S, F, R>(self, io: S, options: CommandOptions, command: F)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        F: FnOnce(Streams) -> R + Send,
        R: Future<Output = Result<i32, NodeError>> + Send,
    {
        let options = options.normal();
        match self.protocol {
            Protocol::Spdy(version) => spdy::serve(io, version, options, command).await,
            Protocol::WebSocket(version, encoding) => websocket::serve(io, version, encoding, options, command).await,
        }
    }
}

/// Why a query is no request for a remote command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("you must specify at least 1 of stdin, stdout, stderr")]
pub struct OptionsError;

impl CommandOptions {
    /// The options as they are served: a terminal has one output only.
    ///
    /// # Errors
    /// When there is no stream at all.
    pub fn checked(self) -> Result<Self, OptionsError> {
        if self.stdin || self.stdout || self.stderr { Ok(self.normal()) } else { Err(OptionsError) }
    }

    /// A terminal has one output only.
    fn normal(mut self) -> Self {
        self.stderr &= !self.tty;
        self
    }
}

/// The outcome as it goes back to the client: a `Status`, or before version 4 the text of an error; empty for nothing.
fn outcome(version: Version, result: &Result<i32, NodeError>) -> Vec<u8> {
    let (status, text) = match result {
        Ok(0) => (json!({"metadata": {}, "status": "Success"}), String::new()),
        Ok(code) => {
            let message = format!("command terminated with non-zero exit code: exit status {code}");
            let status = json!({
                "metadata": {}, "status": "Failure", "message": message, "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            });
            (status, message)
        }
        Err(error) => (failure(error), error.to_string()),
    };
    if version >= 4 { status.to_string().into_bytes() } else { text.into_bytes() }
}

fn failure(error: &NodeError) -> Value {
    let (code, reason, message) = match error {
        NodeError::NotFound(message) => (404, "NotFound", message.clone()),
        NodeError::BadRequest(message) => (400, "BadRequest", message.clone()),
        NodeError::Internal(message) => {
            let message = format!("Internal error occurred: {message}");
            return json!({
                "metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500,
                "details": {"causes": [{"message": error.to_string()}]},
            });
        }
    };
    json!({"metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code})
}
