//! Checks of the kernel and of what this process may do.

use std::{fs, path::Path};

use rustix::{
    process::{Resource, Rlimit, getrlimit},
    thread::{CapabilitySet, capabilities, capability_is_in_bounding_set},
};

use super::report::{Check, Mark};
use crate::kernel::{pins, probe};

/// A capability, what it is for, and whether nothing works without it.
struct Wanted {
    name: &'static str,
    set: CapabilitySet,
    required: bool,
    purpose: &'static str,
    /// Includes it.
    instead: Option<(&'static str, CapabilitySet)>,
}

const SYS_ADMIN: Option<(&str, CapabilitySet)> = Some(("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN));

const CAPABILITIES: [Wanted; 7] = [
    Wanted {
        name: "CAP_BPF",
        set: CapabilitySet::BPF,
        required: true,
        purpose: "load BPF programs and make their maps",
        instead: SYS_ADMIN,
    },
    Wanted {
        name: "CAP_PERFMON",
        set: CapabilitySet::PERFMON,
        required: true,
        purpose: "attach to tracepoints and read kernel memory",
        instead: SYS_ADMIN,
    },
    Wanted {
        name: "CAP_NET_ADMIN",
        set: CapabilitySet::NET_ADMIN,
        required: true,
        purpose: "load and attach the network hooks",
        instead: SYS_ADMIN,
    },
    Wanted {
        name: "CAP_SYS_PTRACE",
        set: CapabilitySet::SYS_PTRACE,
        required: false,
        purpose: "read /proc/PID of other users' servers: who they are",
        instead: None,
    },
    Wanted {
        name: "CAP_DAC_READ_SEARCH",
        set: CapabilitySet::DAC_READ_SEARCH,
        required: false,
        purpose: "read entry points and client configurations of other users",
        instead: Some(("CAP_DAC_OVERRIDE", CapabilitySet::DAC_OVERRIDE)),
    },
    Wanted {
        name: "CAP_KILL",
        set: CapabilitySet::KILL,
        required: false,
        purpose: "end an offender of another user",
        instead: None,
    },
    Wanted {
        name: "CAP_SYS_ADMIN",
        set: CapabilitySet::SYS_ADMIN,
        required: false,
        purpose: "mount cgroup2, bpffs or securityfs where they are not mounted, and time BPF programs",
        instead: None,
    },
];

/// All checks of this part.
pub(super) fn checks(pin_dir: Option<&Path>, out: &mut Vec<Check>) {
    out.push(btf());
    out.push(bpf());
    out.extend(CAPABILITIES.iter().map(capability));
    out.push(lockdown());
    out.push(unprivileged());
    out.push(pinned(pin_dir));
}

/// What denies without an agent, or would go on when it has gone.
fn pinned(more: Option<&Path>) -> Check {
    let id = "pins";
    let places = pins::places().into_iter().chain(more.map(Path::to_owned));
    let mut all = Vec::new();
    for at in places {
        for (layout, links, maps) in pins::listed(&at) {
            all.push(format!("{}/{layout}: {links} links, {maps} maps", at.display()));
        }
    }
    if all.is_empty() {
        return Check::ok(
            id,
            "nothing is pinned: no server is held, or none is by an agent that pins below /sys/fs/bpf",
        );
    }
    Check::ok(id, format!("what is denied goes on without an agent: {}", all.join("; ")))
}

/// What limits the memory of maps, where they count. `loaded`: all of them were made.
pub(super) fn limits(loaded: bool, out: &mut Vec<Check>) {
    let can_raise = has(CapabilitySet::SYS_RESOURCE);
    out.push(memlock(getrlimit(Resource::Memlock), can_raise, loaded));
}

/// A small file, trimmed.
pub(super) fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn btf() -> Check {
    match fs::metadata(probe::BTF) {
        Ok(meta) => Check::ok("btf", format!("{} has {} bytes", probe::BTF, meta.len())),
        Err(e) => Check::bad(
            "btf",
            Mark::Fail,
            format!("{}: {e}", probe::BTF),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y (Debian 11, Ubuntu 20.10, RHEL 8.2 and later), with /sys \
             mounted",
        ),
    }
}

fn bpf() -> Check {
    let e = match probe::map() {
        Ok(()) => return Check::ok("bpf", "bpf() makes maps"),
        Err(e) => e,
    };
    let filtered = read("/proc/self/status").is_some_and(|s| s.lines().any(|l| l == "Seccomp:\t2"));
    let (state, remedy) = match e.raw_os_error() {
        Some(libc::EPERM) if !rustix::process::geteuid().is_root() => {
            (Mark::Unknown, "run the doctor as root: only then it can tell what the agent may do")
        }
        Some(libc::EPERM) if filtered => (
            Mark::Fail,
            "a system call filter is in force: allow bpf() (docker: --cap-add BPF, PERFMON and NET_ADMIN, and a \
             seccomp profile with bpf; systemd: SystemCallFilter=bpf)",
        ),
        Some(libc::EPERM) => (Mark::Fail, "give the agent CAP_BPF: see the checks `cap-*`"),
        Some(libc::ENOSYS) => (Mark::Fail, "use a kernel built with CONFIG_BPF_SYSCALL=y"),
        _ => (Mark::Fail, "see the check `memlock`, and free kernel memory"),
    };
    Check::bad("bpf", state, format!("bpf(BPF_MAP_CREATE): {e}"), remedy)
}

pub(super) fn has(set: CapabilitySet) -> bool {
    capabilities(None).is_ok_and(|own| own.effective.contains(set))
}

fn capability(wanted: &Wanted) -> Check {
    let effective = has(wanted.set);
    let bounding = capability_is_in_bounding_set(wanted.set).unwrap_or(false);
    let instead = wanted.instead.filter(|(_, set)| has(*set)).map(|(name, _)| name);
    judge(wanted, effective, bounding, instead, rustix::process::geteuid().is_root())
}

fn judge(wanted: &Wanted, effective: bool, bounding: bool, instead: Option<&str>, root: bool) -> Check {
    let Wanted { name, purpose, required, .. } = wanted;
    let id = name.to_ascii_lowercase().replace('_', "-");
    if effective {
        return Check::ok(id, format!("{name} is there, to {purpose}"));
    }
    if let Some(instead) = instead {
        return Check::ok(id, format!("{name} is missing, and {instead} stands for it, to {purpose}"));
    }
    let place = if bounding { "not effective" } else { "not in the bounding set" };
    let seen = format!("{name} is {place}: without it the agent cannot {purpose}");
    if !root {
        return Check::bad(
            id,
            Mark::Unknown,
            seen,
            "run the doctor as root: only then it can tell what the agent may do",
        );
    }
    let state = if *required { Mark::Fail } else { Mark::Warn };
    let remedy = format!(
        "add {name} to CapabilityBoundingSet= of the unit, or to the container's capabilities (--cap-add), or run the \
         agent outside of it"
    );
    Check::bad(id, state, seen, remedy)
}

/// `[none] integrity confidentiality`
fn lockdown() -> Check {
    let id = "lockdown";
    let Some(text) = super::lsm::security("lockdown") else {
        return Check::ok(id, "this kernel has no lockdown, or securityfs cannot be read");
    };
    let mode = text.split('[').nth(1).and_then(|t| t.split(']').next()).unwrap_or("none");
    if mode == "confidentiality" {
        return Check::bad(
            id,
            Mark::Fail,
            "lockdown=confidentiality: BPF programs may not read kernel memory",
            "boot with lockdown=integrity on the kernel line, or switch Secure Boot's confidentiality policy off",
        );
    }
    Check::ok(id, format!("lockdown={mode}"))
}

fn unprivileged() -> Check {
    let id = "unprivileged-bpf";
    match read("/proc/sys/kernel/unprivileged_bpf_disabled").as_deref() {
        Some("0") => Check::bad(
            id,
            Mark::Warn,
            "kernel.unprivileged_bpf_disabled=0: any user may load BPF programs, MCP servers included",
            "sysctl -w kernel.unprivileged_bpf_disabled=2",
        ),
        Some(value) => Check::ok(id, format!("kernel.unprivileged_bpf_disabled={value}")),
        None => Check::ok(id, "this kernel has no unprivileged BPF"),
    }
}

fn memlock(limit: Rlimit, can_raise: bool, loaded: bool) -> Check {
    let id = "memlock";
    // Maps and ring: 8 MiB of ring, and about 20 MiB of maps.
    const NEEDED: u64 = 64 << 20;
    match limit.maximum {
        None => Check::ok(id, "RLIMIT_MEMLOCK is unlimited"),
        Some(most) if most >= NEEDED || can_raise => Check::ok(
            id,
            format!("RLIMIT_MEMLOCK is {most} bytes at most; the agent raises it where it counts"),
        ),
        // From Linux 5.11 on, maps do not count. Whether they do here, their making has shown.
        Some(most) if loaded => Check::ok(
            id,
            format!("RLIMIT_MEMLOCK is {most} bytes at most, and all maps were made nevertheless"),
        ),
        Some(most) => Check::bad(
            id,
            Mark::Warn,
            format!(
                "RLIMIT_MEMLOCK is {most} bytes at most, and without CAP_SYS_RESOURCE it cannot be raised"
            ),
            "LimitMEMLOCK=infinity in the unit, or --ulimit memlock=-1 for the container",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_capability_is_named_with_its_remedy() {
        let net = CAPABILITIES.iter().find(|w| w.name == "CAP_NET_ADMIN").expect("wanted");
        let kill = CAPABILITIES.iter().find(|w| w.name == "CAP_KILL").expect("wanted");
        for (wanted, effective, bounding, instead, root, state, word) in [
            (net, true, true, None, true, Mark::Ok, "is there"),
            (net, false, false, None, true, Mark::Fail, "bounding set"),
            (net, false, true, None, true, Mark::Fail, "not effective"),
            (net, false, true, None, false, Mark::Unknown, "not effective"),
            (net, false, false, Some("CAP_SYS_ADMIN"), true, Mark::Ok, "stands for it"),
            (kill, false, false, None, true, Mark::Warn, "bounding set"),
        ] {
            let check = judge(wanted, effective, bounding, instead, root);
            assert_eq!(check.state, state, "{check:?}");
            assert!(check.seen.contains(word), "{check:?}");
            assert_eq!(check.remedy.is_some(), state != Mark::Ok, "{check:?}");
        }
        assert_eq!(judge(net, true, true, None, true).id, "cap-net-admin");
    }

    #[test]
    fn a_limit_counts_only_where_it_cannot_be_raised() {
        let limit = |maximum| Rlimit { current: Some(1), maximum };
        for (most, can_raise, loaded, state) in [
            (None, false, false, Mark::Ok),
            (Some(8 << 20), true, false, Mark::Ok),
            (Some(8 << 20), false, true, Mark::Ok),
            (Some(8 << 20), false, false, Mark::Warn),
        ] {
            assert_eq!(memlock(limit(most), can_raise, loaded).state, state);
        }
    }
}
