//! Identities from a made-up `/proc` with made-up roots, and from real processes.

mod hostile;

use std::{
    fs,
    io::Read,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::*;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A made-up host: `proc/` and the root that its processes see.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Result<Self> {
        let host = Self { dir: tempfile::tempdir()? };
        fs::create_dir_all(host.root())?;
        Ok(host)
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn proc(&self) -> PathBuf {
        self.dir.path().join("proc")
    }

    /// A path in the processes' root.
    fn at(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    fn put(&self, path: &str, text: &str) -> Result {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        Ok(fs::write(path, text)?)
    }

    /// A link as the processes see it: an absolute target is in their root.
    fn link(&self, path: &str, target: &str) -> Result {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        Ok(symlink(target, path)?)
    }

    fn process(&self, pid: u32, parent: u32, exe: &str, line: &str) -> Result {
        let dir = self.proc().join(pid.to_string());
        fs::create_dir_all(&dir)?;
        fs::create_dir_all(self.at("/work"))?;
        let uid = rustix::process::getuid().as_raw();
        let status = format!("Name:\tx\nPPid:\t{parent}\nUid:\t{uid}\t0\t0\t0\n");
        fs::write(dir.join("status"), status)?;
        fs::write(dir.join("cmdline"), line.replace('|', "\0") + "\0")?;
        fs::write(dir.join("environ"), "A=1\0PATH=/bin:/venv/bin\0")?;
        if !self.at(exe).exists() {
            self.put(exe, "ELF")?;
        }
        symlink(self.at(exe), dir.join("exe"))?;
        symlink(self.at("/work"), dir.join("cwd"))?;
        Ok(symlink(self.root(), dir.join("root"))?)
    }

    fn resolve(&self, leaf: u32, root: u32) -> Identity {
        self.resolve_with(leaf, root, &Configured::default())
    }

    fn resolve_with(&self, leaf: u32, root: u32, configured: &Configured) -> Identity {
        let asked = Asked { tree: 7, tgid: leaf, root, client: 5 };
        resolve_at(&self.proc(), &asked, configured)
    }
}

fn sha256(text: &str) -> Result<Option<String>> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), text)?;
    Ok(inside::digest(fs::File::open(file.path())?, 1 << 20))
}

/// npx, its shell and the server, as measured.
fn npx(host: &Host) -> Result {
    let package = "/h/_npx/1/node_modules/@m/server-fs";
    host.put(&format!("{package}/package.json"), r#"{"name": "@m/server-fs", "version": "1.2.3"}"#)?;
    host.put(&format!("{package}/dist/package.json"), r#"{"type": "module"}"#)?;
    host.put(&format!("{package}/dist/index.js"), "serve()")?;
    host.link("/h/_npx/1/node_modules/.bin/mcp-fs", "../@m/server-fs/dist/index.js")?;
    host.process(5, 1, "/opt/cursor", "cursor")?;
    host.process(10, 5, "/bin/node", "npm exec @m/server-fs /data||")?;
    host.process(11, 10, "/bin/dash", "sh|-c|'mcp-fs' /data")?;
    host.process(12, 11, "/bin/node", "node|/h/_npx/1/node_modules/.bin/mcp-fs|/data|--x=/data/f")?;
    host.put("/data/f", "")
}

#[test]
fn npx_leads_to_its_package() -> Result {
    let host = Host::new()?;
    npx(&host)?;
    let found = host.resolve(12, 10);
    assert_eq!(found.package.as_deref(), Some("npm:@m/server-fs"));
    assert_eq!((found.name.as_str(), found.name_source), ("npm:@m/server-fs", NameSource::Package));
    assert_eq!(found.version.as_deref(), Some("1.2.3"));
    let entry = "/h/_npx/1/node_modules/@m/server-fs/dist/index.js";
    assert_eq!(found.entry.as_deref(), Some(entry));
    assert_eq!(found.digest, sha256("serve()")?);
    assert!(found.client.is_some_and(|client| client.ends_with("/opt/cursor")));
    assert_eq!((found.tree, found.tgid, found.client_pid), (7, 12, Some(5)));
    let roots = ["/h/_npx/1/node_modules/@m/server-fs", entry, "/data", "/data/f", "/work"];
    assert_eq!(found.roots, roots);
    Ok(())
}

#[test]
fn configuration_names_best() -> Result {
    let host = Host::new()?;
    npx(&host)?;
    let home = host.dir.path().join("home");
    let config = r#"{"mcpServers": {"files": {"command": "npx", "args": ["-y", "@m/server-fs", "/data"]}}}"#;
    fs::create_dir_all(home.join(".cursor"))?;
    fs::write(home.join(".cursor/mcp.json"), config)?;
    let uid = rustix::process::getuid().as_raw();
    let configured = clients::discover(&[clients::Home { uid, dir: home.clone() }]);
    let found = host.resolve_with(12, 10, &configured);
    assert_eq!((found.name.as_str(), found.name_source), ("files", NameSource::ClientConfig));
    assert_eq!(found.config.map(PathBuf::from), Some(home.join(".cursor/mcp.json")));
    assert!(found.roots.iter().any(|root| Path::new(root) == home));
    // A project that no home directory names.
    host.put("/work/.mcp.json", &config.replace("files", "here"))?;
    let found = host.resolve(12, 10);
    assert_eq!((found.name.as_str(), found.name_source), ("here", NameSource::ClientConfig));
    Ok(())
}

/// A virtual environment with a console script.
fn venv(host: &Host) -> Result {
    let site = "/venv/lib/python3.12/site-packages";
    let dist = format!("{site}/mcp_server_git-2.0.dist-info");
    host.put(
        &format!("{dist}/METADATA"),
        "Metadata-Version: 2.1\nName: mcp-server-git\nVersion: 2.0\n\nName: no",
    )?;
    let scripts =
        "[other]\nmcp-server-git = wrong\n[console_scripts]\nmcp-server-git = mcp_server_git:main\n";
    host.put(&format!("{dist}/entry_points.txt"), scripts)?;
    host.put(&format!("{dist}/RECORD"), "mcp_server_git/__main__.py,sha256=x,1\n")?;
    host.put(&format!("{site}/mcp_server_git/__main__.py"), "main()")?;
    host.put(&format!("{site}/aaa-1.dist-info/METADATA"), "Name: aaa\nVersion: 1\n\n")?;
    host.put(&format!("{site}/aaa-1.dist-info/RECORD"), "aaa.py,,\n")?;
    let editable = format!("{site}/my_tool-0.1.dist-info");
    host.put(&format!("{editable}/METADATA"), "Name: my-tool\nVersion: 0.1\n\n")?;
    host.put(&format!("{site}/_my_tool.pth"), "/src/my\nimport x\n")?;
    host.put("/src/my/my_tool/__main__.py", "mine()")?;
    host.put(
        "/venv/bin/mcp-server-git",
        "#!/venv/bin/python\nimport sys\nfrom mcp_server_git import main\n",
    )?;
    host.put("/usr/bin/python3.12", "ELF")?;
    host.link("/venv/bin/python", "/usr/bin/python3.12")?;
    host.link("/home/u/bin/mcp-server-git", "/venv/bin/mcp-server-git")
}

#[test]
fn python_scripts_and_modules_lead_to_their_distribution() -> Result {
    let host = Host::new()?;
    venv(&host)?;
    let site = "/venv/lib/python3.12/site-packages";
    let module = format!("{site}/mcp_server_git/__main__.py");
    let git = ("pypi:mcp-server-git", "/venv/bin/mcp-server-git");
    for (pid, (line, (package, entry))) in (20..).zip([
        ("/venv/bin/python|/venv/bin/mcp-server-git|--repository|/r", git),
        ("/venv/bin/python|/home/u/bin/mcp-server-git", git),
        ("/venv/bin/python|-m|mcp_server_git", (git.0, module.as_str())),
        ("python|-Im|mcp_server_git", (git.0, module.as_str())),
        ("/venv/bin/python|-m|my_tool", ("pypi:my-tool", "/src/my/my_tool/__main__.py")),
    ]) {
        host.process(pid, 5, "/usr/bin/python3.12", line)?;
        let found = host.resolve(pid, pid);
        assert_eq!(found.package.as_deref(), Some(package), "{line}");
        assert_eq!(found.entry.as_deref(), Some(entry), "{line}");
        assert!(found.digest.is_some() && found.version.is_some(), "{found:?}");
    }
    // A file in the working directory goes before an installed module of that name.
    host.put("/work/mcp_server_git.py", "mine()")?;
    host.process(40, 5, "/usr/bin/python3.12", "/venv/bin/python|-m|mcp_server_git")?;
    let found = host.resolve(40, 40);
    assert_eq!(found.package, None);
    assert_eq!((found.name.as_str(), found.digest), ("mcp_server_git", sha256("mine()")?));
    Ok(())
}

#[test]
fn executables_and_images_stand_for_themselves() -> Result {
    let host = Host::new()?;
    host.process(30, 5, "/opt/my-server-1.2", "my-server|--listen|/|/dev/null")?;
    host.put("/dev/null", "")?;
    let found = host.resolve(30, 30);
    assert_eq!((found.name.as_str(), found.name_source), ("my-server-1.2", NameSource::Executable));
    assert_eq!((found.package, found.digest), (None, sha256("ELF")?));
    assert_eq!(found.roots, ["/work"]);
    host.process(31, 5, "/bin/docker", "docker|run|-i|--rm|mcp/git:1.0")?;
    let found = host.resolve(31, 31);
    assert_eq!(found.package.as_deref(), Some("docker:mcp/git"));
    // Code on the command line has no digest: that of the interpreter would fit any code.
    host.process(32, 5, "/bin/node", "node|-e|serve()")?;
    let found = host.resolve(32, 32);
    assert_eq!((found.entry, found.digest, found.name.as_str()), (None, None, "node"));
    Ok(())
}

#[test]
fn this_process_and_its_child_are_found() -> Result {
    let pid = std::process::id();
    let asked = Asked { tree: 1, tgid: pid, root: pid, client: pid };
    let found = resolve(&asked, &Configured::default());
    let exe = std::env::current_exe()?;
    assert_eq!(found.entry.as_deref().map(Path::new), Some(exe.as_path()));
    assert_eq!(found.digest.map(|digest| digest.len()), Some(64));

    let dir = tempfile::tempdir()?;
    let script = dir.path().join("server.sh");
    let text = "echo ready; read line";
    fs::write(&script, text)?;
    let mut child = Command::new("sh")
        .arg(&script)
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    // Only after its exec is the child what it is.
    let mut ready = [0; 6];
    child.stdout.as_mut().ok_or("no stdout")?.read_exact(&mut ready)?;
    let asked = Asked { tree: 1, tgid: child.id(), root: child.id(), client: pid };
    let found = resolve(&asked, &Configured::default());
    drop(child.stdin.take());
    child.wait()?;
    assert_eq!(found.name, "server");
    assert_eq!(found.entry.map(PathBuf::from), Some(script.canonicalize()?));
    assert_eq!(found.digest, sha256(text)?);
    assert_eq!(found.client.map(PathBuf::from), Some(exe));
    // Now it is gone, and its number may be anybody's: no more than that it does not fail.
    drop(resolve(&asked, &Configured::default()));
    Ok(())
}
