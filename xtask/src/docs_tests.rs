//! The book has every page, and its links lead somewhere.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

fn root() -> Result<PathBuf> {
    Ok(Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?.to_owned())
}

/// Targets of the links of a page that lead to files.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target)).filter_map(
        |target| {
            let file = target.split('#').next()?;
            (!file.is_empty() && !file.contains("://") && !file.contains(' ')).then_some(file)
        },
    )
}

#[test]
fn every_page_is_in_the_book_and_every_link_leads_somewhere() -> Result<()> {
    let root = root()?;
    let docs = root.join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md"))?;
    let listed: BTreeSet<&str> = links(&summary).collect();
    let mut pages = vec![root.join("README.md"), root.join("rules/README.md")];
    for entry in fs::read_dir(&docs)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ext| ext == "md") {
            let name = path.file_name().and_then(|n| n.to_str()).context("a name")?.to_owned();
            ensure!(name == "SUMMARY.md" || listed.contains(&*name), "{name} is not in docs/SUMMARY.md");
            pages.push(path);
        }
    }
    ensure!(pages.len() > 10, "{} pages", pages.len());
    for page in pages {
        let text = fs::read_to_string(&page)?;
        let dir = page.parent().context("a directory")?;
        for link in links(&text) {
            ensure!(dir.join(link).exists(), "{}: there is no {link}", page.display());
        }
    }
    Ok(())
}
