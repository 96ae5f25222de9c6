//! Serves a directory: `serve DIRECTORY [PORT]`.
use sanserve_smol::Server;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().unwrap_or_else(|| ".".into());
    let port = arguments.next().and_then(|port| port.parse().ok()).unwrap_or(8000);
    let site = sanserve_server::Site::new(directory)?.with_log(sanserve_server::Log::quiet());
    Server::bind(("127.0.0.1", port), site)?.run()
}
