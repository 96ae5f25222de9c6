//! Says hello: `cargo run -p sanserve-smol --example smol_hello`, then `curl -i localhost:8000`.
use sanserve_smol::{Exchange, Server, Site, StatusCode};

fn main() -> std::io::Result<()> {
    let hello = async |x: &mut Exchange<'_>| x.answer(StatusCode::OK, "text/plain", "Hello, world!\n");
    Server::bind("127.0.0.1:8000", Site::without_files())?.with_handler(move || hello).run()
}
