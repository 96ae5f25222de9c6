//! A WebSocket that echoes, using `tungstenite`: `websocat ws://localhost:8000`.
//!
//! The handler takes over the socket and uses it on the thread of the connection.

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
    // Bytes that were already read come first.
    let mut socket = WebSocket::from_raw_socket(upgraded, Role::Server, None);
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
    server.with_handler(|| echo).run()
}
