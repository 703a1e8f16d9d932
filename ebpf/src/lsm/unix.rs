//! Unix sockets that are connected to or sent to, by the file that they are bound to, or their abstract name.

use abi::{paths::access, run};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use super::{
    ALLOW, arg,
    judge::{bit, lsm_abstract, lsm_path},
    ours, said,
};
use crate::kernel::read;

/// (own sock, peer's sock, new sock)
#[lsm(hook = "unix_stream_connect")]
pub fn lsm_unix_connect(ctx: LsmContext) -> i32 {
    if !ours(run::LSM_UNIX) {
        return ALLOW;
    }
    said(to(arg(&ctx, 1) as usize))
}

/// (own socket, peer's socket): a datagram goes there
#[lsm(hook = "unix_may_send")]
pub fn lsm_unix_send(ctx: LsmContext) -> i32 {
    if !ours(run::LSM_UNIX) {
        return ALLOW;
    }
    said(to(read(arg(&ctx, 1) as usize + off!(socket_sk))))
}

#[inline(always)]
fn to(sk: usize) -> u64 {
    let path = sk + off!(unix_path);
    let dentry: u64 = read(path + off!(path_dentry));
    if dentry != 0 {
        return lsm_path(bit(access::UNIX), dentry, read(path + off!(path_mnt)));
    }
    let address: usize = read(sk + off!(unix_addr));
    if address == 0 {
        // A pair: whoever has it, has it.
        return 0;
    }
    let len: u32 = read(address + off!(unix_address_len));
    // Two questions: of one, the compiler would leave no bounds that a verifier finds.
    if len < 3 {
        return 0;
    }
    if len > 110 {
        return 0;
    }
    // Family, and the NUL that makes it abstract.
    let name = address + off!(unix_address_name) + 3;
    lsm_abstract(sk as u64, name as u64, u64::from(len) - 3)
}
