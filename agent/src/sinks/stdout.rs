//! Standard output.

use std::io::{Write as _, stdout};

use super::deliver::Failure;

/// Writes all of it, or says why not.
pub(super) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|e| Failure::later(format!("standard output: {e}")))
}
