//! `grpc.health.v1`, following the lifecycle.
//!
//! There are four names: the empty one and `proto.ExtensionService` are SERVING from a successful
//! Init until the drain begins; `subscriptions` is SERVING in that time while no subscription is
//! waiting to be restarted; and `gofer` is SERVING unless calls to Gofer fail. No other name depends
//! on that: what restarts an extension that is not SERVING would do so for an outage of Gofer.

use std::sync::Arc;

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use super::lifecycle::{Lifecycle, Phase};

const NAMES: [&str; 2] = ["", "proto.ExtensionService"];
const MAX_REQUEST_BYTES: usize = 1024;
const SUBSCRIPTIONS: &str = "subscriptions";
const GOFER: &str = "gofer";

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
    let mut outages = lifecycle.outages();
    let start = State { phase: Phase::Uninitialized, failing: 0, has_outage: false };
    report(&reporter, &start).await;
    let context = Arc::clone(lifecycle.context());
    let follow = async move {
        loop {
            let now = State {
                phase: *phase.borrow_and_update(),
                failing: *failing.borrow_and_update(),
                has_outage: outages.borrow_and_update().is_some(),
            };
            report(&reporter, &now).await;
            context.metrics.reachable(!now.has_outage);
            if now.phase == Phase::Stopped {
                return;
            }
            let gone = tokio::select! {
                biased;
                changed = phase.changed() => changed.is_err(),
                changed = failing.changed() => changed.is_err(),
                changed = outages.changed() => changed.is_err(),
            };
            if gone {
                return;
            }
        }
    };
    (service, follow)
}

/// What the health follows.
struct State {
    phase: Phase,
    /// Subscriptions that wait to be restarted.
    failing: usize,
    has_outage: bool,
}

async fn report(reporter: &HealthReporter, state: &State) {
    let status = |serving| {
        if serving { ServingStatus::Serving } else { ServingStatus::NotServing }
    };
    let ready = state.phase == Phase::Ready;
    for name in NAMES {
        reporter.set_service_status(name, status(ready)).await;
    }
    reporter.set_service_status(SUBSCRIPTIONS, status(ready && state.failing == 0)).await;
    reporter.set_service_status(GOFER, status(!state.has_outage)).await;
}
