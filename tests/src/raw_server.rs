//! An MCP server without a library, for servers that misbehave.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Write as _},
    mem::ManuallyDrop,
    os::fd::FromRawFd as _,
};

use serde_json::{Value, json};

/// A standard stream without the locks and buffers of std.
fn stream(fd: i32) -> ManuallyDrop<File> {
    // SAFETY: the descriptor is open for the life of the process and is never closed here.
    ManuallyDrop::new(unsafe { File::from_raw_fd(fd) })
}

/// Serves tools on stdio to the end of input: `act(name, arguments)` gives the text of the result.
///
/// # Errors
/// When the client has gone, or an act fails.
pub fn serve(
    name: &str,
    tools: &[&str],
    mut act: impl FnMut(&str, &Value) -> io::Result<String>,
) -> io::Result<()> {
    let (input, out) = (stream(0), stream(1));
    let mut input = BufReader::new(&*input);
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let Ok(message) = serde_json::from_slice::<Value>(&line) else {
            continue;
        };
        let (Some(id), Some(method)) = (message.get("id"), message["method"].as_str()) else {
            continue;
        };
        let params = &message["params"];
        let result = match method {
            "initialize" => json!({"protocolVersion": params["protocolVersion"],
                "capabilities": {"tools": {}}, "serverInfo": {"name": name, "version": "1"}}),
            "tools/list" => {
                let tool = |t: &&str| json!({"name": t, "inputSchema": {"type": "object"}});
                json!({"tools": tools.iter().map(tool).collect::<Vec<_>>()})
            }
            "tools/call" => {
                let tool = params["name"].as_str().unwrap_or_default();
                let text = act(tool, &params["arguments"])?;
                json!({"content": [{"type": "text", "text": text}]})
            }
            _ => json!({}),
        };
        let mut reply = json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string();
        reply.push('\n');
        (&*out).write_all(reply.as_bytes())?;
    }
}
