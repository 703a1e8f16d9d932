//! Acts on files.

use std::{io, os::fd::AsRawFd as _};

use e2e::{sys, truth::Act};
use engine::output::PathOpKind;

use crate::log::Call;

const CREATE: i32 = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;

/// Makes a file, and says so.
fn make(call: &Call, path: &str) -> io::Result<()> {
    call.will(Act::open_create(path))?;
    sys::open(path, CREATE).map(drop)
}

fn op(call: &Call, op: PathOpKind, path: &str, to: Option<&str>) -> io::Result<()> {
    call.will(Act::PathOp { op, path: path.to_owned(), to: to.map(str::to_owned) })
}

fn directory(path: &str) -> Act {
    Act::Open {
        path: path.to_owned(),
        read: true,
        write: false,
        create: false,
        truncate: false,
        directory: true,
        deleted: false,
    }
}

pub(crate) fn open_read(call: &Call) -> io::Result<()> {
    let path = call.seed();
    call.will(Act::open_read(&path))?;
    sys::open(&path, libc::O_RDONLY).map(drop)
}

pub(crate) fn open_write(call: &Call) -> io::Result<()> {
    make(call, &call.path("written"))
}

pub(crate) fn open_many(call: &Call) -> io::Result<()> {
    let (path, n) = (call.seed(), call.number("n", 50));
    call.will_times(n, Act::open_read(&path))?;
    for _ in 0..n {
        drop(sys::open(&path, libc::O_RDONLY)?);
    }
    Ok(())
}

pub(crate) fn open_directory(call: &Call) -> io::Result<()> {
    let path = call.env.dir.display().to_string();
    call.will(directory(&path))?;
    sys::open(&path, libc::O_RDONLY | libc::O_DIRECTORY).map(drop)
}

/// The argument names a link; what is opened is its target.
pub(crate) fn open_symlink(call: &Call) -> io::Result<()> {
    let link = call.path("seed-link");
    let seed = call.seed_name();
    op(call, PathOpKind::Symlink, &seed, Some(&link))?;
    sys::on_paths(libc::SYS_symlink, false, &seed, &link)?;
    call.will(Act::open_read(&call.seed()))?;
    sys::open(&link, libc::O_RDONLY).map(drop)
}

/// The argument is relative to a descriptor, with dots.
pub(crate) fn open_relative(call: &Call) -> io::Result<()> {
    call.will(Act::open_read(&call.seed()))?;
    let dir = call.env.ready.dir.as_raw_fd();
    sys::open_at(dir, &format!("mnt/../{}", call.seed_name()), libc::O_RDONLY).map(drop)
}

/// open, creat and openat2 themselves.
pub(crate) fn open_variants(call: &Call) -> io::Result<()> {
    let (seed, made) = (call.seed(), call.path("creat"));
    call.will_times(2, Act::open_read(&seed))?;
    drop(sys::open_old(&seed, Some(libc::O_RDONLY))?);
    drop(sys::openat2(&seed, libc::O_RDONLY)?);
    call.will(Act::open_create(&made))?;
    sys::open_old(&made, None).map(drop)
}

/// Opens a file that has no name any more.
pub(crate) fn open_deleted(call: &Call) -> io::Result<()> {
    let path = call.path("deleted");
    call.will(Act::open_create(&path))?;
    let fd = sys::open(&path, CREATE)?;
    op(call, PathOpKind::Unlink, &path, None)?;
    sys::on_path(libc::SYS_unlink, None, &path, 0, 0)?;
    call.will(Act::Open {
        path,
        read: true,
        write: false,
        create: false,
        truncate: false,
        directory: false,
        deleted: true,
    })?;
    let again = format!("/proc/self/fd/{}", fd.as_raw_fd());
    sys::open(&again, libc::O_RDONLY).map(drop)
}

pub(crate) fn unlink(call: &Call) -> io::Result<()> {
    let (a, b) = (call.path("unlink"), call.path("unlinkat"));
    make(call, &a)?;
    make(call, &b)?;
    op(call, PathOpKind::Unlink, &a, None)?;
    sys::on_path(libc::SYS_unlink, None, &a, 0, 0)?;
    op(call, PathOpKind::Unlink, &b, None)?;
    sys::on_path(libc::SYS_unlinkat, Some(libc::AT_FDCWD), &b, 0, 0).map(drop)
}

pub(crate) fn rename(call: &Call) -> io::Result<()> {
    let (a, b, c) = (call.path("from"), call.path("via"), call.path("to"));
    make(call, &a)?;
    op(call, PathOpKind::Rename, &a, Some(&b))?;
    sys::on_paths(libc::SYS_rename, false, &a, &b)?;
    op(call, PathOpKind::Rename, &b, Some(&c))?;
    sys::on_paths(libc::SYS_renameat2, true, &b, &c).map(drop)
}

pub(crate) fn mkdir(call: &Call) -> io::Result<()> {
    let (a, b) = (call.path("mkdir"), call.path("mkdirat"));
    op(call, PathOpKind::Mkdir, &a, None)?;
    sys::on_path(libc::SYS_mkdir, None, &a, 0o700, 0)?;
    op(call, PathOpKind::Mkdir, &b, None)?;
    sys::on_path(libc::SYS_mkdirat, Some(libc::AT_FDCWD), &b, 0o700, 0).map(drop)
}

pub(crate) fn rmdir(call: &Call) -> io::Result<()> {
    for (stem, flag) in [("rmdir", None), ("rmdirat", Some(libc::AT_REMOVEDIR))] {
        let path = call.path(stem);
        op(call, PathOpKind::Mkdir, &path, None)?;
        sys::on_path(libc::SYS_mkdir, None, &path, 0o700, 0)?;
        op(call, PathOpKind::Rmdir, &path, None)?;
        match flag {
            None => sys::on_path(libc::SYS_rmdir, None, &path, 0, 0)?,
            Some(flag) => {
                let dir = Some(libc::AT_FDCWD);
                sys::on_path(libc::SYS_unlinkat, dir, &path, flag as u64, 0)?
            }
        };
    }
    Ok(())
}

pub(crate) fn symlink(call: &Call) -> io::Result<()> {
    let (a, b) = (call.path("symlink"), call.path("symlinkat"));
    op(call, PathOpKind::Symlink, "seed", Some(&a))?;
    sys::on_paths(libc::SYS_symlink, false, "seed", &a)?;
    op(call, PathOpKind::Symlink, "seed", Some(&b))?;
    sys::symlinkat("seed", &b)
}

pub(crate) fn link(call: &Call) -> io::Result<()> {
    let (seed, a, b) = (call.seed(), call.path("link"), call.path("linkat"));
    op(call, PathOpKind::Link, &seed, Some(&a))?;
    sys::on_paths(libc::SYS_link, false, &seed, &a)?;
    op(call, PathOpKind::Link, &seed, Some(&b))?;
    sys::on_paths(libc::SYS_linkat, true, &seed, &b).map(drop)
}

pub(crate) fn chmod(call: &Call) -> io::Result<()> {
    let path = call.path("chmod");
    call.will(Act::open_create(&path))?;
    let fd = sys::open(&path, CREATE)?;
    op(call, PathOpKind::Chmod, &path, None)?;
    sys::on_path(libc::SYS_chmod, None, &path, 0o640, 0)?;
    op(call, PathOpKind::Chmod, &path, None)?;
    sys::plain(libc::SYS_fchmod, [sys::number(&fd), 0o600, 0, 0])?;
    op(call, PathOpKind::Chmod, &path, None)?;
    sys::on_path(libc::SYS_fchmodat, Some(libc::AT_FDCWD), &path, 0o644, 0).map(drop)
}

pub(crate) fn chown(call: &Call) -> io::Result<()> {
    let path = call.path("chown");
    call.will(Act::open_create(&path))?;
    let fd = sys::open(&path, CREATE)?;
    op(call, PathOpKind::Chown, &path, None)?;
    sys::on_path(libc::SYS_chown, None, &path, 0, 0)?;
    op(call, PathOpKind::Chown, &path, None)?;
    sys::plain(libc::SYS_fchown, [sys::number(&fd), 0, 0, 0])?;
    op(call, PathOpKind::Chown, &path, None)?;
    sys::on_path(libc::SYS_lchown, None, &path, 0, 0)?;
    op(call, PathOpKind::Chown, &path, None)?;
    sys::on_path(libc::SYS_fchownat, Some(libc::AT_FDCWD), &path, 0, 0).map(drop)
}

pub(crate) fn truncate(call: &Call) -> io::Result<()> {
    let path = call.path("truncate");
    call.will(Act::open_create(&path))?;
    let fd = sys::open(&path, CREATE)?;
    op(call, PathOpKind::Truncate, &path, None)?;
    sys::on_path(libc::SYS_truncate, None, &path, 10, 0)?;
    op(call, PathOpKind::Truncate, &path, None)?;
    sys::plain(libc::SYS_ftruncate, [sys::number(&fd), 5, 0, 0]).map(drop)
}

pub(crate) fn mknod(call: &Call) -> io::Result<()> {
    let path = call.path("fifo");
    op(call, PathOpKind::Mknod, &path, None)?;
    let mode = u64::from(libc::S_IFIFO | 0o600);
    sys::on_path(libc::SYS_mknod, None, &path, mode, 0).map(drop)
}
