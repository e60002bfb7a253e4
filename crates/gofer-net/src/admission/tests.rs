use std::sync::Mutex;

use super::*;
use crate::memory::Network;

/// A connection whose rank is set by the test.
struct Ranked(Mutex<Option<u32>>, Claim);

impl Evictable for Ranked {
    const PURPOSE: &'static str = "tests";
    const FULL: &'static str = "too many tests";

    type Rank = u32;

    fn rank(&self) -> Option<u32> {
        *self.0.lock().unwrap()
    }

    fn is_newcomer(rank: &u32) -> bool {
        *rank == NEW
    }

    fn claim(&self) -> Claim {
        self.1
    }
}

/// The rank of a newcomer.
const NEW: u32 = 3;

fn ranked(rank: Option<u32>) -> Arc<Ranked> {
    Arc::new(Ranked(Mutex::new(rank), Claim::Dropped))
}

/// Admits a connection that stays open until it is closed. Its state is kept by the test and by the
/// connection, so the number of references shows whether it is open.
fn admit(connections: &mut Connections<Ranked>, rank: Option<u32>) -> Arc<Ranked> {
    admit_as(connections, ranked(rank))
}

fn admit_as(connections: &mut Connections<Ranked>, state: Arc<Ranked>) -> Arc<Ranked> {
    let own = Arc::clone(&state);
    connections.admit(|_| (Arc::clone(&own), open_with(own)));
    state
}

/// Stays open until it is closed, and then drops what it holds.
async fn open_with<T>(_held: T) {
    std::future::pending::<()>().await;
}

async fn is_open(state: &Arc<Ranked>) -> bool {
    // Tasks that were aborted drop what they hold.
    tokio::task::yield_now().await;
    Arc::strong_count(state) > 1
}

#[tokio::test]
async fn at_the_limit_the_lowest_rank_is_evicted_and_among_equals_the_oldest() {
    let mut connections = Connections::new(4);
    let pinned = admit(&mut connections, None);
    let high = admit(&mut connections, Some(9));
    let older = admit(&mut connections, Some(5));
    let newer = admit(&mut connections, Some(5));
    let mut others = vec![admit(&mut connections, Some(7))];
    assert!(!is_open(&older).await && is_open(&newer).await);
    others.push(admit(&mut connections, Some(8)));
    assert!(!is_open(&newer).await && is_open(&high).await && is_open(&pinned).await);
    // Ranks are compared when a connection must be evicted.
    *high.0.lock().unwrap() = Some(1);
    others.push(admit(&mut connections, Some(8)));
    assert!(!is_open(&high).await);
    for other in &others {
        assert!(is_open(other).await);
    }
}

#[tokio::test]
async fn those_that_end_by_themselves_do_not_count_and_are_bounded() {
    let mut connections = Connections::new(4);
    let ends = |_| Arc::new(Ranked(Mutex::new(Some(5)), Claim::Ending));
    let all: Vec<_> = (0..40).map(|n| admit_as(&mut connections, ends(n))).collect();
    let mut open = 0;
    for connection in &all {
        open += usize::from(is_open(connection).await);
    }
    assert_eq!(open, 4 + ENDING);
    assert!(!is_open(&all[19]).await && is_open(&all[20]).await, "the oldest are dropped");
}

#[tokio::test]
async fn a_few_newcomers_are_not_closed_for_others() {
    let mut connections = Connections::new(8);
    let known: Vec<_> = (0..7).map(|_| admit(&mut connections, Some(9))).collect();
    let first = admit(&mut connections, Some(NEW));
    let second = admit(&mut connections, Some(NEW));
    assert!(is_open(&first).await && is_open(&second).await);
    assert!(!is_open(&known[0]).await && is_open(&known[1]).await);
    // Two of eight is all they have, and a lower rank is closed before them.
    let third = admit(&mut connections, Some(1));
    assert!(is_open(&first).await ^ is_open(&second).await);
    let fourth = admit(&mut connections, Some(NEW));
    assert!(!is_open(&third).await && is_open(&fourth).await);
    for known in &known[1..] {
        assert!(is_open(known).await, "closed although there are enough newcomers");
    }
    // If the process is out of files, any is closed.
    connections.accept_failed(&io::Error::from_raw_os_error(24));
    connections.accept_failed(&io::Error::from_raw_os_error(24));
    assert!(!is_open(&first).await && !is_open(&second).await && !is_open(&fourth).await);
}

#[tokio::test]
async fn newcomers_do_not_close_each_other_in_turn() {
    let mut connections = Connections::with_extra(4, 4);
    let busy: Vec<_> = (0..4).map(|_| admit(&mut connections, None)).collect();
    let mut survived = 0;
    for _ in 0..100 {
        let new = admit(&mut connections, Some(NEW));
        for _ in 0..4 {
            admit(&mut connections, Some(NEW));
        }
        survived += u32::from(is_open(&new).await);
    }
    // About a quarter of them.
    assert!((1..100).contains(&survived), "{survived}");
    for busy in &busy {
        assert!(is_open(busy).await);
    }
}

#[tokio::test]
async fn a_newcomer_has_time_while_half_as_many_come_as_there_are() {
    let mut connections = Connections::new(16);
    for _ in 0..16 {
        admit(&mut connections, Some(NEW));
    }
    for _ in 0..100 {
        let new = admit(&mut connections, Some(NEW));
        for _ in 0..8 {
            assert!(is_open(&new).await);
            admit(&mut connections, Some(NEW));
        }
    }
}

#[tokio::test]
async fn a_new_connection_is_refused_if_none_can_be_closed() {
    let mut connections = Connections::new(2);
    let first = admit(&mut connections, None);
    let second = admit(&mut connections, None);
    let refused = admit(&mut connections, Some(0));
    assert!(!is_open(&refused).await && is_open(&first).await && is_open(&second).await);
}

#[tokio::test]
async fn connections_that_have_ended_do_not_count_and_are_swept() {
    let mut connections = Connections::new(2);
    let stays = admit(&mut connections, Some(0));
    for _ in 0..1000 {
        connections.admit(|_| (ranked(None), async {}));
        tokio::task::yield_now().await;
        assert!(connections.regular.open.len() <= 2 * connections.regular.limit + 16);
    }
    assert!(is_open(&stays).await, "closed although below the limit");
}

#[tokio::test]
async fn an_error_of_the_listener_closes_one_connection_and_pauses() {
    let mut connections = Connections::new(8);
    let pinned = admit(&mut connections, None);
    let open = admit(&mut connections, Some(0));
    let aborted = io::Error::from(io::ErrorKind::ConnectionAborted);
    assert_eq!(connections.accept_failed(&aborted), Duration::ZERO);
    assert!(is_open(&open).await);
    let out_of_files = io::Error::from_raw_os_error(24);
    assert_eq!(connections.accept_failed(&out_of_files), ACCEPT_PAUSE);
    assert!(!is_open(&open).await && is_open(&pinned).await);
    assert_eq!(connections.accept_failed(&out_of_files), ACCEPT_PAUSE);
}

#[tokio::test(start_paused = true)]
async fn accepted_connections_are_served_until_the_deadline_of_the_close() {
    let network = Network::default();
    let mut listener = Listener::Memory(network.listen());
    let mut connections = Connections::new(8);
    let _kept = (network.connect().await.unwrap(), network.connect().await.unwrap());
    let state = ranked(Some(0));
    let stop = tokio::time::sleep(Duration::from_secs(1));
    connections
        .accept(&mut listener, stop, |stream, _| {
            (Arc::clone(&state), open_with((Arc::clone(&state), stream)))
        })
        .await;
    assert_eq!(Arc::strong_count(&state), 5, "the test's, and two of each connection");
    let deadline = Instant::now() + Duration::from_secs(5);
    connections.close(deadline).await;
    assert_eq!(Arc::strong_count(&state), 1);
    assert!(Instant::now() >= deadline);
}
