//! Connections (`exec`, `attach`, `portforward`, `proxy`): what a client asks for in its query becomes options, which pass
//! admission before anything is connected.

use machinery::status::ApiError;
use registry::{ConnectOptions, Subresource};

use super::{Call, Connections, node, proxy};
use crate::body::RequestBody;
use crate::respond::{self, Answer};

/// Connects a client to what `subresource` of its target leads to; `rest` is the path behind it, without slashes at its ends.
pub(super) async fn connect(
    call: Call<'_>,
    connections: &Connections,
    subresource: Subresource,
    rest: &str,
    body: RequestBody,
) -> Result<Answer, ApiError> {
    let (asked, mut warnings) = (options(&call, subresource, rest), Vec::new());
    let admitted = call.registry.admit_connect(&call.target, subresource, asked, &call.user, &mut warnings).await?;
    let mut answer = match subresource {
        Subresource::Proxy => proxy::proxy(call, connections, rest, &admitted.path, body).await,
        Subresource::PortForward => node::port_forward(call, connections).await,
        command => node::command(call, connections, command, admitted).await,
    }?;
    respond::warn(&mut answer, &warnings);
    Ok(answer)
}

fn options(call: &Call<'_>, subresource: Subresource, rest: &str) -> ConnectOptions {
    let query = call.query;
    match subresource {
        Subresource::Proxy => ConnectOptions { path: path(rest, call.parts.uri.path()), ..ConnectOptions::default() },
        Subresource::PortForward => {
            let ports = query.all("ports").flat_map(|ports| ports.split(',')).filter_map(|port| port.parse().ok());
            ConnectOptions { ports: ports.collect(), ..ConnectOptions::default() }
        }
        _ => {
            let runs = subresource == Subresource::Exec;
            let command = query.all("command").filter(|_| runs).map(str::to_owned).collect();
            ConnectOptions {
                stdin: query.flag("stdin"),
                stdout: query.flag("stdout"),
                stderr: query.flag("stderr"),
                tty: query.flag("tty"),
                container: query.text("container").to_owned(),
                command,
                ..ConnectOptions::default()
            }
        }
    }
}

/// The path behind `proxy` as upstream's options have it: with the slash it begins with, and the one that the request ends
/// in (`getRequestOptions` in `apiserver/pkg/endpoints/handlers/rest.go`).
fn path(rest: &str, whole: &str) -> String {
    let mut path = if rest.is_empty() { String::new() } else { format!("/{rest}") };
    if whole.ends_with('/') {
        path.push('/');
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_behind_a_proxy() {
        for (rest, whole, expect) in [
            ("", "/api/v1/nodes/n/proxy", ""),
            ("", "/api/v1/nodes/n/proxy/", "/"),
            ("a/b", "/api/v1/nodes/n/proxy/a/b", "/a/b"),
            ("a", "/api/v1/nodes/n/proxy/a/", "/a/"),
        ] {
            assert_eq!(path(rest, whole), expect, "{whole}");
        }
    }
}
