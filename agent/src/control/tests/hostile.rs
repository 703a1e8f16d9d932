//! What no client of ours would send.

use std::{
    io::Write as _,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use super::{Agent, Made, Result, get, message, post, receive, rights::as_user, send};

fn agent() -> Result<Agent> {
    Agent::start(Made::default(), None)
}

#[test]
fn what_is_no_request_is_told_so_in_json() -> Result {
    let agent = agent()?;
    let cases: [(&[u8], u16, &str, &str); 11] = [
        (b"hello\r\n\r\n", 400, "bad-request", "not an HTTP/1.1 request"),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            400,
            "bad-request",
            "not an HTTP/1.1 request",
        ),
        (b"GET /v1/status HTTP/9.9\r\n\r\n", 400, "bad-request", "not an HTTP/1.1 request"),
        (b"GET /v1/status HTTP/1.1\r\nbad header\r\n\r\n", 400, "bad-request", "not an HTTP/1.1 request"),
        (b"GET /v2/status HTTP/1.1\r\nhost: x\r\n\r\n", 404, "not-found", "no such path"),
        (b"POST /v1/status HTTP/1.1\r\nhost: x\r\n\r\n", 405, "bad-method", "GET reads"),
        (b"GET /v1/purge HTTP/1.1\r\nhost: x\r\n\r\n", 405, "bad-method", "GET reads"),
        (b"GET /v1/findings?severity=dire HTTP/1.1\r\nhost: x\r\n\r\n", 400, "bad-request", "dire"),
        (b"GET /v1/findings?sevrity=high HTTP/1.1\r\nhost: x\r\n\r\n", 400, "bad-request", "sevrity"),
        (b"GET /v1/findings/%ff HTTP/1.1\r\nhost: x\r\n\r\n", 400, "bad-request", ""),
        (
            b"POST /v1/mode HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n{1}",
            400,
            "bad-request",
            "not as expected",
        ),
    ];
    for (bytes, status, code, words) in cases {
        let (got, answer) = send(&agent.path, bytes)?;
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!(got, status, "{shown} {answer}");
        assert_eq!(answer["version"], 1);
        assert_eq!(answer["error"]["code"], code, "{shown}");
        assert!(message(&answer).contains(words), "{shown} {answer}");
    }
    assert!(agent.host.rows().is_empty(), "nothing of it was an order");
    assert_eq!(get(&agent.path, "/v1/status")?.0, 200);
    Ok(())
}

#[test]
fn what_is_too_large_is_told_so() -> Result {
    let agent = agent()?;
    let huge = "x".repeat(10 << 20);
    let (status, answer) = post(&agent.path, "/v1/baseline/import", &huge)?;
    assert_eq!((status, &answer["error"]["code"]), (413, &"too-large".into()), "{answer}");
    // Without a length: in one chunk of 10 MiB.
    let head = "POST /v1/reload HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nA00000\r\n";
    let (status, answer) = send(&agent.path, format!("{head}{huge}\r\n0\r\n\r\n").as_bytes())?;
    assert_eq!(status, 413, "{answer}");
    let long = format!("GET /v1/tools?server={} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(64 << 10));
    let (status, answer) = send(&agent.path, long.as_bytes())?;
    assert!(matches!(status, 431 | 414 | 400), "{status} {answer}");
    let many = format!("GET /v1/status HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(500));
    let (status, answer) = send(&agent.path, many.as_bytes())?;
    assert_eq!((status, &answer["error"]["code"]), (431, &"too-large".into()), "{answer}");
    let name = "x".repeat(5000);
    let (status, answer) = post(&agent.path, "/v1/baseline/ratify", &format!("{{\"identity\":\"{name}\"}}"))?;
    assert_eq!(status, 413, "{answer}");
    assert!(agent.host.rows().is_empty());
    assert_eq!(get(&agent.path, "/v1/status")?.0, 200);
    Ok(())
}

#[test]
fn who_is_slow_is_cut_off_and_holds_nobody_up() -> Result {
    let agent = agent()?;
    let begun = Instant::now();
    let mut slow = UnixStream::connect(&agent.path)?;
    slow.write_all(b"GET /v1/sta")?;
    let mut slow_body = UnixStream::connect(&agent.path)?;
    slow_body.write_all(b"POST /v1/reload HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")?;
    // Connected, and not a byte: six of them.
    let silent: Vec<_> =
        (0..6).map(|_| UnixStream::connect(&agent.path)).collect::<std::result::Result<_, _>>()?;
    assert_eq!(get(&agent.path, "/v1/status")?.0, 200);
    assert!(begun.elapsed() < Duration::from_secs(2), "held up for {:?}", begun.elapsed());
    let (status, answer) = receive(&mut slow)?;
    assert_eq!((status, &answer["error"]["code"]), (408, &"too-slow".into()), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(8), "cut off only after {:?}", begun.elapsed());
    let (status, answer) = receive(&mut slow_body)?;
    assert_eq!(status, 408, "{answer}");
    drop(silent);
    Ok(())
}

#[test]
fn a_hundred_at_once_are_all_served() -> Result {
    let agent = agent()?;
    let path = &agent.path;
    let statuses: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..100)
            .map(|_| scope.spawn(|| get(path, "/v1/status").map_or(0, |(status, _)| status)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(0)).collect()
    });
    assert_eq!(statuses, [200; 100]);
    Ok(())
}

#[test]
fn a_crowd_that_says_nothing_is_told_to_wait_its_turn() -> Result {
    let agent = agent()?;
    let crowd: Vec<_> =
        (0..20).map(|_| UnixStream::connect(&agent.path)).collect::<std::result::Result<_, _>>()?;
    let (status, answer) = get(&agent.path, "/v1/status")?;
    // Sixteen of the crowd are served first; they are cut off after five seconds.
    assert_eq!((status, &answer["error"]["code"]), (503, &"busy".into()), "{answer}");
    drop(crowd);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(get(&agent.path, "/v1/status")?.0, 200);
    Ok(())
}

/// Of each limit, a quarter is root's: a tool that runs as a member of the group cannot lock root out.
#[test]
fn a_flood_of_a_user_leaves_room_for_root() -> Result {
    const GROUP: u32 = 54777;
    let agent = Agent::start(Made::default(), Some(GROUP))?;
    let path = &agent.path;
    let flood = as_user(GROUP, &[], || (0..150).map(|_| UnixStream::connect(path)).collect::<Vec<_>>())?;
    let begun = Instant::now();
    assert_eq!(get(path, "/v1/status")?.0, 200);
    assert!(begun.elapsed() < Duration::from_secs(1), "root waited {:?}", begun.elapsed());
    drop(flood);
    Ok(())
}
