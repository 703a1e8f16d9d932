//! Names in general terms, by the *kind* of their segments, never by how many there are: a flood of
//! junk names stays a flood of junk names.
//!
//! Three levels, from fine to coarse; each is a partition of the next finer one:
//! - the path with numbers, hashes, dates, versions and random parts written as kinds,
//! - its directory,
//! - its area: the root that it is under, and what of the path says whose it is.

use std::fmt::Write as _;

use super::roots::{CWD, HOME, PACKAGE, ROOT, Roots};

/// Names are cut here: what is longer is told apart by its beginning only.
const LONGEST: usize = 512;

/// A path in general terms, fine to coarse.
#[must_use]
pub fn path(path: &str, roots: &Roots) -> [String; 3] {
    let (root, rest) = roots.split(path).unwrap_or(("", path.trim_start_matches('/')));
    let mut fine = String::with_capacity(path.len());
    if path.starts_with('/') || !root.is_empty() {
        fine.push_str(root);
    }
    let mut directory = None;
    let mut segments: Vec<String> = Vec::new();
    for part in rest.split('/').filter(|s| !s.is_empty()) {
        directory = Some(fine.len());
        let general = segment(part);
        if !fine.is_empty() || path.starts_with('/') {
            fine.push('/');
        }
        fine.push_str(&general);
        segments.push(general);
        if fine.len() > LONGEST {
            fine.truncate(fine.floor_char_boundary(LONGEST));
            fine.push('…');
            break;
        }
    }
    let coarse = area(root, &segments, path.starts_with('/'));
    let directory = match directory {
        Some(at) if at > 0 => format!("{}/", &fine[..at.min(fine.len())]),
        _ => fine.clone(),
    };
    [fine, directory, coarse]
}

/// What of a path says whose it is.
fn area(root: &str, segments: &[String], absolute: bool) -> String {
    let keep = match root {
        // A directory that was given to the server is its own, but for hidden things in it, which
        // belong to other programs (.git, .env, .ssh).
        ROOT | CWD | PACKAGE => {
            let hidden = segments.iter().find(|s| s.starts_with('.'));
            return hidden.map_or_else(|| format!("{root}/**"), |h| format!("{root}/**/{h}"));
        }
        // A program's directory in it, or a file directly in it.
        HOME => 2.min(segments.len().saturating_sub(1)).max(1),
        _ => match segments.first().map(String::as_str) {
            // What the kernel shows: the last part says what it is.
            Some("proc") => 3,
            // Names here are made up each time.
            Some("tmp") => 1,
            Some("var" | "dev") if matches!(segments.get(1).map(String::as_str), Some("tmp" | "shm")) => 2,
            _ => 2,
        },
    };
    let mut out = String::from(root);
    for s in segments.iter().take(keep) {
        if !out.is_empty() || absolute {
            out.push('/');
        }
        out.push_str(s);
    }
    if segments.len() > keep {
        out.push_str("/**");
    }
    out
}

/// One segment by kind.
#[must_use]
pub fn segment(s: &str) -> String {
    if s.len() > 255 {
        return "{long}".into();
    }
    let (stem, suffix) = match s.rfind('.') {
        Some(at) if at > 0 && s.len() - at <= 12 => s.split_at(at),
        _ => (s, ""),
    };
    if is_uuid(stem) {
        return format!("{{uuid}}{}", digits(suffix));
    }
    if is_hex(stem) {
        return format!("{{hash}}{}", digits(suffix));
    }
    if is_random(stem) {
        return format!("{{random}}{}", digits(suffix));
    }
    if stem.len() != s.len() && (is_random(&suffix[1..]) || is_hex(&suffix[1..])) {
        return format!("{}.{{random}}", segment(stem));
    }
    // `tmp.Xy12aB-log`: random parts between separators.
    if s.contains(['-', '_', '.']) {
        let mut out = String::with_capacity(s.len());
        let mut from = 0;
        for (at, c) in s.char_indices().filter(|(_, c)| matches!(c, '-' | '_' | '.')) {
            part(&s[from..at], &mut out);
            out.push(c);
            from = at + 1;
        }
        part(&s[from..], &mut out);
        return out;
    }
    digits(s)
}

fn part(s: &str, out: &mut String) {
    if is_uuid(s) || is_hex(s) {
        out.push_str("{hash}");
    } else if is_random(s) {
        out.push_str("{random}");
    } else {
        out.push_str(&digits(s));
    }
}

/// Runs of digits are one number.
fn digits(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut in_number = false;
    for c in s.chars() {
        if c.is_ascii_digit() {
            if !in_number {
                out.push_str("{n}");
            }
            in_number = true;
        } else {
            in_number = false;
            out.push(c);
        }
    }
    out
}

fn is_uuid(s: &str) -> bool {
    s.len() == 36
        && s.bytes()
            .enumerate()
            .all(|(i, b)| if matches!(i, 8 | 13 | 18 | 23) { b == b'-' } else { b.is_ascii_hexdigit() })
}

/// Eight hex digits or more, with at least one digit and one letter among them; a long one may have no letter.
fn is_hex(s: &str) -> bool {
    s.len() >= 8
        && s.bytes().all(|b| b.is_ascii_hexdigit())
        && s.bytes().any(|b| b.is_ascii_digit())
        && (s.len() >= 16 || s.bytes().any(|b| b.is_ascii_alphabetic()))
}

/// As mkstemp and its like make them: six characters or more with upper case, lower case and
/// digits mixed, or many changes between them.
fn is_random(s: &str) -> bool {
    if s.len() < 6 || !s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return false;
    }
    let class = |b: u8| match b {
        b'a'..=b'z' => 0u8,
        b'A'..=b'Z' => 1,
        b'0'..=b'9' => 2,
        _ => 3,
    };
    let bytes = s.as_bytes();
    let changes = bytes.windows(2).filter(|w| class(w[0]) != class(w[1])).count();
    let has = |c: u8| bytes.iter().any(|&b| class(b) == c);
    let kinds = [0, 1, 2].into_iter().filter(|&c| has(c)).count();
    (kinds == 3 && changes >= 3)
        || (kinds == 2 && has(2) && changes * 2 >= s.len())
        || (kinds == 2 && !has(2) && changes * 2 > s.len())
}

/// A name in the DNS, fine to coarse: itself with numbers as kinds, and its last two labels.
#[must_use]
pub fn domain(name: &str) -> [String; 2] {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let name: String = name.chars().take(253).collect();
    let fine = name.split('.').map(segment).collect::<Vec<_>>().join(".");
    let labels: Vec<&str> = name.split('.').collect();
    let coarse = labels[labels.len().saturating_sub(2)..].join(".");
    [fine, if labels.len() > 2 { format!("*.{coarse}") } else { coarse }]
}

/// Class of an address, as people talk of it.
#[must_use]
pub fn address_class(address: std::net::IpAddr) -> &'static str {
    use std::net::IpAddr;
    match address {
        IpAddr::V4(a) => {
            let o = a.octets();
            if a.is_loopback() {
                "loopback"
            } else if a.is_unspecified() {
                "unspecified"
            } else if a.is_link_local() {
                "link-local"
            } else if a.is_private() || (o[0] == 100 && o[1] & 0xc0 == 64) {
                "private"
            } else if a.is_multicast() || a.is_broadcast() {
                "multicast"
            } else {
                "public"
            }
        }
        IpAddr::V6(a) => {
            if a.is_loopback() {
                "loopback"
            } else if a.is_unspecified() {
                "unspecified"
            } else if a.is_unicast_link_local() {
                "link-local"
            } else if a.is_unique_local() {
                "private"
            } else if a.is_multicast() {
                "multicast"
            } else {
                "public"
            }
        }
    }
}

/// A destination, fine to coarse: name or address; name's last labels or class; class.
#[must_use]
pub fn destination(address: std::net::IpAddr, name: Option<&str>, port: u16, protocol: &str) -> [String; 3] {
    let class = address_class(address);
    let port = if port >= 32768 { "{high}".to_owned() } else { port.to_string() };
    let (mut fine, mut middle) = (String::new(), String::new());
    // Writing to a string cannot fail.
    let _fine = match name {
        Some(name) => {
            let [f, m] = domain(name);
            let _middle = write!(middle, "{m}:{port}/{protocol}");
            write!(fine, "{f}:{port}/{protocol}")
        }
        None => {
            let _middle = write!(middle, "{class}:{port}/{protocol}");
            write!(fine, "{address}:{port}/{protocol}")
        }
    };
    [fine, middle, format!("{class}/{protocol}")]
}

/// The shape of a command line: program, flags, and the kinds of its other words.
#[must_use]
pub fn shape(argv: &[String], roots: &Roots) -> String {
    let mut out = String::new();
    for (i, word) in argv.iter().enumerate().take(24) {
        if i == 0 {
            let base = word.rsplit('/').next().unwrap_or(word);
            out.push_str(&segment(base));
            continue;
        }
        out.push(' ');
        if word.starts_with('-') {
            let (flag, value) = word.split_once('=').map_or((word.as_str(), None), |(f, v)| (f, Some(v)));
            out.push_str(&digits(&flag.chars().take(40).collect::<String>()));
            if let Some(value) = value {
                out.push('=');
                out.push_str(kind_of_word(value, roots));
            }
        } else if i == 1 && word.len() <= 24 && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') {
            // A verb, as in `git log`.
            out.push_str(word);
        } else {
            out.push_str(kind_of_word(word, roots));
        }
    }
    if argv.len() > 24 {
        out.push_str(" …");
    }
    // A row of words of one kind is one.
    let mut words: Vec<&str> = Vec::new();
    for word in out.split(' ') {
        if word.starts_with('{') && words.last() == Some(&word) {
            continue;
        }
        words.push(word);
    }
    words.join(" ")
}

fn kind_of_word(word: &str, roots: &Roots) -> &'static str {
    if word.contains("://") {
        "{url}"
    } else if word.contains(['|', ';', '&', '`', '$', '\n', '<', '>']) {
        // What a shell would act on.
        "{script}"
    } else if word.starts_with('/') {
        match roots.split(word) {
            Some((name, _)) => name,
            None => "{path}",
        }
    } else if word.contains('/') || word.starts_with('.') {
        "{relative}"
    } else if !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()) {
        "{n}"
    } else {
        "{word}"
    }
}
