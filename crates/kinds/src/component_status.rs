//! core/v1 ComponentStatus: how the scheduler, the controller manager and the store are. Its objects are made when somebody asks,
//! as upstream's (`pkg/registry/core/componentstatus/rest.go`).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ComponentCondition, ComponentStatus as Object};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::Verb;
use machinery::field::ErrorList;
use registry::ComponentHealth;
use registry::kind::{Column, Descriptor, Kind, cell_name};
use serde_json::Value;

use super::common::{list, text};

const HEALTHY: &str = "Healthy";

/// ComponentStatuses.
pub(crate) struct ComponentStatus;

impl Kind for ComponentStatus {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["cs"],
        verbs: &[Verb::Get, Verb::List],
        computed: true,
        deprecation: Some("v1 ComponentStatus is deprecated in v1.19+"),
        ..Descriptor::cluster("", "v1", "ComponentStatus", "componentstatuses")
    };

    fn compute(components: &[ComponentHealth]) -> Vec<Object> {
        let status = |ComponentHealth { name, fault }: &ComponentHealth| Object {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            conditions: Some(vec![ComponentCondition {
                type_: HEALTHY.to_owned(),
                status: if fault.is_none() { "True" } else { "False" }.to_owned(),
                message: fault.is_none().then(|| "ok".to_owned()),
                error: fault.clone(),
            }]),
        };
        components.iter().map(status).collect()
    }

    /// Nobody writes one.
    fn validate(_object: &Object) -> ErrorList {
        ErrorList::new()
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::string("Status", "Whether the component works."),
            Column::string("Message", "What the component says."),
            Column::string("Error", "Why it does not work."),
        ]
    }

    fn row(object: &Object, _now: Timestamp) -> Vec<Value> {
        let condition = list(&object.conditions).iter().find(|condition| condition.type_ == HEALTHY);
        let status = match condition {
            None => "Unknown",
            Some(condition) if condition.status == "True" => HEALTHY,
            Some(_) => "Unhealthy",
        };
        let said =
            |of: fn(&ComponentCondition) -> &Option<String>| condition.map_or("", |condition| text(of(condition)));
        vec![
            cell_name(&object.metadata),
            status.into(),
            said(|condition| &condition.message).into(),
            said(|condition| &condition.error).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::row;

    #[test]
    fn a_component_is_what_it_says() {
        let health = |name: &str, fault: Option<&str>| ComponentHealth {
            name: name.to_owned(),
            fault: fault.map(str::to_owned),
        };
        let made = ComponentStatus::compute(&[health("etcd-0", None), health("scheduler", Some("it ended"))]);
        let rows: Vec<Vec<Value>> =
            made.iter().map(|object| row::<ComponentStatus>(serde_json::to_value(object).expect("JSON"))).collect();
        let expect = [
            [json!("etcd-0"), json!("Healthy"), json!("ok"), json!("")],
            [json!("scheduler"), json!("Unhealthy"), json!(""), json!("it ended")],
        ];
        assert_eq!(rows, expect);
        assert_eq!(row::<ComponentStatus>(json!({ "metadata": { "name": "x" } }))[1], "Unknown");
    }
}
