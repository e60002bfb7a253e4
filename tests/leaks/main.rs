//! Subscriptions and callers that have come and gone leak nothing: no task, no file descriptor, no
//! memory. The only test of its process, whose figures it reads.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails in a helper fails a test"
)]

#[path = "../support/mod.rs"]
mod support;

/// Counts to the byte; the system's figures depend on what an allocator keeps.
#[global_allocator]
static MEMORY: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

use std::time::Duration;

use gofer_sdk::{Extension, GoDuration, Gofer, NoConfig, Result, Subscription};
use schemars::JsonSchema;
use serde::Deserialize;
use support::conversation::Conversation;
use support::probe::together;
use support::{Client, Setup, Started, within};
use tokio::net::TcpStream;

/// What a pipeline sets.
#[derive(Deserialize, JsonSchema)]
struct QuietParams {
    /// Spawns a task as well.
    #[serde(default)]
    spawn: bool,
    /// Waits for ticks, which do not come while this test runs.
    every: Option<GoDuration>,
}

struct Quiet;

impl Extension for Quiet {
    type Config = NoConfig;
    type Params = QuietParams;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    async fn serve(&self, subscription: Subscription<QuietParams>) -> Result<()> {
        if subscription.params().spawn {
            let other = subscription.clone();
            subscription.spawn(async move {
                let _why = other.cancelled().await;
            });
        }
        if let Some(every) = subscription.params().every {
            while subscription.every(every)?.next().await.is_some() {}
        }
        subscription.cancelled().await;
        Ok(())
    }
}

/// What a process holds.
#[derive(Debug)]
struct Held {
    tasks: usize,
    files: usize,
    bytes: usize,
}

impl Held {
    fn now() -> Self {
        Self {
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
            files: std::fs::read_dir("/proc/self/fd").unwrap().count(),
            bytes: MEMORY.current_usage(),
        }
    }

    /// Waits until there are no more tasks than `before`. It polls, since nothing reports the end
    /// of a task that is detached.
    async fn once_tasks_are(before: usize) -> Self {
        within(async {
            loop {
                let held = Self::now();
                if held.tasks <= before {
                    return held;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }
}

/// Callers that disconnect before the handshake, after a call, and in the middle of a conversation.
async fn disconnecting_callers(started: &Started, callers: usize) {
    for _ in 0..callers {
        drop(TcpStream::connect(started.address).await.unwrap());
        let client = started.client().await;
        client.info().await.unwrap();
        let talk = Conversation::configurator(&client).await.unwrap();
        drop((client, talk));
    }
}

/// Subscribes and unsubscribes, 50 at a time.
async fn rounds(client: &Client, rounds: usize) {
    let workers = (0..50).map(|worker| {
        let client = client.clone();
        async move {
            for n in (worker..rounds).step_by(50) {
                let key = format!("p{n}");
                let params: support::Settings<'_> = match n % 3 {
                    0 => &[],
                    1 => &[("spawn", "true")],
                    _ => &[("every", "1h")],
                };
                client.subscribe(&key, params).await.unwrap();
                client.unsubscribe(&key).await.unwrap();
            }
        }
    });
    together(workers).await;
}

#[tokio::test]
#[cfg_attr(not(target_os = "linux"), ignore = "reads /proc")]
async fn ten_thousand_rounds_leak_no_task_file_or_memory() {
    let started = Setup::default().start::<Quiet>();
    let client = started.client().await;
    client.init(&[]).await.unwrap();
    client.info().await.unwrap();
    let idle = Held::now().tasks;
    // After this, whatever is kept for reuse exists.
    rounds(&client, 1_000).await;
    disconnecting_callers(&started, 20).await;
    let before = Held::once_tasks_are(idle).await;
    rounds(&client, 10_000).await;
    disconnecting_callers(&started, 100).await;
    let after = Held::once_tasks_are(idle).await;
    assert!(after.tasks <= idle, "{idle} and then {after:?}");
    assert_eq!(after.files, before.files);
    // A leak of a hundred bytes in each round would be more.
    let grown = after.bytes.saturating_sub(before.bytes);
    assert!(grown < 1_000_000, "{before:?} and then {after:?}");
    assert!(client.registered().await.is_empty());
}
