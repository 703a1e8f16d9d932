//! `toolwarden rules`: checks, tests and explains rules, without an agent and without root.
//!
//! # Layout
//! - [`load`]: reads rule files
//! - [`table`]: what people see

pub(crate) mod load;
mod table;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow};
use engine::rules::{
    Day, Problem, RuleSet, Source, Where, Who, case, explain, lint, packs, run_tests, schema, value::Text,
    written::Test,
};

use super::Exit;
use crate::{
    cli::{Explain, RuleFiles, Rules},
    commands::args::Format,
    print::safe,
};

/// Where a host keeps its own rules.
pub(crate) const RULES_D: &str = "/etc/toolwarden/rules.d";

/// Does what was asked and says what it came to.
pub(crate) fn rules(command: &Rules) -> Result<Exit> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let outcome = run(command, &mut out)?;
    out.flush().context("cannot write to standard output")?;
    Ok(outcome)
}

fn run(command: &Rules, out: &mut impl Write) -> Result<Exit> {
    match command {
        Rules::Schema => {
            let schema = serde_json::to_value(schema()).map_err(io::Error::from)?;
            table::json(Format::Json, &schema, "", out)
        }
        Rules::Check(files) => with_set(files, out, |set, out| {
            if files.format != Format::Table {
                let all = serde_json::json!({ "rules": set.rules().len(), "problems": [] });
                return table::json(files.format, &all, "", out);
            }
            let n = set.rules().len();
            writeln!(out, "{n} rule{} in order", if n == 1 { " is" } else { "s are" })?;
            Ok(Exit::Ok)
        }),
        Rules::List(files) => with_set(files, out, |set, out| table::list(set, files.format, out)),
        Rules::Test(files) => {
            with_set(files, out, |set, out| table::tests(&run_tests(set), files.format, out))
        }
        Rules::Lint(files) => with_set(files, out, |set, out| {
            let found = lint(set);
            problems(&found, files.format, out)?;
            Ok(if found.is_empty() { Exit::Ok } else { Exit::No })
        }),
        Rules::Explain(options) => with_set(&options.files, out, |set, out| {
            let test = test_of(options)?;
            let case = case::act(&test).map_err(|(_, why)| anyhow!("{why}"))?;
            let text = explain(set, &who_of(options), &case.act());
            match options.files.format {
                Format::Table => write!(out, "{text}")?,
                format => {
                    let who = who_of(options);
                    let selected = set.for_who(&who);
                    let act = case.act();
                    let decision = selected.decide(&act, set.today());
                    table::decision(format, &decision, &text, out)?;
                }
            }
            Ok(Exit::Ok)
        }),
    }
}

/// Reads and compiles, or says what is wrong.
fn with_set<W: Write>(
    files: &RuleFiles,
    out: &mut W,
    f: impl FnOnce(&Arc<RuleSet>, &mut W) -> Result<Exit>,
) -> Result<Exit> {
    let sources = match sources(&files.paths) {
        Ok(sources) => sources,
        Err(error) => {
            anstream::eprintln!("toolwarden: {}", safe(&format!("{error:#}")));
            return Ok(Exit::Invalid);
        }
    };
    match RuleSet::compile(&sources, today()) {
        Ok(set) => f(&Arc::new(set), out),
        Err(found) => {
            problems(&found, files.format, out)?;
            Ok(Exit::Invalid)
        }
    }
}

/// The files named, else the shipped packs and the host's own rules.
fn sources(paths: &[PathBuf]) -> Result<Vec<Source>> {
    let own = Path::new(RULES_D);
    let mut sources = if paths.is_empty() { packs() } else { Vec::new() };
    let loaded = if !paths.is_empty() {
        load::load(paths, false)?
    } else if own.is_dir() {
        load::load(&[own.to_owned()], false)?
    } else {
        load::Loaded::default()
    };
    for warning in &loaded.warnings {
        anstream::eprintln!("toolwarden: warning: {}", safe(warning));
    }
    sources.extend(loaded.sources);
    Ok(sources)
}

fn problems(found: &[Problem], format: Format, out: &mut impl Write) -> Result<()> {
    match format {
        // They are safe to print: engine escapes what comes from files.
        Format::Table => {
            for problem in found {
                writeln!(out, "{problem}\n")?;
            }
        }
        format => {
            table::json(format, &serde_json::json!({ "problems": found }), "problems", out)?;
        }
    }
    Ok(())
}

pub(crate) fn today() -> Day {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Day::of_utc_ns(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

fn who_of(options: &Explain) -> Who {
    Who {
        server: options.server.clone(),
        scope: match options.tool.as_str() {
            "@startup" => Where::Startup,
            "@ambient" => Where::Ambient,
            tool => Where::Tool(tool.to_owned()),
        },
        package: options.package.clone(),
        user: options.user.clone(),
        home: options.home.clone(),
        roots: options.root.clone(),
    }
}

/// The act in question, in the words of an inline test.
fn test_of(options: &Explain) -> Result<Test> {
    let Some((kind, object)) = options.act.split_once('=') else {
        return Err(anyhow!(
            "the act is KIND=OBJECT, such as read=/etc/shadow or connect=203.0.113.7:443/tcp"
        ));
    };
    let mut test = Test { name: Text::new("act"), ..Test::default() };
    let slot = match kind {
        "read" => &mut test.read,
        "write" => &mut test.write,
        "delete" => &mut test.delete,
        "change" => &mut test.change,
        "exec" => &mut test.exec,
        "connect" => &mut test.connect,
        "listen" => &mut test.listen,
        "dns" => &mut test.dns,
        "sni" => &mut test.sni,
        "unix" => &mut test.unix,
        "unix_listen" => &mut test.unix_listen,
        "syscall" => &mut test.syscall,
        "io_uring" => &mut test.io_uring,
        other => {
            return Err(anyhow!(
                "unknown act `{other}`: read, write, delete, change, exec, connect, listen, dns, sni, unix, unix_listen, syscall, io_uring"
            ));
        }
    };
    *slot = Some(Text::new(object));
    test.resolved = options.resolved.as_deref().map(Text::new);
    Ok(test)
}
