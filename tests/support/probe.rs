//! An extension that does what its test sets up, and records what it was asked.
//!
//! Its configuration names the [`Probe`] of the test, so tests that run at the same time in one
//! process do not interfere.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};

use gofer_sdk::{Extension, ExternalEvent, GoDuration, Gofer, Result, Subscription};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::{Semaphore, watch};

use super::{Client, Setup, Started, within};

/// What the administrator sets.
#[derive(Deserialize, JsonSchema)]
pub struct Config {
    /// The probe of the test.
    pub probe: String,
    /// Distinguishes configurations.
    #[serde(default)]
    pub note: String,
}

/// What a pipeline sets.
#[derive(Deserialize, JsonSchema)]
pub struct Params {
    /// Distinguishes subscriptions.
    #[serde(default)]
    pub value: String,
    /// For tests of intervals.
    pub every: Option<GoDuration>,
}

type Task = Pin<Box<dyn Future<Output = Result<()>> + Send>>;
type Hook<T> = Box<dyn Fn(Arc<Probe>, T) -> Task + Send + Sync>;

fn hook<T, F, Fut>(hook: F) -> Hook<T>
where
    F: Fn(Arc<Probe>, T) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    Box::new(move |probe, what| Box::pin(hook(probe, what)))
}

/// What happened so far.
#[derive(Default)]
pub struct Seen {
    /// In order, such as `start a 1`, `end a 1`.
    pub events: Vec<String>,
    /// How many `serve`s of each pipeline run.
    pub running: BTreeMap<String, usize>,
    /// The most that ever ran for one pipeline.
    pub most: usize,
    /// How many `serve`s were called.
    pub served: usize,
}

impl Seen {
    pub fn has(&self, event: &str) -> bool {
        self.count(event) > 0
    }

    pub fn count(&self, event: &str) -> usize {
        self.events.iter().filter(|seen| *seen == event).count()
    }
}

pub struct Probe {
    id: String,
    seen: watch::Sender<Seen>,
    init: Hook<String>,
    serve: Hook<Subscription<Params>>,
    event: Hook<ExternalEvent>,
    shutdown: Hook<()>,
    /// What a hook waits for to continue.
    pub gate: Semaphore,
    gofer: Mutex<Option<Gofer>>,
}

static PROBES: LazyLock<Mutex<HashMap<String, Arc<Probe>>>> = LazyLock::new(Mutex::default);

/// Makes a [`Probe`]: a hook that is not set does what an extension does by default.
pub struct Builder(Probe);

/// Starts a run at each tick, as most extensions do.
pub fn interval() -> Builder {
    probe().serve(|_, subscription| async move {
        let mut ticks = subscription.every(subscription.params().every.unwrap())?;
        while let Some(tick) = ticks.next().await {
            subscription.start_run(tick.run("the interval elapsed")).await?;
        }
        Ok(())
    })
}

pub fn probe() -> Builder {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    Builder(Probe {
        id: NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string(),
        seen: watch::Sender::default(),
        init: hook(|_, _| async { Ok(()) }),
        serve: hook(|_, subscription: Subscription<Params>| async move {
            subscription.cancelled().await;
            Ok(())
        }),
        event: hook(|_, _| async { Ok(()) }),
        shutdown: hook(|_, ()| async { Ok(()) }),
        gate: Semaphore::new(0),
        gofer: Mutex::default(),
    })
}

impl Builder {
    /// What `init` does, with the `note` of the configuration.
    pub fn init<F, Fut>(mut self, init: F) -> Self
    where
        F: Fn(Arc<Probe>, String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.0.init = hook(init);
        self
    }

    /// What `serve` does, between the records of its start and its end.
    pub fn serve<F, Fut>(mut self, serve: F) -> Self
    where
        F: Fn(Arc<Probe>, Subscription<Params>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.0.serve = hook(serve);
        self
    }

    /// What `external_event` does.
    pub fn event<F, Fut>(mut self, event: F) -> Self
    where
        F: Fn(Arc<Probe>, ExternalEvent) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.0.event = hook(event);
        self
    }

    /// What `shutdown` does.
    pub fn shutdown<F, Fut>(mut self, shutdown: F) -> Self
    where
        F: Fn(Arc<Probe>, ()) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.0.shutdown = hook(shutdown);
        self
    }

    pub fn build(self) -> Arc<Probe> {
        let probe = Arc::new(self.0);
        PROBES.lock().unwrap().insert(probe.id.clone(), Arc::clone(&probe));
        probe
    }

    /// Starts the extension; not initialized.
    pub async fn start_bare(self, setup: Setup) -> (Arc<Probe>, Started, Client) {
        let probe = self.build();
        let started = setup.start::<Probed>();
        let client = started.client().await;
        (probe, started, client)
    }

    /// Starts and initializes the extension.
    pub async fn start(self, setup: Setup) -> (Arc<Probe>, Started, Client) {
        let (probe, started, client) = self.start_bare(setup).await;
        client.init(&probe.config()).await.unwrap();
        (probe, started, client)
    }
}

impl Probe {
    /// The configuration that leads to this probe.
    pub fn config(&self) -> [(&str, &str); 1] {
        [("probe", &self.id)]
    }

    /// Another configuration that leads to this probe.
    pub fn config_with<'a>(&'a self, note: &'a str) -> [(&'a str, &'a str); 2] {
        [("probe", &self.id), ("note", note)]
    }

    pub fn record(&self, event: impl Into<String>) {
        self.seen.send_modify(|seen| seen.events.push(event.into()));
    }

    pub fn seen(&self) -> watch::Ref<'_, Seen> {
        self.seen.borrow()
    }

    /// Waits until the condition holds for what has happened.
    pub async fn until(&self, condition: impl FnMut(&Seen) -> bool) {
        let mut seen = self.seen.subscribe();
        let outcome = tokio::time::timeout(super::HANG_TIMEOUT, seen.wait_for(condition)).await;
        assert!(outcome.is_ok(), "it does not happen; what did: {:?}", self.seen().events);
    }

    /// Waits until the event has been recorded.
    pub async fn until_seen(&self, event: &str) {
        self.until(|seen| seen.has(event)).await;
    }

    /// Waits until the test opens the gate once more.
    pub async fn wait_at_gate(&self) {
        self.gate.acquire().await.unwrap().forget();
    }

    /// Lets one task pass the gate, now or later.
    pub fn open_gate(&self) {
        self.gate.add_permits(1);
    }

    /// The client that `init` was given.
    pub fn gofer(&self) -> Gofer {
        self.gofer.lock().unwrap().clone().unwrap()
    }

    fn enter(self: &Arc<Self>, subscription: &Subscription<Params>) -> Running {
        let name = subscription.pipeline().to_owned();
        let value = subscription.params().value.clone();
        self.seen.send_modify(|seen| {
            seen.events.push(format!("start {name} {value}"));
            seen.served += 1;
            let running = seen.running.entry(name.clone()).or_default();
            *running += 1;
            seen.most = seen.most.max(*running);
        });
        Running { probe: Arc::clone(self), name, value }
    }
}

/// One `serve`, while it exists, however it ends.
struct Running {
    probe: Arc<Probe>,
    name: String,
    value: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.probe.seen.send_modify(|seen| {
            seen.events.push(format!("end {} {}", self.name, self.value));
            let running = seen.running.get_mut(&self.name).unwrap();
            *running -= 1;
            if *running == 0 {
                seen.running.remove(&self.name);
            }
        });
    }
}

/// The extension that carries the probe.
pub struct Probed(Arc<Probe>);

impl Extension for Probed {
    type Config = Config;
    type Params = Params;

    async fn init(config: Config, gofer: Gofer) -> Result<Self> {
        let probe = PROBES.lock().unwrap().get(&config.probe).cloned().unwrap();
        probe.record(format!("init {}", config.note).trim_end());
        *probe.gofer.lock().unwrap() = Some(gofer);
        (probe.init)(Arc::clone(&probe), config.note).await?;
        Ok(Self(probe))
    }

    async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
        let _running = self.0.enter(&subscription);
        (self.0.serve)(Arc::clone(&self.0), subscription).await
    }

    async fn external_event(
        &self,
        event: ExternalEvent,
        _: gofer_sdk::Subscriptions<Params>,
    ) -> Result<()> {
        (self.0.event)(Arc::clone(&self.0), event).await
    }

    async fn shutdown(&self) {
        self.0.record("shutdown");
        drop((self.0.shutdown)(Arc::clone(&self.0), ()).await);
    }
}

/// Runs `calls` at the same time, each in a task, and waits for all.
pub async fn together<F>(calls: impl IntoIterator<Item = F>) -> Vec<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let tasks: Vec<_> = calls.into_iter().map(tokio::spawn).collect();
    let mut outcomes = Vec::with_capacity(tasks.len());
    for task in tasks {
        outcomes.push(within(task).await.unwrap());
    }
    outcomes
}
