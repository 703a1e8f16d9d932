//! Files, merging, provenance, mistakes.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use super::*;

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("own file");
    path
}

fn wrong(text: &str) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let main = write(dir.path(), "toolwarden.toml", text);
    format!("{:#}", load(Some(&main), false).expect_err("refused"))
}

#[test]
fn an_empty_file_means_the_defaults() {
    let dir = tempfile::tempdir().expect("a directory");
    let main = write(dir.path(), "toolwarden.toml", "");
    assert_eq!(load(Some(&main), false).expect("good").config, Config::default());
    load(Some(&dir.path().join("none.toml")), false).expect_err("it was named, so it must be there");
}

#[test]
fn a_drop_in_changes_what_it_names_and_it_is_known_where_each_value_is_from() {
    let dir = tempfile::tempdir().expect("a directory");
    let main = write(
        dir.path(),
        "toolwarden.toml",
        "[capture]\nsettle_ms = 30\nin_flight_s = 7\n[respond]\nhigh = \"throttle, freeze\"\n",
    );
    let early = write(dir.path(), "conf.d/10-a.toml", "[capture]\nsettle_ms = 40\n");
    let late = write(dir.path(), "conf.d/20-b.toml", "# the last word\ncapture.settle_ms = 50\n");
    write(dir.path(), "conf.d/.30-hidden.toml", "nonsense");
    write(dir.path(), "conf.d/readme.txt", "nonsense");
    let loaded = load(Some(&main), false).expect("good");
    assert_eq!(loaded.files, [main.clone(), early, late.clone()]);
    assert_eq!((loaded.config.capture.settle_ms.0, loaded.config.capture.in_flight_s.0), (50, 7));
    let origin = |key: &str| loaded.origins.get(key).map(|o| (o.file.clone(), o.line));
    assert_eq!(origin("capture.settle_ms"), Some((late, 2)));
    assert_eq!(origin("capture.in_flight_s"), Some((main, 3)));
    assert_eq!(origin("detection.budget_per_day"), None);
    let ladders: Vec<_> = loaded.config.respond.ladders().map(|d| d.ladder).collect();
    assert_eq!(ladders, [crate::commands::respond::ladder("throttle,freeze").expect("good")]);
}

#[test]
fn mistakes_are_told_with_their_place_and_a_remedy() {
    let cases = [
        ("[capture]\nsettel_ms = 3", "toolwarden.toml:2:1", "did you mean `settle_ms`?"),
        ("[captrue]\nsettle_ms = 3", "toolwarden.toml:1:2", "did you mean `capture`?"),
        ("[xyz]", "unknown key `xyz`", "known here: capture, paths"),
        ("[capture]\nsettle_ms = 10001", "toolwarden.toml:2:13", "at most 10000"),
        ("[capture]\nsettle_ms = \"a\"", "toolwarden.toml:2:13", "invalid type"),
        ("[detection]\nbudget_per_day = 0", "toolwarden.toml:2:18", "above 0 and at most 1000"),
        ("[paths]\nstate_dir = \"var\"", "toolwarden.toml:2:13", "begin it with /"),
        ("[respond]\nhigh = \"explode\"", "toolwarden.toml:2:8", "`explode` is no response"),
        ("[respond]\nhigh = \"deny\"", "toolwarden.toml:2:8", "`deny` is no response"),
        ("[enforce]\non_degraded = \"observ\"", "toolwarden.toml:2:15", "did you mean `observe`?"),
        ("[capture]\nsettle_ms = 1\nsettle_ms = 2", "toolwarden.toml:3:1", "duplicate key"),
        ("[capture\n", "toolwarden.toml:1:", "  |"),
    ];
    for (text, place, remedy) in cases {
        let told = wrong(text);
        assert!(told.contains(place) && told.contains(remedy), "{text}: {told}");
    }
}

#[test]
fn all_files_that_are_wrong_are_told_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let main = write(dir.path(), "toolwarden.toml", "[x]");
    write(dir.path(), "conf.d/1.toml", "[y]");
    let told = format!("{:#}", load(Some(&main), false).expect_err("refused"));
    assert!(told.contains("toolwarden.toml:1:2") && told.contains("1.toml:1:2"), "{told}");
}

#[test]
fn the_daemon_takes_nothing_that_others_can_write() {
    let dir = tempfile::tempdir().expect("a directory");
    let main = write(dir.path(), "toolwarden.toml", "");
    fs::set_permissions(&main, fs::Permissions::from_mode(0o666)).expect("own file");
    let told = format!("{:#}", load(Some(&main), true).expect_err("refused"));
    assert!(told.contains("chmod go-w"), "{told}");
    assert_eq!(load(Some(&main), false).expect("good").warnings.len(), 1);
}

#[test]
fn hostile_files_are_told_not_printed() {
    assert!(!wrong("\u{1b}[2J = 1\n").contains('\u{1b}'));
    assert!(wrong(&"[".repeat(100_000)).len() < 2000);
    assert!(wrong(&format!("{} = 1", "a.".repeat(50_000))).len() < 2000);
}

#[test]
fn the_published_schema_is_that_of_the_types() {
    let text = serde_json::to_string_pretty(&schemars::schema_for!(Config)).expect("JSON") + "\n";
    let path = format!("{}/../docs/schema/config.schema.json", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("TOOLWARDEN_BLESS").is_some() {
        fs::write(&path, &text).expect("its directory is writable");
    }
    let published = fs::read_to_string(&path).expect("it is there");
    assert!(published == text, "{path} is out of date: run this test with TOOLWARDEN_BLESS=1");
}

#[test]
fn every_key_is_documented() {
    let docs = include_str!("../../../docs/configuration.md");
    let table = toml::Table::try_from(Config::default()).expect("a table");
    for (key, _) in merge::flat(&table) {
        assert!(docs.contains(&format!("`{key}`")), "docs/configuration.md lacks {key}");
    }
}

#[test]
fn sinks_say_what_they_lack_and_where() {
    let dir = tempfile::tempdir().expect("a directory");
    let token = write(dir.path(), "token", "secret\n");
    let odd = write(dir.path(), "odd", "two\nlines\n");
    let (token, odd) = (token.display(), odd.display());
    let cases = [
        ("type = 'syslog'".to_owned(), "toolwarden.toml:2: sinks.a: `address` is missing"),
        ("type = 'syslog'\naddress = 'siem:514'".into(), "toolwarden.toml:3: sinks.a: `address`: `siem:514`"),
        ("type = 'syslog'\naddress = 'tcp://u:p@siem'".into(), "has credentials in it"),
        ("type = 'syslog'\naddress = 'tcp://siem/x'".into(), "has a path"),
        (
            "type = 'syslog'\naddress = 'tcp://siem'\nca = '/x'".into(),
            ":4: sinks.a: `ca` is for connections with TLS",
        ),
        (
            "type = 'syslog'\naddress = 'tls://siem'\nca = '/no/such'".into(),
            ":4: sinks.a: `ca`: cannot read /no/such",
        ),
        (
            format!("type = 'syslog'\naddress = 'tls://siem'\nca = '{token}'"),
            "`ca` has no certificate in PEM",
        ),
        ("type = 'syslog'\naddress = 'tls://siem'\ncert = '/x'".into(), "`key` is missing"),
        ("type = 'syslog'\naddress = 'udp://siem'\nmax_message = 100".into(), "at least 480"),
        ("type = 'syslog'\naddress = 'udp://siem'\nfacility = 'local8'".into(), "did you mean"),
        (
            "type = 'syslog'\naddress = 'udp://siem'\ntoken = { env = 'A' }".into(),
            "`token` is for `type = \"splunk_hec\"`, ",
        ),
        ("type = 'file'\npath = '/x'\nurl = 'https://siem'".into(), ":4: sinks.a: `url` is for "),
        ("type = 'stdout'\nkeep = 1".into(), "`keep` is for `type = \"file\"`"),
        ("type = 'webhook'\nurl = 'http://siem/'".into(), "allow_plaintext"),
        ("type = 'webhook'\nurl = 'ftp://siem/'".into(), "neither https nor http"),
        ("type = 'webhook'\nurl = 'https://siem/'\ntimeout = '10m'".into(), "1s to 5m"),
        (
            "type = 'webhook'\nurl = 'https://siem/'\ntoken = 'hidden'".into(),
            ":4: sinks.a: `token`: a secret is never written here",
        ),
        (
            "type = 'webhook'\nurl = 'https://siem/'\ntoken = { file = '/no/such' }".into(),
            ":4: sinks.a: `token`: cannot read /no/such",
        ),
        (
            format!("type = 'webhook'\nurl = 'https://siem/'\ntoken = {{ file = '{odd}' }}"),
            "no header can hold",
        ),
        (
            "type = 'webhook'\nurl = 'https://siem/'\nheaders = { X-Api-Key = 'hidden' }".into(),
            "looks like a secret",
        ),
        ("type = 'webhook'\nurl = 'https://siem/'\nheaders = { Host = 'x' }".into(), "written by the sink"),
        ("type = 'webhook'\nurl = 'https://siem/'\nheaders = { 'a b' = 'x' }".into(), "no name of a header"),
        ("type = 'splunk_hec'\nurl = 'https://siem/'".into(), "`token` is missing"),
        ("type = 'splunk_hek'".into(), "did you mean `splunk_hec`?"),
        ("type = 'splunk_hec'\ntoken = \"hidden".into(), ":3:"),
    ];
    for (text, why) in cases {
        let told = wrong(&format!("[sinks.a]\n{text}\n"));
        assert!(told.contains(why) && !told.contains("hidden"), "{text}: {told}");
    }
}

#[test]
fn secrets_are_read_for_the_daemon_and_never_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let token = write(dir.path(), "token", "s3cr3t\n");
    let text = format!(
        "[sinks.a]\ntype = 'webhook'\nurl = 'http://127.0.0.1/'\ntoken = {{ file = '{}' }}\n\
         hmac_key = {{ env = 'NO_SUCH_VARIABLE_OF_TESTS' }}\n",
        token.display()
    );
    let main = write(dir.path(), "toolwarden.toml", &text);
    let loaded = load(Some(&main), false).expect("what is of the service need not be here");
    assert_eq!(loaded.secrets, [token]);
    let shown = format!("{loaded:?}{}", toml::to_string(&loaded.config).expect("TOML"));
    assert!(!shown.contains("s3cr3t") && shown.contains("NO_SUCH_VARIABLE_OF_TESTS"), "{shown}");
    let told = format!("{:#}", load(Some(&main), true).expect_err("the daemon needs it"));
    assert!(told.contains("toolwarden.toml:5: sinks.a: `hmac_key`"), "{told}");
}
