//! ResourceQuota: what a namespace uses is charged in the same commit as the object that uses it, so that it is exact
//! whoever writes at the same time, and given back with the commit that ends the use.
//!
//! A controller counts what is there already when a quota is new or changes (`controllers::resource_quota`). So that
//! nothing slips in between, every write such a quota is about touches it: the controller's own write then comes too
//! late, and it counts again.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::ResourceQuota as Quota;
use machinery::quota::{self, Amounts, Counted, Verdict};
use machinery::status::ApiError;
use store::{Op, Precondition};

use super::{AdmissionPlugin, Attributes, CLAIMS, Operation, PODS, decode_stored};
use crate::kind::Subresource;
use crate::object::{Object, cast};
use crate::pipeline::{encode, managed_fields};
use crate::read;

const STORAGE: &str = "core/resourcequotas";

/// The admission plugin of that name. That two writes do not charge a quota at once is seen to by who commits them.
pub struct ResourceQuota;

#[async_trait]
impl AdmissionPlugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        concerns(attributes)
    }

    fn charge(&self, attributes: &Attributes<'_>, object: Option<&dyn Object>) -> Result<Vec<Op>, ApiError> {
        charge(attributes, object)
    }
}

fn counted<'a>(attributes: &'a Attributes<'_>, object: &'a dyn Object) -> Result<Counted<'a>, ApiError> {
    Ok(match &*attributes.info.storage {
        PODS => Counted::Pod(cast(object)?),
        "core/services" => Counted::Service(cast(object)?),
        CLAIMS => Counted::Claim(cast(object)?),
        _ => Counted::Other(&attributes.info.group_resource),
    })
}

/// Whether some quota may have to do with a write: if so, one such write is done at a time.
pub(crate) fn concerns(attributes: &Attributes<'_>) -> bool {
    let namespace = attributes.namespace;
    if namespace.is_empty() {
        return false;
    }
    let quotas = attributes.registry.store().snapshot(STORAGE);
    !quotas.is_empty() && quotas.range(Some(namespace), None).next().is_some()
}

/// The changes to quotas which must be committed together with a write.
///
/// # Errors
/// 403 when there is no room for what is written, 500 when a quota cannot be decoded.
fn charge(attributes: &Attributes<'_>, new: Option<&dyn Object>) -> Result<Vec<Op>, ApiError> {
    let (registry, old) = (attributes.registry, attributes.old);
    let new_counted = new.map(|new| counted(attributes, new)).transpose()?;
    let old_counted = old.map(|old| counted(attributes, old)).transpose()?;
    // Upstream: a pod says what it needs when it is made or resized; services and claims may be changed later, too.
    let enforced = match (new_counted, attributes.operation, attributes.subresource) {
        (Some(_), Operation::Create, _) => true,
        (Some(Counted::Pod(_)), Operation::Update, Some(Subresource::Resize)) => true,
        (Some(Counted::Service(_) | Counted::Claim(_)), Operation::Update, None) => true,
        (Some(Counted::Other(_)), Operation::Update, _) => return Ok(Vec::new()),
        _ => false,
    };
    let used = |object: Option<Counted<'_>>| object.map(quota::usage).unwrap_or_default();
    let (new_usage, old_usage) = (used(new_counted), used(old_counted));
    if new_usage == old_usage {
        return Ok(Vec::new());
    }
    let resources = registry.resources();
    let Some(resource) = resources.by_storage(STORAGE) else { return Ok(Vec::new()) };
    let mut ops = Vec::new();
    for entry in registry.store().snapshot(STORAGE).range(Some(attributes.namespace), None) {
        // A quota counts itself, too, but only its controller can tell it.
        let itself = resource.info().storage == attributes.info.storage;
        if itself && new.or(old).is_some_and(|object| object.meta().name.as_deref() == Some(&*entry.key.name)) {
            continue;
        }
        let (bare, owned) = managed_fields::split(&entry.value);
        let mut quota: Quota = decode_stored(entry, &bare)?;
        let Some(spec) = &quota.spec else { continue };
        let about = |object: Option<Counted<'_>>| object.is_some_and(|object| quota::matches(spec, object));
        let (about_new, about_old) = (about(new_counted), about(old_counted));
        let none = Amounts::new();
        let more =
            quota::difference(if about_new { &new_usage } else { &none }, if about_old { &old_usage } else { &none });
        if more.is_empty() {
            continue;
        }
        let counted_yet = quota.status.as_ref().is_some_and(|status| status.hard == spec.hard);
        match quota::judge(&quota, new_counted.filter(|_| enforced && about_new), &more) {
            Verdict::Refused(why) if enforced => {
                let object = new.ok_or_else(|| ApiError::internal("nothing is written"))?;
                return Err(attributes.forbidden(object, why));
            }
            Verdict::Unaffected | Verdict::Refused(_) if counted_yet => continue,
            // Written without a change, see above.
            Verdict::Unaffected | Verdict::Refused(_) => {}
            Verdict::Room(used) => quota.status.get_or_insert_default().used = Some(quota::write(&used)),
        }
        let value = managed_fields::join(encode(resource.as_ref(), &mut quota)?, owned);
        let attributes = read::attributes(resource.as_ref(), &quota)?;
        ops.push(Op::Put {
            key: entry.key.clone(),
            value,
            attributes,
            precondition: Precondition::Revision(entry.revision),
        });
    }
    Ok(ops)
}
