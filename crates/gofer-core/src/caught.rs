//! Panics of a library that are no fault of this program, and become an error.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use gofer_sdk::internal::panic_message;

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Does this work, and returns what it panicked with if it did. A hook still sees the panic, and can
/// ask [`is_caught`] about it.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    CATCHING.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(false);
    outcome.map_err(|payload| panic_message(&*payload).to_owned())
}

/// Whether a panic of this thread becomes an error, which is then what is reported.
pub fn is_caught() -> bool {
    CATCHING.get()
}
