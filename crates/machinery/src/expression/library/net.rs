//! URLs, IP addresses and networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cel::common::types::{CelInt, CelString, STRING_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use super::{argument, flag, opaque, text, written, wrong};
use crate::expression::value::{List, Map};

opaque!(
    /// A URL, taken apart.
    Url(Parts),
    "kubernetes.URL"
);
opaque!(
    /// An IP address.
    Ip(IpAddr),
    "net.IP"
);
opaque!(
    /// A network: an address and how many of its bits count.
    Cidr((IpAddr, u8)),
    "net.CIDR"
);

/// The parts of a URL as they are written.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::expression) struct Parts {
    scheme: String,
    host: String,
    path: String,
    query: Vec<(String, String)>,
}

pub(super) fn register(env: &mut Env) -> Result<(), DeclarationError> {
    urls(env)?;
    addresses(env)?;
    networks(env)
}

fn urls(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_overload("isURL", "is_url_string", vec![STRING_TYPE], |arguments| {
        flag(parse_url(text(&arguments, 0)?).is_some())
    })?;
    env.add_overload("url", "string_to_url", vec![STRING_TYPE], |arguments| {
        let text = text(&arguments, 0)?;
        let parts = parse_url(text).ok_or_else(|| {
            wrong(format!("URL parse error during conversion from string: parse {text:?}: invalid URI for request"))
        })?;
        Ok(CowVal::owned(Url(parts)))
    })?;
    let url = || Url::cel_type().to_owned();
    env.add_member_overload("getScheme", "url_get_scheme", url(), vec![], |arguments| {
        written(parts(&arguments)?.scheme.clone())
    })?;
    env.add_member_overload("getHost", "url_get_host", url(), vec![], |arguments| {
        written(parts(&arguments)?.host.clone())
    })?;
    env.add_member_overload("getHostname", "url_get_hostname", url(), vec![], |arguments| {
        let (name, _) = host_and_port(&parts(&arguments)?.host);
        written(name.trim_start_matches('[').trim_end_matches(']'))
    })?;
    env.add_member_overload("getPort", "url_get_port", url(), vec![], |arguments| {
        written(host_and_port(&parts(&arguments)?.host).1)
    })?;
    env.add_member_overload("getEscapedPath", "url_get_escaped_path", url(), vec![], |arguments| {
        written(parts(&arguments)?.path.clone())
    })?;
    env.add_member_overload("getQuery", "url_get_query", url(), vec![], |arguments| {
        let mut all: Vec<(&str, Vec<Box<dyn Val>>)> = Vec::new();
        for (name, value) in &parts(&arguments)?.query {
            let value: Box<dyn Val> = Box::new(CelString::from(value.clone()));
            match all.iter_mut().find(|(known, _)| known == name) {
                Some((_, values)) => values.push(value),
                None => all.push((name, vec![value])),
            }
        }
        let entries = all
            .into_iter()
            .map(|(name, values)| -> (Box<str>, Box<dyn Val>) { (name.into(), Box::new(List::atomic(values))) });
        Ok(CowVal::owned(entries.collect::<Map>()))
    })
}

fn addresses(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_overload("isIP", "is_ip", vec![STRING_TYPE], |arguments| flag(parse_ip(text(&arguments, 0)?).is_ok()))?;
    env.add_overload("ip", "string_to_ip", vec![STRING_TYPE], |arguments| {
        Ok(CowVal::owned(Ip(parse_ip(text(&arguments, 0)?)?)))
    })?;
    env.add_overload("ip.isCanonical", "ip_is_canonical", vec![STRING_TYPE], |arguments| {
        let text = text(&arguments, 0)?;
        flag(parse_ip(text)?.to_string() == text)
    })?;
    let ip = || Ip::cel_type().to_owned();
    env.add_overload("string", "ip_to_string", vec![ip()], |arguments| {
        written(argument::<Ip>(&arguments, 0)?.0.to_string())
    })?;
    env.add_member_overload("family", "ip_family", ip(), vec![], |arguments| {
        Ok(CowVal::owned(CelInt::from(if argument::<Ip>(&arguments, 0)?.0.is_ipv4() { 4 } else { 6 })))
    })?;
    env.add_member_overload("isUnspecified", "ip_is_unspecified", ip(), vec![], |arguments| {
        flag(argument::<Ip>(&arguments, 0)?.0.is_unspecified())
    })?;
    env.add_member_overload("isLoopback", "ip_is_loopback", ip(), vec![], |arguments| {
        flag(argument::<Ip>(&arguments, 0)?.0.is_loopback())
    })?;
    env.add_member_overload("isLinkLocalMulticast", "ip_is_link_local_multicast", ip(), vec![], |arguments| {
        flag(match argument::<Ip>(&arguments, 0)?.0 {
            IpAddr::V4(address) => address.octets()[..3] == [224, 0, 0],
            IpAddr::V6(address) => address.segments()[0] & 0xff0f == 0xff02,
        })
    })?;
    env.add_member_overload("isLinkLocalUnicast", "ip_is_link_local_unicast", ip(), vec![], |arguments| {
        flag(is_link_local(argument::<Ip>(&arguments, 0)?.0))
    })?;
    env.add_member_overload("isGlobalUnicast", "ip_is_global_unicast", ip(), vec![], |arguments| {
        let address = argument::<Ip>(&arguments, 0)?.0;
        let special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
        flag(!special && !is_link_local(address) && address != IpAddr::V4(Ipv4Addr::BROADCAST))
    })
}

fn networks(env: &mut Env) -> Result<(), DeclarationError> {
    let (cidr, ip) = (|| Cidr::cel_type().to_owned(), || Ip::cel_type().to_owned());
    env.add_overload("isCIDR", "is_cidr", vec![STRING_TYPE], |arguments| {
        flag(parse_cidr(text(&arguments, 0)?).is_ok())
    })?;
    env.add_overload("cidr", "string_to_cidr", vec![STRING_TYPE], |arguments| {
        Ok(CowVal::owned(Cidr(parse_cidr(text(&arguments, 0)?)?)))
    })?;
    env.add_overload("string", "cidr_to_string", vec![cidr()], |arguments| {
        let (address, bits) = network(&arguments)?;
        written(format!("{address}/{bits}"))
    })?;
    env.add_member_overload("containsIP", "cidr_contains_ip_string", cidr(), vec![STRING_TYPE], |arguments| {
        flag(contains(network(&arguments)?, (parse_ip(text(&arguments, 1)?)?, u8::MAX)))
    })?;
    env.add_member_overload("containsIP", "cidr_contains_ip_ip", cidr(), vec![ip()], |arguments| {
        flag(contains(network(&arguments)?, (argument::<Ip>(&arguments, 1)?.0, u8::MAX)))
    })?;
    env.add_member_overload("containsCIDR", "cidr_contains_cidr_string", cidr(), vec![STRING_TYPE], |arguments| {
        flag(contains(network(&arguments)?, parse_cidr(text(&arguments, 1)?)?))
    })?;
    env.add_member_overload("containsCIDR", "cidr_contains_cidr", cidr(), vec![cidr()], |arguments| {
        flag(contains(network(&arguments)?, argument::<Cidr>(&arguments, 1)?.0))
    })?;
    env.add_member_overload("ip", "cidr_ip", cidr(), vec![], |arguments| {
        Ok(CowVal::owned(Ip(network(&arguments)?.0)))
    })?;
    env.add_member_overload("masked", "cidr_masked", cidr(), vec![], |arguments| {
        let (address, bits) = network(&arguments)?;
        Ok(CowVal::owned(Cidr((masked(address, bits), bits))))
    })?;
    env.add_member_overload("prefixLength", "cidr_prefix_length", cidr(), vec![], |arguments| {
        Ok(CowVal::owned(CelInt::from(i64::from(network(&arguments)?.1))))
    })
}

fn parts<'a>(arguments: &'a [CowVal<'_, '_>]) -> Result<&'a Parts, ExecutionError> {
    Ok(&argument::<Url>(arguments, 0)?.0)
}

fn network(arguments: &[CowVal<'_, '_>]) -> Result<(IpAddr, u8), ExecutionError> {
    Ok(argument::<Cidr>(arguments, 0)?.0)
}

/// As Go's `url.ParseRequestURI`: absolute, or an absolute path.
fn parse_url(text: &str) -> Option<Parts> {
    if text.is_empty() || text.chars().any(|character| character.is_control() || character == ' ') {
        return None;
    }
    let (before, query) = text.split_once('?').unwrap_or((text, ""));
    let (scheme, rest) = match before.split_once(':') {
        _ if before.starts_with('/') => ("", before),
        Some((scheme, rest)) => (scheme, rest),
        None => return None,
    };
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    if !scheme.bytes().all(letters) || scheme.starts_with(|first: char| !first.is_ascii_alphabetic()) {
        return None;
    }
    if !scheme.is_empty() && !rest.starts_with('/') {
        return None;
    }
    let (authority, path) = match rest.strip_prefix("//").filter(|_| !scheme.is_empty()) {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("", rest),
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (name, port) = host_and_port(host);
    let fine = |character: char| character.is_alphanumeric() || "-._~%!$&'()*+,;=:[]".contains(character);
    if !name.chars().all(fine) || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if path
        .split('%')
        .skip(1)
        .any(|rest| !rest.as_bytes().get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)))
    {
        return None;
    }
    let query = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (unescape(name), unescape(value))
    });
    Some(Parts {
        scheme: scheme.to_ascii_lowercase(),
        host: host.to_owned(),
        path: path.to_owned(),
        query: query.collect(),
    })
}

fn host_and_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    }
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(*first),
        }
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Upstream takes neither zones nor v4 addresses written as v6.
fn parse_ip(text: &str) -> Result<IpAddr, ExecutionError> {
    let address: Result<IpAddr, _> = text.parse();
    match address {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            Err(wrong(format!("IPv4-mapped IPv6 address {text:?} is not allowed")))
        }
        Ok(address) => Ok(address),
        Err(_) => Err(wrong(format!(
            "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"
        ))),
    }
}

fn parse_cidr(text: &str) -> Result<(IpAddr, u8), ExecutionError> {
    let broken = || {
        wrong(format!(
            "network address parse error during conversion from string: netip.ParsePrefix({text:?}): no valid prefix"
        ))
    };
    let (address, bits) = text.split_once('/').ok_or_else(broken)?;
    let address = parse_ip(address).map_err(|_| broken())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let plain = bits == "0" || (!bits.starts_with('0') && bits.bytes().all(|byte| byte.is_ascii_digit()));
    let bits = bits.parse::<u8>().ok().filter(|bits| plain && *bits <= most).ok_or_else(broken)?;
    Ok((address, bits))
}

fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

fn contains(outer: (IpAddr, u8), inner: (IpAddr, u8)) -> bool {
    outer.0.is_ipv4() == inner.0.is_ipv4() && outer.1 <= inner.1 && masked(outer.0, outer.1) == masked(inner.0, outer.1)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.segments()[0] & 0xffc0 == 0xfe80,
    }
}
