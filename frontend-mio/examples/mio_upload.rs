//! Stores uploaded files: `curl -T photo.jpg localhost:8000/` writes `uploads/photo.jpg`, of any size, piece by
//! piece.
//!
//! It writes on the event loop. That is right for an ordinary disk: a write only copies to the page cache, and
//! returns sooner than another thread would have been woken. For a network file system, or if each upload must be
//! synced, collect pieces and submit them to `Workers`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use sanserve_mio::{Call, Handler, HandlerError, Misuse, Received, Reply, Server, Site, StatusCode};

/// The upload of one connection.
#[derive(Default)]
struct Upload {
    file: Option<(File, PathBuf)>,
}

impl Upload {
    /// Creates the file: the name may only contain harmless characters, and no directory.
    fn begin(&mut self, reply: &mut Reply<'_>) -> Result<(), Misuse> {
        let request = reply.request();
        let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        let name = match request.path() {
            [b'/', name @ ..] if !name.is_empty() && name[0] != b'.' && name.iter().all(harmless) => name,
            _ => return reply.error(StatusCode::FORBIDDEN, Some("No such name"), None),
        };
        if request.method() != b"PUT" {
            return reply.error(StatusCode::METHOD_NOT_ALLOWED, None, None);
        }
        let path = PathBuf::from("uploads").join(String::from_utf8_lossy(name).as_ref());
        // No client sees half an upload, and of two concurrent uploads, the second is refused.
        match File::create_new(path.with_extension("part")) {
            Ok(file) => self.file = Some((file, path)),
            Err(_) => return reply.error(StatusCode::INTERNAL_SERVER_ERROR, Some("Cannot be written"), None),
        }
        self.go_on(reply)
    }

    fn go_on(&mut self, reply: &mut Reply<'_>) -> Result<(), Misuse> {
        let Some((file, _)) = &mut self.file else { return Ok(()) };
        loop {
            let written = match reply.receive() {
                Received::Data(data) => file.write_all(data).map(|()| data.len()),
                Received::Pending | Received::Broken => return Ok(()),
                Received::End => return self.end(reply),
            };
            match written {
                Ok(n) => reply.consume(n),
                Err(_) => return reply.error(StatusCode::INSUFFICIENT_STORAGE, None, None),
            }
        }
    }

    fn end(&mut self, reply: &mut Reply<'_>) -> Result<(), Misuse> {
        match self.file.take().map(|(_, path)| fs::rename(path.with_extension("part"), path)) {
            Some(Ok(())) => reply.answer(StatusCode::CREATED, "text/plain", "stored\n"),
            _ => reply.error(StatusCode::INTERNAL_SERVER_ERROR, None, None),
        }
    }
}

impl Handler for Upload {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        let outcome = match call {
            Call::Request => self.begin(reply),
            Call::Body => self.go_on(reply),
            Call::Room | Call::Wake | Call::Drain => Ok(()),
            Call::Over => {
                // The upload ended early.
                if let Some((_, path)) = self.file.take() {
                    let _ = fs::remove_file(path.with_extension("part"));
                }
                Ok(())
            }
        };
        Ok(outcome?)
    }
}

fn main() -> io::Result<()> {
    fs::create_dir_all("uploads")?;
    let site = Site::without_files().with_handler(Upload::default);
    Server::bind("127.0.0.1:8000", site)?.run()
}
