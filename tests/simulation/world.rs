//! A core with extensions, and who acts on them: users, an administrator, a reader of events, and a
//! nemesis.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use gofer_core::{Core, NO_SETTINGS};
use gofer_net::Clock;
use gofer_sdk::api;
use gofer_sdk::api::extension::ExtensionStatus;
use gofer_sdk::api::pipeline_extension_subscription::Status;
use gofer_sdk::api::pipeline_metadata::PipelineState;
use gofer_sdk::{Error, ErrorKind, Run, RunInfo};
use tokio::sync::{Notify, RwLock};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::author::{Author, BEHAVIORS};
use crate::disk::Disk;
use crate::facts::{Disturbing, Facts, Key, Life, Who, disturb, disturbed, facts, violated};
use crate::history::{draw, duration, now, one_in, pick, record};
use crate::host::{Answer, Fate, Host, set_ambush};
use crate::network::{CORE, Condition, Net};

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

thread_local! {
    /// For faults at the moment of a start.
    static AMBUSH: RefCell<Option<(Arc<Net>, Duration)>> = const { RefCell::new(None) };
}

/// From now on, something may happen to starts, or no longer.
pub fn threaten(network: Option<(Arc<Net>, Duration)>) {
    AMBUSH.set(network);
}

/// Perhaps something happens to a start that an extension is about to make.
pub fn perhaps_ambush(name: &str) {
    let ambush = AMBUSH.with_borrow(Clone::clone);
    let Some((net, latency)) = ambush.filter(|_| one_in(30)) else { return };
    let name = name.to_owned();
    let disturbing = disturb(Who::Extension(name.clone()));
    let after = duration(MILLI, 500 * MILLI);
    let is_crash = one_in(2);
    record(format!(
        "fault: {name} {} after {after:?}",
        if is_crash { "crash" } else { "no answers" }
    ));
    let usual = Condition { is_blocked: false, delay: latency };
    tokio::spawn(async move {
        let _disturbing = disturbing;
        if !is_crash {
            net.set(CORE, &name, Condition { is_blocked: true, ..usual });
        }
        tokio::time::sleep(after).await;
        if is_crash {
            net.kill(&name);
        } else {
            net.cut(&name);
            net.set(CORE, &name, usual);
        }
    });
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

    async fn use_pipeline(&self, pipeline: &(String, String), end: Instant) {
        loop {
            let next = Instant::now() + duration(10 * SECOND, 5 * HOUR);
            if next >= end {
                return;
            }
            tokio::time::sleep_until(next).await;
            match draw(|random| random.u32(..12)) {
                0..5 => self.subscribe(pipeline).await,
                5..7 => self.unsubscribe(pipeline).await,
                7 => self.set_enabled(pipeline, false).await,
                8 => self.set_enabled(pipeline, true).await,
                9 => self.disable_pipeline_for_a_while(pipeline).await,
                _ => self.start_run(pipeline).await,
            }
        }
    }

    fn existing(&self, pipeline: &(String, String), is_enabled: bool) -> Option<Key> {
        let keys: Vec<_> = self
            .expected
            .borrow()
            .iter()
            .filter(|(key, it)| {
                (&key.namespace, &key.pipeline) == (&pipeline.0, &pipeline.1)
                    && it.is_enabled == is_enabled
            })
            .map(|(key, _)| key.clone())
            .collect();
        if keys.is_empty() { None } else { Some(pick(&keys)) }
    }

    async fn subscribe(&self, (namespace, pipeline): &(String, String)) {
        let _shared = self.extension_changes.read().await;
        let extension = pick(&self.extensions);
        let label = pick(&["a", "b"]);
        let key = Key {
            extension: extension.clone(),
            namespace: namespace.clone(),
            pipeline: pipeline.clone(),
            label: label.to_owned(),
        };
        let host = self.host().await;
        let number = facts(Facts::next_number);
        let every = Duration::from_secs(duration(MINUTE, 4 * HOUR).as_secs());
        let behavior = behavior();
        record(format!("{key} #{number}: subscribe every {every:?}, {behavior}"));
        let before = self.expected.borrow().get(&key).cloned();
        let after = Expected { number, every, is_enabled: true };
        let was_alive = end_life(&key);
        let disturbing = disturb(Who::Subscription(key.clone()));
        let changing = Changing::begin(&key);
        let settings = [
            ("every", format!("{}s", every.as_secs())),
            ("behavior", behavior.to_owned()),
            ("number", number.to_string()),
        ];
        let path = format!("{namespace}/{pipeline}");
        let answer = match host.core.installed(&extension) {
            Ok(extension) => {
                let subscribe = || extension.subscribe(path.as_str(), label, settings.clone());
                let what = format!("{key} #{number}: subscribe");
                host.change_as_users_do(&what, self.plan.has_faults, subscribe).await
            }
            Err(error) => Answer::Failed(error.kind()),
        };
        drop(disturbing);
        let now = match answer {
            Answer::Done(()) => Some(after),
            Answer::NotMade | Answer::Failed(_) => before.clone(),
            Answer::Lost => self.either(&key, before.clone(), Some(after)).await,
        };
        self.settle(now, was_alive, changing);
    }

    /// What a subscription is, of two.
    async fn either(
        &self,
        key: &Key,
        before: Option<Expected>,
        after: Option<Expected>,
    ) -> Option<Expected> {
        let found = loop {
            let host = self.host().await;
            if let Some(found) = host.ask(found(&host.core, key)).await {
                break found;
            }
        };
        let of = |it: &Option<Expected>| it.as_ref().map(|it| (it.number, it.is_enabled));
        record(format!("{key}: is {found:?}, was {:?}, to be {:?}", of(&before), of(&after)));
        if found == of(&after) {
            after
        } else {
            if found != of(&before) {
                violated(format!("{key}: {found:?} is neither {before:?} nor {after:?}"));
            }
            before
        }
    }

    /// The end of a change, which may have been made at any time since it began.
    fn settle(&self, now: Option<Expected>, was_alive: bool, changing: Changing) {
        let Changing { key, since } = &changing;
        let before = match &now {
            Some(now) => self.expected.borrow_mut().insert(key.clone(), now.clone()),
            None => self.expected.borrow_mut().remove(key),
        };
        if let Some(now) = now.filter(|now| now.is_enabled) {
            if was_alive && before.as_ref() == Some(&now) {
                go_on_living(key);
            } else {
                begin_life(key, *since, now.number, now.every, was_alive);
            }
        }
        drop(changing);
    }

    async fn unsubscribe(&self, pipeline: &(String, String)) {
        let _shared = self.extension_changes.read().await;
        let is_enabled = !one_in(3);
        let Some(key) = self.existing(pipeline, is_enabled) else { return };
        let host = self.host().await;
        let Ok(extension) = host.core.installed(&key.extension) else { return };
        record(format!("{key}: unsubscribe"));
        let before = self.expected.borrow().get(&key).cloned();
        let was_alive = end_life(&key);
        let changing = Changing::begin(&key);
        let path = format!("{}/{}", key.namespace, key.pipeline);
        let change = || extension.unsubscribe(path.as_str(), &key.label);
        let what = format!("{key}: unsubscribe");
        let now = match host.change_as_users_do(&what, self.plan.has_faults, change).await {
            Answer::Done(()) => {
                Self::check_ended(&key);
                None
            }
            // The store is changed first, whatever the extension answers.
            Answer::Failed(_) => None,
            Answer::NotMade => before,
            Answer::Lost => self.either(&key, before, None).await,
        };
        self.settle(now, was_alive, changing);
    }

    /// An acknowledged end is one.
    fn check_ended(key: &Key) {
        let serving = facts(|facts| facts.serving.get(key).is_some_and(|it| !it.is_empty()));
        if serving {
            violated(format!("{key}: `serve` runs although its end was acknowledged"));
        }
    }

    async fn set_enabled(&self, pipeline: &(String, String), enable: bool) {
        let _shared = self.extension_changes.read().await;
        let Some(key) = self.existing(pipeline, !enable) else { return };
        let host = self.host().await;
        let what = format!("{key}: {}", if enable { "enable" } else { "disable" });
        record(&*what);
        let before = self.expected.borrow().get(&key).cloned();
        let after = before.clone().map(|it| Expected { is_enabled: enable, ..it });
        let was_alive = end_life(&key);
        let changing = Changing::begin(&key);
        let Key { extension, namespace, pipeline, label } = key.clone();
        // Boxed, as it is large.
        let change = || {
            Box::pin(async {
                let mut api = host.core.client().api();
                let (namespace_id, pipeline_id) = (namespace.clone(), pipeline.clone());
                let (extension_name, extension_label) = (extension.clone(), label.clone());
                if enable {
                    let request = api::EnablePipelineExtensionSubscriptionRequest {
                        namespace_id,
                        pipeline_id,
                        extension_name,
                        extension_label,
                    };
                    made(api.enable_pipeline_extension_subscription(patient(request))).await
                } else {
                    let request = api::DisablePipelineExtensionSubscriptionRequest {
                        namespace_id,
                        pipeline_id,
                        extension_name,
                        extension_label,
                    };
                    made(api.disable_pipeline_extension_subscription(patient(request))).await
                }
            })
        };
        let answer = host.change_as_users_do(&what, self.plan.has_faults, change).await;
        let now = match answer {
            Answer::Done(()) => {
                if !enable {
                    Self::check_ended(&key);
                }
                after
            }
            // The store is changed first, whatever the extension answers.
            Answer::Failed(_) if !enable => after,
            Answer::NotMade | Answer::Failed(_) => before,
            Answer::Lost => self.either(&key, before, after).await,
        };
        self.settle(now, was_alive, changing);
    }

    async fn disable_pipeline_for_a_while(&self, pipeline: &(String, String)) {
        let _disturbing = disturb(Who::Pipeline(pipeline.0.clone(), pipeline.1.clone()));
        self.set_pipeline_enabled(pipeline, false).await;
        tokio::time::sleep(duration(SECOND, HOUR)).await;
        self.set_pipeline_enabled(pipeline, true).await;
    }

    /// Tries until it is acknowledged.
    async fn set_pipeline_enabled(&self, pipeline: &(String, String), enable: bool) {
        let (namespace, id) = pipeline;
        let what = format!("{namespace}/{id}: {}", if enable { "enable" } else { "disable" });
        loop {
            let host = self.host().await;
            record(&*what);
            let before = self.disabled_pipelines.borrow_mut().remove(pipeline);
            let mut api = host.core.client().api();
            let (namespace_id, id) = (namespace.clone(), id.clone());
            let answer = if enable {
                let request = api::EnablePipelineRequest { namespace_id, id };
                host.change(&what, made(api.enable_pipeline(request))).await
            } else {
                let request = api::DisablePipelineRequest { namespace_id, id };
                host.change(&what, made(api.disable_pipeline(request))).await
            };
            let now = match answer {
                Answer::Done(()) => Some(!enable),
                Answer::NotMade => before,
                Answer::Failed(_) | Answer::Lost => None,
            };
            if let Some(now) = now {
                self.disabled_pipelines.borrow_mut().insert(pipeline.clone(), now);
            }
            if matches!(answer, Answer::Done(())) {
                return;
            }
            tokio::time::sleep(MINUTE).await;
        }
    }

    async fn start_run(&self, (namespace, pipeline): &(String, String)) {
        let path = format!("{namespace}/{pipeline}");
        let host = self.host().await;
        let run = host.core.client().start_run(path.as_str(), "", Run::because("by hand"));
        let answer = host.change(format!("{path}: run by hand"), run).await;
        let key = (namespace.clone(), pipeline.clone());
        let run = facts(|facts| {
            let (certain, perhaps) = facts.by_api.entry(key).or_default();
            match answer {
                Answer::Done(run) => {
                    *certain += 1;
                    return Some(run);
                }
                Answer::NotMade => {}
                Answer::Failed(_) | Answer::Lost => *perhaps += 1,
            }
            None
        });
        let Some(run) = run else { return };
        record(format!("{path}: run {} by hand", run.id()));
        if self.plan.parallelism.is_some() && one_in(2) {
            tokio::time::sleep(duration(MILLI, 2 * MINUTE)).await;
            let request = api::CancelRunRequest {
                namespace_id: namespace.clone(),
                pipeline_id: pipeline.clone(),
                run_id: run.id(),
                force: false,
            };
            let mut api = host.core.client().api();
            let what = format!("{path}: cancel run {}", run.id());
            host.change(what, made(api.cancel_run(request))).await;
        }
    }

    /// The subscriptions of a pipeline that are stored.
    pub async fn list(core: &Core, namespace: &str, pipeline: &str) -> Vec<Key> {
        let request = api::ListPipelineExtensionSubscriptionsRequest {
            namespace_id: namespace.to_owned(),
            pipeline_id: pipeline.to_owned(),
        };
        let mut api = core.client().api();
        let response = api.list_pipeline_extension_subscriptions(request);
        let all = response.await.map(|it| it.into_inner().subscriptions).unwrap_or_default();
        all.into_iter()
            .map(|it| Key {
                extension: it.name,
                namespace: it.namespace,
                pipeline: it.pipeline,
                label: it.label,
            })
            .collect()
    }

    async fn administrate(&self, end: Instant) {
        loop {
            let next = Instant::now() + duration(20 * MINUTE, 16 * HOUR);
            if next >= end {
                return;
            }
            tokio::time::sleep_until(next).await;
            let name = &*pick(&self.extensions);
            let _disturbing = disturb(Who::Extension(name.to_owned()));
            match draw(|random| random.u32(..4)) {
                0 | 1 => {
                    let host = self.host().await;
                    record(format!("{name}: restart"));
                    let Ok(extension) = host.core.installed(name) else { continue };
                    host.change(format!("{name}: restart"), extension.restart()).await;
                }
                2 => {
                    let _exclusive = self.extension_changes.write().await;
                    self.set_extension_enabled(name, false).await;
                    tokio::time::sleep(duration(SECOND, HOUR)).await;
                    while !self.set_extension_enabled(name, true).await {
                        tokio::time::sleep(MINUTE).await;
                    }
                }
                _ => {
                    let _exclusive = self.extension_changes.write().await;
                    self.reinstall(name).await;
                }
            }
        }
    }

    /// Returns whether it was acknowledged.
    async fn set_extension_enabled(&self, name: &str, enable: bool) -> bool {
        let host = self.host().await;
        let what = format!("{name}: {}", if enable { "enable" } else { "disable" });
        record(&*what);
        let before = self.disabled_extensions.borrow_mut().remove(name);
        let mut api = host.core.client().api();
        let name = name.to_owned();
        let answer = if enable {
            let request = api::EnableExtensionRequest { name: name.clone() };
            host.change(what, made(api.enable_extension(patient(request)))).await
        } else {
            let request = api::DisableExtensionRequest { name: name.clone() };
            host.change(what, made(api.disable_extension(patient(request)))).await
        };
        let now = match answer {
            Answer::Done(()) => Some(!enable),
            Answer::NotMade => before,
            Answer::Failed(_) | Answer::Lost => None,
        };
        if let Some(now) = now {
            self.disabled_extensions.borrow_mut().insert(name, now);
        }
        matches!(answer, Answer::Done(()))
    }

    async fn reinstall(&self, name: &str) {
        let host = self.host().await;
        let Ok(extension) = host.core.installed(name) else { return };
        record(format!("{name}: uninstall"));
        let before = self.disabled_extensions.borrow_mut().remove(name);
        let keys: Vec<_> =
            self.expected.borrow().keys().filter(|key| key.extension == name).cloned().collect();
        let changing: Vec<_> = keys.iter().map(Changing::begin).collect();
        let is_gone = match host.change(format!("{name}: uninstall"), extension.uninstall()).await {
            Answer::Done(()) => true,
            Answer::NotMade | Answer::Failed(_) => false,
            Answer::Lost => self.host().await.core.installed(name).is_err(),
        };
        if !is_gone {
            if let Some(before) = before {
                self.disabled_extensions.borrow_mut().insert(name.to_owned(), before);
            }
            return;
        }
        for key in &keys {
            end_life(key);
            self.expected.borrow_mut().remove(key);
        }
        drop(changing);
        loop {
            let host = self.host().await;
            let install = host.core.install::<Author>(name, NO_SETTINGS);
            match host.change(format!("{name}: install"), install).await {
                Answer::Done(_) | Answer::Failed(ErrorKind::AlreadyExists) => return,
                Answer::NotMade | Answer::Failed(_) | Answer::Lost => {
                    tokio::time::sleep(MINUTE).await;
                }
            }
        }
    }

    /// One fault after the other.
    async fn disturb(&self, end: Instant) {
        loop {
            let next = Instant::now() + duration(10 * MINUTE, 5 * HOUR);
            if next >= end {
                return;
            }
            tokio::time::sleep_until(next).await;
            let name = pick(&self.extensions);
            if self.plan.has_clock_steps && one_in(3) {
                self.step_clock();
                continue;
            }
            let host = self.host().await;
            let network = &host.fate.net;
            match draw(|random| random.u32(..if self.plan.has_disk { 11 } else { 7 })) {
                0 => self.partition(network, &name, true, false).await,
                1 => self.partition(network, &name, false, true).await,
                2 => self.partition(network, &name, true, true).await,
                3 => self.slow_down(network, &name).await,
                4 => {
                    let _disturbing = Self::begin_fault(&name, "cut");
                    network.cut(&name);
                }
                5 | 6 => {
                    for _ in 0..draw(|random| random.u32(1..4)) {
                        let _disturbing = Self::begin_fault(&name, "crash");
                        network.kill(&name);
                        tokio::time::sleep(duration(MILLI, 10 * SECOND)).await;
                    }
                }
                7 => self.fail_disk(&host).await,
                8 => {
                    record("fault: the core is stopped");
                    let _disturbing = disturb(Who::Core);
                    host.stop().await;
                }
                9 => {
                    let writes = draw(|random| random.u64(1..200));
                    record(format!("fault: the power is lost after {writes} writes"));
                    self.disk.lose_power_after(writes);
                    let lost = host.fate.over.cancelled();
                    let _ = tokio::time::timeout(4 * HOUR, lost).await;
                    self.disk.lose_power_after(u64::MAX);
                }
                _ => {
                    for _ in 0..draw(|random| random.u32(1..4)) {
                        self.host().await.fate.crash(one_in(2));
                        tokio::time::sleep(duration(MILLI, 10 * MINUTE)).await;
                    }
                }
            }
        }
    }

    /// Checks that all events can be read that were shown.
    async fn check_events_readable(&self, core: &Core) {
        let shown = self.followed.borrow().last().map_or(0, |it| it.0);
        let mut last = 0;
        let read = async {
            let mut events = core.client().events().await?;
            while let Some(event) = events.next().await? {
                last = event.id;
            }
            Ok::<_, Error>(())
        };
        let outcome = read.await;
        if outcome.is_err() || last < shown {
            violated(format!("the events cannot be read up to {shown}, but {last}: {outcome:?}"));
        }
    }

    /// The disk is full or fails for some time.
    async fn fail_disk(&self, host: &Host) {
        let _disturbing = disturb(Who::Core);
        let time = duration(SECOND, 10 * MINUTE);
        let is_full = one_in(2);
        if is_full {
            let room = draw(|random| random.u64(..256 * 1024));
            record(format!("fault: the disk has room for {room} more bytes, for {time:?}"));
            self.disk.set_room(room);
        } else {
            record(format!("fault: the disk fails for {time:?}"));
            self.disk.set_failing(true);
        }
        let end = Instant::now() + time;
        for probe in 0.. {
            if host.fate.is_over() || Instant::now() >= end {
                break;
            }
            let id = format!("probe-{}-{probe}", now().as_millis());
            let request = api::CreateNamespaceRequest { id: id.clone(), ..Default::default() };
            let mut api = host.core.client().api();
            let create = made(api.create_namespace(request));
            let exists = match host.change(format!("create {id}"), create).await {
                Answer::Done(()) if is_full => Some(true),
                Answer::NotMade => Some(false),
                Answer::Lost => None,
                answer => {
                    violated(format!("{id}: {answer:?} although the disk fails"));
                    None
                }
            };
            self.namespaces.borrow_mut().extend(exists.map(|exists| (id, exists)));
            // Reading goes on.
            host.ask(self.check_acknowledged(&host.core)).await;
            if probe == 0 {
                host.ask(self.check_events_readable(&host.core)).await;
            }
            let until = (Instant::now() + duration(SECOND, MINUTE)).min(end);
            tokio::time::sleep_until(until).await;
        }
        self.disk.set_room(u64::MAX);
        self.disk.set_failing(false);
        record("fault: the disk works again");
    }

    fn begin_fault(name: &str, what: &str) -> Disturbing {
        record(format!("fault: {name} {what}"));
        disturb(Who::Extension(name.to_owned()))
    }

    fn step_clock(&self) {
        let by = duration(SECOND, 3 * HOUR).as_nanos() as i64;
        let by = if one_in(2) { by } else { -by };
        record(format!("fault: the clock is set by {by} ns"));
        disturbed(if by > 0 { Who::SetForward } else { Who::SetBack });
        let ahead = self.ahead.fetch_add(by, Ordering::Relaxed) + by;
        let now = now();
        facts(|facts| facts.ahead.push((now, ahead)));
    }

    async fn partition(&self, net: &Net, name: &str, there: bool, back: bool) {
        let ways = match (there, back) {
            (true, false) => "nothing from it arrives",
            (false, true) => "nothing to it arrives",
            _ => "nothing to or from it arrives",
        };
        let time = duration(10 * MILLI, 20 * MINUTE);
        let _disturbing = Self::begin_fault(name, &format!("{ways} for {time:?}"));
        let usual = Condition { is_blocked: false, delay: self.plan.latency };
        let blocked = Condition { is_blocked: true, ..usual };
        net.set(name, CORE, if there { blocked } else { usual });
        net.set(CORE, name, if back { blocked } else { usual });
        tokio::time::sleep(time).await;
        if one_in(2) {
            net.cut(name);
        }
        net.set(name, CORE, usual);
        net.set(CORE, name, usual);
        record(format!("fault: {name} is over"));
    }

    async fn slow_down(&self, net: &Net, name: &str) {
        let delay = duration(10 * MILLI, 8 * SECOND);
        let time = duration(SECOND, HOUR);
        let _disturbing = Self::begin_fault(name, &format!("{delay:?} more for {time:?}"));
        set_latency(net, name, self.plan.latency + delay);
        tokio::time::sleep(time).await;
        set_latency(net, name, self.plan.latency);
        record(format!("fault: {name} is over"));
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

/// True if there was one.
pub fn end_life(key: &Key) -> bool {
    let now = now();
    facts(|facts| facts.current(key).map(|life| life.until = Some(now))).is_some()
}

pub fn begin_life(key: &Key, from: Duration, number: u32, every: Duration, continues: bool) {
    let life = Life { number, every, from, until: None, continues };
    facts(|facts| facts.lives.entry(key.clone()).or_default().push(life));
}

/// A life that was to end goes on.
fn go_on_living(key: &Key) {
    facts(|facts| {
        if let Some(life) = facts.lives.get_mut(key).and_then(|lives| lives.last_mut()) {
            life.until = None;
        }
    });
}

pub fn behavior() -> &'static str {
    let all: u32 = BEHAVIORS.iter().map(|(_, weight)| weight).sum();
    let mut drawn = draw(|random| random.u32(..all));
    for (name, weight) in BEHAVIORS {
        if drawn < weight {
            return name;
        }
        drawn -= weight;
    }
    unreachable!()
}

pub fn set_latency(net: &Net, name: &str, delay: Duration) {
    for (from, to) in [(CORE, name), (name, CORE)] {
        net.set(from, to, Condition { is_blocked: false, delay });
    }
}

/// A subscription is being changed, until this is dropped.
struct Changing {
    key: Key,
    since: Duration,
}

impl Changing {
    fn begin(key: &Key) -> Self {
        facts(|facts| facts.changing.insert(key.clone()));
        Self { key: key.clone(), since: now() }
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        facts(|facts| facts.changing.remove(&self.key));
    }
}

/// The outcome of a change through the raw API.
async fn made<T>(change: impl Future<Output = Result<T, api::tonic::Status>>) -> Result<(), Error> {
    change.await.map(drop).map_err(Error::from_status)
}

/// A request that nobody gives up.
fn patient<T>(message: T) -> api::tonic::Request<T> {
    let mut request = api::tonic::Request::new(message);
    request.set_timeout(2 * HOUR);
    request
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
