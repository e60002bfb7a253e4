//! The network between the core and the extensions, with faults.
//!
//! A connection is two pipes with a task for each direction in between, which delivers what was
//! sent: at once, after a delay, or when a partition is over. As TCP does, it keeps the order and
//! loses nothing: a partition ends with the bytes arriving late, or with the connection being cut.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use gofer_net::memory::Faults;
use gofer_net::{BoxFuture, BoxStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The buffer of each pipe, in bytes.
const PIPE: usize = 64 * 1024;

/// When TCP gives up on bytes that are not acknowledged.
const DEAD_AFTER: Duration = Duration::from_secs(20);

/// The core's name.
pub const CORE: &str = "";

/// What happens to the bytes from one peer to another.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Condition {
    /// They do not arrive as long as this lasts.
    pub is_blocked: bool,
    /// How long they take.
    pub delay: Duration,
}

/// From where to where.
pub type Way = (String, String);

#[derive(Default)]
struct State {
    conditions: BTreeMap<Way, watch::Sender<Condition>>,
    connections: Vec<(Way, CancellationToken)>,
    /// Of each extension that runs.
    crashes: BTreeMap<String, CancellationToken>,
    /// The machine of all of them has crashed: what is opened now ends at once.
    has_ended: bool,
}

#[derive(Default)]
pub struct Net {
    state: Mutex<State>,
    /// Whether TCP notices a connection on which bytes are stuck.
    notices_dead: AtomicBool,
}

impl Net {
    pub fn new(notices_dead: bool) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), notices_dead: AtomicBool::new(notices_dead) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn condition(&self, from: &str, to: &str) -> watch::Sender<Condition> {
        let way = (from.to_owned(), to.to_owned());
        self.state().conditions.entry(way).or_default().clone()
    }

    /// Changes what happens to the bytes from one peer to another, whoever opened the connection.
    pub fn set(&self, from: &str, to: &str, condition: Condition) {
        self.condition(from, to).send_replace(condition);
    }

    /// Ends all connections between the core and an extension.
    pub fn cut(&self, name: &str) {
        let is_of = |(from, to): &Way| from == name || to == name;
        let mut state = self.state();
        state.connections.retain(|(_, cut)| !cut.is_cancelled());
        state.connections.iter().filter(|(way, _)| is_of(way)).for_each(|(_, cut)| cut.cancel());
    }

    /// How many connections there are, by their way.
    pub fn connections(&self) -> BTreeMap<Way, usize> {
        let mut counts = BTreeMap::new();
        for (way, _) in self.state().connections.iter().filter(|(_, cut)| !cut.is_cancelled()) {
            *counts.entry(way.clone()).or_default() += 1;
        }
        counts
    }

    /// Ends an extension's task, as if its process were killed.
    pub fn kill(&self, name: &str) {
        if let Some(crash) = self.state().crashes.get(name) {
            crash.cancel();
        }
    }

    /// Ends all connections and extensions, also those to come, as if the processes of the core and
    /// the extensions had been killed.
    pub fn end(&self) {
        let mut state = self.state();
        state.has_ended = true;
        let cuts = state.connections.iter().map(|(_, cut)| cut);
        cuts.chain(state.crashes.values()).for_each(CancellationToken::cancel);
    }
}

impl Faults for Net {
    fn connect(&self, from: &str, to: &str) -> (BoxStream, BoxStream) {
        let (client, near) = duplex(PIPE);
        let (server, far) = duplex(PIPE);
        let cut = CancellationToken::new();
        {
            let mut state = self.state();
            state.connections.retain(|(_, cut)| !cut.is_cancelled());
            if state.has_ended {
                cut.cancel();
            }
            state.connections.push(((from.to_owned(), to.to_owned()), cut.clone()));
        }
        let (near_reads, near_writes) = split(near);
        let (far_reads, far_writes) = split(far);
        let dies = self.notices_dead.load(Ordering::Relaxed);
        let there = deliver(near_reads, far_writes, self.condition(from, to).subscribe(), dies);
        let back = deliver(far_reads, near_writes, self.condition(to, from).subscribe(), dies);
        let [one, other] = [(); 2].map(|()| cut.clone());
        let there = async move {
            if !there.await {
                one.cancel();
            }
        };
        let back = async move {
            if !back.await {
                other.cancel();
            }
        };
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = cut.cancelled() => {}
                _ = async { tokio::join!(there, back) } => {}
            }
            cut.cancel();
        });
        (Box::new(client), Box::new(server))
    }

    fn crash(&self, name: &str) -> BoxFuture<'static, ()> {
        let crash = CancellationToken::new();
        let mut state = self.state();
        if state.has_ended {
            crash.cancel();
        }
        state.crashes.insert(name.to_owned(), crash.clone());
        drop(state);
        Box::pin(crash.cancelled_owned())
    }
}

/// Delivers what is sent in one direction until the sender closes it. False if the connection has
/// died.
async fn deliver(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    mut condition: watch::Receiver<Condition>,
    dies: bool,
) -> bool {
    let mut chunk = vec![0; PIPE];
    loop {
        let Ok(length) = from.read(&mut chunk).await else { return false };
        let now = *condition.borrow_and_update();
        if now.is_blocked {
            let passes = condition.wait_for(|it| !it.is_blocked);
            if dies {
                if tokio::time::timeout(DEAD_AFTER, passes).await.is_err() {
                    return false;
                }
            } else {
                drop(passes.await);
            }
        }
        if !now.delay.is_zero() {
            tokio::time::sleep(now.delay).await;
        }
        let outcome = match length {
            0 => to.shutdown().await,
            length => to.write_all(&chunk[..length]).await,
        };
        if outcome.is_err() {
            return false;
        }
        if length == 0 {
            return true;
        }
    }
}
