//! The key of argument hashes: one a host, so that equal values are recognised across sessions and
//! nowhere else.

use std::{
    fs::{DirBuilder, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};

/// Reads the key, or makes one.
pub(crate) fn load(state_dir: &Path) -> Result<[u8; 32]> {
    let path = state_dir.join("argument.key");
    let context = || format!("cannot use {} (choose another --state-dir)", path.display());
    let mut key = [0; 32];
    match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            file.take(33).read_to_end(&mut bytes).with_context(context)?;
            if bytes.len() != key.len() {
                bail!(
                    "{} is {} bytes long instead of 32: remove it to get a new key",
                    path.display(),
                    bytes.len()
                );
            }
            key.copy_from_slice(&bytes);
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty())
                .context("cannot get random bytes")?;
            DirBuilder::new().recursive(true).mode(0o700).create(state_dir).with_context(context)?;
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .with_context(context)?;
            file.write_all(&key).with_context(context)?;
        }
        Err(e) => return Err(e).with_context(context),
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_kept_private_and_checked() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("a/b");
        let key = load(&state).expect("a new key");
        assert_eq!(load(&state).expect("the same key"), key);
        let file = state.join("argument.key");
        assert_eq!(std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
        std::fs::write(&file, b"short").expect("writable");
        assert!(load(&state).expect_err("too short").to_string().contains("instead of 32"));
    }
}
