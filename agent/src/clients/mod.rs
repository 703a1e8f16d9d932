//! The MCP servers that clients on this host are configured to start.
//!
//! Every file here is written by users, so each is opened without following a link, read up to a
//! cap, and parsed to plain data; what cannot be read becomes a [`Problem`] and the rest goes on.
//! Names and commands found here are *claims*: they name a server, they grant it nothing.
//! Environments are never kept: they hold the keys to everything.
//!
//! # Layout
//!
//! - `table`: which client keeps what where.
//! - `executables`: which programs are clients.
//! - `homes`: whose files to look at.
//! - `read`: opening hostile files.
//! - `parse`, `jsonc`: bytes to servers.
//! - `matching`: which configured server a chain of processes is.

mod executables;
mod homes;
mod jsonc;
mod matching;
mod parse;
mod read;
mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

pub(crate) use executables::known_client;
pub(crate) use homes::{Home, homes};
pub(crate) use matching::basename;
use parse::Shape;
use table::{Place, Under};

/// The user of a system-wide file: everybody. `(uid_t)-1` is never a user.
pub(crate) const ANY_USER: u32 = u32::MAX;

/// Files read in one discovery: far above any real host (a user has a dozen), so only a flood
/// reaches it.
const MAX_FILES: usize = 4096;
/// Servers kept in one discovery.
const MAX_SERVERS: usize = 4096;
/// Project directories looked at for one user.
const MAX_PROJECTS: usize = 256;
/// Problems kept; beyond that they say nothing new.
const MAX_PROBLEMS: usize = 256;

/// A server as a client's configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfiguredServer {
    /// Name that the user gave it.
    pub(crate) name: String,
    /// Whose configuration it is, such as `Claude Code`.
    pub(crate) client: &'static str,
    /// File that says so.
    pub(crate) file: PathBuf,
    /// User whose file it is, or [`ANY_USER`].
    pub(crate) uid: u32,
    /// Project that it is for, if not for all.
    pub(crate) project: Option<PathBuf>,
    /// Command as written.
    pub(crate) command: String,
    /// Arguments as written: `${VAR}` is not expanded.
    pub(crate) args: Vec<String>,
}

/// A file that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Which.
    pub(crate) file: PathBuf,
    /// Why. Never holds text of the file.
    pub(crate) reason: String,
}

/// All that was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Configured {
    /// Servers, in the order of discovery.
    pub(crate) servers: Vec<ConfiguredServer>,
    /// Files that could not be used.
    pub(crate) problems: Vec<Problem>,
    /// Home directories, for those who ask later.
    homes: Vec<Home>,
    /// Files read so far.
    files: usize,
}

impl Configured {
    /// Home directory of a user.
    pub(crate) fn home(&self, uid: u32) -> Option<&Path> {
        self.homes.iter().find(|home| home.uid == uid).map(|home| home.dir.as_path())
    }

    /// Which configured server a chain of processes is: their command lines, root first.
    #[cfg(test)]
    pub(crate) fn find(&self, uid: u32, argvs: &[Vec<String>]) -> Option<&ConfiguredServer> {
        matching::best(&self.servers, uid, argvs, &matching::Hints::default())
    }

    /// As [`find`](Self::find). Where several clients configure the same command, the one that
    /// `client` (its executable or command line) points at wins, then the one for a project in
    /// `dirs`.
    pub(crate) fn find_for(
        &self,
        uid: u32,
        argvs: &[Vec<String>],
        client: &str,
        dirs: &[PathBuf],
    ) -> Option<&ConfiguredServer> {
        matching::best(&self.servers, uid, argvs, &matching::Hints { client, dirs })
    }

    fn problem(&mut self, file: &Path, reason: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { file: file.to_path_buf(), reason: reason.into() });
        }
    }

    /// Read one file and keep its servers and the projects that it names.
    fn take(&mut self, source: &Source, projects: &mut BTreeSet<PathBuf>) {
        if self.files >= MAX_FILES {
            if self.files == MAX_FILES {
                self.files += 1;
                self.problem(&source.shown, format!("not read: more than {MAX_FILES} files"));
            }
            return;
        }
        let bytes = match read::read(&source.file, source.uid) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return,
            Err(reason) => return self.problem(&source.shown, reason),
        };
        self.files += 1;
        let parsed = match parse::parse(source.shape, &bytes) {
            Ok(parsed) => parsed,
            Err(reason) => return self.problem(&source.shown, reason),
        };
        for entry in parsed.entries {
            if self.servers.len() >= MAX_SERVERS {
                self.problem(&source.shown, format!("more than {MAX_SERVERS} servers"));
                break;
            }
            self.servers.push(ConfiguredServer {
                name: entry.name,
                client: source.client,
                file: source.shown.clone(),
                uid: source.uid,
                project: entry.project.or_else(|| source.project.cloned()),
                command: entry.command,
                args: entry.args,
            });
        }
        for project in parsed.projects {
            if projects.len() < MAX_PROJECTS {
                projects.insert(project);
            }
        }
    }
}

/// One file to read.
struct Source<'a> {
    client: &'static str,
    shape: Shape,
    /// Path to open.
    file: PathBuf,
    /// Path to report: the same, unless it is opened through `/proc/PID/cwd`.
    shown: PathBuf,
    uid: u32,
    project: Option<&'a PathBuf>,
}

impl Source<'_> {
    fn of<'a>(place: &Place, file: PathBuf, uid: u32, project: Option<&'a PathBuf>) -> Source<'a> {
        Source { client: place.client, shape: place.shape, shown: file.clone(), file, uid, project }
    }
}

/// Read the configuration of all clients of these users, and the system-wide ones.
pub(crate) fn discover(homes: &[Home]) -> Configured {
    discover_at(Path::new("/"), homes)
}

fn discover_at(system: &Path, homes: &[Home]) -> Configured {
    let mut found = Configured { homes: homes.to_vec(), ..Configured::default() };
    let mut projects = BTreeSet::new();
    for place in table::PLACES.iter().filter(|place| place.under == Under::System) {
        for file in read::expand(system, place.path, place.depth) {
            found.take(&Source::of(place, file, ANY_USER, None), &mut projects);
        }
    }
    for home in homes {
        let mut projects = BTreeSet::new();
        for place in table::PLACES.iter().filter(|place| place.under == Under::Home) {
            for file in read::expand(&home.dir, place.path, place.depth) {
                found.take(&Source::of(place, file, home.uid, None), &mut projects);
            }
        }
        for project in &projects {
            // What a home directory holds at a project's path was read above.
            if *project != home.dir {
                found.take_project(project, project, home.uid);
            }
        }
    }
    found
}

/// Read the configuration that a project directory holds. `dir` may be a path such as
/// `/proc/PID/cwd`; `shown` is what to call it.
pub(crate) fn project(dir: &Path, shown: &Path, uid: u32) -> Configured {
    let mut found = Configured::default();
    found.take_project(dir, shown, uid);
    found
}

impl Configured {
    fn take_project(&mut self, dir: &Path, shown: &Path, uid: u32) {
        let shown = shown.to_path_buf();
        for place in table::PLACES.iter().filter(|place| place.under == Under::Project) {
            let source = Source {
                client: place.client,
                shape: place.shape,
                file: dir.join(place.path),
                shown: shown.join(place.path),
                uid,
                project: Some(&shown),
            };
            // A project's file names no further projects.
            self.take(&source, &mut BTreeSet::new());
        }
    }
}
