//! An independent observer: what strace saw of a process tree.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::sys;

/// System calls that are compared.
const CALLS: &str = "open,openat,openat2,creat,execve,execveat,connect,unlink,unlinkat,rename,\
                     renameat,renameat2,mkdir,mkdirat,rmdir";

/// What kind of effect a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A file was opened.
    Open,
    /// A program was executed.
    Exec,
    /// An internet socket was connected.
    Connect,
    /// A unix socket was connected.
    UnixConnect,
    /// A name was removed.
    Unlink,
    /// A name was changed.
    Rename,
    /// A directory was made.
    Mkdir,
    /// A directory was removed.
    Rmdir,
}

/// One successful call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Thread.
    pub tid: u32,
    /// When it began, ns UTC.
    pub utc_ns: u64,
    /// Kind.
    pub kind: Kind,
    /// Path, or `address:port`.
    pub what: String,
    /// The line.
    pub line: String,
}

/// An observer that is attached to a process, its threads and what they fork. It is no child of
/// theirs: what it does itself is nobody's effect. Dropped, it lets go.
pub struct Observer(Child);

impl Observer {
    /// Attaches, and waits until it has.
    ///
    /// # Errors
    /// When strace is missing, or does not attach within 5 s.
    pub fn attach(pid: u32, out: &Path) -> Result<Self> {
        let child = Command::new("strace")
            .args(["-f", "-qq", "-y", "-ttt", "-s", "4096", "-e", "signal=none"])
            .args(["-e", &format!("trace={CALLS}"), "-p", &pid.to_string(), "-o"])
            .arg(out)
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start strace")?;
        let observer = Self(child);
        let end = Instant::now() + Duration::from_secs(5);
        while !traced(pid)? {
            ensure!(Instant::now() < end, "strace does not attach to {pid}");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(observer)
    }

    /// Lets go, so that the log is whole.
    ///
    /// # Errors
    /// When it does not end.
    pub fn finish(mut self) -> Result<()> {
        sys::kill(self.0.id(), libc::SIGINT)?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            drop(sys::kill(self.0.id(), libc::SIGINT));
            drop(self.0.wait());
        }
    }
}

/// Does somebody trace every thread?
fn traced(pid: u32) -> Result<bool> {
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        if status.lines().any(|l| l.trim_end() == "TracerPid:\t0") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads a log.
///
/// # Errors
/// When it is not there, or a line has no time.
pub fn read(log: &Path) -> Result<Vec<Seen>> {
    let text = fs::read(log).with_context(|| log.display().to_string())?;
    let text = String::from_utf8_lossy(&text);
    let mut begun: HashMap<u32, (u64, String)> = HashMap::new();
    // Working directories, as far as calls with AT_FDCWD have shown them.
    let mut cwds: HashMap<u32, String> = HashMap::new();
    let mut all = Vec::new();
    for line in text.lines() {
        let context = || line.to_owned();
        let (tid, rest) = line.split_once(' ').with_context(context)?;
        let tid: u32 = tid.parse().with_context(context)?;
        let (time, call) = rest.trim_start().split_once(' ').with_context(context)?;
        let utc_ns = nanoseconds(time).with_context(|| line.to_owned())?;
        if let Some(start) = call.strip_suffix(" <unfinished ...>") {
            begun.insert(tid, (utc_ns, start.to_owned()));
            continue;
        }
        let (utc_ns, call) = match call.strip_prefix("<... ") {
            Some(end) => {
                let Some((at, start)) = begun.remove(&tid) else {
                    continue;
                };
                let end = end.split_once("resumed>").map_or("", |e| e.1);
                (at, start + end)
            }
            None => (utc_ns, call.to_owned()),
        };
        if let Some(cwd) = call.split_once("AT_FDCWD<").and_then(|s| s.1.split_once('>')) {
            cwds.insert(tid, cwd.0.to_owned());
        }
        if let Some((kind, mut what)) = understand(&call) {
            let line = call;
            if let Some(cwd) =
                cwds.get(&tid).filter(|_| kind != Kind::Connect && !what.starts_with(['/', '@']))
            {
                what = format!("{cwd}/{what}");
            }
            all.push(Seen { tid, utc_ns, kind, what, line });
        }
    }
    all.sort_by_key(|s| s.utc_ns);
    Ok(all)
}

/// `1234567890.123456` to ns.
fn nanoseconds(text: &str) -> Option<u64> {
    let (seconds, micros) = text.split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1_000_000_000 + micros.parse::<u64>().ok()? * 1000)
}

/// Kind and object of a call; nothing for one that failed or has no object of ours.
fn understand(call: &str) -> Option<(Kind, String)> {
    let (name, rest) = call.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(") = ").or_else(|| rest.rsplit_once(" = "))?;
    let failed = result.starts_with('-');
    let first = || quoted(arguments, 0);
    let kind = match name {
        "open" | "openat" | "openat2" | "creat" => {
            let path = result.split_once('<')?.1;
            return Some((Kind::Open, path.strip_suffix('>').unwrap_or(path).to_owned()));
        }
        "connect" => return connected(arguments, result),
        _ if failed => return None,
        "execve" | "execveat" => Kind::Exec,
        "unlinkat" if arguments.contains("AT_REMOVEDIR") => Kind::Rmdir,
        "unlink" | "unlinkat" => Kind::Unlink,
        "rename" | "renameat" | "renameat2" => Kind::Rename,
        "mkdir" | "mkdirat" => Kind::Mkdir,
        "rmdir" => Kind::Rmdir,
        _ => return None,
    };
    let path = absolute(arguments, first()?);
    Some((kind, path))
}

/// Every connect that reached the network: the hook comes before the result.
fn connected(arguments: &str, result: &str) -> Option<(Kind, String)> {
    let after = |mark: &str| arguments.split_once(mark).map(|s| s.1);
    let port = || {
        let digits = after("_port=htons(")?;
        digits.split_once(')').map(|s| s.0)
    };
    if arguments.contains("sa_family=AF_UNIX") {
        let path = after("sun_path=")?;
        let name = path.trim_start_matches('@');
        let name = quoted(name, 0)?;
        let mark = if path.starts_with('@') { "@" } else { "" };
        return (!result.starts_with('-')).then(|| (Kind::UnixConnect, format!("{mark}{name}")));
    }
    let address = if let Some(v4) = after("inet_addr(") {
        quoted(v4, 0)?
    } else {
        let v6 = quoted(after("inet_pton(AF_INET6, ")?, 0)?;
        v6.strip_prefix("::ffff:").map(str::to_owned).unwrap_or(v6)
    };
    Some((Kind::Connect, format!("{address}:{}", port()?)))
}

/// The n-th quoted text.
fn quoted(text: &str, n: usize) -> Option<String> {
    text.split('"').nth(n * 2 + 1).map(str::to_owned)
}

/// A path as given, made absolute by the directory that `-y` shows (`AT_FDCWD</x>`, `5</x>`).
fn absolute(arguments: &str, path: String) -> String {
    if path.starts_with('/') {
        return path;
    }
    let base = arguments.split_once('<').and_then(|s| s.1.split_once('>'));
    base.map_or(path.clone(), |(dir, _)| format!("{dir}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::{Kind, understand};

    #[test]
    fn lines_of_strace_6() {
        let table = [
            (r#"openat(AT_FDCWD</w>, "a", O_RDONLY|O_CLOEXEC) = 3</w/a>"#, Some((Kind::Open, "/w/a"))),
            (r#"openat(AT_FDCWD</w>, "a", O_RDONLY) = -1 ENOENT (No such file or directory)"#, None),
            (r#"execve("/bin/ls", ["ls"], 0x7f /* 3 vars */) = 0"#, Some((Kind::Exec, "/bin/ls"))),
            (r#"unlinkat(5</w>, "d", AT_REMOVEDIR) = 0"#, Some((Kind::Rmdir, "/w/d"))),
            (
                r#"connect(3<socket:[1]>, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("1.2.3.4")}, 16) = -1 EINPROGRESS (Operation now in progress)"#,
                Some((Kind::Connect, "1.2.3.4:53")),
            ),
            (
                r#"connect(3<socket:[1]>, {sa_family=AF_INET6, sin6_port=htons(80), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "::1", &sin6_addr), sin6_scope_id=0}, 28) = 0"#,
                Some((Kind::Connect, "::1:80")),
            ),
            (
                r#"connect(3<socket:[1]>, {sa_family=AF_UNIX, sun_path="/run/x"}, 110) = 0"#,
                Some((Kind::UnixConnect, "/run/x")),
            ),
        ];
        for (line, expected) in table {
            let expected = expected.map(|(k, w)| (k, w.to_owned()));
            assert_eq!(understand(line), expected, "{line}");
        }
    }
}
