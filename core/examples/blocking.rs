//! Drives the core over blocking sockets with only the standard library: one connection at a time, files in memory. Run
//! `cargo run -p sanserve-core --example blocking`, then `curl localhost:8000`.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a driver may use what the core must not"
)]

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sanserve_core::{
    Action, Body, Buffers, Completion, Config, Connection, Context, DefaultPolicy, Fault, FsError, Input, Kind, Now,
    Opened, Peer, Step, Tick, Wall,
};

const FILES: [(&str, &[u8]); 2] = [("", b""), ("index.html", b"<!DOCTYPE html><title>Hello</title>\n")];

/// Drives one connection until it closes.
pub fn serve(mut socket: TcpStream, start: Instant) -> io::Result<()> {
    let (config, peer) = (Config::default(), Peer::from(socket.peer_addr()?));
    let mut now = time(start);
    let mut connection = Connection::new(peer, &Context { config: &config, policy: &DefaultPolicy, now: &now });
    let (mut buffers, mut file): (_, &[u8]) = (Buffers::new(), b"");
    socket.set_write_timeout(Some(config.timeouts.write().silence()))?;
    loop {
        match connection.poll(&mut buffers, &Context { config: &config, policy: &DefaultPolicy, now: &now }) {
            Step::Act(ticket, action) => {
                let found = if let Action::Open { path } | Action::OpenIn { path } = action {
                    FILES.iter().find(|(name, _)| name.as_bytes() == path)
                } else {
                    None // Listings are not supported.
                };
                file = found.map_or(b"", |(_, bytes)| bytes);
                let opened = found.ok_or(FsError::NotFound).map(|(name, bytes)| Opened {
                    kind: if name.is_empty() { Kind::Directory } else { Kind::File },
                    len: bytes.len() as u64,
                    modified: 784_111_777,
                    modified_nanos: 0,
                    digest: None,
                });
                connection.handle(Input::Done(ticket, Completion::Opened(opened)));
            }
            Step::Send(transmit) => {
                let body = match transmit.body {
                    Body::None => b"",
                    Body::Bytes(bytes) => bytes,
                    Body::File { offset, len } => &file[offset as usize..][..len as usize],
                };
                let sent = socket.write_all(&[transmit.head, body, transmit.tail].concat());
                let sent = sent.map_or(Input::Broken(Fault::Peer), |()| Input::Sent(transmit.len()));
                connection.handle(sent);
            }
            Step::Finished(entry) => println!("{} {}", entry.line.escape_ascii(), entry.status),
            Step::Wait(wait) => {
                // This driver only waits for bytes. A timeout of 0 would mean to wait forever.
                let millis = wait.deadline.map(|deadline| deadline.since(now.tick).max(1));
                socket.set_read_timeout(millis.map(Duration::from_millis))?;
                match socket.read(buffers.input.spare()) {
                    Ok(0) => connection.handle(Input::Eof),
                    Ok(n) => buffers.input.commit(n),
                    Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                    Err(_) => connection.handle(Input::Broken(Fault::Peer)),
                }
                now = time(start);
            }
            Step::Probe(window) => {
                // A probe must not block.
                socket.set_nonblocking(true)?;
                let probed = match socket.read(window.spare()) {
                    Ok(0) => Input::Eof,
                    Ok(n) => {
                        window.commit(n);
                        Input::Probed
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Input::Probed,
                    Err(_) => Input::Broken(Fault::Peer),
                };
                socket.set_nonblocking(false)?;
                connection.handle(probed);
            }
            Step::Shut => socket.shutdown(Shutdown::Write)?,
            Step::Close(_) => return Ok(()),
            Step::Call(_) | Step::Feed(_) => unreachable!("this server has no handlers and no scripts"),
        }
    }
}

fn time(start: Instant) -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Now::new(Tick(start.elapsed().as_millis() as u64), Wall(wall as i64))
}

/// Serves on port 8000 until the process is killed. An error only ends its own connection.
pub fn main() -> io::Result<()> {
    let (listener, start) = (TcpListener::bind("127.0.0.1:8000")?, Instant::now());
    listener.incoming().try_for_each(|socket| socket.map(|socket| drop(serve(socket, start))))
}
