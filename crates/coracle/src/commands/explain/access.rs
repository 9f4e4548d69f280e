//! `coracle explain access`: the binding and role that allow something, or that nothing does.

use std::process::ExitCode;

use anyhow::{Context, Result};
use cluster::Profile;
use explain::access::{Policy, Question, Verdict, explain, groups_of};
use http::Request;
use jiff::Timestamp;
use kube::Client;
use machinery::rbac::ACCOUNT_PREFIX;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::related::{list, told};
use crate::cli::{ExplainAccess, Format};
use crate::commands::{ask, resources};
use crate::output;

/// Where roles and bindings are.
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

pub(super) fn run(profile: &Profile, wanted: &ExplainAccess) -> Result<ExitCode> {
    let explanation = ask(profile, async |client| {
        let question = question(&client, wanted).await?;
        let mut policy = policy(&client, &question.namespace).await;
        let verdict = match review(&client, &question).await {
            Ok(verdict) => Some(verdict),
            Err(error) => {
                policy.unknown.push(told("the API server's own answer", &error));
                None
            }
        };
        Ok(explain(&question, &policy, verdict.as_ref()))
    })?;
    match wanted.output {
        Format::Json => output::json(&explanation)?,
        Format::Text => output::line(explanation.text(Timestamp::now()).trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn post(client: &Client, path: &str, body: &Value) -> kube::Result<Value> {
    let request = Request::post(path).header("content-type", "application/json");
    let body = serde_json::to_vec(body).map_err(kube::Error::SerdeError)?;
    client.request(request.body(body).map_err(kube::Error::HttpError)?).await
}

async fn question(client: &Client, wanted: &ExplainAccess) -> Result<Question> {
    let account = ["serviceaccount/", "sa/"].iter().find_map(|prefix| wanted.user.strip_prefix(prefix));
    let user = match account {
        Some(name) => format!("{ACCOUNT_PREFIX}{}:{name}", wanted.namespace),
        None => wanted.user.clone(),
    };
    let mut groups = groups_of(&user);
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
    // Of oneself the groups are known.
    if let Ok(me) = post(client, "/apis/authentication.k8s.io/v1/selfsubjectreviews", &review).await
        && me["status"]["userInfo"]["username"] == user.as_str()
    {
        let known = me["status"]["userInfo"]["groups"].as_array().cloned().unwrap_or_default();
        groups.extend(known.iter().filter_map(Value::as_str).map(str::to_owned));
    }
    groups.extend(wanted.groups.iter().cloned());
    let mut seen = std::collections::BTreeSet::new();
    groups.retain(|group| seen.insert(group.clone()));
    let mut question = Question { user, groups, verb: wanted.verb.clone(), ..Question::default() };
    if wanted.resource.starts_with('/') {
        question.path = Some(wanted.resource.clone());
        return Ok(question);
    }
    let all = resources::all(client).await?;
    let (kind, name) = wanted.resource.split_once('/').unwrap_or((&wanted.resource, ""));
    // Rights may be about words that are no resources, and about all.
    let resource = match kind {
        "*" => None,
        kind => Some(resources::of_kind(&all, kind)?),
    };
    let is_namespaced = resource.as_ref().is_none_or(|resource| resource.is_namespaced) && !wanted.all_namespaces;
    question.namespace = if is_namespaced { wanted.namespace.clone() } else { String::new() };
    question.group = resource.as_ref().map_or_else(|| "*".to_owned(), |resource| resource.group.clone());
    question.resource = resource.map_or_else(|| "*".to_owned(), |resource| resource.plural);
    name.clone_into(&mut question.name);
    question.subresource = wanted.subresource.clone().unwrap_or_default();
    Ok(question)
}

/// What the API server's authorizer says.
async fn review(client: &Client, question: &Question) -> kube::Result<Verdict> {
    let Question { user, groups, verb, group, resource, subresource, name, namespace, path } = question;
    let mut spec = json!({ "user": user, "groups": groups });
    match path {
        Some(path) => spec["nonResourceAttributes"] = json!({ "verb": verb, "path": path }),
        None => {
            spec["resourceAttributes"] = json!({
                "verb": verb, "group": group, "resource": resource, "subresource": subresource, "name": name,
                "namespace": namespace,
            });
        }
    }
    let review = json!({ "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec });
    let answer = post(client, "/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).await?;
    let reason = answer["status"]["reason"].as_str().unwrap_or_default().to_owned();
    Ok(Verdict { allowed: answer["status"]["allowed"] == true, reason })
}

/// Roles and bindings, as far as they can be read.
async fn policy(client: &Client, namespace: &str) -> Policy {
    let mut policy = Policy::default();
    let mut unknown = Vec::new();
    policy.cluster_roles = read(client, "clusterroles", "", &mut unknown).await;
    policy.cluster_role_bindings = read(client, "clusterrolebindings", "", &mut unknown).await;
    if !namespace.is_empty() {
        policy.roles = read(client, "roles", namespace, &mut unknown).await;
        policy.role_bindings = read(client, "rolebindings", namespace, &mut unknown).await;
    }
    policy.unknown = unknown;
    policy
}

async fn read<T: DeserializeOwned>(
    client: &Client,
    resource: &str,
    namespace: &str,
    unknown: &mut Vec<String>,
) -> Vec<T> {
    let path = match namespace {
        "" => format!("{RBAC}/{resource}"),
        namespace => format!("{RBAC}/namespaces/{namespace}/{resource}"),
    };
    let objects = match list(client, &path).await {
        Ok(objects) => objects,
        Err(error) => {
            unknown.push(told(resource, &error));
            return Vec::new();
        }
    };
    let read: Result<Vec<T>> =
        objects.into_iter().map(|object| serde_json::from_value(object).context("a role or binding")).collect();
    read.unwrap_or_else(|error| {
        unknown.push(format!("{resource}: {error:#}"));
        Vec::new()
    })
}
