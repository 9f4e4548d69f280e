//! The whole server on a store in a temporary directory: in-process, and over TLS on port 0.

mod access;
mod admission;
mod aggregated_apis;
mod aggregation;
mod bounds;
mod certificates;
mod component_status;
mod custom;
mod discovery;
mod documents;
mod flow_control;
mod front_proxy;
mod identity;
mod keyspace;
mod kubelet_port;
mod limits;
mod modules;
mod network;
mod objects;
mod owner_references;
mod policies;
mod protobuf;
mod routes;
pub(crate) mod support;
mod undecodable;
mod watching;
