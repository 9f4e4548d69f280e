//! Bodies as clients send them, and what they are told about faults in them.

use super::*;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::core::v1::{Pod, Secret};

fn decoded<T: DeserializeOwned>(body: &str) -> (Result<T, DecodeError>, Vec<String>) {
    let mut report = Report::collect();
    let result = decode(body.as_bytes(), &mut report);
    (result, report.into_findings())
}

#[test]
fn unknown_and_duplicate_fields_are_reported_with_their_paths() {
    for (body, expect) in [
        (r#"{"kind":"Deployment","apiVersion":"apps/v1"}"#, &[][..]),
        (r#"{"spec":{"foo":1,"replicas":2}}"#, &[r#"unknown field "spec.foo""#]),
        (
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"a"},{"imagee":"b","name":"c"}]}}},"x":{"y":1}}"#,
            &[r#"unknown field "spec.template.spec.containers[1].imagee""#, r#"unknown field "x""#],
        ),
        (r#"{"spec":{"replicas":1,"replicas":2}}"#, &[r#"duplicate field "spec.replicas""#]),
        (
            r#"{"metadata":{"labels":{"a":"1","a":"2","a":"3"}},"metadata":{}}"#,
            &[r#"duplicate field "metadata.labels.a""#, r#"duplicate field "metadata""#],
        ),
    ] {
        let (result, findings) = decoded::<Deployment>(body);
        assert!(result.is_ok(), "{body}: {result:?}");
        assert_eq!(findings, expect, "{body}");
    }
}

#[test]
fn many_keys_are_still_searched_for_duplicates() {
    let labels: Vec<String> = (0..100).chain([50]).map(|n| format!(r#""k{n}":"v""#)).collect();
    let (_, findings) = decoded::<Deployment>(&format!(r#"{{"metadata":{{"labels":{{{}}}}}}}"#, labels.join(",")));
    assert_eq!(findings, [r#"duplicate field "metadata.labels.k50""#]);
}

#[test]
fn wrong_types_are_refused_in_upstreams_words() {
    for (body, expect) in [
        (
            r#"{"spec":{"replicas":"two"}}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec":{"replicas":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec":{"replicas":3000000000}}"#,
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":{"name":"a"}}}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":[{"image":1}]}}}}"#,
            "json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.image of type string",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":["a"]}}}}"#,
            "json: cannot unmarshal string into Go struct field PodSpec.spec.template.spec.containers of type v1.Container",
        ),
        (
            r#"{"metadata":{"labels":{"a":true}}}"#,
            "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            r#"{"spec":{"paused":"yes"}}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.paused of type bool",
        ),
        (
            r#"{"spec":[]}"#,
            "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec",
        ),
        ("[]", "json: cannot unmarshal array into Go value of type v1.Deployment"),
        (
            r#"{"metadata":{"creationTimestamp":"soon"}}"#,
            r#"parsing time "soon" as "2006-01-02T15:04:05Z07:00": cannot parse "soon" as "2006""#,
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":[{"resources":{"limits":{"cpu":"much"}}}]}}}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ] {
        let (result, _) = decoded::<Deployment>(body);
        assert_eq!(result.err(), Some(DecodeError::Value(expect.into())), "{body}");
    }
    let (result, _) = decoded::<Secret>(r#"{"data":{"a":"MTIz!"}}"#);
    assert_eq!(result.err(), Some(DecodeError::Value("illegal base64 data at input byte 4".into())));
}

#[test]
fn null_in_a_list_is_the_zero_value() {
    let (pod, findings) = decoded::<Pod>(r#"{"spec":{"containers":[null],"tolerations":[null,{"key":"a"}]}}"#);
    let spec = pod.unwrap().spec.unwrap();
    let tolerations = spec.tolerations.unwrap();
    assert_eq!((spec.containers.len(), spec.containers[0].name.as_str()), (1, ""));
    assert_eq!((tolerations.len(), &tolerations[0].key, tolerations[1].key.as_deref()), (2, &None, Some("a")));
    assert_eq!(findings, [""; 0]);
}

#[test]
fn broken_json_is_refused_in_gos_words() {
    for (body, expect) in [
        ("", "unexpected end of JSON input"),
        (r#"{"spec":"#, "unexpected end of JSON input"),
        ("abc", "invalid character 'a' looking for beginning of value"),
        (r#"{"spec":{}} x"#, "invalid character 'x' after top-level value"),
        (r#"{"spec":{} "x":1}"#, "invalid character '\"' after object key:value pair"),
        (r#"{spec:{}}"#, "invalid character 's' looking for beginning of object key string"),
    ] {
        let (result, _) = decoded::<Deployment>(body);
        assert_eq!(result.err(), Some(DecodeError::Syntax(expect.into())), "{body}");
    }
}

#[test]
fn what_is_nested_too_deeply_or_grows_too_large_is_refused() {
    let refused = |result: Result<ControllerRevision, DecodeError>| result.err().map(|error| error.to_string());
    let nested = |levels: usize| format!(r#"{{"data":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    for (levels, expect) in
        [(99, None), (100, Some("exceeded max depth of 100")), (3_000, Some("exceeded max depth of 100"))]
    {
        assert_eq!(refused(decoded(&nested(levels)).0).as_deref(), expect, "{levels}");
    }
    // What nobody knows is skipped, however deep it is.
    let (unknown, findings) = decoded::<ControllerRevision>(&nested(10_000).replace("data", "date"));
    assert!(unknown.is_ok() && findings == [r#"unknown field "date""#], "{findings:?}");

    let containers = track::MAX_MEMORY / size_of::<k8s_openapi::api::core::v1::Container>();
    let body = format!(r#"{{"spec":{{"containers":[{}{{}}]}}}}"#, "{},".repeat(containers));
    assert!(body.len() < 3 << 20, "a body that is let in");
    let (pod, _) = decoded::<Pod>(&body);
    assert_eq!(pod.err(), Some(DecodeError::Value("the object has too many elements".into())));
}

#[test]
fn notes_come_to_an_end() {
    let fields: Vec<String> = (0..1000).map(|n| format!(r#""x{n}":0"#)).collect();
    let (pod, findings) = decoded::<Pod>(&format!("{{{}}}", fields.join(",")));
    assert_eq!((pod.is_ok(), findings.len()), (true, 100));
}

#[test]
fn what_go_lets_pass_passes() {
    let body = r#"{"metadata":{"name":null,"annotations":{"a":null}},"spec":{"nodeName":null,"containers":[{
        "name":"a","args":[null,"b"],"resources":{"limits":{"cpu":0.5,"memory":1073741824,"x":"1000m","y":null}}}]}}"#;
    let (pod, findings) = decoded::<Pod>(body);
    assert_eq!(findings, [""; 0]);
    let pod = pod.unwrap();
    assert_eq!(pod.metadata.annotations.unwrap()["a"], "");
    let container = &pod.spec.unwrap().containers[0];
    assert_eq!(container.args.as_deref(), Some(&[String::new(), "b".into()][..]));
    let limits = container.resources.clone().unwrap().limits.unwrap();
    let limits: Vec<(&str, &str)> =
        limits.iter().map(|(name, quantity)| (name.as_str(), quantity.0.as_str())).collect();
    assert_eq!(limits, [("cpu", "500m"), ("memory", "1073741824"), ("x", "1"), ("y", "0")]);
}

#[test]
fn the_type_of_a_body() {
    let meta = TypeMeta::of(br#"{"kind":"Pod","spec":{},"apiVersion":"v1"}"#);
    assert_eq!((meta.api_version.as_str(), meta.kind.as_str()), ("v1", "Pod"));
    assert_eq!(TypeMeta::of(b"[").kind, "");
}
