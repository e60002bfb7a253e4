//! Exponential backoff with jitter.

use std::time::Duration;

/// Doubles from `first` to `most`. Each pause is shortened at random by up to half, so that
/// clients that failed together don't retry together.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { next: first, most }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.most);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_maximum_and_vary_by_up_to_half() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let mut nominal = 100;
        for _ in 0..50 {
            let pause = backoff.pause();
            let most = Duration::from_millis(nominal);
            assert!(pause >= most / 2 && pause <= most, "{pause:?} of {most:?}");
            nominal = (nominal * 2).min(2_000);
        }
    }
}
