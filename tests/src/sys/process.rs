//! System calls that make, replace, signal and await processes.

use std::{
    ffi::{CStr, CString, c_int, c_long},
    io,
    os::fd::RawFd,
};

use super::{c, check};

/// fork(2): runs `child` in the child and exits with what it returns.
///
/// # Errors
/// errno.
pub fn fork(child: impl FnOnce() -> c_int) -> io::Result<u32> {
    // SAFETY: glibc makes malloc usable in the child; the child runs `child` on this thread alone
    // and leaves by _exit, so no destructor or exit handler of the parent runs twice.
    unsafe {
        match libc::fork() {
            0 => libc::_exit(child()),
            pid => check(c_long::from(pid)).map(|pid| pid as u32),
        }
    }
}

/// waitpid: the raw status.
///
/// # Errors
/// errno.
pub fn wait(pid: u32) -> io::Result<c_int> {
    let mut status = 0;
    // SAFETY: the pointer is to a live int.
    check(c_long::from(unsafe { libc::waitpid(pid as c_int, &raw mut status, 0) }))?;
    Ok(status)
}

/// Sends a signal.
///
/// # Errors
/// errno.
pub fn kill(pid: u32, signal: c_int) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(c_long::from(unsafe { libc::kill(pid as c_int, signal) })).map(drop)
}

/// Gives a process the limit of core files that it has.
///
/// # Errors
/// errno.
pub fn same_limit(pid: u32) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let of = pid as c_int;
    // SAFETY: the pointers are to a live object, or null.
    unsafe {
        check(c_long::from(libc::prlimit(of, libc::RLIMIT_CORE, std::ptr::null(), &raw mut limit)))?;
        check(c_long::from(libc::prlimit(of, libc::RLIMIT_CORE, &raw const limit, std::ptr::null_mut())))
            .map(drop)
    }
}

/// Programs that this process executes cannot have a capability any more.
///
/// # Errors
/// errno.
pub fn drop_capability(capability: u32) -> io::Result<()> {
    // SAFETY: numbers only.
    check(c_long::from(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) })).map(drop)
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    let ends = std::iter::once(std::ptr::null());
    texts.iter().map(|t| t.as_ptr()).chain(ends).collect()
}

/// posix_spawn with an empty environment; 0, 1 and 2 become `null`.
///
/// # Errors
/// errno.
pub fn spawn(path: &str, argv: &[&str], null: RawFd) -> io::Result<u32> {
    let path = c(path)?;
    let argv: Vec<CString> = argv.iter().map(|a| c(a)).collect::<io::Result<_>>()?;
    let argv = (pointers(&argv), argv);
    let env: [*mut libc::c_char; 1] = [std::ptr::null_mut()];
    let mut pid = 0;
    // SAFETY: every pointer is to a live, initialised object; the arrays end with NULL; the file
    // actions are destroyed once.
    let error = unsafe {
        let mut actions = std::mem::zeroed::<libc::posix_spawn_file_actions_t>();
        libc::posix_spawn_file_actions_init(&raw mut actions);
        for fd in 0..3 {
            libc::posix_spawn_file_actions_adddup2(&raw mut actions, null, fd);
        }
        let error = libc::posix_spawn(
            &raw mut pid,
            path.as_ptr(),
            &raw const actions,
            std::ptr::null(),
            argv.0.as_ptr().cast(),
            env.as_ptr(),
        );
        libc::posix_spawn_file_actions_destroy(&raw mut actions);
        error
    };
    if error == 0 { Ok(pid as u32) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// execveat(fd, "", argv, {}, AT_EMPTY_PATH), again while the file is busy. Returns only on error.
#[must_use]
pub fn exec_fd(fd: RawFd, argv: &[&CStr]) -> io::Error {
    let ends = std::iter::once(std::ptr::null());
    let argv: Vec<_> = argv.iter().map(|a| a.as_ptr()).chain(ends).collect();
    let env: [*const libc::c_char; 1] = [std::ptr::null()];
    loop {
        // SAFETY: the arrays end with NULL and live through the call.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                fd,
                c"".as_ptr(),
                argv.as_ptr(),
                env.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ETXTBSY) {
            return error;
        }
        sleep_us(200);
    }
}

/// Sleeps; safe in a forked child.
pub fn sleep_us(us: u64) {
    std::thread::sleep(std::time::Duration::from_micros(us));
}
