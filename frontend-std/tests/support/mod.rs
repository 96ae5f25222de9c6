//! A server under test.
#![allow(dead_code, reason = "each test program uses its part")]

use std::net::Ipv4Addr;

use sanserve_server::Log;
use sanserve_std::{Server, Site};
use testkit::{Embedded, Tree, bound};

/// Runs a server on a directory with `a.txt`, `sub/` and `big` (64 MiB).
pub(crate) fn run(change: impl FnOnce(Site) -> Site, shape: impl FnOnce(Server) -> Server) -> Embedded {
    let tree = Tree::new();
    tree.file("a.txt", "hello\n").folder("sub").sparse("big", 64 << 20);
    Embedded::start(tree, |root, log| {
        let site = change(Site::new(root).unwrap().with_log(Log::to(log)));
        bound!(shape(Server::bind((Ipv4Addr::LOCALHOST, 0), site).unwrap()))
    })
}

/// A server with all defaults.
pub(crate) fn plain() -> Embedded {
    run(|site| site, |server| server)
}

pub(crate) fn request(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")
}
