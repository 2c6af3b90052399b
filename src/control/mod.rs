//! Floor 5: the operations, written once, and their way in: the HTTP API on the socket and on TCP.

pub mod access;
pub mod api;
pub mod api_error;
pub mod client;
mod discovery;
mod draining;
pub mod event_stream;
mod hooks;
pub mod live;
mod metrics;
mod openai;
pub mod query;
pub mod reports;
pub mod resolve;
pub mod results;
mod secret_reload;
pub mod server;
pub mod service;
mod stream;
pub mod submit;
mod tracking;
