//! Faults, one after the other, and some at the moment of a start.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gofer_core::Core;
use gofer_sdk::{Error, api};
use tokio::time::Instant;

use super::{HOUR, MILLI, MINUTE, SECOND, World, made, set_latency};
use crate::facts::{Disturbing, Who, disturb, disturbed, facts, violated};
use crate::history::{draw, duration, now, one_in, pick, record};
use crate::host::{Answer, Host};
use crate::network::{CORE, Condition, Net};

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
    /// One fault after the other.
    pub(super) async fn disturb(&self, end: Instant) {
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
