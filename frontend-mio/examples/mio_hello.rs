//! The smallest server. `cargo run --example mio_hello`, then `curl localhost:8000`.

use sanserve_mio::{Server, Site, StatusCode};

fn main() -> std::io::Result<()> {
    let site = Site::without_files()
        .with_answer(|reply| reply.answer(StatusCode::OK, "text/plain;charset=utf-8", "Hello, world!\n"));
    Server::bind("127.0.0.1:8000", site)?.run()
}
