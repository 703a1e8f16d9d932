//! A recording instead of a kernel.

use anyhow::{Context as _, Result};
use engine::{Engine, recording::Reader};

use crate::{cli, print::Printer};

/// Prints what a recording says.
pub(crate) fn replay(options: &cli::Replay) -> Result<()> {
    let context = || format!("cannot replay {}", options.file.display());
    let bytes = std::fs::read(&options.file).with_context(context)?;
    let mut reader = Reader::new(&bytes).with_context(context)?;
    let mut engine = Engine::new();
    let mut printer = Printer::new(options.print);
    let mut outputs = Vec::new();
    loop {
        match reader.next() {
            Ok(Some(input)) => engine.apply(input, &mut outputs),
            Ok(None) => break,
            Err(e) => {
                // What came before is good: print it, then say where it stops.
                printer.print(&outputs)?;
                printer.flush()?;
                return Err(e).with_context(context);
            }
        }
        if outputs.len() > 4096 {
            printer.print(&outputs)?;
            outputs.clear();
        }
    }
    printer.print(&outputs)?;
    printer.finish()
}
