//! The row of a version of a custom resource: [`ResourceOps`] over JSON under a structural schema.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::field::{ErrorKind, ErrorList, FieldError, Path};
use machinery::managed::Place;
use machinery::schema::Schema;
use machinery::status::ApiError;
use serde_json::{Map, Value, json};

use super::object::CustomObject;
use super::{Crd, Scale, Version};
use crate::allocate::Allocators;
use crate::column::Column;
use crate::decode::{self, DecodeError, Report};
use crate::descriptor::Subresource;
use crate::kind::{Context, Reservation, ScaleView, bump_generation};
use crate::object::{Object, cast, cast_mut};
use crate::ops::ResourceOps;
use crate::scan;
use crate::strategy::{Deletion, Findings, Strategy};
use crate::table::ResourceInfo;

/// A version of a custom resource.
pub(crate) struct CustomResource {
    crd: Arc<Crd>,
    version: usize,
    /// Whether this row stands for what is in the store.
    carrier: bool,
}

impl CustomResource {
    pub(super) fn new(crd: Arc<Crd>, version: usize, carrier: bool) -> Self {
        Self { crd, version, carrier }
    }

    fn version(&self) -> &Version {
        &self.crd.versions[self.version]
    }
}

impl ResourceOps for CustomResource {
    fn info(&self) -> &ResourceInfo {
        &self.version().info
    }

    fn strategy(&self) -> &dyn Strategy {
        self
    }

    fn decode(&self, body: &[u8], report: &mut Report) -> Result<Box<dyn Object>, DecodeError> {
        let mut object: CustomObject = decode::decode(body, report)?;
        let info = self.info();
        if object.kind.is_empty() {
            let body = String::from_utf8_lossy(body);
            return Err(DecodeError::Value(format!("Object 'Kind' is missing in '{body}'")));
        }
        if object.api_version != info.api_version && object.kind == info.kind {
            let why = format!("the version must be {}", info.api_version);
            return Err(DecodeError::Value(why));
        }
        self.version().schema.prune(&mut object.body, &mut |path| report.note(format!("unknown field \"{path}\"")));
        Ok(Box::new(object))
    }

    fn load(&self, stored: &[u8]) -> Result<Box<dyn Object>, DecodeError> {
        Ok(Box::new(self.crd.load(stored, self.version())?))
    }

    fn encode(&self, object: &dyn Object, out: &mut Vec<u8>) -> Result<(), ApiError> {
        let object: &CustomObject = cast(object)?;
        let storage = self.crd.storage();
        if object.api_version == storage.info.api_version {
            return serde_json::to_writer(out, object).map_err(ApiError::internal);
        }
        let mut object = object.clone();
        if self.crd.converts_by_webhook() {
            let converted = self.crd.convert(vec![object], storage, "").map_err(ApiError::internal)?;
            let mut written = converted.iter().map(|object| serde_json::to_writer(&mut *out, object));
            return written.try_for_each(|written| written).map_err(ApiError::internal);
        }
        if Arc::ptr_eq(&storage.schema, &self.version().schema) {
            object.api_version.clone_from(&storage.info.api_version);
        } else {
            self.crd.adopt(&mut object, storage);
        }
        serde_json::to_writer(out, &object).map_err(ApiError::internal)
    }

    fn served(&self, stored: &Bytes) -> Result<Bytes, DecodeError> {
        self.crd.served(stored, self.version())
    }

    fn served_all(&self, stored: Vec<Bytes>) -> Result<Vec<Bytes>, DecodeError> {
        self.crd.served_all(stored, self.version())
    }

    fn encode_served(&self, object: &dyn Object) -> Result<Bytes, ApiError> {
        let object: &CustomObject = cast(object)?;
        serde_json::to_vec(object).map(Bytes::from).map_err(ApiError::internal)
    }

    fn is_alternate(&self) -> bool {
        !self.carrier
    }

    fn converts(&self) -> bool {
        self.version().converts
    }

    fn place(&self) -> Place<'_> {
        Place::Custom(Some(&self.crd.storage().schema))
    }

    fn served_place(&self) -> Place<'_> {
        Place::Custom(Some(&self.version().schema))
    }

    fn columns(&self) -> Vec<Column> {
        self.version().columns.all()
    }

    fn row(&self, object: &dyn Object, now: Timestamp) -> Result<Vec<Value>, ApiError> {
        Ok(self.version().columns.row(cast(object)?, now))
    }

    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> Option<schemars::Schema> {
        let mut schema = published(&self.crd.source, &self.version().name)?;
        let fields =
            schema.as_object_mut()?.entry("properties").or_insert_with(|| Map::new().into()).as_object_mut()?;
        let text = |description: &str| json!({ "type": "string", "description": description });
        let version = "APIVersion defines the versioned schema of this representation of an object.";
        fields.insert("apiVersion".to_owned(), text(version));
        let kind = "Kind is a string value representing the REST resource this object represents.";
        fields.insert("kind".to_owned(), text(kind));
        let mut metadata = Value::from(generator.subschema_for::<ObjectMeta>());
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("description".to_owned(), "Standard object's metadata.".into());
        }
        fields.insert("metadata".to_owned(), metadata);
        schemars::Schema::try_from(schema).ok()
    }
}

impl Strategy for CustomResource {
    fn default(&self, object: &mut dyn Object) -> Result<(), ApiError> {
        let object: &mut CustomObject = cast_mut(object)?;
        self.version().schema.default(&mut object.body);
        Ok(())
    }

    fn prepare(
        &self,
        new: &mut dyn Object,
        old: Option<&dyn Object>,
        subresource: Option<Subresource>,
        _context: &Context<'_>,
    ) -> Result<(), ApiError> {
        let new: &mut CustomObject = cast_mut(new)?;
        let Some(old) = old else {
            new.meta.generation = Some(1);
            if self.version().has_status() {
                new.put("status", None);
            }
            return Ok(());
        };
        let old: &CustomObject = cast(old)?;
        if subresource == Some(Subresource::Status) {
            let status = new.get("status").cloned();
            new.body.clone_from(&old.body);
            new.put("status", status);
            return Ok(());
        }
        if self.version().has_status() {
            new.put("status", old.get("status").cloned());
        }
        // Upstream: whatever changes besides the metadata, and a status of its own, is a change of what is desired.
        let changed = new.body != old.body;
        bump_generation(&mut new.meta, changed);
        Ok(())
    }

    fn validate(
        &self,
        new: &dyn Object,
        old: Option<&dyn Object>,
        _subresource: Option<Subresource>,
    ) -> Result<Findings, ApiError> {
        Ok(self.check(cast(new)?, old.map(cast).transpose()?).into())
    }

    fn allocate(
        &self,
        _new: &mut dyn Object,
        old: Option<&dyn Object>,
        _subresource: Option<Subresource>,
        _context: &Context<'_>,
    ) -> Result<Reservation, ApiError> {
        if old.is_none() && self.crd.terminating {
            let mut error = ApiError::method_not_supported(&self.info().group_resource, "create");
            error.message = "create not allowed while custom resource definition is terminating".to_owned();
            return Err(error);
        }
        Ok(Reservation::none())
    }

    fn occupy(&self, _object: &dyn Object, _allocators: &Allocators) -> Result<(), ApiError> {
        Ok(())
    }

    fn release(&self, _object: &dyn Object, _allocators: &Allocators) -> Result<(), ApiError> {
        Ok(())
    }

    /// What can be selected by is read from the stored bytes, since definitions may change it at any time.
    fn fields(&self, _object: &dyn Object) -> Result<Vec<(&'static str, String)>, ApiError> {
        Ok(Vec::new())
    }

    fn scale(&self, object: &dyn Object) -> Result<Option<ScaleView>, ApiError> {
        let object: &CustomObject = cast(object)?;
        let Some(scale) = &self.version().scale else { return Ok(None) };
        let number =
            |path: &[String]| at(&object.body, path).and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok());
        let selector = scale.selector.as_deref().and_then(|path| at(&object.body, path)).and_then(Value::as_str);
        Ok(Some(ScaleView {
            replicas: number(&scale.spec_replicas).unwrap_or_default(),
            current: number(&scale.status_replicas).unwrap_or_default(),
            selector: selector.unwrap_or_default().to_owned(),
        }))
    }

    fn set_scale(&self, object: &mut dyn Object, replicas: i32) -> Result<(), ApiError> {
        let object: &mut CustomObject = cast_mut(object)?;
        if let Some(scale) = &self.version().scale {
            set(&mut object.body, &scale.spec_replicas, replicas.into());
        }
        Ok(())
    }

    fn deletion(&self, _object: &dyn Object, _requested: Option<i64>) -> Result<Deletion, ApiError> {
        Ok(Deletion::default())
    }

    fn mark_deleted(&self, _object: &mut dyn Object) -> Result<(), ApiError> {
        Ok(())
    }

    fn has_other_finalizers(&self, _object: &dyn Object) -> Result<bool, ApiError> {
        Ok(false)
    }
}

impl CustomResource {
    fn check(&self, object: &CustomObject, old: Option<&CustomObject>) -> ErrorList {
        let info = self.info();
        let mut errors = ErrorList::new();
        if object.kind != info.kind {
            errors.push(FieldError::invalid(&Path::new("kind"), &object.kind, format!("must be {}", info.kind)));
        }
        if object.api_version != info.api_version {
            let must = format!("must be {}", info.api_version);
            errors.push(FieldError::invalid(&Path::new("apiVersion"), &object.api_version, must));
        }
        if !errors.is_empty() {
            return errors;
        }
        let version = self.version();
        let about_meta = |error: &FieldError| {
            let root = matches!(error.field.as_str(), "apiVersion" | "kind" | "metadata");
            error.kind == ErrorKind::Required && root
        };
        let found = version.schema.validate(&object.body, old.map(|old| &old.body));
        errors.extend(found.into_iter().filter(|error| !about_meta(error)));
        if let Some(metadata) = version.schema.property("metadata") {
            errors.extend(names(metadata, &object.meta));
        }
        if let Some(scale) = &version.scale {
            check_scale(scale, &object.body, &mut errors);
        }
        if version.schema.has_rules() {
            errors.extend(broken_rules(&version.schema, object, old, &errors));
        }
        errors
    }
}

/// Which rules of the schema an object breaks. They are not asked about one that has not the shape they rely on.
fn broken_rules(schema: &Schema, object: &CustomObject, old: Option<&CustomObject>, found: &ErrorList) -> ErrorList {
    let blocks = |error: &FieldError| {
        use ErrorKind::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
        matches!(error.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid)
    };
    if found.iter().any(blocks) {
        let detail = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        let (field, value) = ("<nil>".to_owned(), Some(Value::Null));
        return vec![FieldError { kind: ErrorKind::Invalid, field, value, detail: detail.to_owned() }].into();
    }
    let around = |object: &CustomObject| {
        let mut names = Map::new();
        for (field, value) in [("name", &object.meta.name), ("generateName", &object.meta.generate_name)] {
            names.extend(value.as_deref().map(|value| (field.to_owned(), value.into())));
        }
        let (version, kind) = (object.api_version.as_str().into(), object.kind.as_str().into());
        [("apiVersion", version), ("kind", kind), ("metadata", Value::Object(names))]
    };
    let (beside, beside_old) = (around(object), old.map(around));
    let old = old.zip(beside_old.as_ref()).map(|(old, beside)| (&old.body, beside.as_slice()));
    schema.evaluate((&object.body, &beside), old)
}

/// A schema may restrict the name of an object, and nothing else of its metadata.
fn names(schema: &Schema, meta: &ObjectMeta) -> ErrorList {
    let mut names = json!({});
    for (field, value) in [("name", &meta.name), ("generateName", &meta.generate_name)] {
        if let Some(value) = value {
            names[field] = value.as_str().into();
        }
    }
    let errors = schema.validate(&names, None);
    errors.into_iter().map(|error| FieldError { field: format!("metadata.{}", error.field), ..error }).collect()
}

/// What `scale` would show must be numbers of replicas.
fn check_scale(scale: &Scale, body: &Value, errors: &mut ErrorList) {
    for path in [&scale.spec_replicas, &scale.status_replicas] {
        let place = Path::new(format!(".{}", path.join(".")));
        match at(body, path).map(|value| (value, value.as_i64())) {
            None | Some((_, Some(0..=0x7fff_ffff))) => {}
            Some((_, Some(number))) if number < 0 => {
                errors.push(FieldError::invalid(&place, number, "should be a non-negative integer"));
            }
            Some((_, Some(number))) => {
                let detail = format!("should be less than or equal to {}", i32::MAX);
                errors.push(FieldError::invalid(&place, number, detail));
            }
            Some((value, None)) => {
                let detail = format!(".{} accessor error: {value} is not an integer", path.join("."));
                errors.push(FieldError::invalid(&place, 0, detail));
            }
        }
    }
}

fn at<'a>(body: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(body, |value, step| value.get(step))
}

fn set(body: &mut Value, path: &[String], value: Value) {
    let Some((last, way)) = path.split_last() else { return };
    let mut place = body;
    for step in way {
        let Some(fields) = place.as_object_mut() else { return };
        place = fields.entry(step.as_str()).or_insert_with(|| Map::new().into());
    }
    if let Some(fields) = place.as_object_mut() {
        fields.insert(last.clone(), value);
    }
}

/// The schema of a version as its definition has it, descriptions and all.
fn published(source: &[u8], version: &str) -> Option<Value> {
    let versions: Value = serde_json::from_slice(&source[scan::find(source, &["spec", "versions"])?]).ok()?;
    let version = versions.as_array()?.iter().find(|candidate| candidate["name"] == version)?;
    Some(version.pointer("/schema/openAPIV3Schema")?.clone())
}
