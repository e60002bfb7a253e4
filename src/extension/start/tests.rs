use super::*;

/// Each subscription whose tick is due during an outage holds one.
#[test]
fn a_start_that_waits_is_small() {
    let size = size_of_val(&Start::run(None));
    assert!(size <= 2420, "the future has grown to {size} bytes");
}
