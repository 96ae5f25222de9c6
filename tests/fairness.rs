//! Many concurrent listings do not delay other requests. Measured by the rows that are produced while a small request
//! waits, not by time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use sanserve_core::{Entry, EntryKind, Policy, listing_row};
use sanserve_server::{Log, Site};
use testkit::{Bound, Client, Embedded, Tree, bound};

/// The number of concurrent listings.
const LISTINGS: u64 = 30;
/// The entries of each: four batches.
const ENTRIES: u64 = 3_000;
/// The most entries of a batch.
const BATCH: u64 = 1_024;

/// Counts the rows that are produced. When all listings are in progress, it sends a small request itself, so that the
/// time of its arrival is known, and stores how many rows were produced until it was answered.
#[derive(Default)]
struct Counting {
    rows: AtomicU64,
    small: Mutex<Option<Client>>,
    is_asked: AtomicBool,
    waited: AtomicU64,
}

struct Shared(Arc<Counting>);

impl Policy for Shared {
    fn listing_row(&self, name: &[u8], kind: EntryKind, out: &mut Vec<u8>) {
        let rows = self.0.rows.fetch_add(1, Ordering::SeqCst) + 1;
        // Each listing has had its first batch, and about half of its second.
        if rows >= LISTINGS * BATCH * 3 / 2 && !self.0.is_asked.swap(true, Ordering::SeqCst) {
            let mut small = self.0.small.lock().unwrap();
            // Stored first, since the request may be answered immediately on another thread.
            self.0.waited.store(rows, Ordering::SeqCst);
            small.as_mut().unwrap().send("GET /small.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        }
        listing_row(name, kind, out);
    }

    fn log(&self, entry: &Entry<'_>, _: &str, _: &mut Vec<u8>) {
        if entry.line.starts_with(b"GET /small") {
            assert_eq!(entry.status, 200);
            let waited = self.0.rows.load(Ordering::SeqCst) - self.0.waited.load(Ordering::SeqCst);
            self.0.waited.store(waited, Ordering::SeqCst);
        }
    }
}

/// How many rows were produced while the small request waited.
fn rows_meanwhile(bind: impl FnOnce(Site) -> Bound) -> u64 {
    let tree = Tree::new();
    tree.folder("many").file("small.txt", "small");
    for n in 0..ENTRIES {
        tree.file(format!("many/entry-{n:06}.txt"), "");
    }
    let counting = Arc::new(Counting::default());
    let server = Embedded::start(tree, |root, _| {
        let site = Site::new(root).unwrap().with_policy(Shared(Arc::clone(&counting)));
        bind(site.with_log(Log::to(std::io::sink())))
    });
    let mut small = server.connect();
    *counting.small.lock().unwrap() = Some(small.twin());
    thread::scope(|scope| {
        for _ in 0..LISTINGS {
            scope.spawn(|| {
                let mut client = server.connect();
                let page = client.ask("GET /many/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
                assert_eq!(page.body_text().matches("<li>").count() as u64, ENTRIES);
                client.ends();
            });
        }
        assert_eq!(small.response().body_text(), "small");
        small.ends();
    });
    server.end();
    assert_eq!(counting.rows.load(Ordering::SeqCst), LISTINGS * ENTRIES * 2, "each row is measured, then written");
    counting.waited.load(Ordering::SeqCst)
}

/// The batch in progress when the request arrives, and one more.
#[test]
fn on_mio_a_request_waits_for_one_batch() {
    let waited = rows_meanwhile(|site| bound!(sanserve_mio::Server::bind("127.0.0.1:0", site).unwrap().workers(1)));
    assert!(waited <= 2 * BATCH, "{waited} rows");
}

/// On smol, another thread learns of the arrival, at a time that the system chooses, but it does not wait for a batch
/// of each listing.
#[test]
fn on_smol_a_request_waits_for_few_batches() {
    let waited = rows_meanwhile(|site| bound!(sanserve_smol::Server::bind("127.0.0.1:0", site).unwrap().workers(1)));
    assert!(waited <= LISTINGS / 2 * BATCH, "{waited} rows");
}

/// On std, the system shares the processors among the threads, few of which produce rows at the same time.
#[test]
fn on_std_a_request_waits_for_few_batches() {
    let waited = rows_meanwhile(|site| bound!(sanserve_std::Server::bind("127.0.0.1:0", site).unwrap()));
    assert!(waited <= LISTINGS / 2 * BATCH, "{waited} rows");
}
