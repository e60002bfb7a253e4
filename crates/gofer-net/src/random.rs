//! What is random and shows in the order in which things happen. It comes from the thread's
//! generator (`fastrand`), as the jitter of a [`Backoff`](crate::Backoff) does, so that a test that
//! seeds that generator sees the same each time.

use std::hash::{BuildHasher, DefaultHasher, Hasher};

/// Hashes with a random key, so that nobody can choose names that collide.
#[derive(Clone, Copy, Debug)]
pub struct RandomHasher([u64; 2]);

impl Default for RandomHasher {
    fn default() -> Self {
        Self([fastrand::u64(..), fastrand::u64(..)])
    }
}

impl BuildHasher for RandomHasher {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        for half in self.0 {
            hasher.write_u64(half);
        }
        hasher
    }
}

#[cfg(test)]
mod tests {
    use super::RandomHasher;
    use std::hash::BuildHasher;

    #[test]
    fn hashes_differ_from_one_to_the_next_and_are_the_same_for_the_same_seed() {
        let hashes = || [(); 2].map(|()| RandomHasher::default().hash_one("a name"));
        fastrand::seed(7);
        let first = hashes();
        assert_ne!(first[0], first[1]);
        fastrand::seed(7);
        assert_eq!(hashes(), first);
    }
}
