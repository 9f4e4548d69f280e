//! The API over HTTP/1.1, byte by byte: for requests that no client library would send.

use std::fmt;
use std::io::{self, BufRead, BufReader, Error, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use crate::Cluster;

/// So long an answer may take, and each part of its body.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A request. The target is sent as it is: it must be encoded already.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// What is accepted.
    pub accept: &'static str,
    /// The type of the body; empty for none.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, target, accept, content_type, body } = self;
        write!(f, "{method} {target} [{accept}] [{content_type}] {}", String::from_utf8_lossy(body))
    }
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; empty if only the head was read.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body, if it is JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// A connection of the cluster's administrator, opened again when the server closes it.
pub struct ApiClient {
    address: String,
    config: Arc<ClientConfig>,
    connection: Option<BufReader<StreamOwned<ClientConnection, TcpStream>>>,
}

impl ApiClient {
    /// A client of this cluster, with what its kubeconfig says.
    pub fn new(cluster: &Cluster) -> Self {
        let shown = cluster.kubectl(&["config", "view", "--raw", "--minify", "-o", "json"]).ok();
        let shown: Value = serde_json::from_str(&shown).expect("kubectl prints JSON");
        let text = |path: &str| shown.pointer(path).and_then(Value::as_str).expect("the kubeconfig is complete");
        let pem = |path: &str| BASE64_STANDARD.decode(text(path)).expect("PEM in base64");
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(&pem("/clusters/0/cluster/certificate-authority-data")) {
            roots.add(authority.expect("a certificate")).expect("a certificate of an authority");
        }
        let chain = CertificateDer::pem_slice_iter(&pem("/users/0/user/client-certificate-data"))
            .collect::<Result<Vec<_>, _>>()
            .expect("certificates");
        let key = PrivateKeyDer::from_pem_slice(&pem("/users/0/user/client-key-data")).expect("a key");
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .expect("a configuration");
        let address = text("/clusters/0/cluster/server").trim_start_matches("https://").to_owned();
        Self { address, config: Arc::new(config), connection: None }
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    ///
    /// If the server closes the connection, says nothing for long or does not speak HTTP.
    pub fn ask(&mut self, request: &Request) -> io::Result<Answer> {
        self.exchange(request, true)
    }

    /// Sends a request whose answer may go on for long, and reads its head, or all of it if it is an error.
    ///
    /// # Errors
    ///
    /// As of [`Self::ask`].
    pub fn ask_for_stream(&mut self, request: &Request) -> io::Result<Answer> {
        self.exchange(request, false)
    }

    fn exchange(&mut self, request: &Request, whole: bool) -> io::Result<Answer> {
        // It is given back if another request may follow.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        self.send(connection.get_mut(), request)?;
        let head = Head::read(&mut connection)?;
        if !whole && head.status < 400 {
            return Ok(Answer { status: head.status, body: Vec::new() });
        }
        let body = head.read_body(&mut connection)?;
        if !head.closes {
            self.connection = Some(connection);
        }
        Ok(Answer { status: head.status, body })
    }

    fn connect(&self) -> io::Result<BufReader<StreamOwned<ClientConnection, TcpStream>>> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host).to_owned();
        let name = ServerName::try_from(host).map_err(Error::other)?;
        let session = ClientConnection::new(Arc::clone(&self.config), name).map_err(Error::other)?;
        Ok(BufReader::new(StreamOwned::new(session, stream)))
    }

    fn send(&self, stream: &mut impl Write, request: &Request) -> io::Result<()> {
        let Request { method, target, accept, content_type, body } = request;
        let mut sent = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\nAccept: {accept}\r\n", self.address);
        if !content_type.is_empty() {
            sent += &format!("Content-Type: {content_type}\r\nContent-Length: {}\r\n", body.len());
        }
        sent += "\r\n";
        let mut sent = sent.into_bytes();
        sent.extend_from_slice(body);
        stream.write_all(&sent)?;
        stream.flush()
    }
}

/// The status line and headers of an answer.
struct Head {
    status: u16,
    length: Option<usize>,
    chunked: bool,
    closes: bool,
}

impl Head {
    fn read(stream: &mut impl BufRead) -> io::Result<Self> {
        let line = read_line(stream)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| Error::other(format!("{line:?} is no status line")))?;
        let mut head = Self { status, length: None, chunked: false, closes: false };
        loop {
            let line = read_line(stream)?.to_ascii_lowercase();
            let Some((name, value)) = line.split_once(": ") else { return Ok(head) };
            match name {
                "content-length" => head.length = Some(value.parse().map_err(Error::other)?),
                "transfer-encoding" => head.chunked = value == "chunked",
                "connection" => head.closes = value == "close",
                _ => {}
            }
        }
    }

    fn read_body(&self, stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if let Some(length) = self.length {
            body.resize(length, 0);
            stream.read_exact(&mut body)?;
        } else if self.chunked {
            loop {
                let size = usize::from_str_radix(&read_line(stream)?, 16).map_err(Error::other)?;
                let start = body.len();
                body.resize(start + size, 0);
                stream.read_exact(&mut body[start..])?;
                read_line(stream)?;
                if size == 0 {
                    break;
                }
            }
        } else if self.closes {
            stream.read_to_end(&mut body)?;
        }
        Ok(body)
    }
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}
