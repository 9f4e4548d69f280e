//! A container's environment.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, PodSpec};

use crate::types::References;
use crate::values::expand;
use crate::values::fields::{self, Addresses};
use crate::values::resources::{self, Allocatable};

/// All that an environment is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources<'a> {
    /// The pod.
    pub(crate) pod: &'a Pod,
    /// Its addresses.
    pub(crate) addresses: &'a Addresses,
    /// What the node can give.
    pub(crate) allocatable: Allocatable,
    /// What it refers to.
    pub(crate) references: &'a References,
    /// Variables that tell of services.
    pub(crate) services: &'a BTreeMap<String, String>,
}

/// The environment of `container`, in the order of its definition, services last. The error is the message of
/// `CreateContainerConfigError`.
pub(crate) fn environment(sources: Sources<'_>, container: &Container) -> Result<Vec<(String, String)>, String> {
    let mut result = Environment::default();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            match sources.references.config_maps.get(&reference.name) {
                Some(config_map) => {
                    for (key, value) in config_map.data.iter().flatten() {
                        result.set(&format!("{prefix}{key}"), value.clone());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(format!("configmap \"{}\" not found", reference.name)),
            }
        }
        if let Some(reference) = &source.secret_ref {
            match sources.references.secrets.get(&reference.name) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        let value = String::from_utf8_lossy(&value.0).into_owned();
                        result.set(&format!("{prefix}{key}"), value);
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(format!("secret \"{}\" not found", reference.name)),
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value {
            Some(value) if !value.is_empty() => {
                let lookup = |name: &str| result.get(name).or_else(|| sources.services.get(name).cloned());
                Some(expand(value, lookup))
            }
            _ if variable.value_from.is_some() => from(sources, container, variable)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            result.set(&variable.name, value);
        }
    }
    for (name, value) in sources.services {
        if result.get(name).is_none() {
            result.set(name, value.clone());
        }
    }
    Ok(result.variables)
}

/// The value of a variable that comes from somewhere; none if that is optional and missing.
fn from(sources: Sources<'_>, container: &Container, variable: &EnvVar) -> Result<Option<String>, String> {
    let Some(from) = &variable.value_from else {
        return Ok(None);
    };
    let namespace = sources.pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(field) = &from.field_ref {
        return fields::value(sources.pod, &field.field_path, sources.addresses).map(Some);
    }
    if let Some(field) = &from.resource_field_ref {
        let empty = PodSpec::default();
        let spec = sources.pod.spec.as_ref().unwrap_or(&empty);
        return resources::field(spec, Some(container), field, sources.allocatable).map(Some);
    }
    if let Some(reference) = &from.config_map_key_ref {
        let optional = reference.optional == Some(true);
        let (name, key) = (&reference.name, &reference.key);
        let Some(config_map) = sources.references.config_maps.get(name) else {
            return missing(optional, format!("configmap \"{name}\" not found"));
        };
        let value = config_map.data.as_ref().and_then(|data| data.get(key));
        return match value {
            Some(value) => Ok(Some(value.clone())),
            None => missing(optional, format!("couldn't find key {key} in ConfigMap {namespace}/{name}")),
        };
    }
    if let Some(reference) = &from.secret_key_ref {
        let optional = reference.optional == Some(true);
        let (name, key) = (&reference.name, &reference.key);
        let Some(secret) = sources.references.secrets.get(name) else {
            return missing(optional, format!("secret \"{name}\" not found"));
        };
        let value = secret.data.as_ref().and_then(|data| data.get(key));
        return match value {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None => missing(optional, format!("couldn't find key {key} in Secret {namespace}/{name}")),
        };
    }
    Ok(None)
}

fn missing(optional: bool, message: String) -> Result<Option<String>, String> {
    match optional {
        true => Ok(None),
        false => Err(message),
    }
}

/// Variables in the order in which they were first set; the last value counts.
#[derive(Default)]
struct Environment {
    variables: Vec<(String, String)>,
    positions: HashMap<String, usize>,
}

impl Environment {
    fn get(&self, name: &str) -> Option<String> {
        let (_, value) = self.variables.get(*self.positions.get(name)?)?;
        Some(value.clone())
    }

    fn set(&mut self, name: &str, value: String) {
        // What no program could read is left out, as upstream does.
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return;
        }
        if let Some(variable) = self.positions.get(name).and_then(|position| self.variables.get_mut(*position)) {
            variable.1 = value;
            return;
        }
        self.positions.insert(name.to_owned(), self.variables.len());
        self.variables.push((name.to_owned(), value));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use serde_json::{Value, json};

    #[allow(clippy::needless_pass_by_value)] // Cases read best with `json!` in place.
    fn check(container: Value, expect: Result<&[&str], &str>) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "ns"}, "spec": {"containers": [container]}}))
        .unwrap();
        let config_map = json!({"metadata": {"name": "cm"}, "data": {"a": "1", "b": "2"}});
        let secret = json!({"metadata": {"name": "s"}, "data": {"password": "aHVzaA=="}});
        let references = References {
            config_maps: [("cm".to_owned(), Arc::new(serde_json::from_value(config_map).unwrap()))].into(),
            secrets: [("s".to_owned(), Arc::new(serde_json::from_value(secret).unwrap()))].into(),
            ..References::default()
        };
        let services = [("WEB_PORT".to_owned(), "80".to_owned())].into();
        let sources = Sources {
            pod: &pod,
            addresses: &Addresses { pod: vec!["10.0.0.2".parse().unwrap()], host: "192.168.0.1".parse().unwrap() },
            allocatable: Allocatable { milli_cpu: 4000, memory: 1 << 30, storage: 0 },
            references: &references,
            services: &services,
        };
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let result = environment(sources, container).map(|variables| {
            let line = |(name, value): &(String, String)| format!("{name}={value}");
            variables.iter().map(line).collect::<Vec<_>>()
        });
        let expect = expect.map(|lines| lines.iter().map(|line| (*line).to_owned()).collect()).map_err(str::to_owned);
        assert_eq!(result, expect);
    }

    #[test]
    fn values_refer_to_earlier_ones_and_to_services() {
        check(
            json!({"name": "c", "env": [
                {"name": "A", "value": "x"}, {"name": "B", "value": "$(A)-$(WEB_PORT)-$(C)"},
                {"name": "C"}, {"name": "A", "value": "y$(A)"}]}),
            Ok(&["A=yx", "B=x-80-$(C)", "C=", "WEB_PORT=80"]),
        );
    }

    #[test]
    fn own_variables_replace_those_of_services() {
        check(json!({"name": "c", "env": [{"name": "WEB_PORT", "value": "mine"}]}), Ok(&["WEB_PORT=mine"]));
    }

    #[test]
    fn whole_objects_with_prefix() {
        check(
            json!({"name": "c", "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "s"}},
                {"configMapRef": {"name": "none", "optional": true}}], "env": [{"name": "P_a", "value": "own"}]}),
            Ok(&["P_a=own", "P_b=2", "password=hush", "WEB_PORT=80"]),
        );
    }

    #[test]
    fn single_keys() {
        let from = |from: Value| json!({"name": "c", "env": [{"name": "V", "valueFrom": from}]});
        check(from(json!({"configMapKeyRef": {"name": "cm", "key": "b"}})), Ok(&["V=2", "WEB_PORT=80"]));
        check(from(json!({"secretKeyRef": {"name": "s", "key": "password"}})), Ok(&["V=hush", "WEB_PORT=80"]));
        check(from(json!({"secretKeyRef": {"name": "s", "key": "no", "optional": true}})), Ok(&["WEB_PORT=80"]));
        check(from(json!({"fieldRef": {"fieldPath": "status.podIP"}})), Ok(&["V=10.0.0.2", "WEB_PORT=80"]));
        check(from(json!({"resourceFieldRef": {"resource": "limits.cpu"}})), Ok(&["V=4", "WEB_PORT=80"]));
    }

    #[test]
    fn what_is_missing_is_named() {
        let from = |from: Value| json!({"name": "c", "env": [{"name": "V", "valueFrom": from}]});
        for (container, error) in [
            (from(json!({"configMapKeyRef": {"name": "no", "key": "b"}})), "configmap \"no\" not found"),
            (from(json!({"configMapKeyRef": {"name": "cm", "key": "no"}})), "couldn't find key no in ConfigMap ns/cm"),
            (from(json!({"secretKeyRef": {"name": "no", "key": "b"}})), "secret \"no\" not found"),
            (from(json!({"secretKeyRef": {"name": "s", "key": "no"}})), "couldn't find key no in Secret ns/s"),
            (json!({"name": "c", "envFrom": [{"configMapRef": {"name": "no"}}]}), "configmap \"no\" not found"),
        ] {
            check(container, Err(error));
        }
    }
}
