//! From the names of cgroups to the container, as runtimes write them.

use engine::output::Container;

/// Hex digits of an id.
const ID: usize = 64;
/// Longest name of a container without such an id.
const NAME: usize = 64;
/// Names of scopes begin so, by runtime.
const SCOPES: [(&str, &str); 4] =
    [("docker-", "docker"), ("cri-containerd-", "containerd"), ("crio-", "cri-o"), ("libpod-", "podman")];

/// The innermost container of a process. `cgroups` is `/proc/PID/cgroup`.
pub(super) fn of(cgroups: &str) -> Option<Container> {
    // `0::/path`, or `7:cpu,cpuacct:/path` of version 1: any line that names one will do.
    cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find_map(in_path)
}

fn in_path(path: &str) -> Option<Container> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let pod = parts.iter().rev().find_map(|part| pod(part));
    let (id, runtime) = (0..parts.len())
        .rev()
        .find_map(|n| container(parts[n], n.checked_sub(1).map(|above| parts[above])))?;
    let runtime = runtime.map(str::to_owned);
    Some(Container { id: id.to_owned(), runtime, pod })
}

/// Id and runtime.
fn container<'a>(part: &'a str, above: Option<&str>) -> Option<(&'a str, Option<&'static str>)> {
    let stem = part.strip_suffix(".scope").unwrap_or(part);
    for (prefix, runtime) in SCOPES {
        if let Some(id) = stem.strip_prefix(prefix).filter(|id| is_id(id)) {
            return Some((id, Some(runtime)));
        }
    }
    if let Some(name) = part.strip_prefix("lxc.payload.").filter(|name| is_name(name)) {
        return Some((name, Some("lxc")));
    }
    // Without systemd: `docker/ID`, `kubepods/burstable/podUID/ID`, `SLICE:cri-containerd:ID`.
    match part.rsplit_once(':') {
        Some((before, id)) if is_id(id) => {
            let runtime = before.ends_with("cri-containerd").then_some("containerd");
            Some((id, runtime))
        }
        _ if is_id(part) => Some((part, (above == Some("docker")).then_some("docker"))),
        _ => None,
    }
}

/// `pod8c2..` or `kubepods-burstable-pod8c2...slice`, where systemd wants `_` for `-`.
fn pod(part: &str) -> Option<String> {
    let stem = part.split(':').next().unwrap_or(part);
    let stem = stem.strip_suffix(".slice").unwrap_or(stem);
    let id =
        if stem.starts_with("kubepods") { stem.rsplit_once("-pod")?.1 } else { stem.strip_prefix("pod")? };
    let id = id.replace('_', "-");
    // A UUID, or 32 hex digits of static pods.
    let fits = matches!(id.len(), 32 | 36) && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    fits.then_some(id)
}

fn is_id(text: &str) -> bool {
    text.len() == ID && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=NAME).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4e0a8a3b1c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6";
    const POD: &str = "8c2f5a1e-0b7d-4c55-9f3a-1d2e3f405162";

    #[test]
    fn what_runtimes_write_is_read() {
        let pod_ = POD.replace('-', "_");
        let cases = [
            (format!("0::/system.slice/docker-{ID}.scope"), Some("docker"), false),
            (format!("0::/docker/{ID}"), Some("docker"), false),
            (format!("12:cpu,cpuacct:/docker/{ID}/inner\n0::/"), Some("docker"), false),
            (
                format!(
                    "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{pod_}.slice/cri-containerd-{ID}.scope"
                ),
                Some("containerd"),
                true,
            ),
            (format!("0::/kubepods/besteffort/pod{POD}/{ID}"), None, true),
            (format!("0::/kubepods-pod{pod_}.slice/crio-{ID}.scope"), Some("cri-o"), true),
            (
                format!("0::/system.slice/kubepods-pod{pod_}.slice:cri-containerd:{ID}"),
                Some("containerd"),
                true,
            ),
            (
                format!(
                    "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container"
                ),
                Some("podman"),
                false,
            ),
            (format!("0::/../../docker-{ID}.scope"), Some("docker"), false),
        ];
        for (text, runtime, in_pod) in cases {
            let found = of(&text).unwrap_or_else(|| panic_free(&text));
            assert_eq!((found.id.as_str(), found.runtime.as_deref()), (ID, runtime), "{text}");
            assert_eq!(found.pod.as_deref(), in_pod.then_some(POD), "{text}");
        }
        assert_eq!(of("0::/lxc.payload.web-1/system.slice").map(|c| c.id).as_deref(), Some("web-1"));
    }

    fn panic_free(text: &str) -> Container {
        Container { id: format!("none in {text}"), ..Container::default() }
    }

    #[test]
    fn what_is_no_container_is_none() {
        let short = &ID[1..];
        for text in [
            "",
            "0::/",
            "0::/user.slice/user-1000.slice/session-2.scope",
            "nonsense",
            &format!("0::/system.slice/docker-{short}.scope"),
            &format!("0::/system.slice/libpod-conmon-{ID}.scope"),
            &format!("0::/system.slice/docker-{}.scope", ID.to_uppercase()),
            "0::/lxc.payload.\u{1b}[2J",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
