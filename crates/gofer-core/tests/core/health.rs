//! The health of a core, for load balancers, which have no token.

use crate::caller::Caller;
use gofer_core::{Core, NO_SETTINGS};
use gofer_sdk::{Extension, Gofer, NoConfig, NoParams, Result, Subscription};
use tokio::sync::Semaphore;
use tonic::{Code, Request};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// Lets the extension stop.
static STOP: Semaphore = Semaphore::const_new(0);

/// Takes its time to stop.
struct Slow;

impl Extension for Slow {
    type Config = NoConfig;
    type Params = NoParams;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    async fn serve(&self, subscription: Subscription<NoParams>) -> Result<()> {
        subscription.cancelled().await;
        let _ = STOP.acquire().await;
        Ok(())
    }
}

fn of(service: &str) -> Request<HealthCheckRequest> {
    Request::new(HealthCheckRequest { service: service.to_owned() })
}

#[tokio::test]
async fn a_core_is_healthy_until_it_stops() {
    let core = Core::on_loopback().await.unwrap();
    let mut health = HealthClient::new(Caller::of(&core).await.0);
    for service in ["", "proto.Gofer"] {
        let checked = health.check(of(service)).await.unwrap().into_inner();
        assert_eq!(checked.status, ServingStatus::Serving as i32);
    }
    assert_eq!(health.check(of("absent")).await.unwrap_err().code(), Code::NotFound);
    let long = health.check(of(&"n".repeat(2000))).await.unwrap_err();
    assert_eq!(long.code(), Code::OutOfRange);

    let slow = core.install::<Slow>("slow", NO_SETTINGS).await.unwrap();
    slow.subscribe("nightly", "one", NO_SETTINGS).await.unwrap();
    let mut watch = health.watch(of("")).await.unwrap().into_inner();
    let mut next = async || watch.message().await.unwrap().map(|it| it.status);
    assert_eq!(next().await, Some(ServingStatus::Serving as i32));
    let stop = tokio::spawn(async move { core.stop().await });
    assert_eq!(next().await, Some(ServingStatus::NotServing as i32));
    STOP.add_permits(1);
    stop.await.unwrap();
    // The core ends it, instead of waiting for it and breaking the connection.
    assert_eq!(next().await, None);
}
