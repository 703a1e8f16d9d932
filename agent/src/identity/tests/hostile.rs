//! Files and processes that mean harm, or are gone.

use std::{fs, path::PathBuf};

use super::{
    super::{entry, launcher},
    *,
};

#[test]
fn traps_are_not_stepped_into() -> Result {
    let host = Host::new()?;
    host.put("/real.js", "real()")?;
    host.link("/out.js", "../../../../../../../../etc/passwd")?;
    host.link("/loop.js", "/loop.js")?;
    host.link("/dev.js", "/dev/zero")?;
    fs::create_dir_all(host.at("/dev"))?;
    let fifo = host.at("/dev/zero");
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, rustix::fs::Mode::from_raw_mode(0o600), 0)?;
    host.link("/abs.js", "/real.js")?;
    for (pid, script) in (50..).zip(["/out.js", "/loop.js", "/dev.js", "/gone.js", "/dev"]) {
        host.process(pid, 5, "/bin/node", &format!("node|{script}"))?;
        let found = host.resolve(pid, pid);
        assert_eq!((found.entry, found.digest), (None, None), "{script}");
    }
    host.process(60, 5, "/bin/node", "node|/abs.js")?;
    let found = host.resolve(60, 60);
    assert_eq!((found.entry.as_deref(), found.digest), (Some("/real.js"), sha256("real()")?));
    Ok(())
}

#[test]
fn gone_processes_leave_what_is_known() -> Result {
    let host = Host::new()?;
    npx(&host)?;
    // The leaf is gone: its launcher still names the package.
    fs::remove_dir_all(host.proc().join("12"))?;
    let found = host.resolve(12, 10);
    assert_eq!((found.entry, found.digest), (None, None));
    assert_eq!(found.package.as_deref(), Some("npm:@m/server-fs"));
    // The middle is gone: init adopted the leaf.
    host.process(13, 1, "/bin/node", "node|/h/_npx/1/node_modules/.bin/mcp-fs|/data")?;
    assert_eq!(host.resolve(13, 10).version.as_deref(), Some("1.2.3"));
    assert_eq!(
        host.resolve(99, 99),
        Identity { tree: 7, tgid: 99, client: found.client, client_pid: Some(5), ..Identity::default() }
    );
    Ok(())
}

#[test]
fn no_bytes_make_it_panic() -> Result {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words = [
        "node", "python3", "-m", "-", "--", "-c", "@", "@a/b", "npx", "uvx", "docker", "run", "", "==", "a@",
        "/", "..", "é", "-é", "--from", "$", "${", "~", "x y", "sh", "-lc", "=", ":",
    ];
    for _ in 0..50_000 {
        let argv: Vec<String> = (0..next() % 6)
            .map(|_| {
                let at = usize::try_from(next()).unwrap_or(0) % words.len();
                let two = if next() % 4 == 0 { words[(at + 7) % words.len()] } else { "" };
                format!("{}{two}", words[at])
            })
            .collect();
        let argv0 = argv.first().cloned().unwrap_or_default();
        drop(entry::entry(entry::runtime(&argv0, &argv0), &argv));
        let server = clients::ConfiguredServer {
            name: String::new(),
            client: "Cursor",
            file: PathBuf::new(),
            uid: 0,
            project: None,
            command: words[usize::try_from(next()).unwrap_or(0) % words.len()].to_owned(),
            args: argv.iter().skip(1).cloned().collect(),
        };
        let mut configured = Configured::default();
        configured.servers.push(server);
        let argvs = [argv];
        drop(configured.find(0, &argvs).cloned());
        drop(launcher::package(&argvs));
    }
    let host = Host::new()?;
    venv(&host)?;
    let site = "/venv/lib/python3.12/site-packages/mcp_server_git-2.0.dist-info";
    host.process(20, 5, "/usr/bin/python3.12", "/venv/bin/python|/venv/bin/mcp-server-git")?;
    for _ in 0..200 {
        let junk: Vec<u8> = (0..next() % 200).map(|_| next().to_le_bytes()[0]).collect();
        for file in ["METADATA", "entry_points.txt", "RECORD"] {
            fs::write(host.at(site).join(file), &junk)?;
        }
        for file in ["cmdline", "status", "environ"] {
            if next() % 4 == 0 {
                fs::write(host.proc().join("20").join(file), &junk)?;
            }
        }
        drop(host.resolve(20, 20));
    }
    Ok(())
}
