//! Checks of the agent's own places, of its rules, of the clock, and of what else runs.

use std::{
    fs::{self, Metadata},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
    time::{Duration, SystemTime},
};

use rustix::time::{ClockId, clock_gettime};

use super::{
    Options,
    report::{Check, Mark},
};
use crate::{commands::rules::RULES_D, desk::rules, guard};

/// Below this, findings cannot be stored for long.
const FULL: u64 = 16 << 20;
/// A month of a busy host, by measurement of the store's rows.
const TIGHT: u64 = 256 << 20;
/// Files may be written by clocks that differ this much.
const SKEW: Duration = Duration::from_secs(2);

/// All checks of this part. `clock`: realtime minus boot time when the doctor began, ns.
pub(super) fn checks(options: &Options, clock: i64, out: &mut Vec<Check>) {
    out.push(state_dir(&options.state_dir));
    out.push(disk(&options.state_dir));
    out.push(rules_dir(options.rules.as_deref()));
    out.push(own_rules(options.rules.as_deref()));
    out.push(control(&options.control));
    out.push(agent(&options.guard));
    out.push(steady(clock, realtime_minus_boot(), &options.state_dir));
    out.push(synchronised());
    out.push(systemd());
}

/// Changes when the wall clock is set.
pub(super) fn realtime_minus_boot() -> i64 {
    let ns = |id| {
        let t = clock_gettime(id);
        t.tv_sec * 1_000_000_000 + t.tv_nsec
    };
    ns(ClockId::Realtime) - ns(ClockId::Boottime)
}

/// Why others could change it, if they could.
fn open_to_others(meta: &Metadata) -> Option<String> {
    match (meta.uid(), meta.mode() & 0o022) {
        (0, 0) => None,
        (0, _) => Some(format!("others may write to it (mode {:04o})", meta.mode() & 0o7777)),
        (uid, _) => Some(format!("it belongs to user {uid}")),
    }
}

/// A place that only root may change.
fn private(id: &str, path: &Path, absent: &str) -> Check {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Check::ok(id, format!("{shown}: {absent}")),
        Err(e) => Check::bad(id, Mark::Unknown, format!("{shown}: {e}"), "run the doctor as root"),
        Ok(meta) => match open_to_others(&meta) {
            None => Check::ok(id, format!("{shown} is root's, mode {:04o}", meta.mode() & 0o7777)),
            Some(why) => {
                let remedy = format!("chown root {shown} && chmod go-w {shown}");
                Check::bad(id, Mark::Fail, format!("{shown}: {why}, and the agent refuses it"), remedy)
            }
        },
    }
}

fn state_dir(dir: &Path) -> Check {
    private("state-dir", dir, "not there yet, the agent makes it")
}

fn rules_dir(dir: Option<&Path>) -> Check {
    match dir {
        Some(dir) if !dir.is_dir() => Check::bad(
            "rules-dir",
            Mark::Fail,
            format!("{} is not there, and the agent does not start with --rules for it", dir.display()),
            format!("mkdir -m 0755 {}", dir.display()),
        ),
        _ => private(
            "rules-dir",
            dir.unwrap_or(Path::new(RULES_D)),
            "not there, only the shipped packs are in force",
        ),
    }
}

fn own_rules(dir: Option<&Path>) -> Check {
    let id = "rules";
    let read = rules::Files::new(dir).read();
    match read.and_then(|texts| rules::check(&texts)) {
        Ok(n) => Check::ok(id, format!("{n} rules, those of the shipped packs included, are in order")),
        Err(why) => {
            let seen = why.lines().next().unwrap_or_default().to_owned();
            Check::bad(
                id,
                Mark::Fail,
                seen,
                "toolwarden rules check says all that is wrong with them, and where",
            )
        }
    }
}

fn control(path: &Path) -> Check {
    let id = "control-socket";
    let dir = path.parent().unwrap_or(Path::new("/"));
    let parent = private(id, dir, "not there yet, the agent makes it");
    if parent.state != Mark::Ok {
        return parent;
    }
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => Check::bad(
            id,
            Mark::Fail,
            format!("{} is not a socket, and the agent leaves it alone", path.display()),
            "move it away, or choose another place with --control",
        ),
        Ok(meta) if meta.uid() != 0 || meta.mode() & 0o007 != 0 => Check::bad(
            id,
            Mark::Warn,
            format!("{}: user {}, mode {:04o}", path.display(), meta.uid(), meta.mode() & 0o7777),
            "start the agent anew: it makes the socket root's, mode 0600 or 0660",
        ),
        Ok(meta) => Check::ok(id, format!("{} is root's, mode {:04o}", path.display(), meta.mode() & 0o7777)),
        Err(_) => parent,
    }
}

fn agent(path: &Path) -> Check {
    let id = "agent";
    match guard::holder(path) {
        Ok(None) => Check::ok(id, "no agent runs"),
        Ok(Some(pid)) => {
            Check::ok(id, format!("an agent runs (process {pid}); a second one refuses to start"))
        }
        Err(e) => Check::bad(id, Mark::Unknown, format!("{}: {e}", path.display()), "run the doctor as root"),
    }
}

/// Room on the file system that the directory is on, or will be.
fn disk(dir: &Path) -> Check {
    let id = "disk";
    let existing = dir.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let shown = existing.display();
    let room = match rustix::fs::statvfs(existing) {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
        Err(e) => {
            return Check::bad(id, Mark::Unknown, format!("{shown}: {e}"), "run the doctor as root");
        }
    };
    let seen = format!("{} MiB are free at {shown}", room >> 20);
    let remedy =
        "make room, or choose another place with --state-dir; `toolwarden purge` forgets old findings";
    match room {
        0..FULL => Check::bad(id, Mark::Fail, seen, remedy),
        FULL..TIGHT => Check::bad(id, Mark::Warn, seen, remedy),
        _ => Check::ok(id, seen),
    }
}

/// Events are stamped with boot time; UTC is that plus what the wall clock said at the agent's start.
fn steady(before: i64, now: i64, state_dir: &Path) -> Check {
    let id = "clock";
    let remedy = "let the clock settle (chronyc waitsync, timedatectl), then start the agent anew: times of findings \
                  follow the clock of its start";
    let jump = Duration::from_nanos(now.abs_diff(before));
    if jump > Duration::from_millis(100) {
        let seen = format!("the wall clock was set by {jump:?} while the doctor looked");
        return Check::bad(id, Mark::Warn, seen, remedy);
    }
    // What was written last cannot be of the future.
    let newest = fs::read_dir(state_dir).into_iter().flatten().flatten();
    let newest = newest.filter_map(|e| e.metadata().and_then(|m| m.modified()).ok()).max();
    match newest.and_then(|at| at.duration_since(SystemTime::now()).ok()) {
        Some(ahead) if ahead > SKEW => {
            let seen =
                format!("the wall clock is {ahead:?} behind what the agent wrote last: it was set back");
            Check::bad(id, Mark::Warn, seen, remedy)
        }
        _ => Check::ok(id, "the wall clock runs with the time since boot"),
    }
}

fn synchronised() -> Check {
    let id = "clock-sync";
    // SAFETY: plain integers, for which zero is a value; modes of zero only read.
    let mut clock: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: a live block that the kernel fills in.
    let state = unsafe { libc::adjtimex(&raw mut clock) };
    if state < 0 {
        let e = std::io::Error::last_os_error();
        return Check::bad(id, Mark::Unknown, format!("adjtimex: {e}"), "allow adjtimex() to the doctor");
    }
    if state == libc::TIME_ERROR || clock.status & libc::STA_UNSYNC != 0 {
        return Check::bad(
            id,
            Mark::Warn,
            "the clock is not synchronised: findings of several hosts cannot be put in order",
            "run chrony, ntpd or systemd-timesyncd (in a container: on its host)",
        );
    }
    Check::ok(id, format!("synchronised, off by {} us at most", clock.maxerror))
}

fn systemd() -> Check {
    let id = "systemd";
    let first = super::host::read("/proc/1/comm").unwrap_or_default();
    if Path::new("/run/systemd/system").is_dir() {
        return Check::ok(id, "systemd is at work: servers are limited in scopes of its own");
    }
    Check::ok(id, format!("not at work here (process 1 is `{first}`): servers are limited in raw cgroups"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_clock_that_is_set_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(steady(5, 6, dir.path()).state, Mark::Ok);
        assert_eq!(steady(0, 200_000_000, dir.path()).state, Mark::Warn);
        let file = fs::File::create(dir.path().join("toolwarden.db")).expect("a file");
        file.set_modified(SystemTime::now() + Duration::from_secs(3600)).expect("own file");
        let check = steady(5, 6, dir.path());
        assert_eq!(check.state, Mark::Warn);
        assert!(check.seen.contains("set back"), "{check:?}");
    }

    #[test]
    fn what_others_can_change_fails() {
        let dir = tempfile::tempdir().expect("a directory");
        let mode =
            |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).expect("own directory");
        mode(0o700);
        let root = rustix::process::geteuid().is_root();
        assert_eq!(state_dir(dir.path()).state, if root { Mark::Ok } else { Mark::Fail });
        mode(0o777);
        let check = state_dir(dir.path());
        assert_eq!(check.state, Mark::Fail);
        assert!(check.remedy.is_some_and(|r| r.contains("chmod go-w")));
        assert_eq!(rules_dir(Some(&dir.path().join("none"))).state, Mark::Fail);
        let file = dir.path().join("control.sock");
        fs::write(&file, "").expect("a file");
        mode(0o755);
        if root {
            assert!(control(&file).seen.contains("not a socket"));
        }
    }
}
