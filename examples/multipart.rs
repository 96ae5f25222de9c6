//! Files from a form (`multipart/form-data`), read as they arrive: `cargo run --example multipart`, then
//! `curl -F note=hello -F file=@FILE localhost:8000`.

use std::io;

use multer::{Constraints, Multipart, SizeLimit};
use sanserve_smol::{Exchange, Server, Site, StatusCode};
use smol::io::AsyncReadExt;
use smol::stream;

/// The longest upload that is accepted, in bytes.
const MAX_UPLOAD: u64 = 10_000_000;

const UNSUPPORTED_MEDIA_TYPE: StatusCode = StatusCode::new(415).expect("three digits");

/// Lists the parts of an upload.
pub async fn answer(x: &mut Exchange<'_>) -> io::Result<()> {
    if x.method() != b"POST" {
        return x.unsupported();
    }
    let media_type = x.field("Content-Type").and_then(|value| std::str::from_utf8(value).ok());
    let Some(boundary) = media_type.and_then(|value| multer::parse_boundary(value).ok()) else {
        return x.error(UNSUPPORTED_MEDIA_TYPE, None, None);
    };
    match parts(x, boundary).await {
        Ok(list) => x.answer(StatusCode::OK, "text/plain; charset=utf-8", list),
        Err(multer::Error::StreamReadFailed(error)) => Err(io::Error::other(error)),
        Err(multer::Error::StreamSizeExceeded { .. }) => x.error(StatusCode::CONTENT_TOO_LARGE, None, None),
        Err(error) => x.error(StatusCode::BAD_REQUEST, None, Some(&error.to_string())),
    }
}

/// A line for each part: its name, the name of its file if it is one, and its length.
async fn parts(x: &mut Exchange<'_>, boundary: String) -> Result<String, multer::Error> {
    let pieces = stream::unfold(x, |x| async {
        let mut piece = vec![0; 16_384];
        match x.read(&mut piece).await {
            Ok(0) => None,
            Ok(n) => {
                piece.truncate(n);
                Some((Ok(piece), x))
            }
            Err(error) => Some((Err(error), x)),
        }
    });
    let limits = Constraints::new().size_limit(SizeLimit::new().whole_stream(MAX_UPLOAD));
    let mut multipart = Multipart::with_constraints(pieces, boundary, limits);
    let mut list = String::new();
    while let Some(mut part) = multipart.next_field().await? {
        let mut length = 0;
        while let Some(piece) = part.chunk().await? {
            // Here a piece would be written to a file, under a name that the client does not choose.
            length += piece.len();
        }
        let (name, file) = (part.name().unwrap_or_default(), part.file_name().unwrap_or("no file"));
        list += &format!("{name:?} ({file:?}): {length} bytes\n");
    }
    Ok(list)
}

fn main() -> io::Result<()> {
    Server::bind("127.0.0.1:8000", Site::without_files())?.with_handler(|| answer).run()
}
