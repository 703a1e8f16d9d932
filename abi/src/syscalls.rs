//! Which system call numbers are what, for the x86-64 and the 32-bit table.

/// What the capture does with a call. [`class::COUNT`] calls are only counted.
pub mod class {
    /// Counted only.
    pub const COUNT: u8 = 0;
    /// Moves bytes out of a descriptor into a buffer.
    pub const READ: u8 = 1;
    /// The same with an iovec.
    pub const READV: u8 = 2;
    /// The same with a msghdr.
    pub const RECVMSG: u8 = 3;
    /// recvfrom: READ unless MSG_PEEK.
    pub const RECVFROM: u8 = 4;
    /// Moves bytes from a buffer into a descriptor.
    pub const WRITE: u8 = 5;
    /// The same with an iovec.
    pub const WRITEV: u8 = 6;
    /// The same with a msghdr.
    pub const SENDMSG: u8 = 7;
    /// Moves bytes between descriptors, or many messages: not followed.
    pub const MOVE: u8 = 8;
    /// open, creat, openat, openat2
    pub const OPEN: u8 = 9;
    /// Changes a name or metadata.
    pub const PATH: u8 = 10;
    /// connect (for unix sockets)
    pub const CONNECT: u8 = 11;
    /// listen
    pub const LISTEN: u8 = 12;
    /// accept, accept4
    pub const ACCEPT: u8 = 13;
    /// bind (for unix sockets)
    pub const BIND: u8 = 14;
    /// Deserves an event of its own.
    pub const SPECIAL: u8 = 15;
    /// pidfd_getfd: special, and may bring in a request channel.
    pub const GETFD: u8 = 16;
    /// socket: special if it is one below IP.
    pub const SOCKET: u8 = 17;
}

const fn table(rows: &[(u8, &[usize])]) -> [u8; 512] {
    let mut t = [class::COUNT; 512];
    let mut i = 0;
    while i < rows.len() {
        let (c, numbers) = rows[i];
        let mut j = 0;
        while j < numbers.len() {
            t[numbers[j]] = c;
            j += 1;
        }
        i += 1;
    }
    t
}

/// Classes of the x86-64 table (Linux `arch/x86/entry/syscalls/syscall_64.tbl`).
pub const NATIVE: [u8; 512] = table(&[
    (class::READ, &[0, 17]),
    (class::READV, &[19, 295, 327]),
    (class::RECVMSG, &[47]),
    (class::RECVFROM, &[45]),
    (class::WRITE, &[1, 18, 44]),
    (class::WRITEV, &[20, 296, 328]),
    (class::SENDMSG, &[46]),
    // sendfile, splice, tee, vmsplice, recvmmsg, sendmmsg, copy_file_range
    (class::MOVE, &[40, 275, 276, 278, 299, 307, 326]),
    (class::OPEN, &[2, 85, 257, 437]),
    (
        class::PATH,
        &[
            76, 77, 82, 83, 84, 86, 87, 88, 90, 91, 92, 93, 94, 133, 258, 259, 260, 263, 264, 265, 266, 268,
            316, 452,
        ],
    ),
    (class::CONNECT, &[42]),
    (class::LISTEN, &[50]),
    (class::ACCEPT, &[43, 288]),
    (class::BIND, &[49]),
    // ptrace; setuid setgid setreuid setregid setgroups setresuid setresgid setfsuid setfsgid
    // capset; personality; pivot_root chroot mount umount2; init_module delete_module finit_module;
    // keyctl; unshare; perf_event_open; setns; process_vm_readv process_vm_writev; seccomp;
    // memfd_create kexec_file_load bpf; userfaultfd; io_uring_setup io_uring_register; open_tree
    // move_mount fsopen fsmount; mount_setattr; memfd_secret
    (
        class::SPECIAL,
        &[
            101, 105, 106, 113, 114, 116, 117, 119, 122, 123, 126, 135, 155, 161, 165, 166, 175, 176, 250,
            272, 298, 308, 310, 311, 313, 317, 319, 320, 321, 323, 425, 427, 428, 429, 430, 432, 442, 447,
        ],
    ),
    (class::GETFD, &[438]),
    (class::SOCKET, &[41]),
]);

/// Classes of the 32-bit table (Linux `arch/x86/entry/syscalls/syscall_32.tbl`). Calls whose
/// structures differ in layout (iovec, msghdr) are MOVE: a channel that they touch is blind.
pub const COMPAT: [u8; 512] = table(&[
    (class::READ, &[3, 180]),
    (class::WRITE, &[4, 181]),
    // readv writev sendfile preadv pwritev recvmmsg splice tee vmsplice sendmmsg sendmsg sendto
    // recvfrom recvmsg preadv2 pwritev2 socketcall
    (
        class::MOVE,
        &[102, 145, 146, 187, 239, 313, 315, 316, 333, 334, 337, 345, 369, 370, 371, 372, 378, 379],
    ),
    (class::OPEN, &[5, 8, 295, 437]),
    (
        class::SPECIAL,
        &[
            21, 22, 23, 26, 46, 52, 61, 70, 71, 80, 128, 136, 138, 139, 164, 170, 185, 203, 204, 206, 208,
            210, 213, 214, 215, 216, 217, 310, 336, 346, 347, 348, 350, 354, 356, 357, 358, 374, 425, 427,
        ],
    ),
    (class::SOCKET, &[359]),
]);
