//! Lines for people and machines.
//!
//! # Layout
//! - this module: standard output, JSON lines
//! - [`text`]: for people
//! - [`safe`](mod@safe): text of others on the terminal

mod safe;
mod text;

use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write as _};

use anyhow::{Context as _, Result};
use engine::Output;

pub(crate) use safe::{safe, safe_lines};
pub(crate) use text::{Text, describe};

use crate::cli::Format;

/// Writes outputs to standard output.
pub(crate) struct Printer {
    out: BufWriter<StdoutLock<'static>>,
    text: Option<Text>,
    silent: bool,
}

impl Printer {
    pub(crate) fn new(format: Format) -> Self {
        // A pipe's reader may be late for a moment without holding up the loop.
        // What is no pipe says no, and is as good as before.
        let _unused = rustix::pipe::fcntl_setpipe_size(io::stdout(), PIPE);
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            out: BufWriter::with_capacity(1 << 16, io::stdout().lock()),
            text: (format == Format::Text).then(|| Text::new(colour)),
            silent: format == Format::None,
        }
    }

    /// Tells people that the agent watches now.
    pub(crate) fn ready(&mut self) -> Result<()> {
        if self.text.is_some() {
            writeln!(self.out, "watching; use an MCP client, and stop with Ctrl-C").context(WRITE)?;
        }
        self.flush()
    }

    /// Prints the lines among the outputs.
    pub(crate) fn print(&mut self, outputs: &[Output]) -> Result<()> {
        if self.silent {
            return Ok(());
        }
        for output in outputs {
            let Output::Line(line) = output else { continue };
            match &mut self.text {
                Some(text) => text.line(line, &mut self.out).context(WRITE)?,
                None => {
                    serde_json::to_writer(&mut self.out, line).map_err(io::Error::from).context(WRITE)?;
                    self.out.write_all(b"\n").context(WRITE)?;
                }
            }
        }
        Ok(())
    }

    /// Hands over what is buffered.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.out.flush().context(WRITE)
    }

    /// The last words.
    pub(crate) fn finish(&mut self) -> Result<()> {
        if let Some(text) = &mut self.text {
            text.finish(&mut self.out).context(WRITE)?;
        }
        self.flush()
    }
}

/// Bytes that fit into a pipe on standard output.
const PIPE: usize = 1 << 20;

const WRITE: &str = "cannot write to standard output";

/// Whether an error says that the reader of our output went away.
pub(crate) fn is_closed_pipe(e: &anyhow::Error) -> bool {
    e.chain().any(|c| c.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}
