//! flowcontrol.apiserver.k8s.io/v1 PriorityLevelConfiguration. The rules are those of upstream's
//! `pkg/apis/flowcontrol/validation/validation.go`.

use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::{
    LimitResponse, LimitedPriorityLevelConfiguration, PriorityLevelConfiguration as Object,
    PriorityLevelConfigurationSpec, QueuingConfiguration,
};
use machinery::field::{ErrorList, Path};
use registry::kind::{Column, Descriptor, Kind, MetadataReset, Subresource, cell_age, cell_name, spec_and_status};
use serde_json::Value;

use super::flow_schema::condition_types;
use super::{EXEMPT, GROUP, bootstrap};
use crate::check::Report;
use crate::common::{list, text};

// Upstream: `pkg/apis/flowcontrol/v1/defaults.go`.
const DEFAULT_SHARES: i32 = 30;
const DEFAULT_QUEUES: i32 = 64;
const DEFAULT_HAND_SIZE: i32 = 8;
const DEFAULT_QUEUE_LENGTH: i32 = 50;

const MAX_QUEUES: i32 = 10_000_000;
/// How many bits of a flow's hash the choice of its queues may take (upstream: `MaxHashBits` in
/// `apiserver/pkg/util/shufflesharding/shufflesharding.go`).
const MAX_HASH_BITS: u32 = 60;

/// PriorityLevelConfigurations.
pub(crate) struct PriorityLevelConfiguration;

impl Kind for PriorityLevelConfiguration {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        subresources: &[Subresource::Status],
        status_reset: MetadataReset::Everything,
        ..Descriptor::cluster(GROUP, "v1", "PriorityLevelConfiguration", "prioritylevelconfigurations")
    };

    spec_and_status!();

    fn default(object: &mut Object) {
        let Some(spec) = &mut object.spec else { return };
        if let Some(exempt) = &mut spec.exempt {
            exempt.nominal_concurrency_shares.get_or_insert(0);
            exempt.lendable_percent.get_or_insert(0);
        }
        let Some(limited) = &mut spec.limited else { return };
        limited.nominal_concurrency_shares.get_or_insert(DEFAULT_SHARES);
        limited.lendable_percent.get_or_insert(0);
        if let Some(queuing) = limited.limit_response.as_mut().and_then(|response| response.queuing.as_mut()) {
            for (field, default) in [
                (&mut queuing.hand_size, DEFAULT_HAND_SIZE),
                (&mut queuing.queues, DEFAULT_QUEUES),
                (&mut queuing.queue_length_limit, DEFAULT_QUEUE_LENGTH),
            ] {
                if field.unwrap_or_default() == 0 {
                    *field = Some(default);
                }
            }
        }
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let (path, name) = (Path::new("spec"), text(&object.metadata.name));
        let empty = PriorityLevelConfigurationSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&empty);
        validate_spec(&mut errors, &path, name, spec);
        if let Some(mut fixed) = bootstrap::mandatory_priority_level(name) {
            let mut except = "";
            if name == EXEMPT {
                // How much it lends is the administrator's.
                fixed.exempt.clone_from(&spec.exempt);
                except = " except the 'spec.exempt' field";
            }
            if *spec != fixed {
                errors.invalid(&path, spec, format!("spec of '{name}'{except} must equal the fixed value"));
            }
        }
        validate_conditions(&mut errors, object);
        errors
    }

    fn validate_status(new: &Object, _old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_conditions(&mut errors, new);
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::string("Type", "Whether requests of this level are limited."),
            Column::string("NominalConcurrencyShares", "The level's part of the server's seats."),
            Column::string("Queues", "How many queues requests of this level wait in."),
            Column::string("HandSize", "How many queues a flow may wait in."),
            Column::string("QueueLengthLimit", "How many requests a queue holds."),
            Column::age(),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let spec = object.spec.as_ref();
        let limited = spec.and_then(|spec| spec.limited.as_ref());
        let queuing = limited.and_then(|limited| limited.limit_response.as_ref()?.queuing.as_ref());
        let number = |value: Option<Option<i32>>| match value {
            Some(number) => number.unwrap_or_default().into(),
            None => Value::from("<none>"),
        };
        vec![
            cell_name(&object.metadata),
            spec.map_or("", |spec| &spec.type_).into(),
            number(limited.map(|limited| limited.nominal_concurrency_shares)),
            number(queuing.map(|queuing| queuing.queues)),
            number(queuing.map(|queuing| queuing.hand_size)),
            number(queuing.map(|queuing| queuing.queue_length_limit)),
            cell_age(&object.metadata, now),
        ]
    }
}

fn validate_spec(errors: &mut ErrorList, path: &Path, name: &str, spec: &PriorityLevelConfigurationSpec) {
    if (name == EXEMPT) != (spec.type_ == "Exempt") {
        errors.invalid(&path.child("type"), &spec.type_, "type must be 'Exempt' if and only if name is 'exempt'");
    }
    match spec.type_.as_str() {
        "Exempt" => {
            if spec.limited.is_some() {
                errors.forbidden(&path.child("limited"), "must be nil if the type is not Limited");
            }
            if let Some(exempt) = &spec.exempt {
                let path = path.child("exempt");
                shares(errors, &path, exempt.nominal_concurrency_shares);
                lendable(errors, &path, exempt.lendable_percent);
            }
        }
        "Limited" => {
            if spec.exempt.is_some() {
                errors.forbidden(&path.child("exempt"), "must be nil if the type is Limited");
            }
            match &spec.limited {
                None => errors.required(&path.child("limited"), "must not be empty when type is Limited"),
                Some(limited) => validate_limited(errors, &path.child("limited"), limited),
            }
        }
        other => errors.not_supported(&path.child("type"), other, &["Exempt", "Limited"]),
    }
}

fn validate_limited(errors: &mut ErrorList, path: &Path, limited: &LimitedPriorityLevelConfiguration) {
    shares(errors, path, limited.nominal_concurrency_shares);
    validate_response(errors, &path.child("limitResponse"), limited.limit_response.as_ref());
    lendable(errors, path, limited.lendable_percent);
    if let Some(percent) = limited.borrowing_limit_percent.filter(|percent| *percent < 0) {
        errors.invalid(&path.child("borrowingLimitPercent"), percent, "if specified, must be a non-negative integer");
    }
}

fn shares(errors: &mut ErrorList, path: &Path, shares: Option<i32>) {
    if let Some(shares) = shares.filter(|shares| *shares < 0) {
        errors.invalid(&path.child("nominalConcurrencyShares"), shares, "must be a non-negative integer");
    }
}

fn lendable(errors: &mut ErrorList, path: &Path, percent: Option<i32>) {
    if let Some(percent) = percent.filter(|percent| !(0..=100).contains(percent)) {
        errors.invalid(&path.child("lendablePercent"), percent, "must be between 0 and 100, inclusive");
    }
}

fn validate_response(errors: &mut ErrorList, path: &Path, response: Option<&LimitResponse>) {
    let queuing = response.and_then(|response| response.queuing.as_ref());
    let at = path.child("queuing");
    match (response.map_or("", |response| &response.type_), queuing) {
        ("Reject", Some(_)) => errors.forbidden(&at, "must be nil if limited.limitResponse.type is not Limited"),
        ("Queue", None) => errors.required(&at, "must not be empty if limited.limitResponse.type is Limited"),
        ("Queue", Some(queuing)) => validate_queuing(errors, &at, queuing),
        ("Reject", None) => {}
        (other, _) => errors.not_supported(&path.child("type"), other, &["Queue", "Reject"]),
    }
}

fn validate_queuing(errors: &mut ErrorList, path: &Path, queuing: &QueuingConfiguration) {
    let [length, queues, hand] =
        [queuing.queue_length_limit, queuing.queues, queuing.hand_size].map(Option::unwrap_or_default);
    if length <= 0 {
        errors.invalid(&path.child("queueLengthLimit"), length, "must be positive");
    }
    if queues <= 0 {
        errors.invalid(&path.child("queues"), queues, "must be positive");
    } else if queues > MAX_QUEUES {
        errors.invalid(&path.child("queues"), queues, format!("must not be greater than {MAX_QUEUES}"));
    }
    let path = path.child("handSize");
    if hand <= 0 {
        errors.invalid(&path, hand, "must be positive");
    } else if hand > queues {
        errors.invalid(&path, hand, format!("should not be greater than queues ({queues})"));
    } else if (f64::from(queues).log2() * f64::from(hand)).ceil() > f64::from(MAX_HASH_BITS) {
        let bounds = format!("deckSize {queues} and handSize {hand} should not be greater than {MAX_HASH_BITS}");
        errors.invalid(&path, hand, format!("required entropy bits of {bounds}"));
    }
}

fn validate_conditions(errors: &mut ErrorList, object: &Object) {
    let conditions = object.status.as_ref().map_or(&[][..], |status| list(&status.conditions));
    let path = Path::new("status").child("conditions");
    condition_types(errors, &path, conditions.iter().map(|condition| text(&condition.type_)));
}
