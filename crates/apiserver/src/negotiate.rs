//! Content negotiation: what a client wants to get, and what it sends.
//!
//! JSON and YAML are spoken, and protobuf for objects of the built-in kinds; custom resources have it for their metadata alone.
//! The representation (`as=Table`, `as=PartialObjectMetadata`) is a parameter of the media type; where a range asks for one an
//! endpoint does not have, the next range of the list is tried. Upstream's rules are `AllowsMediaTypeTransform` in apiserver
//! `pkg/endpoints/handlers/rest.go`.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use machinery::status::ApiError;

use crate::protobuf;

/// What everything is offered as.
pub(crate) const OFFERED: [&str; 2] = ["application/json", "application/yaml"];

/// How the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Encoding {
    /// `application/json`.
    #[default]
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

impl Encoding {
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => protobuf::MEDIA_TYPE,
        }
    }
}

/// What the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Shape {
    /// The object or list itself.
    #[default]
    Object,
    /// A `meta.k8s.io/v1` Table.
    Table,
    /// `meta.k8s.io/v1` metadata only, of an object or of a list's objects.
    Metadata(Metadata),
    /// Aggregated discovery.
    Discovery(DiscoveryVersion),
}

/// Which of the two kinds of metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metadata {
    /// `PartialObjectMetadata`: of one object, or of each in a watch.
    Object,
    /// `PartialObjectMetadataList`.
    List,
}

/// A version of `apidiscovery.k8s.io`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum DiscoveryVersion {
    V2,
    /// What clients of before 1.30 ask for.
    V2Beta1,
}

impl DiscoveryVersion {
    /// The version as it is written.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V2Beta1 => "v2beta1",
        }
    }
}

/// The outcome of a negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Output {
    pub(crate) encoding: Encoding,
    pub(crate) shape: Shape,
}

/// What an endpoint can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// A document, which has no protobuf form.
    Document,
    /// A document of discovery, or all of them aggregated.
    Discovery,
    /// What a write answers, and discovery of one group or version.
    Answer {
        /// The kind has no protobuf form.
        custom: bool,
    },
    /// Objects, also as Tables and metadata.
    Objects {
        /// The kind has no protobuf form.
        custom: bool,
    },
}

impl Offer {
    /// Whether the object itself may be had as protobuf.
    fn has_protobuf(self) -> bool {
        matches!(self, Self::Discovery | Self::Answer { custom: false } | Self::Objects { custom: false })
    }
}

/// Chooses the answer's form by the `Accept` header.
///
/// # Errors
/// 406 when nothing acceptable can be offered.
pub(crate) fn output(headers: &HeaderMap, offer: Offer) -> Result<Output, ApiError> {
    let mut ranges = headers.get_all(ACCEPT).iter();
    let (first, more) = (ranges.next(), ranges.next());
    // Three out of four requests.
    if let (None | Some(b"application/json" | b"*/*" | b""), None) = (first.map(http::HeaderValue::as_bytes), more) {
        return Ok(Output::default());
    }
    let mut best: Option<(u16, Output)> = None;
    for value in headers.get_all(ACCEPT) {
        let Ok(value) = value.to_str() else { continue };
        for range in value.split(',') {
            let Some((quality, output)) = accept(range, offer) else { continue };
            // Equal quality: the client's order.
            if best.is_none_or(|(so_far, _)| quality > so_far) {
                best = Some((quality, output));
            }
        }
    }
    best.map(|(_, output)| output).ok_or_else(|| {
        let protobuf = offer.has_protobuf().then_some(protobuf::MEDIA_TYPE);
        ApiError::not_acceptable(&OFFERED.into_iter().chain(protobuf).collect::<Vec<_>>())
    })
}

/// How an error is written: as protobuf where that is what a client would have got of an object, else as JSON.
pub(crate) fn error_encoding(headers: &HeaderMap) -> Encoding {
    match output(headers, Offer::Answer { custom: false }) {
        Ok(Output { encoding: Encoding::Protobuf, .. }) => Encoding::Protobuf,
        _ => Encoding::Json,
    }
}

/// What can be offered for one media range, and how much the client wants it (0 to 1000).
fn accept(range: &str, offer: Offer) -> Option<(u16, Output)> {
    let mut parts = range.split(';').map(str::trim);
    let encoding = match parts.next()? {
        "application/json" | "application/*" | "*/*" => Encoding::Json,
        "application/yaml" | "application/x-yaml" | "text/yaml" => Encoding::Yaml,
        protobuf::MEDIA_TYPE => Encoding::Protobuf,
        _ => return None,
    };
    let (mut quality, mut kind, mut group, mut version) = (1000, "", "", "");
    for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
        let value = value.trim().trim_matches('"');
        match name.trim() {
            "q" => quality = quality_of(value)?,
            "as" => kind = value,
            "g" => group = value,
            "v" => version = value,
            _ => {}
        }
    }
    if quality == 0 {
        return None;
    }
    let in_protobuf = encoding == Encoding::Protobuf;
    let shape = match (offer, kind, group, version) {
        (_, "", ..) if !in_protobuf || offer.has_protobuf() => Shape::Object,
        (Offer::Objects { .. }, "PartialObjectMetadata", "meta.k8s.io", "v1") => Shape::Metadata(Metadata::Object),
        (Offer::Objects { .. }, "PartialObjectMetadataList", "meta.k8s.io", "v1") => Shape::Metadata(Metadata::List),
        (Offer::Discovery, "APIGroupDiscoveryList", "apidiscovery.k8s.io", version) => {
            let versions = [DiscoveryVersion::V2, DiscoveryVersion::V2Beta1];
            Shape::Discovery(versions.into_iter().find(|known| known.as_str() == version)?)
        }
        // Neither Tables nor other documents have a protobuf form, upstream's Tables included.
        _ if in_protobuf => return None,
        (Offer::Objects { .. }, "Table", "meta.k8s.io", "v1") => Shape::Table,
        _ => return None,
    };
    Some((quality, Output { encoding, shape }))
}

/// `0.8` as 800; `None` when it is no number.
fn quality_of(text: &str) -> Option<u16> {
    let quality: f32 = text.parse().ok()?;
    // Between 0 and 1000 after the clamp; a NaN becomes 0.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1000")]
    let thousandths = (quality * 1000.0).clamp(0.0, 1000.0) as u16;
    Some(thousandths)
}

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    Json,
    Yaml,
    Protobuf,
}

/// Reads the `Content-Type` of an object; none at all means JSON, as upstream has it.
///
/// # Errors
/// 415 for anything else than JSON, YAML and protobuf.
pub(crate) fn input(headers: &HeaderMap) -> Result<Input, ApiError> {
    match media_type(headers) {
        "" | "application/json" | "*/*" => Ok(Input::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" => Ok(Input::Yaml),
        protobuf::MEDIA_TYPE => Ok(Input::Protobuf),
        _ => Err(ApiError::unsupported_media_type(&OFFERED)),
    }
}

/// The media type of the body, without its parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const OBJECTS: Offer = Offer::Objects { custom: false };
    const CUSTOM: Offer = Offer::Objects { custom: true };
    const ANSWER: Offer = Offer::Answer { custom: false };

    fn check(accept: &str, offer: Offer) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
        match output(&headers, offer) {
            Ok(output) => format!("{:?} {:?}", output.encoding, output.shape),
            Err(error) => error.code.to_string(),
        }
    }

    #[test]
    fn what_clients_send() {
        let kubectl_get = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let kubectl_discovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        let metadata_client = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
        for (accept, offer, expect) in [
            ("", OBJECTS, "Json Object"),
            ("*/*", OBJECTS, "Json Object"),
            ("application/json", OBJECTS, "Json Object"),
            ("application/json, */*", OBJECTS, "Json Object"),
            ("application/yaml", OBJECTS, "Yaml Object"),
            (kubectl_get, OBJECTS, "Json Table"),
            (kubectl_get, Offer::Document, "Json Object"),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", OBJECTS, "Json Object"),
            ("application/json;as=Table;v=v9;g=meta.k8s.io", OBJECTS, "406"),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
                OBJECTS,
                "Json Metadata(List)",
            ),
            (kubectl_discovery, Offer::Discovery, "Json Discovery(V2)"),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json",
                Offer::Discovery,
                "Json Discovery(V2Beta1)",
            ),
            ("application/vnd.kubernetes.protobuf", OBJECTS, "Protobuf Object"),
            ("application/vnd.kubernetes.protobuf,application/json", OBJECTS, "Protobuf Object"),
            ("application/json,application/vnd.kubernetes.protobuf", OBJECTS, "Json Object"),
            ("application/vnd.kubernetes.protobuf;q=0.5,application/json", OBJECTS, "Json Object"),
            ("application/vnd.kubernetes.protobuf;stream=watch", OBJECTS, "Protobuf Object"),
            ("application/vnd.kubernetes.protobuf,application/json", ANSWER, "Protobuf Object"),
            ("application/vnd.kubernetes.protobuf", CUSTOM, "406"),
            ("application/vnd.kubernetes.protobuf,application/json", CUSTOM, "Json Object"),
            ("application/vnd.kubernetes.protobuf", Offer::Document, "406"),
            ("application/vnd.kubernetes.protobuf", Offer::Discovery, "Protobuf Object"),
            (
                "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
                Offer::Discovery,
                "Protobuf Discovery(V2)",
            ),
            (metadata_client, OBJECTS, "Protobuf Metadata(Object)"),
            (metadata_client, CUSTOM, "Protobuf Metadata(Object)"),
            (metadata_client, ANSWER, "Json Object"),
            (
                "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1;g=meta.k8s.io",
                OBJECTS,
                "Json Table",
            ),
            ("application/json;q=0.1,application/yaml;q=0.9", OBJECTS, "Yaml Object"),
            ("application/yaml;q=0,application/json", OBJECTS, "Json Object"),
            ("application/json;q=0", OBJECTS, "406"),
            ("application/json;q=x", OBJECTS, "406"),
            ("text/html,application/xhtml+xml,*/*;q=0.8", OBJECTS, "Json Object"),
            ("text/html", OBJECTS, "406"),
            ("application/json;stream=watch", OBJECTS, "Json Object"),
            ("application/json;charset=utf-8", OBJECTS, "Json Object"),
        ] {
            assert_eq!(check(accept, offer), expect, "{accept}");
        }
    }

    #[test]
    fn what_bodies_are_written_in() {
        for (kind, expect) in [
            ("", Some(Input::Json)),
            ("application/json", Some(Input::Json)),
            ("application/json; charset=utf-8", Some(Input::Json)),
            ("application/yaml", Some(Input::Yaml)),
            ("application/vnd.kubernetes.protobuf", Some(Input::Protobuf)),
            ("application/cbor", None),
            ("text/plain", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            let found = input(&headers);
            assert_eq!(found.as_ref().ok().copied(), expect, "{kind}");
            if let Err(error) = found {
                assert_eq!(error.code, 415);
            }
        }
    }
}
