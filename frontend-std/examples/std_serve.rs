//! Serves a directory: `cargo run -p sanserve-std --example std_serve -- DIRECTORY [ADDRESS:PORT]`.
use sanserve_std::{Server, Site};

fn main() -> std::io::Result<()> {
    let directory = std::env::args().nth(1).unwrap_or(".".into());
    let address = std::env::args().nth(2).unwrap_or("127.0.0.1:8000".into());
    let server = Server::bind(address, Site::new(directory)?)?;
    println!("Serving HTTP on http://{}/ ...", server.local_addr());
    server.run()
}
