//! Files: what is opened, made, removed, renamed, changed. The hooks of paths, not of inodes: they know the mount.

use abi::{paths::access, run};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use super::{
    ALLOW, arg,
    judge::{bit, lsm_path},
    ours,
    place::lsm_guard,
    said,
};
use crate::kernel::read;

const FMODE_READ: u32 = 1;
const FMODE_WRITE: u32 = 2;
/// The kernel itself opens a program or its loader. Users cannot set it.
const FMODE_EXEC: u32 = 0x20;
const O_CREAT: u32 = 0o100;
const O_TRUNC: u32 = 0o1000;
const RENAME_EXCHANGE: u64 = 2;

const READ: u64 = bit(access::READ);
const WRITE: u64 = bit(access::WRITE);
const DELETE: u64 = bit(access::DELETE);
const CHANGE: u64 = bit(access::CHANGE);

/// Judges what is done to the name `dentry` on the mount `mnt`.
#[inline(always)]
fn on(what: u64, dentry: u64, mnt: u64) -> u64 {
    if what & (WRITE | DELETE | CHANGE) != 0 && lsm_guard(what, dentry, mnt) != 0 {
        return 1;
    }
    lsm_path(what, dentry, mnt)
}

/// A `struct path`.
#[inline(always)]
fn on_path(what: u64, path: u64) -> i32 {
    let path = path as usize;
    said(on(what, read(path + off!(path_dentry)), read(path + off!(path_mnt))))
}

/// A name in a directory that is given as a `struct path`.
#[inline(always)]
fn in_dir(what: u64, ctx: &LsmContext) -> i32 {
    said(on(what, arg(ctx, 1), read(arg(ctx, 0) as usize + off!(path_mnt))))
}

/// (file)
#[lsm(hook = "file_open")]
pub fn lsm_file_open(ctx: LsmContext) -> i32 {
    if !ours(run::LSM_FILE) {
        return ALLOW;
    }
    let file = arg(&ctx, 0) as usize;
    let flags: u32 = read(file + off!(file_flags));
    if flags & FMODE_EXEC != 0 {
        return ALLOW;
    }
    let mode: u32 = read(file + off!(file_mode));
    let mut what = 0;
    if mode & FMODE_READ != 0 {
        what |= READ;
    }
    if mode & FMODE_WRITE != 0 || flags & (O_CREAT | O_TRUNC) != 0 {
        what |= WRITE;
    }
    on_path(what, (file + off!(file_path)) as u64)
}

/// (directory, dentry)
#[lsm(hook = "path_unlink")]
pub fn lsm_unlink(ctx: LsmContext) -> i32 {
    if !ours(run::LSM_FILE) {
        return ALLOW;
    }
    in_dir(DELETE, &ctx)
}

/// (directory, dentry)
#[lsm(hook = "path_rmdir")]
pub fn lsm_rmdir(ctx: LsmContext) -> i32 {
    if !ours(run::LSM_FILE) {
        return ALLOW;
    }
    in_dir(DELETE, &ctx)
}

/// (directory, dentry, mode, device): also what open makes
#[lsm(hook = "path_mknod")]
pub fn lsm_mknod(ctx: LsmContext) -> i32 {
    if !ours(run::LSM_FILE) {
        return ALLOW;
    }
    in_dir(WRITE, &ctx)
}

/// (directory, dentry, mode)
#[lsm(hook = "path_mkdir")]
pub fn lsm_mkdir(ctx: LsmContext) -> i32 {
    if !ours(run::LSM_FILE) {
        return ALLOW;
    }
    in_dir(WRITE, &ctx)
}

/// (directory, dentry, target)
#[lsm(hook = "path_symlink")]
pub fn lsm_symlink(ctx: LsmContext) -> i32 {
    if !ours(run::LSM_FILE) {
        return ALLOW;
    }
    in_dir(WRITE, &ctx)
}

/// (old dentry, new directory, new dentry): the old name's bytes get another name
#[lsm(hook = "path_link")]
pub fn lsm_link(ctx: LsmContext) -> i32 {
    if !ours(run::LSM_FILE) {
        return ALLOW;
    }
    let mnt: u64 = read(arg(&ctx, 1) as usize + off!(path_mnt));
    if on(READ, arg(&ctx, 0), mnt) != 0 {
        return said(1);
    }
    said(on(WRITE, arg(&ctx, 2), mnt))
}

/// (old directory, old dentry, new directory, new dentry, flags from 5.19 on; before that it is called twice for an exchange)
#[lsm(hook = "path_rename")]
pub fn lsm_rename(ctx: LsmContext) -> i32 {
    if !ours(run::LSM_FILE) {
        return ALLOW;
    }
    let mnt: u64 = read(arg(&ctx, 0) as usize + off!(path_mnt));
    let (old, new) = (arg(&ctx, 1), arg(&ctx, 3));
    let both = if arg(&ctx, 4) & RENAME_EXCHANGE != 0 { DELETE | WRITE } else { 0 };
    if on(DELETE | both, old, mnt) != 0 {
        return said(1);
    }
    said(on(WRITE | both, new, mnt))
}

/// (path)
#[lsm(hook = "path_truncate")]
pub fn lsm_truncate(ctx: LsmContext) -> i32 {
    if !ours(run::LSM_FILE) {
        return ALLOW;
    }
    on_path(WRITE, arg(&ctx, 0))
}

/// (path, mode)
#[lsm(hook = "path_chmod")]
pub fn lsm_chmod(ctx: LsmContext) -> i32 {
    if !ours(run::LSM_FILE) {
        return ALLOW;
    }
    on_path(CHANGE, arg(&ctx, 0))
}

/// (path, user, group)
#[lsm(hook = "path_chown")]
pub fn lsm_chown(ctx: LsmContext) -> i32 {
    if !ours(run::LSM_FILE) {
        return ALLOW;
    }
    on_path(CHANGE, arg(&ctx, 0))
}
