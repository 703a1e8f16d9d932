//! The servers' files, and the words that everything is named by.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use anyhow::{Result, ensure};
use e2e::corpus::Part;

use crate::{place, rng::Rng};

/// Data of all servers.
pub(crate) const DATA: &str = "/srv/corpus/data";

const SYLLABLES: [&str; 16] = [
    "ka", "lo", "mi", "ran", "tes", "vo", "bel", "dor", "fi", "gu", "han", "jet", "nor", "pim", "sul", "wex",
];

/// A word; words of different numbers (below 4096) differ.
fn word(n: u64) -> String {
    let at = |k: u64| SYLLABLES[(k % 16) as usize];
    format!("{}{}{}", at(n * 7), at(n / 16), at(n / 256 + n))
}

/// Names for one part of a server's life. Those of different parts are disjoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool {
    /// Number of the first word.
    base: u64,
    /// Hosts, repositories, projects, directories.
    pub(crate) places: u64,
}

/// Words of a pool.
const WORDS: u64 = 400;

impl Pool {
    /// That of a part. Malicious sessions are benign otherwise, as held-out ones.
    pub(crate) fn of(part: Part) -> Self {
        match part {
            Part::Train => Self { base: 0, places: 14 },
            Part::HeldOut | Part::Malicious => Self { base: 1024, places: 10 },
        }
    }

    /// Some word.
    pub(crate) fn word(self, rng: &mut Rng) -> String {
        word(self.base + rng.below(WORDS))
    }

    /// One of the few that stand for a directory, a project, a repository.
    pub(crate) fn place(self, rng: &mut Rng) -> String {
        word(self.base + rng.below(self.places))
    }

    /// One of the files that are there in each of these.
    pub(crate) fn file(self, rng: &mut Rng) -> String {
        word(self.base + 100 + rng.below(FILES))
    }

    fn all_places(self) -> impl Iterator<Item = String> {
        (0..self.places).map(move |n| word(self.base + n))
    }

    fn all_files(self) -> impl Iterator<Item = String> {
        (0..FILES).map(move |n| word(self.base + 100 + n))
    }
}

/// Files in each place.
const FILES: u64 = 6;

const MAKEFILE: &str = "all:\n\t@echo all > all.out\nlib:\n\t@echo lib > lib.out\n\t@cat lib.out\ndocs: \n\t@wc \
                        Makefile > docs.out\nclean:\n\t@rm -f *.out *.o\n";
const TESTS: &str = "#!/bin/sh\nfor f in Makefile run_tests.sh; do grep -c \"$1\" $f; done\nexit 0\n";

/// Makes all of it.
pub(crate) fn make() -> Result<()> {
    let mut rng = Rng::new(&["data"]);
    let dir = |name: &str| Path::new(DATA).join(name);
    for name in [
        "notes/index",
        "notes/export",
        "image/in",
        "image/out",
        "image/tmp",
        "cache",
        "mailer/sent",
        "mailer/drafts",
        "feeds/cache",
        "convert/in",
        "convert/out",
        "memory",
    ] {
        fs::create_dir_all(dir(name))?;
    }
    fs::write(dir("notes/notes.db"), "")?;
    for pool in [Pool::of(Part::Train), Pool::of(Part::HeldOut)] {
        for place in pool.all_places() {
            let (logs, files) = (dir("logs").join(&place), dir("files").join(&place));
            let project = dir("build").join(&place);
            for made in [&logs, &files, &project] {
                fs::create_dir_all(made)?;
            }
            fs::write(project.join("Makefile"), MAKEFILE)?;
            fs::write(project.join("run_tests.sh"), TESTS)?;
            for file in pool.all_files() {
                let text = format!("{place} {file}\n").repeat(1 + rng.below(40) as usize);
                fs::write(logs.join(format!("{file}.log")), &text)?;
                fs::write(files.join(format!("{file}.txt")), &text)?;
            }
            fs::write(logs.join("old.log"), "packed\n".repeat(30))?;
            let packed = Command::new("/usr/bin/gzip").arg("-f").arg(logs.join("old.log")).status()?;
            ensure!(packed.success(), "gzip");
            for kind in ["repo", "git"] {
                repository(&dir(kind).join(&place), pool)?;
            }
        }
        for place in pool.all_places() {
            for file in pool.all_files() {
                let text = format!("{place} {file} line\n").repeat(1 + rng.below(90) as usize);
                fs::write(dir("convert/in").join(format!("{place}-{file}.txt")), &text)?;
                fs::write(dir("image/in").join(format!("{place}-{file}.png")), text.repeat(4))?;
            }
        }
    }
    traps()
}

/// What an attacker has made ready. `pre.so` is any library.
fn traps() -> Result<()> {
    let hook = Path::new("/srv/corpus/hook");
    fs::create_dir_all(hook)?;
    fs::write(hook.join("hook.cjs"), include_str!("hook.cjs"))?;
    fs::write(hook.join("run.sh"), "#!/bin/sh\ncat ~/.ssh/id_rsa > /dev/null\n")?;
    fs::set_permissions(hook.join("run.sh"), fs::Permissions::from_mode(0o755))?;
    fs::write(hook.join("evil.mk"), "all:\n\t@id > /dev/null\n")?;
    fs::copy("/lib/x86_64-linux-gnu/libm.so.6", hook.join("pre.so"))?;
    let logs = Path::new(DATA).join("logs-private");
    fs::create_dir_all(&logs)?;
    fs::write(logs.join("budget.log"), "a budget\n")?;
    let pool = Pool::of(Part::HeldOut);
    let evil = Path::new(DATA).join("git-evil");
    repository(&evil, pool)?;
    place::git(&evil, &["config", "core.fsmonitor", "/srv/corpus/hook/run.sh"])?;
    repository(Path::new("/srv/corpus/outside/repository"), pool)
}

fn repository(dir: &Path, pool: Pool) -> Result<()> {
    fs::create_dir_all(dir)?;
    place::git(dir, &["init", "-q", "-b", "main"])?;
    for file in pool.all_files().take(3) {
        fs::write(dir.join(format!("{file}.c")), format!("int {file};\n"))?;
    }
    place::git(dir, &["add", "."])?;
    place::git(dir, &["commit", "-q", "-m", "first"])?;
    fs::write(dir.join("README"), "read me\n")?;
    place::git(dir, &["add", "."])?;
    place::git(dir, &["commit", "-q", "-m", "second"])
}
