//! Interleavings of the end: who shuts the extension down, what is still started, what a caller is
//! answered.

use std::future::{Future, pending};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use gofer_net::memory::Network;
use gofer_net::tls::Trust;
use gofer_net::{Clock, Dial};
use http::uri::Authority;
use tokio::sync::watch;
use tokio_rustls::rustls::pki_types::ServerName;

use super::erased::{Definition, Instance, Prepared, definition};
use super::lifecycle::Lifecycle;
use crate::client::{ClientOptions, Gofer, new_client};
use crate::error::{Error, ErrorKind, Result};
use crate::extension::{
    AnyLive, Cancelled, Context, Dialogue, Extension, ExternalEvent, Key, Live, NoConfig, NoParams,
    Settings, State, Subscription,
};

/// A client for a Gofer that does not exist.
fn gofer() -> Gofer {
    new_client(ClientOptions {
        dial: Dial::Memory(Network::default()),
        authority: Authority::from_static("localhost"),
        server_name: ServerName::try_from("localhost").unwrap(),
        trust: Trust { only_extra: true, ..Trust::default() },
        authorization: None,
        name: "of-a-test".to_owned(),
        is_extension: true,
        clock: Clock::system(),
    })
}

fn no_settings() -> Settings {
    Settings::new(std::iter::empty::<(String, String)>())
}

/// An extension that counts, and whose `init` may do something first.
#[derive(Default)]
struct Counting {
    initialized: Arc<AtomicUsize>,
    shut_down: Arc<AtomicUsize>,
    /// Polls `shutdown` of this in `init`.
    interrupt: OnceLock<Weak<Lifecycle>>,
}

impl Counting {
    fn lifecycle(self: &Arc<Self>, gofer: Gofer) -> Arc<Lifecycle> {
        let definition: Arc<dyn Definition> = Arc::<Self>::clone(self);
        Lifecycle::new(definition, gofer, Duration::from_secs(3))
    }

    fn counts(&self) -> (usize, usize) {
        (self.initialized.load(Ordering::SeqCst), self.shut_down.load(Ordering::SeqCst))
    }
}

#[async_trait]
impl Definition for Counting {
    fn documentation(&self) -> &'static str {
        ""
    }

    async fn init(
        &self,
        _: &Settings,
        _: Gofer,
        _: watch::Sender<usize>,
    ) -> Result<Arc<dyn Instance>> {
        if let Some(lifecycle) = self.interrupt.get().and_then(Weak::upgrade) {
            poll_once(lifecycle.shutdown());
        }
        self.initialized.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(Counted(Arc::clone(&self.shut_down))))
    }

    async fn install(&self, _: &mut Dialogue) -> Result<()> {
        Ok(())
    }

    async fn configure(&self, _: &mut Dialogue) -> Result<()> {
        Ok(())
    }
}

struct Counted(Arc<AtomicUsize>);

#[async_trait]
impl Instance for Counted {
    fn prepare(self: Arc<Self>, _: Key, _: Settings, _: Arc<Context>) -> Result<Prepared> {
        Err(Error::internal("nothing subscribes"))
    }

    fn check(&self, _: &Settings) -> Result<()> {
        Ok(())
    }

    async fn external_event(&self, _: ExternalEvent, _: Vec<Arc<dyn AnyLive>>) -> Result<()> {
        Ok(())
    }

    async fn shutdown(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Begins a call, whose caller then leaves.
fn poll_once(call: impl Future<Output = ()>) {
    let call = std::pin::pin!(call);
    let poll = call.poll(&mut TaskContext::from_waker(Waker::noop()));
    assert_eq!(poll, Poll::Pending);
}

#[tokio::test(start_paused = true)]
async fn callers_of_shutdown_that_leave_and_come_again_shut_down_once() {
    let extension = Arc::new(Counting::default());
    let lifecycle = extension.lifecycle(gofer());
    lifecycle.init(no_settings()).await.unwrap();
    poll_once(lifecycle.shutdown());
    for _ in 0..3 {
        poll_once_or_done(lifecycle.shutdown());
        tokio::task::yield_now().await;
    }
    lifecycle.shutdown().await;
    lifecycle.shutdown().await;
    assert_eq!(extension.counts(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_extension_initialized_while_it_shuts_down_is_shut_down() {
    // Init is dropped or completes, at random; both many times.
    for _ in 0..100 {
        let extension = Arc::new(Counting::default());
        let lifecycle = extension.lifecycle(gofer());
        extension.interrupt.set(Arc::downgrade(&lifecycle)).unwrap();
        let refused = lifecycle.init(no_settings()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        lifecycle.shutdown().await;
        let (initialized, ended) = extension.counts();
        assert_eq!(initialized, ended);
    }
}

/// Runs two actions on each of many lifecycles, at the same instant as far as threads allow.
async fn at_once(
    lifecycles: &[Arc<Lifecycle>],
    one: impl Fn(&Arc<Lifecycle>) + Send + Sync,
    other: impl Fn(&Arc<Lifecycle>) + Send + Sync,
) {
    let runtime = tokio::runtime::Handle::current();
    let arrived = AtomicUsize::new(0);
    let run = |action: &dyn Fn(&Arc<Lifecycle>)| {
        let _entered = runtime.enter();
        for (round, lifecycle) in lifecycles.iter().enumerate() {
            arrived.fetch_add(1, Ordering::SeqCst);
            // Spins, since threads that are woken are not woken at once; but not for long, since
            // there may be one processor.
            for spin in 0_u64.. {
                if arrived.load(Ordering::SeqCst) >= 2 * (round + 1) {
                    break;
                }
                if spin > 1_000 {
                    std::thread::yield_now();
                }
            }
            action(lifecycle);
        }
    };
    std::thread::scope(|threads| {
        threads.spawn(|| run(&one));
        run(&other);
    });
    for lifecycle in lifecycles {
        lifecycle.shutdown().await;
    }
}

const ROUNDS: usize = 5_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_shutdowns_at_once_shut_down_once() {
    let extension = Arc::new(Counting::default());
    let gofer = gofer();
    let mut lifecycles = Vec::new();
    for _ in 0..ROUNDS {
        let lifecycle = extension.lifecycle(gofer.clone());
        lifecycle.init(no_settings()).await.unwrap();
        lifecycles.push(lifecycle);
    }
    let shutdown = |lifecycle: &Arc<Lifecycle>| poll_once_or_done(lifecycle.shutdown());
    at_once(&lifecycles, shutdown, shutdown).await;
    assert_eq!(extension.counts(), (ROUNDS, ROUNDS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_and_an_init_at_once_shut_down_what_was_initialized() {
    let extension = Arc::new(Counting::default());
    let gofer = gofer();
    let lifecycles: Vec<_> = (0..ROUNDS).map(|_| extension.lifecycle(gofer.clone())).collect();
    let init = |lifecycle: &Arc<Lifecycle>| {
        let lifecycle = Arc::clone(lifecycle);
        poll_once_or_done(async move { drop(lifecycle.init(no_settings()).await) });
    };
    let shutdown = |lifecycle: &Arc<Lifecycle>| poll_once_or_done(lifecycle.shutdown());
    at_once(&lifecycles, init, shutdown).await;
    let (initialized, ended) = extension.counts();
    assert_eq!(initialized, ended);
}

/// Begins a call that another thread may complete meanwhile.
fn poll_once_or_done(call: impl Future<Output = ()>) {
    let call = std::pin::pin!(call);
    let _ = call.poll(&mut TaskContext::from_waker(Waker::noop()));
}

/// Ignores its cancellation.
struct Stubborn;

impl Extension for Stubborn {
    type Config = NoConfig;
    type Params = NoParams;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    async fn serve(&self, _: Subscription<NoParams>) -> Result<()> {
        pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn an_unsubscribe_that_passed_its_check_before_a_shutdown_does_not_report_success() {
    let lifecycle = Lifecycle::new(definition::<Stubborn>(), gofer(), Duration::from_secs(3));
    lifecycle.init(no_settings()).await.unwrap();
    let instance = lifecycle.instance().unwrap();
    let key = || Key::new("", "a", "l").unwrap();
    lifecycle.registry.subscribe(instance, key(), no_settings(), None).await.unwrap();
    poll_once(lifecycle.shutdown());
    tokio::task::yield_now().await;
    // The subscription still has its grace period.
    let refused = lifecycle.registry.unsubscribe(key(), Cancelled::Unsubscribed).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    lifecycle.shutdown().await;
}

/// Counts while it exists.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_spawn_slips_past_the_end_of_its_serve() {
    let context = Arc::new(Context::new(gofer()));
    let live = Arc::new(Live::new(Key::new("", "a", "l").unwrap(), no_settings(), context, ()));
    let (done, running) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let runtime = tokio::runtime::Handle::current();
    let spawner = std::thread::spawn({
        let (live, done, running) = (Arc::clone(&live), Arc::clone(&done), Arc::clone(&running));
        move || {
            let _entered = runtime.enter();
            while done.load(Ordering::SeqCst) == 0 {
                let running = Arc::clone(&running);
                live.spawn(async move {
                    let _running = Running::new(&running);
                    pending::<()>().await;
                });
                // Few at a time, so that a round takes no time.
                std::thread::yield_now();
            }
        }
    });
    for _ in 0..100 {
        live.set_state(State::Serving);
        while running.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        live.set_state(State::Restarting);
        live.end_spawned().await;
        assert_eq!(running.load(Ordering::SeqCst), 0);
        tokio::task::yield_now().await;
        assert_eq!(running.load(Ordering::SeqCst), 0);
    }
    done.store(1, Ordering::SeqCst);
    spawner.join().unwrap();
}
