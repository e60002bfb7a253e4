//! Without the feature `metrics`: nothing is counted.

use crate::error::Result;
use crate::extension::State;

pub(crate) struct Metrics;

pub(crate) struct Began;

#[expect(clippy::unused_self, reason = "as with the feature")]
impl Metrics {
    pub(crate) fn new(_: &str) -> Self {
        Self
    }

    pub(crate) fn tick(&self, _: u16, _: i64) {}

    pub(crate) fn ticks_dropped(&self, _: u16) {}

    pub(crate) fn begin(&self) -> Began {
        Began
    }

    pub(crate) fn run_start<T>(&self, _: &Began, _: &Result<T>) {}

    pub(crate) fn external_event<T>(&self, _: &Result<T>) {}

    pub(crate) fn subscription(&self, _: State, _: State) {}

    pub(crate) fn reachable(&self, _: bool) {}
}
