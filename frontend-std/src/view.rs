//! The request as a handler that blocks sees it: a copy, since the connection itself goes on meanwhile.

use sanserve_core::{Buffers, Call, Config, Connection, Context, Now, Peer, Request, Route, Site, Step};

/// Where a head is copied to.
#[derive(Default)]
pub(crate) struct View {
    head: Vec<u8>,
    buf: Buffers,
}

/// Every request can be looked at.
struct Anything;

impl Site for Anything {
    fn route(&self, _: &Request<'_>) -> Route {
        Route::Handler
    }
}

impl View {
    /// Takes a copy.
    pub(crate) fn copy(&mut self, request: &Request<'_>) {
        let head = &mut self.head;
        head.clear();
        head.extend_from_slice(request.line());
        for (name, value) in request.fields() {
            [b"\r\n", name, b":", value].iter().for_each(|part| head.extend_from_slice(part));
        }
        head.extend_from_slice(b"\r\n\r\n");
    }

    /// Shows the copy, by the rules that the original was read by.
    pub(crate) fn show<R>(&mut self, peer: Peer, rules: &Config, now: &Now, see: impl FnOnce(Request<'_>) -> R) -> R {
        let cx = Context { config: rules, site: &Anything, now };
        let mut connection = Connection::new(peer, &cx);
        self.buf.recycle();
        let mut rest = self.head.as_slice();
        loop {
            let taken = self.buf.input.fill(rest);
            rest = &rest[taken..];
            match connection.poll(&mut self.buf, &cx) {
                Step::Call(Call::Request) => break,
                // A long head comes in parts.
                Step::Wait(_) if !rest.is_empty() => {}
                step => unreachable!("a head that was right is refused: {step:?}"),
            }
        }
        see(connection.reply(&mut self.buf, &cx).request())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use sanserve_core::{Tick, Wall};

    use super::*;

    #[test]
    fn a_copy_says_what_the_original_says() {
        let (config, now) = (Config::default(), Now::new(Tick(0), Wall(0)));
        let cx = Context { config: &config, site: &Anything, now: &now };
        let long = "y".repeat(40_000);
        let head = format!(
            "POST http://h:1//a/b?c=%20#d HTTP/1.1\r\nHost: a\r\nA:\u{e9}\r\na: \t \r\nX:  {long}\t\r\nContent-Length: 3\r\n\r\n"
        );
        let mut buf = Buffers::new();
        let mut connection = Connection::new(SocketAddr::from(([127, 0, 0, 1], 1)).into(), &cx);
        let mut rest = head.as_bytes();
        while !matches!(connection.poll(&mut buf, &cx), Step::Call(_)) {
            rest = &rest[buf.input.fill(rest)..];
        }
        let mut view = View::default();
        let facts = |request: &Request<'_>| {
            let texts = [request.line(), request.method(), request.target(), request.path(), request.version()];
            let fields: Vec<_> = request.fields().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
            let options = [request.query(), request.host()].map(|text| text.map(<[u8]>::to_vec));
            (texts.map(<[u8]>::to_vec), fields, options, request.content_length(), request.peer())
        };
        let expected = {
            let reply = connection.reply(&mut buf, &cx);
            view.copy(&reply.request());
            facts(&reply.request())
        };
        assert_eq!(expected.1.len(), 5);
        for _ in 0..2 {
            assert_eq!(view.show(connection.peer(), &config, &now, |request| facts(&request)), expected);
        }
    }
}
