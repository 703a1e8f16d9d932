//! Who does nothing wrong is left alone, also in `enforce`.

use std::process::Command;

use anyhow::{Result, ensure};
use e2e::scenario::program;

#[test]
fn benign_servers_in_enforce_are_denied_no_more_than_was_expected() -> Result<()> {
    let done = Command::new(program("corpus")?).arg("--innocents").output()?;
    print!("{}", String::from_utf8_lossy(&done.stdout));
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
