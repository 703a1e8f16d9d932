//! Where everything happens.

use std::{
    env, fs, io,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{agent, scenario::program, sys};

/// All of it.
pub(crate) const ROOT: &str = "/srv/corpus";
/// The user's home.
pub(crate) const HOME: &str = "/srv/corpus/home";
/// The own servers; each is the same program under its own name.
pub(crate) const OWN: [&str; 10] = [
    "notes-server",
    "logs-server",
    "image-server",
    "cache-server",
    "build-server",
    "repo-server",
    "convert-server",
    "api-server",
    "mailer-server",
    "feeds-server",
];
/// Networks that this host believes to be its own: the world, the private ranges, cloud metadata.
const NETWORKS: [&str; 10] = [
    "93.184.0.1/16",
    "91.92.0.53/16",
    "8.8.8.8/32",
    "10.0.0.1/8",
    "172.16.0.1/12",
    "192.168.0.1/16",
    "169.254.169.254/32",
    "100.100.100.200/32",
    "fd00:ec2::254/128",
    "2001:db8::1/64",
];

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn memory(at: &str, size: &str) -> Result<()> {
    fs::create_dir_all(at)?;
    run(Command::new("mount").args(["-t", "tmpfs", "-o", size, "tmpfs", at]))
}

/// A file of ours in the place of the system's, in this mount namespace only.
fn instead(of: &str, text: &str) -> Result<()> {
    let own = Path::new(ROOT).join("etc").join(of.rsplit('/').next().unwrap_or_default());
    fs::create_dir_all(format!("{ROOT}/etc"))?;
    fs::write(&own, text)?;
    run(Command::new("mount").arg("--bind").arg(&own).arg(of))
}

/// Makes the namespaces, puts the programs there, and goes on as the copy in there.
pub(crate) fn enter(out: &Path) -> Result<()> {
    let flags = libc::CLONE_NEWNET | libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
    sys::plain(libc::SYS_unshare, [flags as u64, 0, 0, 0])
        .context("cannot make namespaces: are you root?")?;
    run(Command::new("mount").args(["--make-rprivate", "/"]))?;
    let (own, fixture, agent) = (env::current_exe()?, program("fixture")?, agent::executable()?);
    let agent = agent.canonicalize()?;
    memory("/srv", "size=12g")?;
    let bin = Path::new(ROOT).join("bin");
    fs::create_dir_all(&bin)?;
    fs::copy(own, bin.join("client"))?;
    for name in OWN {
        fs::copy(&fixture, bin.join(name))?;
    }
    let installed = e2e::workspace().join("target/e2e");
    copy_real(&installed)?;
    memory("/tmp", "size=4g,mode=1777")?;
    memory("/run", "size=64m")?;
    run(Command::new("hostname").arg("corpus"))?;
    run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    for network in NETWORKS {
        run(Command::new("ip").args(["addr", "add", network, "dev", "lo"]))?;
    }
    instead("/etc/passwd", &format!("root:x:0:0:root:{HOME}:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"))?;
    instead("/etc/hosts", "127.0.0.1 localhost\n127.0.0.1 corpus\n::1 localhost\n")?;
    instead("/etc/resolv.conf", "nameserver 127.0.0.53\n")?;
    let mut client = Command::new(bin.join("client"));
    client.args(env::args_os().skip(1)).arg("--inside").arg("--out").arg(out);
    client.env_clear().envs([("TOOLWARDEN", agent.as_os_str())]);
    client.envs([("HOME", HOME), ("PATH", "/usr/bin:/bin:/usr/sbin:/sbin"), ("LANG", "C.UTF-8")]);
    client.current_dir(ROOT);
    Err(client.exec()).context("cannot go on inside")
}

/// npm and PyPI servers, so that their paths are the corpus's own.
fn copy_real(installed: &Path) -> Result<()> {
    run(Command::new("cp").args(["-a"]).arg(installed.join("npm")).arg(ROOT))?;
    let venv = Path::new(ROOT).join("venv");
    run(Command::new("/usr/bin/python3").args(["-m", "venv", "--without-pip"]).arg(&venv))?;
    let lib = |venv: &Path| -> Result<_> {
        let mut dirs = fs::read_dir(venv.join("lib"))?;
        Ok(dirs.next().context("an empty venv")??.path())
    };
    let (from, to) = (lib(&installed.join("venv"))?, lib(&venv)?);
    ensure!(
        from.file_name() == to.file_name(),
        "the servers are installed for {}, the system's Python is {}",
        from.display(),
        to.display()
    );
    fs::remove_dir_all(to.join("site-packages"))?;
    run(Command::new("cp").arg("-a").arg(from.join("site-packages")).arg(&to))?;
    for script in ["mcp-server-git", "mcp-server-fetch", "mcp-server-time"] {
        let text = fs::read_to_string(installed.join("venv/bin").join(script))?;
        let body = text.split_once('\n').map(|(_, body)| body).unwrap_or_default();
        let file = venv.join("bin").join(script);
        fs::write(&file, format!("#!{}/bin/python3\n{body}", venv.display()))?;
        run(Command::new("chmod").arg("755").arg(file))?;
    }
    Ok(())
}

/// What is there before the first session.
pub(crate) fn prepare() -> Result<()> {
    fs::create_dir_all("/srv/corpus/raw")?;
    fs::create_dir_all("/srv/corpus/outside/secret")?;
    fs::create_dir_all("/tmp/ssh-Ab12Cd34")?;
    fs::create_dir_all("/run/containerd")?;
    fs::create_dir_all("/run/user/0")?;
    fs::create_dir_all("/run/dbus")?;
    home()?;
    crate::data::make()
}

/// The throw-away home, as good as new.
pub(crate) fn home() -> Result<()> {
    drop(fs::remove_dir_all(HOME));
    let files: &[(&str, &str)] = &[
        (".ssh/id_ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----\nnot a key\n"),
        (".ssh/id_rsa", "-----BEGIN RSA PRIVATE KEY-----\nnot a key\n"),
        (".ssh/authorized_keys", "ssh-ed25519 AAAA me\n"),
        (".ssh/config", "Host *\n"),
        (".ssh/known_hosts", "hub.test ssh-ed25519 AAAA\n"),
        (".aws/credentials", "[default]\naws_access_key_id = none\n"),
        (".aws/config", "[default]\n"),
        (".config/gcloud/application_default_credentials.json", "{}\n"),
        (".config/gh/hosts.yml", "hub.test:\n"),
        (".azure/msal_token_cache.json", "{}\n"),
        (".kube/config", "apiVersion: v1\n"),
        (".docker/config.json", "{}\n"),
        (".npmrc", "//registry.test/:_authToken=none\n"),
        (".pypirc", "[pypi]\n"),
        (".netrc", "machine hub.test\n"),
        (".git-credentials", "https://none@hub.test\n"),
        (".gnupg/secring.gpg", "none\n"),
        (".bash_history", "ls\n"),
        (".bashrc", "# bash\n"),
        (".profile", "# profile\n"),
        (".zshrc", "# zsh\n"),
        (".gitconfig", "[user]\n\tname = corpus\n\temail = corpus@corp.test\n[gc]\n\tauto = 0\n"),
        (".mozilla/firefox/abcd.default/logins.json", "{}\n"),
        (".config/google-chrome/Default/Login Data", "none\n"),
        (".bitcoin/wallet.dat", "none\n"),
        (".claude.json", "{\"mcpServers\":{}}\n"),
        (".cursor/mcp.json", "{\"mcpServers\":{}}\n"),
        (".config/Code/User/mcp.json", "{\"servers\":{}}\n"),
        (".codex/config.toml", "\n"),
        (".gemini/settings.json", "{}\n"),
        (".config/autostart/.keep", ""),
        (".config/systemd/user/.keep", ""),
        ("documents/plan.txt", "a plan\n"),
        ("project/.env", "TOKEN=none\n"),
    ];
    for (name, text) in files {
        let file = Path::new(HOME).join(name);
        file.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(file, text)?;
    }
    fs::create_dir_all("/srv/corpus/outside/secret")?;
    fs::write("/srv/corpus/outside/secret/budget.txt", "a budget\n")?;
    Ok(())
}

/// A program's next version: the same, and one word more.
pub(crate) fn change(file: &Path, more: &str) -> io::Result<()> {
    let kept = file.with_extension("kept");
    fs::copy(file, &kept)?;
    let mut bytes = fs::read(file)?;
    bytes.extend(more.as_bytes());
    // A running program cannot be written to, but its name can be given away.
    let new = file.with_extension("new");
    fs::copy(file, &new)?;
    fs::write(&new, bytes)?;
    fs::rename(new, file)
}

/// The first version again.
pub(crate) fn restore(file: &Path) -> io::Result<()> {
    fs::rename(file.with_extension("kept"), file)
}

/// Runs git in a repository.
pub(crate) fn git(dir: &Path, words: &[&str]) -> Result<()> {
    run(Command::new("/usr/bin/git").arg("-C").arg(dir).args(words).stdin(Stdio::null()))
}
