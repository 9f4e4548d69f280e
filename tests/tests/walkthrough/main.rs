//! The walkthrough, section by section: each command of it is run here, and what it says one sees is looked for.
//!
//! | section | module |
//! |---|---|
//! | 安装 (installation) | [`installation`] |
//! | 部署第一个应用: Deployment, Service, 访问 (access), 滚动更新 (rolling update) | [`first_application`] |
//! | 调试 (debugging) | [`debugging`] |
//! | 层级与命名空间 (hierarchy and namespaces) | [`hierarchy`] |
//! | RoleBasedGroup: its namespace, and its workloads | [`role_based_group`], [`leader_worker_set`] |
//! | 调度器 (scheduler): filtering, scoring, binding | [`scheduler`] |
//! | Gang Scheduling | [`gang_scheduling`] |
//! | StatefulSet | [`stateful_set`] |
//! | HPA (horizontal pod autoscaler) | [`horizontal_pod_autoscaler`] |
//! | CRD (custom resource definition) | [`custom_resource_definition`] |
//! | Operator | [`operator`] |
//!
//! Beside them is [`addons`]: whose the kinds are that the sections use. What goes beyond is in the files beside this folder.

mod addons;
mod custom_resource_definition;
mod debugging;
mod first_application;
mod gang_scheduling;
mod hierarchy;
mod horizontal_pod_autoscaler;
mod installation;
mod leader_worker_set;
mod operator;
mod role_based_group;
mod scheduler;
mod stateful_set;
