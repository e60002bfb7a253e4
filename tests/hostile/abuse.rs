//! A server that a test abuses, and a good client that must not be affected.
//!
//! The server has its own runtime and thread, so that its tasks can be counted, and an attack does
//! not slow it down by sharing its thread.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gofer_sdk::Limits;
use tokio::runtime::{Builder as RuntimeBuilder, Runtime};
use tokio::task::JoinHandle;

use crate::support::probe::{Builder, Probe, probe};
use crate::support::{Client, Setup, Started, within};

/// Longer than anything here takes on a busy machine, so that only what hangs fails.
pub const TIMEOUT: Duration = Duration::from_secs(300);

/// The memory that an attack may leave allocated, in bytes: capacity of tables and buffers, and
/// nothing that grows with the attack.
const RETAINED: usize = 16 << 20;

/// Panics of all threads since the process started.
static PANICS: LazyLock<Arc<AtomicUsize>> = LazyLock::new(|| {
    let count = Arc::new(AtomicUsize::new(0));
    let (counted, before) = (Arc::clone(&count), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        counted.fetch_add(1, Ordering::Relaxed);
        before(panic);
    }));
    count
});

/// Runs a test. Only one runs at a time, and the runtime of the next one is created after this one
/// has been dropped, so the descriptors, the memory and the panics of the process belong to one
/// test.
pub fn alone(test: impl Future<Output = ()>) {
    static LOCK: Mutex<()> = Mutex::new(());
    // A test that fails poisons it.
    let _guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = RuntimeBuilder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test);
}

/// Limits with timeouts that a test can wait for. Long enough for the handshake of a good client on
/// a busy machine.
pub fn quick() -> Limits {
    Limits::default()
        .with_handshake_timeout(Duration::from_secs(2))
        .with_first_call_timeout(Duration::from_secs(2))
        .with_stop_grace(Duration::from_millis(200))
}

pub struct Target {
    pub address: SocketAddr,
    pub probe: Arc<Probe>,
    pub good: Client,
    pub started: Started,
    heartbeat: JoinHandle<usize>,
    enough: Arc<AtomicBool>,
    before: Levels,
    server: Server,
}

#[derive(Clone, Copy, Debug)]
struct Levels {
    tasks: usize,
    descriptors: usize,
    memory: usize,
    panics: usize,
}

impl Target {
    pub async fn start(limits: Limits) -> Self {
        Self::of(probe(), limits).await
    }

    /// With an extension that the test defines.
    pub async fn of(extension: Builder, limits: Limits) -> Self {
        let server = RuntimeBuilder::new_multi_thread().worker_threads(1).enable_all().build();
        let server = Server(Some(server.unwrap()));
        let setup = Setup { limits, ..Setup::default() };
        let (probe, started, first) =
            server.runtime().spawn(extension.start(setup)).await.expect("the server starts");
        let good = started.client().await;
        good.subscribe("kept", &[]).await.unwrap();
        // Both ends of the first client's connection are closed before anything is measured.
        let with_first = server.levels();
        drop(first);
        within(async {
            while server.levels().descriptors + 2 > with_first.descriptors {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        let before = server.levels();
        let enough = Arc::new(AtomicBool::new(false));
        let heartbeat = tokio::spawn(beat(good.clone(), Arc::clone(&enough)));
        let address = started.address;
        Self { address, probe, good, started, heartbeat, enough, before, server }
    }

    /// How much more memory the process has allocated than before the attack, in bytes, including
    /// the client's side of the attack.
    pub fn grown(&self) -> usize {
        self.server.levels().memory.saturating_sub(self.before.memory)
    }

    /// Waits until the server has at most this many tasks more than before.
    pub async fn until_tasks(&self, more: usize) {
        let settled = async {
            while self.server.levels().tasks > self.before.tasks + more {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within(settled).await;
    }

    /// Asserts, once the test has closed its connections, that the attack has left nothing behind,
    /// that the good client was served throughout, and that new clients are served.
    pub async fn assert_unharmed(&mut self) {
        let fresh = self.started.client().await;
        fresh.info().await.expect("a new connection is served");
        drop(fresh);
        self.stop_heartbeat().await;
        assert_eq!(self.good.registered().await, ["default/kept"]);
        // Calls that were cut off need a moment to end.
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let (before, now) = (self.before, self.server.levels());
            let settled = now.tasks <= before.tasks && now.descriptors <= before.descriptors;
            if settled && now.memory <= before.memory + RETAINED {
                assert_eq!(now.panics, before.panics, "something panicked");
                return;
            }
            assert!(Instant::now() < deadline, "not released: before {before:?}, now {now:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn stop_heartbeat(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
        let beats = within(&mut self.heartbeat).await.expect("the good client is served");
        assert!(beats > 0, "the good client was not served at all");
    }

    /// Stops the server during the attack. Fails if it hangs.
    pub async fn stop(mut self) {
        self.stop_heartbeat().await;
        self.started.stop();
        self.started.stopped().await.unwrap();
    }
}

/// Makes calls until it is enough, and returns their number. Each must be answered: on a server
/// that is blocked it hangs.
async fn beat(client: Client, enough: Arc<AtomicBool>) -> usize {
    let mut beats = 0;
    while !enough.load(Ordering::Relaxed) {
        within(client.info()).await.expect("the good client is served");
        beats += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    beats
}

/// The server's runtime.
struct Server(Option<Runtime>);

impl Server {
    fn runtime(&self) -> &Runtime {
        self.0.as_ref().unwrap()
    }

    fn levels(&self) -> Levels {
        Levels {
            tasks: self.runtime().metrics().num_alive_tasks(),
            descriptors: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
            memory: crate::MEMORY.current_usage(),
            panics: PANICS.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A runtime must not be dropped inside another one.
        if let Some(runtime) = self.0.take() {
            let dropped = std::thread::spawn(move || runtime.shutdown_timeout(TIMEOUT));
            let _ = dropped.join();
        }
    }
}
