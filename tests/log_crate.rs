//! The log as records of the crate `log`. The logger is the process's, so this file has one test.

use std::sync::Mutex;

use log::{Level, LevelFilter, Metadata, Record};
use sanserve_server::{Log, Site};
use sanserve_std::{Exchange, StatusCode};
use testkit::{Embedded, Tree, bound, eventually};

/// Keeps the records of sanserve.
struct Records(Mutex<Vec<(Level, String, String)>>);

static RECORDS: Records = Records(Mutex::new(Vec::new()));

impl log::Log for Records {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("sanserve")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let (target, text) = (record.target().to_owned(), record.args().to_string());
            self.0.lock().unwrap().push((record.level(), target, text));
        }
    }

    fn flush(&self) {}
}

fn answer(x: &mut Exchange<'_>) -> std::io::Result<()> {
    match x.path() {
        b"/fails" => Err(std::io::Error::other("no disk")),
        b"/says" => {
            x.log(format_args!("one\ntwo"));
            x.answer(StatusCode::OK, "text/plain", "hello\n")
        }
        _ => x.error(StatusCode::NOT_FOUND, None, None),
    }
}

/// The levels and targets of the records whose text contains `part`.
fn found(part: &str) -> Vec<(Level, String)> {
    let records = RECORDS.0.lock().unwrap();
    let found = records.iter().filter(|(_, _, text)| text.contains(part));
    found.map(|(level, target, _)| (*level, target.clone())).collect()
}

#[test]
fn each_line_is_a_record() {
    log::set_logger(&RECORDS).expect("there is no other logger");
    log::set_max_level(LevelFilter::Info);
    let server = Embedded::start(Tree::new(), |_, _| {
        let site = Site::without_files().with_log(Log::to_log_crate());
        bound!(sanserve_std::Server::bind("127.0.0.1:0", site).unwrap().with_handler(|| answer))
    });
    assert_eq!(server.get("/says").status(), 200);
    assert_eq!(server.get("/none").status(), 404);
    assert_eq!(server.get("/fails").status(), 500);
    eventually("the last request is logged", || found("/fails").iter().any(|(_, target)| target == "sanserve::access"));
    assert_eq!(server.end(), "", "nothing is written elsewhere");

    let access = |level| vec![(level, "sanserve::access".to_owned())];
    assert_eq!(found("\"GET /says HTTP/1.1\" 200 6"), access(Level::Info));
    assert_eq!(found("code 404, message "), access(Level::Info));
    assert_eq!(found("\"GET /none HTTP/1.1\" 404 "), access(Level::Info));
    assert_eq!(found("\"GET /fails HTTP/1.1\" 500 "), access(Level::Error));
    assert_eq!(found("one\\x0atwo"), access(Level::Info));
    assert!(found("no disk").iter().all(|(level, _)| *level == Level::Error), "{:?}", found("no disk"));
    assert!(!found("no disk").is_empty());
    let records = RECORDS.0.lock().unwrap();
    assert!(records.iter().all(|(_, _, text)| !text.contains('\n') && !text.starts_with("sanserve: ")));
}
