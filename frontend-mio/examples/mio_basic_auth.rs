//! Serves a directory behind a password: `curl -u user:secret localhost:8000`.
//!
//! The password is sent unencrypted, so put a TLS proxy in front of it.

use sanserve_mio::{Misuse, Reply, Server, Site, StatusCode};

/// `user:secret` in base 64.
const KEY: &[u8] = b"dXNlcjpzZWNyZXQ=";

fn is_authorized(authorization: &[u8]) -> bool {
    let Some((scheme, key)) = authorization.split_at_checked(6) else { return false };
    // All bytes are compared, so that the time does not reveal how many were right.
    let differ = key.iter().zip(KEY).fold(0, |differ, (a, b)| differ | (a ^ b));
    scheme.eq_ignore_ascii_case(b"basic ") && key.len() == KEY.len() && differ == 0
}

fn answer(reply: &mut Reply<'_>) -> Result<(), Misuse> {
    if reply.request().field("Authorization").is_some_and(is_authorized) {
        return reply.decline();
    }
    let head = reply.respond(StatusCode::UNAUTHORIZED)?.field("WWW-Authenticate", "Basic realm=\"files\"")?;
    head.length(0).send()?;
    reply.finish()
}

fn main() -> std::io::Result<()> {
    let directory = std::env::args_os().nth(1).unwrap_or(".".into());
    Server::bind("127.0.0.1:8000", Site::new(directory)?.with_answer(answer))?.run()
}
