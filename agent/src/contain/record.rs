//! What is in force on a tree, and how it was before: a file each, so that it can be undone after the agent
//! was killed. A boot of the host ends all cgroups, and so all records of an earlier one. They are not
//! synced: what survives the agent is in the page cache.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use engine::respond::Action;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use serde::{Deserialize, Serialize};

use super::process;

/// How a process was placed before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Its start: its number may mean another one later.
    pub(crate) ticks: u64,
    /// Cgroup by hierarchy.
    pub(crate) cgroups: BTreeMap<String, String>,
}

/// A limit on a cgroup that is not ours, and what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Changed {
    pub(crate) file: PathBuf,
    pub(crate) was: String,
}

/// Something in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Force {
    /// Ends at this time, ns since boot; 0: does not.
    pub(crate) until_ns: u64,
    /// Hierarchies in which it uses a cgroup of ours.
    pub(crate) own: Vec<String>,
    /// Frozen containers: hierarchy and cgroup.
    pub(crate) in_place: Vec<(String, String)>,
    /// Limits of containers.
    pub(crate) changed: Vec<Changed>,
    /// Limits on our own cgroups, as file names with values that lift them, by hierarchy.
    pub(crate) lift: Vec<(String, String, String)>,
    /// Runs for so many percent of the time, by freezing: there is no controller for it.
    pub(crate) duty: Option<u64>,
}

/// One tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) tree: u64,
    pub(crate) server: String,
    pub(crate) boot: String,
    /// Name of our cgroups.
    pub(crate) name: String,
    pub(crate) places: BTreeMap<u32, Place>,
    pub(crate) freeze: Option<Force>,
    pub(crate) throttle: Option<Force>,
    /// The network was cut: the kernel's maps hold that.
    pub(crate) cut: bool,
    /// That ends at this time, ns since boot; 0: it does not.
    #[serde(default)]
    pub(crate) cut_until_ns: u64,
}

impl Record {
    pub(crate) fn new(tree: u64, server: &str) -> Self {
        // What a server calls itself must not lead anywhere.
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' };
        let name: String = server.chars().take(48).map(plain).collect();
        let name = format!("{name}-{tree:x}");
        Self { tree, server: server.into(), boot: process::boot(), name, ..Self::default() }
    }

    /// What of it is over by then.
    pub(crate) fn due(&self, now_ns: u64) -> Vec<Action> {
        let over = |f: &Option<Force>| f.as_ref().is_some_and(|f| f.until_ns > 0 && f.until_ns <= now_ns);
        let mut due = Vec::new();
        if over(&self.freeze) {
            due.push(Action::Freeze);
        }
        if over(&self.throttle) {
            due.push(Action::Throttle);
        }
        if self.cut_ends().is_some_and(|at| at <= now_ns) {
            due.push(Action::CutNetwork);
        }
        due
    }

    fn cut_ends(&self) -> Option<u64> {
        Some(self.cut_until_ns).filter(|at| self.cut && *at > 0)
    }

    /// When something of it is over next.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        let all = [&self.freeze, &self.throttle];
        let forces = all.into_iter().flatten().map(|f| f.until_ns).filter(|t| *t > 0);
        forces.chain(self.cut_ends()).min()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.freeze.is_none() && self.throttle.is_none() && !self.cut
    }
}

/// The directory of records.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    dir: PathBuf,
}

/// Only one process changes what a record tells of.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: OwnedFd,
}

impl Records {
    pub(crate) fn of_state(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("contain") }
    }

    fn path(&self, tree: u64) -> PathBuf {
        self.dir.join(format!("{tree:x}.json"))
    }

    pub(crate) fn make(&self) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt as _;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)
    }

    /// Those of this boot; those of an earlier one are removed.
    pub(crate) fn all(&self) -> Vec<Record> {
        let boot = process::boot();
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let Ok(text) = fs::read(&path) else { continue };
            match serde_json::from_slice::<Record>(&text) {
                Ok(record) if record.boot == boot => all.push(record),
                Ok(_) => drop(fs::remove_file(&path)),
                Err(e) => {
                    tracing::error!(file = %path.display(), "a record of containment cannot be read: {e}")
                }
            }
        }
        all.sort_by_key(|r| r.tree);
        all
    }

    pub(crate) fn get(&self, tree: u64) -> Option<Record> {
        let record: Record = serde_json::from_slice(&fs::read(self.path(tree)).ok()?).ok()?;
        (record.boot == process::boot()).then_some(record)
    }

    /// Written aside and renamed: a reader sees one or the other.
    pub(crate) fn put(&self, record: &Record) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt as _;
        self.make()?;
        let new = self.dir.join(format!("{:x}.{}.new", record.tree, std::process::id()));
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&new)?;
        io::Write::write_all(&mut file, &serde_json::to_vec(record)?)?;
        fs::rename(new, self.path(record.tree))
    }

    pub(crate) fn remove(&self, tree: u64) -> io::Result<()> {
        match fs::remove_file(self.path(tree)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Waits for it until then. `None`: whoever has it hangs; who asks must decide.
    pub(crate) fn lock(&self, wait: Duration) -> Option<Lock> {
        self.lock_file("lock", wait)
    }

    /// Held by the watchdog that is at work.
    pub(crate) fn watch(&self) -> Option<Lock> {
        self.lock_file("watchdog", Duration::ZERO)
    }

    fn lock_file(&self, name: &str, wait: Duration) -> Option<Lock> {
        self.make().ok()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(self.dir.join(name), flags, Mode::from(0o600)).ok()?;
        let end = Instant::now() + wait;
        loop {
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                return Some(Lock { _file: file });
            }
            if Instant::now() >= end {
                return None;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_kept_for_its_boot_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let records = Records::of_state(dir.path());
        let mut record = Record::new(0x77, "../../etc/ev il");
        assert_eq!(record.name, "______etc_ev_il-77");
        record.freeze = Some(Force { until_ns: 5, ..Force::default() });
        records.put(&record).expect("written");
        assert_eq!((records.get(0x77), records.all()), (Some(record.clone()), vec![record.clone()]));
        record.boot = "before".into();
        records.put(&record).expect("written");
        assert_eq!((records.get(0x77), records.all()), (None, vec![]));
        assert_eq!(fs::read_dir(dir.path().join("contain")).expect("there").count(), 0);
    }

    #[test]
    fn what_is_over() {
        let force = |until_ns| Some(Force { until_ns, ..Force::default() });
        let r = Record { freeze: force(10), throttle: force(20), ..Record::default() };
        assert_eq!((r.due(9), r.next_ns()), (vec![], Some(10)));
        assert_eq!(r.due(10), [Action::Freeze]);
        assert_eq!(r.due(20), [Action::Freeze, Action::Throttle]);
        let r = Record { cut: true, cut_until_ns: 30, ..Record::default() };
        assert_eq!((r.due(29), r.due(30), r.next_ns()), (vec![], vec![Action::CutNetwork], Some(30)));
        let r = Record { cut: true, ..Record::default() };
        assert_eq!((r.due(u64::MAX), r.next_ns()), (vec![], None));
        let r = Record { freeze: force(0), ..Record::default() };
        assert_eq!((r.due(u64::MAX), r.next_ns(), r.is_idle()), (vec![], None, false));
    }

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let records = Records::of_state(dir.path());
        let lock = records.lock(Duration::ZERO).expect("free");
        assert!(records.lock(Duration::from_millis(2)).is_none());
        drop(lock);
        assert!(records.lock(Duration::ZERO).is_some());
    }
}
