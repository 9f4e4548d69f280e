//! Create, update and patch: where the object of each comes from. All then take the steps of the `pipeline`.

use machinery::status::{ApiError, Reason};

use crate::Registry;
use crate::decode::Report;
use crate::kind::Subresource;
use crate::pipeline::decode::{self, report_for};
use crate::pipeline::{
    ATTEMPTS, Action, PATCH_ATTEMPTS, Patch, Proposal, Propose, Proposed, Stored, Write, apply, managed_fields,
    read_config,
};
use crate::request::{PatchType, Target, WriteOptions, Written, invalid_options};
use machinery::field::{FieldError, Path};

pub use crate::pipeline::check_manager;

impl Registry {
    /// Creates an object.
    ///
    /// # Errors
    /// 400 for a body that cannot be read or is meant for somewhere else, 404 and 403 for a namespace that does not
    /// exist or is going away, 409 for a name that is taken, 422 for an object that breaks rules.
    pub async fn create(&self, target: &Target, body: &[u8], options: &WriteOptions) -> Result<Written, ApiError> {
        let mut proposal = Propose(|_: Option<&Stored>, warnings: &mut Vec<String>| {
            let mut report = report_for(options);
            let object = decode::body(&target.resource, body, &mut report, options)?;
            warnings.extend(report.into_findings());
            Ok(Proposed::new(object))
        });
        self.create_proposed(target, &mut proposal, options).await
    }

    /// Creates what is proposed; the target may have a name.
    async fn create_proposed(
        &self,
        target: &Target,
        proposal: &mut dyn Proposal,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        // Steps 7 and 8 are tried again by themselves.
        let write = Write::new(self, Action::Create, target, None, options).tried(1);
        self.run(&write, proposal).await?.written(&target.resource)
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
        let mut decoded = Some(decode::body(resource, body, &mut report, options)?);
        if let Some(object) = &decoded {
            decode::check_name(object.meta(), target)?;
        }
        let findings = report.into_findings();
        if resource.info().create_on_update && subresource.is_none() && self.lookup(target).is_none() {
            let collection = Target::collection(resource, target.namespace.clone());
            return self.create(&collection, body, options).await;
        }
        let write = updating(self, target, subresource, options);
        let mut proposal = Propose(|_: Option<&Stored>, warnings: &mut Vec<String>| {
            warnings.extend(findings.iter().cloned());
            match decoded.take() {
                Some(first) => Ok(Proposed::new(first)),
                None => decode::body(resource, body, &mut Report::ignore(), options).map(Proposed::new),
            }
        });
        self.run(&write, &mut proposal).await?.written(resource)
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
        let patch = Patch::read(patch_type, patch)?;
        if subresource == Some(Subresource::Scale) {
            return self.patch_scale(target, &patch, options).await;
        }
        let attempts = if patch.is_conditional() { 1 } else { PATCH_ATTEMPTS };
        let write = updating(self, target, subresource, options).tried(attempts).called("patch");
        let mut proposal = Propose(|old: Option<&Stored>, warnings: &mut Vec<String>| {
            let stored = &old.ok_or_else(|| ApiError::internal("there is nothing to patch"))?.entry.value;
            // The managedFields are left out where the patch is not about them.
            let whole = patch.is_about_managed_fields();
            let stored = if whole { stored.clone() } else { managed_fields::without(stored) };
            let current = resource.served(&stored).map_err(ApiError::internal)?;
            let patched = patch.apply(&current, &resource.info().openapi_name)?;
            let mut report = report_for(options);
            let new = decode::patched(resource, &patched, &mut report, options)?;
            decode::check_name(new.meta(), target)?;
            warnings.extend(report.into_findings());
            Ok(Proposed::new(new))
        });
        self.run(&write, &mut proposal).await?.written(resource)
    }

    /// Applies a configuration to an object, which it creates where there is none, or to one of its subresources.
    async fn server_side_apply(
        &self,
        target: &Target,
        subresource: Option<Subresource>,
        config: &[u8],
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let resource = &target.resource;
        if options.field_manager.is_empty() {
            let error = FieldError::required(&Path::new("fieldManager"), "is required for apply patch");
            return Err(invalid_options("PatchOptions", error));
        }
        if subresource == Some(Subresource::Scale) {
            return self.apply_scale(target, config, options).await;
        }
        let config = read_config(config)?;
        let write = updating(self, target, subresource, options).tried(PATCH_ATTEMPTS).called("apply");
        let mut proposal = Propose(|old: Option<&Stored>, _: &mut Vec<String>| apply(&write, &config, old));
        for _ in 0..PATCH_ATTEMPTS {
            if self.lookup(target).is_some() || subresource.is_some() {
                return self.run(&write, &mut proposal).await?.written(resource);
            }
            match self.create_proposed(target, &mut proposal, options).await {
                // Somebody was faster: then this applies to their object.
                Err(error) if error.reason == Reason::AlreadyExists => {}
                created => return created,
            }
        }
        Err(ApiError::server_timeout(&resource.info().group_resource, "patch", 1))
    }
}

/// A write to an object that is there, or to one of its subresources.
fn updating<'a>(
    registry: &'a Registry,
    target: &'a Target,
    subresource: Option<Subresource>,
    options: &'a WriteOptions,
) -> Write<'a> {
    let action = if subresource.is_some() { Action::UpdateSubresource } else { Action::Update };
    Write::new(registry, action, target, subresource, options).tried(ATTEMPTS)
}

/// Upstream's words for a precondition on the uid that does not hold.
pub(crate) fn uid_mismatch(asked: &str, found: &str) -> String {
    format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {found}")
}
