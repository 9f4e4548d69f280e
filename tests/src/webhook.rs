//! Webhooks of admission and of conversion: a small HTTPS server that answers reviews.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// A server that runs until the test is over.
pub struct Webhook {
    address: String,
    authority: String,
}

impl Webhook {
    /// Starts one which makes the `response` of a review from its `request`.
    pub fn start(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1", "127.0.0.1", answer)
    }

    /// The same at this address of the machine, with a certificate for this name.
    pub fn start_at(ip: &str, name: &str, answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        let key = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
        let chain = vec![CertificateDer::from(key.cert.der().to_vec())];
        let secret = PrivateKeyDer::try_from(key.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, secret)
            .expect("a configuration");
        let listener = TcpListener::bind((ip, 0)).expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let config = Arc::new(config);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Whoever breaks off is of no interest.
                let _ = serve(stream, &config, &answer);
            }
        });
        Self { address, authority: key.cert.pem() }
    }

    /// The same one where nothing listens.
    #[must_use]
    pub fn gone(&self) -> Self {
        Self { address: "127.0.0.1:1".to_owned(), authority: self.authority.clone() }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("an address with a port")
    }

    /// How a configuration names it behind the Service `NAMESPACE/NAME`.
    #[must_use]
    pub fn client_config_by_service(&self, service: &str, path: &str) -> Value {
        let (namespace, name) = service.split_once('/').expect("NAMESPACE/NAME");
        json!({
            "service": { "namespace": namespace, "name": name, "path": path },
            "caBundle": BASE64_STANDARD.encode(&self.authority),
        })
    }

    /// How a configuration names it.
    #[must_use]
    pub fn client_config(&self, path: &str) -> Value {
        json!({
            "url": format!("https://{}/{path}", self.address),
            "caBundle": BASE64_STANDARD.encode(&self.authority),
        })
    }
}

fn serve(stream: TcpStream, config: &Arc<ServerConfig>, answer: &impl Fn(&Value) -> Value) -> io::Result<()> {
    let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    let mut reader = BufReader::new(StreamOwned::new(connection, stream));
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut review: Value = serde_json::from_slice(&body)?;
    let request = review["request"].take();
    review["response"] = answer(&request);
    review["response"]["uid"] = request["uid"].clone();
    let review = review.to_string();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", review.len());
    reader.get_mut().write_all(head.as_bytes())?;
    reader.get_mut().write_all(review.as_bytes())?;
    reader.get_mut().flush()
}
