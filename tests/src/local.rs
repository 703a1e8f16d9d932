//! Acts of a server that stay on its host: files, programs, unix sockets, other processes.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
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

/// Makes a process the owner of what happens at a pipe, and lets something happen: it gets that signal.
fn signal_by_pipe(pid: u64, signal: u64) -> io::Result<()> {
    let (reader, mut writer) = io::pipe()?;
    let fd = reader.as_raw_fd() as u64;
    sys::plain(libc::SYS_fcntl, [fd, libc::F_SETOWN as u64, pid, 0])?;
    // F_SETSIG
    sys::plain(libc::SYS_fcntl, [fd, 10, signal, 0])?;
    sys::plain(libc::SYS_fcntl, [fd, libc::F_SETFL as u64, libc::O_ASYNC as u64, 0])?;
    writer.write_all(b"x")
}

/// Signals by way of a pidfd.
fn signal_by_pidfd(pid: u64, signal: u64) -> io::Result<()> {
    let fd = sys::plain(libc::SYS_pidfd_open, [pid, 0, 0, 0])? as u64;
    let done = sys::plain(libc::SYS_pidfd_send_signal, [fd, signal, 0, 0]);
    sys::close_raw(fd as u32);
    done.map(drop)
}

/// Takes a descriptor out of another process.
fn take_fd(pid: u64) -> io::Result<()> {
    let fd = sys::plain(libc::SYS_pidfd_open, [pid, 0, 0, 0])? as u64;
    let taken = sys::plain(libc::SYS_pidfd_getfd, [fd, 0, 0, 0]);
    sys::close_raw(fd as u32);
    taken.map(|taken| sys::close_raw(taken as u32))
}

/// Traces a process until this one ends. It is not stopped by that.
fn trace(pid: u64) -> io::Result<()> {
    // PTRACE_SEIZE
    sys::plain(libc::SYS_ptrace, [0x4206, pid, 0, 0]).map(drop)
}

/// A descriptor of a BPF object, by a command of bpf(2) and what that takes first.
fn object(command: u64, first: u64) -> io::Result<()> {
    let mut attr = [0; 16];
    attr[0] = first;
    sys::bpf(command as i32, &mut attr).map(|fd| sys::close_raw(fd as u32))
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
        "signal-pipe" => signal_by_pipe(number("pid"), number("signal")),
        "signal-pidfd" => signal_by_pidfd(number("pid"), number("signal")),
        "take-fd" => take_fd(number("pid")),
        "trace" => trace(number("pid")),
        "same-limit" => sys::same_limit(number("pid") as u32),
        // PRIO_PROCESS
        "nice" => sys::plain(libc::SYS_setpriority, [0, number("pid"), -5i64 as u64, 0]).map(drop),
        // IOPRIO_WHO_PROCESS; class best effort, level 4
        "ioprio" => sys::plain(libc::SYS_ioprio_set, [1, number("pid"), 2 << 13 | 4, 0]).map(drop),
        "object" => object(number("command"), number("id")),
        "pinned" => text(act, "path").and_then(|path| sys::pinned_map(path.as_ref())).map(drop),
        "write-text" => {
            let write = |path| OpenOptions::new().write(true).open(path);
            text(act, "path").and_then(write).and_then(|mut f| f.write_all(text(act, "text")?.as_bytes()))
        }
        "mount-over" => text(act, "path").and_then(|at| sys::mount("none", at, Some("tmpfs"), 0)),
        "umount" => text(act, "path")
            .and_then(|at| sys::on_path(libc::SYS_umount2, None, at, libc::MNT_DETACH as u64, 0).map(drop)),
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
