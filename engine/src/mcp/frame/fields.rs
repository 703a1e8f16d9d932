//! Values to the fields of the message that is being read.

use super::Framer;
use crate::{
    input::Digest,
    mcp::{
        keys::Field,
        message::{ArgumentValue, Id},
        text::Text,
        token::Literal,
    },
};

/// Tool names kept of one list.
const MAX_TOOLS: usize = 512;

impl Framer {
    /// A key of interest ended.
    pub(super) fn key(&mut self) {
        let field = self.scanner.field();
        self.text.begin(field.limit());
        if self.scanner.duplicate() {
            self.message.duplicate_keys = true;
            self.message.clear(field);
            if field == Field::ToolName {
                self.tool = None;
            }
        }
        match field {
            Field::Result => self.message.has_result = true,
            Field::Error => self.message.has_error = true,
            Field::Capabilities => self.message.hints.capabilities = true,
            Field::Lsp => self.message.hints.lsp = true,
            Field::Argument => self.argument.name = self.scanner.key().take().into_name(),
            _ => {}
        }
    }

    /// A string ended.
    pub(super) fn value(&mut self, id: impl Fn(Text) -> Id) {
        let field = self.scanner.field();
        if field.limit() == 0 {
            return;
        }
        let text = self.text.take();
        let message = &mut *self.message;
        match field {
            Field::Id => message.id = Some(id(text)),
            Field::RequestId => message.cancelled = Some(id(text)),
            Field::Method => message.method = Some(text.into_name()),
            Field::Name => message.tool = Some(text.into_name()),
            Field::Protocol => message.protocol = Some(text.into_name()),
            Field::MetaProtocol => {
                message.protocol = Some(text.into_name());
                message.hints.meta_protocol = true;
            }
            Field::ClientName => message.client_name = Some(text.into_name()),
            Field::ClientVersion => message.client_version = Some(text.into_name()),
            Field::ServerName => message.server_name = Some(text.into_name()),
            Field::ServerVersion => message.server_version = Some(text.into_name()),
            Field::ResultType => message.result_type = Some(text.into_name()),
            Field::TaskId => message.task_id = Some(text.into_name()),
            Field::TaskStatus => message.task_status = Some(text.into_name()),
            Field::ToolName => self.tool = Some(text.into_name()),
            Field::JsonRpc => message.hints.jsonrpc = text == Text::Whole("2.0".into()),
            _ => {}
        }
    }

    /// A number ended: only ids may be numbers.
    pub(super) fn number(&mut self) {
        if matches!(self.scanner.field(), Field::Id | Field::RequestId) {
            self.value(Id::number);
        }
    }

    pub(super) fn literal(&mut self, literal: Literal) {
        let message = &mut *self.message;
        match (self.scanner.field(), literal) {
            (Field::Id, Literal::Null) => message.id = Some(Id::Null),
            (Field::Error, Literal::Null) => message.has_error = false,
            (Field::IsError, literal) => message.is_error = literal == Literal::True,
            _ => {}
        }
    }

    /// An element of `result.tools` ended.
    pub(super) fn tool(&mut self) {
        if let Some(name) = self.tool.take() {
            if self.message.tools.len() < MAX_TOOLS {
                self.message.tools.push(name);
            } else {
                self.message.tools_dropped = self.message.tools_dropped.saturating_add(1);
            }
        }
    }

    /// A member of `params.arguments` ended.
    pub(super) fn argument<'a>(&mut self, digests: &mut impl Iterator<Item = &'a Digest>) {
        self.argument.open = false;
        let message = &mut *self.message;
        if !self.scanner.argument_counts() {
            message.arguments_dropped = message.arguments_dropped.saturating_add(1);
            return;
        }
        let name = std::mem::take(&mut self.argument.name);
        let same = message.arguments.iter().position(|argument| argument.name == name);
        if let Some(same) = same {
            message.duplicate_keys = true;
            message.arguments.remove(same);
        }
        message.arguments.push(ArgumentValue {
            name,
            bytes: self.argument.bytes,
            digest: digests.next().copied().unwrap_or_default(),
            value: self.include_arguments.then(|| String::from_utf8_lossy(&self.argument.value).into()),
        });
    }
}
