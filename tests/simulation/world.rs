//! A core with extensions, and who acts on them: users and an administrator (`users`), a reader of
//! events, and a nemesis.

pub mod nemesis;
mod users;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use gofer_core::{Core, NO_SETTINGS};
use gofer_net::Clock;
use gofer_sdk::api;
use gofer_sdk::api::extension::ExtensionStatus;
use gofer_sdk::api::pipeline_extension_subscription::Status;
use gofer_sdk::api::pipeline_metadata::PipelineState;
use gofer_sdk::{Error, ErrorKind, RunInfo};
use tokio::sync::{Notify, RwLock};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::author::Author;
use crate::disk::Disk;
use crate::facts::{Key, Who, disturb, facts, violated};
use crate::history::{draw, duration, one_in, pick, record};
use crate::host::{Fate, Host, set_ambush};
use crate::network::{CORE, Condition, Net};
use nemesis::threaten;

/// When a simulation begins, so that it does not depend on when it runs.
pub const UNIX: Duration = Duration::from_secs(1_800_000_000);

pub const MILLI: Duration = Duration::from_millis(1);
pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(60 * 60);

/// What may happen in a simulation, drawn from its seed.
#[derive(Debug)]
pub struct Plan {
    pub extensions: usize,
    pub pipelines: usize,
    /// Users and the administrator change nothing after the beginning.
    pub is_quiet: bool,
    pub has_faults: bool,
    pub has_clock_steps: bool,
    /// Whether the core keeps its store on a disk, and may crash. Writing it takes most of the time
    /// of a simulation.
    pub has_disk: bool,
    /// Whether runs take time, and if so, how many of a pipeline may be executed at once; 0 for any
    /// number.
    pub parallelism: Option<i64>,
    pub latency: Duration,
    /// Whether TCP notices connections on which bytes are stuck.
    pub notices_dead: bool,
}

impl Plan {
    pub fn draw() -> Self {
        Self {
            extensions: draw(|random| random.usize(1..=2)),
            pipelines: draw(|random| random.usize(1..=3)),
            is_quiet: one_in(6),
            has_faults: !one_in(6),
            has_clock_steps: one_in(5),
            has_disk: !one_in(3),
            parallelism: pick(&[None, None, None, Some(0), Some(1), Some(2)]),
            latency: pick(&[Duration::ZERO, MILLI, 20 * MILLI, 150 * MILLI]),
            notices_dead: !one_in(3),
        }
    }
}

/// What has been acknowledged of a subscription.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expected {
    pub number: u32,
    pub every: Duration,
    pub is_enabled: bool,
}

pub struct World {
    pub plan: Plan,
    clock: Clock,
    disk: Disk,
    /// The core that runs, or the one that has ended last.
    host: RefCell<Option<Rc<Host>>>,
    /// Notified when a core has started.
    started: Notify,
    extensions: Vec<String>,
    pub pipelines: Vec<(String, String)>,
    ahead: &'static AtomicI64,
    pub expected: RefCell<BTreeMap<Key, Expected>>,
    /// What has been acknowledged: whether extensions and pipelines are disabled, and whether
    /// namespaces exist. What is being changed is not here.
    disabled_extensions: RefCell<BTreeMap<String, bool>>,
    disabled_pipelines: RefCell<BTreeMap<(String, String), bool>>,
    namespaces: RefCell<BTreeMap<String, bool>>,
    /// Written by what changes the subscriptions of all pipelines.
    extension_changes: RwLock<()>,
    /// The events that were followed.
    pub followed: RefCell<Vec<(i64, String)>>,
    pub is_following: Cell<bool>,
}

impl World {
    pub async fn start(plan: Plan) -> Rc<Self> {
        let ahead: &'static AtomicI64 = Box::leak(Box::default());
        let namespaces = ["default", "other"];
        let pipelines =
            (0..plan.pipelines).map(|n| (namespaces[n % 2].to_owned(), format!("p{n}"))).collect();
        let world = Rc::new(Self {
            clock: Clock::set_by_from(ahead, UNIX),
            disk: Disk::new(draw(|random| random.u64(..))),
            host: RefCell::default(),
            started: Notify::new(),
            extensions: (0..plan.extensions).map(|n| format!("ext{n}")).collect(),
            plan,
            pipelines,
            ahead,
            expected: RefCell::default(),
            disabled_extensions: RefCell::default(),
            disabled_pipelines: RefCell::default(),
            namespaces: RefCell::default(),
            extension_changes: RwLock::default(),
            followed: RefCell::default(),
            is_following: Cell::default(),
        });
        let host = world.boot(None).await.unwrap();
        let core = &host.core;
        for name in &world.extensions {
            core.install::<Author>(name, NO_SETTINGS).await.unwrap();
        }
        let other = api::CreateNamespaceRequest { id: "other".to_owned(), ..Default::default() };
        core.client().api().create_namespace(other).await.unwrap();
        for (namespace, pipeline) in &world.pipelines {
            register(core, namespace, pipeline, world.plan.parallelism.unwrap_or(0)).await;
        }
        world.run_on(host);
        world
    }

    /// Starts a core on the disk, perhaps without power after some writes.
    async fn boot(&self, writes: Option<u64>) -> Result<Rc<Host>, Error> {
        let net = Net::new(self.plan.notices_dead);
        for name in &self.extensions {
            set_latency(&net, name, self.plan.latency);
        }
        let fate = Fate::new(Arc::clone(&net), self.disk.clone());
        if let Some(writes) = writes {
            record(format!("fault: the power is lost after {writes} writes"));
            self.disk.lose_power_after(writes);
        }
        let mut builder = Core::builder().clocks(self.clock, self.clock).faults(net);
        if self.plan.has_disk {
            builder = builder.store_backing(Arc::new(fate.clone())).encryption_key("0a".repeat(32));
        }
        if let Some(most) = self.plan.parallelism {
            let over = fate.over.clone();
            builder = builder.run_handler(move |run| execute(run, most, over.clone()));
        }
        let core = builder.start().await.inspect_err(|_| fate.end())?;
        Ok(Rc::new(Host::new(core, fate)))
    }

    /// From now on, this is the core.
    fn run_on(&self, host: Rc<Host>) {
        let fate = self.plan.has_faults.then(|| host.fate.clone());
        threaten(fate.as_ref().map(|fate| (Arc::clone(&fate.net), self.plan.latency)));
        set_ambush(fate.filter(|_| self.plan.has_disk));
        self.host.replace(Some(host));
        self.started.notify_waiters();
    }

    /// The core, as soon as one runs.
    pub async fn host(&self) -> Rc<Host> {
        loop {
            let started = self.started.notified();
            let host = self.host.borrow().clone();
            if let Some(host) = host.filter(|host| !host.fate.is_over()) {
                return host;
            }
            started.await;
        }
    }

    /// Starts a core again whenever one has ended.
    pub async fn keep_running(self: Rc<Self>) {
        loop {
            let host = self.host().await;
            tokio::select! {
                biased;
                () = host.fate.over.cancelled() => {}
                failure = host.core.failure() => {
                    violated(format!("the core has failed: {failure}"));
                    host.fate.end();
                }
            }
            let _disturbing = disturb(Who::Core);
            // Of one that has crashed, what is left of its tasks.
            host.core.stop().await;
            drop(host);
            tokio::time::sleep(duration(MILLI, 10 * MINUTE)).await;
            loop {
                let loses_power = self.plan.has_faults && self.plan.has_disk && one_in(5);
                let writes = loses_power.then(|| draw(|random| random.u64(1..60)));
                match self.boot(writes).await {
                    Ok(host) => {
                        record("the core has started again");
                        let is_back = self.bring_back(&host).await.is_some();
                        if is_back && !host.fate.is_over() {
                            self.disk.lose_power_after(u64::MAX);
                            self.run_on(host);
                            break;
                        }
                        host.core.stop().await;
                    }
                    Err(error) => record(format!("the core does not start: {error}")),
                }
                tokio::time::sleep(duration(MILLI, MINUTE)).await;
            }
        }
    }

    /// Gives a core the extensions' type, and checks that what was acknowledged is there. `None` if
    /// it has ended meanwhile.
    async fn bring_back(&self, host: &Host) -> Option<()> {
        for name in self.extensions.iter().filter(|name| host.core.installed(name).is_ok()) {
            let again = host.ask(host.core.install::<Author>(name, NO_SETTINGS)).await?;
            if !again.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists) {
                violated(format!("{name}: could be installed twice"));
            }
        }
        host.ask(self.check_acknowledged(&host.core)).await
    }

    /// Checks what is in the store and not just being changed.
    pub async fn check_acknowledged(&self, core: &Core) {
        let expected = self.expected.borrow().clone();
        let is_settled = |key| !facts(|facts| facts.changing.contains(key));
        for (key, expected) in expected.iter().filter(|(key, _)| is_settled(key)) {
            let found = found(core, key).await;
            // It may have been changed meanwhile.
            let is_still = is_settled(key) && self.expected.borrow().get(key) == Some(expected);
            if is_still && found != Some((expected.number, expected.is_enabled)) {
                violated(format!("{key}: {found:?} is stored instead of {expected:?}"));
            }
        }
        let extensions = self.disabled_extensions.borrow().clone();
        for (name, is_disabled) in extensions {
            let request = api::GetExtensionRequest { name: name.clone() };
            let found = core.client().api().get_extension(request).await.ok();
            let found = found.and_then(|it| it.into_inner().extension);
            let found = found.map(|it| it.status() == ExtensionStatus::Disabled);
            let is_still = self.disabled_extensions.borrow().get(&name) == Some(&is_disabled);
            if is_still && found != Some(is_disabled) {
                violated(format!("{name}: disabled: {found:?} instead of {is_disabled}"));
            }
        }
        let pipelines = self.disabled_pipelines.borrow().clone();
        for (pipeline, is_disabled) in pipelines {
            let (namespace_id, id) = pipeline.clone();
            let request = api::GetPipelineRequest { namespace_id, id, version: 0 };
            let found = core.client().api().get_pipeline(request).await.ok();
            let found = found.and_then(|it| it.into_inner().pipeline?.metadata);
            let found = found.map(|it| it.state() == PipelineState::Disabled);
            let is_still = self.disabled_pipelines.borrow().get(&pipeline) == Some(&is_disabled);
            if is_still && found != Some(is_disabled) {
                violated(format!("{pipeline:?}: disabled: {found:?} instead of {is_disabled}"));
            }
        }
        let namespaces = self.namespaces.borrow().clone();
        for (id, exists) in namespaces {
            let request = api::GetNamespaceRequest { id: id.clone() };
            let found = core.client().api().get_namespace(request).await.is_ok();
            if found != exists {
                violated(format!("the namespace {id} exists: {found} instead of {exists}"));
            }
        }
    }

    /// Everything that happens, for so long.
    pub async fn run(self: &Rc<Self>, time: Duration) {
        let end = Instant::now() + time;
        let mut actors = tokio::task::JoinSet::new();
        for pipeline in &self.pipelines {
            for _ in 0..draw(|random| random.usize(1..=2)) {
                self.subscribe(pipeline).await;
            }
            let (this, pipeline) = (Rc::clone(self), pipeline.clone());
            if !self.plan.is_quiet {
                actors.spawn_local(async move { this.use_pipeline(&pipeline, end).await });
            }
        }
        let (this, other) = (Rc::clone(self), Rc::clone(self));
        if !self.plan.is_quiet {
            actors.spawn_local(async move { this.administrate(end).await });
        }
        if self.plan.has_faults {
            actors.spawn_local(async move { other.disturb(end).await });
        }
        while let Some(ended) = actors.join_next().await {
            ended.unwrap();
        }
        threaten(None);
        set_ambush(None);
        tokio::time::sleep_until(end).await;
        self.host().await;
    }

    /// Follows the events, and resumes now and then.
    pub async fn follow(self: Rc<Self>) {
        loop {
            let host = self.host().await;
            let Some(Ok(mut events)) = host.ask(host.core.client().follow_events()).await else {
                tokio::time::sleep(SECOND).await;
                continue;
            };
            let patience = duration(SECOND, 6 * HOUR);
            let read = async {
                while let Ok(Some(event)) = events.next().await {
                    let last = self.followed.borrow().last().map_or(0, |it| it.0);
                    // Resumed after the last one that was seen.
                    if event.id > last {
                        self.followed.borrow_mut().push((event.id, event.details));
                    }
                }
            };
            self.is_following.set(true);
            let _ = host.ask(tokio::time::timeout(patience, read)).await;
            self.is_following.set(false);
            tokio::time::sleep(duration(MILLI, 10 * MINUTE)).await;
        }
    }
}

async fn register(core: &Core, namespace: &str, pipeline: &str, parallelism: i64) {
    let id = pipeline.to_owned();
    let config = api::UserPipelineConfig { id, parallelism, ..Default::default() };
    let request = api::RegisterPipelineConfigRequest {
        namespace_id: namespace.to_owned(),
        pipeline_config: Some(config),
    };
    core.client().api().register_pipeline_config(request).await.unwrap();
}

/// Executes a run. Not more of a pipeline at once than it allows.
async fn execute(run: RunInfo, most: i64, over: CancellationToken) -> gofer_sdk::Result<()> {
    if over.is_cancelled() {
        return Err(Error::internal("the core has crashed"));
    }
    let executing = Executing::begin(run.pipeline().to_string(), most);
    let _ = tokio::time::timeout(duration(MILLI, 3 * MINUTE), over.cancelled()).await;
    drop(executing);
    if one_in(10) { Err(Error::internal("on purpose")) } else { Ok(()) }
}

struct Executing(String);

impl Executing {
    fn begin(pipeline: String, most: i64) -> Self {
        let count = facts(|facts| {
            let count = facts.executing.entry(pipeline.clone()).or_default();
            *count += 1;
            *count
        });
        if most > 0 && count > most {
            violated(format!("{pipeline}: {count} runs at once instead of {most}"));
        }
        Self(pipeline)
    }
}

impl Drop for Executing {
    fn drop(&mut self) {
        facts(|facts| *facts.executing.entry(self.0.clone()).or_default() -= 1);
    }
}

pub fn set_latency(net: &Net, name: &str, delay: Duration) {
    for (from, to) in [(CORE, name), (name, CORE)] {
        net.set(from, to, Condition { is_blocked: false, delay });
    }
}

/// The outcome of a change through the raw API.
async fn made<T>(change: impl Future<Output = Result<T, api::tonic::Status>>) -> Result<(), Error> {
    change.await.map(drop).map_err(Error::from_status)
}

pub async fn stored(core: &Core, key: &Key) -> Option<api::PipelineExtensionSubscription> {
    let request = api::GetPipelineExtensionSubscriptionRequest {
        namespace_id: key.namespace.clone(),
        pipeline_id: key.pipeline.clone(),
        extension_name: key.extension.clone(),
        extension_label: key.label.clone(),
    };
    let response = core.client().api().get_pipeline_extension_subscription(request).await.ok()?;
    response.into_inner().subscription
}

/// The number of a stored subscription, and whether it is enabled.
async fn found(core: &Core, key: &Key) -> Option<(u32, bool)> {
    let stored = stored(core, key).await?;
    let number = stored.settings.get("number")?.parse().ok()?;
    // None of those that are stored is ever refused.
    if !matches!(stored.status(), Status::Active | Status::Disabled) {
        violated(format!("{key}: has status {:?}", stored.status()));
    }
    Some((number, stored.status() == Status::Active))
}
