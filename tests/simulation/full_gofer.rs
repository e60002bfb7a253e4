//! The same extension with a full Gofer, which knows nothing of keys and holds the answer to a start
//! until the run may begin.
//!
//! It is the stand-in for Gofer 0.6.2. It loses nothing that it has stored, since that is not ours to
//! test, but answers get lost, proxies in front of it fail, and it is away now and then.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use gofer_net::Clock;
use gofer_net::memory::{Faults, Network};
use gofer_net::tls::{Trust, certificates};
use gofer_proto::{ExtensionInitRequest, ExtensionSubscribeRequest, ExtensionUnsubscribeRequest};
use gofer_sdk::SystemConfig;
use gofer_sdk::internal::{run_info, serve_embedded};
use http::StatusCode;
use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::Status;

use crate::author::{Author, behavior};
use crate::checker::{self, Keys};
use crate::facts::{
    Disturbing, Facts, Key, Who, begin_life, disturb, disturbed, end_life, facts, violated,
};
use crate::history::{draw, duration, one_in, pick, record};
use crate::network::{CORE, Condition, Net};
use crate::support::stand_in::{Call, Outcome, StandIn, pipeline};
use crate::support::{Client, Connection, IDENTITY, TOKEN, bearer};
use crate::world::nemesis::threaten;
use crate::world::{HOUR, MILLI, MINUTE, SECOND, UNIX, set_latency};

/// How long Gofer waits for an extension.
const PATIENCE: Duration = Duration::from_secs(60);

/// What may happen in a simulation, drawn from its seed.
#[derive(Debug)]
struct Plan {
    extensions: usize,
    pipelines: usize,
    parallelism: i64,
    latency: Duration,
    notices_dead: bool,
    /// One of so many calls is not answered as it should be.
    bad_calls: u32,
    /// Whether requests may be on their way while nobody waits for them any more. No extension can
    /// know of these, so they may start a second run.
    delays_requests: bool,
}

impl Plan {
    fn draw() -> Self {
        Self {
            extensions: draw(|random| random.usize(1..=2)),
            pipelines: draw(|random| random.usize(1..=3)),
            parallelism: pick(&[0, 0, 0, 2, 5]),
            latency: pick(&[Duration::ZERO, MILLI, 20 * MILLI, 150 * MILLI]),
            notices_dead: !one_in(3),
            bad_calls: pick(&[20, 200, 2000]),
            delays_requests: one_in(3),
        }
    }
}

/// A Gofer, its extensions, and who acts on them.
pub struct FullGofer {
    plan: Plan,
    gofer: StandIn,
    net: Arc<Net>,
    extensions: BTreeMap<String, Extension>,
    pipelines: Vec<(String, String)>,
}

struct Subscribed {
    number: u32,
    settings: BTreeMap<&'static str, String>,
}

#[derive(Default)]
struct Extension {
    /// Of the process that runs.
    network: RefCell<Network>,
    /// What Gofer has stored. Locked while Gofer tells the extension of it.
    subscriptions: Mutex<BTreeMap<Key, Subscribed>>,
}

impl FullGofer {
    /// Lives through a day, and checks it.
    pub async fn simulate(day: Duration) {
        let plan = Plan::draw();
        record(format!("a full Gofer: {plan:?}"));
        let ahead = Box::leak(Box::default());
        let pipelines: Vec<_> = (0..plan.pipelines)
            .map(|n| (["default", "other"][n % 2].to_owned(), format!("p{n}")))
            .collect();
        let all = pipelines.iter().map(|(namespace, id)| {
            let take = pick(&[Duration::ZERO, SECOND, 3 * MINUTE]);
            let path = format!("{namespace}/{id}");
            pipeline(path.as_str()).parallelism(plan.parallelism).runs_take(take)
        });
        let gofer = StandIn::in_memory_on(Clock::set_by_from(ahead, UNIX), all);
        let net = Net::new(plan.notices_dead);
        let extensions = (0..plan.extensions).map(|n| (format!("ext{n}"), Extension::default()));
        let extensions: BTreeMap<_, _> = extensions.collect();
        for name in extensions.keys() {
            set_latency(&net, name, plan.latency);
        }
        threaten(Some((Arc::clone(&net), plan.latency)));
        let this = Rc::new(Self { plan, gofer, net, extensions, pipelines });
        this.answer_badly();
        let mut keepers = tokio::task::JoinSet::new();
        for name in this.extensions.keys() {
            keepers.spawn_local(Rc::clone(&this).keep_running(name.clone()));
        }
        this.live(day).await;
        record("the rest is undisturbed");
        sleep(checker::RECOVERY + checker::REST).await;
        let now = crate::history::now();
        facts(|facts| facts.end = now);
        this.check().await;
        keepers.shutdown().await;
        // So that it forgets the starts that wait.
        this.gofer.restart();
        this.net.end();
    }

    async fn live(self: &Rc<Self>, day: Duration) {
        let end = Instant::now() + day;
        // The extensions begin.
        sleep(SECOND).await;
        let mut actors = tokio::task::JoinSet::new();
        for pipeline in &self.pipelines {
            self.subscribe(pipeline).await;
            let (this, pipeline) = (Rc::clone(self), pipeline.clone());
            actors.spawn_local(async move { this.use_pipeline(&pipeline, end).await });
        }
        let this = Rc::clone(self);
        actors.spawn_local(async move { this.disturb(end).await });
        while let Some(ended) = actors.join_next().await {
            ended.unwrap();
        }
        threaten(None);
        for method in ["StartRun", "ListRuns"] {
            self.gofer.decide(method, |_| Outcome::Answer);
        }
        sleep_until(end).await;
    }

    /// Runs an extension, again and again. Gofer tells each process what it has stored.
    async fn keep_running(self: Rc<Self>, name: String) {
        let faults: Arc<dyn Faults> = self.net.clone();
        let trust = Trust {
            extra: certificates(&IDENTITY.certificate).unwrap(),
            only_extra: true,
            ..Trust::default()
        };
        let extension = &self.extensions[&name];
        loop {
            let network = Network::default().with_faults(Some(&faults), CORE, &name);
            let to_gofer = self.gofer.network().with_faults(Some(&faults), &name, CORE);
            let (listener, clock) = (network.listen(), self.gofer.clock());
            let trust = trust.clone();
            let serving = serve_embedded::<Author>(config(&name), listener, to_gofer, trust, clock);
            extension.network.replace(network);
            let crashed = self.net.crash(&name);
            tokio::select! {
                biased;
                () = crashed => record(format!("{name}: has crashed")),
                outcome = serving => violated(format!("{name}: has ended: {outcome:?}")),
                never = self.restore(&name) => match never {},
            }
            let _disturbing = disturb(Who::Extension(name.clone()));
            // What the old process has sent arrives before, unless that may be much later.
            sleep(duration(3 * SECOND, 5 * MINUTE)).await;
        }
    }

    /// Tells a new process what is stored.
    async fn restore(&self, name: &str) -> std::convert::Infallible {
        let extension = &self.extensions[name];
        {
            let subscriptions = extension.subscriptions.lock().await;
            let _disturbing = disturb(Who::Extension(name.to_owned()));
            while let Err(status) = self.init(extension).await {
                record(format!("{name}: init: {}", status.message()));
                sleep(SECOND).await;
            }
            for (key, Subscribed { settings, .. }) in &*subscriptions {
                while let Err(status) = self.tell(key, settings).await {
                    record(format!("{key}: is not restored: {}", status.message()));
                    sleep(SECOND).await;
                }
            }
        }
        std::future::pending().await
    }

    /// A connection for one call, as a full Gofer makes them.
    async fn client(extension: &Extension) -> Result<Client, Status> {
        let network = extension.network.borrow().clone();
        let connect = async {
            let stream = network.connect().await?;
            let http = http2::Builder::new(TokioExecutor::new());
            Connection::handshake(stream, &IDENTITY.certificate, &http).await
        };
        match timeout(PATIENCE, connect).await {
            Ok(Ok(connection)) => Ok(Client::new(connection.with([bearer(TOKEN)]))),
            Ok(Err(error)) => Err(Status::unavailable(error.to_string())),
            Err(_) => Err(Status::deadline_exceeded("it cannot be reached")),
        }
    }

    async fn init(&self, extension: &Extension) -> Result<(), Status> {
        let client = Self::client(extension).await?;
        answered(client.raw().init(ExtensionInitRequest::default())).await
    }

    async fn tell(
        &self,
        key: &Key,
        settings: &BTreeMap<&'static str, String>,
    ) -> Result<(), Status> {
        let client = Self::client(&self.extensions[&key.extension]).await?;
        let config = settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let request = ExtensionSubscribeRequest {
            namespace_id: key.namespace.clone(),
            pipeline_id: key.pipeline.clone(),
            pipeline_extension_label: key.label.clone(),
            config: config.collect(),
        };
        answered(client.raw().subscribe(request)).await
    }

    async fn tell_of_end(&self, key: &Key) -> Result<(), Status> {
        let client = Self::client(&self.extensions[&key.extension]).await?;
        let request = ExtensionUnsubscribeRequest {
            namespace_id: key.namespace.clone(),
            pipeline_id: key.pipeline.clone(),
            pipeline_extension_label: key.label.clone(),
        };
        answered(client.raw().unsubscribe(request)).await
    }

    async fn use_pipeline(&self, pipeline: &(String, String), end: Instant) {
        loop {
            let next = Instant::now() + duration(MINUTE, 6 * HOUR);
            if next >= end {
                return;
            }
            sleep_until(next).await;
            self.subscribe(pipeline).await;
        }
    }

    /// Makes a subscription, or ends it if there is one.
    async fn subscribe(&self, (namespace, pipeline): &(String, String)) {
        let (name, extension) = self
            .extensions
            .iter()
            .nth(draw(|random| random.usize(..self.extensions.len())))
            .unwrap();
        let key = Key {
            extension: name.clone(),
            namespace: namespace.clone(),
            pipeline: pipeline.clone(),
            label: pick(&["a", "b"]).to_owned(),
        };
        let mut subscriptions = extension.subscriptions.lock().await;
        let _disturbing = disturb(Who::Subscription(key.clone()));
        if subscriptions.remove(&key).is_some() {
            end_life(&key);
            // A full Gofer has removed it, whatever the extension says; a new process is not told.
            let outcome = self.tell_of_end(&key).await;
            record(format!("{key}: unsubscribe: {}", shown(&outcome)));
            if outcome.is_err() {
                // So that it ends in any case.
                self.net.kill(name);
            }
            return;
        }
        let number = facts(Facts::next_number);
        let every = Duration::from_secs(duration(MINUTE, 4 * HOUR).as_secs());
        let behavior = behavior();
        let settings = BTreeMap::from([
            ("every", format!("{}s", every.as_secs())),
            ("behavior", behavior.to_owned()),
            ("number", number.to_string()),
        ]);
        record(format!("{key} #{number}: subscribe every {every:?}, {behavior}"));
        let since = crate::history::now();
        let outcome = self.tell(&key, &settings).await;
        record(format!("{key} #{number}: subscribe: {}", shown(&outcome)));
        match outcome {
            Ok(()) => {
                begin_life(&key, since, number, every, false);
                subscriptions.insert(key, Subscribed { number, settings });
            }
            // Perhaps it has it nevertheless.
            Err(_) => self.net.kill(name),
        }
    }

    /// One fault after the other.
    async fn disturb(&self, end: Instant) {
        let names: Vec<_> = self.extensions.keys().cloned().collect();
        loop {
            let next = Instant::now() + duration(10 * MINUTE, 5 * HOUR);
            if next >= end {
                return;
            }
            sleep_until(next).await;
            let name = pick(&names);
            let usual = Condition { is_blocked: false, delay: self.plan.latency };
            let time = duration(10 * MILLI, 20 * MINUTE);
            match draw(|random| random.u32(..if self.plan.delays_requests { 7 } else { 5 })) {
                0 => {
                    let _disturbing = begin_fault(&name, "cut");
                    self.net.cut(&name);
                }
                1 => {
                    let _disturbing = begin_fault(&name, "crash");
                    self.net.kill(&name);
                }
                2 => {
                    let _disturbing = begin_fault(&name, &format!("no answers for {time:?}"));
                    self.net.set(CORE, &name, Condition { is_blocked: true, ..usual });
                    sleep(time).await;
                    self.net.cut(&name);
                    self.net.set(CORE, &name, usual);
                }
                3 => {
                    record(format!("fault: Gofer is away for {time:?}"));
                    let _disturbing = disturb(Who::Core);
                    self.gofer.stop_listening().await;
                    self.gofer.disconnect();
                    sleep(time).await;
                    self.gofer.listen();
                }
                4 => {
                    record("fault: Gofer is restarted");
                    let _disturbing = disturb(Who::Core);
                    self.gofer.disconnect();
                }
                5 => {
                    let _disturbing = begin_fault(&name, &format!("no requests for {time:?}"));
                    self.net.set(&name, CORE, Condition { is_blocked: true, ..usual });
                    sleep(time).await;
                    self.net.set(&name, CORE, usual);
                }
                _ => {
                    let delay = duration(10 * MILLI, 8 * SECOND);
                    let what = format!("{delay:?} more for {time:?}");
                    let _disturbing = begin_fault(&name, &what);
                    set_latency(&self.net, &name, self.plan.latency + delay);
                    sleep(time).await;
                    set_latency(&self.net, &name, self.plan.latency);
                }
            }
        }
    }

    /// Gofer, or a proxy in front of it, does not answer all calls as it should.
    fn answer_badly(&self) {
        let Plan { bad_calls, delays_requests: delays, .. } = self.plan;
        for method in ["StartRun", "ListRuns"] {
            self.gofer.decide(method, move |call: &Call<'_>| {
                if !one_in(bad_calls) {
                    return Outcome::Answer;
                }
                let outcome = match draw(|random| random.u32(..if delays { 8 } else { 7 })) {
                    0 => Outcome::Refuse(Status::unavailable("no upstream")),
                    1 => Outcome::ActAndRefuse(Status::unavailable("upstream is gone")),
                    2 => Outcome::ActAndDisconnect,
                    3 => Outcome::Swallow,
                    4 => Outcome::Disconnect,
                    5 => Outcome::RefuseStream,
                    6 => Outcome::Page(StatusCode::BAD_GATEWAY),
                    _ => Outcome::ActLater(duration(MILLI, 10 * MINUTE)),
                };
                record(format!("fault: {method} {}: {outcome:?}", call.number));
                disturbed(Who::Core);
                outcome
            });
        }
    }

    async fn check(&self) {
        let keys = Keys::LookedUp { delays: self.plan.delays_requests };
        let runs = |path: &str| -> Vec<_> {
            self.gofer.recorded().runs_of(path).cloned().map(run_info).collect()
        };
        checker::check_runs_and_ticks(&self.pipelines, keys, self.plan.parallelism, runs);
        for extension in self.extensions.values() {
            for (key, subscribed) in &*extension.subscriptions.lock().await {
                checker::check_serving(key, subscribed.number);
            }
        }
        checker::check_connections(&self.net);
    }
}

fn begin_fault(name: &str, what: &str) -> Disturbing {
    record(format!("fault: {name} {what}"));
    disturb(Who::Extension(name.to_owned()))
}

/// Without the metadata, which have the time.
fn shown(outcome: &Result<(), Status>) -> &str {
    outcome.as_ref().err().map_or("ok", Status::message)
}

async fn answered<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<(), Status> {
    match timeout(PATIENCE, call).await {
        Ok(answer) => answer.map(drop),
        Err(_) => Err(Status::deadline_exceeded("no answer")),
    }
}

fn config(name: &str) -> SystemConfig {
    let vars = [
        ("KEY", TOKEN.to_owned()),
        ("NAME", name.to_owned()),
        ("TLS_CERT", IDENTITY.certificate.clone()),
        ("TLS_KEY", IDENTITY.key.clone()),
        ("GOFER_HOST", "127.0.0.1:1".to_owned()),
    ];
    let vars = vars.map(|(name, value)| (format!("GOFER_EXTENSION_SYSTEM_{name}"), value));
    SystemConfig::from_vars(vars).unwrap()
}
