//! A core with extensions, and who acts on them: users, an administrator, a reader of events, and a
//! nemesis.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use gofer_core::{Core, Installed, NO_SETTINGS};
use gofer_net::Clock;
use gofer_sdk::api;
use gofer_sdk::api::pipeline_extension_subscription::Status;
use gofer_sdk::{Error, ErrorKind, Run, RunInfo};
use tokio::sync::RwLock;

use crate::author::{Author, BEHAVIORS};
use crate::facts::{Disturbing, Facts, Key, Life, Who, disturb, disturbed, facts, violated};
use crate::history::{draw, duration, now, one_in, pick, record};
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
            parallelism: pick(&[None, None, None, Some(0), Some(1), Some(2)]),
            latency: pick(&[Duration::ZERO, MILLI, 20 * MILLI, 150 * MILLI]),
            notices_dead: !one_in(3),
        }
    }
}

/// What has been acknowledged of a subscription.
#[derive(Clone, Debug)]
pub struct Expected {
    pub number: u32,
    pub every: Duration,
    pub is_enabled: bool,
    /// A change failed, after which a core may have marked it as refused.
    pub may_be_refused: bool,
}

pub struct World {
    pub plan: Plan,
    pub core: Core,
    pub net: Arc<Net>,
    extensions: Vec<Installed>,
    pub pipelines: Vec<(String, String)>,
    ahead: &'static AtomicI64,
    pub expected: RefCell<BTreeMap<Key, Expected>>,
    /// Written by what changes the subscriptions of all pipelines.
    extension_changes: RwLock<()>,
    /// The numbers of the events that were followed.
    pub followed: RefCell<Vec<i64>>,
    pub is_following: Cell<bool>,
}

thread_local! {
    /// For faults at the moment of a start.
    static AMBUSH: RefCell<Option<(Arc<Net>, Duration)>> = const { RefCell::new(None) };
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
        let clock = Clock::set_by_from(ahead, UNIX);
        let net = Net::new(plan.notices_dead);
        let mut builder = Core::builder().clocks(clock, clock).faults(Arc::<Net>::clone(&net));
        if let Some(most) = plan.parallelism {
            builder = builder.run_handler(move |run| execute(run, most));
        }
        let core = builder.start().await.unwrap();
        let mut extensions = Vec::new();
        for n in 0..plan.extensions {
            let name = format!("ext{n}");
            set_latency(&net, &name, plan.latency);
            extensions.push(core.install::<Author>(&name, NO_SETTINGS).await.unwrap());
        }
        let namespaces = ["default", "other"];
        let pipelines: Vec<_> =
            (0..plan.pipelines).map(|n| (namespaces[n % 2].to_owned(), format!("p{n}"))).collect();
        let other = api::CreateNamespaceRequest { id: "other".to_owned(), ..Default::default() };
        core.client().api().create_namespace(other).await.unwrap();
        for (namespace, pipeline) in &pipelines {
            register(&core, namespace, pipeline, plan.parallelism.unwrap_or(0)).await;
        }
        AMBUSH.set(plan.has_faults.then(|| (Arc::clone(&net), plan.latency)));
        Rc::new(Self {
            plan,
            core,
            net,
            extensions,
            pipelines,
            ahead,
            expected: RefCell::default(),
            extension_changes: RwLock::default(),
            followed: RefCell::default(),
            is_following: Cell::default(),
        })
    }

    /// Everything that happens, for so long.
    pub async fn run(self: &Rc<Self>, time: Duration) {
        let end = tokio::time::Instant::now() + time;
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
        AMBUSH.take();
        tokio::time::sleep_until(end).await;
    }

    /// Follows the events, and resumes now and then.
    pub async fn follow(self: Rc<Self>) {
        loop {
            let mut events = self.core.client().follow_events().await.unwrap();
            let patience = duration(SECOND, 6 * HOUR);
            let read = async {
                while let Ok(Some(event)) = events.next().await {
                    let last = self.followed.borrow().last().copied().unwrap_or(0);
                    // Resumed after the last one that was seen.
                    if event.id > last {
                        self.followed.borrow_mut().push(event.id);
                    }
                }
            };
            self.is_following.set(true);
            let _ = tokio::time::timeout(patience, read).await;
            self.is_following.set(false);
            tokio::time::sleep(duration(MILLI, 10 * MINUTE)).await;
        }
    }

    async fn use_pipeline(&self, pipeline: &(String, String), end: tokio::time::Instant) {
        loop {
            let next = tokio::time::Instant::now() + duration(10 * SECOND, 5 * HOUR);
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

    /// Marks what a subscription did as unknown, if the core has given it up.
    async fn notice_refused(&self, key: &Key) {
        if status(&self.core, key).await == Some(Status::Error) {
            record(format!("{key}: is refused"));
            facts(|facts| {
                if let Some(life) = facts.current(key) {
                    life.until = Some(life.from);
                }
            });
        }
    }

    async fn subscribe(&self, (namespace, pipeline): &(String, String)) {
        let _shared = self.extension_changes.read().await;
        let extension = pick(&self.extensions);
        let label = pick(&["a", "b"]);
        let key = Key {
            extension: extension.name().to_owned(),
            namespace: namespace.clone(),
            pipeline: pipeline.clone(),
            label: label.to_owned(),
        };
        self.notice_refused(&key).await;
        let number = facts(Facts::next_number);
        let every = Duration::from_secs(duration(MINUTE, 4 * HOUR).as_secs());
        let behavior = behavior();
        record(format!("{key} #{number}: subscribe every {every:?}, {behavior}"));
        let before = self.expected.borrow().get(&key).cloned();
        let was_alive = Self::end_life(&key);
        let disturbing = disturb(Who::Subscription(key.clone()));
        let settings = [
            ("every", format!("{}s", every.as_secs())),
            ("behavior", behavior.to_owned()),
            ("number", number.to_string()),
        ];
        let path = format!("{namespace}/{pipeline}");
        let outcome = extension.subscribe(path.as_str(), label, settings).await;
        drop(disturbing);
        match outcome {
            Ok(()) => {
                record(format!("{key} #{number}: subscribed"));
                let expected = Expected { number, every, is_enabled: true, may_be_refused: false };
                self.expected.borrow_mut().insert(key.clone(), expected);
                begin_life(&key, number, every, was_alive);
            }
            Err(error) => {
                record(format!("{key} #{number}: not subscribed: {error}"));
                if let Some(before) = before.filter(|it| it.is_enabled) {
                    begin_life(&key, before.number, before.every, was_alive);
                }
                if let Some(expected) = self.expected.borrow_mut().get_mut(&key) {
                    expected.may_be_refused = true;
                }
            }
        }
    }

    /// True if there was one.
    fn end_life(key: &Key) -> bool {
        let now = now();
        facts(|facts| facts.current(key).map(|life| life.until = Some(now))).is_some()
    }

    async fn unsubscribe(&self, pipeline: &(String, String)) {
        let _shared = self.extension_changes.read().await;
        let is_enabled = !one_in(3);
        let Some(key) = self.existing(pipeline, is_enabled) else { return };
        self.notice_refused(&key).await;
        record(format!("{key}: unsubscribe"));
        Self::end_life(&key);
        let path = format!("{}/{}", key.namespace, key.pipeline);
        let extension = self.installed(&key);
        let outcome = extension.unsubscribe(path.as_str(), &key.label).await;
        record(format!("{key}: unsubscribed: {}", show(&outcome)));
        // The store is changed first, whatever the extension answers.
        self.expected.borrow_mut().remove(&key);
        if outcome.is_ok() {
            Self::check_ended(&key);
        }
    }

    /// An acknowledged end is one.
    fn check_ended(key: &Key) {
        let serving = facts(|facts| facts.serving.get(key).is_some_and(|it| !it.is_empty()));
        if serving {
            violated(format!("{key}: `serve` runs although its end was acknowledged"));
        }
    }

    fn installed(&self, key: &Key) -> &Installed {
        self.extensions.iter().find(|it| it.name() == key.extension).unwrap()
    }

    async fn set_enabled(&self, pipeline: &(String, String), enable: bool) {
        let _shared = self.extension_changes.read().await;
        let Some(key) = self.existing(pipeline, !enable) else { return };
        self.notice_refused(&key).await;
        record(format!("{key}: {}", if enable { "enable" } else { "disable" }));
        let Key { extension, namespace, pipeline, label } = key.clone();
        let mut api = self.core.client().api();
        let outcome = if enable {
            let request = api::EnablePipelineExtensionSubscriptionRequest {
                namespace_id: namespace,
                pipeline_id: pipeline,
                extension_name: extension,
                extension_label: label,
            };
            api.enable_pipeline_extension_subscription(patient(request)).await.map(drop)
        } else {
            Self::end_life(&key);
            let request = api::DisablePipelineExtensionSubscriptionRequest {
                namespace_id: namespace,
                pipeline_id: pipeline,
                extension_name: extension,
                extension_label: label,
            };
            api.disable_pipeline_extension_subscription(patient(request)).await.map(drop)
        };
        record(format!("{key}: changed: {}", show(&outcome)));
        let mut all = self.expected.borrow_mut();
        let expected = all.get_mut(&key).unwrap();
        if !enable {
            expected.is_enabled = false;
            if outcome.is_ok() {
                Self::check_ended(&key);
            }
        } else if outcome.is_ok() {
            expected.is_enabled = true;
            begin_life(&key, expected.number, expected.every, false);
        }
    }

    async fn disable_pipeline_for_a_while(&self, (namespace, pipeline): &(String, String)) {
        let (namespace_id, id) = (namespace.clone(), pipeline.clone());
        let _disturbing = disturb(Who::Pipeline(namespace_id.clone(), id.clone()));
        record(format!("{namespace}/{pipeline}: disable"));
        let mut api = self.core.client().api();
        let request = api::DisablePipelineRequest { namespace_id, id };
        api.disable_pipeline(request).await.unwrap();
        tokio::time::sleep(duration(SECOND, HOUR)).await;
        let (namespace_id, id) = (namespace.clone(), pipeline.clone());
        record(format!("{namespace}/{pipeline}: enable"));
        api.enable_pipeline(api::EnablePipelineRequest { namespace_id, id }).await.unwrap();
    }

    async fn start_run(&self, (namespace, pipeline): &(String, String)) {
        let path = format!("{namespace}/{pipeline}");
        let run = self.core.client().start_run(path.as_str(), "", Run::because("by hand"));
        let run = run.await.unwrap();
        record(format!("{path}: run {} by hand", run.id()));
        let key = (namespace.clone(), pipeline.clone());
        facts(|facts| *facts.by_api.entry(key).or_default() += 1);
        if self.plan.parallelism.is_some() && one_in(2) {
            tokio::time::sleep(duration(MILLI, 2 * MINUTE)).await;
            let request = api::CancelRunRequest {
                namespace_id: namespace.clone(),
                pipeline_id: pipeline.clone(),
                run_id: run.id(),
                force: false,
            };
            let outcome = self.core.client().api().cancel_run(request).await.map(drop);
            record(format!("{path}: run {} cancelled: {}", run.id(), show(&outcome)));
        }
    }

    /// The subscriptions of a pipeline that are stored.
    pub async fn list(&self, namespace: &str, pipeline: &str) -> Vec<Key> {
        let request = api::ListPipelineExtensionSubscriptionsRequest {
            namespace_id: namespace.to_owned(),
            pipeline_id: pipeline.to_owned(),
        };
        let mut api = self.core.client().api();
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

    async fn administrate(&self, end: tokio::time::Instant) {
        loop {
            let next = tokio::time::Instant::now() + duration(20 * MINUTE, 16 * HOUR);
            if next >= end {
                return;
            }
            tokio::time::sleep_until(next).await;
            let extension = pick(&self.extensions);
            let name = extension.name();
            let _disturbing = disturb(Who::Extension(name.to_owned()));
            match draw(|random| random.u32(..4)) {
                0 | 1 => {
                    record(format!("{name}: restart"));
                    let outcome = extension.restart().await;
                    record(format!("{name}: restarted: {}", show(&outcome)));
                }
                2 => {
                    let _exclusive = self.extension_changes.write().await;
                    record(format!("{name}: disable"));
                    let mut api = self.core.client().api();
                    let request = api::DisableExtensionRequest { name: name.to_owned() };
                    let outcome = api.disable_extension(patient(request)).await;
                    record(format!("{name}: disabled: {}", show(&outcome)));
                    tokio::time::sleep(duration(SECOND, HOUR)).await;
                    self.until_enabled(name).await;
                }
                _ => {
                    let _exclusive = self.extension_changes.write().await;
                    self.reinstall(&extension).await;
                }
            }
        }
    }

    async fn until_enabled(&self, name: &str) {
        loop {
            let mut api = self.core.client().api();
            let request = api::EnableExtensionRequest { name: name.to_owned() };
            let outcome = api.enable_extension(patient(request)).await;
            record(format!("{name}: enabled: {}", show(&outcome)));
            if outcome.is_ok() {
                return;
            }
            tokio::time::sleep(MINUTE).await;
        }
    }

    async fn reinstall(&self, extension: &Installed) {
        let name = extension.name();
        record(format!("{name}: uninstall"));
        let outcome = extension.uninstall().await;
        record(format!("{name}: uninstalled: {}", show(&outcome)));
        if outcome.is_err() {
            return;
        }
        self.expected.borrow_mut().retain(|key, _| {
            if key.extension == name {
                Self::end_life(key);
            }
            key.extension != name
        });
        loop {
            let outcome = self.core.install::<Author>(name, NO_SETTINGS).await;
            record(format!("{name}: installed: {}", show(&outcome)));
            match outcome {
                Ok(_) => return,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => return,
                Err(_) => tokio::time::sleep(MINUTE).await,
            }
        }
    }

    /// One fault after the other.
    async fn disturb(&self, end: tokio::time::Instant) {
        loop {
            let next = tokio::time::Instant::now() + duration(10 * MINUTE, 5 * HOUR);
            if next >= end {
                return;
            }
            tokio::time::sleep_until(next).await;
            let name = pick(&self.extensions).name().to_owned();
            if self.plan.has_clock_steps && one_in(3) {
                self.step_clock();
                continue;
            }
            match draw(|random| random.u32(..6)) {
                0 => self.partition(&name, true, false).await,
                1 => self.partition(&name, false, true).await,
                2 => self.partition(&name, true, true).await,
                3 => self.slow_down(&name).await,
                4 => {
                    let _disturbing = Self::begin_fault(&name, "cut");
                    self.net.cut(&name);
                }
                _ => {
                    for _ in 0..draw(|random| random.u32(1..4)) {
                        let _disturbing = Self::begin_fault(&name, "crash");
                        self.net.kill(&name);
                        tokio::time::sleep(duration(MILLI, 10 * SECOND)).await;
                    }
                }
            }
        }
    }

    fn begin_fault(name: &str, what: &str) -> Disturbing {
        record(format!("fault: {name} {what}"));
        disturb(Who::Extension(name.to_owned()))
    }

    fn step_clock(&self) {
        let by = duration(SECOND, 3 * HOUR).as_nanos() as i64;
        let by = if one_in(2) { by } else { -by };
        record(format!("fault: the clock is set by {by} ns"));
        disturbed(Who::Clock);
        let ahead = self.ahead.fetch_add(by, Ordering::Relaxed) + by;
        let now = now();
        facts(|facts| facts.ahead.push((now, ahead)));
    }

    async fn partition(&self, name: &str, there: bool, back: bool) {
        let ways = match (there, back) {
            (true, false) => "nothing from it arrives",
            (false, true) => "nothing to it arrives",
            _ => "nothing to or from it arrives",
        };
        let time = duration(10 * MILLI, 20 * MINUTE);
        let _disturbing = Self::begin_fault(name, &format!("{ways} for {time:?}"));
        let usual = Condition { is_blocked: false, delay: self.plan.latency };
        let blocked = Condition { is_blocked: true, ..usual };
        self.net.set(name, CORE, if there { blocked } else { usual });
        self.net.set(CORE, name, if back { blocked } else { usual });
        tokio::time::sleep(time).await;
        if one_in(2) {
            self.net.cut(name);
        }
        self.net.set(name, CORE, usual);
        self.net.set(CORE, name, usual);
        record(format!("fault: {name} is over"));
    }

    async fn slow_down(&self, name: &str) {
        let delay = duration(10 * MILLI, 8 * SECOND);
        let time = duration(SECOND, HOUR);
        let _disturbing = Self::begin_fault(name, &format!("{delay:?} more for {time:?}"));
        set_latency(&self.net, name, self.plan.latency + delay);
        tokio::time::sleep(time).await;
        set_latency(&self.net, name, self.plan.latency);
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
async fn execute(run: RunInfo, most: i64) -> gofer_sdk::Result<()> {
    let executing = Executing::begin(run.pipeline().to_string(), most);
    tokio::time::sleep(duration(MILLI, 3 * MINUTE)).await;
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

/// A life begins now.
fn begin_life(key: &Key, number: u32, every: Duration, continues: bool) {
    let from = now();
    let life = Life { number, every, from, until: None, continues };
    facts(|facts| facts.lives.entry(key.clone()).or_default().push(life));
}

fn behavior() -> &'static str {
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

fn set_latency(net: &Net, name: &str, delay: Duration) {
    for (from, to) in [(CORE, name), (name, CORE)] {
        net.set(from, to, Condition { is_blocked: false, delay });
    }
}

fn show<T, E: std::fmt::Display>(outcome: &Result<T, E>) -> String {
    match outcome {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// A request that nobody gives up.
fn patient<T>(message: T) -> api::tonic::Request<T> {
    let mut request = api::tonic::Request::new(message);
    request.set_timeout(2 * HOUR);
    request
}

pub async fn status(core: &Core, key: &Key) -> Option<Status> {
    stored(core, key).await.map(|it| it.status())
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
