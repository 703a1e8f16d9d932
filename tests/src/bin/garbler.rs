//! A server that writes garbage between its replies: `garbage {kind, bytes}`, and an honest `ping`.

use std::{
    fs::File,
    io::{self, Write as _},
    mem::ManuallyDrop,
    os::fd::FromRawFd as _,
};

use e2e::raw_server;

/// Garbage of one kind, ending with a newline.
fn garbage(kind: &str, bytes: usize) -> Vec<u8> {
    let mut line = match kind {
        "long" => vec![b'a'; bytes],
        "deep" => vec![b'['; bytes],
        "binary" => (0..bytes).map(|n| (n * 7 + n / 251) as u8 | 0x80).collect(),
        "nul" => vec![0; bytes],
        "open" => {
            // A string that never ends.
            let mut line = br#"{"jsonrpc":"2.0","result":{"text":""#.to_vec();
            line.resize(bytes.max(line.len()), b'\\');
            line
        }
        _ => Vec::new(),
    };
    line.push(b'\n');
    line
}

fn main() -> io::Result<()> {
    // SAFETY: stdout is open for the life of the process and is never closed here.
    let out = ManuallyDrop::new(unsafe { File::from_raw_fd(1) });
    raw_server::serve("garbler", &["ping", "garbage"], |tool, arguments| {
        if tool == "garbage" {
            let kind = arguments["kind"].as_str().unwrap_or_default();
            let bytes = arguments["bytes"].as_u64().unwrap_or(1 << 20) as usize;
            (&*out).write_all(&garbage(kind, bytes))?;
        }
        Ok(tool.to_owned())
    })
}
