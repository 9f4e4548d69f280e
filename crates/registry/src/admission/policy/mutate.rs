//! What a mutating policy makes of an object
//! (`staging/src/k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch`).

use std::fmt::Write;
use std::sync::Arc;

use machinery::api_types::ApiType;
use machinery::expression::{Evaluation, TOTAL_LIMIT, Value};
use machinery::managed::{self, BuiltIn, List, Place, Topology};
use machinery::patch::{self, PatchError};
use machinery::status::ApiError;
use serde_json::Value as Json;

use super::compiled::{Expression, Mutation, PatchType};
use super::{Mutations, Policy};
use crate::admission::Attributes;
use crate::admission::conditions::{Broken, Facts, asked, evaluate, is_whole, shown};
use crate::admission::scope::Match;
use crate::decode::Report;
use crate::object::Object;
use crate::table::{Resource, api_version};

/// Why a mutation changes nothing.
pub(in crate::admission) enum Refusal {
    /// The policy fails, which its `failurePolicy` may ignore.
    Policy(String),
    /// The request fails, whatever the policy says.
    Request(ApiError),
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self::Request(error)
    }
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self::Policy(why)
    }
}

/// The object of a request in the version that a policy is about, and the facts for its expressions.
pub(in crate::admission) struct Versioned {
    found: Arc<Match>,
    /// The row of that version, where the object is one of the resource itself.
    row: Option<Resource>,
    json: Json,
    pub(in crate::admission) facts: Facts,
}

impl Versioned {
    /// The object of a request as a policy sees it that the request is within the scope of.
    ///
    /// # Errors
    /// When it cannot be converted.
    pub(in crate::admission) fn new(
        attributes: &Attributes<'_>,
        object: &dyn Object,
        found: &Arc<Match>,
    ) -> Result<Self, ApiError> {
        let whole = is_whole(attributes);
        let row = match found.row() {
            Some(row) => whole.then(|| Resource::clone(row)),
            None => whole.then(|| asked(attributes)).transpose()?,
        };
        let json = shown(attributes, object, found.row())?;
        let facts = Facts::of_shown(attributes, Some(object), &json, found)?;
        Ok(Self { found: Arc::clone(found), row, json, facts })
    }

    /// Whether it is what a policy sees that the request is within the scope of.
    pub(in crate::admission) fn is_of(&self, found: &Match) -> bool {
        self.found.is_same(found)
    }

    /// What the object of the request becomes by a mutation; nothing when it stays as it is.
    ///
    /// # Errors
    /// Why it cannot be carried out.
    pub(in crate::admission) fn mutated(
        &self,
        attributes: &Attributes<'_>,
        object: &dyn Object,
        (policy, mutation): (&Policy<Mutations>, &Mutation),
        (params, namespace): (&Value, &Value),
    ) -> Result<Option<Box<dyn Object>>, Refusal> {
        let Expression { text, program } = &mutation.expression;
        let values = self.facts.values(namespace, policy.params(params));
        // Upstream: each mutation has a budget of its own, and variables are of the object as it is then.
        let evaluation = Evaluation::new(values, Arc::clone(&policy.variables), TOTAL_LIMIT);
        let made = evaluate(&evaluation, text, program).map_err(|broken| match broken {
            Broken::Expression(why) | Broken::Budget(why) => why,
        })?;
        let patched = match mutation.patch_type {
            PatchType::ApplyConfiguration => self.applied(attributes, made.to_configuration()?)?,
            PatchType::JsonPatch => match patch::json_patch(&self.json, &made.to_json_patch()?) {
                Ok(patched) => patched,
                // Upstream: what is not as it is tested for is left alone.
                Err(PatchError::TestFailed(_)) => return Ok(None),
                Err(error) => return Err(format!("JSONPath: {error}").into()),
            },
        };
        if patched == self.json {
            return Ok(None);
        }
        machinery::depth::check(&patched).map_err(|error| error.to_string())?;
        self.decoded(attributes, object, &patched, mutation.patch_type).map(Some)
    }

    /// The object with a configuration merged into it.
    fn applied(&self, attributes: &Attributes<'_>, mut configuration: Json) -> Result<Json, Refusal> {
        for field in ["apiVersion", "kind"] {
            configuration[field] = self.json[field].clone();
        }
        let refused = |why: String| Refusal::Policy(format!("error applying patch: {why}"));
        let untyped = |why: String| refused(format!("failed to convert patch object to typed object: {why}"));
        let place = match &self.row {
            Some(row) => {
                let mut report = Report::collect();
                let body = configuration.to_string();
                row.decode(body.as_bytes(), &mut report).map_err(|error| untyped(error.to_string()))?;
                if let Some(unknown) = report.findings().first() {
                    let field = unknown.strip_prefix("unknown field \"").and_then(|rest| rest.strip_suffix('"'));
                    let why = field.map(|field| format!(".{field}: field not declared in schema"));
                    return Err(untyped(why.unwrap_or_else(|| unknown.clone())));
                }
                row.served_place()
            }
            None => place_of_subresource(attributes)?,
        };
        managed::field_set(&configuration, &place).map_err(|errors| untyped(errors.join("\n")))?;
        let mut atomics = Vec::new();
        find_atomics(&configuration, &place, &mut String::new(), &mut atomics);
        if !atomics.is_empty() {
            let found = atomics.join(", ");
            return Err(refused(format!(
                "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {found}"
            )));
        }
        Ok(managed::merge(&self.json, &configuration, &place))
    }

    /// The object that JSON in this version is, with its defaults, as one of the request.
    fn decoded(
        &self,
        attributes: &Attributes<'_>,
        object: &dyn Object,
        json: &Json,
        patch_type: PatchType,
    ) -> Result<Box<dyn Object>, Refusal> {
        let body = json.to_string();
        let Some(row) = &self.row else {
            return attributes.codec.decode(body.as_bytes(), object).map_err(Refusal::from);
        };
        let mut report = Report::collect();
        let mut decoded = row.decode(body.as_bytes(), &mut report).map_err(ApiError::internal)?;
        // Upstream decodes what a JSON patch has made strictly, where it knows the type.
        let strict = patch_type == PatchType::JsonPatch && !row.info().custom;
        if let Some(why) = report.strict_error().filter(|_| strict) {
            return Err(ApiError::internal(why).into());
        }
        row.strategy().default(decoded.as_mut())?;
        if self.found.row().is_some() {
            let mut stored = Vec::new();
            row.encode(decoded.as_ref(), &mut stored)?;
            decoded = asked(attributes)?.load(&stored).map_err(ApiError::internal)?;
        }
        decoded.meta_mut().managed_fields = None;
        Ok(decoded)
    }
}

/// How the fields of what a subresource takes are merged.
fn place_of_subresource(attributes: &Attributes<'_>) -> Result<Place<'static>, ApiError> {
    let kind = attributes.kind();
    let api_type = ApiType::of_kind(&api_version(&kind.group, &kind.version), &kind.kind).ok_or_else(|| {
        ApiError::service_unavailable(format!(
            "Resource kind {kind} not found. There can be a delay between when CustomResourceDefinitions are created and when they are available."
        ))
    })?;
    Ok(Place::BuiltIn(BuiltIn::root(&format!("{}.{}", api_type.package, api_type.name))))
}

/// The paths of what a configuration would replace as a whole. Upstream: whoever means to set some of its fields would remove
/// the others.
fn find_atomics(value: &Json, place: &Place<'_>, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    match value {
        Json::Object(fields) => {
            if place.is_atomic() {
                found.push(path.clone());
            }
            for (name, value) in fields.iter().filter(|(name, _)| place.declares(name)) {
                path.push('.');
                path.push_str(name);
                find_atomics(value, &place.field(name), path, found);
                path.truncate(length);
            }
        }
        Json::Array(items) => {
            if place.list() == List::Atomic {
                found.push(path.clone());
            }
            for (index, item) in items.iter().enumerate() {
                // Nothing that is written into a text can fail.
                let _ = write!(path, "[{index}]");
                find_atomics(item, &place.item(), path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}
