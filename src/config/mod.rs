//! Floor 1: the configuration, read, judged as a whole, and free of anything that could be wrong.

pub mod environment;
pub mod find;
pub mod keys;
pub mod problem;
pub mod secret;
pub mod source;

mod address;
mod catalog;
mod changes;
mod check;
mod client;
mod conninfo;
mod doubts;
mod form;
pub mod headers;
mod listening;
mod load;
mod outbound;
mod price_list;
mod raw;
mod server_address;
mod settings;
mod show;
mod size;
mod subscription;
mod table;
mod value;
mod verify;

pub use self::listening::PublicUrl;
pub use address::aws_domain;
pub use catalog::{Catalog, KindFacts, SignedPlace, WebhookFacts};
pub use client::{ClientView, client_sockets, client_view};
pub use environment::Env;
pub use outbound::{Egress, Proxy};
pub use problem::Refused;
pub use server_address::{
    BadServerAddress, ChannelBinding, Keepalive, Place, ServerAddress, ServerHost, Session, Tls,
};
pub use settings::{
    ApiConfig, Config, DigestConfig, FilesConfig, HeartbeatConfig, HttpConfig, Origin, Polling,
    ProviderConfig, ResultsConfig, SECTIONS, StateConfig, WebhookConfig,
};
pub use size::compact as compact_size;
pub use subscription::Template;
