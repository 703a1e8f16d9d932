//! Reads rule files. Rules can have servers killed: the daemon takes them only from files that
//! nobody but root can write.

use std::{
    fs::Metadata,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use engine::rules::{MAX_FILE, Origin, Source};

use crate::files;

/// Files of one directory.
const MAX_FILES: usize = 1000;

/// Rule files, and what a person should know about them.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) sources: Vec<Source>,
    pub(crate) warnings: Vec<String>,
}

/// Reads files, and the `*.yaml` and `*.yml` of directories in the order of their names. `strict`:
/// for the daemon, which refuses what others than root can write; else that is a warning.
pub(crate) fn load(paths: &[PathBuf], strict: bool) -> Result<Loaded> {
    let mut loaded = Loaded::default();
    for path in paths {
        let meta = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
        if meta.is_dir() {
            check(path, &meta, strict, &mut loaded.warnings)?;
            for file in files::of(path, &["yaml", "yml"], MAX_FILES)? {
                one(&file, strict, &mut loaded)?;
            }
        } else {
            one(path, strict, &mut loaded)?;
        }
    }
    Ok(loaded)
}

fn one(path: &Path, strict: bool, loaded: &mut Loaded) -> Result<()> {
    let (text, meta) = files::text(path, MAX_FILE)?;
    check(path, &meta, strict, &mut loaded.warnings)?;
    let name = path.display().to_string();
    loaded.sources.push(Source { name, text, origin: Origin::Person });
    Ok(())
}

/// Refuses, or tells, what others than root can change.
fn check(path: &Path, meta: &Metadata, strict: bool, warnings: &mut Vec<String>) -> Result<()> {
    let Some((why, remedy)) = files::not_only_roots(path, meta) else {
        return Ok(());
    };
    ensure!(!strict, "{} {why}: rules are taken only from root; try: {remedy}", path.display());
    warnings.push(format!("{} {why}: the daemon refuses it until: {remedy}", path.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const RULE: &str = "rules: [{id: a, learned: merge}]";

    fn dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        mode(dir.path(), 0o755);
        dir
    }

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("own file");
    }

    fn write(dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, RULE).expect("a new file");
        mode(&path, 0o644);
        path
    }

    #[test]
    fn yaml_of_a_directory_is_read_in_order() {
        let dir = dir();
        for name in ["b.yaml", "a.yml", "c.txt", ".d.yaml"] {
            write(dir.path(), name);
        }
        let loaded = load(&[dir.path().to_owned()], false).expect("rules");
        let names: Vec<_> = loaded.sources.iter().filter_map(|s| Path::new(&s.name).file_name()).collect();
        assert_eq!(names, ["a.yml", "b.yaml"]);
    }

    #[test]
    fn what_others_can_write_is_refused_by_the_daemon_and_told_to_a_developer() {
        let dir = dir();
        let path = write(dir.path(), "a.yaml");
        for bad in [0o664, 0o646] {
            mode(&path, bad);
            let error = load(std::slice::from_ref(&path), true).expect_err("refused").to_string();
            assert!(error.contains("chmod go-w"), "{error}");
            assert_eq!(load(std::slice::from_ref(&path), false).expect("rules").warnings.len(), 1);
        }
        mode(&path, 0o644);
        if rustix::process::getuid().is_root() {
            assert!(load(std::slice::from_ref(&path), true).expect("rules").warnings.is_empty());
            mode(dir.path(), 0o777);
            load(&[dir.path().to_owned()], true).expect_err("anyone can add a file");
            std::os::unix::fs::chown(&path, Some(1000), None).expect("root");
            load(&[path], true).expect_err("of a user");
        }
    }

    #[test]
    fn only_small_regular_utf8_files_are_read() {
        let dir = dir();
        let big = write(dir.path(), "big.yaml");
        std::fs::write(&big, vec![b'#'; MAX_FILE + 1]).expect("own file");
        let bytes = write(dir.path(), "bytes.yaml");
        std::fs::write(&bytes, b"rules: \xff").expect("own file");
        let fifo = dir.path().join("fifo.yaml");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o644.into(), 0)
            .expect("a fifo");
        for (path, word) in [(big, "larger"), (bytes, "not UTF-8, at byte 7"), (fifo, "not a regular file")] {
            let error = format!("{:#}", load(std::slice::from_ref(&path), false).expect_err("refused"));
            assert!(error.contains(word), "{error}");
        }
        load(&[dir.path().join("none")], false).expect_err("not there");
    }
}
