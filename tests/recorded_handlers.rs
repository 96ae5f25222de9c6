//! Recordings of servers with a portable handler and a custom policy replay the same with both.

use std::net::SocketAddr;
use std::time::Duration;

use sanserve_core::{Call, Handler, HandlerError, Misuse, Policy, Received, Reply, Request, Route};
use sanserve_mio::{Log, Site, StatusCode};
use sanserve_server::Recording;
use sanserve_transcript::{Event, Transcript, What};
use testkit::{Client, Embedded, Tree, bound};

/// Echoes bodies in one piece.
#[derive(Default)]
struct Echo {
    body: Vec<u8>,
}

impl Echo {
    fn read(&mut self, reply: &mut Reply<'_>) -> Result<(), Misuse> {
        loop {
            let data = match reply.receive() {
                Received::Data(data) => data.to_vec(),
                Received::Pending | Received::Broken => return Ok(()),
                Received::End => break,
            };
            reply.consume(data.len());
            self.body.extend_from_slice(&data);
        }
        let cookie = reply.request().field("Cookie").is_some();
        let status = if cookie { StatusCode::OK } else { StatusCode::NOT_FOUND };
        reply.respond(status)?.field("Set-Cookie", "session=secret")?.length(self.body.len() as u64).send()?;
        let _ = reply.write(&self.body)?;
        reply.finish()
    }
}

impl Handler for Echo {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        match call {
            Call::Request | Call::Body => self.read(reply).expect("no misuse"),
            Call::Over => self.body.clear(),
            Call::Room | Call::Wake | Call::Drain => {}
        }
        Ok(())
    }
}

/// Routes `/files` to the files, and everything else to the handler.
struct Mixed;

impl Policy for Mixed {
    fn route(&self, request: &Request<'_>) -> Route {
        if request.path().starts_with(b"/files") { Route::Files } else { Route::Handler }
    }
}

fn requests(address: SocketAddr) {
    let body = "line\r\nCookie: in the body\r\n".repeat(900);
    for framing in ["Content-Length", "chunked"] {
        let mut client = Client::connect(address);
        let request = match framing {
            "chunked" => format!(
                "POST /x HTTP/1.1\r\nHost: x\r\nCookie: a=secret\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            ),
            _ => format!(
                "POST /x HTTP/1.1\r\nHost: x\r\nCookie: a=secret\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        };
        for _ in 0..2 {
            client.send(&request);
            let answer = client.response_to(request.as_bytes());
            assert_eq!((answer.status(), answer.body.as_slice()), (200, body.as_bytes()));
            let file = "GET /files/none HTTP/1.1\r\nHost: x\r\n\r\n";
            client.send(file);
            assert_eq!(client.response_to(file.as_bytes()).status(), 404);
        }
    }
}

macro_rules! on {
    ($($runtime:ident $krate:ident)+) => { $(
        #[test]
        fn $runtime() {
            let dir = tempfile::tempdir().unwrap();
            let recording = Recording::to(dir.path().join("recordings"), Log::quiet()).unwrap();
            let recording = recording.with_site_name("mixed").with_rate(1 << 30);
            let site = Site::new(dir.path()).unwrap().with_policy(Mixed).with_handler(Echo::default);
            let site = site.with_log(Log::quiet()).with_recording(recording.clone());
            let server = Embedded::start(Tree::new(), |_, _| {
                bound!($krate::Server::bind("127.0.0.1:0", site).unwrap())
            });
            requests(server.address);
            server.end();
            assert!(recording.flush_within(Duration::from_secs(20)));
            let mut count = 0;
            for entry in std::fs::read_dir(dir.path().join("recordings")).unwrap() {
                let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
                assert!(text.contains("\nsite mixed\n") && !text.contains("secret"), "{text}");
                let recorded = Transcript::parse(&text).unwrap();
                let replayed = recorded.replay(&Mixed, &mut Echo::default());
                assert!(replayed.unwrap_or_else(|difference| panic!("{difference}\n{text}")).complete);
                count += 1;
            }
            assert_eq!(count, 2);
        }
    )+ };
}

on!(mio sanserve_mio std sanserve_std smol sanserve_smol);

/// Responses of a blocking or `async` handler can be read in a recording.
macro_rules! reads {
    ($($test:ident $krate:ident { $($body:tt)* })+) => { $(
        #[test]
        fn $test() {
            use $krate::{Exchange, Handler, Server};
            struct Late;
            impl Handler for Late { $($body)* }
            let dir = tempfile::tempdir().unwrap();
            let recording = Recording::to(dir.path(), Log::quiet()).unwrap();
            let site = Site::without_files().with_log(Log::quiet()).with_recording(recording.clone());
            let server = Embedded::start(Tree::new(), |_, _| {
                bound!(Server::bind("127.0.0.1:0", site).unwrap().with_handler(|| Late))
            });
            let mut client = server.connect();
            for _ in 0..3 {
                let request = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody";
                client.send(request);
                assert_eq!(client.response_to(request.as_bytes()).body, b"BODY");
            }
            drop(client);
            server.end();
            assert!(recording.flush_within(Duration::from_secs(20)));
            let text = std::fs::read_to_string(dir.path().join("000001.txt")).unwrap();
            let recorded = Transcript::parse(&text).unwrap();
            let finished = |event: &&Event| matches!(&event.what, What::Finished(finish) if finish.status == 200);
            assert_eq!(recorded.events().filter(finished).count(), 3, "{text}");
            assert!(text.contains("\nsite handler\n") && text.contains("BODY") && text.contains(" close "), "{text}");
        }
    )+ };
}

reads! {
    one_that_blocks sanserve_std {
        fn do_post(&mut self, x: &mut Exchange<'_>) -> std::io::Result<()> {
            let mut text = String::new();
            std::io::Read::read_to_string(x, &mut text)?;
            x.answer(StatusCode::OK, "text/plain", text.to_uppercase())
        }
    }
    one_that_is_async sanserve_smol {
        async fn do_post(&mut self, x: &mut Exchange<'_>) -> std::io::Result<()> {
            let mut text = String::new();
            smol::io::AsyncReadExt::read_to_string(x, &mut text).await?;
            x.answer(StatusCode::OK, "text/plain", text.to_uppercase())
        }
    }
}
