//! Whom this host asks for names.

use std::net::IpAddr;

/// The resolvers of `/etc/resolv.conf`; `None` where that cannot be read: then every resolver counts.
pub(crate) fn configured() -> Option<Vec<IpAddr>> {
    let text = std::fs::read_to_string("/etc/resolv.conf").ok()?;
    Some(parse(&text))
}

/// As resolv.conf(5) has it: without a `nameserver` line it is this host.
fn parse(text: &str) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        // `fe80::1%eth0`: which interface is no part of what packets say.
        let address = words.next().and_then(|word| word.split('%').next()?.parse::<IpAddr>().ok());
        all.extend(address);
    }
    if all.is_empty() {
        all.push(IpAddr::from([127, 0, 0, 1]));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_as_the_library_does() {
        let parsed = |text: &str| parse(text).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(parsed("# x\nnameserver 127.0.0.53\noptions edns0\n"), ["127.0.0.53"]);
        assert_eq!(parsed(" nameserver\tfe80::1%eth0\nnameserver 1.1.1.1 # y"), ["fe80::1", "1.1.1.1"]);
        assert_eq!(parsed("nameserver nonsense\nsearch lan"), ["127.0.0.1"]);
    }
}
