//! The outcome of one task, for all that wait for it.
//!
//! Unlike those of tokio's `watch`, which it wakes in an order of its own, all are woken in the
//! order in which they came.

use std::sync::Arc;

use tokio::sync::SetOnce;

/// Promises an outcome, or that there is none, by being dropped.
pub struct Promise<T>(Arc<SetOnce<Option<T>>>);

/// An outcome that was promised.
#[derive(Clone)]
pub struct Promised<T>(Arc<SetOnce<Option<T>>>);

pub fn promise<T>() -> (Promise<T>, Promised<T>) {
    let outcome = Arc::new(SetOnce::new());
    (Promise(Arc::clone(&outcome)), Promised(outcome))
}

impl<T> Promise<T> {
    pub fn keep(self, outcome: T) {
        // Set here only, and by the drop that follows, which then has no effect.
        let _ = self.0.set(Some(outcome));
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let _ = self.0.set(None);
    }
}

impl<T: Clone> Promised<T> {
    /// Waits for the outcome; `None` if there will be none.
    pub async fn wait(&self) -> Option<T> {
        self.0.wait().await.clone()
    }
}

impl<T> Promised<T> {
    pub fn is_pending(&self) -> bool {
        !self.0.initialized()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn all_are_woken_in_the_order_in_which_they_came() {
        let (promise, promised) = promise();
        let woken = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = tokio::task::JoinSet::new();
        for number in 0..20 {
            let (promised, woken) = (promised.clone(), Arc::clone(&woken));
            waiting.spawn(async move {
                assert_eq!(promised.wait().await, Some("done"));
                woken.lock().unwrap().push(number);
            });
        }
        tokio::task::yield_now().await;
        assert!(promised.is_pending());
        promise.keep("done");
        waiting.join_all().await;
        assert!(woken.lock().unwrap().iter().copied().eq(0..20), "{woken:?}");
    }

    #[tokio::test]
    async fn one_that_is_dropped_has_no_outcome() {
        let (promise, promised) = promise::<()>();
        drop(promise);
        assert!(!promised.is_pending());
        assert_eq!(promised.wait().await, None);
    }
}
