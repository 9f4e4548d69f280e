//! What the built-in signers demand of a request.
//!
//! Upstream: `pkg/apis/certificates/helpers.go`, and `isRequestForSigner` of `pkg/controller/certificates/signer/signer.go`.

use std::collections::BTreeSet;

use machinery::certificates::{API_SERVER_CLIENT, CertificateRequest, KUBELET_CLIENT, KUBELET_SERVING};

const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

/// Whether a signer signs a request with such usages; the error says why not.
pub(super) type Verify = fn(&CertificateRequest, &[String]) -> Result<(), String>;

/// What a built-in signer demands; nothing for the signers of others.
pub(super) fn of(signer: &str) -> Option<Verify> {
    match signer {
        API_SERVER_CLIENT => Some(|_, usages| api_server_client(usages)),
        KUBELET_CLIENT => Some(kubelet_client),
        KUBELET_SERVING => Some(kubelet_serving),
        _ => None,
    }
}

fn api_server_client(usages: &[String]) -> Result<(), String> {
    const REQUIRED: &str = "client auth";
    const ALLOWED: [&str; 3] = ["digital signature", "key encipherment", REQUIRED];
    if let Some(other) = usages.iter().find(|usage| !ALLOWED.contains(&usage.as_str())) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    if !usages.iter().any(|usage| usage == REQUIRED) {
        return Err(format!("missing required usage for client certificate: {REQUIRED}"));
    }
    Ok(())
}

/// Whether it is a request of a kubelet for its client certificate.
pub(super) fn kubelet_client(request: &CertificateRequest, usages: &[String]) -> Result<(), String> {
    organization(request)?;
    let names = [
        ("DNS", !request.dns_names.is_empty()),
        ("Email", !request.email_addresses.is_empty()),
        ("IP", !request.ip_addresses.is_empty()),
        ("URI", !request.uris.is_empty()),
    ];
    no_names(&names)?;
    common_name(request)?;
    usages_are(usages, "client auth")
}

fn kubelet_serving(request: &CertificateRequest, usages: &[String]) -> Result<(), String> {
    organization(request)?;
    if request.dns_names.is_empty() && request.ip_addresses.is_empty() {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    no_names(&[("Email", !request.email_addresses.is_empty()), ("URI", !request.uris.is_empty())])?;
    usages_are(usages, "server auth")?;
    common_name(request)
}

fn organization(request: &CertificateRequest) -> Result<(), String> {
    let is_node = request.organizations == [NODES];
    is_node.then_some(()).ok_or_else(|| format!("subject organization is not {NODES}"))
}

fn common_name(request: &CertificateRequest) -> Result<(), String> {
    let is_node = request.common_name.starts_with(NODE_PREFIX);
    is_node.then_some(()).ok_or_else(|| format!("subject common name does not begin with {NODE_PREFIX}"))
}

fn no_names(names: &[(&str, bool)]) -> Result<(), String> {
    match names.iter().find(|(_, is_there)| *is_there) {
        Some((kind, _)) => Err(format!("{kind} subjectAltNames are not allowed")),
        None => Ok(()),
    }
}

/// Keys that are not RSA's encipher none.
fn usages_are(usages: &[String], purpose: &str) -> Result<(), String> {
    let usages: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let all = BTreeSet::from(["digital signature", "key encipherment", purpose]);
    let mut without_rsa = all.clone();
    without_rsa.remove("key encipherment");
    if usages == all || usages == without_rsa {
        return Ok(());
    }
    let all: Vec<&str> = all.into_iter().collect();
    Err(format!("usages did not match [{}]", all.join(" ")))
}
