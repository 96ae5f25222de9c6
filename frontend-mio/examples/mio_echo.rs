//! Sends the body back while it arrives: `curl -T - localhost:8000 < any-file`.
//!
//! Memory is bounded by a few buffers, however long the body and however slow the client: without room in the output,
//! input is not consumed, then not read, and TCP stops the sender.

use sanserve_mio::{Call, Misuse, Received, Reply, Server, Site, StatusCode};

fn echo(reply: &mut Reply<'_>) -> Result<(), Misuse> {
    let mut piece = [0; 8 * 1024];
    loop {
        let n = match reply.receive() {
            Received::Data(data) => {
                let n = data.len().min(piece.len());
                piece[..n].copy_from_slice(&data[..n]);
                n
            }
            Received::End => 0,
            // Called again when there is more, or never.
            Received::Pending | Received::Broken => return Ok(()),
        };
        if reply.is_unanswered() {
            // Without a length: chunked.
            reply.respond(StatusCode::OK)?.field("Content-Type", "application/octet-stream")?.send()?;
        }
        if n == 0 {
            return reply.finish();
        }
        match reply.write(&piece[..n])? {
            // Called again when there is room.
            0 => return Ok(()),
            taken => reply.consume(taken),
        }
    }
}

fn main() -> std::io::Result<()> {
    let site = Site::without_files().with_handler(|| {
        |call: Call, reply: &mut Reply<'_>| {
            if call != Call::Over {
                echo(reply)?;
            }
            Ok(())
        }
    });
    Server::bind("127.0.0.1:8000", site)?.run()
}
