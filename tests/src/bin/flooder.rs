//! A server whose tool opens and connects as fast as it can, and counts what it did.
//!
//! `flood {seconds, workers, dir}`, with files f0 to f4095 in that directory -> `{"opens": n, "connects": n, "pids": [..]}`

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use e2e::{raw_server, sys};
use serde_json::{Value, json};

/// Files in the directory.
const FILES: u64 = 4096;

/// Opens a file and connects a datagram socket, in turn; every destination is met again only
/// after 2^20 others.
fn work(dir: &str, end: Instant, worker: u64) -> io::Result<(u64, u64)> {
    let (mut opens, mut connects) = (0u64, 0u64);
    while Instant::now() < end {
        for _ in 0..32 {
            let path = format!("{dir}/f{}", opens % FILES);
            drop(sys::open(&path, libc::O_RDONLY)?);
            opens += 1;
            let [.., a, b, c] = (connects % (1 << 20) + (worker << 20)).to_be_bytes();
            let to = SocketAddrV4::new(Ipv4Addr::new(127, 64 + a, b, c), 7777);
            sys::udp(libc::AF_INET)?.connect(to)?;
            connects += 1;
        }
    }
    Ok((opens, connects))
}

fn flood(arguments: &Value) -> io::Result<String> {
    let number = |name: &str| arguments[name].as_u64().unwrap_or(2);
    let dir = arguments["dir"].as_str().unwrap_or("/nowhere");
    let end = Instant::now() + Duration::from_secs(number("seconds"));
    let (from, to) = sys::pipe()?;
    let (mut from, to) = (File::from(from), File::from(to));
    let mut pids = Vec::new();
    for worker in 0..number("workers") {
        pids.push(sys::fork(|| {
            let told = work(dir, end, worker).and_then(|(opens, connects)| {
                let mut bytes = opens.to_le_bytes().to_vec();
                bytes.extend(connects.to_le_bytes());
                (&to).write_all(&bytes)
            });
            i32::from(told.is_err())
        })?);
    }
    drop(to);
    let mut all = Vec::new();
    from.read_to_end(&mut all)?;
    let mut sums = [0u64; 2];
    for (n, word) in all.as_chunks().0.iter().enumerate() {
        sums[n % 2] += u64::from_le_bytes(*word);
    }
    for pid in &pids {
        if sys::wait(*pid)? != 0 {
            return Err(io::Error::other("a worker failed"));
        }
    }
    Ok(json!({"opens": sums[0], "connects": sums[1], "pids": pids}).to_string())
}

fn main() -> io::Result<()> {
    raw_server::serve("flooder", &["flood"], |_tool, arguments| flood(arguments))
}
