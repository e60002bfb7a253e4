use std::cell::Cell;
use std::future::{pending, ready};

use tokio::time::Instant;

use super::*;

type Outcome = Result<Result<(), Status>, Failure>;

async fn outcome(
    call: impl Future<Output = Result<(), Status>>,
    states: &[Option<ExtensionState>],
) -> Outcome {
    let at = Cell::new(0);
    let state = async || {
        let state = states[at.get().min(states.len() - 1)];
        at.set(at.get() + 1);
        state
    };
    polled_until_ready("nginx", "example.com/nginx", call, state).await
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_no_extension_is_not_waited_for() {
    use ExtensionState::{Exited, Processing};
    let began = Instant::now();
    for (states, least) in [
        (&[Some(Processing), Some(Exited)][..], Duration::ZERO),
        (&[Some(Processing)], READY_WITHIN),
    ] {
        for answers in [true, false] {
            let call = async { if answers { Ok(()) } else { pending().await } };
            let began = Instant::now();
            let failure = outcome(call, states).await.unwrap_err();
            assert!(failure.message().contains("is `example.com/nginx` an extension?"));
            assert!(began.elapsed() >= least && began.elapsed() <= READY_WITHIN);
        }
    }
    assert!(began.elapsed() <= 3 * READY_WITHIN);
}

#[tokio::test(start_paused = true)]
async fn an_extension_is_waited_for_until_it_is_ready() {
    use ExtensionState::{Processing, Running};
    let slow = async {
        tokio::time::sleep(READY_WITHIN / 2).await;
        Ok(())
    };
    let states = [None, Some(Processing), Some(Processing), Some(Running)];
    outcome(slow, &states).await.unwrap().unwrap();
    outcome(ready(Ok(())), &states[1..]).await.unwrap().unwrap();
    // This Gofer does not say.
    outcome(ready(Ok(())), &[None]).await.unwrap().unwrap();
    let refused = outcome(ready(Err(Status::internal("no"))), &states).await.unwrap();
    assert_eq!(refused.unwrap_err().message(), "no");
}
