//! The tools by name.

use std::io;

use crate::{files, kernel, log::Call, network, process, timing};

/// What a tool does.
pub(crate) type Tool = fn(&Call) -> io::Result<()>;

/// Tools that are more than an act stand in `server.rs`.
pub(crate) const TOOLS: &[(&str, Tool)] = &[
    ("noop", |_| Ok(())),
    // files
    ("open_read", files::open_read),
    ("open_write", files::open_write),
    ("open_many", files::open_many),
    ("open_directory", files::open_directory),
    ("open_symlink", files::open_symlink),
    ("open_relative", files::open_relative),
    ("open_variants", files::open_variants),
    ("open_deleted", files::open_deleted),
    ("unlink", files::unlink),
    ("rename", files::rename),
    ("mkdir", files::mkdir),
    ("rmdir", files::rmdir),
    ("symlink", files::symlink),
    ("link", files::link),
    ("chmod", files::chmod),
    ("chown", files::chown),
    ("truncate", files::truncate),
    ("mknod", files::mknod),
    // processes
    ("exec", process::exec),
    ("exec_script", process::exec_script),
    ("exec_memfd", process::exec_memfd),
    ("exec_deleted", process::exec_deleted),
    ("fork_only", process::fork_only),
    ("killed_child", process::killed_child),
    ("child_open", process::child_open),
    ("double_fork", process::double_fork),
    ("child_outlives", process::child_outlives),
    // sockets
    ("connect_tcp4", network::connect_tcp4),
    ("connect_tcp6", network::connect_tcp6),
    ("connect_mapped", network::connect_mapped),
    ("connect_refused", network::connect_refused),
    ("udp_send4", network::udp_send4),
    ("udp_send6", network::udp_send6),
    ("udp_connected", network::udp_connected),
    ("dns_connected", network::dns_connected),
    ("dns_unconnected", network::dns_unconnected),
    ("listen", network::listen),
    ("unix_connect", network::unix_connect),
    ("unix_abstract", network::unix_abstract),
    ("unix_refused", network::unix_refused),
    ("send_bytes", network::send_bytes),
    ("recv_bytes", network::recv_bytes),
    ("tls_hello", network::tls_hello),
    // the kernel
    ("uring_nop", kernel::uring_nop),
    ("uring_open", kernel::uring_open),
    ("ptrace", kernel::ptrace),
    ("memfd", kernel::memfd),
    ("setuid", kernel::setuid),
    ("mount", kernel::mount),
    ("bpf", kernel::bpf),
    ("unshare", kernel::unshare),
    ("setns", kernel::setns),
    ("compat32", kernel::compat32),
    ("rare_syscall", kernel::rare_syscall),
    // time and threads
    ("threads", timing::threads),
    ("parallel_sleep", timing::parallel_sleep),
    ("late_work", timing::late_work),
    ("late_sleeper", timing::late_sleeper),
    ("background_timer", timing::background_timer),
    ("stop_timer", timing::stop_timer),
    ("burn_cpu", timing::burn_cpu),
    ("alloc", timing::alloc),
];
