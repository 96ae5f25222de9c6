//! Exercise 2, solved: an edge-triggered driver reads until the socket returns `WouldBlock`.

use std::io::{self, Read};

use sanserve_core::{Body, Buffers, Call, Connection, Context, Input, Reply, StatusCode, Step, Wait};

/// One connection and what it has sent.
pub struct Line {
    connection: Connection,
    buffers: Buffers,
    /// All that was sent.
    pub sent: Vec<u8>,
    /// The connection is closed.
    pub closed: bool,
}

impl Line {
    /// A connection that has just been accepted.
    pub fn new(connection: Connection) -> Line {
        Line { connection, buffers: Buffers::new(), sent: Vec::new(), closed: false }
    }

    /// The socket has become readable. Reads requests and responds to them.
    ///
    /// # Errors
    /// If the socket fails. `WouldBlock` is not an error.
    pub fn edge(&mut self, socket: &mut impl Read, cx: &Context<'_>) -> io::Result<()> {
        // The socket stays readable until a read returns `WouldBlock`. Read only when the core needs it: a full window
        // has no room, and a read into an empty buffer returns 0, which looks like the end of the input.
        while self.turn(cx).is_some_and(|wait| wait.need.read) {
            match socket.read(self.buffers.input.spare()) {
                Ok(0) => self.connection.handle(Input::Eof),
                Ok(n) => self.buffers.input.commit(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Carries out steps until there is something to wait for. Returns `None` if the connection is closed.
    fn turn(&mut self, cx: &Context<'_>) -> Option<Wait> {
        loop {
            let Line { connection, buffers, .. } = self;
            match connection.poll(buffers, cx) {
                Step::Call(call) => hello(call, &mut connection.reply(buffers, cx)),
                Step::Send(transmit) => {
                    let body = if let Body::Bytes(bytes) = transmit.body { bytes } else { b"" };
                    self.sent.extend([transmit.head, body, transmit.tail].concat());
                    let sent = transmit.len();
                    connection.handle(Input::Sent(sent));
                }
                Step::Wait(wait) => return Some(wait),
                Step::Close(_) => {
                    self.closed = true;
                    return None;
                }
                Step::Probe(_) => connection.handle(Input::Probed),
                Step::Finished(_) | Step::Shut => {}
                Step::Act(..) | Step::Feed(_) => unreachable!("the handler answers everything"),
            }
        }
    }
}

fn hello(call: Call, reply: &mut Reply<'_>) {
    if call == Call::Request {
        reply.answer(StatusCode::OK, "text/plain", "hello\n").expect("nothing was answered before");
    }
}
