//! TCP connections, and why there is none.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::TcpStream;

/// Connects to a port of a host that is named or given as an address: to the first of its addresses that answers.
///
/// # Errors
/// Why none does, as Go says it.
pub async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return dial_address(SocketAddr::new(ip, port)).await;
    }
    let mut last = format!("dial tcp: lookup {host}: no such host");
    let Ok(addresses) = tokio::net::lookup_host((host, port)).await else { return Err(last) };
    for address in addresses {
        match dial_address(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Connects to an address.
///
/// # Errors
/// Why that does not succeed, as Go says it.
pub async fn dial_address(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|error| format!("dial tcp {address}: {}", words(&error)))?;
    // Without it small requests are merely slower.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

fn words(error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::ConnectionReset => "connection reset by peer",
        io::ErrorKind::HostUnreachable => "no route to host",
        io::ErrorKind::NetworkUnreachable => "network is unreachable",
        io::ErrorKind::TimedOut => return "i/o timeout".to_owned(),
        _ => return format!("connect: {error}"),
    };
    format!("connect: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_nobody_listens_on() {
        // Free again as soon as it is known.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let refused = format!("dial tcp {address}: connect: connection refused");
        assert_eq!(dial("127.0.0.1", address.port()).await.expect_err("nobody"), refused);
        let unknown = dial("no.such.host.invalid", 80).await.expect_err("no such name");
        assert_eq!(unknown, "dial tcp: lookup no.such.host.invalid: no such host");
    }
}
