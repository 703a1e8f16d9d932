//! Reading kernel and user memory at offsets resolved from BTF.

use abi::Offsets;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user};

/// Filled by the agent before load.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets::UNKNOWN;

/// Filled by the agent before load.
#[unsafe(no_mangle)]
pub static SETTINGS: abi::Settings =
    abi::Settings { settle_ns: 20_000_000, agent: 0, term: 0, mount_ns: 0, _pad: 0 };

/// One offset. Volatile: the value in the object is not the one at run time.
#[macro_export]
macro_rules! off {
    ($field:ident) => {
        $crate::kernel::offset(&$crate::kernel::OFFSETS.$field)
    };
}

/// See [`off!`].
#[inline(always)]
pub fn offset(field: &u32) -> usize {
    // SAFETY: a reference to a plain integer.
    unsafe { core::ptr::read_volatile(field) as usize }
}

/// An AND that LLVM can neither drop nor move: the verifier sees it on the register that is used.
#[macro_export]
macro_rules! mask {
    ($x:expr, $m:literal) => {{
        let mut v: u64 = $x as u64;
        #[expect(clippy::allow_attributes, reason = "used inside and outside unsafe blocks")]
        #[allow(unused_unsafe, reason = "used inside and outside unsafe blocks")]
        // SAFETY: one register in, the same one out.
        unsafe { core::arch::asm!(concat!("{0} &= ", $m), inout(reg) v, options(pure, nomem, nostack)) };
        v
    }};
}

/// Reads a value from kernel memory; zero if the address is bad.
#[inline(always)]
pub fn read<T: Copy>(address: usize) -> T {
    let mut value = core::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: the helper checks the address and fills `value`, or leaves it zeroed; all T used here
    // are plain integers or arrays of them.
    unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const _);
        value.assume_init()
    }
}

/// Reads a value from the memory of the current process.
#[inline(always)]
pub fn read_user<T: Copy>(address: usize) -> Option<T> {
    let mut value = core::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: as in `read`.
    unsafe {
        let failed =
            bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const _);
        if failed != 0 { None } else { Some(value.assume_init()) }
    }
}

/// File types of an inode's mode.
pub const S_IFMT: u32 = 0o170_000;
/// A pipe or fifo.
pub const S_IFIFO: u32 = 0o010_000;
/// A socket.
pub const S_IFSOCK: u32 = 0o140_000;
/// Address family of unix sockets.
pub const AF_UNIX: u32 = 1;
/// Address family of IPv4.
pub const AF_INET: u32 = 2;
/// Address family of IPv6.
pub const AF_INET6: u32 = 10;

/// The open file behind a descriptor of the current task, 0 if there is none.
#[inline(always)]
pub fn file_of(task: usize, fd: u32) -> usize {
    let files: usize = read(task + off!(task_files));
    if files == 0 {
        return 0;
    }
    let fdt: usize = read(files + off!(files_fdt));
    let max: u32 = read(fdt + off!(fdt_max_fds));
    if fd >= max {
        return 0;
    }
    let array: usize = read(fdt + off!(fdt_fd));
    read(array + fd as usize * 8)
}

/// The `struct sock` of a socket's file.
#[inline(always)]
pub fn sock_of(file: usize) -> usize {
    let socket: usize = read(file + off!(file_private));
    read(socket + off!(socket_sk))
}

/// Address family of a `struct sock`.
#[inline(always)]
pub fn family_of(sk: usize) -> u32 {
    u32::from(read::<u16>(sk + off!(sk_family)))
}

/// Channel key of an open file: its inode number if it is a pipe, the same with the top bit set if
/// it is a unix stream socket, else 0.
#[inline(always)]
pub fn channel_key(file: usize) -> u64 {
    if file == 0 {
        return 0;
    }
    let inode: usize = read(file + off!(file_inode));
    let mode: u32 = u32::from(read::<u16>(inode + off!(inode_mode)));
    let kind = mode & S_IFMT;
    if kind == S_IFIFO {
        return read(inode + off!(inode_ino));
    }
    if kind == S_IFSOCK {
        let socket: usize = read(file + off!(file_private));
        let stream: u16 = read(socket + off!(socket_type));
        let sk: usize = read(socket + off!(socket_sk));
        if stream == 1 && family_of(sk) == AF_UNIX {
            return read::<u64>(inode + off!(inode_ino)) | 1 << 63;
        }
    }
    0
}
