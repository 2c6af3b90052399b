//! Servers of the tests' own, each at an address of its own, on one thread beside the test.

use axum::Router;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

/// They serve until this is dropped.
pub struct Servers(Runtime);

impl Servers {
    pub fn new() -> Self {
        Self(Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap())
    }

    /// Serves `app`; where.
    pub fn serve(&self, app: Router) -> SocketAddr {
        let listener = self.0.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        self.0.spawn(async move { axum::serve(listener, app).await.unwrap() });
        address
    }
}
