//! `grpc.health.v1`: load balancers ask for the health of the core without a token.
//!
//! There are two names, the empty one and `proto.Gofer`. Both are SERVING until the core stops.

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

const NAMES: [&str; 2] = ["", "proto.Gofer"];

/// A request is a name; anyone may send one, and longer ones are refused.
const MAX_REQUEST_BYTES: usize = 1024;

pub(super) struct Health(HealthReporter);

impl Health {
    pub(super) async fn new() -> Self {
        let health = Self(HealthReporter::new());
        health.set(ServingStatus::Serving).await;
        health
    }

    pub(super) fn service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.0.clone()))
            .max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// The core is stopping: whoever asks should look for another one.
    pub(super) async fn stopping(&self) {
        self.set(ServingStatus::NotServing).await;
    }

    /// Ends each `Watch`, so that closing the API does not have to wait for them.
    pub(super) async fn end(&self) {
        let mut reporter = self.0.clone();
        for name in NAMES {
            reporter.clear_service_status(name).await;
        }
    }

    async fn set(&self, status: ServingStatus) {
        for name in NAMES {
            self.0.set_service_status(name, status).await;
        }
    }
}
