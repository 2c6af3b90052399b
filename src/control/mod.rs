//! Floor 5: the operations, written once, and their way in: the HTTP API on the socket and on TCP.

pub mod access;
pub mod address;
pub mod api;
pub mod api_error;
pub mod assembly;
pub mod client;
pub mod client_error;
mod discovery;
mod draining;
pub mod event_stream;
mod hooks;
mod ingress;
pub mod live;
mod metrics;
mod openai;
pub mod query;
pub mod reports;
pub mod resolve;
mod respond;
pub mod results;
mod secret_reload;
pub mod server;
pub mod service;
mod stream;
pub mod streams;
pub mod submit;
mod tracking;
