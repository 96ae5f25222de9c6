//! A server under test.

use sanserve_smol::{Handler, Log, Server, Site};
use testkit::{Embedded, Tree, bound};

/// A server whose handlers are made by `make`.
pub(crate) fn serve<H: Handler + 'static>(make: impl Fn() -> H + Send + Sync + 'static) -> Embedded {
    run(|site| site, move |server| server.with_handler(make))
}

/// Runs a server of two threads on a directory with `a.txt`.
pub(crate) fn run(change: impl FnOnce(Site) -> Site, build: impl FnOnce(Server) -> Server) -> Embedded {
    let tree = Tree::new();
    tree.file("a.txt", "a file");
    Embedded::start(tree, |root, log| {
        let site = change(Site::new(root).unwrap().with_log(Log::to(log)));
        bound!(build(Server::bind("127.0.0.1:0", site).unwrap().workers(2)))
    })
}
