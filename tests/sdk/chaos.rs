//! Many starts through faults of all kinds, on a Gofer that enforces no keys. The same on an
//! embedded core, which does, is in gofer-core's tests of its router.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use gofer_proto::StartRunRequest;
use gofer_sdk::Run;
use tokio::time::{sleep, timeout};
use tonic::Status;

use crate::authors::start_all;
use crate::support::probe::{Builder, probe};
use crate::support::stand_in::{Outcome, StandIn, pipeline};

const PIPELINES: usize = 200;

/// The seed of a run of a test, shown if it fails.
fn random(seed: u64) -> fastrand::Rng {
    fastrand::Rng::with_seed(seed)
}

fn name(key: usize) -> String {
    format!("p{}", key % PIPELINES)
}

/// What happens to a call. `late` is how often, of 1,000, a request arrives after its caller has
/// gone.
fn fault(random: &mut fastrand::Rng, late: u32, arrived_late: impl FnOnce()) -> Outcome {
    let unavailable = || Status::unavailable("upstream connect error");
    match random.u32(..1000) {
        0..30 => Outcome::ActAndRefuse(unavailable()),
        30..60 => Outcome::Refuse(unavailable()),
        60..70 => Outcome::ActAndDisconnect,
        70..80 => Outcome::Disconnect,
        80..90 => Outcome::Swallow,
        90..100 => Outcome::ActAndHold,
        100..120 => Outcome::RefuseStream,
        n if n < 120 + late => {
            arrived_late();
            Outcome::ActLater(Duration::from_millis(random.u64(..30_000)))
        }
        _ => Outcome::Answer,
    }
}

/// Those without an effect fail too.
fn faulty_questions(gofer: &StandIn, seed: u64) {
    for method in ["ListRuns", "GetRun", "EmbeddedCore/GetCapabilities"] {
        let mut random = random(seed);
        gofer.decide(method, move |_| fault(&mut random, 0, || {}));
    }
}

/// Starts this many runs. Returns how many runs each key has beyond the first, and the keys of those
/// whose request arrived late.
async fn starts(count: usize, late: u32, seed: u64) -> (HashMap<String, usize>, HashSet<String>) {
    let names = (0..PIPELINES).map(|n| pipeline(format!("p{n}")));
    let gofer = StandIn::in_memory(names);
    let arrived_late = Arc::new(Mutex::new(HashSet::new()));
    let gofer = Arc::new(gofer);
    faulty_questions(&gofer, seed);
    gofer.decide("StartRun", {
        let (mut random, arrived_late) = (random(seed), Arc::clone(&arrived_late));
        move |call| {
            let variables = &call.message::<StartRunRequest>().variables;
            let key = variables["GOFER_EXTENSION_RUN_KEY"].clone();
            fault(&mut random, late, || {
                arrived_late.lock().unwrap().insert(key);
            })
        }
    });
    let extension = gofer.start(probe()).await;
    let client = Arc::new(Mutex::new(extension.probe.gofer()));
    let restarts = tokio::spawn({
        let (gofer, client, mut random) = (Arc::clone(&gofer), Arc::clone(&client), random(seed));
        let mut extension = extension;
        async move {
            loop {
                sleep(Duration::from_millis(random.u64(1_000..60_000))).await;
                extension.kill().await;
                extension = gofer.start(probe()).await;
                *client.lock().unwrap() = extension.probe.gofer();
            }
        }
    });
    let started = start_all(count, name, &client, seed).await;
    restarts.abort();
    // What is still on its way.
    sleep(Duration::from_secs(60)).await;
    let mut runs = HashMap::new();
    for run in &gofer.recorded().runs {
        let key = run.variables.iter().find(|it| it.key == "GOFER_EXTENSION_RUN_KEY").unwrap();
        *runs.entry(key.value.clone()).or_insert(0) += 1;
    }
    for key in &started {
        assert!(runs.contains_key(key), "{key} has no run (seed {seed})");
    }
    runs.retain(|_, count| {
        *count -= 1;
        *count > 0
    });
    let arrived_late = std::mem::take(&mut *arrived_late.lock().unwrap());
    (runs, arrived_late)
}

#[tokio::test(start_paused = true)]
async fn twenty_thousand_starts_through_faults_are_as_many_runs() {
    let (twice, _) = starts(20_000, 0, 7).await;
    assert!(twice.is_empty(), "{twice:?}");
}

/// The window that remains: a proxy delivers a request after the run was looked up.
#[tokio::test(start_paused = true)]
async fn only_requests_that_arrive_late_make_a_second_run() {
    let (twice, late) = starts(2_000, 50, 11).await;
    let more: usize = twice.values().sum();
    println!("{} requests arrived late, and {more} of 2,000 runs were started again", late.len());
    assert!(late.len() > 50);
    let others: Vec<_> = twice.keys().filter(|key| !late.contains(*key)).collect();
    assert!(others.is_empty(), "{others:?}");
}

const TICKING: usize = 20;
const PERIOD: Duration = Duration::from_secs(10);

/// Starts a run at each tick, and another one now and then; drops some starts, and repeats some of
/// those.
fn ticking(seed: u64) -> Builder {
    probe().serve(move |_, subscription| async move {
        let mut random = random(seed);
        let mut ticks = subscription.every(subscription.params().every.unwrap())?;
        while let Some(tick) = ticks.next().await {
            for _ in 0..random.u32(1..3) {
                let patience = match random.u32(..10) {
                    0 => Duration::from_millis(random.u64(1..20)),
                    _ => Duration::from_secs(random.u64(5..60)),
                };
                let start = subscription.start_run(tick.run("the time has come"));
                if let Ok(started) = timeout(patience, start).await {
                    started?;
                }
            }
            if random.u32(..5) == 0 {
                subscription.start_run(Run::because("of something else")).await?;
            }
        }
        Ok(())
    })
}

#[tokio::test(start_paused = true)]
async fn ticks_through_faults_are_one_run_each_and_keep_the_grid() {
    const SEED: u64 = 3;
    let names = || (0..TICKING).map(|n| format!("p{n}"));
    let gofer = StandIn::in_memory(names().map(pipeline));
    faulty_questions(&gofer, SEED);
    let (mut starts, mut restarts) = (random(SEED), random(SEED));
    gofer.decide("StartRun", move |_| fault(&mut starts, 0, || {}));
    for seed in 0..150 {
        let extension = gofer.start(ticking(seed)).await;
        for name in names() {
            extension.client.subscribe(&name, &[("every", "10s")]).await.unwrap();
        }
        sleep(Duration::from_millis(restarts.u64(1_000..120_000))).await;
        extension.kill().await;
        // Some requests are still on their way.
        sleep(Duration::from_millis(restarts.u64(..2_000))).await;
    }
    let recorded = gofer.recorded();
    let variable = |run: &gofer_proto::Run, name: &str| {
        run.variables.iter().find(|it| it.key == name).map(|it| it.value.clone())
    };
    let mut all = 0;
    for name in names() {
        let mut keys = HashSet::new();
        let mut scheduled = Vec::new();
        for run in recorded.runs_of(&*name) {
            let key = variable(run, "GOFER_EXTENSION_RUN_KEY").unwrap();
            assert!(keys.insert(key.clone()), "{name} has two runs of {key}");
            if let Some(at) = variable(run, "GOFER_EXTENSION_SCHEDULED_AT") {
                let at = humantime::parse_rfc3339(&at).unwrap();
                scheduled.push(at.duration_since(UNIX_EPOCH).unwrap().as_nanos());
            }
        }
        assert!(scheduled.is_sorted(), "{scheduled:?}");
        let beside: Vec<_> = scheduled
            .iter()
            .filter(|at| !(**at - scheduled[0]).is_multiple_of(PERIOD.as_nanos()))
            .collect();
        assert!(beside.is_empty(), "{name}: {beside:?} are beside the grid of {:?}", scheduled[0]);
        all += scheduled.len();
    }
    assert!(all > 10_000, "{all}");
}
