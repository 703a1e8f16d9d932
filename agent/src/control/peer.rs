//! Who is at the other end of a connection, as the kernel knew it when the connection was made.

use std::{
    fs,
    io::{self, Read as _},
    mem::size_of,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    sync::Arc,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

/// Most groups of a user that are looked at; the kernel allows 65536.
const MAX_GROUPS: usize = 4096;

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    /// 0 when it lives in a PID namespace that we cannot see.
    pub(crate) pid: u32,
    /// Its executable, for the audit.
    pub(crate) exe: Option<String>,
    /// Keeps the process apart from a later one with the same number.
    handle: Option<Arc<OwnedFd>>,
}

impl Peer {
    /// Asks the kernel. Everything but the executable dates from the moment of the connection, so
    /// it cannot be changed by an exec, a setuid or an exit that came later.
    pub(crate) fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let credentials = rustix::net::sockopt::socket_peercred(socket)?;
        let (uid, gid) = (credentials.uid.as_raw(), credentials.gid.as_raw());
        let pid = u32::try_from(credentials.pid.as_raw_nonzero().get()).unwrap_or(0);
        let handle = handle(socket, pid, uid);
        let exe = handle.as_ref().and_then(|_| executable(pid));
        Ok(Self { uid, gid, groups: groups(socket)?, pid, exe, handle: handle.map(Arc::new) })
    }

    /// Whether it is still the process that connected: what `/proc` says about its number is about
    /// it only while this holds, before and after the look.
    pub(crate) fn alive(&self) -> bool {
        let Some(handle) = &self.handle else {
            return false;
        };
        let mut fds = [PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A pidfd turns readable when its process ends.
        matches!(poll(&mut fds, Some(&now)), Ok(0))
    }

    /// Whether it belongs to a group.
    pub(crate) fn in_group(&self, group: u32) -> bool {
        self.gid == group || self.groups.contains(&group)
    }

    #[cfg(test)]
    pub(crate) fn made_up(uid: u32, gid: u32, groups: &[u32]) -> Self {
        Self { uid, gid, groups: groups.to_vec(), pid: 4242, exe: None, handle: None }
    }
}

/// A handle of the process that connected; kernels before 6.5 only tell its number.
fn handle(socket: BorrowedFd<'_>, pid: u32, uid: u32) -> Option<OwnedFd> {
    match peer_pidfd(socket) {
        Ok(handle) => Some(handle),
        Err(e) if e.raw_os_error() == Some(libc::ENOPROTOOPT) => by_number(pid, uid),
        // It is gone already.
        Err(_) => None,
    }
}

/// The handle is good only when the process has the right user and has not been replaced while it
/// was opened (its start time is the same before and after).
fn by_number(pid: u32, uid: u32) -> Option<OwnedFd> {
    let started = super::lineage::started(pid)?;
    let handle = pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()?;
    let same = super::lineage::started(pid)? == started && effective_uid(pid)? == uid;
    same.then_some(handle)
}

fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut length = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(io::Error::other)?;
    // SAFETY: `fd` has room for the `length` bytes that the kernel may write.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    } != 0;
    if failed {
        return Err(io::Error::last_os_error());
    }
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Supplementary groups at the moment of the connection (unlike those in `/proc`).
fn groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; MAX_GROUPS];
    let room = groups.len() * size_of::<u32>();
    let mut length = libc::socklen_t::try_from(room).map_err(io::Error::other)?;
    // SAFETY: `groups` has room for the `length` bytes that the kernel may write.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    } != 0;
    if failed {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(usize::try_from(length).unwrap_or(0) / size_of::<u32>());
    Ok(groups)
}

fn effective_uid(pid: u32) -> Option<u32> {
    let mut text = String::new();
    fs::File::open(format!("/proc/{pid}/status")).ok()?.take(1 << 16).read_to_string(&mut text).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn executable(pid: u32) -> Option<String> {
    Some(fs::read_link(format!("/proc/{pid}/exe")).ok()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_taken_only_for_the_right_users_process() -> io::Result<()> {
        let uid = rustix::process::geteuid().as_raw();
        assert!(by_number(std::process::id(), uid).is_some());
        assert!(by_number(std::process::id(), uid + 1).is_none());
        let mut child = std::process::Command::new("true").spawn()?;
        child.wait()?;
        assert!(by_number(child.id(), uid).is_none());
        assert!(by_number(0, uid).is_none());
        Ok(())
    }
}
