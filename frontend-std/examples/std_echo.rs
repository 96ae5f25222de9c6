//! Sends each line back reversed, while the request is still coming in:
//! `cargo run -p sanserve-std --example std_echo`, then `curl -NT - localhost:8000` and type.
use std::io::{self, Read, Write};

use sanserve_std::{Exchange, Handler, Server, Site, StatusCode};

struct Echo;

impl Handler for Echo {
    fn do_post(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        x.respond(StatusCode::OK)?.field("Content-Type", "text/plain")?.send()?;
        let (mut text, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let n = x.read(&mut piece)?;
            if n == 0 {
                break;
            }
            text.extend_from_slice(&piece[..n]);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                text[..end].reverse();
                x.write_all(&text[..=end])?;
                text.drain(..=end);
            }
            if text.len() > 65_536 {
                return Err(io::Error::other("the line is too long"));
            }
        }
        text.reverse();
        x.write_all(&text)
    }

    /// `curl -T` sends a PUT.
    fn do_other(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        if x.method() == b"PUT" { self.do_post(x) } else { x.unsupported() }
    }
}

fn main() -> io::Result<()> {
    let server = Server::bind("127.0.0.1:8000", Site::without_files())?;
    server.with_handler(|| Echo).run()
}
