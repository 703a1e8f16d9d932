//! Enforcement that outlives the agent: links and maps pinned into a bpf file system.
//!
//! ```text
//! DIR/LAYOUT/maps/NAME             state that the programs share from agent to agent
//! DIR/LAYOUT/links/TERM/PROGRAM-ID links of the agent of that term
//! ```
//!
//! While a policy is loaded, or a tree is held or cut, what that rests on is pinned: the verdicts at the root of the cgroup hierarchy, the
//! lifecycle programs (a child that is born while no agent runs belongs to its tree), what BPF LSM denies, and, while a tree is tracked, the
//! program that follows calls. When the agent is gone, all that goes on; only the records have no reader.
//!
//! The next agent opens the maps, loads its own programs onto them, attaches and pins those beside the old ones, writes its *term*, and then takes the
//! old ones away. Verdicts may run twice meanwhile: either denies. What follows channels runs in one term only ([`abi::policy::Term`]).
//! It may be killed at any of these steps: whoever comes next finds the maps, and links of one or two terms.
//!
//! # Layout
//! - [`dir`]: the directory
//! - [`shape`]: which maps, and what they look like
//! - [`inherit`]: trees that an agent before this one held
//! - [`older`]: pins of another layout
//! - this module: what is pinned now

pub(crate) mod dir;
mod inherit;
mod older;
mod shape;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use abi::policy::Term;
use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, Map, MapData},
};

use super::{Kernel, hooks, links};
use dir::Dir;
pub(crate) use older::{listed, uncut};

const MAPS: &str = "maps";
const LINKS: &str = "links";
/// Where pins of the agent with the usual state directory are.
const DEFAULT: &str = "/sys/fs/bpf/toolwarden";
/// Where the pins of an agent with this state directory are: pins belong to a state.
pub(crate) fn default_dir(state_dir: &Path) -> PathBuf {
    if state_dir == Path::new("/var/lib/toolwarden") {
        return DEFAULT.into();
    }
    let name = std::path::absolute(state_dir).unwrap_or_else(|_| state_dir.to_owned());
    let hash = abi::scan::fnv(name.as_os_str().as_encoded_bytes());
    format!("{DEFAULT}-{hash:016x}").into()
}

/// Directories that agents pin into unless told otherwise.
pub(crate) fn places() -> Vec<PathBuf> {
    let usual = Path::new(DEFAULT);
    let (Some(above), Some(prefix)) = (usual.parent(), usual.file_name().and_then(|n| n.to_str())) else {
        return Vec::new();
    };
    let names = dir::layouts(above).into_iter();
    names.filter(|n| n.starts_with(prefix)).map(|n| above.join(n)).collect()
}

/// What is pinned.
pub(crate) struct Pins {
    path: PathBuf,
    layout: String,
    /// This agent's.
    pub(super) term: u32,
    /// There once something is pinned.
    dir: Option<Dir>,
    /// All maps of [`shape::STATE`].
    maps: Vec<(&'static str, MapData)>,
    /// They were there already.
    pub(super) adopted: bool,
    pinned: bool,
    /// Pinned links of this agent: program and link.
    links: BTreeMap<&'static str, u32>,
    older: Vec<older::Older>,
    /// What could not be pinned was told.
    told: bool,
    /// From when to when no agent ran.
    pub(super) down_ns: Option<(u64, u64)>,
}

impl Pins {
    /// Looks what an agent before this one pinned. Pins that cannot be trusted are an error.
    pub(super) fn look(path: &Path) -> Result<Self> {
        let layout = shape::layout();
        let mut pins = Self {
            path: path.to_owned(),
            layout: layout.clone(),
            term: 0,
            dir: Dir::open(path)?,
            maps: Vec::new(),
            adopted: false,
            pinned: false,
            links: BTreeMap::new(),
            older: Vec::new(),
            told: false,
            down_ns: None,
        };
        let Some(dir) = &pins.dir else { return Ok(pins) };
        for found in dir.layouts().into_iter().filter(|l| *l != layout) {
            pins.older.push(older::Older::read(dir.at(&found)));
        }
        let at = dir.at(&layout);
        let maps = at.join(MAPS);
        let complete = shape::STATE.iter().all(|s| maps.join(s.name).exists());
        if complete {
            for shape in &shape::STATE {
                let wrong = || {
                    format!(
                        "{} cannot be adopted: look who changed it, and remove {}",
                        path.display(),
                        at.display()
                    )
                };
                let map = MapData::from_pin(maps.join(shape.name)).with_context(wrong)?;
                shape.check(&map).with_context(wrong)?;
            }
            let term = read_term(&maps.join("TERM"))?;
            let pinned = dir::names(&at.join(LINKS)).iter().filter_map(|n| n.parse().ok()).max().unwrap_or(0);
            pins.term = u32::try_from(term.term).unwrap_or(0).max(pinned).wrapping_add(1);
            pins.down_ns = Some((term.seen_ns, crate::run::now_ns()));
            (pins.adopted, pins.pinned) = (true, true);
        } else if !dir::names(&at.join(LINKS)).is_empty() {
            // Somebody took a map away. The programs know it still: they go on as those of another layout do.
            let aside = dir.at(&format!("{layout}x{:x}", crate::run::now_ns()));
            fs::rename(&at, &aside).with_context(|| format!("cannot rename {}", at.display()))?;
            pins.older.push(older::Older::read(aside));
        } else if at.exists() {
            // An agent was killed while it pinned the maps, before the links, or while it took them away, after the links.
            dir::remove_layout(&at)?;
        }
        Ok(pins)
    }

    /// Maps that the programs are to be loaded onto.
    pub(super) fn onto(&self) -> Vec<(&'static str, PathBuf)> {
        let maps = self.path.join(&self.layout).join(MAPS);
        if !self.adopted {
            return Vec::new();
        }
        shape::STATE.iter().map(|s| (s.name, maps.join(s.name))).collect()
    }

    /// Keeps hold of the maps.
    pub(super) fn hold(&mut self, ebpf: &Ebpf) -> Result<()> {
        for shape in &shape::STATE {
            let map =
                ebpf.map(shape.name).with_context(|| format!("the BPF object has no map {}", shape.name))?;
            let (Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data) | Map::LpmTrie(data)) = map
            else {
                anyhow::bail!("map {} is of another type", shape.name);
            };
            let fd =
                std::os::fd::AsFd::as_fd(data.fd()).try_clone_to_owned().context("too many descriptors")?;
            let data = MapData::from_fd(fd)?;
            shape.check(&data)?;
            self.maps.push((shape.name, data));
        }
        Ok(())
    }

    fn own_links(&self) -> PathBuf {
        self.path.join(&self.layout).join(LINKS).join(self.term.to_string())
    }

    fn pin_maps(&mut self) -> Result<()> {
        if self.pinned {
            return Ok(());
        }
        let dir = match self.dir.take() {
            Some(dir) => dir,
            None => Dir::make(&self.path)?,
        };
        let layout = self.dir.insert(dir).at(&self.layout);
        if layout.exists() {
            // An attempt that failed half-way.
            dir::remove_layout(&layout)?;
        }
        let maps = layout.join(MAPS);
        dir::make_dir(&maps)?;
        for (name, map) in &self.maps {
            dir::pin(std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(map.fd())), &maps.join(name))?;
        }
        self.pinned = true;
        Ok(())
    }

    /// Pins these links, and no others any more.
    fn pin_links(&mut self, wanted: &BTreeMap<&'static str, links::Link>) -> Result<()> {
        let at = self.own_links();
        dir::make_dir(&at)?;
        for (program, link) in wanted {
            if self.links.get(program) == Some(&link.id) {
                continue;
            }
            dir::pin(link.fd, &at.join(format!("{program}-{}", link.id)))?;
            if let Some(old) = self.links.insert(program, link.id) {
                unpin(&at, program, old)?;
            }
        }
        let gone: Vec<&str> = self.links.keys().filter(|p| !wanted.contains_key(*p)).copied().collect();
        for program in gone {
            if let Some(old) = self.links.remove(program) {
                unpin(&at, program, old)?;
            }
        }
        Ok(())
    }

    /// Links of other terms have done their work.
    fn drop_others(&self) -> Result<()> {
        let links = self.path.join(&self.layout).join(LINKS);
        for name in dir::names(&links).into_iter().filter(|n| *n != self.term.to_string()) {
            let old = links.join(name);
            fs::remove_dir_all(&old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
        Ok(())
    }

    /// Nothing outlives this agent any more.
    fn remove(&mut self) -> Result<()> {
        self.links.clear();
        self.pinned = false;
        let Some(dir) = self.dir.take() else { return Ok(()) };
        if self.older.is_empty() {
            return dir.remove();
        }
        let own = dir.at(&self.layout);
        self.dir = Some(dir);
        if own.exists() { dir::remove_layout(&own) } else { Ok(()) }
    }

    fn term_map(&self) -> Result<Array<MapData, Term>> {
        let map = self.maps.iter().find(|(name, _)| *name == "TERM").context("no map TERM")?;
        let fd = std::os::fd::AsFd::as_fd(map.1.fd()).try_clone_to_owned()?;
        Ok(Array::try_from(Map::Array(MapData::from_fd(fd)?))?)
    }

    /// This agent's programs are at work, and it lives.
    fn live(&self, now_ns: u64) -> Result<()> {
        let term = Term { term: u64::from(self.term), seen_ns: now_ns };
        self.term_map()?.set(0, term, 0).context("cannot say which programs are at work")
    }
}

fn unpin(at: &Path, program: &str, link: u32) -> Result<()> {
    let path = at.join(format!("{program}-{link}"));
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
}

fn read_term(path: &Path) -> Result<Term> {
    let map = Array::<_, Term>::try_from(Map::Array(MapData::from_pin(path)?))?;
    map.get(&0, 0).context("cannot read which agent was at work")
}

impl Kernel {
    /// Puts this agent's programs in the place of those that were pinned.
    pub(super) fn succeed(&mut self) -> Result<()> {
        let Some(pins) = &self.pins else { return Ok(()) };
        if pins.adopted {
            self.attach_syscalls()?;
        }
        let now_ns = crate::run::now_ns();
        let Some(pins) = &mut self.pins else { return Ok(()) };
        if pins.adopted {
            let wanted = wanted(&self.ebpf)?;
            pins.pin_links(&wanted)?;
            pins.live(now_ns)?;
            pins.drop_others()?;
        }
        Ok(())
    }

    /// Pins what is to outlive the agent, and nothing else.
    pub(crate) fn sync_pins(&mut self) {
        let outlives = self.policy.rests();
        let Some(pins) = &mut self.pins else { return };
        let fresh = outlives && !pins.pinned;
        let done = match outlives {
            true => pins.pin_maps().and_then(|()| wanted(&self.ebpf)).and_then(|w| pins.pin_links(&w)),
            false if pins.pinned => pins.remove(),
            false => Ok(()),
        };
        if fresh {
            let at = pins.path.clone();
            if let Err(e) = self.guard_files(&[at]) {
                tracing::warn!("servers may change what is pinned: {e:#}");
            }
        }
        let Some(pins) = &mut self.pins else { return };
        match done {
            Ok(()) => pins.told = false,
            Err(e) if !pins.told => {
                pins.told = true;
                tracing::error!("what is denied is denied while the agent runs only: {e:#}");
            }
            Err(_) => {}
        }
    }

    /// The same, when hooks come or go while something is pinned.
    pub(super) fn sync_pins_if_any(&mut self) {
        if self.pins.as_ref().is_some_and(|p| p.pinned && !p.links.is_empty()) {
            self.sync_pins();
        }
    }

    /// Called several times a second: says that the agent lives, and takes away what nobody needs any more.
    pub(crate) fn tend_pins(&mut self, now_ns: u64) {
        if let Some(pins) = &self.pins
            && pins.pinned
            && let Err(e) = pins.live(now_ns)
        {
            tracing::warn!("{e:#}");
        }
        self.drop_older();
        let Some(pins) = &self.pins else { return };
        if pins.pinned != self.policy.rests() {
            self.sync_pins();
        }
    }

    /// Nothing is to outlive the agent.
    pub(crate) fn unpin(&mut self) -> Result<()> {
        let Some(pins) = &mut self.pins else { return Ok(()) };
        pins.older.clear();
        pins.remove()
    }
}

/// Links that are to be pinned, as they are now.
fn wanted(ebpf: &Ebpf) -> Result<BTreeMap<&'static str, links::Link>> {
    let all = links::own()?;
    let link = |name: &'static str| {
        let id = ebpf.program(name)?.info().ok()?.id();
        all.iter().find(|l| l.program == id && l.attached).map(|l| (name, *l))
    };
    Ok(hooks::outliving().filter_map(link).collect())
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // An agent that could not start, or ends by an error, leaves behind what trees are held by, and nothing else.
        let holds = self.policy.holds();
        if !self.keep
            && !holds
            && let Err(e) = self.unpin()
        {
            tracing::warn!("{e:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_belong_to_a_state() {
        let usual = default_dir(Path::new("/var/lib/toolwarden"));
        assert_eq!(usual, Path::new("/sys/fs/bpf/toolwarden"));
        let (a, b) = (default_dir(Path::new("/tmp/a")), default_dir(Path::new("/tmp/b")));
        assert!(a != b && a.starts_with("/sys/fs/bpf") && a != usual);
    }
}
