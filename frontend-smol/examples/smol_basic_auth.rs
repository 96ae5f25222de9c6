//! Serves files behind a password: `cargo run -p sanserve-smol --example smol_basic_auth -- DIRECTORY`, then `curl -u
//! aladdin:opensesame localhost:8000`. The password is sent unencrypted, so put a TLS proxy in front of it.
use std::io;

use sanserve_smol::{Exchange, Server, Site, StatusCode};

/// `aladdin:opensesame` in base64 (RFC 7617).
const CREDENTIALS: &[u8] = b"Basic YWxhZGRpbjpvcGVuc2VzYW1l";

async fn guard(x: &mut Exchange<'_>) -> io::Result<()> {
    if x.field("Authorization").is_some_and(|given| is_same(given, CREDENTIALS)) {
        return x.decline();
    }
    x.log(format_args!("access to {} denied", x.target().escape_ascii()));
    let head = x.respond(StatusCode::UNAUTHORIZED)?;
    head.field("WWW-Authenticate", "Basic realm=\"the cave\", charset=\"UTF-8\"")?.length(0).send()
}

/// Compares in constant time, so that the time does not reveal how many bytes were right.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

fn main() -> io::Result<()> {
    let directory = std::env::args_os().nth(1).unwrap_or(".".into());
    let server = Server::bind("127.0.0.1:8000", Site::new(directory)?)?;
    server.with_handler(|| guard).run()
}
