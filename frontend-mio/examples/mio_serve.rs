//! Serves a directory on port 8000: `cargo run --example mio_serve -- DIRECTORY`.

use sanserve_mio::Server;
use sanserve_server::Site;

fn main() -> std::io::Result<()> {
    let directory = std::env::args_os().nth(1).unwrap_or(".".into());
    let server = Server::bind("127.0.0.1:8000", Site::new(directory)?)?;
    println!("http://{}/", server.local_addr());
    server.run()
}
