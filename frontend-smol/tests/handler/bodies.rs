//! Bodies of requests and responses.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sanserve_smol::{Exchange, StatusCode, handler_fn};
use smol::channel;
use smol::future;
use smol::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{run, serve};

async fn echo(x: &mut Exchange<'_>) -> io::Result<()> {
    let head = x.respond(StatusCode::OK)?;
    match x.request().content_length() {
        Some(length) => head.length(length).send()?,
        None => head.send()?,
    }
    let mut room = [0; 30_000];
    loop {
        match x.read(&mut room).await? {
            0 => return Ok(()),
            n => x.write_all(&room[..n]).await?,
        }
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32 / 4 + 1).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(len).collect()
}

fn framed(body: &[u8], chunk: usize) -> Vec<u8> {
    if chunk == 0 {
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        return [head.as_bytes(), body].concat();
    }
    let mut out = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in body.chunks(chunk) {
        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

#[test]
fn bodies_of_any_size_are_echoed_while_they_arrive() {
    let server = serve(|| echo);
    let mut peer = server.connect();
    for len in [0, 1, 4095, 16_384, 65_536, 65_537, 1_000_000, 10_000_000] {
        let body = pattern(len);
        for chunk in [0, 1 + len / 7, 5000] {
            let request = framed(&body, chunk);
            let mut sender = peer.twin();
            let sending = thread::spawn(move || sender.send(&request));
            assert!(peer.response().body == body, "{len} bytes in chunks of {chunk}");
            sending.join().unwrap();
        }
    }
}

/// Both halves run in tasks of their own, each of which is only polled when it is woken itself.
async fn halves(x: &mut Exchange<'_>) -> io::Result<()> {
    x.respond(StatusCode::OK)?.send()?;
    let (mut from, mut to) = smol::io::split(x);
    let (send, received) = channel::bounded::<Vec<u8>>(1);
    let executor = smol::Executor::new();
    let reader = executor.spawn(async move {
        let mut room = [0; 10_000];
        loop {
            match from.read(&mut room).await? {
                0 => return io::Result::Ok(()),
                n => send.send(room[..n].to_vec()).await.unwrap(),
            }
        }
    });
    let writer = executor.spawn(async move {
        while let Ok(piece) = received.recv().await {
            to.write_all(&piece).await?;
            to.flush().await?;
        }
        to.close().await
    });
    let (read, written) = executor.run(future::zip(reader, writer)).await;
    read.and(written)
}

#[test]
fn halves_that_wait_on_their_own_are_woken() {
    let server = serve(|| halves);
    let mut peer = server.connect();
    for len in [0, 10, 1_000_000] {
        let body = pattern(len);
        let request = framed(&body, 7000);
        let mut sender = peer.twin();
        let sending = thread::spawn(move || sender.send(&request));
        assert!(peer.response().body == body, "{len} bytes");
        sending.join().unwrap();
    }
}

#[test]
fn a_handler_cannot_write_beyond_the_limit_ahead() {
    let (tell, told) = mpsc::channel();
    let server = serve(move || {
        let tell = tell.clone();
        handler_fn(move |x| {
            let tell = tell.clone();
            Box::pin(async move {
                x.respond(StatusCode::OK)?.length(20_000_000).send()?;
                let piece = [7; 50_000];
                let mut taken = 0;
                while let Some(n) = future::poll_once(x.write(&piece)).await {
                    taken += n?;
                }
                tell.send(taken).unwrap();
                x.write_all(&vec![7; 10_000_000 - taken]).await?;
                x.flush().await?;
                x.write_all(&vec![7; 10_000_000]).await
            })
        })
    });
    let mut peer = server.connect();
    peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let taken = told.recv().unwrap();
    assert!((60_000..=65_536).contains(&taken), "{taken}");
    assert!(peer.response().body == vec![7; 20_000_000]);
}

#[test]
fn written_data_is_sent_while_the_handler_waits_for_something_else() {
    let (tell, told) = channel::bounded::<()>(1);
    let server = serve(move || {
        let told = told.clone();
        handler_fn(move |x| {
            let told = told.clone();
            Box::pin(async move {
                x.respond(StatusCode::OK)?.field("Content-Type", "text/event-stream")?.send()?;
                loop {
                    x.write_all(b"data: tick\n\n").await?;
                    if told.recv().await.is_err() {
                        return Ok(());
                    }
                }
            })
        })
    });
    let mut peer = server.connect();
    peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(peer.head().starts_with("HTTP/1.1 200 "));
    for _ in 0..5 {
        assert_eq!(peer.chunk().unwrap(), b"data: tick\n\n");
        tell.send_blocking(()).unwrap();
    }
    assert_eq!(peer.chunk().unwrap(), b"data: tick\n\n");
    drop(tell);
    assert!(peer.chunk().is_none());
}

#[test]
fn a_handler_may_wait_for_a_timer() {
    let server = serve(|| {
        async |x: &mut Exchange<'_>| {
            smol::Timer::after(std::time::Duration::from_millis(5)).await;
            x.answer(StatusCode::OK, "text/plain", "late")
        }
    });
    let mut peer = server.connect();
    for _ in 0..3 {
        assert_eq!(peer.get("/").body_text(), "late");
    }
}

/// A half-close does not cut the time of the handler, and all requests are answered.
#[test]
fn a_half_close_does_not_end_the_connection() {
    let server = serve(|| {
        async |x: &mut Exchange<'_>| {
            smol::Timer::after(std::time::Duration::from_millis(2_500)).await;
            x.answer(StatusCode::OK, "text/plain", "late")
        }
    });
    let peers = ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"].map(|request| {
        let mut peer = server.connect();
        peer.send(request.repeat(2));
        peer.half_close();
        (peer, if request.contains("1.1") { 2 } else { 1 })
    });
    for (mut peer, answers) in peers {
        for _ in 0..answers {
            assert_eq!(peer.response().body_text(), "late");
        }
    }
}

#[test]
fn a_handler_is_not_polled_while_nothing_happens() {
    let (tell, told) = channel::bounded::<()>(1);
    let server = serve(move || {
        let told = told.clone();
        handler_fn(move |x| {
            let told = told.clone();
            Box::pin(async move {
                if x.path() != b"/counted" {
                    return x.answer(StatusCode::OK, "text/plain", "");
                }
                x.respond(StatusCode::OK)?.send()?;
                x.write_all(b"begun, ").await?;
                x.flush().await?;
                let (mut polls, mut end) = (0, std::pin::pin!(told.recv()));
                let ended = future::poll_fn(|cx| {
                    polls += 1;
                    end.as_mut().poll(cx)
                });
                ended.await.unwrap();
                x.write_all(if polls < 10 { b"done" } else { b"busy" }).await
            })
        })
    });
    let mut peer = server.connect();
    peer.send("GET /counted HTTP/1.1\r\nHost: x\r\n\r\n");
    peer.head();
    assert_eq!(peer.chunk().unwrap(), b"begun, ");
    let mut other = server.connect();
    for _ in 0..200 {
        assert_eq!(other.get("/").status(), 200);
    }
    tell.send_blocking(()).unwrap();
    assert_eq!(peer.chunk().unwrap(), b"done");
}

#[test]
fn trailers_are_received_and_sent() {
    let server = serve(|| {
        async |x: &mut Exchange<'_>| {
            assert_eq!(x.trailers().count(), 0);
            let mut body = String::new();
            x.read_to_string(&mut body).await?;
            let sum: Vec<_> = x.trailers().collect();
            assert_eq!(sum, [(&b"X-Sum"[..], &b"3 a: b"[..]), (b"x-other", b"")]);
            x.respond(StatusCode::OK)?.field("Trailer", "X-Length")?.send()?;
            x.write_all(body.as_bytes()).await?;
            assert!(x.trailer("Set-Cookie", "a").is_err());
            x.trailer("X-Length", body.len().to_string())
        }
    });
    let mut peer = server.connect();
    for _ in 0..2 {
        peer.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        peer.send("3\r\nabc\r\n0\r\nX-Sum: 3 a: b\r\nx-other:\r\n\r\n");
        assert!(peer.head().contains("\r\nTransfer-Encoding: chunked\r\n"));
        assert_eq!(peer.chunks(), (b"abc".to_vec(), "X-Length: 3\r\n\r\n".to_owned()));
    }
}

/// Reports the errors of reading.
fn reading(kinds: mpsc::Sender<io::ErrorKind>) -> impl sanserve_smol::Handler {
    handler_fn(move |x| {
        let kinds = kinds.clone();
        Box::pin(async move {
            let mut body = Vec::new();
            let error = x.read_to_end(&mut body).await.unwrap_err();
            kinds.send(error.kind()).unwrap();
            Err(error)
        })
    })
}

#[test]
fn each_broken_body_has_its_error_kind() {
    use sanserve_core::{Config, Pace, Timeouts};
    let (tell, told) = mpsc::channel();
    let body = Pace::new(Duration::from_millis(100), Duration::from_secs(100), 0);
    let config = Config::default().with_timeouts(Timeouts::default().with_body(body));
    let server = run(|site| site.with_config(config), move |server| server.with_handler(move || reading(tell.clone())));
    let mut peer = server.connect();
    peer.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX");
    assert_eq!(peer.response().status(), 400);
    assert_eq!(told.recv().unwrap(), io::ErrorKind::InvalidData);
    let mut peer = server.connect();
    peer.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
    peer.half_close();
    assert_eq!(peer.response().status(), 400);
    assert_eq!(told.recv().unwrap(), io::ErrorKind::UnexpectedEof);
    let mut peer = server.connect();
    peer.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
    assert_eq!(peer.response().status(), 408);
    assert_eq!(told.recv().unwrap(), io::ErrorKind::TimedOut);
    let log = server.end();
    assert!(!log.contains("failed"), "an error of the peer was logged as a failure: {log}");
}
