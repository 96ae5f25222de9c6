//! Lets scripts of other origins read the files of a directory (CORS): `cargo run --example cors -- DIRECTORY`, then
//! `curl -i -H 'Origin: https://app.example' localhost:8000`.

use std::path::Path;

use sanserve_mio::core::Fields;
use sanserve_mio::{Misuse, Policy, Reply, Request, Route, Server, Site, StatusCode};

/// Permits these origins. Others receive the files too, but their browsers hide them from scripts.
struct Cors(&'static [&'static str]);

impl Policy for Cors {
    fn route(&self, request: &Request<'_>) -> Route {
        if is_preflight(request) { Route::Handler } else { Route::Files }
    }

    fn fields(&self, request: &Request<'_>, _: StatusCode, fields: &mut Fields<'_>) {
        // Caches must not give the response for one origin to another. These only fail for an invalid field.
        let _ = fields.append("Vary", b"Origin");
        let permitted = |origin: &&[u8]| self.0.iter().any(|known| known.as_bytes() == *origin);
        if let Some(origin) = request.field("Origin").filter(permitted) {
            let _ = fields.append("Access-Control-Allow-Origin", origin);
        }
    }
}

/// Whether a browser asks what it may send.
fn is_preflight(request: &Request<'_>) -> bool {
    request.method() == b"OPTIONS" && request.field("Access-Control-Request-Method").is_some()
}

/// Says what may be sent, and that the browser may remember it for an hour.
fn preflight(reply: &mut Reply<'_>) -> Result<(), Misuse> {
    let head = reply.respond(StatusCode::NO_CONTENT)?.field("Access-Control-Allow-Methods", "GET, HEAD")?;
    head.field("Access-Control-Allow-Headers", "Range")?.field("Access-Control-Max-Age", "3600")?.send()?;
    reply.finish()
}

/// The files of a directory.
pub fn site(directory: &Path) -> std::io::Result<Site> {
    Ok(Site::new(directory)?.with_policy(Cors(&["https://app.example"])).with_answer(preflight))
}

fn main() -> std::io::Result<()> {
    let directory = std::env::args_os().nth(1).unwrap_or(".".into());
    Server::bind("127.0.0.1:8000", site(Path::new(&directory))?)?.run()
}
