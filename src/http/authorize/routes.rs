//! The ways out by which credentials are obtained, which are not those of the calls that they complete.

use crate::config::Proxy;
use crate::http::descriptors::Share;
use crate::http::egress::Guard;
use crate::http::transport::{ReqwestTransport, Transport, TransportConfig, TransportProblem};
use std::sync::Arc;

/// The transports that fetch credentials.
#[derive(Clone)]
pub struct CredentialRoutes {
    /// To services on the network, as the configuration says.
    pub outward: Arc<dyn Transport>,
    /// To the machine's own cloud and to this machine: straight, and to the metadata addresses that nothing else may
    /// reach.
    pub metadata: Arc<dyn Transport>,
}

impl CredentialRoutes {
    /// Beside `outward`, the configured way, a client for metadata alone.
    pub fn new(outward: Arc<dyn Transport>) -> Result<Self, TransportProblem> {
        let metadata = ReqwestTransport::new(&TransportConfig {
            proxy: &Proxy::None,
            ca_files: Vec::new(),
            insecure_skip_verify: false,
            guard: Guard::Credentials,
            share: Share::Providers,
        })?;
        Ok(Self { outward, metadata: Arc::new(metadata) })
    }
}
