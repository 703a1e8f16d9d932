//! What is masked in command lines, and what is not.

use proptest::prelude::*;

use super::redact_argv;

fn redacted(args: &[&str]) -> String {
    let mut bytes = args.join("\0").into_bytes();
    redact_argv(&mut bytes);
    String::from_utf8_lossy(&bytes).replace('\0', "|")
}

#[test]
fn secrets_are_masked() {
    for (args, expected) in [
        (&["srv", "--token=abc", "--port=80"][..], "srv|--token=***|--port=80"),
        (&["srv", "--api-key", "abc", "dir"], "srv|--api-key|***|dir"),
        (&["srv", "--API_KEY", "my long secret", "dir"], "srv|--API_KEY|**************|dir"),
        (&["srv", "-password", "-x", "dir"], "srv|-password|**|dir"),
        (&["srv", "--auth", "--verbose"], "srv|--auth|--verbose"),
        (&["srv", "--db.passwd=a=b c"], "srv|--db.passwd=*****"),
        (&["srv", "--private-key", "k"], "srv|--private-key|*"),
        (&["env", "GITHUB_TOKEN=abc", "X=1", "srv"], "env|GITHUB_TOKEN=***|X=1|srv"),
        (&["docker", "-e", "AWS_SECRET_ACCESS_KEY=abc", "img"], "docker|-e|AWS_SECRET_ACCESS_KEY=***|img"),
        (&["docker", "--env=DB_PASSWORD=abc"], "docker|--env=DB_PASSWORD=***"),
        (&["x", "postgres://u:p@ss@h/db?a=b"], "x|postgres://u:****@h/db?a=b"),
        (&["x", "--url=https://u:pw@h:80/a"], "x|--url=https://u:**@h:80/a"),
        (&["x", "http://h:80/a@b", "redis://:pw@h"], "x|http://h:80/a@b|redis://:**@h"),
        (&["x", "-H", "Authorization: Bearer abc"], "x|-H|Authorization: Bearer ***"),
        (&["x", "--header=authorization:Basic abc"], "x|--header=authorization:Basic ***"),
        (&["x", "--header", "X-Api-Key: abc"], "x|--header|X-Api-Key:****"),
        (&["x", "--header=X-Auth-Token: abc"], "x|--header=X-Auth-Token:****"),
        (&["x", "Bearer", "abc"], "x|Bearer|***"),
        (&["sh", "-c", "A_TOKEN=abc srv --password 'a b' dir"], "sh|-c|A_TOKEN=****************************"),
        (&["sh", "-c", "cd d; srv --password 'a b' dir"], "sh|-c|cd d; srv --password ** ** dir"),
        (&["sh", "-c", "srv K_TOKEN=\"a b\" dir"], "sh|-c|srv K_TOKEN=** ** dir"),
        (
            &["sh", "-c", "curl -H \"Authorization: token abc\" http://h"],
            "sh|-c|curl -H \"Authorization: token ***\" http://h",
        ),
        (&["x", "ghp_abcdefghij1234"], "x|ghp_**************"),
        (&["x", "k:github_pat_abcdefghij1234"], "x|k:github_pat_**************"),
        (&["x", "glpat-abcdefgh"], "x|glpat-********"),
        (&["x", "sk-ant-abcdefgh"], "x|sk-ant-********"),
        (&["x", "sk-abcdefghijklmnop"], "x|sk-****************"),
        (&["x", "xoxb-12345678"], "x|xoxb-********"),
        (&["x", "AKIAIOSFODNN7EXAMPLE"], "x|AKIA****************"),
        (&["x", "{\"k\":\"hf_abcdefghijklmnop\"}"], "x|{\"k\":\"hf_****************\"}"),
        (&["x", "eyJhbGciOi.eyJzdWIiOi.SflKxwRJSM"], "x|eyJ*****************************"),
        (&["x", "AIzaSyA-1234567890abcdefgh"], "x|AIza**********************"),
        (&["x", "pypi-AgEIcHlwaS5vcmcX"], "x|pypi-****************"),
    ] {
        assert_eq!(redacted(args), expected);
    }
}

#[test]
fn the_rest_stays() {
    for args in [
        &["npx", "-y", "@modelcontextprotocol/server-filesystem", "/home/u"][..],
        &["python", "-m", "mcp_server_git", "--repository", "/r"],
        &["x", "-p", "8080", "--author=Bob", "--tokenizer", "bpe", "--key=v"],
        &["x", "sk-learn", "npm_config_registry=https://r.example", "hf_hub", "eyJust.text"],
        &["x", "AKIAsomething", "https://user@h/", "a@b:c", "http://h/p:q@r", "token"],
        &["", "", "-", "--", "=", "--=", ":", "://", "'", "\""],
    ] {
        assert_eq!(redacted(args), args.join("|"));
    }
}

#[test]
fn nothing_recurses() {
    let mut bytes = b"--a=".repeat(1 << 18);
    redact_argv(&mut bytes);
    assert_eq!(bytes, b"--a=".repeat(1 << 18));
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut masked = bytes.clone();
        redact_argv(&mut masked);
        prop_assert_eq!(masked.len(), bytes.len());
        for (raw, masked) in bytes.iter().zip(&masked) {
            prop_assert!(raw == masked || *masked == b'*' && *raw != 0);
        }
    }

    #[test]
    fn telling_bytes(words in proptest::collection::vec(
        prop_oneof!["--?(token|x)=?", "[a-z]://", "[:@/'\" ]", "Bearer ", "authorization:", "eyJ", "sk-", "\0", "[a-z0-9.]{1,20}"],
        0..40,
    )) {
        let raw = words.concat().into_bytes();
        let mut masked = raw.clone();
        redact_argv(&mut masked);
        let nuls = |bytes: &[u8]| bytes.iter().positions(0);
        prop_assert_eq!(nuls(&raw), nuls(&masked));
    }
}

trait Positions {
    fn positions(self, byte: u8) -> Vec<usize>;
}

impl<'a, I: Iterator<Item = &'a u8>> Positions for I {
    fn positions(self, byte: u8) -> Vec<usize> {
        self.enumerate().filter(|(_, b)| **b == byte).map(|(at, _)| at).collect()
    }
}
