//! Create, update and patch: the write path, in the order of the steps at the front door.
//!
//! A create tries until its name is free and its namespace holds still; an update reads, changes and commits until
//! nobody was faster ([`Registry::revise`]).

mod account;
mod apply;
mod body;
mod commit;
pub(crate) mod owners;
mod revise;

use bytes::Bytes;
use jiff::Timestamp;
use machinery::field::{ErrorList, FieldError, Path};
use machinery::gvk::GroupKind;
use machinery::patch;
use machinery::status::{ApiError, Cause, MODIFIED};
use serde_json::Value;
use store::{Entry, Expect, Op};

use crate::Registry;
use crate::admission::{Attributes, Operation, quota};
use crate::custom::DEFINITIONS;
use crate::decode::Report;
use crate::escalation::WriteAttributes;
use crate::kind::{Context, Subresource};
use crate::meta;
use crate::ops::Object;
use crate::request::{FieldValidation, PatchType, Target, WriteOptions, Written};
use crate::table::{Resource, ResourceInfo};
use owners::Writer;

pub use apply::check_manager;
pub(crate) use apply::owners_of_replicas;
pub(crate) use body::{decode_other, report_for};
pub(crate) use commit::{Attempt, Change, encode};
pub(crate) use revise::{Draft, Revision};

/// How often a patch is applied again when somebody was faster; upstream's figure.
const PATCH_ATTEMPTS: usize = 5;

/// How often an unconditional update, or a create in a namespace that is being changed, is tried.
pub(crate) const ATTEMPTS: usize = 100;

/// How often a name is made up before the client is told that none was free; upstream's figure.
const NAME_ATTEMPTS: usize = 8;

impl Registry {
    /// Creates an object.
    ///
    /// # Errors
    /// 400 for a body that cannot be read or is meant for somewhere else, 404 and 403 for a namespace that does not
    /// exist or is going away, 409 for a name that is taken, 422 for an object that breaks rules.
    pub async fn create(&self, target: &Target, body: &[u8], options: &WriteOptions) -> Result<Written, ApiError> {
        let resource = &target.resource;
        // 1. Decode.
        let mut report = report_for(options);
        let object = body::decode(resource, body, &mut report, options)?;
        self.create_object(target, object, None, report.into_findings(), options).await
    }

    /// Creates a decoded object. Its fields belong to who writes, unless `owners` say otherwise.
    async fn create_object(
        &self,
        target: &Target,
        mut object: Box<dyn Object>,
        owners: Option<String>,
        mut warnings: Vec<String>,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let resource = &target.resource;
        // 2. Check that it is meant for this path.
        body::check_namespace(object.meta(), target)?;
        body::check_no_version(object.meta())?;
        self.await_account(target, object.as_ref()).await;
        // 3. Defaults. What is there now is what the client has said.
        let strategy = resource.strategy();
        strategy.default(object.as_mut())?;
        let now = Timestamp::now();
        let writer = Writer { resource: resource.as_ref(), subresource: None, options, now };
        let owners = owners.map_or_else(|| writer.created(object.as_mut()), Ok)?;
        // 4. Prepare, with what admission has to say.
        let attributes = Attributes::new(target, None, Operation::Create, &options.user, options.dry_run);
        let context = self.context(target, options, now);
        let generated = meta::wants_generated_name(object.meta());
        meta::prepare_create(object.meta_mut(), &target.namespace, now);
        self.limit(&attributes, object.as_mut(), None);
        strategy.prepare(object.as_mut(), None, None, &context)?;
        // 5. Validate; that its namespace is missing is said first, as upstream does.
        let validate = |object: &mut dyn Object, changed, warnings: &mut Vec<String>| {
            if changed {
                strategy.prepare(object, None, None, &context)?;
            }
            self.check_namespace(target, object)?;
            let mut errors = meta::validate(object.meta(), resource.info());
            let findings = strategy.validate(object, None, None)?;
            errors.extend(findings.errors);
            refuse_invalid(resource.info(), object, &errors)?;
            warnings.extend(findings.warnings);
            let new: Option<&dyn Object> = Some(object);
            self.check_escalation(&WriteAttributes { user: &options.user, target, subresource: None, new, old: None })
        };
        self.admit(&attributes, &mut object, None, &mut warnings, validate).await?;

        let mut names_tried = 1;
        for _ in 0..ATTEMPTS {
            let namespace = self.check_namespace(target, object.as_ref())?;
            let _naming = self.naming(resource.info()).await;
            let _alone = if quota::concerns(self, &attributes) { Some(self.0.charging.lock().await) } else { None };
            let mut conditions = quota::charge(self, &attributes, Some(object.as_ref()), None)?;
            conditions.extend(namespace);
            // 6. Allocate. 7. Encode. 8. Commit.
            let reservation = strategy.allocate(object.as_mut(), None, &context)?;
            let outcome = self.insert(target, object.as_mut(), &owners, conditions, reservation, options).await?;
            match outcome {
                Inserted::Done(stored) => {
                    return Ok(Written {
                        body: resource.served(&stored).map_err(ApiError::internal)?,
                        stored,
                        created: true,
                        warnings,
                    });
                }
                Inserted::NameTaken { .. } if generated && names_tried < NAME_ATTEMPTS => {
                    names_tried += 1;
                    meta::generate_name(object.meta_mut());
                }
                Inserted::NameTaken { going } => {
                    return Err(name_taken(resource.info(), object.as_ref(), generated, going));
                }
                Inserted::Overtaken => {}
            }
        }
        Err(ApiError::server_timeout(&resource.info().group_resource, "create", 1))
    }

    /// Replaces an object, or what one of its subresources is for.
    ///
    /// # Errors
    /// As [`Registry::create`]; 404 when the object does not exist and its kind is not created by PUT, 409 when the
    /// body asks for another version of the object than there is.
    pub async fn update(
        &self,
        target: &Target,
        subresource: Option<Subresource>,
        body: &[u8],
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let resource = &target.resource;
        if subresource == Some(Subresource::Scale) {
            return self.update_scale(target, body, options).await;
        }
        let mut report = report_for(options);
        let mut decoded = Some(body::decode(resource, body, &mut report, options)?);
        if let Some(object) = &decoded {
            body::check_name(object.meta(), target)?;
        }
        let mut warnings = report.into_findings();
        if resource.info().create_on_update && subresource.is_none() && self.lookup(target).is_none() {
            let collection = Target::collection(resource, target.namespace.clone());
            return self.create(&collection, body, options).await;
        }
        let revision = Revision::new(target, subresource, options, ATTEMPTS);
        let outcome = self
            .revise(&revision, &mut warnings, |_, _, _| {
                let new = match decoded.take() {
                    Some(first) => first,
                    None => body::decode(resource, body, &mut Report::ignore(), options)?,
                };
                Ok(Draft { new, owners: None })
            })
            .await?;
        outcome.written(resource, warnings)
    }

    /// Applies a patch to an object, or to what one of its subresources is for.
    ///
    /// # Errors
    /// As [`Registry::update`]; 404 when the object does not exist, 400 for a patch that cannot be read, 422 for one
    /// that does not fit the object, 415 for a strategic patch of a custom resource.
    pub async fn patch(
        &self,
        target: &Target,
        subresource: Option<Subresource>,
        patch_type: PatchType,
        patch: &[u8],
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let resource = &target.resource;
        if patch_type == PatchType::Apply {
            return self.server_side_apply(target, subresource, patch, options).await;
        }
        // Upstream knows the merge rules of built-in kinds only.
        if resource.info().custom && patch_type == PatchType::Strategic && subresource != Some(Subresource::Scale) {
            return Err(PatchType::strategic_unsupported());
        }
        let patch: Value = serde_json::from_slice(patch)
            .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
        let patch = Patch { patch_type, patch };
        if subresource == Some(Subresource::Scale) {
            return self.patch_scale(target, &patch, options).await;
        }
        let attempts = if patch.is_conditional() { 1 } else { PATCH_ATTEMPTS };
        let revision = Revision::new(target, subresource, options, attempts);
        let mut warnings = Vec::new();
        let outcome = self
            .revise(&revision, &mut warnings, |entry, _, warnings| {
                // The owners of the fields are left out where the patch is not about them.
                let stored = if patch.is_about_owners() { entry.value.clone() } else { owners::without(&entry.value) };
                let current = resource.served(&stored).map_err(ApiError::internal)?;
                let patched = patch.apply(&current, &resource.info().definition)?;
                let mut report = report_for(options);
                let new = body::decode_patched(resource, &patched, &mut report, options)?;
                body::check_name(new.meta(), target)?;
                *warnings = report.into_findings();
                Ok(Draft { new, owners: None })
            })
            .await?;
        outcome.written(resource, warnings)
    }

    /// Held while a definition is given its names: which are free is read before, and written with, its commit.
    async fn naming(&self, info: &ResourceInfo) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        if *info.storage == *DEFINITIONS { Some(self.0.naming.lock().await) } else { None }
    }

    /// What the hooks may know.
    pub(crate) fn context<'a>(&'a self, target: &'a Target, options: &'a WriteOptions, now: Timestamp) -> Context<'a> {
        Context {
            now,
            user: &options.user,
            namespace: &target.namespace,
            dry_run: options.dry_run,
            allocators: &self.0.allocators,
            store: &self.0.store,
        }
    }

    /// The condition on the namespace under which an object may be created in it; none for cluster scope.
    fn check_namespace(&self, target: &Target, object: &dyn Object) -> Result<Option<Op>, ApiError> {
        if target.namespace.is_empty() {
            return Ok(None);
        }
        let resources = self.resources();
        let Some(namespaces) = resources.get("", "v1", "namespaces") else { return Ok(None) };
        let place = Target::object(namespaces, "", target.namespace.clone());
        let namespace = self.find(&place)?;
        if namespace.attributes.field("status.phase") == Some("Terminating") {
            return Err(terminating(target, object));
        }
        Ok(Some(Op::Check { key: namespace.key.clone(), expect: Expect::Revision(namespace.revision) }))
    }
}

/// How an attempt to create ended.
pub(crate) enum Inserted {
    /// The object is stored, or would be.
    Done(Bytes),
    /// There is an object of that name.
    NameTaken {
        /// It is being deleted.
        going: bool,
    },
    /// Somebody wrote to the namespace, or a quota in it, meanwhile.
    Overtaken,
}

/// 409: there is an object of that name.
fn name_taken(info: &ResourceInfo, object: &dyn Object, generated: bool, going: bool) -> ApiError {
    let name = object.meta().name.as_deref().unwrap_or_default();
    if generated {
        return ApiError::generate_name_conflict(&info.group_resource, name, 1);
    }
    let mut error = ApiError::already_exists(&info.group_resource, name);
    if going {
        error.message = format!("object is being deleted: {}", error.message);
    }
    error
}

/// A patch as it was sent.
pub(crate) struct Patch {
    patch_type: PatchType,
    patch: Value,
}

impl Patch {
    /// Whether the patch asks for a version of the object: then a conflict is the answer, and trying again useless.
    fn is_conditional(&self) -> bool {
        let pointer = "/metadata/resourceVersion";
        match self.patch_type {
            PatchType::Merge | PatchType::Strategic => self.patch.pointer(pointer).is_some_and(Value::is_string),
            PatchType::Json => self.has_path(|path| path == pointer),
            PatchType::Apply => false,
        }
    }

    /// Whether the patch looks at or changes `managedFields`.
    fn is_about_owners(&self) -> bool {
        let pointer = "/metadata/managedFields";
        match self.patch_type {
            PatchType::Json => self.has_path(|path| matches!(path, "" | "/metadata") || path.starts_with(pointer)),
            _ => self.patch.pointer(pointer).is_some(),
        }
    }

    fn has_path(&self, is: impl Fn(&str) -> bool) -> bool {
        let paths = |operation: &Value| ["path", "from"].iter().any(|key| operation[*key].as_str().is_some_and(&is));
        self.patch.as_array().is_some_and(|operations| operations.iter().any(paths))
    }

    /// The patched document.
    pub(crate) fn apply(&self, current: &[u8], definition: &str) -> Result<Vec<u8>, ApiError> {
        let current: Value = serde_json::from_slice(current).map_err(ApiError::internal)?;
        let patched = match self.patch_type {
            PatchType::Json => patch::json_patch(&current, &self.patch),
            // An apply does not come here.
            PatchType::Merge | PatchType::Apply => patch::merge_patch(&current, &self.patch),
            PatchType::Strategic => patch::strategic_merge_patch(&current, &self.patch, definition),
        };
        let patched = patched.map_err(ApiError::from)?;
        serde_json::to_vec(&patched).map_err(ApiError::internal)
    }
}

/// Whether nothing keeps an object that is being deleted any longer.
pub(crate) fn is_finalized(resource: &Resource, object: &dyn Object) -> Result<bool, ApiError> {
    let meta = object.meta();
    Ok(meta.deletion_timestamp.is_some()
        && meta.finalizers.as_ref().is_none_or(Vec::is_empty)
        && meta.deletion_grace_period_seconds.unwrap_or_default() == 0
        && !resource.strategy().has_other_finalizers(object)?)
}

/// 422 when there is something wrong.
pub(crate) fn refuse_invalid(info: &ResourceInfo, object: &dyn Object, errors: &ErrorList) -> Result<(), ApiError> {
    if errors.is_empty() {
        return Ok(());
    }
    let meta = object.meta();
    let name = meta.name.as_deref().or(meta.generate_name.as_deref()).unwrap_or_default();
    Err(ApiError::invalid(&info.group_kind, name, errors))
}

/// The conditions a body makes by its uid and resourceVersion.
fn check_preconditions(info: &ResourceInfo, new: &dyn Object, old: &dyn Object, entry: &Entry) -> Result<(), ApiError> {
    let name = &entry.key.name;
    let (asked, found) = (new.meta().uid.as_deref(), old.meta().uid.as_deref());
    if let Some(asked) = asked.filter(|asked| !asked.is_empty() && Some(*asked) != found) {
        let why = uid_mismatch(asked, found.unwrap_or_default());
        return Err(ApiError::conflict(&info.group_resource, name, why));
    }
    match new.meta().resource_version.as_deref().unwrap_or_default() {
        "" | "0" if info.unconditional_update => Ok(()),
        "" | "0" => {
            let error = FieldError::invalid(
                &Path::new("metadata").child("resourceVersion"),
                0,
                "must be specified for an update",
            );
            Err(ApiError::invalid(&info.group_kind, name, &ErrorList(vec![error])))
        }
        asked if asked == entry.revision.to_string() => Ok(()),
        asked if asked.bytes().all(|byte| byte.is_ascii_digit()) => {
            Err(ApiError::conflict(&info.group_resource, name, MODIFIED))
        }
        asked => {
            let error = FieldError::invalid(
                &Path::new("metadata").child("resourceVersion"),
                asked,
                format!("strconv.ParseUint: parsing {asked:?}: invalid syntax"),
            );
            Err(ApiError::invalid(&info.group_kind, name, &ErrorList(vec![error])))
        }
    }
}

/// Upstream's words for a precondition on the uid that does not hold.
pub(crate) fn uid_mismatch(asked: &str, found: &str) -> String {
    format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {found}")
}

/// 403: nothing new is created in a namespace that is going away.
fn terminating(target: &Target, object: &dyn Object) -> ApiError {
    let namespace = &target.namespace;
    let name = object.meta().name.as_deref().unwrap_or_default();
    ApiError::forbidden(
        &target.resource.info().group_resource,
        name,
        format!("unable to create new content in namespace {namespace} because it is being terminated"),
    )
    .with_cause(Cause {
        reason: "NamespaceTerminating".into(),
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".into(),
    })
}

/// What strict validation says about the result of a patch: 422 with the whole document, as upstream.
pub(crate) fn invalid_patch(patched: &[u8], why: &str) -> ApiError {
    let document = String::from_utf8_lossy(patched);
    let error = FieldError::invalid(&Path::new("patch"), document.as_ref(), why);
    ApiError::invalid(&GroupKind::from_static("", ""), "", &ErrorList(vec![error]))
}

/// Whether findings refuse the request.
pub(crate) fn is_strict(options: &WriteOptions) -> bool {
    options.field_validation == FieldValidation::Strict
}
