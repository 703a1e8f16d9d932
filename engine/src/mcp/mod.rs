//! MCP bytes to messages.
