//! Who watches whom: a pipeline must not watch itself, not through others either.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gofer_sdk::{Error, PipelineId, Result, Subscription};

use super::Params;

/// The pipeline of a subscription, and its label.
type Name = (PipelineId, String);

/// The pipelines that are watched, by the subscriptions that are served.
#[derive(Default)]
pub(super) struct Chains(Mutex<BTreeMap<Name, PipelineId>>);

/// Counts as long as it is kept.
pub(super) struct Link<'a> {
    chains: &'a Chains,
    name: Name,
}

impl Chains {
    /// Refuses what would make a pipeline watch itself.
    pub(super) fn check(&self, pipeline: &PipelineId, watched: &PipelineId) -> Result<()> {
        check(&self.links(), pipeline, watched)
    }

    /// Checks, and adds a subscription that is served.
    pub(super) fn add(
        &self,
        subscription: &Subscription<Params>,
        watched: &PipelineId,
    ) -> Result<Link<'_>> {
        let name = (PipelineId::from(subscription), subscription.label().to_owned());
        let mut links = self.links();
        check(&links, &name.0, watched)?;
        links.insert(name.clone(), watched.clone());
        Ok(Link { chains: self, name })
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<Name, PipelineId>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Link<'_> {
    fn drop(&mut self) {
        self.chains.links().remove(&self.name);
    }
}

fn check(
    links: &BTreeMap<Name, PipelineId>,
    pipeline: &PipelineId,
    watched: &PipelineId,
) -> Result<()> {
    let refuse = |why: String| Err(Error::invalid_parameter("pipeline", why));
    if pipeline == watched {
        return refuse("must be another pipeline than the one that watches it".to_owned());
    }
    // What is reached, each with the one that leads there.
    let mut reached = vec![(watched, 0)];
    let mut next = 0;
    while let Some(&(current, _)) = reached.get(next) {
        let labels = links.range((current.clone(), String::new())..);
        for (_, target) in labels.take_while(|((of, _), _)| of == current) {
            if target == pipeline {
                let mut chain = format!("`{target}`");
                let mut at = next;
                while let Some(&(link, before)) = reached.get(at) {
                    chain = format!("`{link}`, which watches {chain}");
                    if at == 0 {
                        break;
                    }
                    at = before;
                }
                return refuse(format!("the pipeline would watch itself: it watches {chain}"));
            }
            if reached.iter().all(|(known, _)| *known != target) {
                reached.push((target, next));
            }
        }
        next += 1;
    }
    Ok(())
}
