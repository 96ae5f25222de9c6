//! Handlers that block, over real sockets.

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod bodies;
mod endings;
mod others;

use std::io::{self, Read};

use sanserve_std::{Exchange, Handler};
use support::{Client, Running};

/// A server whose handlers are made by `make`.
fn serve<H: Handler + 'static>(make: impl Fn() -> H + Send + Sync + 'static) -> Running {
    support::run(|service| service, |server| server.with_handler(make))
}

/// A server whose handler is a function.
fn answer_with(answer: fn(&mut Exchange<'_>) -> io::Result<()>) -> Running {
    serve(move || answer)
}

/// What comes up to the end of the connection.
fn rest(client: &mut Client) -> Vec<u8> {
    let mut all = Vec::new();
    match client.reader.read_to_end(&mut all) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => all,
    }
}

/// A chunked body, of which the head was read, and its trailer section.
fn chunked(client: &mut Client) -> (Vec<u8>, String) {
    use std::io::BufRead;
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        client.reader.read_line(&mut line).unwrap();
        let len = usize::from_str_radix(line.trim_end(), 16).unwrap();
        if len == 0 {
            break;
        }
        let start = body.len();
        body.resize(start + len + 2, 0);
        client.reader.read_exact(&mut body[start..]).unwrap();
        assert_eq!(body.split_off(start + len), b"\r\n");
    }
    let mut trailers = String::new();
    while !trailers.ends_with("\r\n\r\n") && trailers != "\r\n" {
        client.reader.read_line(&mut trailers).unwrap();
    }
    (body, trailers)
}

/// A request with `method` and `fields`, each with its line end.
fn ask(method: &str, target: &str, fields: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n")
}
