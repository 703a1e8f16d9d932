//! Events over HTTP: batch by batch, each of which the receiver takes, or says why not.
//!
//! # Layout
//! - [`call`]: one request and its answer
//! - [`verdict`]: what an answer means for the events
//! - [`hec`], [`otlp`], [`webhook`]: what requests hold
//!
//! # Guarantees
//! - Redirects are not followed: events and tokens go where the configuration says and nowhere else.
//! - What is wrong with the configuration (a token, a path) loses no event: it is told, and tried again. Only an event that is refused by itself
//!   while others are taken becomes a dead letter.

mod call;
mod hec;
mod otlp;
#[cfg(test)]
mod tests;
mod verdict;
mod webhook;

use call::{Answer, Caller};
use hyper::body::Bytes;
use verdict::{Verdict, verdict};

use super::{
    deliver::{Failure, Taken},
    format::{self, Head},
    host::Host,
    spec::{self, Format, Profile},
    wire::Event,
};

/// Dead letters in a row, with nothing taken between them, before it is rather the receiver's or the operator's fault.
const REFUSED: u32 = 10;

/// A receiver.
pub(super) struct Http {
    caller: Caller,
    profile: Profile,
    /// Events of a request, as configured.
    batch: usize,
    /// As many as the receiver lets us; more again when it goes well.
    at_most: usize,
    refused: u32,
    /// What the receiver said when it last took something.
    last: String,
}

/// What a request holds.
struct Content {
    kind: &'static str,
    body: Bytes,
    /// Headers that depend on it.
    headers: Vec<(&'static str, String)>,
}

impl Http {
    pub(super) fn new(spec: &spec::Http) -> Self {
        Self {
            caller: Caller::new(spec),
            profile: spec.profile.clone(),
            batch: spec.batch,
            at_most: spec.batch,
            refused: 0,
            last: String::new(),
        }
    }

    /// What the receiver said when it last took something.
    pub(super) fn last(&self) -> &str {
        &self.last
    }

    /// Sends the first of these, as many as the receiver takes at a time.
    pub(super) async fn send(
        &mut self,
        format: Format,
        host: &Host,
        events: &[Event],
    ) -> Result<Taken, Failure> {
        loop {
            let these = events.get(..self.at_most.min(events.len())).unwrap_or_default();
            let content = self.content(format, host, these);
            let bytes = content.body.len();
            let answer = self.caller.call(content).await?;
            match verdict(&self.profile, &answer, these.len()) {
                Verdict::Taken { dropped } => {
                    self.refused = 0;
                    self.last = format!("HTTP {}{}", answer.status.as_u16(), self.caller.said(&answer));
                    self.at_most = (self.at_most * 2).min(self.batch);
                    if dropped > 0 {
                        let peer = self.caller.peer();
                        let said = self.caller.said(&answer);
                        tracing::warn!("{peer} dropped {dropped} of {} events for good{said}", these.len());
                    }
                    return Ok(Taken { events: these.len(), bytes, dropped, ..Taken::default() });
                }
                Verdict::Smaller if these.len() > 1 => self.at_most = these.len() / 2,
                Verdict::Smaller if self.refused < REFUSED => {
                    self.refused += 1;
                    return Err(Failure::Never { because: self.because(&answer, "") });
                }
                Verdict::Smaller => {
                    let all = format!("it refused {REFUSED} events in a row, so nothing more is given up; ");
                    return Err(Failure::later(self.because(&answer, &all)));
                }
                Verdict::Later { hint, after } => {
                    return Err(Failure::Later { because: self.because(&answer, hint), after });
                }
            }
        }
    }

    fn content(&self, format: Format, host: &Host, events: &[Event]) -> Content {
        let each: Vec<(Head, &Event, Vec<u8>)> =
            events.iter().map(|e| (Head::of(e), e, format::body(format, host, e))).collect();
        match &self.profile {
            Profile::SplunkHec { index, source, sourcetype } => {
                hec::content(host, [index, source, sourcetype].map(Option::as_deref), format, &each)
            }
            Profile::Otlp { encoding } => otlp::content(*encoding, host, &each),
            Profile::Webhook { hmac_key } => {
                webhook::content(hmac_key.as_ref(), format, self.batch == 1, &each)
            }
        }
    }

    fn because(&self, answer: &Answer, hint: &str) -> String {
        let said = self.caller.said(answer);
        format!("{}: {hint}HTTP {}{said}", self.caller.peer(), answer.status.as_u16())
    }
}
