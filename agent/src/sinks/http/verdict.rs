//! What an answer means for the events of a request.
//!
//! The rule: an event is given up only when it is refused by itself. A wrong token, a path that is not there or a redirect is for
//! the operator to mend; until then events wait.

use std::time::Duration;

use hyper::{HeaderMap, header};

use super::{call::Answer, hec, otlp};
use crate::sinks::spec::Profile;

/// A receiver cannot make us wait longer than this at a time.
const LONGEST: Duration = Duration::from_secs(300);

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has them, but for so many that it dropped without saying which.
    Taken { dropped: u64 },
    /// Not so many at a time; a single one is refused for good.
    Smaller,
    /// All of them again, later.
    Later { hint: &'static str, after: Option<Duration> },
}

pub(super) fn verdict(profile: &Profile, answer: &Answer, events: usize) -> Verdict {
    let later = |hint| Verdict::Later { hint, after: after(&answer.headers) };
    match answer.status.as_u16() {
        200..=299 => match profile {
            Profile::Otlp { encoding } => match otlp::rejected(*encoding, &answer.body).min(events as u64) {
                // Which ones is not said, unless it is all.
                dropped if dropped == events as u64 && events > 0 => Verdict::Smaller,
                dropped => Verdict::Taken { dropped },
            },
            Profile::SplunkHec { .. } | Profile::Webhook { .. } => Verdict::Taken { dropped: 0 },
        },
        400 if matches!(profile, Profile::SplunkHec { .. }) && hec::is_about_settings(&answer.body) => {
            later("the receiver does not know what the sink asks for (its index?); ")
        }
        400 | 413 | 422 => Verdict::Smaller,
        401 | 403 | 407 => {
            later("the receiver does not accept our credentials: look at `token` and `headers`; ")
        }
        300..=399 => {
            later("it wants us to go elsewhere, which is not done: write the final address in `url`; ")
        }
        404 | 405 | 410 => later("it takes no events there: look at `url`; "),
        415 => later("it does not take this kind of content: look at `type`, `format` and `encoding`; "),
        _ => later(""),
    }
}

/// `Retry-After`: seconds, or a date.
fn after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let time = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            Duration::try_from(date.duration_since(jiff::Timestamp::now())).ok()?
        }
    };
    Some(time.min(LONGEST))
}

/// As a receiver would say it.
#[cfg(test)]
pub(super) fn answer(status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> Answer {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        all.insert(*name, value.parse().expect("a value"));
    }
    Answer {
        status: hyper::StatusCode::from_u16(status).expect("a status"),
        headers: all,
        body: hyper::body::Bytes::copy_from_slice(body),
    }
}
