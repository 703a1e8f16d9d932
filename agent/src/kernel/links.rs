//! Which programs are attached now, by the kernel's word, and how one is attached again.
//!
//! Another process of root's can detach a link (`BPF_LINK_DETACH`, `bpftool link detach`) while its descriptor
//! stays ours, so that we hold it proves nothing. What proves it is the link's own account of what it is attached
//! to. It is read from `/proc/self/fdinfo`, where the kernel writes what `BPF_OBJ_GET_INFO_BY_FD` tells: that
//! finds our links whoever made or pinned them, and needs no capability.

use std::os::fd::{AsFd as _, RawFd};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    maps::HashMap,
    programs::{CgroupAttachMode, CgroupSkbAttachType, Program},
};

use super::{Kernel, guarded::object_of, hooks, lsm};

/// A link of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) id: u32,
    /// Id of its program.
    pub(super) program: u32,
    /// What it was attached to is still there.
    pub(super) attached: bool,
    /// Our descriptor of it.
    pub(super) fd: RawFd,
}

/// Whether a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Linked {
    /// By the link with this id.
    To(u32),
    /// It was, by the link with this id.
    Cut(u32),
    /// It has no link.
    Never,
}

/// What an fdinfo says, if it is that of a link.
fn parse(fd: RawFd, fdinfo: &str) -> Option<Link> {
    let field = |name: &str| {
        let mut fields = fdinfo.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(known, _)| *known == name).map(|(_, value)| value.trim())
    };
    field("link_type")?;
    Some(Link {
        id: field("link_id")?.parse().ok()?,
        program: field("prog_id")?.parse().ok()?,
        // Links of other kinds cannot be detached while somebody holds them.
        attached: field("cgroup_id") != Some("0"),
        fd,
    })
}

/// All links of this process.
pub(super) fn own() -> Result<Vec<Link>> {
    Ok(described()?.iter().filter_map(|(fd, text)| parse(*fd, text)).collect())
}

/// Keys of all BPF objects of this process.
pub(super) fn objects() -> Result<Vec<u64>> {
    Ok(described()?.iter().filter_map(|(_, text)| object_of(text)).collect())
}

/// All BPF objects of this process: descriptors, and what is told of them.
fn described() -> Result<Vec<(RawFd, String)>> {
    let cannot = "cannot list our own descriptors";
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").context(cannot)? {
        let entry = entry.context(cannot)?;
        // The descriptor of the listing itself is gone by now.
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        // `bpf-map` and the like; from 6.17 on in brackets.
        if target.to_string_lossy().contains("bpf")
            && target.to_string_lossy().starts_with("anon_inode:")
            && let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            && let Ok(text) = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))
        {
            all.push((fd, text));
        }
    }
    Ok(all)
}

impl Kernel {
    /// How these programs are attached now.
    pub(crate) fn linked(&self, programs: &[&'static str]) -> Result<Vec<(&'static str, Linked)>> {
        let links = own()?;
        let state = |name: &'static str| {
            let info = self.ebpf.program(name).and_then(|p| p.info().ok());
            let mine = |l: &&Link| info.as_ref().is_some_and(|info| info.id() == l.program);
            let linked = match (links.iter().filter(mine).find(|l| l.attached), links.iter().find(mine)) {
                (Some(link), _) => Linked::To(link.id),
                (None, Some(cut)) => Linked::Cut(cut.id),
                (None, None) => Linked::Never,
            };
            (name, linked)
        };
        Ok(programs.iter().copied().map(state).collect())
    }

    /// Attaches a program again that was detached by others.
    pub(crate) fn attach_again(&mut self, name: &str) -> Result<()> {
        self.attach_anew(name)?;
        self.sync_pins();
        self.guard_objects();
        Ok(())
    }

    fn attach_anew(&mut self, name: &str) -> Result<()> {
        if hooks::SYSCALLS.iter().any(|p| p.program == name) {
            self.detach_syscalls()?;
            return self.attach_syscalls();
        }
        if let Some(hook) = lsm::hook(name) {
            return self.attach_lsm_again(name, hook);
        }
        let point = hooks::LIFECYCLE.iter().find(|p| p.program == name).map(|p| p.point);
        let program =
            self.ebpf.program_mut(name).ok_or_else(|| anyhow!("the BPF object has no program {name}"))?;
        let root = hooks::cgroup_root();
        let mode = CgroupAttachMode::Single;
        // Unloading drops the dead link's descriptor, too: else each detaching would cost us one.
        match program {
            Program::RawTracePoint(p) => {
                p.unload()?;
                p.load()?;
                p.attach(point.with_context(|| format!("{name} is not attached by itself"))?)?;
            }
            Program::CgroupSockAddr(p) => {
                p.unload()?;
                p.load()?;
                p.attach(root?.as_fd(), mode)?;
            }
            Program::CgroupSock(p) => {
                p.unload()?;
                p.load()?;
                p.attach(root?.as_fd(), mode)?;
            }
            Program::CgroupSkb(p) => {
                let ingress = name == "ingress";
                let direction =
                    if ingress { CgroupSkbAttachType::Ingress } else { CgroupSkbAttachType::Egress };
                p.unload()?;
                p.load()?;
                p.attach(root?.as_fd(), direction, mode)?;
            }
            _ => return Err(anyhow!("{name} is of a kind that cannot be attached again")),
        }
        Ok(())
    }

    /// The tree that owns a socket, by its cookie.
    pub(crate) fn owner(&self, cookie: u64) -> Option<u64> {
        let owners = HashMap::<_, u64, abi::Owner>::try_from(self.ebpf.map("OWNERS")?).ok()?;
        owners.get(&cookie, 0).ok().map(|owner| owner.tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_tells_whether_it_is_attached() {
        let text = |cgroup: &str| {
            format!(
                "pos:\t0\nflags:\t02000000\nmnt_id:\t16\nino:\t12\nlink_type:\tcgroup\nlink_id:\t41\nprog_tag:\t\
                 a2f0\nprog_id:\t77\ncgroup_id:\t{cgroup}\nattach_type:\t10\n"
            )
        };
        assert_eq!(parse(7, &text("1")), Some(Link { id: 41, program: 77, attached: true, fd: 7 }));
        assert_eq!(parse(7, &text("0")), Some(Link { id: 41, program: 77, attached: false, fd: 7 }));
        let raw = "link_type:\traw_tracepoint\nlink_id:\t5\nprog_tag:\tff\nprog_id:\t6\ntp_name:\tsys_exit\n";
        assert_eq!(parse(7, raw), Some(Link { id: 5, program: 6, attached: true, fd: 7 }));
        assert_eq!(parse(7, "pos:\t0\nprog_type:\t3\nprog_id:\t6\n"), None);
    }
}
