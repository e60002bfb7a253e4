//! A mutex that cannot be poisoned.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
