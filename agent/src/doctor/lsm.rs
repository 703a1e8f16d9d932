//! BPF LSM: whether it is switched on at boot, and whether a program of it loads, attaches and runs. Each alone
//! gives false answers both ways.

use std::{fs, io, net::UdpSocket, os::unix::net::UnixStream, process::Command};

use rustix::{
    fs::{Mode, OFlags},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags},
};

use super::{
    hooks::LADDERS,
    report::{Check, Mark, State},
};
use crate::kernel::probe::{self, Lsm};

/// A file of securityfs: where it is mounted, else in a private mount that nobody else sees.
pub(super) fn security(name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/sys/kernel/security/{name}")).ok().or_else(|| private(name));
    text.map(|text| text.trim().to_owned())
}

fn private(name: &str) -> Option<String> {
    let context = rustix::mount::fsopen("securityfs", FsOpenFlags::FSOPEN_CLOEXEC).ok()?;
    rustix::mount::fsconfig_create(&context).ok()?;
    let mount =
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).ok()?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&mount, name, flags, Mode::empty()).ok()?;
    io::read_to_string(fs::File::from(file)).ok()
}

/// What was found of one LSM hook.
pub(super) struct Found {
    pub(super) hook: &'static str,
    pub(super) state: State,
    pub(super) because: Option<String>,
    pub(super) remedy: Option<String>,
}

/// Tries each LSM hook that a ladder begins with, and says what the boot says.
pub(super) fn examine() -> (Vec<Found>, Check) {
    let active = security("lsm");
    let names: Vec<&'static str> = LADDERS.iter().map(|l| l.lsm).collect();
    let found = match probe::lsm_hooks(&names) {
        Ok(hooks) => hooks.into_iter().map(|(hook, id)| (hook, Ok(probe::lsm(id, || act(hook))))).collect(),
        Err(e) => names.into_iter().map(|hook| (hook, Err(format!("{e:#}")))).collect::<Vec<_>>(),
    };
    let found: Vec<Found> = found
        .into_iter()
        .map(|(hook, tried)| {
            let (state, because, remedy) = judge(&tried, active.as_deref());
            Found { hook, state, because, remedy }
        })
        .collect();
    let check = match found.iter().find(|f| f.state != State::Works) {
        None => Check::ok("lsm", format!("lsm={}", active.unwrap_or_default())),
        Some(f) => {
            let because = f.because.clone().unwrap_or_default();
            let active = active.map_or_else(|| "unknown".to_owned(), |list| format!("`{list}`"));
            let seen = format!("active modules: {active}; {}: {because}", f.hook);
            Check::bad("lsm", Mark::Warn, seen, f.remedy.clone().unwrap_or_default())
        }
    };
    (found, check)
}

/// Does what the hook decides about.
fn act(hook: &str) -> io::Result<()> {
    match hook {
        "file_open" => fs::File::open("/dev/null").map(drop),
        "bprm_check_security" => Command::new("/proc/self/exe")
            .arg("--version")
            .stdout(std::process::Stdio::null())
            .status()
            .map(drop),
        "socket_bind" => UdpSocket::bind("127.0.0.1:0").map(drop),
        // A connected datagram socket sends nothing by itself.
        "socket_connect" => UdpSocket::bind("127.0.0.1:0").and_then(|s| s.connect("127.0.0.1:9")),
        // Nobody listens there; the hook comes before that is found out only where somebody does.
        "unix_stream_connect" => {
            let dir = std::env::temp_dir().join(format!("toolwarden-doctor.{}", std::process::id()));
            let listener = std::os::unix::net::UnixListener::bind(&dir)?;
            let done = UnixStream::connect(&dir).map(drop);
            drop(listener);
            fs::remove_file(&dir)?;
            done
        }
        "ptrace_access_check" => fs::read("/proc/1/environ").map(drop),
        other => Err(io::Error::other(format!("no act is known for {other}"))),
    }
}

type Judged = (State, Option<String>, Option<String>);

fn judge(tried: &Result<Lsm, String>, active: Option<&str>) -> Judged {
    let on = active.map(|list| list.split(',').any(|module| module == "bpf"));
    let boot = "add `bpf` to the list of `lsm=` on the kernel line (such as lsm=landlock,lockdown,yama,integrity,\
                apparmor,bpf; keep what /sys/kernel/security/lsm shows) and boot anew";
    let blind = |because: String, remedy: &str| (State::Blind, Some(because), Some(remedy.to_owned()));
    match tried {
        Err(e) => blind(e.clone(), "see the check `btf`"),
        Ok(Lsm::Absent) => blind(
            "the kernel knows no such hook: it was built without CONFIG_BPF_LSM".into(),
            "use a kernel built with CONFIG_BPF_LSM=y (Debian 12, Ubuntu 20.10, RHEL 8.5 and later)",
        ),
        Ok(Lsm::Refused(e)) if e.raw_os_error() == Some(libc::EPERM) => match on {
            Some(false) => {
                blind(format!("the load was refused ({e}), and `bpf` is not among the active modules"), boot)
            }
            _ => blind(
                format!("the load was refused ({e}), although other programs load"),
                "a policy of this kernel forbids LSM programs: see the checks `lockdown` and `cap-*`; where the kernel \
                 is built so (some clouds and sandboxes are), only another kernel with `bpf` in `lsm=` helps",
            ),
        },
        Ok(Lsm::Refused(e)) => blind(
            format!("the load was refused: {e}"),
            "use a kernel with CONFIG_BPF_LSM=y, CONFIG_BPF_JIT=y and trampolines for its architecture (arm64: 6.4)",
        ),
        Ok(Lsm::Detached(e)) => blind(
            format!("it loads and cannot be attached: {e}"),
            "see which other programs hold the hook: bpftool link",
        ),
        Ok(Lsm::Undone(e)) => (
            State::Unknown,
            Some(format!("it is attached, but the act that proves it was not done: {e}")),
            Some("run the doctor as root on the host itself".to_owned()),
        ),
        Ok(Lsm::Silent) if on == Some(false) => {
            blind("it loads and attaches, and never runs: `bpf` is not among the active modules".into(), boot)
        }
        Ok(Lsm::Silent) => blind("it loads and attaches, and did not run when its act was done".into(), boot),
        Ok(Lsm::Runs) => (State::Works, None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_line_and_the_program_itself_are_both_heard() {
        let eperm = || Ok(Lsm::Refused(io::Error::from_raw_os_error(libc::EPERM)));
        let without = Some("landlock,lockdown,yama");
        let with = Some("landlock,bpf");
        for (tried, active, state, because, remedy) in [
            (Ok(Lsm::Absent), with, State::Blind, "CONFIG_BPF_LSM", "CONFIG_BPF_LSM=y"),
            (eperm(), without, State::Blind, "not among", "kernel line"),
            (eperm(), with, State::Blind, "although other programs load", "lockdown"),
            (eperm(), None, State::Blind, "although other programs load", "lockdown"),
            (Ok(Lsm::Refused(io::Error::from_raw_os_error(524))), with, State::Blind, "refused", "arm64"),
            (Ok(Lsm::Silent), without, State::Blind, "never runs", "kernel line"),
            (Ok(Lsm::Silent), with, State::Blind, "did not run", "kernel line"),
            (Ok(Lsm::Undone(io::ErrorKind::NotFound.into())), with, State::Unknown, "not done", "as root"),
            (
                Ok(Lsm::Detached(io::ErrorKind::ResourceBusy.into())),
                with,
                State::Blind,
                "attached",
                "bpftool",
            ),
            (Err("no BTF".into()), with, State::Blind, "no BTF", "btf"),
        ] {
            let (found, why, what) = judge(&tried, active);
            assert_eq!(found, state, "{tried:?} {active:?}");
            assert!(why.is_some_and(|why| why.contains(because)), "{tried:?} {active:?}");
            assert!(what.is_some_and(|what| what.contains(remedy)), "{tried:?} {active:?}");
        }
        assert_eq!(judge(&Ok(Lsm::Runs), with), (State::Works, None, None));
    }
}
