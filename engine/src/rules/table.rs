//! The acts of one rule, ready for matching.

use super::{
    glob::{PathPattern, PathView},
    names::NameGlob,
    net::Destination,
    value::At,
};
use crate::{
    act::{Access, Act},
    output::SyscallAbi,
};

/// Which part of a rule a pattern stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Allow,
    Deny,
    /// By its index.
    Exception(u16),
}

impl Part {
    fn denies(self) -> bool {
        self == Self::Deny
    }
}

/// A pattern, its part, its text and its place.
#[derive(Clone, Debug)]
pub(super) struct Entry<P> {
    pub(super) pattern: P,
    pub(super) part: Part,
    pub(super) text: Box<str>,
    pub(super) at: At,
}

/// What a rule can speak about: rules are looked up by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Read,
    Write,
    Delete,
    Change,
    Connect,
    Listen,
    Dns,
    Exec,
    Unix,
    UnixListen,
    Syscall,
    Uring,
}

/// Number of slots.
pub(super) const SLOTS: usize = 12;

impl Slot {
    pub(super) const ALL: [Self; SLOTS] = [
        Self::Read,
        Self::Write,
        Self::Delete,
        Self::Change,
        Self::Connect,
        Self::Listen,
        Self::Dns,
        Self::Exec,
        Self::Unix,
        Self::UnixListen,
        Self::Syscall,
        Self::Uring,
    ];

    pub(super) fn of(act: &Act<'_>) -> Self {
        match act {
            Act::File { access: Access::Read, .. } => Self::Read,
            Act::File { access: Access::Write, .. } => Self::Write,
            Act::File { access: Access::Delete, .. } => Self::Delete,
            Act::File { access: Access::Change, .. } => Self::Change,
            Act::Connect { .. } => Self::Connect,
            Act::Listen { .. } => Self::Listen,
            Act::Dns { .. } | Act::Sni { .. } => Self::Dns,
            Act::Exec { .. } => Self::Exec,
            Act::Unix { listen: false, .. } => Self::Unix,
            Act::Unix { listen: true, .. } => Self::UnixListen,
            Act::Syscall { .. } | Act::Special { .. } => Self::Syscall,
            Act::Uring { .. } => Self::Uring,
        }
    }

    /// As in a rule file.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Read => "files.read",
            Self::Write => "files.write",
            Self::Delete => "files.delete",
            Self::Change => "files.change",
            Self::Connect => "network.connect",
            Self::Listen => "network.listen",
            Self::Dns => "network.dns",
            Self::Exec => "exec.paths",
            Self::Unix => "unix",
            Self::UnixListen => "unix_listen",
            Self::Syscall => "syscalls",
            Self::Uring => "io_uring",
        }
    }
}

/// Programs of one section.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) part: Part,
    pub(super) paths: Vec<Entry<PathPattern>>,
    pub(super) args: Vec<NameGlob>,
    pub(super) memfd: bool,
    pub(super) deleted: bool,
}

/// System calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Syscalls {
    /// `None`: of every table.
    pub(super) abi: Option<SyscallAbi>,
    /// `None`: all of them.
    pub(super) name: Option<Box<str>>,
    pub(super) x86_64: Option<u32>,
    pub(super) i386: Option<u32>,
}

/// The acts of one rule.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) paths: [Vec<Entry<PathPattern>>; SLOTS],
    pub(super) peers: [Vec<Entry<Destination>>; 2],
    pub(super) dns: Vec<Entry<NameGlob>>,
    pub(super) exec: Vec<Programs>,
    pub(super) syscalls: Vec<Entry<Syscalls>>,
    pub(super) uring: Vec<Entry<NameGlob>>,
}

impl Table {
    pub(super) fn peers(&self, slot: Slot) -> &[Entry<Destination>] {
        let [connect, listen] = &self.peers;
        if slot == Slot::Connect { connect } else { listen }
    }

    pub(super) fn paths(&self, slot: Slot) -> &[Entry<PathPattern>] {
        self.paths.get(slot as usize).map_or(&[], Vec::as_slice)
    }

    pub(super) fn has(&self, slot: Slot) -> bool {
        match slot {
            Slot::Connect | Slot::Listen => !self.peers(slot).is_empty(),
            Slot::Dns => !self.dns.is_empty(),
            Slot::Exec => !self.exec.is_empty(),
            Slot::Syscall => !self.syscalls.is_empty(),
            Slot::Uring => !self.uring.is_empty(),
            _ => !self.paths(slot).is_empty(),
        }
    }

    /// Calls `f` with each pattern that matches, unknowns of a server left out.
    pub(super) fn each<'a>(
        &'a self,
        act: &Act<'_>,
        view: Option<&PathView<'_>>,
        f: &mut impl FnMut(Hit<'a>),
    ) {
        match act {
            Act::File { .. } => self.each_path(Slot::of(act), view, f),
            Act::Unix { path, .. } => {
                let slot = Slot::of(act);
                for entry in self.paths(slot) {
                    if entry.pattern.name.as_ref().is_some_and(|name| name.matches(path)) {
                        f(entry.hit());
                    }
                }
                self.each_path(slot, view, f);
            }
            Act::Connect { address, name, port, protocol } => {
                for e in self.peers(Slot::Connect) {
                    if e.pattern.matches(*address, *name, *port, protocol, e.part.denies()) {
                        f(Hit { by_name: e.pattern.is_name(), ..e.hit() });
                    }
                }
            }
            Act::Listen { address, port, protocol } => {
                for e in self.peers(Slot::Listen) {
                    if e.pattern.matches(*address, None, *port, protocol, e.part.denies()) {
                        f(e.hit());
                    }
                }
            }
            Act::Dns { name, .. } => each_entry(&self.dns, |p, _| p.matches_host(name), f),
            // Anyone can write any name into a handshake: it may be held against a server, never for it.
            Act::Sni { name, .. } => {
                each_entry(&self.dns, |p, part| part.denies() && p.matches_host(name), f);
            }
            Act::Exec { .. } => {
                for programs in &self.exec {
                    programs.each(act, f);
                }
            }
            Act::Syscall { abi, nr } => {
                each_entry(&self.syscalls, |p, part| p.matches(*abi, *nr, part), f);
            }
            Act::Special { name, .. } => {
                each_entry(&self.syscalls, |p, part| p.matches_special(name, part), f);
            }
            Act::Uring { name } => each_entry(&self.uring, |p, _| p.matches(name), f),
        }
    }

    /// Calls `f` with every pattern.
    pub(super) fn each_pattern<'a>(&'a self, f: &mut impl FnMut(Hit<'a>)) {
        let Self { paths, peers, dns, exec, syscalls, uring } = self;
        paths.iter().flatten().for_each(|e| f(e.hit()));
        peers.iter().flatten().for_each(|e| f(e.hit()));
        dns.iter().for_each(|e| f(e.hit()));
        syscalls.iter().for_each(|e| f(e.hit()));
        uring.iter().for_each(|e| f(e.hit()));
        exec.iter().flat_map(|p| &p.paths).for_each(|e| f(e.hit()));
    }

    fn each_path<'a>(&'a self, slot: Slot, view: Option<&PathView<'_>>, f: &mut impl FnMut(Hit<'a>)) {
        let Some(view) = view else { return };
        for entry in self.paths(slot) {
            let cut = entry.part.denies();
            if entry.pattern.globs.iter().any(|g| g.matches(view, cut)) {
                f(entry.hit());
            }
        }
    }
}

/// A pattern that matched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit<'a> {
    pub(super) part: Part,
    pub(super) text: &'a str,
    pub(super) at: At,
    /// It is about a peer's name.
    pub(super) by_name: bool,
}

impl<P> Entry<P> {
    pub(super) fn hit(&self) -> Hit<'_> {
        Hit { part: self.part, text: &self.text, at: self.at, by_name: false }
    }
}

fn each_entry<'a, P>(
    entries: &'a [Entry<P>],
    matches: impl Fn(&P, Part) -> bool,
    f: &mut impl FnMut(Hit<'a>),
) {
    for entry in entries {
        if matches(&entry.pattern, entry.part) {
            f(entry.hit());
        }
    }
}

impl Programs {
    /// Calls `f` once when this section speaks about the program.
    fn each<'a>(&'a self, act: &Act<'_>, f: &mut impl FnMut(Hit<'a>)) {
        let Act::Exec { file, script, memfd, deleted, .. } = act else { return };
        let flagged = (self.memfd && *memfd) || (self.deleted && *deleted);
        if flagged && (self.part.denies() || self.paths.is_empty()) && self.fits(act) {
            let text = if self.memfd && *memfd { "exec.memfd" } else { "exec.deleted" };
            return f(Hit { part: self.part, text, at: At::default(), by_name: false });
        }
        if !self.fits(act) {
            return;
        }
        if self.paths.is_empty() && !self.args.is_empty() && self.part.denies() {
            return f(Hit { part: self.part, text: "exec.args", at: At::default(), by_name: false });
        }
        let views = [Some(PathView::new(file)), script.map(PathView::new)];
        for entry in &self.paths {
            if self.is_about(&views, |view, cut| entry.pattern.globs.iter().any(|g| g.matches(view, cut))) {
                return f(entry.hit());
            }
        }
    }

    /// Whether its other conditions hold.
    pub(super) fn fits(&self, act: &Act<'_>) -> bool {
        let Act::Exec { argv, memfd, deleted, .. } = act else { return false };
        let mut args = argv.iter().skip(1);
        let matches = |arg: &String| self.args.iter().any(|glob| glob.matches(arg));
        if self.part.denies() {
            let only_flags = self.paths.is_empty() && self.args.is_empty();
            return (self.args.is_empty() || args.any(matches))
                && (!only_flags || (self.memfd && *memfd) || (self.deleted && *deleted));
        }
        (self.args.is_empty() || args.all(matches))
            && (self.memfd || !*memfd)
            // A program from memory has no name by nature.
            && (self.deleted || !*deleted || *memfd)
    }

    /// What is permitted is the script, or the program where there is none; what is forbidden is
    /// either.
    pub(super) fn is_about(
        &self,
        [file, script]: &[Option<PathView<'_>>; 2],
        matches: impl Fn(&PathView<'_>, bool) -> bool,
    ) -> bool {
        if self.part.denies() {
            file.iter().chain(script).any(|view| matches(view, true))
        } else {
            script.as_ref().or(file.as_ref()).is_some_and(|view| matches(view, false))
        }
    }
}

impl Syscalls {
    fn matches(&self, abi: SyscallAbi, nr: u32, part: Part) -> bool {
        if self.abi.is_some_and(|own| own != abi) {
            return false;
        }
        if self.name.is_none() {
            return true;
        }
        let own = match abi {
            SyscallAbi::X86_64 => self.x86_64,
            SyscallAbi::I386 => self.i386,
        };
        // One that has a record of its own is told once, with its result. That record does not say
        // which table: a rule for one table has to look here.
        let told = self.abi != Some(SyscallAbi::I386) && has_own_record(abi, nr) && part.denies();
        own == Some(nr) && !told
    }

    fn matches_special(&self, name: &str, part: Part) -> bool {
        let table = !part.denies() || self.abi != Some(SyscallAbi::I386);
        table && self.name.as_deref() == Some(name)
    }

    /// Whether everything that `other` matches is matched.
    pub(super) fn covers(&self, other: &Self) -> bool {
        (self.abi.is_none() || self.abi == other.abi) && (self.name.is_none() || self.name == other.name)
    }
}

fn has_own_record(abi: SyscallAbi, nr: u32) -> bool {
    !crate::text::special_name(abi == SyscallAbi::I386, nr).starts_with("syscall_")
}
