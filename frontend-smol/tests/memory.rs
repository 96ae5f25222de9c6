//! The memory that bodies take, in a process of its own: they pass through in pieces.

#![cfg(target_os = "linux")]

use std::fs;
use std::io;
use std::thread;

use sanserve_smol::{Exchange, Log, Server, Site, StatusCode};
use smol::io::AsyncWriteExt;
use testkit::{Embedded, Tree, bound};

const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 1024;

async fn echo(x: &mut Exchange<'_>) -> io::Result<()> {
    x.respond(StatusCode::OK)?.send()?;
    let (from, mut to) = smol::io::split(&mut *x);
    smol::io::copy(from, &mut to).await?;
    to.close().await
}

/// The peak memory of the process, in KiB.
fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn an_echo_of_64_mib_takes_bounded_memory() {
    let server = Embedded::start(Tree::new(), |_, _| {
        let site = Site::without_files().with_log(Log::quiet());
        bound!(Server::bind("127.0.0.1:0", site).unwrap().with_handler(|| echo))
    });
    let mut client = server.connect();
    let mut sender = client.twin();
    let before = peak();
    let sending = thread::spawn(move || {
        sender.send("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunk = [format!("{CHUNK:x}\r\n").as_bytes(), &[b'~'; CHUNK], b"\r\n"].concat();
        (0..CHUNKS).for_each(|_| sender.send(&chunk));
        sender.send("0\r\n\r\n");
    });
    let (mut data, mut last) = (0, Vec::new());
    loop {
        let piece = client.piece();
        if piece.is_empty() {
            break;
        }
        data += piece.iter().filter(|byte| **byte == b'~').count();
        last.extend_from_slice(&piece[piece.len().saturating_sub(5)..]);
        last.drain(..last.len().saturating_sub(5));
    }
    sending.join().unwrap();
    assert_eq!((data, &*last), (CHUNK * CHUNKS, &b"0\r\n\r\n"[..]));
    let grown = peak() - before;
    assert!(grown < 8 << 10, "{grown} KiB");
    server.end();
}
