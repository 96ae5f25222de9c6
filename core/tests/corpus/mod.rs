//! The transcripts in `core/tests/transcripts`, and the policies and handlers that they name.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::panic::catch_unwind;
use std::path::PathBuf;

use sanserve_core::{
    Call, DefaultPolicy, Handler, HandlerError, Misuse, Policy, Received, Reply, Request, ResponseHead, Route,
    StatusCode,
};
use sanserve_transcript::{Transcript, perform};

/// A file of the corpus.
pub struct Case {
    pub name: String,
    pub path: PathBuf,
    pub text: String,
    pub transcript: Transcript,
}

impl Case {
    /// Whether `UPDATE_TRANSCRIPTS` selects it: `1` for all, or a part of its name.
    pub fn is_selected(&self) -> bool {
        std::env::var("UPDATE_TRANSCRIPTS").is_ok_and(|part| part == "1" || self.name.contains(&part))
    }

    /// Replays it; `None` if the core panics.
    pub fn play(&self) -> Option<Transcript> {
        catch_unwind(|| {
            let (policy, mut handler) = world(&self.transcript.settings.site);
            perform(&self.transcript, &*policy, &mut *handler)
        })
        .ok()
    }
}

/// All transcripts, ordered by name.
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

/// The policy and the handler that a transcript names.
pub fn world(name: &str) -> (Box<dyn Policy>, Box<dyn Handler>) {
    match name {
        "plain" => (Box::new(DefaultPolicy), Box::new(Silent)),
        "silent" => (Box::new(Handled), Box::new(Silent)),
        "echo" => (Box::new(Handled), Box::new(Echo::default())),
        "hello" => (Box::new(Handled), Box::new(Hello)),
        "waker" => (Box::new(Handled), Box::new(Waker)),
        "stream" => (Box::new(Handled), Box::new(Stream)),
        "large" => (Box::new(Handled), Box::new(Large { left: 0 })),
        "short" => (Box::new(Handled), Box::new(Short)),
        "pass" => (Box::new(Handled), Box::new(Pass)),
        "refusing" => (Box::new(HandledRefusesBodies), Box::new(Echo::default())),
        "unwelcoming" => (Box::new(RefusesBodies), Box::new(Silent)),
        "answers" => (Box::new(Handled), Box::new(Once(|reply| reply.answer(StatusCode::CREATED, "a/b", "made\n")))),
        "dates" => (Box::new(Handled), Box::new(Once(dated))),
        "dates-short" => (Box::new(Handled), Box::new(Once(dated_short))),
        "informs" => (Box::new(Handled), Box::new(Once(inform))),
        "trailers" => (Box::new(Handled), Box::new(Trailers)),
        "file" => (Box::new(Handled), Box::new(Once(|reply| send_file(reply, Some(10))))),
        "file-chunked" => (Box::new(Handled), Box::new(Once(|reply| send_file(reply, None)))),
        "file-twice" => (Box::new(Handled), Box::new(FileTwice)),
        "upgrades" => (Box::new(Handled), Box::new(Once(upgrade))),
        "aborts" => (Box::new(Handled), Box::new(Once(abort))),
        "fields" => (Box::new(Extra), Box::new(Silent)),
        other => panic!("unknown policy and handler: {other}"),
    }
}

/// Routes every request to the handler.
struct Handled;

impl Policy for Handled {
    fn route(&self, _: &Request<'_>) -> Route {
        Route::Handler
    }
}

/// Routes every request to the handler, and refuses expected bodies.
struct HandledRefusesBodies;

impl Policy for HandledRefusesBodies {
    fn route(&self, _: &Request<'_>) -> Route {
        Route::Handler
    }

    fn expect_continue(&self, _: &Request<'_>) -> Result<(), StatusCode> {
        Err(StatusCode::EXPECTATION_FAILED)
    }
}

/// Refuses expected bodies.
struct RefusesBodies;

impl Policy for RefusesBodies {
    fn expect_continue(&self, _: &Request<'_>) -> Result<(), StatusCode> {
        Err(StatusCode::CONTENT_TOO_LARGE)
    }
}

/// Adds a field to each response.
struct Extra;

impl Policy for Extra {
    fn fields(&self, _: &Request<'_>, status: StatusCode, fields: &mut sanserve_core::Fields<'_>) {
        if status == StatusCode::OK {
            fields.append("Cache-Control", b"no-cache").unwrap();
        }
    }
}

/// Never responds.
struct Silent;

impl Handler for Silent {
    fn call(&mut self, _: Call, _: &mut Reply<'_>) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// Responds with two words, without announcing their length.
struct Hello;

impl Handler for Hello {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        if call == Call::Request {
            reply.respond(StatusCode::OK).unwrap().field("Content-Type", "text/plain").unwrap().send().unwrap();
            reply.write(b"hello, ").unwrap();
            reply.write(b"world\n").unwrap();
            reply.finish().unwrap();
        }
        Ok(())
    }
}

/// Responds when it is woken.
struct Waker;

impl Handler for Waker {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        if call == Call::Wake {
            reply.respond(StatusCode::OK).unwrap().length(6).send().unwrap();
            assert_eq!(reply.write(b"awake\n"), Ok(6));
            reply.finish().unwrap();
        }
        Ok(())
    }
}

/// Sends something each time it is woken, until the server shuts down.
struct Stream;

impl Handler for Stream {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        match call {
            Call::Request => reply.respond(StatusCode::OK).unwrap().send().unwrap(),
            Call::Wake if reply.is_draining() => reply.finish().unwrap(),
            Call::Wake => assert_eq!(reply.write(b"tick\n"), Ok(5)),
            _ => {}
        }
        Ok(())
    }
}

/// Responds with 100 bytes, as there is room for them.
struct Large {
    left: usize,
}

impl Handler for Large {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        match call {
            Call::Request => {
                self.left = 100;
                reply.respond(StatusCode::OK).unwrap().length(100).send().unwrap();
            }
            Call::Room => {}
            _ => return Ok(()),
        }
        self.left -= reply.write(&[b'x'; 100][..self.left]).unwrap();
        if self.left == 0 {
            reply.finish().unwrap();
        }
        Ok(())
    }
}

/// Announces more than it sends.
struct Short;

impl Handler for Short {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        if call == Call::Request {
            reply.respond(StatusCode::OK).unwrap().length(6).send().unwrap();
            reply.write(b"short").unwrap();
            assert!(reply.finish().is_err());
        }
        Ok(())
    }
}

/// Responds completely in the first call.
struct Once(fn(&mut Reply<'_>) -> Result<(), Misuse>);

impl Handler for Once {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        if call == Call::Request {
            self.0(reply).unwrap();
        }
        Ok(())
    }
}

/// Sets the fields that the server would add.
fn dated(reply: &mut Reply<'_>) -> Result<(), Misuse> {
    let head = reply.respond(StatusCode::OK)?.field("date", "Thu, 01 Jan 1970 00:00:00 GMT")?.field("Server", "me")?;
    head.length(0).send()?;
    reply.finish()
}

/// Sets them in a response of which nothing is sent.
fn dated_short(reply: &mut Reply<'_>) -> Result<(), Misuse> {
    let head =
        ResponseHead::new(StatusCode::OK).field("Date", "Thu, 01 Jan 1970 00:00:00 GMT")?.field("Server", "me")?;
    reply.send_head(&head.length(1))?;
    assert_eq!(reply.finish(), Err(Misuse::LengthMismatch));
    Ok(())
}

/// Sends an early hint, then the response.
fn inform(reply: &mut Reply<'_>) -> Result<(), Misuse> {
    assert_eq!(reply.inform(StatusCode::OK).err(), Some(Misuse::Interim));
    assert_eq!(reply.inform(StatusCode::CONTINUE).err(), Some(Misuse::Interim));
    reply.inform(StatusCode::EARLY_HINTS)?.field("Link", "</a.css>; rel=preload")?.send()?;
    reply.answer(StatusCode::OK, "a/b", "body")?;
    assert_eq!(reply.inform(StatusCode::EARLY_HINTS).err(), Some(Misuse::ExchangeEnded));
    Ok(())
}

/// Sends some bytes, a part of a file, and more bytes.
fn send_file(reply: &mut Reply<'_>, length: Option<u64>) -> Result<(), Misuse> {
    let head = reply.respond(StatusCode::OK)?;
    match length {
        Some(length) => head.length(length).send()?,
        None => head.send()?,
    }
    assert_eq!(reply.write(b"abc"), Ok(3));
    assert_eq!(reply.offer_file(5, 7), Ok(true));
    if reply.request().method() == b"GET" {
        assert_eq!(reply.offer_file(0, 1), Ok(false), "one file at a time");
        assert_eq!(reply.write(b"more"), Ok(0), "the file is sent first");
    }
    reply.finish()?;
    assert_eq!(reply.write(b"more"), Err(Misuse::ExchangeEnded));
    Ok(())
}

/// Sends a part of a file, and another one after it has been sent.
struct FileTwice;

impl Handler for FileTwice {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        match call {
            Call::Request => {
                reply.respond(StatusCode::OK).unwrap().send().unwrap();
                assert_eq!(reply.offer_file(0, 3), Ok(true));
                assert_eq!(reply.offer_file(3, 3), Ok(false));
            }
            Call::Room => {
                assert_eq!(reply.offer_file(3, 3), Ok(true));
                reply.trailer("X-Parts", "2").unwrap();
                reply.finish().unwrap();
            }
            _ => {}
        }
        Ok(())
    }
}

/// Changes the protocol.
fn upgrade(reply: &mut Reply<'_>) -> Result<(), Misuse> {
    match reply.upgrade("echo") {
        Ok(head) => head.field("X-Welcome", "yes")?.send(),
        Err(Misuse::Upgrade) => reply.error(StatusCode::new(426).unwrap(), None, None),
        Err(other) => Err(other),
    }
}

/// Begins a response and aborts it.
fn abort(reply: &mut Reply<'_>) -> Result<(), Misuse> {
    reply.respond(StatusCode::OK)?.send()?;
    reply.write(b"some")?;
    reply.abort();
    Ok(())
}

/// Sends back the trailers of the request, in the body and as trailers.
struct Trailers;

impl Handler for Trailers {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        if let Call::Over = call {
            return Ok(());
        }
        loop {
            match reply.receive() {
                Received::Data(data) => {
                    let n = data.len();
                    reply.consume(n);
                }
                Received::End => break,
                _ => return Ok(()),
            }
        }
        let trailers: Vec<(Vec<u8>, Vec<u8>)> =
            reply.trailers().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        reply.respond(StatusCode::OK).unwrap().field("Trailer", "X-Sum").unwrap().send().unwrap();
        for (name, value) in trailers {
            reply.write(&[&name[..], b"=", &value, b"\n"].concat()).unwrap();
        }
        assert_eq!(reply.trailer("Content-Type", "a/b"), Err(Misuse::ReservedHeader));
        assert_eq!(reply.trailer("Content-Length", "1"), Err(Misuse::ReservedHeader));
        assert_eq!(reply.trailer("X", "a\r\nb"), Err(Misuse::Field));
        reply.trailer("X-Sum", "42").unwrap();
        reply.finish().unwrap();
        Ok(())
    }
}

/// Declines, so that files respond.
struct Pass;

impl Handler for Pass {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        if call == Call::Request {
            reply.decline().unwrap();
        }
        Ok(())
    }
}

/// Reads the body and sends it back.
#[derive(Default)]
struct Echo {
    body: Vec<u8>,
}

impl Handler for Echo {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        match call {
            Call::Request => self.body.clear(),
            Call::Over => return Ok(()),
            _ => {}
        }
        loop {
            let n = match reply.receive() {
                Received::Data(data) => {
                    self.body.extend_from_slice(data);
                    data.len()
                }
                Received::End => break,
                _ => return Ok(()),
            };
            reply.consume(n);
        }
        let Ok(head) = reply.respond(StatusCode::OK) else { return Ok(()) };
        head.length(self.body.len() as u64).send().unwrap();
        assert_eq!(reply.write(&self.body), Ok(self.body.len()));
        reply.finish().unwrap();
        Ok(())
    }
}
