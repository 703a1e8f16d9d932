//! One line an event, signed over time and content, so that nobody else can send some, or the same again much later.

use std::fmt::Write as _;

use ring::hmac;

use super::Content;
use crate::sinks::{format::Head, secret::Secret, spec::Format, wire::Event};

/// Seconds since 1970 when it was signed.
const TIMESTAMP: &str = "x-toolwarden-timestamp";
/// `v1=` and HMAC-SHA256 of timestamp, point and body, in hexadecimal.
const SIGNATURE: &str = "x-toolwarden-signature";

pub(super) fn content(
    key: Option<&Secret>,
    format: Format,
    alone: bool,
    events: &[(Head, &Event, Vec<u8>)],
) -> Content {
    let mut body = Vec::new();
    for (_, _, bytes) in events {
        body.extend_from_slice(bytes);
        if !alone {
            body.push(b'\n');
        }
    }
    let json = !matches!(format, Format::Cef);
    let kind = match (json, alone) {
        (true, true) => "application/json",
        (true, false) => "application/x-ndjson",
        (false, _) => "text/plain; charset=utf-8",
    };
    let headers = key.map_or_else(Vec::new, |key| {
        let now = jiff::Timestamp::now().as_second();
        vec![(TIMESTAMP, now.to_string()), (SIGNATURE, signature(key, now, &body))]
    });
    Content { kind, body: body.into(), headers }
}

/// Made anew for each request: a receiver refuses what is old.
pub(super) fn signature(key: &Secret, seconds: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.reveal().as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{seconds}.").as_bytes());
    context.update(body);
    context.sign().as_ref().iter().fold("v1=".to_owned(), |mut hex, byte| {
        // Writing into memory cannot fail.
        let _unused = write!(hex, "{byte:02x}");
        hex
    })
}
