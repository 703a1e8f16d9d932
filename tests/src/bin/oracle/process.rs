//! Acts with processes.

use std::{ffi::c_int, io, os::fd::AsRawFd as _};

use e2e::{sys, truth::Act};
use engine::output::{PathOpKind, SyscallAbi};

use crate::{log::Call, ready::TINY};

/// Forks, and says so. Returns the time before, and the child.
pub(crate) fn forked(call: &Call, child: impl FnOnce() -> c_int) -> io::Result<(u64, u32)> {
    let at = sys::boot_ns();
    let child = sys::fork(child)?;
    call.did(at, sys::pid(), 1, Act::Fork { child })?;
    Ok((at, child))
}

/// Waits for a child, and says how it ended.
pub(crate) fn reaped(call: &Call, at: u64, child: u32) -> io::Result<()> {
    let status = sys::wait(child)?;
    let signal = (status & 0x7f) as u32;
    let act = if signal == 0 {
        Act::Exit { code: Some((status >> 8) as u32), signal: None }
    } else {
        Act::Exit { code: None, signal: Some(signal) }
    };
    call.did(at, child, 1, act)
}

/// Runs `act` in a child; its result is the exit code.
pub(crate) fn in_child(call: &Call, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let (at, child) = forked(call, || i32::from(act().is_err()))?;
    reaped(call, at, child)
}

fn spawned(call: &Call, path: &str, argv: &[&str], exec: Act, opens: &[String]) -> io::Result<()> {
    let at = sys::boot_ns();
    let child = sys::spawn(path, argv, call.env.ready.null())?;
    call.did(at, sys::pid(), 1, Act::Fork { child })?;
    call.did(at, child, 1, exec)?;
    for path in opens {
        call.did(at, child, 1, Act::open_read(path))?;
    }
    reaped(call, at, child)
}

fn owned(argv: &[&str]) -> Vec<String> {
    argv.iter().map(|&a| a.to_owned()).collect()
}

pub(crate) fn exec(call: &Call) -> io::Result<()> {
    let ready = &call.env.ready;
    let argv = ["true", "--serial", &call.serial.to_string()];
    let exec = Act::Exec {
        path: ready.bin_true.clone(),
        argv: owned(&argv),
        script: None,
        memfd: false,
        deleted: false,
    };
    spawned(call, "/bin/true", &argv, exec, &ready.loader)
}

pub(crate) fn exec_script(call: &Call) -> io::Result<()> {
    let ready = &call.env.ready;
    let script = call.env.dir.join("script").display().to_string();
    let serial = call.serial.to_string();
    let exec = Act::Exec {
        path: ready.shell.clone(),
        argv: owned(&["/bin/sh", &script, &serial]),
        script: Some(script.clone()),
        memfd: false,
        deleted: false,
    };
    let mut opens = ready.loader.clone();
    opens.push(script.clone());
    spawned(call, &script, &["script", &serial], exec, &opens)
}

/// Executes what `fd` holds.
fn exec_fd(call: &Call, fd: &impl std::os::fd::AsRawFd, memfd: bool, path: &str) -> io::Result<()> {
    let serial = sys::c(&call.serial.to_string())?;
    let argv = [c"tiny", serial.as_c_str()];
    let (at, child) = forked(call, || {
        drop(sys::exec_fd(fd.as_raw_fd(), &argv));
        127
    })?;
    let argv = owned(&["tiny", &call.serial.to_string()]);
    let exec = Act::Exec { path: path.to_owned(), argv, script: None, memfd, deleted: true };
    call.did(at, child, 1, exec)?;
    reaped(call, at, child)
}

pub(crate) fn exec_memfd(call: &Call) -> io::Result<()> {
    let name = format!("tiny-{}", call.serial);
    call.will(Act::Special {
        name: "memfd_create".into(),
        abi: SyscallAbi::X86_64,
        text: Some(name.clone()),
    })?;
    let fd = sys::memfd(&name)?;
    sys::write(fd.as_raw_fd(), &TINY)?;
    exec_fd(call, &fd, true, &name)
}

pub(crate) fn exec_deleted(call: &Call) -> io::Result<()> {
    let path = call.path("tiny");
    call.will(Act::open_create(&path))?;
    let fd = sys::open(&path, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC)?;
    sys::write(fd.as_raw_fd(), &TINY)?;
    let op = |op| Act::PathOp { op, path: path.clone(), to: None };
    call.will(op(PathOpKind::Chmod))?;
    sys::plain(libc::SYS_fchmod, [sys::number(&fd), 0o700, 0, 0])?;
    drop(fd);
    call.will(Act::open_read(&path))?;
    let fd = sys::open(&path, libc::O_RDONLY)?;
    call.will(op(PathOpKind::Unlink))?;
    sys::on_path(libc::SYS_unlink, None, &path, 0, 0)?;
    exec_fd(call, &fd, false, &path)
}

pub(crate) fn fork_only(call: &Call) -> io::Result<()> {
    in_child(call, || Ok(()))
}

pub(crate) fn killed_child(call: &Call) -> io::Result<()> {
    let (at, child) = forked(call, || {
        let died = sys::kill(sys::pid(), libc::SIGKILL);
        i32::from(died.is_err())
    })?;
    reaped(call, at, child)
}

/// A child opens a file while the call is in flight.
pub(crate) fn child_open(call: &Call) -> io::Result<()> {
    in_child(call, || late_open(call, 0))
}

/// Sleeps, then makes a file of this call's own.
fn late_open(call: &Call, ms: u64) -> io::Result<()> {
    if ms > 0 {
        sys::sleep_us(ms * 1000);
    }
    let path = call.path("child");
    call.will(Act::open_create(&path))?;
    sys::open(&path, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC).map(drop)
}

/// The same, then leaves; for processes that nobody waits for.
fn late_open_and_exit(call: &Call, ms: u64) -> c_int {
    let opened = late_open(call, ms);
    let code = i32::from(opened.is_err());
    let exit = Act::Exit { code: Some(code as u32), signal: None };
    i32::from(call.will(exit).is_err()) | code
}

/// The child of a child, in a session of its own, acts after the reply.
pub(crate) fn double_fork(call: &Call) -> io::Result<()> {
    let ms = call.number("ms", 100);
    in_child(call, || {
        sys::plain(libc::SYS_setsid, [0; 4])?;
        forked(call, || late_open_and_exit(call, ms)).map(drop)
    })
}

/// A child acts after the reply; a thread waits for it.
pub(crate) fn child_outlives(call: &Call) -> io::Result<()> {
    let ms = call.number("ms", 60);
    let (_, child) = forked(call, || late_open_and_exit(call, ms))?;
    std::thread::spawn(move || sys::wait(child));
    Ok(())
}
