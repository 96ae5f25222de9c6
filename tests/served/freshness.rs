//! No stale bytes: each request gets the current content of the disk, without any pause.

use std::fs;

use testkit::{Client, Runtime, Server, Tree, eventually};

/// All versions are 6 bytes long, so that the length never distinguishes them.
fn version(n: usize) -> String {
    format!("v{n:04}\n")
}

/// A file that is repeatedly replaced by renaming another.
pub fn a_replaced_file(rt: Runtime) {
    let tree = Tree::new();
    tree.file("f.txt", version(0));
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for n in 0..500 {
        tree.replace("f.txt", version(n));
        assert_eq!(client.get("/f.txt").body_text(), version(n));
    }
}

/// A file that is rewritten in place with the same length, faster than the clock of the file system ticks.
pub fn a_rewritten_file(rt: Runtime) {
    let tree = Tree::new();
    tree.file("f.txt", version(0));
    let server = Server::start(rt, tree.root());
    let (mut client, mut other) = (server.connect(), server.connect());
    for n in 0..500 {
        let handle = fs::OpenOptions::new().write(true).open(tree.path("f.txt")).expect("the file is there");
        std::os::unix::fs::FileExt::write_all_at(&handle, version(n).as_bytes(), 0).expect("a file can be written");
        drop(handle);
        assert_eq!(client.get("/f.txt").body_text(), version(n));
        assert_eq!(client.get("/f.txt").body_text(), version(n));
        assert_eq!(other.get("/f.txt").body_text(), version(n));
    }
}

/// The same with the date reset each time, which a careless cache trusts.
pub fn a_rewritten_file_with_its_old_date(rt: Runtime) {
    let tree = Tree::plain();
    tree.file("f.txt", version(0)).stamp("f.txt", testkit::tree::STAMP);
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for n in 0..300 {
        tree.file("f.txt", version(n)).stamp("f.txt", testkit::tree::STAMP);
        assert_eq!(client.get("/f.txt").body_text(), version(n));
    }
}

/// An entity tag never matches other content.
pub fn a_tag_changes_with_the_content(rt: Runtime) {
    let tree = Tree::new();
    tree.file("f.txt", version(0));
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for n in 1..100 {
        let old = client.get("/f.txt").tag();
        // Until the clock of the file system has advanced, the tag may be the same.
        let before = fs::metadata(tree.path("f.txt")).and_then(|data| data.modified()).expect("a date");
        eventually("the file has a new date", || {
            tree.file("f.txt", version(n));
            fs::metadata(tree.path("f.txt")).and_then(|data| data.modified()).expect("a date") != before
        });
        let request = format!("GET /f.txt HTTP/1.1\r\nHost: x\r\nIf-None-Match: {old}\r\n\r\n");
        let response = client.ask(request);
        assert_eq!((response.status(), response.body_text()), (200, version(n).as_str()));
        assert_ne!(response.tag(), old);
    }
}

/// Files that change in length, disappear, reappear, become directories, lose and gain an index.
pub fn a_name_that_changes_its_meaning(rt: Runtime) {
    let tree = Tree::new();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    let status = |client: &mut Client| client.get("/x").status();
    for n in 0..60 {
        assert_eq!(status(&mut client), 404);
        tree.file("x", version(n));
        assert_eq!(client.get("/x").body_text(), version(n));
        tree.file("x", version(n).repeat(n));
        assert_eq!(client.get("/x").body_text(), version(n).repeat(n));
        tree.resize("x", 3);
        assert_eq!(client.get("/x").body.len(), 3);
        fs::remove_file(tree.path("x")).expect("the path exists");
        assert_eq!(status(&mut client), 404);
        tree.folder("x");
        assert_eq!(status(&mut client), 301);
        assert!(client.get("/x/").body_text().contains("<ul>\n</ul>"));
        tree.file("x/index.html", "index");
        assert_eq!(client.get("/x/").body, b"index");
        fs::remove_dir_all(tree.path("x")).expect("the path exists");
        assert_eq!(client.get("/x/").status(), 404);
        tree.file("other", "other").link("x", "other");
        assert_eq!(client.get("/x").body, b"other");
        fs::remove_file(tree.path("x")).expect("the path exists");
    }
}

/// A folder in the path is exchanged for another one.
pub fn a_replaced_folder(rt: Runtime) {
    let tree = Tree::new();
    tree.folder("one").file("one/f.txt", "one").folder("two").file("two/f.txt", "two");
    tree.link("current", "one");
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for n in 0..100 {
        let target = ["one", "two"][n % 2];
        tree.link("next", target);
        fs::rename(tree.path("next"), tree.path("current")).expect("a link can be renamed");
        assert_eq!(client.get("/current/f.txt").body_text(), target);
    }
}

/// A large file, which is not cached, behaves the same.
pub fn a_large_file(rt: Runtime) {
    let tree = Tree::new();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for n in 0..20u8 {
        tree.file("big.bin", vec![n; 300_000]);
        let response = client.get("/big.bin");
        assert!(response.body == vec![n; 300_000], "version {n}");
    }
}

/// A file that shrinks while it is sent: the connection is cut, never padded, and the server continues.
pub fn a_file_that_shrinks(rt: Runtime) {
    const SIZE: u64 = 64 << 20;
    let tree = Tree::plain();
    tree.sparse("big.bin", SIZE);
    let server = Server::start(rt, tree.root());
    let mut client = Client::connect_narrow(server.address());
    client.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.head().length(), Some(SIZE));
    client.skip(100_000);
    tree.resize("big.bin", 1000);
    let (rest, _) = client.rest_however();
    assert!((rest.len() as u64) < SIZE - 100_000, "{} bytes", rest.len());
    assert!(rest.iter().all(|byte| *byte == 0), "only bytes of the file arrive, no page and no other response");
    assert_eq!(server.get("/a.txt").body, b"alpha\n");
    assert_eq!(server.get("/big.bin").body.len(), 1000);
}

/// Rewrites a file during its download: the peer never gets the announced length, nor an error page, and the reason
/// is logged.
fn rewritten(rt: Runtime, narrow: bool, rewrite: impl Fn(&Tree)) {
    const SIZE: u64 = 24 << 20;
    let tree = Tree::plain();
    tree.file("big.bin", vec![b'a'; usize::try_from(SIZE).expect("the value is in range")]);
    let server = Server::start(rt, tree.root());
    let mut client = if narrow { Client::connect_narrow(server.address()) } else { server.connect() };
    client.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.head().length(), Some(SIZE));
    client.skip(100_000);
    rewrite(&tree);
    let (rest, _) = client.rest_however();
    assert!((rest.len() as u64) < SIZE - 100_000, "{} bytes, the announced length", rest.len());
    server.log_line("why it was cut", |line| line.contains("cut after") && line.contains("the file was rewritten"));
    assert_eq!(server.get("/a.txt").body, b"alpha\n");
}

/// Overwritten in place, without and with bytes after the old end.
pub fn a_file_that_is_rewritten(rt: Runtime) {
    let over = |tree: &Tree, at: u64, bytes: &[u8]| {
        let file = fs::OpenOptions::new().write(true).open(tree.path("big.bin")).expect("the path exists");
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, at).expect("there is room");
    };
    rewritten(rt, true, |tree| over(tree, 0, &vec![b'b'; 24 << 20]));
    rewritten(rt, false, |tree| over(tree, (24 << 20) - 1, b"b"));
    rewritten(rt, true, |tree| over(tree, 0, &vec![b'b'; 25 << 20]));
    // The bytes that were sent are unchanged, the others are not.
    rewritten(rt, true, |tree| over(tree, (24 << 20) - 10, &[b'b'; 20]));
}

/// The kernel has accepted the whole body, but the peer has not received it: later writes to the file are not in it.
pub fn a_file_that_is_rewritten_after_it_was_sent(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    for size in [1_000, 60_000, 100_000, 400_000] {
        tree.file("some.bin", vec![b'a'; size]);
        let mut client = server.connect();
        client.send("GET /some.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert_eq!(client.head().length(), Some(size as u64));
        server.log_line("the end of the exchange", |line| line.contains(&format!("\" 200 {size}")));
        let file = fs::OpenOptions::new().write(true).open(tree.path("some.bin")).expect("the path exists");
        std::os::unix::fs::FileExt::write_all_at(&file, &vec![b'b'; size], 0).expect("there is room");
        let body = client.rest();
        assert!(body == vec![b'a'; size], "{} bytes of {size}, of another file", body.len());
    }
}

/// The end of a download is of the same version of the file as its beginning, up to the last bytes.
pub fn a_file_that_is_rewritten_at_the_end(rt: Runtime) {
    const SIZE: usize = 6 << 20;
    let tree = Tree::plain();
    tree.file("big.bin", vec![b'a'; SIZE]);
    let server = Server::start(rt, tree.root());
    for left in [2_500_000, 1_500_000, 900_000] {
        tree.file("big.bin", vec![b'a'; SIZE]);
        let mut client = Client::connect_narrow(server.address());
        client.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
        client.head();
        client.skip(SIZE - left);
        // Bytes in the socket are beyond the server's control; if others were left, the response is not complete.
        tree.file("big.bin", vec![b'b'; SIZE + 10]);
        let (rest, _) = client.rest_however();
        let is_mixed = rest.contains(&b'b');
        assert!(rest.len() < left || !is_mixed, "{} bytes of {left}, mixed", rest.len());
    }
}

/// Several parts of one file are all of the same version.
pub fn ranges_of_a_file_that_is_rewritten(rt: Runtime) {
    const SIZE: usize = 24 << 20;
    let tree = Tree::plain();
    tree.file("big.bin", vec![b'a'; SIZE]);
    let server = Server::start(rt, tree.root());
    let mut client = Client::connect_narrow(server.address());
    client.send("GET /big.bin HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9,100-12000000,13000000-13000009,-9\r\n\r\n");
    let announced = client.head().length().expect("it has a length");
    client.skip(100_000);
    tree.file("big.bin", vec![b'b'; SIZE]);
    let (rest, _) = client.rest_however();
    assert!((rest.len() as u64) < announced - 100_000, "{} bytes", rest.len());
}

/// A file that is deleted or replaced while it is sent arrives completely, as it was when it was opened.
pub fn a_file_that_is_deleted(rt: Runtime) {
    const SIZE: u64 = 16 << 20;
    let tree = Tree::plain();
    tree.patterned("big.bin", SIZE);
    let server = Server::start(rt, tree.root());
    let mut client = Client::connect_narrow(server.address());
    client.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    let pattern = testkit::tree::Pattern::new();
    let mut at = 0;
    client.receive(false, |bytes| {
        if at == 0 {
            fs::remove_file(tree.path("big.bin")).expect("the path exists");
            tree.file("big.bin", "another\n");
        }
        pattern.check(at, bytes);
        at += bytes.len() as u64;
    });
    assert_eq!(at, SIZE);
    assert_eq!(client.get("/big.bin").body, b"another\n");
}
