//! Data in DNS questions (EVASIONS E32, ATT&CK T1071.004): what is in the names, not how new they
//! are. Per server and parent domain, over a window of ten minutes; only *distinct* names count, so
//! asking the same ones again is free. `in-addr.arpa` and `ip6.arpa` are not looked at: reverse
//! lookups are numbers by nature and go to whoever owns the address.
//!
//! A name's subdomain, joined without dots and hyphens (data split over short labels is data still),
//! looks *encoded* when it is 16 characters or more and hex, or has the letters of base32 and base64:
//! digits mixed in, few vowels, high entropy. Words have 35 to 40 % vowels among their letters, random
//! letters 19 %. Single hosts of content networks look encoded as well; only numbers tell them apart:
//!
//! | threshold | default | why |
//! |---|---|---|
//! | `encoded_names`, `encoded_bytes` | 30 and 1,500 | a page asks for a handful of hashed hosts (14 to 32 characters); 1,500 bytes of base32 carry 940: a key file |
//! | `long_names`, `long_bytes` | 5 of 45 | one SSH key in full-length labels takes 11; ordinary names of that length are made of words (load balancers) |
//! | `text_names` | 10 | TXT or NULL questions with a label of 16 or more under *one* parent: the way back. SPF, DMARC and ASN lookups have short labels or one name a parent |
//! | `flood_names` | 500 | whatever they look like: tunnels in words. Crawlers of one blog host come near it: medium only |
//!
//! Memory: 1,024 parents, 16,384 names together, as hashes. When names find no room any more, or parents of
//! the last ten minutes must make room (an attacker may ask for junk in between, so that counts are
//! forgotten), that is a medium finding itself: tunnelling could not be told.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Hit, bounded::Lru};
use crate::finding::{Kind, Severity};

/// Thresholds of DNS tunnelling; reasons stand in the module's header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the module's table says what they are")]
pub struct Dns {
    pub window_s: u64,
    pub encoded_names: u64,
    pub encoded_bytes: u64,
    pub long_names: u64,
    pub long_bytes: u64,
    pub text_names: u64,
    pub flood_names: u64,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            window_s: 600,
            encoded_names: 30,
            encoded_bytes: 1500,
            long_names: 5,
            long_bytes: 45,
            text_names: 10,
            flood_names: 500,
        }
    }
}

/// Parent domains that are remembered.
pub(super) const PARENTS: usize = 1024;
/// Distinct names that are remembered, all parents together.
pub(super) const NAMES: usize = 16_384;
/// While full, old parents are looked for this often.
const PURGE_NS: u64 = 1_000_000_000;
/// Shortest subdomain, joined, that can look encoded; also the shortest label that carries an answer.
const ENCODED: usize = 16;

#[derive(Clone, Debug, Default)]
struct Parent {
    began_ns: u64,
    names: BTreeSet<u64>,
    encoded: u64,
    encoded_bytes: u64,
    long: u64,
    longest: u64,
    text: u64,
    told: Option<Severity>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Tunnels {
    parents: Lru<String, Parent, PARENTS>,
    held: usize,
    /// Names that found no room.
    dropped: u64,
    told_full_ns: Option<u64>,
    purged_ns: u64,
}

impl Tunnels {
    pub(super) fn held(&self) -> usize {
        self.held + self.parents.len()
    }

    pub(super) fn names_dropped(&self) -> u64 {
        self.dropped + self.parents.dropped
    }

    pub(super) fn query(&mut self, t: &Dns, at_ns: u64, name: &str, record: &str, hits: &mut Vec<Hit>) {
        let Some((sub, domain)) = split(name) else { return };
        let window_ns = t.window_s.saturating_mul(1_000_000_000);
        if self.held >= NAMES && at_ns.saturating_sub(self.purged_ns) > PURGE_NS {
            self.purged_ns = at_ns;
            self.forget_old(at_ns, window_ns);
        }
        if self.parents.get(domain).is_none() {
            if self.parents.len() >= PARENTS {
                self.forget_old(at_ns, window_ns);
            }
            let dropped = self.parents.dropped;
            self.parents.entry(domain.to_owned()).began_ns = at_ns;
            if self.parents.dropped > dropped {
                self.count();
                self.full(at_ns, window_ns, hits);
            }
        }
        let Some(parent) = self.parents.get(domain) else { return };
        if at_ns.saturating_sub(parent.began_ns) > window_ns {
            self.held -= parent.names.len();
            *parent = Parent { began_ns: at_ns, ..Parent::default() };
        }
        let hash = hash(sub, record);
        if parent.names.contains(&hash) {
            return;
        }
        if self.held >= NAMES {
            self.dropped += 1;
            self.full(at_ns, window_ns, hits);
            return;
        }
        parent.names.insert(hash);
        self.held += 1;
        let joined: Vec<u8> = sub.bytes().filter(u8::is_ascii_alphanumeric).collect();
        let longest = sub.split('.').map(str::len).max().unwrap_or(0);
        parent.longest = parent.longest.max(longest as u64);
        if encoded(&joined) {
            parent.encoded += 1;
            parent.encoded_bytes += joined.len() as u64;
            parent.long += u64::from(joined.len() as u64 >= t.long_bytes);
        }
        if matches!(record, "TXT" | "NULL" | "10") && longest >= ENCODED {
            parent.text += 1;
        }
        let sure = parent.encoded >= t.encoded_names && parent.encoded_bytes >= t.encoded_bytes
            || parent.long >= t.long_names
            || parent.text >= t.text_names;
        let severity = match (sure, parent.names.len() as u64 >= t.flood_names) {
            (true, _) => Kind::DnsTunnel.severity(),
            (false, true) => Severity::Medium,
            (false, false) => return,
        };
        if parent.told.is_some_and(|told| told >= severity) {
            return;
        }
        parent.told = Some(severity);
        let seconds = at_ns.saturating_sub(parent.began_ns) / 1_000_000_000;
        hits.push(Hit {
            kind: Kind::DnsTunnel,
            severity: Some(severity),
            object: domain.to_owned(),
            why: format!(
                "asked for {} different names of one domain in {seconds} s; {} of them look like encoded data, {} bytes of it, and {} asked for text; the longest label has {} characters",
                parent.names.len(),
                parent.encoded,
                parent.encoded_bytes,
                parent.text,
                parent.longest,
            ),
        });
    }

    fn forget_old(&mut self, at_ns: u64, window_ns: u64) {
        self.parents.retain(|_, p| at_ns.saturating_sub(p.began_ns) <= window_ns);
        self.count();
    }

    fn count(&mut self) {
        self.held = self.parents.iter().map(|(_, p)| p.names.len()).sum();
    }

    /// There is no room; told once a window.
    fn full(&mut self, at_ns: u64, window_ns: u64, hits: &mut Vec<Hit>) {
        if self.told_full_ns.is_some_and(|told| at_ns.saturating_sub(told) <= window_ns) {
            return;
        }
        self.told_full_ns = Some(at_ns);
        hits.push(Hit {
            kind: Kind::DnsTunnel,
            severity: Some(Severity::Medium),
            object: "many domains".into(),
            why: "asked for more names and domains than can be followed: whether they carry data cannot be told"
                .into(),
        });
    }
}

/// Second-level labels under which a country registers others' domains.
const REGISTRIES: &[&str] =
    &["ac", "co", "com", "edu", "gob", "gov", "go", "govt", "id", "mil", "ne", "net", "nom", "or", "org"];

/// Subdomain and parent domain; `None` when there is no subdomain, or it is a reverse lookup.
fn split(name: &str) -> Option<(&str, &str)> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut dots = name.rmatch_indices('.').map(|(at, _)| at);
    let last = dots.next()?;
    let second = dots.next()?;
    let (top, middle) = (&name[last + 1..], &name[second + 1..last]);
    if top == "arpa" {
        return None;
    }
    let at = if top.len() == 2 && REGISTRIES.contains(&middle) { dots.next()? } else { second };
    Some((&name[..at], &name[at + 1..]))
}

/// Not a hash of which a server could find collisions.
fn hash(sub: &str, record: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(sub.as_bytes()).update(b" ").update(record.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// Does it look like hex, base32 or base64 (in lower case: DNS has no other)?
fn encoded(joined: &[u8]) -> bool {
    if joined.len() < ENCODED {
        return false;
    }
    let share = |f: fn(&u8) -> bool| joined.iter().filter(|b| f(b)).count() as f64 / joined.len() as f64;
    let digits = share(u8::is_ascii_digit);
    if joined.iter().all(u8::is_ascii_hexdigit) {
        // A number is no data: a time, an id.
        return digits > 0.3 && digits < 0.95;
    }
    let letters = share(u8::is_ascii_alphabetic);
    let vowels = share(|b| matches!(b.to_ascii_lowercase(), b'a' | b'e' | b'i' | b'o' | b'u'));
    digits >= 0.08 && vowels < 0.28 * letters && entropy(joined) >= 3.0
}

/// Bits a character.
fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0u32; 256];
    for b in bytes {
        counts[usize::from(b.to_ascii_lowercase())] += 1;
    }
    let n = bytes.len() as f64;
    counts.iter().filter(|c| **c > 0).map(|c| f64::from(*c) / n).map(|p| -p * p.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Detectors,
            testing::{S, hits, in_call, line, query},
        },
        *,
    };

    fn noise(n: u64, bytes: usize, alphabet: &[u8]) -> String {
        let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        (0..bytes)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                char::from(alphabet[(x >> 33) as usize % alphabet.len()])
            })
            .collect()
    }

    const BASE32: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";
    const HEX: &[u8] = b"0123456789abcdef";

    fn ask(names: impl IntoIterator<Item = String>, record: &str, step_ns: u64) -> Vec<Hit> {
        let lines = names
            .into_iter()
            .enumerate()
            .map(|(i, name)| line(S + i as u64 * step_ns, in_call(1), query(&name, record)));
        let mut d = Detectors::default();
        hits(&mut d, lines)
    }

    #[test]
    fn a_key_in_a_dozen_long_names_is_found_once() {
        let hits = ask((0..12).map(|n| format!("{}.x.evil.test", noise(n + 1, 60, BASE32))), "A", S);
        assert_eq!(hits.len(), 1, "{hits:?}");
        assert_eq!((hits[0].kind, &*hits[0].object), (Kind::DnsTunnel, "evil.test"));
        assert_eq!(hits[0].severity, Some(Severity::High));
    }

    #[test]
    fn splitting_over_short_labels_or_hyphens_does_not_hide() {
        for separator in [".", "-"] {
            let names = (0..80u64).map(|n| {
                let parts: Vec<_> = (0..5).map(|i| noise(n * 7 + i + 1, 6, HEX)).collect();
                format!("{}.evil.co.uk", parts.join(separator))
            });
            let hits = ask(names, "A", S);
            assert_eq!(hits.len(), 1, "{hits:?}");
            assert_eq!(hits[0].object, "evil.co.uk");
        }
    }

    #[test]
    fn text_answers_are_the_way_back() {
        let names = (0..12).map(|n| format!("{}.c2.test", noise(n + 1, 18, b"abcdefghijklmnop")));
        assert_eq!(ask(names, "TXT", S).len(), 1);
        let spf = (0..200).map(|n| format!("_dmarc.customer{n}.test"));
        assert_eq!(ask(spf, "TXT", S), []);
        let asn = (0..200).map(|n| format!("{}.8.8.{n}.origin.asn.cymru.com", n % 7));
        assert_eq!(ask(asn, "TXT", S), []);
    }

    #[test]
    fn a_flood_of_words_is_medium() {
        let names = (0..600).map(|n| format!("blog{n}.wordpress.test"));
        let hits = ask(names, "A", S / 2);
        assert_eq!(hits.len(), 1);
        assert_eq!(hits[0].severity, Some(Severity::Medium));
    }

    #[test]
    fn ordinary_names_stay_silent() {
        // A browser: forty hosts of a content network, some hashed, and the adverts' uuids.
        let cdn = (0..40).map(|n| format!("d{}.cloudfront.net", noise(n + 1, 13, BASE32)));
        let adverts = (0..25).map(|n| format!("{}.safeframe.googlesyndication.com", noise(n + 9, 32, HEX)));
        assert_eq!(ask(cdn.chain(adverts), "A", S / 10), []);
        // npm and pip.
        let registry = (0..500).flat_map(|_| {
            ["registry.npmjs.org", "pypi.org", "files.pythonhosted.org", "objects.githubusercontent.com"]
                .map(String::from)
        });
        assert_eq!(ask(registry, "AAAA", S / 10), []);
        let balancers = (0..30).map(|n| {
            format!(
                "internal-k8s-default-ingress-{}-1234567890.us-east-1.elb.amazonaws.com",
                noise(n + 1, 8, HEX)
            )
        });
        assert_eq!(ask(balancers, "A", S), []);
        let reverse = (0..900).map(|n| format!("{}.{}.0.10.in-addr.arpa", n % 256, n / 256));
        assert_eq!(ask(reverse, "PTR", S / 10), []);
        let v6 = (0..900).map(|n| format!("{}.8.b.d.0.1.0.0.2.ip6.arpa", noise(n + 1, 16, HEX)));
        assert_eq!(ask(v6, "PTR", S / 10), []);
    }

    #[test]
    fn one_name_asked_again_and_again_is_one() {
        let name = format!("{}.evil.test", noise(3, 60, BASE32));
        assert_eq!(ask((0..1000).map(|_| name.clone()), "A", S / 10), []);
    }

    #[test]
    fn memory_is_bounded_and_running_out_is_told() {
        let mut d = Tunnels::default();
        let mut hits = Vec::new();
        for n in 0..40_000u64 {
            d.query(&Dns::default(), S, &format!("w{n}.d{}.test", n % 100), "A", &mut hits);
        }
        assert!(d.held() <= NAMES + PARENTS && d.dropped > 0);
        assert_eq!(hits.iter().filter(|h| h.object == "many domains").count(), 1);
    }

    #[test]
    fn parents() {
        assert_eq!(split("a.b.example.com"), Some(("a.b", "example.com")));
        assert_eq!(split("a.example.co.uk."), Some(("a", "example.co.uk")));
        assert_eq!(split("example.co.uk"), None);
        assert_eq!(split("example.com"), None);
        assert_eq!(split("4.3.2.1.in-addr.arpa"), None);
        assert_eq!(split("..."), Some(("", ".")));
    }
}
