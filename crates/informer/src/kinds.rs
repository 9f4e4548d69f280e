//! The built-in kinds that components watch, with the code for them.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController,
    ResourceQuota, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttributesClass};

use crate::{Informer, Informers, Object};

/// A kind whose watch and decoder are compiled in this crate.
///
/// A generic function is compiled where its types are named: without this, each component would bring its own copy of
/// the code that decodes and watches a Pod, some hundred kilobytes.
pub trait Watched: Object {
    /// The informer of all objects of this kind, started by the first who asks.
    fn informer(informers: &Informers) -> Informer<Self>;
}

macro_rules! watched {
    ($($kind:ty,)*) => {
        $(
            impl Watched for $kind {
                fn informer(informers: &Informers) -> Informer<Self> {
                    informers.informer_of()
                }
            }
        )*
    };
}

watched! {
    CertificateSigningRequest,
    ClusterRole,
    ConfigMap,
    ControllerRevision,
    CronJob,
    DaemonSet,
    Deployment,
    EndpointSlice,
    Endpoints,
    HorizontalPodAutoscaler,
    Job,
    Namespace,
    NetworkPolicy,
    Node,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    PodDisruptionBudget,
    ReplicaSet,
    ReplicationController,
    ResourceQuota,
    Secret,
    Service,
    ServiceAccount,
    StatefulSet,
    StorageClass,
    VolumeAttributesClass,
    ValidatingAdmissionPolicy,
}
