//! journald's own protocol: fields by name, so that `journalctl` can ask for them.
//!
//! An event counts as delivered when journald has read it. When it is on the disk is journald's own business (`SyncIntervalSec=`).

use std::{
    io::{self, IoSlice, Write as _},
    mem::MaybeUninit,
    os::{fd::AsFd as _, unix::net::UnixDatagram as Blocking},
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};
use tokio::{io::Interest, net::UnixDatagram};

use super::{
    deliver::{Failure, Taken},
    format::{self, Head},
    host::Host,
    queue, spec,
    spec::Format,
    syslog::level,
    wire::Event,
};

/// `MESSAGE_ID=`: one for each kind of event, for ever. They are in the catalog, too, so that `journalctl -x` explains them; a new
/// kind gets a new one (`systemd-id128 new`), and none is ever used for something else.
pub(crate) const MESSAGE_IDS: [(&str, &str); 5] = [
    ("finding", "c83fef17db064abb966507e9a74371a6"),
    ("response", "03032334a389417f8f0b92eaae956516"),
    ("agent", "35ec820dc6bf49eaa3b3e73cae62c516"),
    ("gap", "26a99b7c80c1490b881e690c425b82d8"),
    ("effect", "2b5c9ccbaf91427fa249d06a43a6552b"),
];
/// Larger ones go as files.
const MAX_DATAGRAM: usize = 96 << 10;
/// journald takes what is there within this, or it hangs.
const STUCK: Duration = Duration::from_secs(10);

/// Its socket.
pub(super) struct Journald {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Journald {
    pub(super) fn new(spec: &spec::Journald) -> Self {
        Self { path: spec.socket.clone(), socket: None }
    }

    /// Hands them over and waits until they were read.
    pub(super) async fn send(
        &mut self,
        format: Format,
        host: &Host,
        events: &[Event],
    ) -> Result<Taken, Failure> {
        let mut bytes = 0;
        let outcome = async {
            let socket = match self.socket.take() {
                Some(socket) => socket,
                None => open(&self.path)?,
            };
            for event in events {
                let entry = entry(event, &Head::of(event), &format::body(format, host, event));
                bytes += entry.len();
                hand_over(&socket, &entry).await?;
            }
            read(&socket).await?;
            self.socket = Some(socket);
            Ok::<_, io::Error>(())
        };
        let outcome = outcome.await;
        match outcome {
            Ok(()) => Ok(Taken { events: events.len(), bytes, ..Taken::default() }),
            Err(e) => Err(Failure::later(format!("{}: {e}", self.path.display()))),
        }
    }
}

fn open(path: &std::path::Path) -> io::Result<UnixDatagram> {
    let socket = Blocking::unbound()?;
    socket.connect(path)?;
    socket.set_nonblocking(true)?;
    UnixDatagram::from_std(socket)
}

async fn hand_over(socket: &UnixDatagram, entry: &[u8]) -> io::Result<()> {
    if entry.len() <= MAX_DATAGRAM {
        match within(socket.send(entry)).await {
            // The host allows only smaller ones.
            Err(e) if e.raw_os_error() == Some(libc::EMSGSIZE) => {}
            done => return done.map(drop),
        }
    }
    let file = memfd_create("toolwarden-event", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(file);
    file.write_all(entry)?;
    // journald takes only what nobody can change any more.
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    let pass = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [file.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(socket, &[] as &[IoSlice<'_>], &mut control, SendFlags::NOSIGNAL).map_err(io::Error::from)
    };
    within(socket.async_io(Interest::WRITABLE, pass)).await.map(drop)
}

/// Until nothing is left to be read.
async fn read(socket: &UnixDatagram) -> io::Result<()> {
    let began = Instant::now();
    while queue::unsent(socket)? > 0 {
        if began.elapsed() > STUCK {
            return Err(stuck());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // When journald ends, what it had not read is gone, too. It passes over an empty datagram; without a reader that is an error.
    within(socket.send(&[])).await.map(drop)
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(STUCK, work).await.map_err(|_late| stuck())?
}

fn stuck() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("journald took nothing for {STUCK:?}"))
}

/// An event as fields.
fn entry(event: &Event, head: &Head, body: &[u8]) -> Vec<u8> {
    let mut entry = Vec::with_capacity(body.len() + 512);
    let id = MESSAGE_IDS.iter().find(|(what, _)| *what == head.what).map_or("", |(_, id)| id);
    for (name, value) in [
        ("MESSAGE", head.title.as_str()),
        ("MESSAGE_ID", id),
        ("PRIORITY", &level(head.severity).to_string()),
        ("SYSLOG_IDENTIFIER", "toolwarden"),
        ("TOOLWARDEN_UID", &event.uid()),
        ("TOOLWARDEN_NUMBER", &event.number.to_string()),
        ("TOOLWARDEN_TYPE", &head.what),
        ("TOOLWARDEN_KIND", &head.kind),
        ("TOOLWARDEN_RULE", &head.rule),
        ("TOOLWARDEN_SEVERITY", head.severity.name()),
        ("TOOLWARDEN_SERVER", &head.server),
        ("TOOLWARDEN_TOOL", &head.tool),
    ] {
        if !value.is_empty() {
            field(&mut entry, name, value.as_bytes());
        }
    }
    field(&mut entry, "TOOLWARDEN_EVENT", body);
    entry
}

/// With its length: whatever the value holds, it is one.
fn field(entry: &mut Vec<u8>, name: &str, value: &[u8]) {
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'\n');
    entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_make_a_field() {
        let event = Event { seq: 1, boot: "b".into(), number: 7, stored_ns: 0, json: "{}".into() };
        let head = Head {
            severity: engine::finding::Severity::Critical,
            what: "finding".into(),
            kind: "new-exec".into(),
            rule: String::new(),
            server: "s\nPRIORITY=7".into(),
            tool: String::new(),
            title: "t".into(),
            time_ns: 0,
        };
        let entry = entry(&event, &head, b"{\"a\":\n1}");
        let mut rest = entry.as_slice();
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let end = rest.iter().position(|b| *b == b'\n').expect("a name");
            let (name, tail) = rest.split_at(end);
            let (length, tail) = tail[1..].split_first_chunk::<8>().expect("a length");
            let (value, tail) = tail.split_at(usize::try_from(u64::from_le_bytes(*length)).expect("small"));
            fields.push((
                String::from_utf8_lossy(name).into_owned(),
                String::from_utf8_lossy(value).into_owned(),
            ));
            rest = tail.strip_prefix(b"\n").expect("an end");
        }
        let get = |name: &str| {
            let mut all = fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str());
            (all.next(), all.next())
        };
        assert_eq!(get("PRIORITY"), (Some("2"), None));
        assert_eq!(get("TOOLWARDEN_SERVER"), (Some("s\nPRIORITY=7"), None));
        assert_eq!(get("TOOLWARDEN_TOOL"), (None, None));
        assert_eq!(get("TOOLWARDEN_EVENT"), (Some("{\"a\":\n1}"), None));
        assert_eq!(get("MESSAGE_ID"), (Some(MESSAGE_IDS[0].1), None));
    }

    #[test]
    fn message_ids_are_different_well_formed_and_in_the_catalog() {
        let catalog = include_str!("../../../packaging/toolwarden.catalog");
        for (kind, id) in MESSAGE_IDS {
            assert!(catalog.contains(&format!("-- {id}\n")), "{kind}");
            assert_eq!(id.len(), 32, "{kind}");
            assert!(id.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)), "{kind}");
            assert_eq!(MESSAGE_IDS.iter().filter(|(_, other)| *other == id).count(), 1, "{kind}");
        }
    }

    #[test]
    fn a_large_one_goes_as_a_file_that_nobody_can_change() {
        use std::io::IoSliceMut;

        use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let receiver = Blocking::bind(&path).expect("a socket");
        let reader = std::thread::spawn(move || {
            let (mut bytes, mut space) =
                ([0; 16], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))]);
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut bytes)];
            recvmsg(&receiver, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC).expect("a message");
            let file = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            });
            let mut file = std::fs::File::from(file.expect("a file"));
            let seals = rustix::fs::fcntl_get_seals(&file).expect("seals");
            let mut text = Vec::new();
            // The offset is shared with the writer, which is at the end; journald maps it.
            io::Seek::rewind(&mut file).expect("a file");
            io::Read::read_to_end(&mut file, &mut text).expect("readable");
            // The probe whether somebody is there.
            receiver.recv(&mut [0; 16]).expect("a message");
            (seals, text)
        });
        let event = Event {
            seq: 1,
            boot: "b".into(),
            number: 7,
            stored_ns: 0,
            json: format!("{{\"type\":\"finding\",\"x\":\"{}\"}}", "x".repeat(300_000)),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut journald = Journald::new(&spec::Journald { socket: path });
        let sent = runtime.block_on(journald.send(Format::Json, &Host::default(), &[event]));
        assert_eq!(sent.expect("sent").events, 1);
        let (seals, text) = reader.join().expect("a reader");
        assert!(seals.contains(SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL));
        assert!(text.len() > 300_000 && text.starts_with(b"MESSAGE\n"), "{}", text.len());
        // Nobody reads any more: that must not pass for delivered.
        let event = Event { seq: 2, boot: "b".into(), number: 8, stored_ns: 0, json: "{}".into() };
        runtime
            .block_on(journald.send(Format::Json, &Host::default(), &[event]))
            .expect_err("nobody is there");
    }
}
