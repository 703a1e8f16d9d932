//! Which client keeps its servers where (Linux paths).

use super::parse::Shape;

/// What a place's path is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Under {
    /// A user's home directory.
    Home,
    /// A project directory.
    Project,
    /// The root directory.
    System,
}

/// Where a client keeps servers.
pub(super) struct Place {
    pub(super) client: &'static str,
    pub(super) under: Under,
    /// A `*` matches within one name; only the last two components may have one.
    pub(super) path: &'static str,
    pub(super) shape: Shape,
    /// 0: the path itself. More: files of the path's name this many directories below.
    pub(super) depth: usize,
}

const fn at(client: &'static str, under: Under, path: &'static str, shape: Shape) -> Place {
    Place { client, under, path, shape, depth: 0 }
}

const fn below(client: &'static str, path: &'static str, shape: Shape) -> Place {
    // Plugins live at cache/MARKET/PLUGIN/VERSION/...; one more to be sure.
    Place { client, under: Under::Home, path, shape, depth: 5 }
}

use Shape::{Bare, Claude, Json, TomlServers, Workspace, Yaml};
use Under::{Home, Project, System};

const SERVERS: Shape = Json(&[&["mcpServers"]]);
const VSCODE: Shape = Json(&[&["servers"], &["mcpServers"]]);
const VSCODE_SETTINGS: Shape = Json(&[&["mcp", "servers"], &["mcp.servers"]]);
const ZED: Shape = Json(&[&["context_servers"]]);
const OPENCODE: Shape = Json(&[&["mcp"]]);
const AMP: Shape = Json(&[&["amp.mcpServers"]]);

pub(super) const PLACES: &[Place] = &[
    at("Claude Desktop", Home, ".config/Claude/claude_desktop_config.json", SERVERS),
    at("Claude Code", System, "etc/claude-code/managed-mcp.json", SERVERS),
    at("Claude Code", Home, ".claude.json", Claude),
    at("Claude Code", Home, ".claude/.claude.json", Claude),
    at("Claude Code", Home, ".claude/settings.json", SERVERS),
    at("Claude Code", Project, ".mcp.json", SERVERS),
    below("Claude Code", ".claude/plugins/cache/.mcp.json", Bare),
    below("Claude Code", ".claude/plugins/cache/plugin.json", SERVERS),
    at("Cursor", Home, ".cursor/mcp.json", SERVERS),
    at("Cursor", Project, ".cursor/mcp.json", SERVERS),
    at("Cursor", Home, ".config/Cursor/User/workspaceStorage/*/workspace.json", Workspace),
    at("VS Code", Home, ".config/Code/User/mcp.json", VSCODE),
    at("VS Code", Home, ".config/Code/User/settings.json", VSCODE_SETTINGS),
    at("VS Code", Home, ".config/Code/User/workspaceStorage/*/workspace.json", Workspace),
    at("VS Code", Home, ".config/Code - Insiders/User/mcp.json", VSCODE),
    at("VS Code", Home, ".config/Code - Insiders/User/settings.json", VSCODE_SETTINGS),
    at("VS Code", Home, ".vscode-server/data/User/mcp.json", VSCODE),
    at("VS Code", Home, ".vscode-server/data/Machine/settings.json", VSCODE_SETTINGS),
    at("VS Code", Project, ".vscode/mcp.json", VSCODE),
    at("VS Code", Project, ".vscode/settings.json", VSCODE_SETTINGS),
    at("Windsurf", Home, ".codeium/windsurf/mcp_config.json", SERVERS),
    at("Windsurf", Home, ".codeium/mcp_config.json", SERVERS),
    at("Codex", System, "etc/codex/config.toml", TomlServers),
    at("Codex", Home, ".codex/config.toml", TomlServers),
    at("Codex", Home, ".codex/*.config.toml", TomlServers),
    at("Codex", Project, ".codex/config.toml", TomlServers),
    at("Gemini CLI", System, "etc/gemini-cli/settings.json", SERVERS),
    at("Gemini CLI", Home, ".gemini/settings.json", SERVERS),
    at("Gemini CLI", Project, ".gemini/settings.json", SERVERS),
    at("Antigravity", Home, ".gemini/antigravity/mcp_config.json", SERVERS),
    at("Zed", Home, ".config/zed/settings.json", ZED),
    at("Zed", Project, ".zed/settings.json", ZED),
    at("opencode", System, "etc/opencode/opencode.json", OPENCODE),
    at("opencode", System, "etc/opencode/opencode.jsonc", OPENCODE),
    at("opencode", Home, ".config/opencode/opencode.json", OPENCODE),
    at("opencode", Home, ".config/opencode/opencode.jsonc", OPENCODE),
    at("opencode", Project, "opencode.json", OPENCODE),
    at("opencode", Project, "opencode.jsonc", OPENCODE),
    at("Goose", Home, ".config/goose/config.yaml", Yaml(&["extensions"])),
    at("Continue", Home, ".continue/config.yaml", Yaml(&["mcpServers"])),
    at("Continue", Home, ".continue/mcpServers/*.yaml", Yaml(&["mcpServers"])),
    at(
        "Cline",
        Home,
        ".config/Code/User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json",
        SERVERS,
    ),
    at("Kiro", Home, ".kiro/settings/mcp.json", SERVERS),
    at("Kiro", Project, ".kiro/settings/mcp.json", SERVERS),
    at("Amazon Q", Home, ".aws/amazonq/mcp.json", SERVERS),
    at("Amazon Q", Home, ".aws/amazonq/agents/default.json", SERVERS),
    at("Amazon Q", Home, ".aws/amazonq/agents/mcp.json", SERVERS),
    at("Amazon Q", Project, ".amazonq/mcp.json", SERVERS),
    at("LM Studio", Home, ".lmstudio/mcp.json", SERVERS),
    at("Copilot CLI", Home, ".copilot/mcp-config.json", SERVERS),
    at("Kimi", Home, ".kimi/mcp.json", SERVERS),
    at("Factory", Home, ".factory/mcp.json", SERVERS),
    at("Factory", Project, ".factory/mcp.json", SERVERS),
    at("Amp", Home, ".config/amp/settings.json", AMP),
    at("Amp", Project, ".amp/settings.json", AMP),
    at("Vibe", Home, ".vibe/config.toml", TomlServers),
];

/// What a client's executable or command line contains, in lower case.
pub(super) fn mark(client: &str) -> &'static str {
    match client {
        "Claude Desktop" | "Claude Code" => "claude",
        "Cursor" => "cursor",
        "VS Code" | "Cline" | "Continue" => "code",
        "Windsurf" => "windsurf",
        "Codex" => "codex",
        "Gemini CLI" => "gemini",
        "Antigravity" => "antigravity",
        "Zed" => "zed",
        "opencode" => "opencode",
        "Goose" => "goose",
        "Kiro" => "kiro",
        "LM Studio" => "lm-studio",
        "Copilot CLI" => "copilot",
        "Kimi" => "kimi",
        "Factory" => "droid",
        "Amp" => "amp",
        "Vibe" => "vibe",
        // Amazon Q: its executable is `q`, which is in everything.
        _ => "amazon",
    }
}
