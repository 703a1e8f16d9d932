//! Packages of other suites than this machine's: a private root for apt, made from the machine's own
//! sources with the name of the suite replaced. Nothing of the machine's own apt is touched.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    steps::Steps,
    workspace::{on_path, output},
};

/// A root for apt that knows some suites only.
pub(crate) struct Archive {
    root: PathBuf,
    suites: Vec<String>,
}

/// Where a suite can be had, as one of this machine's sources says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    uri: String,
    suites: Vec<String>,
    options: Vec<(String, String)>,
}

/// The release of Debian that this machine runs, such as `bookworm`.
pub(crate) fn release() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let value = |key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
        line.map(|v| v.trim_matches('"').to_owned())
    };
    ensure!(
        value("ID").as_deref() == Some("debian"),
        "the kernels come from Debian's archive, which this machine's apt does not know: run this on Debian"
    );
    value("VERSION_CODENAME").context("/etc/os-release has no VERSION_CODENAME")
}

impl Archive {
    /// Makes the root at `root` and fetches the lists of these suites.
    pub(crate) fn open(steps: &Steps, root: &Path, suites: &[&str]) -> Result<Self> {
        ensure!(on_path("apt-get").is_some(), "fetching kernels needs apt-get");
        for dir in ["state/lists/partial", "cache/archives/partial", "etc/preferences.d", "none", "packages"]
        {
            fs::create_dir_all(root.join(dir)).with_context(|| format!("cannot make {}", root.display()))?;
        }
        fs::write(root.join("status"), "")?;
        let acquire = output(Command::new("apt-config").args(["dump", "Acquire"])).unwrap_or_default();
        fs::write(root.join("apt.conf"), configuration(root, &acquire))?;
        fs::write(root.join("acquire.conf"), acquire)?;
        fs::write(root.join("etc/sources.list"), list(&sources()?, &release()?, suites)?)?;
        let archive = Self { root: root.to_owned(), suites: suites.iter().map(|&s| s.to_owned()).collect() };
        steps.run(archive.apt("apt-get", &root.join("status")).args(["update", "--quiet"]))?;
        Ok(archive)
    }

    /// A program of apt's in this root. `status`: what it takes for installed.
    fn apt(&self, program: &str, status: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("APT_CONFIG", self.root.join("apt.conf"))
            .arg("-o")
            .arg(format!("Dir::State::status={}", status.display()));
        command
    }

    fn cache(&self) -> Command {
        self.apt("apt-cache", &self.root.join("status"))
    }

    /// What a package depends on, first choices only.
    pub(crate) fn depends(&self, package: &str) -> Result<Vec<String>> {
        let text = output(self.cache().args(["depends", package]))
            .with_context(|| format!("{} has no package {package}", self.suites.join(", ")))?;
        let names = text.lines().filter_map(|l| l.trim().strip_prefix("Depends: "));
        Ok(names.filter(|n| !n.starts_with('<')).map(str::to_owned).collect())
    }

    /// Fetches packages and unpacks them below `into`; nothing is installed.
    pub(crate) fn unpack(&self, steps: &Steps, packages: &[String], into: &Path) -> Result<()> {
        let dir = self.root.join("packages");
        fs::remove_dir_all(&dir)?;
        fs::create_dir_all(&dir)?;
        let mut command = self.apt("apt-get", &self.root.join("status"));
        steps.run(command.current_dir(&dir).args(["download", "--quiet"]).args(packages))?;
        fs::create_dir_all(into)?;
        for package in fs::read_dir(&dir)? {
            let package = package?.path();
            steps.run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(into))?;
            fs::remove_file(package)?;
        }
        Ok(())
    }

    /// Installs a package on this machine, from `suite` where it matters.
    pub(crate) fn install(&self, steps: &Steps, suite: &str, package: &str) -> Result<()> {
        let mut command = self.apt("apt-get", Path::new("/var/lib/dpkg/status"));
        steps.run(
            command
                .env("DEBIAN_FRONTEND", "noninteractive")
                .args(["-o", "DPkg::Lock::Timeout=300", "install", "--yes", "--quiet"])
                .args(["--no-install-recommends", "--target-release", suite, package]),
        )
    }

    /// The sources, for a program that makes a system from them.
    pub(crate) fn sources(&self) -> PathBuf {
        self.root.join("etc/sources.list")
    }

    /// The machine's settings of how to reach archives, for such a program.
    pub(crate) fn acquire(&self) -> PathBuf {
        self.root.join("acquire.conf")
    }
}

/// Read by apt before anything else, so that it reads nothing else; how to reach archives is the machine's.
fn configuration(root: &Path, acquire: &str) -> String {
    let mut text = acquire.to_owned();
    let dir = |name: &str| root.join(name).display().to_string();
    for (key, value) in [
        ("Dir::State", dir("state")),
        ("Dir::Cache", dir("cache")),
        ("Dir::Etc", dir("etc")),
        ("Dir::Etc::parts", dir("none")),
        ("Acquire::Languages", "none".into()),
        ("Acquire::Retries", "3".into()),
        // Lists that cannot be fetched are else a warning, and then there are no packages.
        ("APT::Update::Error-Mode", "any".into()),
        ("APT::Sandbox::User", "root".into()),
    ] {
        text.push_str(&format!("\n{key} \"{value}\";"));
    }
    text.push('\n');
    text
}

/// One-line sources for `suites`, each from where this machine has its own like it.
fn list(sources: &[Source], release: &str, suites: &[&str]) -> Result<String> {
    let mut text = String::new();
    for suite in suites {
        let like =
            if suite.ends_with("-security") { format!("{release}-security") } else { release.to_owned() };
        let Some(source) = sources.iter().find(|s| s.suites.contains(&like)) else {
            bail!("this machine's apt sources name no {like}, so where to find {suite} is not known");
        };
        let options: Vec<String> = source.options.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let options = if options.is_empty() { String::new() } else { format!("[{}] ", options.join(" ")) };
        text.push_str(&format!("deb {options}{} {suite} main\n", source.uri));
    }
    Ok(text)
}

/// All sources of this machine.
fn sources() -> Result<Vec<Source>> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(dir) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(dir.filter_map(Result::ok).map(|entry| entry.path()));
    }
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        match file.extension().and_then(|e| e.to_str()) {
            Some("list") => found.extend(text.lines().filter_map(one_line)),
            Some("sources") => found.extend(text.split("\n\n").filter_map(stanza)),
            _ => {}
        }
    }
    ensure!(!found.is_empty(), "this machine has no apt sources");
    Ok(found)
}

/// `deb [signed-by=/a/key] http://host/debian bookworm main`
fn one_line(line: &str) -> Option<Source> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inside) => inside.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    let options = options.split_whitespace().filter_map(|o| o.split_once('='));
    Some(Source {
        uri: uri.to_owned(),
        suites: vec![suite.to_owned()],
        options: options
            .filter(|(k, _)| k.eq_ignore_ascii_case("signed-by"))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect(),
    })
}

/// `Types: deb`, `URIs: ..`, `Suites: ..`, `Signed-By: ..`
fn stanza(text: &str) -> Option<Source> {
    let field = |name: &str| {
        text.lines()
            .filter_map(|l| l.split_once(':'))
            .find(|(k, _)| k.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.trim())
    };
    if !field("types")?.split_whitespace().any(|t| t == "deb") || field("enabled") == Some("no") {
        return None;
    }
    // A key that is written into the stanza itself has no path; apt's own keys do then.
    let key = field("signed-by").filter(|k| k.starts_with('/'));
    Some(Source {
        uri: field("uris")?.split_whitespace().next()?.to_owned(),
        suites: field("suites")?.split_whitespace().map(str::to_owned).collect(),
        options: key.map(|k| ("signed-by".to_owned(), k.to_owned())).into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "Types: deb\n# a comment\nURIs: http://mirror/debian\nSuites: bookworm bookworm-updates\n\
        Components: main\nSigned-By: /k.gpg\n\nTypes: deb-src\nURIs: http://mirror/src\nSuites: bookworm\n\n\
        Types: deb\nURIs: http://mirror/security\nSuites: bookworm-security\n";

    #[test]
    fn other_suites_come_from_where_ours_do() {
        let sources: Vec<Source> = STANZAS.split("\n\n").filter_map(stanza).collect();
        assert_eq!(sources.len(), 2);
        let text = list(&sources, "bookworm", &["trixie", "bullseye-security"]).expect("both are known");
        assert_eq!(
            text,
            "deb [signed-by=/k.gpg] http://mirror/debian trixie main\ndeb http://mirror/security bullseye-security main\n"
        );
        assert!(list(&sources, "sid", &["trixie"]).is_err());
    }

    #[test]
    fn one_line_sources_are_read() {
        let source =
            one_line("deb [arch=amd64 signed-by=/k] http://m/d bookworm main contrib").expect("a source");
        assert_eq!((source.uri.as_str(), source.suites[0].as_str()), ("http://m/d", "bookworm"));
        assert_eq!(source.options, [("signed-by".to_owned(), "/k".to_owned())]);
        assert_eq!(one_line("# deb http://m/d bookworm main"), None);
    }
}
