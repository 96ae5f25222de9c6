//! The URLs of the server: those by which other devices reach it (`--lan`, `--qr`), and the one for a browser on this
//! machine (`--open`).

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use if_addrs::IfOperStatus;
use sanserve_server::ListenAddr;

use super::flags::Bind;

/// What the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// As it stands in a URL.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// As it stands in the banner.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Scheme::Http => "HTTP",
            Scheme::Https => "HTTPS",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }

    /// The URL of the root of a server. An IPv6 address gets brackets, and the default port is omitted.
    fn url(self, host: &str, port: u16) -> String {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let scheme = self.name();
        if port == self.default_port() { format!("{scheme}://{host}/") } else { format!("{scheme}://{host}:{port}/") }
    }
}

/// An address of this machine, with the name of its network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) ip: IpAddr,
}

/// The addresses of this machine that other devices may know: without those of loopback interfaces, of interfaces
/// that are down, and of IPv6 links, which browsers do not accept. The most likely one for a phone is first.
pub(crate) fn interfaces() -> Vec<Interface> {
    // Without them there is nothing to print, and the server runs all the same.
    let found = if_addrs::get_if_addrs().unwrap_or_default();
    let found = found.into_iter().filter(|each| !each.is_loopback() && each.oper_status != IfOperStatus::Down);
    let found = found.map(|each| Interface { ip: each.ip(), name: each.name });
    sorted(found.collect())
}

fn sorted(mut interfaces: Vec<Interface>) -> Vec<Interface> {
    interfaces.retain(|each| match each.ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unspecified() && !ip.is_unicast_link_local(),
    });
    interfaces.sort_by_key(|each| {
        let is_link_local = matches!(each.ip, IpAddr::V4(ip) if ip.is_link_local());
        (is_virtual(&each.name), is_link_local, each.ip.is_ipv6())
    });
    interfaces
}

/// Whether an interface belongs to containers or virtual machines, which the devices of a network do not reach.
fn is_virtual(name: &str) -> bool {
    ["docker", "br-", "veth", "virbr", "vmnet", "vboxnet", "cni", "podman", "lxcbr", "lxdbr"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// A URL by which other devices reach the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LanUrl {
    pub(crate) url: String,
    /// The name of the network interface, if the address is one of this machine.
    pub(crate) interface: Option<String>,
    /// The address in the URL.
    pub(crate) ip: IpAddr,
    /// Whether a certificate is for the address. `true` also for plain HTTP, which needs none.
    pub(crate) is_certified: bool,
}

/// Marks the URLs for whose addresses no certificate is, and puts them last.
pub(crate) fn certify(urls: &mut [LanUrl], is_for: impl Fn(IpAddr) -> bool) {
    for url in urls.iter_mut() {
        url.is_certified = is_for(url.ip);
    }
    urls.sort_by_key(|url| !url.is_certified);
}

/// The URLs by which other devices reach a server that listens on `bound`. The most likely one for a phone is first.
pub(crate) fn lan_urls(scheme: Scheme, bound: &[ListenAddr], interfaces: &[Interface]) -> Vec<LanUrl> {
    let mut found: Vec<LanUrl> = Vec::new();
    let mut add = |ip: IpAddr, port: u16, interface: Option<&Interface>| {
        let url = scheme.url(&ip.to_string(), port);
        if !found.iter().any(|known| known.url == url) {
            let interface = interface.map(|interface| interface.name.clone());
            found.push(LanUrl { url, interface, ip, is_certified: true });
        }
    };
    let bound: Vec<SocketAddr> = bound.iter().filter_map(ListenAddr::to_ip).collect();
    for interface in interfaces {
        for address in &bound {
            // A server that listens on all IPv6 addresses accepts IPv4 too.
            let is_reached = match address.ip() {
                IpAddr::V6(Ipv6Addr::UNSPECIFIED) => true,
                IpAddr::V4(Ipv4Addr::UNSPECIFIED) => interface.ip.is_ipv4(),
                ip => ip == interface.ip,
            };
            if is_reached {
                add(interface.ip, address.port(), Some(interface));
            }
        }
    }
    // Addresses that are not in the list of interfaces.
    for address in bound {
        let is_link_local = matches!(address.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local());
        if !address.ip().is_loopback() && !address.ip().is_unspecified() && !is_link_local {
            add(address.ip(), address.port(), None);
        }
    }
    found
}

/// The lines for `--lan`: one for each URL, or one that says why there is none.
pub(crate) fn lan_lines(urls: &[LanUrl], bound: &[ListenAddr]) -> String {
    let mut text = String::new();
    for LanUrl { url, interface, is_certified, .. } in urls {
        let interface = interface.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        let note = if *is_certified { "" } else { " (the certificate is not for this address)" };
        let _ = writeln!(text, "On the network{interface}: {url}{note}");
    }
    if urls.is_empty() {
        let is_wide = |address: &ListenAddr| address.to_ip().is_some_and(|address| !address.ip().is_loopback());
        let why = if bound.iter().any(is_wide) {
            "this machine has no address on a network"
        } else {
            "it listens only on loopback addresses or Unix sockets (see --bind)"
        };
        let _ = writeln!(text, "Other devices cannot reach this server: {why}.");
    }
    text
}

/// The URL for a browser on this machine. `None` if the server listens only on Unix sockets.
///
/// A host name from `--bind` is kept, since a certificate may be for that name.
pub(crate) fn local_url(scheme: Scheme, bound: &[ListenAddr], bind: &[Bind]) -> Option<String> {
    let address = bound.iter().find_map(ListenAddr::to_ip)?;
    let name = bind.iter().find_map(|bind| match bind {
        Bind::Host(host) => {
            let is_name = !host.is_empty() && !host.starts_with('[') && host.parse::<IpAddr>().is_err();
            // Not a name with a zone, such as `fe80::1%eth0`.
            (is_name && !host.contains(':')).then(|| host.clone())
        }
        Bind::Unix(_) => None,
    });
    let host = match name {
        Some(name) => name,
        None if address.ip().is_unspecified() => "localhost".to_owned(),
        None => address.ip().to_string(),
    };
    Some(scheme.url(&host, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, ip: &str) -> Interface {
        Interface { name: name.into(), ip: ip.parse().expect("an address") }
    }

    fn tcp(address: &str) -> ListenAddr {
        ListenAddr::Ip(address.parse().expect("an address"))
    }

    fn urls(bound: &[ListenAddr], interfaces: &[Interface]) -> Vec<String> {
        lan_urls(Scheme::Http, bound, interfaces).into_iter().map(|found| found.url).collect()
    }

    #[test]
    fn real_networks_come_before_virtual_ones_and_ipv4_before_ipv6() {
        let found = sorted(vec![
            interface("docker0", "172.17.0.1"),
            interface("wlan0", "fe80::1"),
            interface("wlan0", "fd00::7"),
            interface("lo", "127.0.0.1"),
            interface("eth1", "169.254.3.4"),
            interface("wlan0", "192.168.1.7"),
        ]);
        let names: Vec<String> = found.iter().map(|each| each.ip.to_string()).collect();
        assert_eq!(names, ["192.168.1.7", "fd00::7", "169.254.3.4", "172.17.0.1"]);
    }

    #[test]
    fn urls_are_those_of_the_addresses_that_are_listened_on() {
        let interfaces = [interface("eth0", "192.168.1.7"), interface("eth0", "fd00::7")];
        let (v4, v6) = ("http://192.168.1.7:8000/", "http://[fd00::7]:8000/");
        assert_eq!(urls(&[tcp("[::]:8000")], &interfaces), [v4, v6]);
        assert_eq!(urls(&[tcp("0.0.0.0:8000")], &interfaces), [v4]);
        assert_eq!(urls(&[tcp("[fd00::7]:8000")], &interfaces), [v6]);
        assert_eq!(urls(&[tcp("[::]:8000"), tcp("192.168.1.7:8000")], &interfaces), [v4, v6]);
        assert_eq!(urls(&[tcp("127.0.0.1:8000"), tcp("[::1]:8000")], &interfaces), [""; 0]);
        assert_eq!(urls(&[tcp("10.1.1.1:8000")], &interfaces), ["http://10.1.1.1:8000/"]);
        assert_eq!(urls(&[tcp("0.0.0.0:80")], &interfaces), ["http://192.168.1.7/"]);
        assert_eq!(urls(&[tcp("[::]:8000")], &[]), [""; 0]);
        let https = |bound| lan_urls(Scheme::Https, &[tcp(bound)], &interfaces).remove(0).url;
        assert_eq!(https("0.0.0.0:443"), "https://192.168.1.7/");
        assert_eq!(https("0.0.0.0:80"), "https://192.168.1.7:80/");
    }

    #[test]
    fn lines_name_the_interface_or_the_reason() {
        let bound = [tcp("0.0.0.0:8000")];
        let text = lan_lines(&lan_urls(Scheme::Http, &bound, &[interface("eth0", "192.168.1.7")]), &bound);
        assert_eq!(text, "On the network (eth0): http://192.168.1.7:8000/\n");
        assert!(lan_lines(&[], &bound).contains("no address on a network"));
        assert!(lan_lines(&[], &[tcp("127.0.0.1:8000")]).contains("only on loopback addresses"));
        let lines = lan_lines(&lan_urls(Scheme::Http, &[tcp("10.1.1.1:9")], &[]), &[]);
        assert_eq!(lines, "On the network: http://10.1.1.1:9/\n");
    }

    #[test]
    fn addresses_without_a_certificate_are_last() {
        let interfaces = [interface("eth0", "192.0.2.1"), interface("eth0", "192.168.1.7")];
        let bound = [tcp("0.0.0.0:8000")];
        let mut urls = lan_urls(Scheme::Https, &bound, &interfaces);
        certify(&mut urls, |ip| ip == interfaces[1].ip);
        let note = "On the network (eth0): https://192.0.2.1:8000/ (the certificate is not for this address)\n";
        let text = lan_lines(&urls, &bound);
        assert_eq!(text, format!("On the network (eth0): https://192.168.1.7:8000/\n{note}"));
    }

    #[test]
    fn a_browser_on_this_machine_uses_the_name_or_localhost() {
        let local = |bound: &str, bind: &[&str]| {
            let bind: Vec<Bind> = bind.iter().map(|host| Bind::Host((*host).into())).collect();
            local_url(Scheme::Http, &[tcp(bound)], &bind).expect("TCP")
        };
        assert_eq!(local("[::]:8000", &[]), "http://localhost:8000/");
        assert_eq!(local("0.0.0.0:8000", &["0.0.0.0"]), "http://localhost:8000/");
        assert_eq!(local("127.0.0.1:8000", &["127.0.0.1"]), "http://127.0.0.1:8000/");
        assert_eq!(local("[::1]:80", &["[::1]"]), "http://[::1]/");
        assert_eq!(local("10.0.0.1:9", &["printer.example"]), "http://printer.example:9/");
        assert_eq!(local_url(Scheme::Http, &[ListenAddr::Unix("/run/s".into())], &[]), None);
    }
}
