//! One direction of one channel: bytes to messages.

mod fields;

use blake3::Hasher;

use super::{
    keys::{Field, Role},
    message::{Id, Message},
    scan::Scanner,
    text::{Decoder, first16},
    token::{Cutting, LineEnd, Token},
};
use crate::input::Digest;

/// Bytes of an argument value that are shown, when asked for.
const MAX_VALUE: usize = 4096;

/// What the bytes of a channel amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A JSON object on a line of its own, or in a batch.
    Message(Box<Message>),
    /// A line that is something else.
    Garbage {
        /// Its length, without the newline.
        bytes: u64,
    },
    /// The first byte of the stream is neither `{` nor `[`: this is not MCP's framing. Comes at
    /// most once; framing goes on.
    NotJson,
}

/// Frames one direction of one channel. Keeps no payload, and a bounded amount of the rest.
#[derive(Debug, Default)]
pub struct Framer {
    scanner: Scanner,
    include_arguments: bool,
    /// The first byte of the stream was seen, or lost.
    started: bool,
    /// Bytes of the line before the current push; with those of gaps inside.
    before: u64,
    hash: Hasher,
    message: Box<Message>,
    /// A message is being read.
    open: bool,
    /// Where in the line it began.
    from: u64,
    /// Messages of this batch so far.
    messages: u64,
    text: Decoder,
    /// Name of the element of `result.tools` that is being read.
    tool: Option<Box<str>>,
    argument: Argument,
    /// What was seen of the message that a gap cut.
    head: Option<Box<Message>>,
    /// The cut line was garbage before the gap.
    garbage: bool,
    /// The cut message was reported already.
    reported: bool,
}

/// The member of `params.arguments` that is being read.
#[derive(Debug, Default)]
struct Argument {
    open: bool,
    name: Box<str>,
    bytes: u64,
    value: Vec<u8>,
}

impl Framer {
    /// `include_arguments`: keep the beginnings of argument values.
    pub fn new(include_arguments: bool) -> Self {
        Self { include_arguments, ..Self::default() }
    }

    /// The next bytes. `digests`: keyed hashes of the argument values that end in them, in order,
    /// as [`crate::privacy::Masker`] gave them for these same bytes.
    pub fn push(&mut self, bytes: &[u8], digests: &[Digest], out: &mut Vec<Frame>) {
        let mut digests = digests.iter();
        let mut at = 0;
        // In `bytes`: where the line begins, and what of it is not hashed yet.
        let (mut line, mut hashed) = (0, 0);
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let step = self.scanner.next(rest, &mut ());
            let end = at + step.len;
            let (part, _) = rest.split_at(step.len);
            if step.argument {
                self.argument.add(part, self.include_arguments);
            }
            match step.token {
                Token::Text | Token::Number if self.scanner.field().limit() > 0 => {
                    self.text.feed(part);
                }
                Token::KeyEnd => self.key(),
                Token::TextEnd => self.value(Id::text),
                Token::NumberEnd => self.number(),
                Token::LiteralEnd(literal) => self.literal(literal),
                Token::Open(Role::Message) => {
                    self.started = true;
                    self.open = true;
                    self.from = self.so_far(at - line);
                    *self.message = Message::default();
                    if self.scanner.batch() {
                        self.hash.reset();
                        hashed = at;
                    }
                }
                Token::Open(Role::Batch) => self.started = true,
                Token::Open(Role::Tool) => self.tool = None,
                Token::Close(Role::Tool) => self.tool(),
                Token::Close(Role::Message) if self.scanner.batch() => {
                    self.hash.update(bytes.get(hashed..end).unwrap_or_default());
                    hashed = end;
                    self.messages += 1;
                    self.message.batch = true;
                    let bytes = self.so_far(end - line).saturating_sub(self.from);
                    self.emit(bytes, out);
                }
                Token::GarbageStart => {
                    if !self.started {
                        out.push(Frame::NotJson);
                    }
                    self.started = true;
                }
                Token::Line(how) => {
                    self.update(bytes.get(hashed..at));
                    self.before = self.so_far(at - line);
                    self.line(how, out);
                    (line, hashed) = (end, end);
                }
                _ => {}
            }
            if step.argument_end {
                self.argument(&mut digests);
            }
            at = end;
        }
        self.update(bytes.get(hashed..));
        self.before = self.so_far(bytes.len() - line);
    }

    /// `n` bytes were not captured; 0: nobody knows how many.
    ///
    /// Between two lines, the next line counts as whole if it scans as a whole object, which the
    /// rest of a cut one never does. Inside a message, what was seen of it is kept and joined with
    /// the id at the end of the line; if nobody knows how much is missing, it is reported at once.
    pub fn gap(&mut self, n: u64, out: &mut Vec<Frame>) {
        self.started = true;
        match self.scanner.gap() {
            Cutting::Between => return self.reset(),
            Cutting::Complete { batch } => {
                self.end(if batch { LineEnd::Batch } else { LineEnd::Message }, out);
                return self.reset();
            }
            Cutting::Inside => {
                if self.open {
                    let mut head = std::mem::take(&mut self.message);
                    head.cut = true;
                    head.batch = self.scanner.batch();
                    head.bytes = self.before.saturating_sub(self.from);
                    head.arguments_dropped += u32::from(self.argument.open);
                    self.head = Some(head);
                }
                if n == 0 {
                    out.extend(self.head.take().map(Frame::Message));
                    self.reported = true;
                    self.before = 0;
                }
            }
            Cutting::Garbage => self.garbage = true,
            Cutting::Again => {}
        }
        self.open = false;
        self.argument.open = false;
        self.before = self.before.saturating_add(n);
    }

    /// Bytes of the incomplete line so far.
    pub fn pending(&self) -> u64 {
        self.before
    }

    /// Heap held, bytes. Bounded, whatever comes in.
    pub fn held(&self) -> usize {
        let messages = self.message.held() + self.head.as_ref().map_or(0, |head| head.held());
        let argument = self.argument.name.len() + self.argument.value.capacity();
        let tool = self.tool.as_ref().map_or(0, |tool| tool.len());
        self.scanner.held() + self.text.held() + messages + argument + tool
    }

    /// Bytes of the line, `more` of them in the current push.
    fn so_far(&self, more: usize) -> u64 {
        self.before.saturating_add(more as u64)
    }

    fn update(&mut self, bytes: Option<&[u8]>) {
        if let Some(bytes) = bytes.filter(|_| self.scanner.healthy()) {
            self.hash.update(bytes);
        }
    }

    /// Forgets the line.
    fn reset(&mut self) {
        self.before = 0;
        self.hash.reset();
        self.open = false;
        self.messages = 0;
        self.argument.open = false;
        self.head = None;
        self.garbage = false;
        self.reported = false;
    }

    fn line(&mut self, how: LineEnd, out: &mut Vec<Frame>) {
        self.end(how, out);
        self.scanner.line_start();
        self.reset();
    }

    fn end(&mut self, how: LineEnd, out: &mut Vec<Frame>) {
        let bytes = self.before;
        match how {
            LineEnd::Empty => {}
            LineEnd::Message => self.emit(bytes, out),
            LineEnd::Batch if self.messages > 0 => {}
            LineEnd::Batch | LineEnd::Garbage => out.push(Frame::Garbage { bytes }),
            LineEnd::Cut => self.cut(out),
        }
    }

    fn emit(&mut self, bytes: u64, out: &mut Vec<Frame>) {
        let mut message = std::mem::take(&mut self.message);
        message.bytes = bytes;
        message.line_hash = first16(&self.hash);
        self.open = false;
        out.push(Frame::Message(message));
    }

    /// A line that a gap cut.
    fn cut(&mut self, out: &mut Vec<Frame>) {
        let bytes = self.before;
        let id = self.scanner.tail_id().map(|(raw, text)| {
            self.text.begin(Field::Id.limit());
            self.text.feed(raw);
            let kept = self.text.take();
            if text { Id::text(kept) } else { Id::number(kept) }
        });
        let rest = |id| Message { bytes, cut: true, id, ..Message::default() };
        match (self.head.take(), id) {
            (Some(head), Some(id)) if head.id.as_ref().is_some_and(|known| *known != id) => {
                // The newline between two messages was lost.
                out.push(Frame::Message(head));
                out.push(Frame::Message(Box::new(rest(Some(id)))));
            }
            (Some(mut head), id) => {
                head.bytes = bytes;
                head.id = head.id.or(id);
                out.push(Frame::Message(head));
            }
            (None, Some(id)) => out.push(Frame::Message(Box::new(rest(Some(id))))),
            (None, None) if self.garbage => out.push(Frame::Garbage { bytes }),
            (None, None) if self.reported => {}
            (None, None) => out.push(Frame::Message(Box::new(rest(None)))),
        }
    }
}

impl Argument {
    /// More of its value.
    fn add(&mut self, part: &[u8], include: bool) {
        if !self.open {
            self.open = true;
            self.bytes = 0;
            self.value.clear();
        }
        self.bytes += part.len() as u64;
        if include {
            let room = MAX_VALUE.saturating_sub(self.value.len());
            self.value.extend(part.iter().take(room));
        }
    }
}
