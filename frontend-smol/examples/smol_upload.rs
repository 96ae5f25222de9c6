//! Stores and serves uploaded files: `cargo run -p sanserve-smol --example smol_upload -- DIRECTORY`, then `curl -T
//! FILE localhost:8000` and `curl localhost:8000/FILE`.
use std::io;
use std::path::{Path, PathBuf};

use sanserve_smol::{Exchange, Handler, Server, Site, StatusCode};
use smol::fs;
use smol::io::AsyncWriteExt;

/// Stores the body of each PUT in its directory, and leaves all other requests to the files.
struct Uploads(PathBuf);

impl Handler for Uploads {
    async fn do_get(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        x.decline()
    }

    async fn do_other(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        if x.method() != b"PUT" {
            return x.unsupported();
        }
        let Some(name) = plain_name(x.path()) else {
            return x.error(StatusCode::FORBIDDEN, Some("A plain name, please"), None);
        };
        // The file gets its name when it is complete, so that no client sees half an upload.
        let part = Part(self.0.join(format!(".{name}.{}", x.peer().port().unwrap_or_default())));
        let mut file = fs::File::create(&part.0).await?;
        let length = smol::io::copy(&mut *x, &mut file).await?;
        file.close().await?;
        fs::rename(&part.0, self.0.join(&name)).await?;
        x.log(format_args!("{name}: {length} bytes"));
        x.respond(StatusCode::CREATED)?.field("Location", format!("/{name}"))?.length(0).send()
    }
}

/// An incomplete file. It is removed even if the handler is dropped because the peer disconnects.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // After a successful upload, it does not exist any more.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The file name in the path, if the path has one component that needs no decoding and is not hidden.
fn plain_name(path: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(path).ok()?.strip_prefix('/')?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (name.len() <= 100 && !name.starts_with('.') && !name.is_empty() && name.chars().all(is_plain)).then(|| name.into())
}

fn main() -> io::Result<()> {
    let directory = PathBuf::from(std::env::args_os().nth(1).unwrap_or(".".into()));
    let site = Site::new(Path::new(&directory))?;
    let server = Server::bind("127.0.0.1:8000", site)?;
    server.with_handler(move || Uploads(directory.clone())).run()
}
