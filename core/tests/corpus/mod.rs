//! The transcripts in `core/tests/transcripts`, and the sites and handlers that they name.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::panic::catch_unwind;
use std::path::PathBuf;

use sanserve_core::transcript::{Transcript, perform};
use sanserve_core::{Call, Handler, Plain, Received, Reply, Request, Route, Site, Status};

/// One file of the corpus.
pub struct Case {
    pub name: String,
    pub path: PathBuf,
    pub text: String,
    pub transcript: Transcript,
}

impl Case {
    /// Whether `UPDATE_TRANSCRIPTS` asks to rewrite it: `1` for all, or a part of its name.
    pub fn is_asked_for(&self) -> bool {
        std::env::var("UPDATE_TRANSCRIPTS").is_ok_and(|part| part == "1" || self.name.contains(&part))
    }

    /// What really happens; `None` if the core panics.
    pub fn play(&self) -> Option<Transcript> {
        catch_unwind(|| {
            let (site, mut handler) = world(&self.transcript.settings.site);
            perform(&self.transcript, &*site, &mut *handler)
        })
        .ok()
    }
}

/// All transcripts, by name.
pub fn load() -> Vec<Case> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    let case = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let transcript = Transcript::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Case { name, path, text, transcript }
    };
    paths.into_iter().map(case).collect()
}

/// The site and the handler that a transcript names.
pub fn world(name: &str) -> (Box<dyn Site>, Box<dyn Handler>) {
    match name {
        "plain" => (Box::new(Plain), Box::new(Silent)),
        "silent" => (Box::new(Handled), Box::new(Silent)),
        "echo" => (Box::new(Handled), Box::new(Echo::default())),
        "hello" => (Box::new(Handled), Box::new(Hello)),
        "waker" => (Box::new(Handled), Box::new(Waker)),
        "large" => (Box::new(Handled), Box::new(Large { left: 0 })),
        "short" => (Box::new(Handled), Box::new(Short)),
        "pass" => (Box::new(Handled), Box::new(Pass)),
        "refusing" => (Box::new(Refusing), Box::new(Echo::default())),
        "unwelcoming" => (Box::new(Unwelcoming), Box::new(Silent)),
        "fields" => (Box::new(Extra), Box::new(Silent)),
        other => panic!("no such site: {other}"),
    }
}

/// Hands every request to the handler.
struct Handled;

impl Site for Handled {
    fn route(&self, _: &Request<'_>) -> Route {
        Route::Handler
    }
}

/// Hands every request to the handler, and welcomes no body.
struct Refusing;

impl Site for Refusing {
    fn route(&self, _: &Request<'_>) -> Route {
        Route::Handler
    }

    fn expect_continue(&self, _: &Request<'_>) -> Result<(), Status> {
        Err(Status::EXPECTATION_FAILED)
    }
}

/// Welcomes no body.
struct Unwelcoming;

impl Site for Unwelcoming {
    fn expect_continue(&self, _: &Request<'_>) -> Result<(), Status> {
        Err(Status::CONTENT_TOO_LARGE)
    }
}

/// Adds a field to each answer.
struct Extra;

impl Site for Extra {
    fn fields(&self, _: &Request<'_>, status: Status, fields: &mut sanserve_core::Fields<'_>) {
        if status == Status::OK {
            fields.add("Cache-Control", b"no-cache").unwrap();
        }
    }
}

/// Never answers.
struct Silent;

impl Handler for Silent {
    fn call(&mut self, _: Call, _: &mut Reply<'_>) {}
}

/// Answers with two words, without announcing their length.
struct Hello;

impl Handler for Hello {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) {
        if call == Call::Request {
            reply.respond(Status::OK).unwrap().field("Content-Type", "text/plain").unwrap().send().unwrap();
            reply.offer(b"hello, ").unwrap();
            reply.offer(b"world\n").unwrap();
            reply.finish().unwrap();
        }
    }
}

/// Answers when it is woken.
struct Waker;

impl Handler for Waker {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) {
        if call == Call::Wake {
            reply.respond(Status::OK).unwrap().length(6).send().unwrap();
            assert_eq!(reply.offer(b"awake\n"), Ok(6));
            reply.finish().unwrap();
        }
    }
}

/// Answers with 100 bytes, as there is room for them.
struct Large {
    left: usize,
}

impl Handler for Large {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) {
        match call {
            Call::Request => {
                self.left = 100;
                reply.respond(Status::OK).unwrap().length(100).send().unwrap();
            }
            Call::Room => {}
            _ => return,
        }
        self.left -= reply.offer(&[b'x'; 100][..self.left]).unwrap();
        if self.left == 0 {
            reply.finish().unwrap();
        }
    }
}

/// Announces more than it sends.
struct Short;

impl Handler for Short {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) {
        if call == Call::Request {
            reply.respond(Status::OK).unwrap().length(6).send().unwrap();
            reply.offer(b"short").unwrap();
            assert!(reply.finish().is_err());
        }
    }
}

/// Lets the files answer.
struct Pass;

impl Handler for Pass {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) {
        if call == Call::Request {
            reply.pass().unwrap();
        }
    }
}

/// Reads the body and sends it back.
#[derive(Default)]
struct Echo {
    body: Vec<u8>,
}

impl Handler for Echo {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) {
        match call {
            Call::Request => self.body.clear(),
            Call::Over => return,
            _ => {}
        }
        loop {
            let n = match reply.receive() {
                Received::Data(data) => {
                    self.body.extend_from_slice(data);
                    data.len()
                }
                Received::End => break,
                _ => return,
            };
            reply.consume(n);
        }
        let Ok(head) = reply.respond(Status::OK) else { return };
        head.length(self.body.len() as u64).send().unwrap();
        assert_eq!(reply.offer(&self.body), Ok(self.body.len()));
        reply.finish().unwrap();
    }
}
