//! Blocking handlers, over real sockets.

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod bodies;
mod endings;
mod others;

use std::io;

use sanserve_std::{Exchange, Handler};
use testkit::Embedded;

/// A server whose handlers are made by `make`.
fn serve<H: Handler + 'static>(make: impl Fn() -> H + Send + Sync + 'static) -> Embedded {
    support::run(|site| site, |server| server.with_handler(make))
}

/// A server whose handler is a function.
fn answer_with(answer: fn(&mut Exchange<'_>) -> io::Result<()>) -> Embedded {
    serve(move || answer)
}

/// A request with `method` and `fields`, each with its line end.
fn ask(method: &str, target: &str, fields: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n")
}
