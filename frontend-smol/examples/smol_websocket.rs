//! A WebSocket that echoes, using `tungstenite`: `cargo run -p sanserve-smol --example smol_websocket`, then
//! `websocat ws://localhost:8000`.
use std::io;

use sanserve_smol::{Exchange, Server, Site, StatusCode, Upgraded};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::{Role, WebSocket};

async fn shake_hands(x: &mut Exchange<'_>) -> io::Result<()> {
    let key = x.field("Sec-WebSocket-Key").filter(|_| x.field("Sec-WebSocket-Version") == Some(b"13"));
    let Some(key) = key else {
        return x.error(StatusCode::BAD_REQUEST, Some("This is a WebSocket"), None);
    };
    let upgraded = x.upgrade("websocket", &[("Sec-WebSocket-Accept", &derive_accept_key(key))]).await?;
    // `tungstenite` blocks, so it runs on a thread of the pool for blocking work.
    smol::unblock(|| echo(upgraded)).await
}

fn echo(upgraded: Upgraded) -> io::Result<()> {
    let (stream, read) = upgraded.into_tcp().map_err(|_| io::ErrorKind::Unsupported)?;
    let stream = stream.into_inner()?;
    stream.set_nonblocking(false)?;
    // Bytes that were already read come first.
    let mut socket = WebSocket::from_partially_read(stream, read, Role::Server, None);
    // Fails when the peer closes the connection.
    while let Ok(message) = socket.read() {
        if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
            break;
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let server = Server::bind("127.0.0.1:8000", Site::without_files())?;
    server.with_handler(|| shake_hands).run()
}
