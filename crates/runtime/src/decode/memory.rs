//! How much memory all photos that are being decoded may take together.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What photos that are decoded at the same time may take together.
pub const MAX_DECODER_BYTES: u64 = 2 << 30;

static TAKEN: Mutex<u64> = Mutex::new(0);
static RELEASED: Condvar = Condvar::new();

/// A part of the memory, held until it is dropped. Nobody holds one and waits for another.
#[derive(Debug)]
pub struct Claim(u64);

impl Claim {
    /// Waits until `bytes` are free; a photo that needs more than there are is decoded alone.
    pub fn take(bytes: u64) -> Self {
        let bytes = bytes.min(MAX_DECODER_BYTES);
        let full = |taken: &mut u64| *taken + bytes > MAX_DECODER_BYTES;
        let mut taken = RELEASED.wait_while(lock(), full).unwrap_or_else(PoisonError::into_inner);
        *taken += bytes;
        Self(bytes)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        *lock() -= self.0;
        RELEASED.notify_all();
    }
}

/// A panic elsewhere leaves a sum that is right: it changes in one step.
fn lock() -> MutexGuard<'static, u64> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn large_photos_wait_for_one_another() {
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        let part = MAX_DECODER_BYTES / 2 - (1 << 20);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let claim = Claim::take(part);
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(std::time::Duration::from_millis(5));
                    now.fetch_sub(1, Ordering::SeqCst);
                    drop(claim);
                });
            }
        });
        assert!(most.into_inner() <= 2);
        drop(Claim::take(MAX_DECODER_BYTES + 1));
        drop(Claim::take(MAX_DECODER_BYTES));
    }
}
