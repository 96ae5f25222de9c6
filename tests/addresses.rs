//! A name with several addresses: a server listens on all of them, on one port, on every runtime.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use sanserve_server::Site;
use testkit::Client;

fn both() -> [SocketAddr; 2] {
    [1, 2].map(|last| (Ipv4Addr::new(127, 0, 0, last), 0).into())
}

fn site(directory: &tempfile::TempDir) -> Site {
    std::fs::write(directory.path().join("a.txt"), "alpha\n").expect("a file can be written");
    Site::new(directory.path()).expect("the directory exists").with_log(sanserve_server::Log::quiet())
}

/// Sends a request to both addresses, then shuts the server down.
fn ask(first: SocketAddr, end: impl Fn() + Send + 'static) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let answers = both().map(|address| {
            let mut client = Client::connect(SocketAddr::new(address.ip(), first.port()));
            let answer = client.ask("GET /a.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            client.ends();
            answer.body
        });
        end();
        assert_eq!(answers, [b"alpha\n", b"alpha\n"]);
    })
}

#[test]
fn mio() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for workers in [1, 2] {
        let server =
            sanserve_mio::Server::bind(&both()[..], site(&directory)).expect("the server binds").workers(workers);
        let handle = server.handle();
        let client = ask(server.local_addr(), move || handle.shutdown());
        server.run().expect("the server ends without an error");
        client.join().expect("both addresses respond");
    }
}

#[test]
fn std() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = sanserve_std::Server::bind(&both()[..], site(&directory)).expect("the server binds");
    let handle = server.handle();
    let client = ask(server.local_addr(), move || handle.shutdown());
    server.run().expect("the server ends without an error");
    client.join().expect("both addresses respond");
}

#[test]
fn smol() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = sanserve_smol::Server::bind(&both()[..], site(&directory)).expect("the server binds").workers(2);
    let handle = server.handle();
    let client = ask(server.local_addr(), move || handle.shutdown());
    server.run().expect("the server ends without an error");
    client.join().expect("both addresses respond");
}
