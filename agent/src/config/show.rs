//! `toolwarden config check|show|schema`.

use std::io::{self, Write};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::{Loaded, load, merge::flat, written::Config};
use crate::{
    cli::{ConfigCommand, ConfigFile},
    commands::{
        Exit, Stop,
        args::Format,
        show::{Screen, machine, style},
    },
    print::safe,
};

/// Does what was asked.
pub(crate) fn run(command: &ConfigCommand) -> Result<Exit> {
    let mut out = anstream::stdout().lock();
    match command {
        ConfigCommand::Check(options) => {
            let loaded = read(options)?;
            for warning in &loaded.warnings {
                anstream::eprintln!("toolwarden: {}", safe(warning));
            }
            match options.format {
                Format::Table if loaded.files.is_empty() => {
                    writeln!(out, "no {} and no conf.d beside it: all defaults", super::FILE)?;
                }
                Format::Table => {
                    let n = loaded.files.len();
                    writeln!(out, "{n} file{} in order", if n == 1 { " is" } else { "s are" })?;
                }
                format => {
                    let data = json!({ "files": loaded.files, "warnings": loaded.warnings, "problems": [] });
                    machine(format == Format::Json, &data, std::slice::from_ref(&data), &mut out)?;
                }
            }
            Ok(if loaded.warnings.is_empty() { Exit::Ok } else { Exit::No })
        }
        ConfigCommand::Show { file, effective } => {
            let loaded = read(file)?;
            let rows = rows(&loaded, *effective)?;
            match file.format {
                Format::Json => {
                    let all: Map<String, Value> = rows
                        .into_iter()
                        .map(|row| (row.key, json!({ "value": row.value, "from": row.from })))
                        .collect();
                    machine(true, &Value::Object(all), &[], &mut out)?;
                }
                Format::Ndjson => {
                    let row = |r: Row| json!({ "key": r.key, "value": r.value, "from": r.from });
                    let rows: Vec<Value> = rows.into_iter().map(row).collect();
                    machine(false, &Value::Null, &rows, &mut out)?;
                }
                Format::Table => {
                    let mut screen = Screen::new(&mut out);
                    let cells =
                        rows.into_iter().map(|row| (vec![row.key, row.text, row.from], style(""))).collect();
                    screen.table(&["KEY", "VALUE", "FROM"], cells)?;
                }
            }
            Ok(Exit::Ok)
        }
        ConfigCommand::Schema => {
            let schema = serde_json::to_value(schemars::schema_for!(Config)).map_err(io::Error::from)?;
            machine(true, &schema, &[], &mut out)?;
            Ok(Exit::Ok)
        }
    }
}

fn read(options: &ConfigFile) -> Result<Loaded> {
    load(options.config.as_deref(), false).map_err(|e| Stop::new(Exit::Invalid, format!("{e:#}")).into())
}

struct Row {
    key: String,
    value: Value,
    text: String,
    from: String,
}

/// What was written, or with `effective` everything.
fn rows(loaded: &Loaded, effective: bool) -> Result<Vec<Row>> {
    let table = toml::Table::try_from(&loaded.config).context("a value cannot be shown")?;
    let mut rows = Vec::new();
    for (key, value) in flat(&table) {
        let origin = loaded.origins.get(&key);
        if origin.is_none() && !effective {
            continue;
        }
        let from = origin.map_or_else(|| "default".to_owned(), ToString::to_string);
        rows.push(Row { text: value.to_string(), value: serde_json::to_value(&value)?, key, from });
    }
    Ok(rows)
}
