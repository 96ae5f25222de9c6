//! A WebSocket that echoes, using `tungstenite`: `websocat ws://localhost:8000`.
//!
//! The event loop handles the HTTP part. Then `talk` gets the connection on a thread of its own, and may block.

use sanserve_mio::{Misuse, Reply, Server, Site, StatusCode, Upgraded};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::{Role, WebSocket};

fn shake_hands(reply: &mut Reply<'_>) -> Result<(), Misuse> {
    let request = reply.request();
    let key = request.field("Sec-WebSocket-Key").filter(|_| request.field("Sec-WebSocket-Version") == Some(b"13"));
    let accept = key.map(derive_accept_key).unwrap_or_default();
    match reply.upgrade("websocket") {
        Ok(head) if !accept.is_empty() => head.field("Sec-WebSocket-Accept", accept)?.send(),
        _ => reply.error(StatusCode::BAD_REQUEST, Some("This is a WebSocket"), None),
    }
}

fn talk(upgraded: Upgraded) {
    // Bytes that were already read come first.
    let mut socket = WebSocket::from_raw_socket(upgraded, Role::Server, None);
    // Fails when the peer closes the connection.
    while let Ok(message) = socket.read() {
        if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
            break;
        }
    }
}

fn main() -> std::io::Result<()> {
    let site = Site::without_files().with_answer(shake_hands).with_upgrade(talk);
    Server::bind("127.0.0.1:8000", site)?.run()
}
