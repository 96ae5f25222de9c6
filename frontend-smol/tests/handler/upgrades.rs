//! Upgrades.

use sanserve_smol::{Exchange, StatusCode};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use testkit::Embedded;

use crate::support::serve;

const REQUEST: &str = "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: parrot\r\n\r\n";

async fn parrot(x: &mut Exchange<'_>) -> std::io::Result<()> {
    let refused = x.upgrade("cat", &[]).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
    if x.field("Upgrade").is_none() {
        return x.error(StatusCode::new(426).unwrap(), None, None);
    }
    let mut upgraded = x.upgrade("parrot", &[("X-Bird", "grey")]).await?;
    assert!(x.respond(StatusCode::OK).is_err(), "the exchange is over");
    let mut room = [0; 100];
    loop {
        match upgraded.read(&mut room).await? {
            0 => return Ok(()),
            n => upgraded.write_all(&room[..n]).await?,
        }
    }
}

/// Uses the protocol `parrot`.
fn talks(server: &Embedded) {
    let mut peer = server.connect();
    peer.send(format!("{REQUEST}already"));
    let head = peer.head();
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert!(head.contains("\r\nUpgrade: parrot\r\n") && head.contains("\r\nConnection: Upgrade\r\n"), "{head}");
    assert_eq!(peer.take(7), b"already");
    peer.send("more");
    assert_eq!(peer.take(4), b"more");
    peer.half_close();
    assert!(peer.rest_however().0.is_empty());
}

#[test]
fn a_handler_gets_the_socket_and_the_bytes_already_read() {
    let server = serve(|| parrot);
    talks(&server);
    talks(&server);
    assert_eq!(server.get("/").status(), 426);
    let log = server.end();
    assert_eq!(log.matches("\"GET /chat HTTP/1.1\" 101 0").count(), 2, "{log}");
    assert!(!log.contains("failed"), "{log}");
}

#[test]
fn an_upgraded_connection_in_a_handler_ends_with_the_server() {
    let mut server = serve(|| parrot);
    let mut peer = server.connect();
    peer.send(REQUEST);
    assert!(peer.head().starts_with("HTTP/1.1 101 "));
    peer.send("x");
    assert_eq!(peer.take(1), b"x");
    server.stop();
    server.join();
    assert!(peer.rest_however().0.is_empty());
}
