//! Who a server is: name, package, entry point and its digest, client, roots.
//!
//! Everything is found through `/proc/PID` of the processes themselves, so that a server in a
//! container or a chroot is seen as it sees itself. Processes end at any time, and files are
//! written by those who are watched: what cannot be had is left out, nothing is an error.
//!
//! The digest is that of the *entry-point file*. For a Python console script that is the script
//! in `bin/`, for `python -m` the module's file, for npm what the link in `.bin` leads to. It does
//! not cover what the entry point imports; the version (a claim) is what tells of that. A server
//! without such a file (`node -e`, a rewritten command line) has no digest, and a baseline is
//! never granted to it: the interpreter's digest would stand for any code.
//!
//! [`resolve`] reads up to 256 MB and lists directories: call it off the event loop.
//!
//! # Layout
//!
//! - `process`: `/proc/PID`.
//! - `inside`: files as the process sees them.
//! - `entry`: command line to entry point.
//! - `package`, `pypi`: entry point to package.
//! - `launcher`: package from the command line.
//! - `container`: cgroup to container.

mod container;
mod entry;
mod inside;
mod launcher;
mod package;
mod process;
mod pypi;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use engine::input::{Identity, NameSource};
use entry::{Entry, Runtime};
use inside::{Found, Inside, printable};
use package::Package;
use process::Process;
use serde_json::Value;

use crate::clients::{self, Configured};

/// Largest script hashed: bundles have a few MB.
const MAX_SCRIPT: u64 = 64 << 20;
/// Largest executable hashed: single-file bundles of node or bun have 100 MB.
const MAX_EXECUTABLE: u64 = 256 << 20;
/// What the kernel or nobody owns: never a server's, even when it names it (`/dev/stdin`).
const NO_ROOTS: [&str; 3] = ["/proc", "/sys", "/dev"];
/// Roots kept, and arguments looked at for them.
const MAX_ROOTS: usize = 32;

/// Whose identity is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// Tree.
    pub(crate) tree: u64,
    /// Process that reads the channel: the leaf.
    pub(crate) tgid: u32,
    /// First process of the tree.
    pub(crate) root: u32,
    /// Client.
    pub(crate) client: u32,
}

/// Find out who a server is.
pub(crate) fn resolve(asked: &Asked, configured: &Configured) -> Identity {
    resolve_at(Path::new("/proc"), asked, configured)
}

fn resolve_at(proc: &Path, asked: &Asked, configured: &Configured) -> Identity {
    let mut identity = Identity { tree: asked.tree, tgid: asked.tgid, ..Identity::default() };
    let chain = Process::chain(proc, asked.tgid, asked.root);
    let argvs: Vec<Vec<String>> = chain.iter().map(Process::argv).collect();
    let client = Process::open(proc, asked.client);
    let client_exe = client.as_ref().and_then(|client| client.link("exe"));
    identity.client = client_exe.as_deref().and_then(printable);
    identity.client_pid = (asked.client != 0).then_some(asked.client);
    let Some(leaf) = chain.last() else {
        return identity;
    };

    identity.container = leaf.cgroups().as_deref().and_then(container::of);
    let uid = leaf.user();
    let home = uid.and_then(|uid| configured.home(uid));
    let server = Server::of(leaf, argvs.last().map(Vec::as_slice).unwrap_or_default(), home);
    // Without the leaf, what is left is the launcher: its script is not the server.
    let alive = leaf.pid == asked.tgid;
    if alive {
        identity.entry = server.entry_path();
        identity.digest = server.digest(leaf);
    }
    let own = if alive { server.package() } else { None };
    let package = own.or_else(|| launcher::package(&argvs));
    identity.package = package.as_ref().map(|package| package.id.clone());
    identity.version = package.as_ref().and_then(|package| package.version.clone());
    identity.roots = server.roots(package.as_ref());

    let client_words = client.as_ref().map(Process::argv).unwrap_or_default();
    let client_text = format!("{} {}", identity.client.as_deref().unwrap_or(""), client_words.join(" "));
    let named = uid.and_then(|uid| {
        let client_cwd = client.as_ref().and_then(|client| client.link("cwd"));
        let dirs: Vec<PathBuf> = client_cwd.iter().chain(&server.cwd).cloned().collect();
        let find = |configured: &Configured| {
            let found = configured.find_for(uid, &argvs, &client_text, &dirs)?;
            Some((package::claim(&found.name)?, printable(&found.file)))
        };
        find(configured).or_else(|| {
            // A project that no home directory names: where the client works, where the server.
            let places = [(asked.client, client_cwd.as_ref()), (asked.tgid, server.cwd.as_ref())];
            places.into_iter().find_map(|(pid, shown)| {
                let dir = proc.join(pid.to_string()).join("cwd");
                find(&clients::project(&dir, shown?, uid))
            })
        })
    });
    if let Some((name, config)) = named {
        (identity.name, identity.name_source) = (name, NameSource::ClientConfig);
        identity.config = config;
    } else if let Some(package) = &package {
        (identity.name, identity.name_source) = (package.id.clone(), NameSource::Package);
    } else {
        identity.name = server.stem(argvs.first().map(Vec::as_slice).unwrap_or_default());
    }
    identity
}

/// The process that is the server, as its own files show it.
struct Server<'a> {
    argv: &'a [String],
    inside: Option<Inside>,
    /// From its root.
    cwd: Option<PathBuf>,
    exe: Option<PathBuf>,
    home: Option<&'a Path>,
    runtime: Option<Runtime>,
    kind: Entry,
    /// The script or module, found.
    script: Option<Found>,
    sites: Option<pypi::Sites>,
}

impl<'a> Server<'a> {
    fn of(process: &Process, argv: &'a [String], home: Option<&'a Path>) -> Self {
        let inside = Inside::of(process);
        let inner = |name| {
            let link = process.link(name)?;
            Some(inside.as_ref().map_or_else(|| link.clone(), |inside| inside.inner(&link)))
        };
        let (cwd, exe) = (inner("cwd"), inner("exe"));
        let argv0 = argv.first().map(String::as_str).unwrap_or_default();
        let exe_name = exe.as_deref().and_then(Path::to_str).unwrap_or(argv0);
        // Desktop clients bring no node of their own: their Electron plays it.
        let electron = || process.variable("ELECTRON_RUN_AS_NODE").map(|_| Runtime::Node);
        let runtime = entry::runtime(exe_name, argv0).or_else(electron);
        let kind = entry::entry(runtime, argv);
        let mut server = Self { argv, inside, cwd, exe, home, runtime, kind, script: None, sites: None };
        server.script = server.find_script();
        if runtime == Some(Runtime::Python)
            && let Some(inside) = &server.inside
        {
            let script = server.script.as_ref().map(|found| found.path.as_path());
            let exe = server.exe.as_deref();
            let sites = pypi::Sites::of(inside, process, argv0, script, exe, home);
            if let Entry::Module { name, isolated } = &server.kind {
                let cwd = if *isolated { None } else { server.cwd.as_deref() };
                let file = sites.module(inside, name, cwd);
                server.script = file.and_then(|file| inside.file(&file));
            }
            server.sites = Some(sites);
        }
        server
    }

    /// The script, where its interpreter would find it.
    fn find_script(&self) -> Option<Found> {
        let Entry::Script(path) = &self.kind else {
            return None;
        };
        let path = self.absolute(path)?;
        let inside = self.inside.as_ref()?;
        let found = inside.look(&path)?;
        if found.is_file() {
            return Some(found);
        }
        // Directories run by their index.
        found.is_dir().then_some(())?;
        let manifest = inside.text(&found.path.join("package.json"), MAX_SCRIPT);
        let manifest = manifest.and_then(|text| serde_json::from_str::<Value>(&text).ok());
        let main =
            manifest.and_then(|manifest| inside.file(&found.path.join(manifest.get("main")?.as_str()?)));
        let index = ["__main__.py", "index.js", "index.mjs", "index.ts"];
        main.or_else(|| index.iter().find_map(|name| inside.file(&found.path.join(name))))
    }

    fn absolute(&self, path: &str) -> Option<PathBuf> {
        match &self.cwd {
            Some(cwd) => Some(cwd.join(path)),
            None => Path::new(path).is_absolute().then(|| PathBuf::from(path)),
        }
    }

    fn entry_path(&self) -> Option<String> {
        match self.kind {
            Entry::Program => self.exe.as_deref().and_then(printable),
            _ => self.script.as_ref().and_then(|found| printable(&found.path)),
        }
    }

    fn digest(&self, process: &Process) -> Option<String> {
        match self.kind {
            Entry::Program => inside::digest(process.executable()?, MAX_EXECUTABLE),
            _ => inside::digest(self.script.as_ref()?.open()?, MAX_SCRIPT),
        }
    }

    fn package(&self) -> Option<Package> {
        let inside = self.inside.as_ref()?;
        let script = self.script.as_ref().map(|found| found.path.as_path());
        match (&self.kind, self.runtime) {
            (Entry::Program, _) => package::npm(inside, self.exe.as_deref()?, false),
            (Entry::Package(spec), _) => launcher::npm(spec.strip_prefix("npm:")?),
            (_, Some(Runtime::Node | Runtime::Bun | Runtime::Deno)) => package::npm(inside, script?, true),
            (Entry::Module { name, .. }, _) => {
                // A module of the working directory is of no distribution, whatever its name.
                let local = self.cwd.as_deref().is_some_and(|cwd| {
                    script.is_some_and(|script| script.starts_with(cwd) && !installed(script))
                });
                if local { None } else { self.sites.as_ref()?.of_module(inside, name) }
            }
            (_, Some(Runtime::Python)) => {
                let (sites, script) = (self.sites.as_ref()?, script?);
                if installed(script) {
                    return sites.of_file(inside, script);
                }
                let in_bin = script.parent().is_some_and(|dir| dir.ends_with("bin"));
                in_bin.then(|| sites.of_script(inside, script)).flatten()
            }
            _ => None,
        }
    }

    /// Directories and files that belong to the server. `/` belongs to nobody.
    fn roots(&self, package: Option<&Package>) -> Vec<String> {
        let mut roots = Vec::new();
        let mut add = |path: &Path| {
            let foreign = path.parent().is_none() || NO_ROOTS.iter().any(|no| path.starts_with(no));
            let text = printable(path).filter(|text| !foreign && !roots.contains(text));
            if roots.len() < MAX_ROOTS {
                roots.extend(text);
            }
        };
        if let Some(dir) = package.and_then(|package| package.dir.as_deref()) {
            add(dir);
        }
        for arg in self.argv.iter().skip(1).take(MAX_ROOTS * 2) {
            // `--root=/data` names a directory as `/data` does.
            let path = match arg.split_once('=') {
                Some((flag, value)) if flag.starts_with('-') => value,
                _ => arg,
            };
            // A bare word is a word, even if the directory has a file of that name.
            let pathlike = path.contains('/') || path.starts_with('.');
            let found = pathlike.then(|| self.absolute(path)).flatten();
            let found = found.and_then(|path| self.inside.as_ref()?.look(&path));
            if let Some(found) = found.filter(|found| found.is_dir() || found.is_file()) {
                add(&found.path);
            }
        }
        self.home.into_iter().chain(self.cwd.as_deref()).for_each(add);
        roots
    }

    /// A name for want of a better one.
    fn stem(&self, first: &[String]) -> String {
        let module = match &self.kind {
            Entry::Module { name, .. } => Some(name.as_str()),
            _ => None,
        };
        let file = match self.kind {
            Entry::Program | Entry::Unknown => self.exe.as_deref(),
            _ => self.script.as_ref().map(|found| found.path.as_path()),
        };
        let stem = file.and_then(|file| match self.kind {
            // `server-1.2` is no stem and extension.
            Entry::Program => file.file_name(),
            _ => file.file_stem(),
        });
        let word = first.first().map(|word| clients::basename(word));
        let stem = stem.and_then(std::ffi::OsStr::to_str);
        module.or(stem).or(word).and_then(package::claim).unwrap_or_default()
    }
}

/// Whether a file came with a distribution.
fn installed(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str() == "site-packages" || part.as_os_str() == "dist-packages")
}
