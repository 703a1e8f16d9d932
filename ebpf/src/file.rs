//! Opened files, and changes of names and metadata.

use abi::{AggKey, Open, PathOp, flag, kind, path_op};

use crate::{
    kernel::{channel_key, file_of, read, read_user},
    maps::TREES,
    path::{append_cwd, append_file},
    record::{
        Aggregated, CUT, Call, FAULT, SYSCALLS, Scratch, aggregate, aggregate_lost, append_user_text, count,
        new_id, scratch, submit,
    },
    syscall::{arg, begin_record},
};

/// O_CREAT | O_EXCL | O_TRUNC: the kernel does not keep them in the file's flags.
const CREATION_FLAGS: u64 = 0o100 | 0o200 | 0o1000;
const FMODE_WRITE: u32 = 2;

/// Flags as given to the call at work.
#[inline(always)]
fn given_flags(call: &Call) -> u64 {
    match (call.compat, call.nr) {
        (0, 2) | (1, 5) => arg(call, 1),
        (0, 257) | (1, 295) => arg(call, 2),
        // creat
        (0, 85) | (1, 8) => 0o1 | 0o100 | 0o1000,
        // openat2: struct open_how begins with the flags
        (_, 437) => read_user(arg(call, 2) as usize).unwrap_or(0),
        _ => 0,
    }
}

/// A descriptor was made: which file is behind it?
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn on_open(fd: u64) -> u64 {
    let Some(s) = scratch(SYSCALLS) else { return 0 };
    // SAFETY: the scratch buffer of this CPU.
    let call = unsafe { &(*s).call };
    let file = file_of(call.task as usize, fd as u32);
    if file == 0 {
        // Another thread closed it between the kernel's fd_install and now.
        count(abi::counter::NO_FILE, 1);
        return 0;
    }
    let inode: usize = read(file + off!(file_inode));
    let ino: u64 = read(inode + off!(inode_ino));
    let path = file + off!(file_path);
    let dentry: usize = read(path + off!(path_dentry));
    let mnt: usize = read(path + off!(path_mnt));
    let parent: usize = read(dentry + off!(dentry_parent));
    let name_hash: u32 = read(dentry + off!(dentry_name) + off!(qstr_hash));
    let kept: u32 = read(file + off!(file_flags));
    let flags = kept | (given_flags(call) & CREATION_FLAGS) as u32;
    let id = new_id(call.at, kind::OPEN);
    // The name's hash and parent are part of the key: a renamed file is another file here.
    let key = AggKey {
        tgid: call.tgid as u32,
        epoch: call.epoch as u32,
        kind: u32::from(kind::OPEN),
        sub: flags,
        words: [
            dentry as u64,
            mnt as u64,
            ino,
            u64::from(name_hash) << 32 | (parent as u64 >> 4) & 0xffff_ffff,
        ],
    };
    let forgery = forgery_possible(call, file);
    let mut agg_flags = 0;
    if forgery {
        crate::policy::jit::forged(call.tree);
    } else {
        let Aggregated::Record(flags) = aggregate(&key, id, 0, 0) else {
            return 0;
        };
        agg_flags = flags;
    }
    let sb: usize = read(inode + off!(inode_sb));
    // SAFETY: the scratch buffer of this CPU, larger than the record and its path.
    unsafe {
        let r = (&raw mut (*s).bytes).cast::<Open>();
        begin_record(&raw mut (*r).header, call, kind::OPEN, id, agg_flags);
        (*r).ino = ino;
        (*r).dev = read(sb + off!(sb_dev));
        (*r).flags = flags;
        (*r).mode = u32::from(read::<u16>(inode + off!(inode_mode)));
        (*r).nlink = read(inode + off!(inode_nlink));
        (*r).request_channel = u32::from(forgery);
        (*s).len = size_of::<Open>() as u64;
        let n = append_file(SYSCALLS, file);
        note_text(r.cast(), n);
        (*r).path_len = n as u32;
    }
    if submit(SYSCALLS, u64::from(forgery)) != 0 {
        aggregate_lost(&key, agg_flags);
    }
    0
}

/// Whether the file is the tree's own request channel, opened for writing.
#[inline(always)]
fn forgery_possible(call: &Call, file: usize) -> bool {
    let key = channel_key(file);
    if key == 0 {
        return false;
    }
    let mode: u32 = read(file + off!(file_mode));
    let Some(tree) = TREES.get_ptr(call.tree) else {
        return false;
    };
    // SAFETY: a live map value.
    // The client's end of a socketpair is another inode: fetched by pidfd_getfd, it is not seen here.
    mode & FMODE_WRITE != 0 && key == unsafe { (*tree).request } && key >> 63 == 0
}

/// Carries CUT and FAULT of a part into the record's header.
#[inline(always)]
fn note_text(h: *mut abi::Header, n: u64) {
    // SAFETY: the record at work.
    unsafe {
        if n & CUT != 0 {
            (*h).flags |= flag::TRUNCATED;
        }
        if n & FAULT != 0 {
            (*h).flags |= flag::FAULT;
        }
    }
}

// Where the parts of a path operation come from, four bits each: operation, base and name of the
// first path, base and name of the second, and the argument that is told.
const CWD: u32 = 5;
const NONE: u32 = 7;
/// The base is the open file itself (first argument), and there is no name.
const SELF: u32 = 8;

const fn spec(op: u32, base: u32, name: u32, base2: u32, name2: u32, arg: u32) -> u32 {
    op | base << 4 | name << 8 | base2 << 12 | name2 << 16 | arg << 20
}

/// Numbers of the x86-64 table.
#[inline(always)]
fn spec_of(nr: u64) -> u32 {
    match nr {
        76 => spec(path_op::TRUNCATE, CWD, 0, NONE, NONE, 1),
        77 => spec(path_op::TRUNCATE, SELF, NONE, NONE, NONE, 1),
        82 => spec(path_op::RENAME, CWD, 0, CWD, 1, NONE),
        83 => spec(path_op::MKDIR, CWD, 0, NONE, NONE, 1),
        84 => spec(path_op::RMDIR, CWD, 0, NONE, NONE, NONE),
        86 => spec(path_op::LINK, CWD, 0, CWD, 1, NONE),
        87 => spec(path_op::UNLINK, CWD, 0, NONE, NONE, NONE),
        88 => spec(path_op::SYMLINK, NONE, 0, CWD, 1, NONE),
        90 => spec(path_op::CHMOD, CWD, 0, NONE, NONE, 1),
        91 => spec(path_op::CHMOD, SELF, NONE, NONE, NONE, 1),
        92 | 94 => spec(path_op::CHOWN, CWD, 0, NONE, NONE, 1),
        93 => spec(path_op::CHOWN, SELF, NONE, NONE, NONE, 1),
        133 => spec(path_op::MKNOD, CWD, 0, NONE, NONE, 1),
        258 => spec(path_op::MKDIR, 0, 1, NONE, NONE, 2),
        259 => spec(path_op::MKNOD, 0, 1, NONE, NONE, 2),
        260 => spec(path_op::CHOWN, 0, 1, NONE, NONE, 2),
        263 => spec(path_op::UNLINK, 0, 1, NONE, NONE, 2),
        264 | 316 => spec(path_op::RENAME, 0, 1, 2, 3, NONE),
        265 => spec(path_op::LINK, 0, 1, 2, 3, NONE),
        266 => spec(path_op::SYMLINK, NONE, 0, 1, 2, NONE),
        268 | 452 => spec(path_op::CHMOD, 0, 1, NONE, NONE, 2),
        _ => 0,
    }
}

const AT_FDCWD: u32 = -100_i32 as u32;
const AT_REMOVEDIR: u64 = 0x200;

/// Appends the directory that a name is relative to; nothing for an absolute name.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn append_base(base: u64, name: u64) -> u64 {
    let Some(s) = scratch(SYSCALLS) else {
        return FAULT;
    };
    // SAFETY: the scratch buffer of this CPU.
    let call = unsafe { &(*s).call };
    let base = base as u32;
    if base == NONE {
        return 0;
    }
    if name != u64::from(NONE) && read_user::<u8>(arg(call, name) as usize) == Some(b'/') {
        return 0;
    }
    if base == CWD {
        return append_cwd(SYSCALLS, call.task as usize);
    }
    let fd = arg(call, u64::from(base & 7)) as u32;
    if base != SELF && fd == AT_FDCWD {
        return append_cwd(SYSCALLS, call.task as usize);
    }
    let file = file_of(call.task as usize, fd);
    if file == 0 {
        return FAULT;
    }
    append_file(SYSCALLS, file)
}

/// Appends a name as given.
#[inline(always)]
fn append_name(call: &Call, name: u32) -> u64 {
    if name == NONE { 0 } else { append_user_text(SYSCALLS, arg(call, u64::from(name))) }
}

/// unlink, rename, mkdir, chmod, ...: succeeded.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn on_path() -> u64 {
    let Some(s) = scratch(SYSCALLS) else { return 0 };
    // SAFETY: the scratch buffer of this CPU.
    let call = unsafe { &(*s).call };
    let spec = spec_of(call.nr);
    if spec == 0 {
        return 0;
    }
    path_record(s, call, spec)
}

#[inline(always)]
fn path_record(s: *mut Scratch, call: &Call, spec: u32) -> u64 {
    let (base, name) = (spec >> 4 & 15, spec >> 8 & 15);
    let (base2, name2) = (spec >> 12 & 15, spec >> 16 & 15);
    let arg_at = spec >> 20 & 15;
    let mut op = spec & 15;
    let (mut low, mut high) = (0, 0);
    if arg_at != NONE {
        let v = arg(call, u64::from(arg_at));
        low = v as u32;
        high = (v >> 32) as u32;
        if op == path_op::CHOWN {
            high = arg(call, u64::from(arg_at + 1)) as u32;
        }
        if op == path_op::UNLINK && v & AT_REMOVEDIR != 0 {
            op = path_op::RMDIR;
        }
    }
    // SAFETY: the scratch buffer of this CPU, larger than the record and its four parts.
    unsafe {
        let r = (&raw mut (*s).bytes).cast::<PathOp>();
        begin_record(&raw mut (*r).header, call, kind::PATH_OP, new_id(call.at, kind::PATH_OP), 0);
        (*r).op = op;
        (*r).arg = [low, high];
        (*r)._pad = 0;
        (*s).len = size_of::<PathOp>() as u64;
        let n = append_base(u64::from(base), u64::from(name));
        note_text(r.cast(), n);
        (*r).base_len = n as u32;
        let n = append_name(call, name);
        note_text(r.cast(), n);
        (*r).name_len = n as u32;
        let n = append_base(u64::from(base2), u64::from(name2));
        note_text(r.cast(), n);
        (*r).base2_len = n as u32;
        let n = append_name(call, name2);
        note_text(r.cast(), n);
        (*r).name2_len = n as u32;
    }
    submit(SYSCALLS, 0)
}
