//! The future of the server is dropped: nothing that it started goes on, in whatever phase it is.
//!
//! On one thread and a paused clock: no time passes between the drop and the check, so what would
//! end by a grace period of its own is found.

use std::future::pending;
use std::sync::Arc;

use gofer_proto::{ExtensionInitRequest, ExtensionShutdownRequest};
use gofer_sdk::Error;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::in_memory::InMemory;
use crate::support::conversation::Conversation;
use crate::support::gofer::Behavior;
use crate::support::probe::{Builder, Probe, probe};
use crate::support::{Client, EVENT};

fn alive() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

async fn start(extension: Builder) -> InMemory {
    InMemory::start(extension, |_, _| Behavior::Answer).await
}

/// Drops the server, and checks that no task is left.
async fn nothing_outlives(extension: InMemory) {
    let dropped = Instant::now();
    let probe = extension.abandon();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(alive(), 0, "tasks live on; what happened: {:?}", probe.seen().events);
    assert!(probe.seen().running.is_empty());
    assert_eq!(Instant::now(), dropped, "time has passed");
}

/// Makes a call whose outcome does not matter.
fn call<F>(client: &Client, call: impl FnOnce(Client) -> F)
where
    F: Future<Output: Send> + Send + 'static,
{
    let called = call(client.clone());
    tokio::spawn(async move { drop(called.await) });
}

#[tokio::test(start_paused = true)]
async fn while_it_initializes() {
    let slow = probe().init(|_, _| pending());
    let extension = InMemory::start_bare(slow, |_, _| Behavior::Answer).await;
    let config = extension.probe.config().map(|(key, value)| (key.to_owned(), value.to_owned()));
    let request = ExtensionInitRequest { config: config.into() };
    call(&extension.client, |client| async move { client.raw().init(request).await });
    extension.probe.until_seen("init").await;
    nothing_outlives(extension).await;
}

#[tokio::test(start_paused = true)]
async fn with_subscriptions_and_an_event_that_ignore_it() {
    let extension = start(
        probe()
            .serve(|probe, subscription| async move {
                subscription.spawn(pending());
                match &*subscription.params().value {
                    "fails" => return Err(Error::unavailable("not now")),
                    "is done" => return Ok(()),
                    _ => {}
                }
                if let Some(every) = subscription.params().every {
                    while subscription.every(every)?.next().await.is_some() {}
                }
                probe.record("serves");
                pending().await
            })
            .event(|probe, _| async move {
                probe.record("event");
                pending().await
            }),
    )
    .await;
    let client = &extension.client;
    client.subscribe("a", &[]).await.unwrap();
    client.subscribe("b", &[("value", "fails")]).await.unwrap();
    client.subscribe("c", &[("value", "is done")]).await.unwrap();
    client.subscribe("d", &[("every", "1h")]).await.unwrap();
    call(client, |client| async move { client.external_event(EVENT).await });
    let probe = extension.probe.clone();
    probe.until(|seen| seen.has("serves") && seen.has("event") && seen.served == 4).await;
    nothing_outlives(extension).await;
}

/// Notices when a subscription ends, and goes on.
fn ignores_its_end() -> Builder {
    probe().serve(|probe, subscription| async move {
        subscription.spawn(pending());
        subscription.cancelled().await;
        probe.record("cancelled");
        pending().await
    })
}

#[tokio::test(start_paused = true)]
async fn during_a_change_of_a_subscription_that_ignores_it() {
    let extension = start(ignores_its_end()).await;
    let client = &extension.client;
    client.subscribe("a", &[("value", "1")]).await.unwrap();
    client.subscribe("b", &[]).await.unwrap();
    let waiting = [("value", "2")];
    call(client, |client| async move { client.subscribe("a", &waiting).await });
    call(client, |client| async move { client.unsubscribe("b").await });
    extension.probe.until(|seen| seen.count("cancelled") == 2).await;
    call(client, |client| async move { client.unsubscribe("a").await });
    tokio::task::yield_now().await;
    client.info().await.unwrap();
    nothing_outlives(extension).await;
}

/// The server stays, its caller leaves.
#[tokio::test(start_paused = true)]
async fn an_event_goes_on_if_its_caller_leaves_and_ends_with_the_extension() {
    let extension = start(probe().event(|probe, _| async move {
        probe.record("event");
        let _left = Leaves(Arc::clone(&probe));
        tokio::time::sleep(std::time::Duration::from_secs(20)).await;
        probe.record("handled");
        pending().await
    }))
    .await;
    let client = extension.client().await;
    let event = tokio::spawn(async move { client.external_event(EVENT).await });
    extension.probe.until_seen("event").await;
    event.abort();
    extension.probe.until_seen("handled").await;
    extension.client.shutdown().await.unwrap();
    extension.probe.until_seen("left").await;
}

/// Records when it is dropped.
struct Leaves(Arc<Probe>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.record("left");
    }
}

#[tokio::test(start_paused = true)]
async fn while_it_drains() {
    let extension = start(ignores_its_end()).await;
    let client = &extension.client;
    client.subscribe("a", &[]).await.unwrap();
    client.subscribe("b", &[]).await.unwrap();
    call(client, |client| async move { client.raw().shutdown(ExtensionShutdownRequest {}).await });
    extension.probe.until(|seen| seen.count("cancelled") == 2).await;
    let probe = extension.probe.clone();
    nothing_outlives(extension).await;
    assert!(!probe.seen().has("shutdown"), "it has not stopped");
}

#[tokio::test(start_paused = true)]
async fn while_the_extension_cleans_up() {
    let extension = start(probe().shutdown(|_, ()| pending())).await;
    let client = &extension.client;
    client.subscribe("a", &[]).await.unwrap();
    call(client, |client| async move { client.raw().shutdown(ExtensionShutdownRequest {}).await });
    extension.probe.until_seen("shutdown").await;
    nothing_outlives(extension).await;
}

#[tokio::test(start_paused = true)]
async fn during_conversations() {
    let extension = start(probe()).await;
    let mut installing = Conversation::installer(&extension.client).await.unwrap();
    let mut configuring = Conversation::configurator(&extension.client).await.unwrap();
    installing.query().await;
    configuring.query().await;
    nothing_outlives(extension).await;
}
