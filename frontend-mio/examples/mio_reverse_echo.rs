//! Sends the body back, the last byte first: `curl -d stressed localhost:8000`.
//!
//! The response begins with the end of the body, so all of it is kept, up to a limit.

use sanserve_mio::{Call, Misuse, Received, Reply, Server, Site, StatusCode};

const MOST: usize = 64 * 1024;

fn go_on(all: &mut Vec<u8>, reply: &mut Reply<'_>) -> Result<(), Misuse> {
    loop {
        let n = match reply.receive() {
            Received::Data(data) => {
                all.extend_from_slice(data);
                data.len()
            }
            Received::End => {
                all.reverse();
                return reply.answer(StatusCode::OK, "text/plain", &all);
            }
            Received::Pending | Received::Broken => return Ok(()),
        };
        reply.consume(n);
        if all.len() > MOST {
            reply.close();
            return reply.error(StatusCode::CONTENT_TOO_LARGE, None, None);
        }
    }
}

fn main() -> std::io::Result<()> {
    let site = Site::without_files().with_handler(|| {
        let mut all = Vec::new();
        move |call: Call, reply: &mut Reply<'_>| {
            if call == Call::Over {
                all = Vec::new();
                return Ok(());
            }
            Ok(go_on(&mut all, reply)?)
        }
    });
    Server::bind("127.0.0.1:8000", site)?.run()
}
