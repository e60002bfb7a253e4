//! A server under attack, beside a good client that must not notice.
//!
//! The server has a runtime and a thread of its own, so that its tasks can be
//! counted, and an attack does not slow it by sharing its thread. Sieges of one
//! process take turns, so that descriptors and memory can be counted too.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use gofer_sdk::Limits;
use tokio::runtime::{Builder as RuntimeBuilder, Runtime};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;

use crate::support::probe::{Builder, Probe, probe};
use crate::support::{Client, Setup, Started, within};

/// The longest that the good client may wait for one answer. Far above what it
/// waits without an attack, far below any timeout: debug builds and a busy
/// machine are slow, a blocked server does not answer at all.
const PROMPT: Duration = Duration::from_secs(15);

/// What an attack may leave in memory, in bytes: room that tables and buffers
/// keep, and nothing that grows with the attack.
const KEPT: usize = 16 << 20;

static TURN: Mutex<()> = Mutex::const_new(());

/// Panics of any thread since the process began.
static PANICS: LazyLock<Arc<AtomicUsize>> = LazyLock::new(|| {
    let count = Arc::new(AtomicUsize::new(0));
    let (counted, before) = (Arc::clone(&count), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        counted.fetch_add(1, Ordering::Relaxed);
        before(panic);
    }));
    count
});

/// Timeouts that a test can wait out; everything else as it is by default.
pub fn quick() -> Limits {
    Limits::default()
        .with_handshake_timeout(Duration::from_millis(400))
        .with_first_call_timeout(Duration::from_millis(400))
        .with_stop_grace(Duration::from_millis(200))
}

pub struct Siege {
    pub address: SocketAddr,
    pub probe: Arc<Probe>,
    pub good: Client,
    pub started: Started,
    heartbeat: JoinHandle<(usize, Duration)>,
    enough: Arc<AtomicBool>,
    before: Levels,
    server: Server,
    _turn: MutexGuard<'static, ()>,
}

#[derive(Clone, Copy, Debug)]
struct Levels {
    tasks: usize,
    descriptors: usize,
    memory: usize,
    panics: usize,
}

impl Siege {
    pub async fn begin(limits: Limits) -> Self {
        Self::of(probe(), limits).await
    }

    /// Of an extension that does something of its own.
    pub async fn of(extension: Builder, limits: Limits) -> Self {
        let turn = TURN.lock().await;
        let server = RuntimeBuilder::new_multi_thread().worker_threads(1).enable_all().build();
        let server = server.unwrap();
        let setup = Setup { limits, ..Setup::default() };
        let (probe, started, first) =
            server.spawn(extension.start(setup)).await.expect("the server starts");
        let good = started.client().await;
        drop(first);
        good.subscribe("kept", &[]).await.unwrap();
        let enough = Arc::new(AtomicBool::new(false));
        let heartbeat = tokio::spawn(beat(good.clone(), Arc::clone(&enough)));
        let mut siege = Self {
            address: started.address,
            before: Levels { tasks: 0, descriptors: 0, memory: 0, panics: 0 },
            probe,
            good,
            started,
            heartbeat,
            enough,
            server: Server(Some(server)),
            _turn: turn,
        };
        // The first client has to be gone, and its connection with it.
        tokio::time::sleep(Duration::from_millis(50)).await;
        siege.before = siege.levels();
        siege
    }

    fn levels(&self) -> Levels {
        Levels {
            tasks: self.server.0.as_ref().unwrap().metrics().num_alive_tasks(),
            descriptors: server_sockets(self.address),
            memory: crate::MEMORY.current_usage(),
            panics: PANICS.load(Ordering::Relaxed),
        }
    }

    /// What the process holds in memory above what it held before the attack, in
    /// bytes; this side of the attack included.
    pub fn grown(&self) -> usize {
        self.levels().memory.saturating_sub(self.before.memory)
    }

    /// Waits until the server has at most this many tasks more than before.
    pub async fn until_tasks(&self, more: usize) {
        let settled = async {
            while self.levels().tasks > self.before.tasks + more {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within(settled).await;
    }

    /// The attack is over and its connections are closed: all is as it was, the
    /// good client was served throughout, and new ones are welcome.
    pub async fn over(&mut self) {
        let fresh = self.started.client().await;
        fresh.info().await.expect("a new connection is served");
        drop(fresh);
        self.enough.store(true, Ordering::Relaxed);
        let (beats, worst) = within(&mut self.heartbeat).await.expect("the good client is served");
        assert!(beats > 0, "the good client was not served at all");
        assert!(worst < PROMPT, "the good client waited for {worst:?}");
        assert_eq!(self.good.registered().await, ["default/kept"]);
        // Calls that were cut off need a moment to notice.
        let before = self.before;
        let mut now = before;
        let settled = async {
            loop {
                now = self.levels();
                let settled = now.tasks <= before.tasks && now.descriptors <= before.descriptors;
                if settled && now.memory <= before.memory + KEPT {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let settled = tokio::time::timeout(Duration::from_secs(60), settled).await;
        assert!(settled.is_ok(), "something is left: {before:?}, now {now:?}");
        assert_eq!(now.panics, before.panics, "something panicked");
    }

    /// Stops the server in mid-attack: how long that took.
    pub async fn stop(mut self) -> Duration {
        self.enough.store(true, Ordering::Relaxed);
        within(&mut self.heartbeat).await.expect("the good client is served");
        let since = Instant::now();
        self.started.stop();
        self.started.stopped().await.unwrap();
        since.elapsed()
    }
}

/// How many sockets are open on this address: the listener and the server's ends of
/// its connections. Other files of the process do not count: tests that wait for this
/// one to end open some too.
fn server_sockets(address: SocketAddr) -> usize {
    let SocketAddr::V4(address) = address else { panic!("{address} is not IPv4") };
    let ip = u32::from_ne_bytes(address.ip().octets());
    let local = format!("{ip:08X}:{:04X}", address.port());
    let sockets = std::fs::read_to_string("/proc/self/net/tcp").unwrap_or_default();
    let is_open = |line: &&str| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        // A socket that its process has closed has no inode any more.
        columns.next() == Some(&*local) && columns.nth(7).is_some_and(|inode| inode != "0")
    };
    sockets.lines().filter(is_open).count()
}

/// Calls without a pause, until it is enough: how often, and the longest wait.
async fn beat(client: Client, enough: Arc<AtomicBool>) -> (usize, Duration) {
    let (mut beats, mut worst) = (0, Duration::ZERO);
    while !enough.load(Ordering::Relaxed) {
        let since = Instant::now();
        client.info().await.expect("the good client is served");
        worst = worst.max(since.elapsed());
        beats += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    (beats, worst)
}

struct Server(Option<Runtime>);

impl Drop for Server {
    fn drop(&mut self) {
        // A runtime must not be dropped on another one.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
