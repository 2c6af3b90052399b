//! Floor 5: the operations, written once, and their way in: the HTTP API on the socket and on TCP.

pub mod api;
pub mod client;
pub mod event_stream;
