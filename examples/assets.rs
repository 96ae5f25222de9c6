//! The pages of an application as a part of the program, embedded by the crate `include_dir`. `app.js.gz` is sent for
//! `app.js` to browsers.

use include_dir::{Dir, include_dir};
use sanserve_mio::{Asset, Assets, Server, Site};

static APP: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/examples/app");

/// The files of a directory, and of those below it.
fn collect(directory: &'static Dir<'static>, assets: &mut Vec<Asset>) {
    let files = directory.files().filter_map(|file| Some(Asset::new(file.path().to_str()?, file.contents())));
    assets.extend(files);
    directory.dirs().for_each(|below| collect(below, assets));
}

/// A site of the embedded files alone.
pub fn site() -> Site {
    let mut assets = Vec::new();
    collect(&APP, &mut assets);
    Site::without_files().with_assets(&Assets::new(assets))
}

fn main() -> std::io::Result<()> {
    Server::bind("127.0.0.1:8000", site())?.run()
}
