//! Python: which distribution a console script or a module comes from.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use super::{
    inside::Inside,
    package::{Package, claim},
    process::Process,
};

/// Longest metadata file looked at; RECORD of the largest packages has 2 MB.
const MAX_TEXT: u64 = 4 << 20;
/// Text of RECORD files read for one server: 300 packages have about 20 MB.
const MAX_RECORDS: usize = 64 << 20;
/// A console script has a dozen lines.
const MAX_SCRIPT: u64 = 1 << 20;

/// The directories that this interpreter imports packages from.
pub(super) struct Sites {
    /// `site-packages` and `dist-packages`.
    sites: Vec<PathBuf>,
    /// What `PYTHONPATH` and `.pth` files (editable installs) add.
    extra: Vec<PathBuf>,
    /// The standard library, last: `-m http.server`.
    standard: Vec<PathBuf>,
}

impl Sites {
    /// `script`: the resolved console script, if any; `exe`: the resolved executable.
    pub(super) fn of(
        inside: &Inside,
        process: &Process,
        argv0: &str,
        script: Option<&Path>,
        exe: Option<&Path>,
        home: Option<&Path>,
    ) -> Self {
        // A virtual environment is where the interpreter was *called* from: its link there must
        // not be followed. A bare name was found through PATH.
        let called = if argv0.starts_with('/') {
            Some(PathBuf::from(argv0))
        } else {
            let path = process.variable("PATH").unwrap_or_default();
            std::env::split_paths(&path)
                .take(64)
                .map(|dir| dir.join(argv0))
                .find(|path| !argv0.is_empty() && inside.file(path).is_some())
        };
        let bins = [script, called.as_deref(), exe];
        let mut prefixes: Vec<PathBuf> = bins
            .into_iter()
            .flatten()
            .filter_map(|path| path.parent()?.parent().map(Path::to_path_buf))
            .collect();
        prefixes.extend(home.map(|home| home.join(".local")));
        if prefixes.iter().any(|prefix| prefix == Path::new("/usr")) {
            prefixes.push(PathBuf::from("/usr/local"));
        }
        let mut found = Self { sites: Vec::new(), extra: Vec::new(), standard: Vec::new() };
        for lib in prefixes.iter().flat_map(|p| [p.join("lib"), p.join("lib64")]) {
            let versions = inside.names(&lib).into_iter().filter(|name| name.starts_with("python"));
            for python in versions.map(|name| lib.join(name)) {
                for kind in ["site-packages", "dist-packages"] {
                    push(&mut found.sites, inside.dir(&python.join(kind)).map(|dir| dir.path));
                }
                push(&mut found.standard, inside.dir(&python).map(|dir| dir.path));
            }
        }
        let path = process.variable("PYTHONPATH").unwrap_or_default();
        found.extra.extend(std::env::split_paths(&path).filter(|p| p.is_absolute()).take(64));
        for site in &found.sites {
            let pth = inside.names(site).into_iter().filter(|name| name.ends_with(".pth"));
            for text in pth.take(64).filter_map(|name| inside.text(&site.join(name), MAX_SCRIPT)) {
                let dirs = text.lines().take(256).map(str::trim).filter(|l| l.starts_with('/'));
                found.extra.extend(dirs.map(PathBuf::from).take(64));
            }
        }
        found
    }

    /// The file of a module: what `python -m` runs first, then what it imports.
    pub(super) fn module(&self, inside: &Inside, name: &str, cwd: Option<&Path>) -> Option<PathBuf> {
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
        if !plain || name.contains("..") || name.starts_with('.') {
            return None;
        }
        let relative = name.replace('.', "/");
        let dirs = cwd
            .into_iter()
            .chain([&self.extra, &self.sites, &self.standard].into_iter().flatten().map(PathBuf::as_path));
        dirs.flat_map(|dir| {
            ["/__main__.py", ".py", "/__init__.py"].map(|end| dir.join(format!("{relative}{end}")))
        })
        .find_map(|path| inside.file(&path).map(|found| found.path))
    }

    /// The distribution that installed the console script of this name and text.
    pub(super) fn of_script(&self, inside: &Inside, script: &Path) -> Option<Package> {
        let name = script.file_name()?.to_str()?;
        let modules = imported(&inside.text(script, MAX_SCRIPT)?);
        let dists = self.distributions(inside);
        for dist in &dists {
            let Some(text) = inside.text(&dist.join("entry_points.txt"), MAX_TEXT) else {
                continue;
            };
            let Some(module) = console_script(&text, name) else {
                continue;
            };
            // Another distribution may have a script of this name: the import decides.
            if modules.is_empty() || modules.contains(&module) {
                return self.described(inside, dist, &module);
            }
        }
        modules.iter().find_map(|module| self.of_module_in(inside, &dists, module))
    }

    /// The distribution that a module belongs to.
    pub(super) fn of_module(&self, inside: &Inside, module: &str) -> Option<Package> {
        self.of_module_in(inside, &self.distributions(inside), module)
    }

    /// The distribution that installed a file below `site-packages`.
    pub(super) fn of_file(&self, inside: &Inside, file: &Path) -> Option<Package> {
        let relative = self.sites.iter().find_map(|site| file.strip_prefix(site).ok())?;
        let module = relative.with_extension("").to_str()?.replace('/', ".");
        self.of_module(inside, module.trim_end_matches(".__init__").trim_end_matches(".__main__"))
    }

    fn of_module_in(&self, inside: &Inside, dists: &[PathBuf], module: &str) -> Option<Package> {
        let path = module.replace('.', "/");
        let top = module.split('.').next().unwrap_or(module);
        // Most distributions are called like their module: look there first.
        let (likely, rest): (Vec<_>, Vec<_>) =
            dists.iter().partition(|dist| distribution_name(dist).is_some_and(|name| same(name, top)));
        let mut budget = MAX_RECORDS;
        let recorded = likely.iter().chain(&rest).find(|dist| {
            let text = inside.text(&dist.join("RECORD"), MAX_TEXT).unwrap_or_default();
            let Some(left) = budget.checked_sub(text.len()) else {
                return false;
            };
            budget = left;
            text.lines().any(|line| {
                line.strip_prefix(&path).is_some_and(|r| r.starts_with('/') || r.starts_with(".py"))
            })
        });
        // Editable installs record no modules.
        let named = || {
            likely.first().or_else(|| {
                rest.iter().find(|dist| {
                    let text = inside.text(&dist.join("top_level.txt"), MAX_TEXT);
                    text.is_some_and(|text| text.lines().any(|line| line.trim() == top))
                })
            })
        };
        self.described(inside, recorded.or_else(named)?, module)
    }

    fn distributions(&self, inside: &Inside) -> Vec<PathBuf> {
        let names = self
            .sites
            .iter()
            .flat_map(|site| inside.names(site).into_iter().map(move |name| site.join(name)));
        names.filter(|path| path.extension() == Some(OsStr::new("dist-info"))).collect()
    }

    fn described(&self, inside: &Inside, dist: &Path, module: &str) -> Option<Package> {
        let text = inside.text(&dist.join("METADATA"), MAX_TEXT)?;
        let header = |key: &str| {
            let lines = text.lines().take_while(|line| !line.is_empty());
            lines.filter_map(|l| l.strip_prefix(key)).next().map(str::trim).and_then(claim)
        };
        let package = Package::named("pypi", &header("Name:")?, header("Version:"));
        let dirs = dist.parent().into_iter().chain(self.extra.iter().map(PathBuf::as_path));
        let top = module.split('.').next().unwrap_or(module);
        let dir = dirs.into_iter().find_map(|dir| inside.dir(&dir.join(top)));
        Some(Package { dir: dir.map(|found| found.path), ..package })
    }
}

fn push(dirs: &mut Vec<PathBuf>, dir: Option<PathBuf>) {
    // `lib64` is a link to `lib`.
    dirs.extend(dir.filter(|dir| !dirs.contains(dir)));
}

/// `mcp_server_git` of `mcp_server_git-1.0.dist-info`.
fn distribution_name(dist: &Path) -> Option<&str> {
    dist.file_name()?.to_str()?.split('-').next()
}

/// Equal up to what PyPI makes equal.
fn same(one: &str, other: &str) -> bool {
    one.len() == other.len()
        && one.bytes().zip(other.bytes()).all(|(one, other)| {
            let plain = |b: u8| {
                if b"-._".contains(&b) { b'-' } else { b.to_ascii_lowercase() }
            };
            plain(one) == plain(other)
        })
}

/// The modules that a generated console script takes its function from.
fn imported(script: &str) -> Vec<String> {
    script
        .lines()
        .filter_map(|line| line.trim().strip_prefix("from ")?.split_once(" import "))
        .map(|(module, _)| module.trim().to_owned())
        .filter(|module| !module.starts_with('.') && module != "importlib.metadata")
        .take(16)
        .collect()
}

/// The module that `entry_points.txt` gives for a console script.
fn console_script(text: &str, name: &str) -> Option<String> {
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[console_scripts]" || line == "[gui_scripts]";
        } else if inside
            && let Some((key, value)) = line.split_once('=')
            && key.trim() == name
        {
            let end = value.find([':', '[']).unwrap_or(value.len());
            return value.get(..end).map(|module| module.trim().to_owned());
        }
    }
    None
}
