//! The callers of a server, and the connections of each: a connection belongs to the caller of its
//! latest valid token.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tonic::Status;

use super::peer::{Close, Peer, Refusal};
use crate::auth::{Authorize, Caller, Class};
use crate::throttle::Throttle;

type Digest = [u8; 32];

/// Of all listeners of a server.
pub(super) struct Callers {
    authorize: Arc<dyn Authorize>,
    per_extension: usize,
    /// Only those with connections. Locked before the state of a peer, never while it is locked.
    groups: Mutex<HashMap<Digest, Group>>,
    next: AtomicU64,
    evicted: Throttle,
    refused: Throttle,
}

/// The connections of one caller.
#[derive(Default)]
struct Group {
    /// By the number of the peer.
    peers: BTreeMap<u64, Arc<Peer>>,
    count: Arc<AtomicUsize>,
}

/// The caller that a connection belongs to.
pub(super) struct Membership {
    caller: Caller,
    /// How many connections the caller has.
    count: Arc<AtomicUsize>,
}

impl Membership {
    pub(super) fn is_of(&self, caller: &Caller) -> bool {
        self.caller.digest == caller.digest
    }

    pub(super) fn connections(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Callers {
    pub(super) fn new(authorize: Arc<dyn Authorize>, per_extension: usize) -> Arc<Self> {
        Arc::new(Self {
            authorize,
            per_extension,
            groups: Mutex::default(),
            next: AtomicU64::default(),
            evicted: Throttle::default(),
            refused: Throttle::default(),
        })
    }

    /// Whether the caller's token is still valid.
    pub(super) fn is_valid(&self, of: &Membership) -> bool {
        self.authorize.is_valid(&of.caller)
    }

    /// A number for a new connection.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes a connection that of the caller. If an extension has too many, its longest idle one is
    /// closed, or this one if none is idle.
    pub(super) fn join(&self, peer: &Arc<Peer>, caller: &Caller) -> Result<(), Refusal> {
        let mut groups = self.groups();
        let group = groups.entry(caller.digest).or_default();
        if group.peers.contains_key(&peer.number()) {
            // Two calls began at the same time.
            return Ok(());
        }
        if caller.class == Class::Extension && group.peers.len() >= self.per_extension {
            if !group.evict() {
                drop(groups);
                return Err(self.refuse(peer).into());
            }
            if let Some(evicted) = self.evicted.record() {
                let most = self.per_extension;
                tracing::warn!(
                    evicted,
                    "an extension has more than {most} connections; closing its longest idle one"
                );
            }
        }
        let count = Arc::clone(&group.count);
        let joined = peer.set_membership(Membership { caller: *caller, count });
        if joined.is_ok() {
            group.peers.insert(peer.number(), Arc::clone(peer));
        }
        update(&mut groups, &caller.digest);
        if let Some(before) = joined? {
            remove(&mut groups, &before.caller.digest, peer.number());
        }
        Ok(())
    }

    /// A connection has ended or is about to.
    pub(super) fn leave(&self, membership: &Membership, number: u64) {
        remove(&mut self.groups(), &membership.caller.digest, number);
    }

    fn refuse(&self, peer: &Peer) -> Status {
        peer.close(Close::Answered);
        let most = self.per_extension;
        if let Some(refused) = self.refused.record() {
            tracing::warn!(
                refused,
                "an extension has {most} connections with open calls; refusing another one"
            );
        }
        Status::resource_exhausted(format!(
            "this extension has {most} connections with open calls; use one connection for all \
             calls, and close those that are not needed"
        ))
    }

    fn groups(&self) -> MutexGuard<'_, HashMap<Digest, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> Vec<usize> {
        self.groups().values().map(|group| group.peers.len()).collect()
    }
}

impl Group {
    /// Closes the longest idle connection; false if none is idle.
    fn evict(&mut self) -> bool {
        // Again only if a call begins at that very moment.
        for _ in 0..self.peers.len() {
            let idle = self.peers.values().filter_map(|peer| Some((peer.idle_since()?, peer)));
            let Some((_, peer)) = idle.min_by_key(|(since, _)| *since) else { return false };
            if peer.retire() {
                let number = peer.number();
                self.peers.remove(&number);
                return true;
            }
        }
        false
    }
}

fn remove(groups: &mut HashMap<Digest, Group>, digest: &Digest, number: u64) {
    if let Some(group) = groups.get_mut(digest) {
        group.peers.remove(&number);
    }
    update(groups, digest);
}

/// After a change of a group.
fn update(groups: &mut HashMap<Digest, Group>, digest: &Digest) {
    let Some(group) = groups.get(digest) else { return };
    group.count.store(group.peers.len(), Ordering::Relaxed);
    if group.peers.is_empty() {
        groups.remove(digest);
    }
}
