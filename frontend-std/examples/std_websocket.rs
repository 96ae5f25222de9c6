//! A WebSocket that echoes, by way of `tungstenite`: `websocat ws://localhost:8000`.
//!
//! The handler takes the socket and goes on with it, on the connection's own thread.

use std::io;

use sanserve_std::{Exchange, Server, Site, StatusCode};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::{Role, WebSocket};

fn echo(x: &mut Exchange<'_>) -> io::Result<()> {
    let key = x.field("Sec-WebSocket-Key").filter(|_| x.field("Sec-WebSocket-Version") == Some(b"13"));
    let Some(accept) = key.map(derive_accept_key) else {
        return x.error(StatusCode::BAD_REQUEST, Some("This is a WebSocket"), None);
    };
    let upgraded = x.upgrade("websocket", &[("Sec-WebSocket-Accept", &accept)])?;
    // What was read already comes first.
    let mut socket = WebSocket::from_partially_read(upgraded.stream, upgraded.read, Role::Server, None);
    // It ends with an error when the peer closes.
    while let Ok(message) = socket.read() {
        if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
            break;
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let server = Server::bind("127.0.0.1:8000", Site::without_files())?;
    server.with_handler(|| echo).run()
}
