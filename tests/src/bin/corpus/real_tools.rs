//! Arguments for the tools of servers that we did not write.

use serde_json::{Value, json};

use crate::{
    data::{DATA, Pool},
    rng::Rng,
};

type Tools = &'static [(&'static str, u64)];

pub(crate) const FILESYSTEM: Tools = &[
    ("read_text_file", 40),
    ("list_directory", 15),
    ("write_file", 15),
    ("search_files", 4),
    ("get_file_info", 10),
    ("edit_file", 5),
    ("directory_tree", 2),
    ("create_directory", 2),
    ("read_multiple_files", 5),
    ("move_file", 2),
];
pub(crate) const EVERYTHING: Tools = &[("echo", 60), ("get-sum", 30), ("get-env", 5), ("get-tiny-image", 5)];
pub(crate) const THINKING: Tools = &[("sequentialthinking", 1)];
pub(crate) const MEMORY: Tools = &[
    ("create_entities", 25),
    ("search_nodes", 30),
    ("open_nodes", 20),
    ("add_observations", 10),
    ("delete_entities", 12),
    ("read_graph", 3),
];
pub(crate) const GIT: Tools =
    &[("git_status", 40), ("git_log", 25), ("git_diff_unstaged", 20), ("git_show", 15)];
pub(crate) const FETCH: Tools = &[("fetch", 1)];
pub(crate) const TIME: Tools = &[("get_current_time", 60), ("convert_time", 40)];

pub(crate) fn filesystem(tool: &str, rng: &mut Rng, pool: Pool) -> Value {
    let place = pool.place(rng);
    let dir = format!("{DATA}/files/{place}");
    let file = match rng.below(40) {
        0 => format!("{dir}/missing.txt"),
        _ => format!("{dir}/{}.txt", pool.file(rng)),
    };
    // What the server writes itself has names of its own.
    let made = format!("{dir}/made-{}.md", pool.word(rng));
    match tool {
        "list_directory" | "directory_tree" => json!({"path": dir}),
        "search_files" => json!({"path": dir, "pattern": format!("*{}*", &pool.word(rng)[..2])}),
        "write_file" => json!({"path": made, "content": pool.word(rng).repeat(rng.size(90) as usize)}),
        "edit_file" => {
            let old = if rng.percent(3) { "not there" } else { place.as_str() };
            json!({"path": file, "edits": [{"oldText": old, "newText": place}]})
        }
        "create_directory" => json!({"path": format!("{dir}/{}", pool.word(rng))}),
        "read_multiple_files" => {
            let paths: Vec<_> =
                (0..1 + rng.below(4)).map(|_| format!("{dir}/{}.txt", pool.file(rng))).collect();
            json!({"paths": paths})
        }
        // Often there is nothing to move: an error reply.
        "move_file" => json!({"source": made, "destination": format!("{dir}/moved-{}.md", rng.below(9999))}),
        _ => json!({"path": file}),
    }
}

pub(crate) fn everything(tool: &str, rng: &mut Rng, pool: Pool) -> Value {
    match tool {
        "echo" if rng.percent(2) => json!({"wrong": 1}),
        "echo" => json!({"message": pool.word(rng).repeat(rng.size(30) as usize)}),
        "get-sum" => json!({"a": rng.below(1000), "b": rng.below(1000)}),
        _ => json!({}),
    }
}

pub(crate) fn thinking(_: &str, rng: &mut Rng, pool: Pool) -> Value {
    let n = 1 + rng.below(9);
    let text: Vec<String> = (0..rng.size(40)).map(|_| pool.word(rng)).collect();
    let mut thought = json!({"thought": text.join(" "), "nextThoughtNeeded": rng.percent(70),
        "thoughtNumber": n, "totalThoughts": n + rng.below(4)});
    if rng.percent(1) {
        thought["isRevision"] = json!(true);
        thought["revisesThought"] = json!(1);
    }
    thought
}

pub(crate) fn memory(tool: &str, rng: &mut Rng, pool: Pool) -> Value {
    let name = pool.word(rng);
    match tool {
        "create_entities" => json!({"entities": [{"name": name, "entityType": pool.place(rng),
            "observations": [pool.word(rng)]}]}),
        "search_nodes" => json!({"query": name}),
        "open_nodes" => json!({"names": [name, pool.word(rng)]}),
        "add_observations" => {
            json!({"observations": [{"entityName": name, "contents": [pool.word(rng)]}]})
        }
        "delete_entities" => {
            let names: Vec<_> = (0..6).map(|_| pool.word(rng)).collect();
            json!({"entityNames": names})
        }
        _ => json!({}),
    }
}

pub(crate) fn git(tool: &str, rng: &mut Rng, pool: Pool) -> Value {
    let place = if rng.percent(2) { "nowhere".into() } else { pool.place(rng) };
    let repo = format!("{DATA}/git/{place}");
    match tool {
        "git_log" => json!({"repo_path": repo, "max_count": 1 + rng.below(9)}),
        "git_show" => json!({"repo_path": repo, "revision": rng.pick(&["HEAD", "HEAD~1", "main"])}),
        _ => json!({"repo_path": repo}),
    }
}

pub(crate) fn fetch(_: &str, rng: &mut Rng, pool: Pool) -> Value {
    let host = format!("www.{}.test", pool.word(rng));
    let path = match rng.below(100) {
        // HTML is read by a program of its own.
        0..4 => "page".into(),
        4..7 => "missing".into(),
        7..50 => format!("data/{}.json", pool.word(rng)),
        _ => format!("bytes/{}", rng.size(20_000)),
    };
    json!({"url": format!("http://{host}/{path}"), "max_length": 200})
}

pub(crate) fn time(tool: &str, rng: &mut Rng, pool: Pool) -> Value {
    let train = [
        "Europe/Berlin",
        "America/New_York",
        "Asia/Tokyo",
        "UTC",
        "Europe/London",
        "Asia/Kolkata",
        "Africa/Cairo",
        "Australia/Sydney",
    ];
    let held = [
        "Europe/Paris",
        "America/Chicago",
        "Asia/Seoul",
        "Asia/Dubai",
        "Pacific/Auckland",
        "Africa/Lagos",
        "America/Bogota",
        "Europe/Oslo",
        "Asia/Manila",
        "America/Denver",
    ];
    let zones: &[&str] = if pool.places == 14 { &train } else { &held };
    if rng.percent(2) {
        return json!({"timezone": "Nowhere/Never"});
    }
    match tool {
        "convert_time" => json!({"source_timezone": rng.pick(zones), "target_timezone": rng.pick(zones),
            "time": format!("{:02}:{:02}", rng.below(24), rng.below(60))}),
        _ => json!({"timezone": rng.pick(zones)}),
    }
}
