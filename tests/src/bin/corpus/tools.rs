//! Arguments for the own servers' tools. One call in a hundred does something rare; two or so in a
//! hundred fail.

use serde_json::{Value, json};

use crate::{data::Pool, rng::Rng};

type Tools = &'static [(&'static str, u64)];

pub(crate) const NOTES: Tools =
    &[("add_note", 30), ("get_note", 40), ("search_notes", 20), ("delete_note", 9), ("export_note", 1)];
pub(crate) const LOGS: Tools = &[("search_logs", 30), ("tail_log", 40), ("list_logs", 28), ("log_size", 2)];
pub(crate) const BUILD: Tools =
    &[("build_target", 40), ("compiler_info", 20), ("run_tests", 30), ("clean", 10)];
pub(crate) const API: Tools =
    &[("get_issue", 50), ("list_repos", 20), ("post_comment", 18), ("upload_asset", 2), ("download", 10)];
pub(crate) const IMAGE: Tools = &[("compress", 40), ("thumbnail", 40), ("checksum", 20)];
pub(crate) const REPO: Tools =
    &[("status", 30), ("history", 20), ("show", 20), ("grep", 15), ("branches", 5), ("commit", 10)];
pub(crate) const MAILER: Tools =
    &[("send_mail", 50), ("save_draft", 30), ("list_drafts", 18), ("check_queue", 2)];
pub(crate) const CACHE: Tools = &[("get", 50), ("put", 30), ("stats", 10), ("evict", 10)];
pub(crate) const FEEDS: Tools = &[("fetch_feed", 60), ("search_feeds", 30), ("add_feed", 10)];
pub(crate) const CONVERT: Tools = &[("convert_text", 60), ("word_count", 30), ("list_files", 10)];

fn prose(rng: &mut Rng, pool: Pool, most: u64) -> String {
    let words: Vec<String> = (0..rng.size(most)).map(|_| pool.word(rng)).collect();
    words.join(" ")
}

fn title(rng: &mut Rng, pool: Pool) -> String {
    if rng.percent(2) { "missing-note".into() } else { format!("{}-{}", pool.word(rng), rng.below(40)) }
}

pub(crate) fn notes(tool: &str, rng: &mut Rng, pool: Pool) -> Value {
    match tool {
        "add_note" => {
            let mut note = json!({"title": title(rng, pool), "text": prose(rng, pool, 60)});
            if rng.percent(1) {
                note["vacuum"] = json!(true);
            }
            note
        }
        "search_notes" => json!({"word": pool.word(rng)}),
        _ => json!({"title": title(rng, pool)}),
    }
}

pub(crate) fn logs(tool: &str, rng: &mut Rng, pool: Pool) -> Value {
    let place = if rng.percent(2) { "nowhere".into() } else { pool.place(rng) };
    match tool {
        "search_logs" => {
            let mut search = json!({"dir": place, "word": pool.word(rng)});
            if rng.percent(1) {
                search["packed"] = json!(true);
            }
            search
        }
        "tail_log" => {
            let name = if rng.percent(1) { "old.log.gz".into() } else { format!("{}.log", pool.file(rng)) };
            json!({"file": format!("{place}/{name}"), "lines": rng.size(50)})
        }
        _ => json!({"dir": place}),
    }
}

pub(crate) fn build(tool: &str, rng: &mut Rng, pool: Pool) -> Value {
    let project = pool.place(rng);
    match tool {
        "build_target" => {
            let target = if rng.percent(3) { "nothing" } else { *rng.pick(&["all", "lib", "docs"]) };
            let mut build = json!({"project": project, "target": target, "jobs": rng.below(4)});
            if rng.percent(2) {
                build["compile"] = json!(true);
            }
            build
        }
        "compiler_info" => {
            let flags = ["--version", "-dumpmachine", "-dumpversion", "-print-search-dirs", "--help"];
            json!({"flag": rng.pick(&flags)})
        }
        "run_tests" => json!({"project": project, "filter": pool.word(rng)}),
        _ => json!({"project": project}),
    }
}

pub(crate) fn api(tool: &str, rng: &mut Rng, pool: Pool) -> Value {
    match tool {
        "get_issue" => json!({"id": if rng.percent(2) { 0 } else { 1 + rng.below(100_000) }}),
        "list_repos" => json!({"owner": pool.word(rng), "pages": rng.below(3)}),
        "post_comment" => json!({"id": rng.below(100_000), "text": prose(rng, pool, 200)}),
        "upload_asset" => json!({"name": pool.word(rng), "size": 1000 + rng.size(60_000)}),
        _ => {
            let mut download = json!({"path": pool.word(rng), "size": rng.size(100_000)});
            if rng.percent(2) {
                download["mirror"] = json!(pool.place(rng));
            }
            download
        }
    }
}

fn input(rng: &mut Rng, pool: Pool, extension: &str) -> String {
    if rng.percent(2) {
        return format!("missing.{extension}");
    }
    format!("{}-{}.{extension}", pool.place(rng), pool.file(rng))
}

pub(crate) fn image(tool: &str, rng: &mut Rng, pool: Pool) -> Value {
    let mut image = json!({"file": input(rng, pool, "png")});
    match tool {
        "compress" => {
            image["level"] = json!(1 + rng.below(9));
            if rng.percent(1) {
                image["spill"] = json!(true);
            }
        }
        "thumbnail" => image["size"] = json!(16 << rng.below(5)),
        _ => {}
    }
    image
}

pub(crate) fn repo(tool: &str, rng: &mut Rng, pool: Pool) -> Value {
    let repo = if rng.percent(2) { "nowhere".into() } else { pool.place(rng) };
    match tool {
        "history" => json!({"repo": repo, "n": rng.below(30)}),
        "show" => json!({"repo": repo, "rev": rng.pick(&["HEAD", "HEAD~1", "main", "HEAD~9"])}),
        "grep" => json!({"repo": repo, "word": rng.pick(&["int", "read", "void"])}),
        "commit" => {
            let mut commit = json!({"repo": repo, "file": format!("{}.c", pool.word(rng)),
                "message": prose(rng, pool, 8)});
            if rng.percent(4) {
                commit["gc"] = json!(true);
            }
            commit
        }
        _ => json!({"repo": repo}),
    }
}

pub(crate) fn mailer(tool: &str, rng: &mut Rng, pool: Pool) -> Value {
    let subject = format!("{}-{}", pool.word(rng), rng.below(9));
    match tool {
        "send_mail" | "save_draft" => {
            json!({"to": pool.word(rng), "subject": subject, "body": prose(rng, pool, 120)})
        }
        _ => json!({}),
    }
}

pub(crate) fn cache(tool: &str, rng: &mut Rng, pool: Pool) -> Value {
    let key = format!("{}:{}", pool.word(rng), rng.below(5));
    match tool {
        "put" => json!({"key": key, "value": prose(rng, pool, 80)}),
        "stats" => json!({}),
        _ => json!({"key": key}),
    }
}

pub(crate) fn feeds(tool: &str, rng: &mut Rng, pool: Pool) -> Value {
    let domain = *rng.pick(&["test", "blog.test", "news.test"]);
    let host = format!("{}.{domain}", pool.word(rng));
    match tool {
        "fetch_feed" => {
            let mut feed = json!({"host": host, "size": rng.size(20_000)});
            if rng.percent(1) {
                feed["image"] = json!(true);
            }
            feed
        }
        "search_feeds" => json!({"word": pool.word(rng)}),
        _ => json!({"host": host}),
    }
}

pub(crate) fn convert(tool: &str, rng: &mut Rng, pool: Pool) -> Value {
    match tool {
        "list_files" => json!({"dir": rng.pick(&["in", "out"])}),
        "word_count" => json!({"file": input(rng, pool, "txt")}),
        _ => {
            // The last two are rare.
            let filters = ["sort", "unique", "upper", "head", "number", "copy"];
            let filter = if rng.percent(1) { "sum" } else { *rng.pick(&filters) };
            json!({"file": input(rng, pool, "txt"), "filter": filter})
        }
    }
}
