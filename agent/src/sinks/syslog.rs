//! RFC 5424 over UDP (RFC 5426), TCP with octet counting (RFC 6587) and TLS (RFC 5425).
//!
//! Syslog has no acknowledgement. Over UDP nothing is known. Over TCP and TLS an event counts as delivered when the other kernel has acknowledged its
//! last byte; what a receiver that died had not read by then is sent again from the [tail](super::tail).

use std::fmt::Write as _;

use engine::finding::Severity;

use super::{
    deliver::{Failure, Taken},
    format::{self, Head},
    host::Host,
    spec::{self, Format, Transport},
    tail::Tail,
    udp::Udp,
    wire::Event,
};

/// Bytes of a value in structured data.
const MAX_VALUE: usize = 256;
/// Of RFC 5424.
const MAX_HOST: usize = 255;
const MAX_APP: usize = 48;

/// A receiver.
pub(super) struct Syslog {
    style: Style,
    link: Link,
}

enum Link {
    Udp(Udp),
    Stream(Box<Tail>),
}

/// What does not change from message to message.
struct Style {
    facility: u8,
    app_name: String,
    enterprise: u64,
    max_message: Option<usize>,
}

impl Syslog {
    pub(super) fn new(spec: &spec::Syslog) -> Self {
        let style = Style {
            facility: spec.facility,
            app_name: graphic(&spec.app_name, MAX_APP),
            enterprise: spec.enterprise,
            max_message: spec.max_message,
        };
        let link = match spec.transport {
            Transport::Udp => Link::Udp(Udp::new(spec.peer.clone())),
            Transport::Tcp => Link::Stream(Box::new(Tail::new(spec.peer.clone()))),
        };
        Self { style, link }
    }

    /// What it means that they were sent.
    pub(super) fn said(&self) -> &'static str {
        match self.link {
            Link::Udp(_) => "sent; nobody says whether it arrived",
            Link::Stream(_) => "acknowledged by the receiver's kernel",
        }
    }

    /// Sends them all, and what a lost connection may have swallowed.
    pub(super) async fn send(
        &mut self,
        format: Format,
        host: &Host,
        events: &[Event],
    ) -> Result<Taken, Failure> {
        let mut truncated = 0;
        let mut messages = Vec::with_capacity(events.len());
        for event in events {
            let (message, cut) =
                self.style.message(host, &Head::of(event), event, &format::body(format, host, event));
            truncated += u64::from(cut);
            messages.push(message);
        }
        let bytes = messages.iter().map(Vec::len).sum();
        let again = match &mut self.link {
            Link::Udp(udp) => udp.send(&messages).await.map(|()| 0)?,
            Link::Stream(tail) => tail.send(messages.iter().map(|m| counted(m)).collect()).await?,
        };
        Ok(Taken { events: events.len(), bytes, truncated, again, ..Taken::default() })
    }

    /// Until a connection is lost that may have swallowed something.
    pub(super) async fn lost(&mut self) {
        match &mut self.link {
            Link::Udp(_) => std::future::pending().await,
            Link::Stream(tail) => tail.lost().await,
        }
    }

    /// Whether something is to be sent again.
    pub(super) fn owes(&self) -> bool {
        matches!(&self.link, Link::Stream(tail) if tail.owes())
    }
}

/// RFC 6587, 3.4.1.
fn counted(message: &[u8]) -> Vec<u8> {
    let mut frame = format!("{} ", message.len()).into_bytes();
    frame.extend_from_slice(message);
    frame
}

impl Style {
    /// A message, and whether it had to be cut.
    fn message(&self, host: &Host, head: &Head, event: &Event, body: &[u8]) -> (Vec<u8>, bool) {
        let whole = self.head(host, head, event, None);
        let max = self.max_message.unwrap_or(usize::MAX);
        if whole.len() + body.len() <= max {
            return ([whole.as_bytes(), body].concat(), false);
        }
        // Who reads it can see that it was longer.
        let start = self.head(host, head, event, Some(body.len()));
        let room = max.saturating_sub(start.len()).min(body.len());
        let end = (0..=room).rev().find(|end| is_boundary(body, *end)).unwrap_or(0);
        let mut message = start.into_bytes();
        message.extend_from_slice(body.get(..end).unwrap_or_default());
        (message, true)
    }

    fn head(&self, host: &Host, head: &Head, event: &Event, longer: Option<usize>) -> String {
        let priority = u16::from(self.facility) * 8 + u16::from(level(head.severity));
        let Self { app_name, enterprise, .. } = self;
        let name = graphic(&host.name, MAX_HOST);
        let time = jiff::Timestamp::from_nanosecond(i128::from(head.time_ns)).unwrap_or_default();
        let mut text = format!(
            "<{priority}>1 {time:.6} {name} {app_name} - {} [toolwarden@{enterprise}",
            graphic(&head.what, 32)
        );
        let mut tell = |key: &str, value: &str| {
            if !value.is_empty() {
                // Writing into memory cannot fail.
                let _unused = write!(text, " {key}=\"{}\"", escaped(value));
            }
        };
        tell("uid", &event.uid());
        tell("severity", head.severity.name());
        tell("kind", &head.kind);
        tell("rule", &head.rule);
        tell("server", &head.server);
        tell("tool", &head.tool);
        if let Some(bytes) = longer {
            tell("truncated", &bytes.to_string());
        }
        text.push_str("] ");
        text
    }
}

/// RFC 5424, 6.2.1. What is severe for us is no emergency of the host.
pub(super) fn level(severity: Severity) -> u8 {
    match severity {
        Severity::Critical => 2,
        Severity::High => 3,
        Severity::Medium => 4,
        Severity::Low => 5,
        Severity::Info => 6,
    }
}

/// `PRINTUSASCII` of a length, or the word for nothing.
fn graphic(text: &str, max: usize) -> String {
    let plain: String = text.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).take(max).collect();
    if plain.is_empty() { "-".to_owned() } else { plain }
}

/// RFC 5424, 6.3.3. Control characters would be some receiver's ends of messages.
fn escaped(value: &str) -> String {
    let mut text = String::new();
    for c in value.chars() {
        if text.len() >= MAX_VALUE {
            text.push('…');
            break;
        }
        match c {
            '"' | '\\' | ']' => text.extend(['\\', c]),
            c if c.is_control() => text.push('?'),
            c => text.push(c),
        }
    }
    text
}

/// Whether a text of UTF-8 may end there.
fn is_boundary(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_none_or(|byte| byte & 0xc0 != 0x80)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn style(max_message: Option<usize>) -> Style {
        Style { facility: 13, app_name: "toolwarden".into(), enterprise: 32473, max_message }
    }

    fn event() -> Event {
        Event { seq: 1, boot: "b".into(), number: 7, stored_ns: 0, json: "{}".into() }
    }

    fn head(server: &str) -> Head {
        Head {
            severity: Severity::High,
            what: "finding".into(),
            kind: "new-exec".into(),
            rule: String::new(),
            server: server.into(),
            tool: "t".into(),
            title: "x".into(),
            time_ns: 1_700_000_000_000_000_001,
        }
    }

    fn host(name: &str) -> Host {
        Host { name: name.into(), ..Host::default() }
    }

    fn message(max: Option<usize>, host_name: &str, server: &str, body: &str) -> (String, bool) {
        let (bytes, cut) = style(max).message(&host(host_name), &head(server), &event(), body.as_bytes());
        (String::from_utf8(bytes).expect("UTF-8"), cut)
    }

    #[test]
    fn a_message_is_that_of_the_rfc() {
        assert_eq!(
            message(None, "h", "a\"b\\c]d\n", "{}"),
            (
                "<107>1 2023-11-14T22:13:20.000000Z h toolwarden - finding \
                 [toolwarden@32473 uid=\"b-7\" severity=\"high\" kind=\"new-exec\" server=\"a\\\"b\\\\c\\]d?\" tool=\"t\"] {}"
                    .to_owned(),
                false
            )
        );
        assert_eq!(counted("<1>é".as_bytes()), "5 <1>é".as_bytes());
    }

    #[test]
    fn names_of_others_break_no_header() {
        let (text, _) = message(None, "my host\u{1b}é", &"ß]".repeat(10_000), "b");
        assert!(
            text.starts_with("<107>1 2023-11-14T22:13:20.000000Z my_host__ toolwarden - finding ["),
            "{text}"
        );
        assert!(text.len() < 700, "{}", text.len());
        assert!(message(None, "", "", "b").0.contains("Z - toolwarden - "));
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters_and_marked() {
        for max in 200..230 {
            let (text, cut) = message(Some(max), "h", "s", &"é€x".repeat(200));
            assert!(cut && text.len() <= max && text.len() >= max - 3, "{max}: {}", text.len());
            assert!(text.contains(" truncated=\"1200\"]"), "{text}");
        }
        assert!(!message(Some(200), "h", "s", "x").1);
    }
}
