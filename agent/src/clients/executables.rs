//! Executables of well-known MCP clients: what runs below one of them may be the work of a tool.

use super::basename;

/// Names of executables. Some clients are scripts; then it is the script's name.
const NAMES: &[(&str, &str)] = &[
    ("claude", "Claude Code"),
    ("claude-desktop", "Claude Desktop"),
    ("claude-code", "Claude Code"),
    ("cursor", "Cursor"),
    ("cursor-agent", "Cursor"),
    ("code", "VS Code"),
    ("code-insiders", "VS Code"),
    ("code-oss", "VS Code"),
    ("code-server", "VS Code"),
    ("codium", "VSCodium"),
    ("vscodium", "VSCodium"),
    ("windsurf", "Windsurf"),
    ("codex", "Codex"),
    ("gemini", "Gemini CLI"),
    ("gemini-cli", "Gemini CLI"),
    ("antigravity", "Antigravity"),
    ("zed", "Zed"),
    ("zed-editor", "Zed"),
    ("zeditor", "Zed"),
    ("opencode", "opencode"),
    ("goose", "Goose"),
    ("goosed", "Goose"),
    ("kiro", "Kiro"),
    ("kiro-cli", "Kiro"),
    ("q", "Amazon Q"),
    ("qchat", "Amazon Q"),
    ("lm-studio", "LM Studio"),
    ("lmstudio", "LM Studio"),
    ("lms", "LM Studio"),
    ("copilot", "Copilot CLI"),
    ("kimi", "Kimi"),
    ("droid", "Factory"),
    ("amp", "Amp"),
    ("vibe", "Vibe"),
    ("cline", "Cline"),
    ("crush", "Crush"),
    ("qwen", "Qwen Code"),
    ("aider", "aider"),
];

/// Directories of packages and of remote servers: their main script is `cli.js` or `node`.
const DIRECTORIES: &[(&str, &str)] = &[
    ("claude-code", "Claude Code"),
    ("gemini-cli", "Gemini CLI"),
    ("codex", "Codex"),
    ("copilot", "Copilot CLI"),
    ("amp", "Amp"),
    ("opencode-ai", "opencode"),
    (".vscode-server", "VS Code"),
    (".vscode-server-insiders", "VS Code"),
    (".cursor-server", "Cursor"),
    (".windsurf-server", "Windsurf"),
];

/// Which client a process is, by its executable and, for an interpreter, by its script.
pub(crate) fn known_client(exe: &str, argv: &[String]) -> Option<String> {
    let exe = exe.strip_suffix(" (deleted)").unwrap_or(exe);
    let name = stem(exe);
    let known = by_name(&name).or_else(|| by_directory(exe));
    let script =
        || is_interpreter(&name).then(|| argv.iter().skip(1).find(|word| !word.starts_with('-'))).flatten();
    known
        .or_else(|| script().and_then(|script| by_name(&stem(script)).or_else(|| by_directory(script))))
        // Clients that name themselves: `process.title = "claude"`.
        .or_else(|| argv.first().and_then(|title| by_name(&stem(title))))
        .map(str::to_owned)
}

fn by_name(name: &str) -> Option<&'static str> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, client)| *client)
}

fn by_directory(path: &str) -> Option<&'static str> {
    // The native client's executable is named by its version.
    if path.contains("/claude/versions/") {
        return Some("Claude Code");
    }
    let in_modules = path.contains("/node_modules/") || path.contains("-server/");
    if !in_modules {
        return None;
    }
    DIRECTORIES.iter().find(|(known, _)| path.split('/').any(|part| part == *known)).map(|(_, c)| *c)
}

/// Last component in lower case, without what scripts and images end with.
fn stem(path: &str) -> String {
    let mut name = basename(path).to_lowercase();
    for end in [".js", ".mjs", ".cjs", ".py", ".appimage"] {
        if let Some(short) = name.strip_suffix(end) {
            name = short.to_owned();
            break;
        }
    }
    name
}

fn is_interpreter(name: &str) -> bool {
    matches!(name, "node" | "nodejs" | "bun" | "deno" | "electron" | "ruby") || name.starts_with("python")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_known_by_executable_script_and_title() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let cases = [
            ("/usr/share/code/code", "/usr/share/code/code --type=utility", Some("VS Code")),
            ("/opt/Cursor-1.2.AppImage", "x", None),
            ("/home/u/.local/share/claude/versions/2.0.14", "x", Some("Claude Code")),
            ("/opt/cursor.AppImage", "cursor", Some("Cursor")),
            ("/home/u/.local/share/claude/versions/2.0/claude (deleted)", "claude", Some("Claude Code")),
            ("/usr/bin/node", "node /usr/bin/gemini", Some("Gemini CLI")),
            ("/usr/bin/node", "claude", Some("Claude Code")),
            (
                "/usr/bin/node",
                "node --max-old-space-size=1 /usr/lib/node_modules/@anthropic-ai/claude-code/cli.js",
                Some("Claude Code"),
            ),
            ("/home/u/.vscode-server/cli/servers/Stable-1/server/node", "node x.js", Some("VS Code")),
            ("/usr/bin/python3.12", "python3 /usr/bin/aider.py", Some("aider")),
            ("/usr/bin/bash", "bash claude", None),
            ("/usr/bin/sudo", "sudo toolwarden", None),
            ("/usr/lib/systemd/systemd", "/sbin/init", None),
        ];
        for (exe, argv, client) in cases {
            assert_eq!(known_client(exe, &words(argv)).as_deref(), client, "{exe} {argv}");
        }
    }
}
