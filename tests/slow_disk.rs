//! A request that waits for a slow disk does not delay other requests, on the runtimes that serve many connections with
//! few threads. The slow disk is simulated by a gate, so nothing here depends on time.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sanserve_core::{Call, Policy, Reply, Request, Route, StatusCode};
use sanserve_server::{CacheLimits, DiskGate, DiskRequest, Log, Site};
use testkit::tree::Pattern;
use testkit::{Bound, Client, Embedded, Response, Tree, bound, eventually};

/// Descriptors of the process are counted, so one test runs after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Blocks requests for some paths and files until it is opened.
#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    paths: HashSet<Vec<u8>>,
    files: HashSet<u64>,
    /// Not in memory either, but the disk answers.
    cold: HashSet<Vec<u8>>,
    is_open: bool,
    waiting: usize,
    /// How many requests have waited.
    waits: usize,
}

impl DiskGate for Gate {
    fn is_slow(&self, request: DiskRequest<'_>) -> bool {
        let state = self.lock();
        match request {
            DiskRequest::Open(path) | DiskRequest::List(path) => {
                state.paths.contains(path) || state.cold.contains(path)
            }
            DiskRequest::Read(file) => state.files.contains(&file),
        }
    }

    fn wait(&self, request: DiskRequest<'_>) {
        if !self.is_slow(request) {
            return;
        }
        let mut state = self.lock();
        state.waits += 1;
        if matches!(request, DiskRequest::Open(path) if state.cold.contains(path)) {
            return;
        }
        state.waiting += 1;
        while !state.is_open {
            state = self.changed.wait(state).unwrap();
        }
        state.waiting -= 1;
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn slow_path(&self, path: &str) {
        self.lock().paths.insert(path.into());
    }

    fn slow_file(&self, tree: &Tree, path: &str) {
        self.lock().files.insert(fs::metadata(tree.path(path)).unwrap().ino());
    }

    fn open(&self) {
        self.lock().is_open = true;
        self.changed.notify_all();
    }

    /// Waits until `n` requests wait for the disk.
    fn blocks(&self, n: usize) {
        eventually("the disk is asked", || self.lock().waiting == n);
    }
}

/// Below `/own/`, a handler sends the file `large`. For `/own/next`, it attaches another file while that is sent.
struct Own;

impl Policy for Own {
    fn route(&self, request: &Request<'_>) -> Route {
        if request.path().starts_with(b"/own/") { Route::Handler } else { Route::Files }
    }
}

const LARGE: u64 = 700_000;

/// A server with a gate before its disk.
struct Bench {
    gate: Arc<Gate>,
    server: Embedded,
    /// The handler has attached another file.
    attached: Arc<AtomicBool>,
    /// The number of descriptors that were open before.
    before: usize,
    _alone: MutexGuard<'static, ()>,
}

type Bind = fn(Site) -> Bound;

impl Bench {
    fn new(bind: Bind, io_threads: usize) -> Bench {
        Bench::settled(bind, io_threads, 0)
    }

    /// Files count as settled after `settled` seconds.
    fn settled(bind: Bind, io_threads: usize, settled: u64) -> Bench {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        // A runtime may keep descriptors of its own once it has run a server.
        Embedded::start(Tree::new(), |root, _| bind(Site::new(root).unwrap())).end();
        let before = descriptors();
        let gate = Arc::new(Gate::default());
        let tree = Tree::new();
        tree.file("quick", "quick\n").file("slow", "slow\n").patterned("large", LARGE);
        tree.folder("index").file("index/index.html", "index\n").folder("list").file("list/a", "").file("list/b", "");
        let its = Arc::clone(&gate);
        let attached = Arc::<AtomicBool>::default();
        let has_attached = Arc::clone(&attached);
        let server = Embedded::start(tree, move |root, log| {
            let large = root.join("large");
            let own = move |call: Call, reply: &mut Reply<'_>| {
                let changes = reply.request().path() == b"/own/next";
                if call == Call::Wake {
                    reply.attach_file(fs::File::open(large.with_file_name("quick")).unwrap());
                    reply.finish().unwrap();
                    has_attached.store(true, Ordering::SeqCst);
                } else if call == Call::Request {
                    reply.attach_file(fs::File::open(&large).unwrap());
                    reply.respond(StatusCode::OK).unwrap().length(LARGE).send().unwrap();
                    assert_eq!(reply.offer_file(0, LARGE), Ok(true));
                    if changes {
                        reply.waker().wake();
                    } else {
                        reply.finish().unwrap();
                    }
                }
                Ok(())
            };
            let site =
                Site::new(root).unwrap().with_policy(Own).with_handler(move || own.clone()).with_log(Log::to(log));
            let cache = CacheLimits::default().with_settled(Duration::from_secs(settled));
            bind(site.with_cache(cache).with_io_threads(io_threads).with_disk_gate(its))
        });
        Bench { gate, server, attached, before, _alone: alone }
    }

    /// Sends a request for something on the slow disk, and waits until the disk is accessed.
    fn ask(&self, target: &str) -> Client {
        let before = self.gate.lock().waiting;
        let mut client = self.server.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        self.gate.blocks(before + 1);
        client
    }

    fn check_that_others_are_served(&self) {
        let response = self.server.get("/quick");
        assert_eq!((response.head.status, &response.body[..]), (200, &b"quick\n"[..]));
    }

    /// Shuts the server down, and checks that it has closed its descriptors.
    fn end(self) {
        let Bench { gate, server, before, attached: _, _alone } = self;
        gate.open();
        server.end();
        eventually("all descriptors are closed", || descriptors() == before);
    }
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").or_else(|_| fs::read_dir("/dev/fd")).unwrap().count()
}

#[track_caller]
fn check_large(response: &Response) {
    assert_eq!((response.head.status, response.body.len() as u64), (200, LARGE));
    Pattern::new().check(0, &response.body);
}

fn a_slow_open_delays_no_other_request(bind: Bind) {
    let bench = Bench::new(bind, 8);
    for path in ["slow", "missing", "index", "index/index.html"] {
        bench.gate.slow_path(path);
    }
    let targets = [("/slow", 200, "slow\n"), ("/missing", 404, ""), ("/index/", 200, "index\n"), ("/index", 301, "")];
    let mut clients: Vec<Client> = targets.iter().map(|(target, ..)| bench.ask(target)).collect();
    bench.check_that_others_are_served();
    bench.gate.open();
    for (client, (target, status, body)) in clients.iter_mut().zip(targets) {
        let response = client.response();
        assert_eq!(response.head.status, status, "{target}");
        assert!(status == 404 || response.body == body.as_bytes(), "{target}");
    }
    // The file is in the cache now, and is checked each time.
    let mut client = bench.server.connect();
    assert_eq!(client.get("/slow").body, b"slow\n");
    bench.server.tree.replace("slow", "changed\n");
    assert_eq!(client.get("/slow").body, b"changed\n");
    drop((client, clients));
    bench.end();
}

fn a_slow_read_delays_no_other_request(bind: Bind) {
    for settled in [0, 3_600] {
        let bench = Bench::settled(bind, 8, settled);
        bench.gate.slow_file(&bench.server.tree, "large");
        let mut clients = ["/large", "/own/", "/large"].map(|target| bench.ask(target));
        bench.check_that_others_are_served();
        bench.gate.open();
        clients.iter_mut().for_each(|client| check_large(&client.response()));
        drop(clients);
        let ranges = "GET /large HTTP/1.1\r\nHost: x\r\nRange: bytes=10-19,300000-500000,-5\r\n\r\n";
        let response = bench.server.connect().ask(ranges);
        assert_eq!(response.head.status, 206);
        let pattern = Pattern::new();
        assert!(response.body.windows(10).any(|part| part == &pattern.at(10)[..10]), "the first range");
        assert!(response.body.len() > 200_016);
        bench.end();
    }
}

fn a_slow_listing_delays_no_other_request(bind: Bind) {
    let bench = Bench::new(bind, 1);
    bench.gate.slow_path("list");
    let mut client = bench.ask("/list/");
    bench.check_that_others_are_served();
    bench.gate.open();
    let page = String::from_utf8(client.response().body).unwrap();
    drop(client);
    assert!(page.contains(">a<") && page.contains(">b<"), "{page}");
    assert_eq!(bench.gate.lock().waits, 3, "to open the directory, for its entries, and for their end");
    bench.end();
}

fn a_file_that_changes_while_it_is_read_breaks_the_response(bind: Bind) {
    let bench = Bench::new(bind, 1);
    bench.gate.slow_file(&bench.server.tree, "large");
    let mut client = bench.ask("/large");
    bench.server.tree.resize("large", 10);
    bench.gate.open();
    let (rest, _) = client.rest_however();
    drop(client);
    assert!(rest.is_empty(), "no head of a state that is gone: {}", rest.escape_ascii());
    bench.end();
}

fn a_file_that_is_attached_during_a_send_does_not_replace_the_rest(bind: Bind) {
    let bench = Bench::new(bind, 1);
    bench.gate.slow_file(&bench.server.tree, "large");
    let mut client = bench.ask("/own/next");
    eventually("the handler is woken", || bench.attached.load(Ordering::SeqCst));
    bench.check_that_others_are_served();
    bench.gate.open();
    check_large(&client.response());
    client.send("GET /own/ HTTP/1.1\r\nHost: x\r\n\r\n");
    check_large(&client.response());
    drop(client);
    bench.end();
}

fn requests_beyond_the_threads_wait_in_order(bind: Bind) {
    let bench = Bench::new(bind, 1);
    bench.gate.slow_path("slow");
    let mut clients: Vec<Client> = vec![bench.ask("/slow")];
    for _ in 0..20 {
        let mut client = bench.server.connect();
        client.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
        clients.push(client);
        bench.check_that_others_are_served();
    }
    assert_eq!(bench.gate.lock().waits, 1);
    bench.gate.open();
    clients.iter_mut().for_each(|client| assert_eq!(client.response().body, b"slow\n"));
    drop(clients);
    bench.end();
}

fn a_file_system_that_does_not_answer_leaves_threads_for_others(bind: Bind) {
    let bench = Bench::new(bind, 4);
    let hung = ["list/a", "list/b", "index/index.html"];
    hung.iter().for_each(|path| bench.gate.slow_path(path));
    bench.gate.lock().cold.insert(b"slow".to_vec());
    let mut clients: Vec<Client> = (0..30)
        .map(|n| {
            let mut client = bench.server.connect();
            client.send(format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", hung[n % 3]));
            client
        })
        .collect();
    bench.gate.blocks(3);
    for n in 1..=20 {
        assert_eq!(bench.server.get("/slow").body, b"slow\n");
        assert_eq!(bench.gate.lock().waits, 3 + n, "a thread is left for it");
        bench.server.tree.replace("slow", "slow\n");
    }
    bench.gate.open();
    clients.iter_mut().for_each(|client| assert_eq!(client.response().head.status, 200));
    drop(clients);
    bench.end();
}

fn clients_that_disconnect_leave_nothing_open(bind: Bind) {
    let bench = Bench::new(bind, 2);
    bench.gate.slow_path("slow");
    bench.gate.slow_file(&bench.server.tree, "large");
    let mut clients = vec![bench.ask("/slow"), bench.ask("/large")];
    for n in 0..10 {
        let mut client = bench.server.connect();
        client.send(format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", if n % 2 == 0 { "slow" } else { "large" }));
        clients.push(client);
        bench.check_that_others_are_served();
    }
    clients.into_iter().for_each(Client::reset);
    let gone = || bench.server.log.text().matches("the peer went away").count();
    eventually("the server lets go of all connections", || gone() == 12);
    bench.check_that_others_are_served();
    bench.gate.open();
    bench.gate.blocks(0);
    assert_eq!(bench.gate.lock().waits, 2, "what nobody waits for any more is not done");
    bench.end();
}

fn a_graceful_shutdown_waits_for_the_disk(bind: Bind) {
    let mut bench = Bench::new(bind, 1);
    bench.gate.slow_path("slow");
    let mut client = bench.ask("/slow");
    bench.server.shutdown();
    assert!(!client.is_readable() && bench.server.runs());
    bench.gate.open();
    let response = client.response();
    assert_eq!((&response.body[..], response.head.text("Connection")), (&b"slow\n"[..], Some("close")));
    drop(client);
    bench.server.join();
    bench.end_of_joined();
}

fn a_stop_does_not_wait_for_the_disk(bind: Bind) {
    let mut bench = Bench::new(bind, 2);
    bench.gate.slow_path("slow");
    bench.gate.slow_file(&bench.server.tree, "large");
    let mut clients = [bench.ask("/slow"), bench.ask("/large")];
    bench.server.shutdown();
    bench.server.stop();
    bench.server.join();
    assert_eq!(bench.gate.lock().waiting, 2, "threads wait on by themselves");
    for client in &mut clients {
        assert!(client.rest_however().0.is_empty());
    }
    drop(clients);
    bench.gate.open();
    bench.end_of_joined();
}

impl Bench {
    fn end_of_joined(self) {
        let Bench { server, before, .. } = self;
        drop(server);
        eventually("all descriptors are closed", || descriptors() == before);
    }
}

/// Without threads, the event loop waits for the disk itself, and the gate is not used.
fn without_threads_the_loop_waits_itself(bind: Bind) {
    let bench = Bench::new(bind, 0);
    bench.gate.slow_path("slow");
    bench.gate.slow_file(&bench.server.tree, "large");
    assert_eq!(bench.server.get("/slow").body, b"slow\n");
    check_large(&bench.server.get("/large"));
    check_large(&bench.server.get("/own/"));
    assert_eq!(bench.gate.lock().waits, 0);
    bench.end();
}

/// Runs each of these tests on each runtime.
macro_rules! mount {
    ($($runtime:ident: $bind:expr, [$($test:ident),* $(,)?];)*) => {
        $(mod $runtime {
            use super::*;

            fn bind(site: Site) -> Bound {
                $bind(site)
            }

            $(#[test]
            fn $test() {
                super::$test(bind);
            })*
        })*
    };
}

/// The tests for each runtime that has threads for disks.
macro_rules! mount_with_threads {
    ($($runtime:ident: $bind:expr;)*) => {
        mount! {
            $($runtime: $bind, [
                a_slow_open_delays_no_other_request,
                a_slow_read_delays_no_other_request,
                a_slow_listing_delays_no_other_request,
                a_file_that_changes_while_it_is_read_breaks_the_response,
                a_file_that_is_attached_during_a_send_does_not_replace_the_rest,
                requests_beyond_the_threads_wait_in_order,
                a_file_system_that_does_not_answer_leaves_threads_for_others,
                clients_that_disconnect_leave_nothing_open,
                a_graceful_shutdown_waits_for_the_disk,
                a_stop_does_not_wait_for_the_disk,
                without_threads_the_loop_waits_itself,
            ];)*
        }
    };
}

mount_with_threads! {
    on_mio: |site| bound!(sanserve_mio::Server::bind("127.0.0.1:0", site).unwrap().workers(1));
    on_smol: |site| bound!(sanserve_smol::Server::bind("127.0.0.1:0", site).unwrap().workers(1));
}

mount! {
    on_std: |site| bound!(sanserve_std::Server::bind("127.0.0.1:0", site).unwrap()), [
        without_threads_the_loop_waits_itself,
    ];
}
