//! The memory of a handler that streams. A program of its own, since the memory of the whole process is measured.
#![cfg(target_os = "linux")]

mod support;

use std::io::{self, Read, Write};
use std::thread;

use sanserve_std::{Exchange, StatusCode};

const MIB: u64 = 1 << 20;

/// The peak memory of this process, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn echo(x: &mut Exchange<'_>) -> io::Result<()> {
    x.respond(StatusCode::OK)?.send()?;
    let mut piece = [0; 30_000];
    loop {
        match x.read(&mut piece)? {
            0 => return Ok(()),
            n => x.write_all(&piece[..n])?,
        }
    }
}

#[test]
fn an_echo_of_any_length_takes_bounded_memory() {
    let server = support::run(|site| site, |server| server.with_handler(|| echo));
    let mut client = server.connect();
    let mut most = Vec::new();
    for len in [MIB, 64 * MIB] {
        let mut twin = client.twin();
        let sending = thread::spawn(move || {
            twin.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
            let piece = [&b"10000\r\n"[..], &[b'e'; 0x10000], b"\r\n"].concat();
            for _ in 0..len / 0x10000 {
                twin.send(&piece);
            }
            twin.send("0\r\n\r\n");
        });
        let mut received = 0;
        client.receive(false, |bytes| received += bytes.len() as u64);
        sending.join().unwrap();
        assert_eq!(received, len);
        most.push(peak());
    }
    assert!(most[1] - most[0] < 4 * MIB, "{most:?}");
}
