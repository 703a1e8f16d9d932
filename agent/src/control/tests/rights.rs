//! Who may do what, over the socket. Needs root, which the CI has.

use std::{os::unix::net::UnixStream, path::Path};

use rustix::{
    process::{Gid, Uid},
    thread,
};
use serde_json::{Value, json};

use super::{Agent, Made, Peer, Result, Role, get, message, post};

const USER: u32 = 54321;
const GROUP: u32 = 54777;

/// Runs something as another user. Users belong to threads in Linux (libc hides it), so nothing
/// needs to be executed that this user might not reach.
pub(crate) fn as_user<T: Send>(gid: u32, groups: &[u32], act: impl FnOnce() -> T + Send) -> Result<T> {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test takes on other users: run it as root (`sudo -E cargo test -p agent`)"
    );
    let groups: Vec<_> = groups.iter().map(|&group| Gid::from_raw(group)).collect();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            thread::set_thread_groups(&groups)?;
            let (gid, uid) = (Gid::from_raw(gid), Uid::from_raw(USER));
            thread::set_thread_res_gid(gid, gid, gid)?;
            thread::set_thread_res_uid(uid, uid, uid)?;
            Ok(act())
        });
        thread.join().map_err(|panic| format!("{panic:?}"))?.map_err(|e: rustix::io::Errno| e.to_string())
    })
    .map_err(Into::into)
}

fn code(answer: Result<(u16, Value)>) -> (u16, String) {
    match answer {
        Ok((status, answer)) => (status, message(&answer).to_owned()),
        Err(e) => (0, e.to_string()),
    }
}

#[test]
fn the_group_reads_and_only_root_changes() -> Result {
    let agent = Agent::start(Made::default(), Some(GROUP))?;
    let path: &Path = &agent.path;
    for (gid, groups) in [(GROUP, vec![]), (USER, vec![4, GROUP])] {
        let (read, change) = as_user(gid, &groups, || {
            (
                get(path, "/v1/findings?limit=5").ok(),
                code(post(path, "/v1/baseline/ratify", r#"{"identity":"x"}"#)),
            )
        })?;
        let (status, answer) = read.ok_or("no answer")?;
        assert_eq!((status, &answer["data"]["uid"]), (200, &json!(USER)), "{answer}");
        assert_eq!((change.0, change.1.contains("only root")), (403, true), "{change:?}");
    }
    // Strangers do not even get in.
    let stranger = as_user(USER, &[4, 27], || UnixStream::connect(path).map(|_| ()).map_err(|e| e.kind()))?;
    assert_eq!(stranger, Err(std::io::ErrorKind::PermissionDenied));
    let rows = agent.host.rows();
    assert_eq!(rows.len(), 2, "{rows:?}");
    for row in rows {
        assert_eq!((row.uid, row.verb.as_str(), row.target.as_str()), (USER, "ratify", "x"));
        assert!(row.outcome.starts_with("refused: only root"), "{row:?}");
        assert_eq!(row.pid, std::process::id());
    }
    Ok(())
}

#[test]
fn without_the_group_only_root_gets_in() -> Result {
    let agent = Agent::start(Made::default(), None)?;
    let path: &Path = &agent.path;
    let member = as_user(USER, &[GROUP], || UnixStream::connect(path).map(|_| ()).map_err(|e| e.kind()))?;
    assert_eq!(member, Err(std::io::ErrorKind::PermissionDenied));
    assert_eq!(get(path, "/v1/status")?.0, 200);
    Ok(())
}

/// Groups are those of the moment of the connection, in `/proc` they may be others by now.
#[test]
fn the_kernel_tells_who_connected() -> Result {
    let (near, far) = as_user(GROUP, &[4, 27], UnixStream::pair)??;
    let peer = Peer::of(std::os::fd::AsFd::as_fd(&near))?;
    drop(far);
    assert_eq!((peer.uid, peer.gid, peer.groups.as_slice()), (USER, GROUP, &[4, 27][..]));
    assert!(peer.in_group(GROUP) && peer.in_group(27) && !peer.in_group(0));
    assert!(peer.alive());
    Ok(())
}

#[test]
fn orders_are_carried_out_audited_and_answered() -> Result {
    let agent = Agent::start(Made::default(), None)?;
    let path = &agent.path;
    let orders = [
        ("/v1/reload", r#"{"wait":true}"#, "reload", ""),
        ("/v1/findings/f1/ack", r#"{"note":"fine","expected":true}"#, "ack", "f1"),
        ("/v1/findings/f%2F1/permit", r#"{"reason":"r","expires":"2027-01-31"}"#, "permit", "f/1"),
        ("/v1/baseline/ratify", r#"{"identity":"1000/git@ab"}"#, "ratify", "1000/git@ab"),
        ("/v1/baseline/reset", r#"{"identity":"1000/git@ab"}"#, "reset", "1000/git@ab"),
        ("/v1/mode", r#"{"server":"git","tool":"push","mode":"enforce"}"#, "set-mode", "git push"),
        ("/v1/purge", r#"{"before_days":30}"#, "purge", ""),
    ];
    for (target, body, verb, of) in orders {
        let (status, answer) = post(path, target, body)?;
        assert_eq!(status, 200, "{answer}");
        assert_eq!((&answer["data"]["verb"], &answer["data"]["target"]), (&json!(verb), &json!(of)));
        let row = agent.host.rows().pop().ok_or("not audited")?;
        assert_eq!((row.verb.as_str(), row.target.as_str(), row.outcome.as_str()), (verb, of, "ok"));
        assert_eq!((row.uid, row.pid), (0, std::process::id()));
        assert!(row.exe.is_some_and(|exe| exe.contains("toolwarden")) && row.utc_ns > 0);
    }
    let (status, answer) = post(path, "/v1/baseline/import", r#"{"name":"n","text":"secret text"}"#)?;
    assert_eq!((status, message(&answer)), (422, "line 3: no"));
    let row = agent.host.rows().pop().ok_or("not audited")?;
    assert_eq!(row.outcome, "failed: line 3: no");
    assert!(!row.arguments.to_string().contains("secret text"), "{row:?}");
    assert_eq!(row.arguments["bytes"], 11);
    Ok(())
}

#[test]
fn reads_are_passed_on_whole() -> Result {
    let agent = Agent::start(Made::default(), None)?;
    let reads = [
        ("/v1/status", "status", ""),
        ("/v1/servers", "servers", ""),
        ("/v1/tools?server=git", "tools", "git"),
        ("/v1/calls?server=git&limit=3", "calls", ""),
        (
            "/v1/findings?severity=high&kind=new-exec&since_utc_ns=5&limit=9&acked=false&server=x",
            "findings",
            "",
        ),
        ("/v1/baselines", "baselines", ""),
        ("/v1/baseline?identity=1000%2Fgit%40ab", "baseline", "1000/git@ab"),
        ("/v1/baseline/diff?a=x&b=y", "baseline-diff", "x y"),
        ("/v1/baseline/export?identity=x", "baseline-export", "x"),
        ("/v1/rules", "rules", ""),
        ("/v1/mode", "mode", ""),
        ("/v1/audit?limit=4", "audit", ""),
    ];
    for (target, verb, of) in reads {
        let (status, answer) = get(&agent.path, target)?;
        assert_eq!(status, 200, "{target} {answer}");
        assert_eq!(
            (&answer["data"]["verb"], &answer["data"]["target"]),
            (&json!(verb), &json!(of)),
            "{target}"
        );
    }
    let (status, answer) = get(&agent.path, "/v1/findings/nope")?;
    assert_eq!((status, message(&answer)), (404, "no such finding"));
    assert!(agent.host.rows().is_empty(), "reading is not audited");
    Ok(())
}

#[test]
fn root_in_a_server_is_refused_and_a_full_disk_is_told() -> Result {
    let host = Made::default();
    host.roles.lock().map_err(|e| e.to_string())?.push((std::process::id(), Role::Server("git".into())));
    let agent = Agent::start(host, None)?;
    assert_eq!(get(&agent.path, "/v1/status")?.0, 200);
    for _ in 0..40 {
        let (status, answer) = post(&agent.path, "/v1/baseline/ratify", r#"{"identity":"x"}"#)?;
        assert_eq!(status, 403);
        assert!(message(&answer).contains("belongs to the MCP server git"), "{answer}");
    }
    assert_eq!(agent.host.rows().len(), 32, "a flood is not listed whole");
    let agent = Agent::start(Made { disk_full: true, ..Made::default() }, None)?;
    let (status, answer) = post(&agent.path, "/v1/purge", r#"{"before_days":1}"#)?;
    assert_eq!(status, 500);
    assert!(message(&answer).contains("done, but the audit trail"), "{answer}");
    Ok(())
}
