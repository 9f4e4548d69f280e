//! Connections: `exec`, `attach`, `portforward` and `proxy`. Admission sees the options of the request, under the operation
//! CONNECT.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::status::ApiError;
use serde::{Deserialize, Serialize};

use crate::Registry;
use crate::kind::Subresource;
use crate::object::Object;
use crate::request::{Target, WriteOptions};
use crate::user::User;

/// The options of a connection: upstream's PodExecOptions, PodAttachOptions, PodPortForwardOptions, PodProxyOptions,
/// ServiceProxyOptions and NodeProxyOptions, of which each has some of the fields.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectOptions {
    /// `exec` and `attach`: whether the client sends to the container.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stdin: bool,
    /// `exec` and `attach`: whether the client reads the standard output.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stdout: bool,
    /// `exec` and `attach`: whether the client reads the standard error.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stderr: bool,
    /// `exec` and `attach`: whether the container gets a terminal.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tty: bool,
    /// `exec` and `attach`: which container; empty for the only or default one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// `exec`: what to run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// `portforward`: the ports, where the client names them beforehand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<i32>,
    /// `proxy`: the path behind it, with its leading slash; empty for none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
}

/// Options as an object under admission: with their kind, and metadata that is empty for whoever reads it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OptionsObject {
    kind: String,
    api_version: String,
    #[serde(skip)]
    metadata: ObjectMeta,
    #[serde(flatten)]
    options: ConnectOptions,
}

impl Object for OptionsObject {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn boxed_clone(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }
}

impl Registry {
    /// Admits a connection to `target`, whose name is that of the path, and answers with its options: mutating webhooks may
    /// change them, as upstream.
    ///
    /// # Errors
    /// Whatever refuses it.
    pub async fn admit_connect(
        &self,
        target: &Target,
        subresource: Subresource,
        options: ConnectOptions,
        user: &Arc<User>,
        warnings: &mut Vec<String>,
    ) -> Result<ConnectOptions, ApiError> {
        let api_version = "v1".to_owned();
        let kind = subresource.kind(&target.resource.info().kind).map_or("", |(_, _, kind)| kind).to_owned();
        let object = OptionsObject { kind, api_version, metadata: ObjectMeta::default(), options };
        let options = WriteOptions { user: Arc::clone(user), ..WriteOptions::default() };
        let admitted = self.admit_options(target, subresource, object, &options, warnings).await?;
        Ok(admitted.options)
    }
}
