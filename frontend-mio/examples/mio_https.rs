//! HTTPS: serves a directory with a certificate and its key. `mio_https DIRECTORY CERTIFICATE.pem KEY.pem [PORT]`.

use std::fs;

use sanserve_mio::tls::Config;
use sanserve_mio::{Log, Server, Site};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, certificate, key, rest @ ..] = &arguments[..] else {
        return Err("usage: mio_https DIRECTORY CERTIFICATE.pem KEY.pem [PORT]".into());
    };
    let port = rest.first().map_or("8443", String::as_str).parse()?;
    let tls = Config::from_pem(&fs::read(certificate)?, &fs::read(key)?)?;
    let site = Site::new(directory)?.with_log(Log::quiet()).with_tls(tls);
    let server = Server::bind(("127.0.0.1", port), site)?.workers(1);
    println!("https://localhost:{}/", server.local_addr().port());
    Ok(server.run()?)
}
