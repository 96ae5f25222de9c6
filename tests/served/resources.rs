//! After much work, a server holds no more than before: descriptors, memory, processor time.

use std::time::Duration;

use testkit::{Client, Runtime, Server, Tree, eventually};

fn abort(server: &Server, count: usize) {
    for n in 0..count {
        let mut client = Client::connect_narrow(server.address());
        client.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
        client.skip(1);
        if n % 2 == 0 {
            client.reset();
        }
    }
}

/// 2,000 downloads that clients abort, half of them by a reset.
pub fn aborted_downloads_leave_nothing(rt: Runtime) {
    let tree = Tree::plain();
    tree.sparse("big.bin", 32 << 20);
    let server = Server::unrecorded(rt, tree.root(), &["--quiet"]);
    assert_eq!(server.get("/a.txt").status(), 200);
    let idle = server.process().descriptors();
    abort(&server, 300);
    eventually("the descriptors of the first downloads are closed", || server.process().descriptors() <= idle);
    let memory = server.process().resident();
    abort(&server, 2000);
    eventually("the descriptors of 2,000 downloads are closed", || server.process().descriptors() <= idle);
    eventually("the memory is as before", || server.process().resident() < memory + (3 << 20));
    assert_eq!(server.get("/a.txt").status(), 200);
}

/// Clients that disconnect at every point of an exchange.
pub fn interrupted_requests_leave_nothing(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::unrecorded(rt, tree.root(), &["--quiet"]);
    assert_eq!(server.get("/a.txt").status(), 200);
    let idle = server.process().descriptors();
    let request = b"GET /folder/?x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for end in 0..=request.len() {
        for way in 0..3 {
            let mut client = server.connect();
            client.send(&request[..end]);
            match way {
                0 => client.reset(),
                1 => drop(client),
                _ => {
                    client.half_close();
                    client.rest_however();
                }
            }
            // The next client is not affected.
            assert_eq!(server.get("/a.txt").body, b"alpha\n", "after {end} bytes, way {way}");
        }
    }
    eventually("all descriptors are closed", || server.process().descriptors() <= idle);
    assert_eq!(server.get("/a.txt").status(), 200);
}

/// A large file is sent without buffering it, so that memory does not depend on its size.
pub fn memory_does_not_grow_with_the_file(rt: Runtime) {
    const SIZE: u64 = 5 << 30;
    let tree = Tree::plain();
    tree.sparse("huge.bin", SIZE);
    let server = Server::unrecorded(rt, tree.root(), &["--quiet"]);
    let mut client = server.connect();
    let head = client.ask("HEAD /huge.bin HTTP/1.1\r\nHost: x\r\n\r\n").head;
    assert_eq!(head.length(), Some(SIZE), "more than 32 bits");
    client.send("GET /huge.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.head().length(), Some(SIZE));
    for _ in 0..20 {
        client.skip(10 << 20);
        let resident = server.process().resident();
        assert!(resident < 10 << 20, "{resident} bytes are resident");
    }
}

/// An idle server uses no processor time.
pub fn idleness(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::unrecorded(rt, tree.root(), &[]);
    let mut clients: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    for client in clients.iter_mut().step_by(2) {
        client.get("/a.txt");
    }
    clients[1].send("GET /");
    let mut stalled = Client::connect_narrow(server.address());
    tree.sparse("big.bin", 64 << 20);
    stalled.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    stalled.skip(1);
    let before = server.process().processor_ticks();
    std::thread::sleep(Duration::from_millis(400));
    let used = server.process().processor_ticks() - before;
    assert!(used < 15, "{used} hundredths of a second in 40");
}

/// Without descriptors, a server neither spins nor dies, and continues once there are some.
pub fn out_of_descriptors(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::unrecorded(rt, tree.root(), rt.alone());
    assert_eq!(server.get("/a.txt").status(), 200);
    let open = server.process().descriptors() as u64;
    server.process().bound_descriptors(open + 8);
    let clients: Vec<Client> = (0..40).map(|_| server.connect()).collect();
    eventually("the descriptors are used up", || server.process().descriptors() as u64 >= open + 4);
    let before = server.process().processor_ticks();
    std::thread::sleep(Duration::from_millis(500));
    let used = server.process().processor_ticks() - before;
    assert!(used < 20, "{used} hundredths of a second in 50");
    let lines = server.process().stderr.so_far().len();
    assert!(lines < 30, "the log is not flooded: {lines} lines");
    drop(clients);
    eventually("the server accepts connections again", || {
        let mut client = server.connect();
        client.send("GET /a.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        client.response().status() == 200
    });
}
