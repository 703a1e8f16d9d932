//! How patient tests are. An emulated machine is many times slower than a real one: `E2E_SLOW` says how many
//! times, and all time limits and pauses of the tests follow it.

use std::{sync::LazyLock, time::Duration};

static SLOWNESS: LazyLock<u32> = LazyLock::new(|| {
    let set = std::env::var("E2E_SLOW").ok();
    set.and_then(|s| s.parse().ok()).unwrap_or(1).max(1)
});

/// How many times slower than usual this machine is.
#[must_use]
pub fn slowness() -> u32 {
    *SLOWNESS
}

/// A limit or a pause as this machine needs it.
#[must_use]
pub fn patient(usual: Duration) -> Duration {
    usual * slowness()
}

/// The same in ms.
#[must_use]
pub fn patient_ms(usual: u64) -> Duration {
    patient(Duration::from_millis(usual))
}

/// How often something is repeated where repeating it is slow; at least once.
#[must_use]
pub fn fewer(usual: usize) -> usize {
    (usual / slowness() as usize).max(1)
}

/// How often something is repeated: `E2E_ROUNDS`, for longer runs, else so often.
#[must_use]
pub fn rounds(usual: usize) -> usize {
    std::env::var("E2E_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}
