//! For which names and addresses the certificate is: those by which this machine and its network know it.

use std::net::IpAddr;

/// Domains that no public CA issues certificates for: this machine, multicast DNS (RFC 6762), home networks (RFC 8375),
/// and what routers and organizations use.
pub(crate) const DOMAINS: [&str; 7] = ["localhost", "local", "home.arpa", "internal", "intranet", "lan", "localdomain"];

/// Networks that are not on the public internet, as address and length of the prefix: loopback, private (RFC 1918),
/// link-local, shared (RFC 6598), and their counterparts of IPv6.
pub(crate) const NETWORKS: [(&str, u8); 9] = [
    ("127.0.0.0", 8),
    ("10.0.0.0", 8),
    ("172.16.0.0", 12),
    ("192.168.0.0", 16),
    ("169.254.0.0", 16),
    ("100.64.0.0", 10),
    ("::1", 128),
    ("fc00::", 7),
    ("fe80::", 10),
];

/// The names and addresses of a machine, as a certificate is to be for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// In lower case, and without duplicates.
    pub(crate) dns: Vec<String>,
    /// Private addresses.
    pub(crate) ips: Vec<IpAddr>,
}

impl Names {
    /// The names of the host with this name, its loopback addresses, and those of `ips` that are private.
    pub(crate) fn of(host: &str, ips: impl IntoIterator<Item = IpAddr>) -> Names {
        let mut dns = vec!["localhost".to_owned()];
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let label = host.split('.').next().unwrap_or_default().to_owned();
        let local = format!("{label}.local");
        if is_name(&host) && label != "localhost" {
            for name in [host, label, local] {
                if !dns.contains(&name) {
                    dns.push(name);
                }
            }
        }
        let mut all = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
        for ip in ips {
            if is_private(ip) && !all.contains(&ip) {
                all.push(ip);
            }
        }
        Names { dns, ips: all }
    }

    /// The names of this machine now, and `bound`, the addresses that it is asked to listen on.
    pub(crate) fn current(bound: &[IpAddr]) -> Names {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default().into_iter().map(|each| each.ip());
        Names::of(&host, interfaces.chain(bound.iter().copied()))
    }

    /// As text, for the people who compare it with what a client shows.
    pub(crate) fn all(&self) -> impl Iterator<Item = String> {
        self.dns.iter().cloned().chain(self.ips.iter().map(IpAddr::to_string))
    }

    /// Without the names that only the host itself vouches for: those of [`DOMAINS`] remain.
    pub(crate) fn without_own(&self) -> Names {
        let is_known = |name: &String| DOMAINS.iter().any(|domain| is_within(name, domain));
        Names { dns: self.dns.iter().filter(|name| is_known(name)).cloned().collect(), ips: self.ips.clone() }
    }
}

/// Whether a name is a domain or below it.
fn is_within(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether this is a DNS name as certificates have it: letters, digits and hyphens, and not an IP address.
fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    name.len() <= 253 && name.split('.').all(is_label) && !name.rsplit('.').next().is_some_and(is_number)
}

/// Whether an address is in one of [`NETWORKS`].
pub(crate) fn is_private(ip: IpAddr) -> bool {
    NETWORKS.iter().any(|(network, length)| match (ip, network.parse().expect("an address")) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => {
            (u32::from(ip) ^ u32::from(network)).leading_zeros() >= u32::from(*length)
        }
        (IpAddr::V6(ip), IpAddr::V6(network)) => {
            (u128::from(ip) ^ u128::from(network)).leading_zeros() >= u32::from(*length)
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_host_has_its_name_and_that_of_multicast_dns() {
        let names = Names::of("Box.Example.org", [ip("192.168.1.7"), ip("127.0.0.1"), ip("192.0.2.1"), ip("fd00::7")]);
        assert_eq!(names.dns, ["localhost", "box.example.org", "box", "box.local"]);
        assert_eq!(names.ips, [ip("127.0.0.1"), ip("::1"), ip("192.168.1.7"), ip("fd00::7")]);
        assert_eq!(names.without_own().dns, ["localhost", "box.local"]);
        assert_eq!(Names::of("box", []).dns, ["localhost", "box", "box.local"]);
        assert_eq!(Names::of("localhost", []).dns, ["localhost"]);
        for odd in ["", "(none)", "a_b", "-a", "192.0.2.1", "ä", &"x".repeat(64)] {
            assert_eq!(Names::of(odd, []).without_own().dns, ["localhost"], "{odd}");
        }
        assert_eq!(Names::of("a.lan", []).without_own().dns, ["localhost", "a.lan", "a.local"]);
    }

    #[test]
    fn private_addresses_are_those_of_the_list() {
        for private in [
            "127.1.2.3",
            "10.255.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.1.1",
            "100.127.0.1",
            "::1",
            "fd12::1",
            "fc00::",
            "fe80::1",
            "febf::1",
        ] {
            assert!(is_private(ip(private)), "{private}");
        }
        for public in [
            "1.1.1.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.169.0.1",
            "100.128.0.1",
            "0.0.0.0",
            "::",
            "::2",
            "2003::1",
            "fec0::1",
        ] {
            assert!(!is_private(ip(public)), "{public}");
        }
    }
}
