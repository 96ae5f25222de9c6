//! A TLS client, on rustls.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use sanserve_tls::rustls::pki_types::pem::PemObject;
use sanserve_tls::rustls::pki_types::{CertificateDer, ServerName};
use sanserve_tls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use testkit::TIMEOUT;

/// A connection to a server that has proved to be `name`.
pub(crate) struct Session(StreamOwned<ClientConnection, TcpStream>);

impl Session {
    /// Connects, and trusts the certificates of a PEM text.
    pub(crate) fn connect(address: SocketAddr, name: &str, roots: &str) -> io::Result<Session> {
        let mut store = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
            store.add(root.expect("PEM")).expect("a certificate");
        }
        let provider = sanserve_tls::provider().expect("a feature of the command");
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("both");
        let config = Arc::new(config.with_root_certificates(store).with_no_client_auth());
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        let mut session = StreamOwned::new(ClientConnection::new(config, name).map_err(io::Error::other)?, socket);
        while session.conn.is_handshaking() {
            session.conn.complete_io(&mut session.sock)?;
        }
        Ok(Session(session))
    }

    /// Sends a GET and returns the head and the body of the response.
    pub(crate) fn get(&mut self, path: &str) -> io::Result<(String, Vec<u8>)> {
        self.0.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).map_err(io::Error::other)?;
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((head, body))
    }

    /// The certificate that the server has sent first.
    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.0.conn.peer_certificates().expect("after the handshake")[0].clone().into_owned()
    }
}
