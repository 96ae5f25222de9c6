//! Files and scripts behind a password, on any runtime: `cargo run --example basic_auth -- DIRECTORY`, then
//! `curl -u ada:Lovelace1815 localhost:8000`. The password is sent unencrypted, so put a TLS proxy in front of it.

use std::path::Path;

use sanserve_mio::core::Authenticated;
use sanserve_mio::{Misuse, Policy, Reply, Request, Route, Server, Site, StatusCode};

/// Who may enter. A real one keeps hashes.
const USERS: [(&str, &str); 2] = [("ada", "Lovelace1815"), ("grace", "Hopper1906")];

struct Guarded;

impl Policy for Guarded {
    fn route(&self, request: &Request<'_>) -> Route {
        if self.authenticated(request).is_some() { Route::Files } else { Route::Handler }
    }

    /// Scripts receive the name as `REMOTE_USER`.
    fn authenticated(&self, request: &Request<'_>) -> Option<Authenticated> {
        let (name, password) = request.basic_credentials()?;
        let is_right = |(user, secret): &&(&str, &str)| {
            // Both are compared, so that the time does not reveal whether there is such a user.
            is_same(user.as_bytes(), &name) & is_same(secret.as_bytes(), &password)
        };
        USERS.iter().find(is_right).map(|(user, _)| Authenticated::new("Basic", *user))
    }
}

/// Compares in a time that does not depend on how many bytes are equal.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

fn refuse(reply: &mut Reply<'_>) -> Result<(), Misuse> {
    let head = reply.respond(StatusCode::UNAUTHORIZED)?;
    head.field("WWW-Authenticate", "Basic realm=\"files\", charset=\"UTF-8\"")?.body("")
}

/// The files of a directory.
pub fn site(directory: &Path) -> std::io::Result<Site> {
    Ok(Site::new(directory)?.with_policy(Guarded).with_answer(refuse))
}

fn main() -> std::io::Result<()> {
    let directory = std::env::args_os().nth(1).unwrap_or(".".into());
    Server::bind("127.0.0.1:8000", site(Path::new(&directory))?)?.run()
}
