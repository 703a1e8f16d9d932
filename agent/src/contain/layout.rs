//! Where this host has its cgroups: unified, hybrid or v1, controller by controller, as the mount table says.

use std::{
    collections::BTreeSet,
    fs,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

/// One hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// `v2`, or the controllers that share it, as in `/proc/PID/cgroup`.
    pub(crate) name: String,
    mount: PathBuf,
    /// What of the hierarchy is mounted there.
    root: String,
    pub(crate) controllers: BTreeSet<String>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    v2: Option<Hierarchy>,
    v1: Vec<Hierarchy>,
    /// Where v2 was mounted privately, because nobody has.
    _private: Option<OwnedFd>,
}

/// The name of the unified hierarchy.
pub(crate) const V2: &str = "v2";

impl Layout {
    /// That of this host.
    pub(crate) fn of_host() -> Self {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let controllers =
            |mount: &Path| fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        let mut layout = Self::parse(&text, controllers);
        if layout.v2.is_none()
            && let Some(fd) = private()
        {
            let mount = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
            let controllers = controllers(&mount).split_whitespace().map(str::to_owned).collect();
            layout.v2 = Some(Hierarchy { name: V2.into(), mount, root: "/".into(), controllers });
            layout._private = Some(fd);
        }
        layout
    }

    /// Reads a mount table. `controllers`: what the unified hierarchy at a path offers.
    fn parse(mountinfo: &str, controllers: impl Fn(&Path) -> String) -> Self {
        let mut layout = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let mut left = left.split(' ').skip(3);
            let (Some(root), Some(mount)) = (left.next(), left.next()) else { continue };
            let mut right = right.split(' ');
            let (Some(kind), Some(options)) = (right.next(), right.nth(1)) else { continue };
            let (mount, root) = (PathBuf::from(unescape(mount)), unescape(root));
            match kind {
                "cgroup2" => {
                    let all = controllers(&mount).split_whitespace().map(str::to_owned).collect();
                    let found = Hierarchy { name: V2.into(), mount, root, controllers: all };
                    if layout.v2.as_ref().is_none_or(|known| found.is_wider(known)) {
                        layout.v2 = Some(found);
                    }
                }
                "cgroup" => {
                    const KNOWN: [&str; 6] = ["cpu", "cpuacct", "memory", "pids", "freezer", "blkio"];
                    let all: BTreeSet<String> =
                        options.split(',').filter(|o| KNOWN.contains(o)).map(str::to_owned).collect();
                    let Some(first) = all.iter().next().cloned() else { continue };
                    let found = Hierarchy { name: first, mount, root, controllers: all };
                    match layout.v1.iter_mut().find(|h| h.name == found.name) {
                        Some(known) if found.is_wider(known) => *known = found,
                        Some(_) => {}
                        None => layout.v1.push(found),
                    }
                }
                _ => {}
            }
        }
        layout
    }

    /// Where processes are frozen: v2 wherever there is one, because what is frozen there can still be killed.
    pub(crate) fn freezer(&self) -> Option<&Hierarchy> {
        self.v2.as_ref().or_else(|| self.of("freezer"))
    }

    /// Where a controller is.
    pub(crate) fn of(&self, controller: &str) -> Option<&Hierarchy> {
        let has = |h: &&Hierarchy| h.controllers.contains(controller);
        self.v1.iter().find(has).or_else(|| self.v2.as_ref().filter(has))
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Hierarchy> {
        self.v2.iter().chain(&self.v1)
    }

    /// The directories that servers are put into, where there are any.
    pub(crate) fn homes(&self) -> Vec<PathBuf> {
        let all = self.all().flat_map(|h| [h.home(), h.mount.join("toolwarden.slice")]);
        all.filter(|home| home.is_dir()).collect()
    }

    /// The cgroups that this process is in, and those around them, but for the roots: by a root nobody is frozen or limited.
    pub(crate) fn around_us(&self) -> Vec<PathBuf> {
        let own = |h: &Hierarchy| h.dir(&h.place(std::process::id())?);
        let around = |h: &Hierarchy| {
            let dir = own(h).unwrap_or_default();
            let above = dir.ancestors().take_while(|d| d.starts_with(&h.mount) && *d != h.mount);
            above.map(Path::to_path_buf).collect::<Vec<_>>()
        };
        self.all().flat_map(around).collect()
    }

    /// A hierarchy by its name.
    pub(crate) fn named(&self, name: &str) -> Option<&Hierarchy> {
        self.all().find(|h| h.name == name)
    }

    /// The same host without a hierarchy, or without a controller.
    #[cfg(test)]
    pub(crate) fn without(mut self, what: &str) -> Self {
        if what == V2 {
            self.v2 = None;
        }
        self.v1.retain(|h| !h.controllers.contains(what));
        if let Some(v2) = &mut self.v2 {
            v2.controllers.remove(what);
        }
        self
    }
}

impl Hierarchy {
    /// Of two mounts of one hierarchy, the one that shows more of it.
    fn is_wider(&self, other: &Self) -> bool {
        (self.root.len(), self.mount.as_os_str().len()) < (other.root.len(), other.mount.as_os_str().len())
    }

    pub(crate) fn is_v2(&self) -> bool {
        self.name == V2
    }

    /// The directory of a cgroup; `None` when it is not within what is mounted.
    pub(crate) fn dir(&self, cgroup: &str) -> Option<PathBuf> {
        let below = match self.root.as_str() {
            "/" => cgroup,
            root => cgroup.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with('/'))?,
        };
        // `..` in it: outside of the reader's cgroup namespace.
        if below.split('/').any(|part| part == "..") {
            return None;
        }
        Some(self.mount.join(below.trim_start_matches('/')))
    }

    /// Where it is mounted.
    pub(crate) fn top(&self) -> &Path {
        &self.mount
    }

    /// Where all our own cgroups are.
    pub(crate) fn home(&self) -> PathBuf {
        self.mount.join("toolwarden")
    }

    /// One of them.
    pub(crate) fn own(&self, name: &str) -> PathBuf {
        self.mount.join(self.own_place(name).trim_start_matches('/'))
    }

    /// The same as `/proc/PID/cgroup` has it at its end: systemd's scopes are in a slice.
    pub(crate) fn own_place(&self, name: &str) -> String {
        let home = if self.is_v2() && is_scope(name) { "toolwarden.slice" } else { "toolwarden" };
        format!("/{home}/{name}")
    }

    /// The cgroup of a process in this hierarchy.
    pub(crate) fn place(&self, pid: u32) -> Option<String> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        self.place_in(&text).map(str::to_owned)
    }

    /// The same, from the text of `/proc/PID/cgroup`.
    pub(crate) fn place_in<'a>(&self, text: &'a str) -> Option<&'a str> {
        text.lines().find_map(|line| {
            let mut words = line.splitn(3, ':');
            let (number, names, path) = (words.next()?, words.next()?, words.next()?);
            let of_it = if self.is_v2() {
                number == "0" && names.is_empty()
            } else {
                names.split(',').any(|n| n == self.name)
            };
            of_it.then_some(path)
        })
    }
}

/// v2 where nobody else sees it.
fn private() -> Option<OwnedFd> {
    let context = rustix::mount::fsopen("cgroup2", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC).ok()?;
    rustix::mount::fsconfig_create(context.as_fd()).ok()?;
    rustix::mount::fsmount(
        context.as_fd(),
        rustix::mount::FsMountFlags::FSMOUNT_CLOEXEC,
        rustix::mount::MountAttrFlags::empty(),
    )
    .ok()
}

/// `\040` and its like.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = tail.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        match octal.filter(|_| *first == b'\\').and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Whether a cgroup of ours is one of systemd's units.
pub(crate) fn is_scope(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|e| e == "scope")
}

/// Whether a cgroup is that of a container: limited where it is, never moved out.
pub(crate) fn is_container(cgroup: &str) -> bool {
    const PREFIXES: [&str; 8] =
        ["docker-", "libpod-", "crio-", "cri-containerd-", "kubepods", "lxc.payload", "machine-", "nspawn-"];
    const PARENTS: [&str; 3] = ["docker", "lxc", "buildkit"];
    let mut before = "";
    cgroup.split('/').any(|part| {
        let id = part.len() == 64 && part.bytes().all(|b| b.is_ascii_hexdigit());
        let within = PARENTS.contains(&before) && !part.is_empty();
        before = part;
        id || within || PREFIXES.iter().any(|p| part.starts_with(p))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw shared:5 master:1 - cgroup cgroup rw,freezer
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime - cgroup2 cgroup2 rw";

    #[test]
    fn hosts_of_all_three_kinds() {
        let hybrid = Layout::parse(HYBRID, |_| String::new());
        assert_eq!(hybrid.freezer().map(|h| h.own("x")), Some("/sys/fs/cgroup/uni fied/toolwarden/x".into()));
        assert_eq!(hybrid.of("cpu").map(|h| (h.name.as_str(), h.is_v2())), Some(("cpu", false)));
        assert_eq!(
            hybrid.freezer().map(|h| h.own_place("x-1.scope")),
            Some("/toolwarden.slice/x-1.scope".into())
        );
        assert_eq!(hybrid.of("cpu").map(|h| h.own_place("x-1.scope")), Some("/toolwarden/x-1.scope".into()));
        assert_eq!(hybrid.of("pids"), None);
        let v1 = Layout::parse(HYBRID, |_| String::new()).without(V2);
        assert_eq!(v1.freezer().map(|h| h.name.as_str()), Some("freezer"));
        let unified = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";
        let unified = Layout::parse(unified, |_| "cpu io memory pids".into());
        assert!(["cpu", "io", "memory", "pids"].iter().all(|c| unified.of(c).is_some_and(Hierarchy::is_v2)));
        assert!(unified.freezer().is_some_and(Hierarchy::is_v2));
        assert_eq!(Layout::parse("", |_| String::new()).freezer(), None);
    }

    #[test]
    fn places() {
        let text = "9:name=systemd:/\n4:memory:/a\n1:cpu,cpuacct:/b:c\n0::/user.slice/x\n";
        let hybrid = Layout::parse(HYBRID, |_| String::new());
        let place = |c: &str| hybrid.of(c).and_then(|h| h.place_in(text));
        assert_eq!((place("cpu"), place("memory"), place("freezer")), (Some("/b:c"), Some("/a"), None));
        assert_eq!(hybrid.freezer().and_then(|h| h.place_in(text)), Some("/user.slice/x"));
        // A bind mount of a part shows only that.
        let part = "30 23 0:26 /part /mnt rw - cgroup2 cgroup2 rw";
        let part = Layout::parse(part, |_| String::new());
        let dir = |at: &str| part.freezer().and_then(|h| h.dir(at));
        assert_eq!(dir("/part/x"), Some("/mnt/x".into()));
        assert_eq!((dir("/party"), dir("/other"), dir("/part/../x")), (None, None, None));
    }

    #[test]
    fn containers() {
        let id = "0123456789abcdef".repeat(4);
        for cgroup in [
            format!("/docker/{id}"),
            format!("/system.slice/docker-{id}.scope"),
            "/kubepods.slice/kubepods-pod1.slice/cri-containerd-x.scope".into(),
            "/lxc/box".into(),
            "/machine.slice/machine-deb.scope".into(),
            format!("/user.slice/user@1000.service/libpod-{id}.scope/container"),
        ] {
            assert!(is_container(&cgroup), "{cgroup}");
        }
        for cgroup in
            ["/", "/user.slice/user-1000.slice/session-3.scope", "/system.slice/docker.service", "/docker"]
        {
            assert!(!is_container(cgroup), "{cgroup}");
        }
    }
}
