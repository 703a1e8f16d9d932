//! Acts of a server that stay on its host: files, programs, unix sockets, other processes.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::{
        fd::AsRawFd as _,
        linux::net::SocketAddrExt as _,
        unix::{
            fs::{PermissionsExt as _, chown, symlink},
            net::{SocketAddr, UnixDatagram, UnixStream},
        },
    },
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{sys, uring::Ring};

fn text<'a>(act: &'a Value, key: &str) -> io::Result<&'a str> {
    act[key].as_str().ok_or_else(|| io::Error::other(format!("no {key}")))
}

/// The address of a unix socket: a path, or `@` and an abstract name.
fn unix(path: &str) -> io::Result<SocketAddr> {
    match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(path),
    }
}

/// Runs a program to its end.
fn run(mut program: Command) -> io::Result<()> {
    program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    program.status().map(drop)
}

/// What is done to a path, if it is that.
fn on_path(what: &str, path: &str, act: &Value) -> Option<io::Result<()>> {
    let to = || text(act, "to");
    Some(match what {
        "exec" => run(Command::new(path)),
        "file-read" => File::open(path).map(drop),
        "file-write" => OpenOptions::new().write(true).open(path).map(drop),
        "file-make" => OpenOptions::new().write(true).create_new(true).open(path).map(drop),
        "file-truncate" => sys::on_path(libc::SYS_truncate, None, path, 0, 0).map(drop),
        "file-delete" => fs::remove_file(path),
        "file-rename" => to().and_then(|to| fs::rename(path, to)),
        "file-link" => to().and_then(|to| fs::hard_link(path, to)),
        "file-symlink" => to().and_then(|to| symlink(to, path)),
        "file-chmod" => fs::set_permissions(path, Permissions::from_mode(0o644)),
        "file-chown" => chown(path, Some(0), Some(0)),
        "file-uring" => Ring::new().and_then(|ring| ring.open(path)).map(drop),
        "dir-make" => fs::create_dir(path),
        "dir-delete" => fs::remove_dir(path),
        "dir-list" => fs::read_dir(path).map(drop),
        "unix" => unix(path).and_then(|to| UnixStream::connect_addr(&to)).map(drop),
        "unix-datagram" => UnixDatagram::unbound()
            .and_then(|socket| socket.send_to_addr(b"datagram", &unix(path)?))
            .map(drop),
        _ => return None,
    })
}

/// Runs a program that no file system holds: a copy of `path` in memory.
fn from_memory(path: &str) -> io::Result<()> {
    let memory = sys::memfd("program")?;
    sys::write(memory.as_raw_fd(), &fs::read(path)?)?;
    run(Command::new(format!("/proc/self/fd/{}", memory.as_raw_fd())))
}

/// Looks into the memory of a child.
fn look_into_child() -> io::Result<()> {
    let child = sys::fork(|| {
        sys::sleep_us(20_000_000);
        0
    })?;
    let looked = File::open(format!("/proc/{child}/mem")).map(drop);
    sys::kill(child, libc::SIGKILL)?;
    // What it says does not matter.
    let _ended = sys::wait(child);
    looked
}

/// Does an act, if it is one of these.
pub fn act(act: &Value) -> Option<io::Result<String>> {
    let what = act["do"].as_str()?;
    let number = |key: &str| act[key].as_u64().unwrap_or_default();
    let done = match what {
        "exec-memory" => text(act, "path").and_then(from_memory),
        "look" => look_into_child(),
        "mount" => text(act, "path").and_then(|at| sys::mount("none", at, Some("tmpfs"), 0)),
        // BPF_PROG_GET_NEXT_ID
        "bpf" => sys::bpf(11, &mut [0; 16]).map(drop),
        "socket" => {
            let call = [number("family"), libc::SOCK_RAW as u64, 0, 0];
            sys::plain(libc::SYS_socket, call).map(|fd| sys::close_raw(fd as u32))
        }
        "kill" => sys::kill(number("pid") as u32, number("signal") as i32),
        "memory" => File::open(format!("/proc/{}/mem", number("pid"))).map(drop),
        _ => text(act, "path")
            .and_then(|path| on_path(what, path, act).unwrap_or(Err(io::ErrorKind::Unsupported.into()))),
    };
    match done {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => None,
        done => Some(done.map(|()| "ok".into())),
    }
}
