//! `grpc.health.v1`, following the lifecycle.
//!
//! There are three names: the empty one and `proto.ExtensionService` are SERVING from a successful
//! Init until the drain begins; `subscriptions` is SERVING in that time while no subscription is
//! waiting to be restarted.

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use super::lifecycle::{Lifecycle, Phase};

const NAMES: [&str; 2] = ["", "proto.ExtensionService"];
const MAX_REQUEST_BYTES: usize = 1024;
const SUBSCRIPTIONS: &str = "subscriptions";

/// The service, and the future that keeps it up to date until the extension has stopped.
pub(crate) async fn service(
    lifecycle: &Lifecycle,
) -> (HealthServer<HealthService>, impl Future<Output = ()> + use<>) {
    let reporter = HealthReporter::new();
    // Unauthenticated peers may call it. A request is a name; longer ones are refused.
    let service = HealthServer::new(HealthService::from_health_reporter(reporter.clone()))
        .max_decoding_message_size(MAX_REQUEST_BYTES);
    let mut phase = lifecycle.phase();
    let mut failing = lifecycle.failing();
    report(&reporter, Phase::Uninitialized, 0).await;
    let follow = async move {
        loop {
            let (now, waiting) = (*phase.borrow_and_update(), *failing.borrow_and_update());
            report(&reporter, now, waiting).await;
            if now == Phase::Stopped {
                return;
            }
            let gone = tokio::select! {
                changed = phase.changed() => changed.is_err(),
                changed = failing.changed() => changed.is_err(),
            };
            if gone {
                return;
            }
        }
    };
    (service, follow)
}

async fn report(reporter: &HealthReporter, phase: Phase, failing: usize) {
    let status = |serving| {
        if serving { ServingStatus::Serving } else { ServingStatus::NotServing }
    };
    let ready = phase == Phase::Ready;
    for name in NAMES {
        reporter.set_service_status(name, status(ready)).await;
    }
    reporter.set_service_status(SUBSCRIPTIONS, status(ready && failing == 0)).await;
}
