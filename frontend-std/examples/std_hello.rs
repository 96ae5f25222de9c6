//! Says hello: `cargo run -p sanserve-std --example std_hello`, then `curl -i localhost:8000`.
use sanserve_std::{Exchange, Server, Site, StatusCode};

fn main() -> std::io::Result<()> {
    let server = Server::bind("127.0.0.1:8000", Site::without_files())?;
    server.with_handler(|| |x: &mut Exchange<'_>| x.answer(StatusCode::OK, "text/plain", "Hello, world!\n")).run()
}
