//! Drives the core in memory: bytes go in as a slice and come out as a `Vec<u8>`. This is how to test a handler without
//! a socket, a thread or a clock. Run `cargo run -p sanserve-core --example in_memory`.

use std::net::SocketAddr;

use sanserve_core::{
    Body, Buffers, Call, Config, Connection, Context, DefaultPolicy, Handler, HandlerError, Input, Now, Peer, Reply,
    StatusCode, Step, Tick, Wall,
};

/// The handler under test: greets the name in the path.
pub fn hello(call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
    if call == Call::Request {
        let text = [b"hello, ", &reply.request().path()[1..], b"\n"].concat();
        reply.answer(StatusCode::OK, "text/plain", text)?;
    }
    Ok(())
}

/// Returns everything that a connection sends for `request`.
pub fn exchange(request: &[u8], handler: &mut dyn Handler) -> Vec<u8> {
    let config = Config::default().with_handled(true);
    let now = Now::new(Tick(0), Wall(784_111_777)); // Any time will do, since it is an argument.
    let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
    let mut buffers = Buffers::new();
    let mut connection = Connection::new(Peer::from(SocketAddr::from(([127, 0, 0, 1], 4000))), &cx);
    let (mut unread, mut out) = (request, Vec::new());
    loop {
        match connection.poll(&mut buffers, &cx) {
            Step::Call(call) => handler.drive(call, &mut connection.reply(&mut buffers, &cx)),
            Step::Send(transmit) => {
                let body = match transmit.body {
                    Body::Bytes(bytes) => bytes,
                    Body::None => b"",
                    Body::File { .. } => unreachable!("no file was opened"),
                };
                out.extend([transmit.head, body, transmit.tail].concat());
                let sent = transmit.len();
                connection.handle(Input::Sent(sent));
            }
            Step::Wait(wait) if wait.need.read && !unread.is_empty() => {
                unread = &unread[buffers.input.fill(unread)..];
            }
            Step::Wait(wait) if wait.need.read => connection.handle(Input::Eof),
            Step::Probe(_) => connection.handle(Input::Probed),
            Step::Wait(_) | Step::Close(_) => return out,
            Step::Finished(_) | Step::Shut => {}
            Step::Act(..) | Step::Feed(_) => unreachable!("the handler responds to everything"),
        }
    }
}

/// Sends two requests, one after the other, on one connection.
pub fn main() {
    let requests = b"GET /moon HTTP/1.1\r\nHost: a\r\n\r\nGET /sun HTTP/1.1\r\nHost: a\r\n\r\n";
    let sent = String::from_utf8(exchange(requests, &mut hello)).expect("text");
    assert!(sent.starts_with("HTTP/1.1 200 OK\r\n") && sent.contains("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"));
    assert!(sent.contains("\r\n\r\nhello, moon\nHTTP/1.1 200 OK\r\n") && sent.ends_with("\r\n\r\nhello, sun\n"));
}
