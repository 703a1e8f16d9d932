//! Checks of file systems that the kernel offers, and of its cgroups. The mount table is read, no path assumed.

use super::{
    host::has,
    report::{Check, Mark},
};
use rustix::thread::CapabilitySet;

/// A line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    path: String,
    kind: String,
    options: String,
}

fn parse(table: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let mut words = line.split(' ').skip(1).map(str::to_owned);
        Some(Mount { path: words.next()?, kind: words.next()?, options: words.next()? })
    };
    table.lines().filter_map(mount).collect()
}

/// All checks of this part.
pub(super) fn checks(out: &mut Vec<Check>) {
    match std::fs::read_to_string("/proc/self/mounts") {
        Ok(table) => {
            let mounts = parse(&table);
            let admin = has(CapabilitySet::SYS_ADMIN);
            out.extend(places(&mounts, admin));
            let controllers =
                v2(&mounts).and_then(|m| super::host::read(format!("{}/cgroup.controllers", m.path)));
            let freezes = v2(&mounts).is_some();
            out.extend(cgroups(&mounts, controllers.as_deref(), freezes));
        }
        Err(e) => out.push(Check::bad(
            "mounts",
            Mark::Fail,
            format!("/proc/self/mounts: {e}"),
            "mount /proc: without it no process can be looked at",
        )),
    }
}

/// The root of the v2 hierarchy: a bind mount of a part has a longer path.
fn v2(mounts: &[Mount]) -> Option<&Mount> {
    mounts.iter().filter(|m| m.kind == "cgroup2").min_by_key(|m| m.path.len())
}

fn places(mounts: &[Mount], admin: bool) -> Vec<Check> {
    let find = |kind: &str| mounts.iter().find(|m| m.kind == kind);
    let cgroup2 = match v2(mounts) {
        Some(m) => Check::ok("mount-cgroup2", format!("the v2 hierarchy is at {}", m.path)),
        None => Check::bad(
            "mount-cgroup2",
            if admin { Mark::Warn } else { Mark::Fail },
            "the v2 hierarchy is not mounted: the network hooks need its root, and servers cannot be frozen",
            "mount -t cgroup2 none /sys/fs/cgroup/unified (make the directory first); until then the agent mounts it \
             privately, if it has CAP_SYS_ADMIN",
        ),
    };
    // Nothing that this agent does needs these: programs attach through bpf() alone.
    let optional = |id: &str, kind: &str, purpose: &str, command: &str| match find(kind) {
        Some(m) => Check::ok(id, format!("{kind} is at {}", m.path)),
        None => Check::ok(id, format!("{kind} is not mounted: {purpose} ({command})")),
    };
    vec![
        cgroup2,
        optional(
            "mount-bpffs",
            "bpf",
            "nothing can be pinned, so enforcement would end with the agent",
            "mount -t bpf bpf /sys/fs/bpf",
        ),
        optional(
            "mount-tracefs",
            "tracefs",
            "not needed, raw tracepoints attach without it",
            "mount -t tracefs nodev /sys/kernel/tracing",
        ),
        optional(
            "mount-securityfs",
            "securityfs",
            "it is mounted privately for a look",
            "mount -t securityfs none /sys/kernel/security",
        ),
    ]
}

/// Which hierarchy each controller is in, and so by what means a server can be limited.
fn cgroups(mounts: &[Mount], v2_controllers: Option<&str>, freezes: bool) -> Vec<Check> {
    let v1: Vec<&Mount> = mounts.iter().filter(|m| m.kind == "cgroup").collect();
    let mode = match (v1.iter().any(|m| !m.options.contains("name=")), v2(mounts).is_some()) {
        (false, true) => "unified (v2)",
        (true, true) => "hybrid (v1 controllers, v2 beside them)",
        (true, false) => "v1",
        (false, false) => "none",
    };
    let mut checks = vec![if mode == "none" {
        Check::bad(
            "cgroups",
            Mark::Warn,
            "no cgroup hierarchy is mounted: no server can be throttled, frozen or killed as a whole",
            "mount -t cgroup2 none /sys/fs/cgroup",
        )
    } else {
        Check::ok("cgroups", mode)
    }];
    for (controller, v1_name, purpose) in [
        ("cpu", "cpu", "CPU time is throttled by freezing in turns"),
        ("memory", "memory", "memory is not throttled"),
        ("pids", "pids", "the number of processes is not throttled"),
        ("io", "blkio", "disk use is not throttled"),
    ] {
        let id = format!("cgroup-{controller}");
        let unified = v2_controllers.is_some_and(|list| list.split_whitespace().any(|c| c == controller));
        let old = v1.iter().find(|m| m.options.split(',').any(|o| o == v1_name));
        checks.push(match (unified, old) {
            (true, _) => Check::ok(id, "v2"),
            (false, Some(m)) => Check::ok(id, format!("v1, at {}", m.path)),
            (false, None) => Check::bad(
                id,
                Mark::Warn,
                format!("no hierarchy has the controller `{controller}`: {purpose}"),
                "boot without cgroup_disable= for it, on a kernel that has it, and mount its hierarchy",
            ),
        });
    }
    let old = v1.iter().find(|m| m.options.split(',').any(|o| o == "freezer"));
    checks.push(match (freezes, old) {
        (true, _) => Check::ok("cgroup-freezer", "v2 (cgroup.freeze, cgroup.kill)"),
        (false, Some(m)) => {
            Check::ok("cgroup-freezer", format!("v1, at {}: SIGKILL takes effect on thaw", m.path))
        }
        (false, None) => Check::bad(
            "cgroup-freezer",
            Mark::Warn,
            "no server can be frozen",
            "mount -t cgroup2 none /sys/fs/cgroup/unified",
        ),
    });
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
tmpfs /sys/fs/cgroup tmpfs rw,mode=755 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/freezer cgroup rw,relatime,freezer 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
";
    const UNIFIED: &str =
        "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\nbpf /sys/fs/bpf bpf rw,mode=700 0 0\n";

    fn state(checks: &[Check], id: &str) -> (Mark, String) {
        checks.iter().find(|c| c.id == id).map(|c| (c.state, c.seen.clone())).expect(id)
    }

    #[test]
    fn each_controller_is_found_where_it_is() {
        let hybrid = cgroups(&parse(HYBRID), Some(""), true);
        assert!(state(&hybrid, "cgroups").1.starts_with("hybrid"));
        assert_eq!(state(&hybrid, "cgroup-cpu"), (Mark::Ok, "v1, at /sys/fs/cgroup/cpu".into()));
        assert_eq!(state(&hybrid, "cgroup-io").0, Mark::Warn);
        assert!(state(&hybrid, "cgroup-freezer").1.starts_with("v2"));
        let unified = cgroups(&parse(UNIFIED), Some("cpu io memory pids"), true);
        assert!(unified.iter().all(|c| c.state == Mark::Ok), "{unified:?}");
        assert_eq!(state(&unified, "cgroup-memory").1, "v2");
        let old = cgroups(&parse(HYBRID.rsplit_once("cgroup2 ").expect("the last line").0), None, false);
        assert_eq!(state(&old, "cgroups").1, "v1");
        assert!(state(&old, "cgroup-freezer").1.contains("SIGKILL"));
        let none = cgroups(&[], None, false);
        assert!(none.iter().all(|c| c.state == Mark::Warn && c.remedy.is_some()), "{none:?}");
    }

    #[test]
    fn only_the_v2_root_is_needed() {
        assert!(places(&parse(UNIFIED), false).iter().all(|c| c.state == Mark::Ok));
        assert_eq!(state(&places(&[], true), "mount-cgroup2").0, Mark::Warn);
        assert_eq!(state(&places(&[], false), "mount-cgroup2").0, Mark::Fail);
    }
}
