//! Every kind of listener on every runtime: Unix sockets, several listeners, and streams that the process has already.
//! Also servers in the background, which leave no threads and descriptors behind.
#![cfg(target_os = "linux")]

use ::std::fs;
use ::std::io::{ErrorKind, Read, Write};
use ::std::net::TcpStream;
use ::std::os::unix::fs::PermissionsExt;
use ::std::os::unix::net::UnixStream;
use ::std::sync::{Mutex, MutexGuard, PoisonError};
use ::std::thread;
use ::std::time::Duration;

use sanserve_server::{Listener, Log, Running, Site};
use testkit::{LogSink, Tree};

/// The tests count descriptors and threads of this process, so they run one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn entries(directory: &str) -> usize {
    fs::read_dir(directory).unwrap().count()
}

/// Waits until a count is no more than it was.
fn settles(what: &str, directory: &str, before: usize) {
    for _ in 0..500 {
        if entries(directory) <= before {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let all: Vec<_> = fs::read_dir(directory).unwrap().map(|e| fs::read_link(e.unwrap().path())).collect();
    panic!("{what}: {before} before, {} after: {all:?}", entries(directory));
}

fn ask(mut stream: impl Read + Write, request: &str) -> Vec<u8> {
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    response
}

fn get(stream: impl Read + Write, target: &str) -> Vec<u8> {
    ask(stream, &format!("GET {target} HTTP/1.0\r\n\r\n"))
}

fn unix(running: &Running) -> UnixStream {
    let path = running.addresses().iter().find_map(|address| address.to_unix()).unwrap();
    UnixStream::connect(path).unwrap()
}

fn site(tree: &Tree, log: &LogSink) -> Site {
    Site::new(tree.root()).unwrap().with_log(Log::to(log.clone()))
}

macro_rules! on_each_runtime {
    ($($runtime:ident $krate:ident)*) => {$(
        mod $runtime {
            use $krate::Server;

            use super::*;

            #[test]
            fn all_kinds_of_listeners_serve_one_site() {
                let _alone = alone();
                let (tree, log, sockets) = (Tree::new(), LogSink::default(), Tree::new());
                tree.file("a.txt", "hello\n").sparse("big", 8 << 20);
                let path = sockets.root().join("s");
                let (streams, channel) = Listener::channel().unwrap();
                let server = Server::bind("127.0.0.1:0", site(&tree, &log)).unwrap();
                let server = server.listen(Listener::unix_with_mode(&path, 0o600).unwrap()).listen(channel);
                assert_eq!(server.addresses().len(), 3);
                let running = server.spawn().unwrap();
                assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

                assert!(get(TcpStream::connect(running.local_addr()).unwrap(), "/a.txt").ends_with(b"hello\n"));
                assert!(get(unix(&running), "/a.txt").ends_with(b"hello\n"));
                assert!(get(unix(&running), "/big").len() > 8 << 20, "a file is sent in parts");
                for _ in 0..3 {
                    let (ours, theirs) = UnixStream::pair().unwrap();
                    streams.send(theirs).unwrap();
                    assert!(get(ours, "/a.txt").ends_with(b"hello\n"));
                }
                // A client that does not read, and one that disconnects.
                let mut slow = unix(&running);
                slow.write_all(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
                slow.read_exact(&mut [0; 4]).unwrap();
                drop(slow);
                drop(unix(&running));

                let idle = unix(&running);
                running.shutdown().unwrap();
                assert_eq!((&idle).read(&mut [0]).unwrap(), 0, "an idle connection is closed");
                assert!(!path.exists(), "the socket is removed");
                let (_ours, theirs) = UnixStream::pair().unwrap();
                assert_eq!(streams.send(theirs).unwrap_err().kind(), ErrorKind::BrokenPipe);
                let text = log.text();
                assert_eq!(text.matches("unix: - - [").count(), 7, "{text}");
                assert_eq!(text.matches("127.0.0.1 - - [").count(), 1, "{text}");
            }

            #[test]
            fn a_server_on_a_unix_socket_alone_has_a_name() {
                let _alone = alone();
                let (tree, log, sockets) = (Tree::new(), LogSink::default(), Tree::new());
                tree.folder("sub");
                let path = sockets.root().join("s");
                let running = Server::bind_unix(&path, site(&tree, &log)).unwrap().spawn().unwrap();
                let response = ask(unix(&running), "GET /sub HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
                assert!(response.starts_with(b"HTTP/1.1 301 "), "{}", response.escape_ascii());
                assert_eq!(running.addresses()[0].to_string(), format!("unix:{}", path.display()));
                drop(running);
                assert!(!path.exists());
            }

            #[test]
            fn a_unix_connection_can_switch_to_another_protocol() {
                let _alone = alone();
                let sockets = Tree::new();
                let site = Site::without_files()
                    .with_log(Log::quiet())
                    .with_answer(|reply| reply.upgrade("shout")?.send())
                    .with_upgrade(|upgraded| {
                        assert_eq!(upgraded.peer().ip(), None);
                        let (mut stream, mut text) = upgraded.into_unix().unwrap();
                        stream.read_to_end(&mut text).unwrap();
                        stream.write_all(&text.to_ascii_uppercase()).unwrap();
                    });
                let running = Server::bind_unix(sockets.root().join("s"), site).unwrap().spawn().unwrap();
                let mut client = unix(&running);
                let head = "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: shout\r\n\r\nearly";
                client.write_all(head.as_bytes()).unwrap();
                client.write_all(b" and late").unwrap();
                client.shutdown(::std::net::Shutdown::Write).unwrap();
                let mut response = String::new();
                client.read_to_string(&mut response).unwrap();
                assert!(response.starts_with("HTTP/1.1 101 ") && response.ends_with("EARLY AND LATE"), "{response}");
            }

            #[test]
            fn servers_share_a_site_and_dropping_them_leaves_nothing() {
                let _alone = alone();
                // The server makes some things once in a process.
                let round = |tree: &Tree, log: &LogSink, sockets: &Tree| {
                    let site = site(tree, log);
                    let one = Server::bind("127.0.0.1:0", site.clone()).unwrap().spawn().unwrap();
                    let other = Server::bind_unix(sockets.root().join("s"), site).unwrap().spawn().unwrap();
                    assert!(get(TcpStream::connect(one.local_addr()).unwrap(), "/a.txt").ends_with(b"hello\n"));
                    drop(one);
                    assert!(get(unix(&other), "/a.txt").ends_with(b"hello\n"), "it does not end with the other");
                    let mut open = unix(&other);
                    open.write_all(b"GET / HT").unwrap();
                    drop(other);
                    assert_eq!(open.read(&mut [0]).unwrap_or(0), 0, "the connection is cut");
                };
                let (tree, log, sockets) = (Tree::new(), LogSink::default(), Tree::new());
                tree.file("a.txt", "hello\n");
                round(&tree, &log, &sockets);
                let (fds, threads) = (entries("/proc/self/fd"), entries("/proc/self/task"));
                for _ in 0..5 {
                    round(&tree, &log, &sockets);
                }
                settles("descriptors", "/proc/self/fd", fds);
                settles("threads", "/proc/self/task", threads);
            }
        }
    )*};
}

on_each_runtime! { std sanserve_std mio sanserve_mio smol sanserve_smol }

/// A static, a shared and a local executor.
#[test]
fn smol_serves_on_any_executor() {
    use ::smol::{Executor, LocalExecutor, block_on};
    use sanserve_smol::Server;

    let _alone = alone();
    let tree = Tree::new();
    tree.file("a.txt", "hello\n");
    let server = || Server::bind("127.0.0.1:0", site(&tree, &LogSink::default())).unwrap();
    let client = |server: &Server| {
        let (address, handle) = (server.local_addr(), server.handle());
        thread::spawn(move || {
            let response = get(TcpStream::connect(address).unwrap(), "/a.txt");
            handle.shutdown();
            response
        })
    };
    let first = server();
    let asked = client(&first);
    let local = LocalExecutor::new();
    block_on(local.run(first.serve(&local))).unwrap();
    assert!(asked.join().unwrap().ends_with(b"hello\n"));

    let second = server();
    let asked = client(&second);
    let shared = ::std::sync::Arc::new(Executor::new());
    block_on(shared.run(second.serve(&shared))).unwrap();
    assert!(asked.join().unwrap().ends_with(b"hello\n"));

    static LEAKED: ::std::sync::OnceLock<&'static Executor<'static>> = ::std::sync::OnceLock::new();
    let executor = LEAKED.get_or_init(|| Box::leak(Box::new(Executor::new())));
    let third = server();
    let asked = client(&third);
    // A server that runs on a static executor is itself a task of it.
    let task = executor.spawn(third.serve(executor));
    block_on(executor.run(task)).unwrap();
    assert!(asked.join().unwrap().ends_with(b"hello\n"));
}
