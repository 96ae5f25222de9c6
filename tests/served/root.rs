//! The served directory is the one that the name of the root leads to now, not the one at the start of the server.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use testkit::process::Process;
use testkit::server::program;
use testkit::{Runtime, Server, Tree, eventually};

/// Far more than the second for which a look-up of the name may be cached, for busy machines.
const SOON: Duration = Duration::from_secs(8);

fn versions() -> Tree {
    let tree = Tree::new();
    for version in ["one", "two"] {
        tree.folder(version)
            .file(format!("{version}/same.txt"), version)
            .file(format!("{version}/{version}.txt"), "own");
        tree.folder(format!("{version}/cgi-bin"));
        for name in ["same".to_owned(), version.to_owned()] {
            let script = format!("#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n{version}'\n");
            let name = format!("{version}/cgi-bin/{name}");
            tree.file(&name, script);
            fs::set_permissions(tree.path(&name), fs::Permissions::from_mode(0o755))
                .expect("permissions can be changed");
        }
    }
    tree.link("current", "one");
    tree
}

fn turn(tree: &Tree, to: &str) {
    tree.link("next", to);
    fs::rename(tree.path("next"), tree.path("current")).expect("a link can be renamed");
}

/// The name is a symbolic link that is changed: files that exist only in the new tree are found immediately, and the
/// others after at most a second.
pub fn a_link_that_is_changed(rt: Runtime) {
    let tree = versions();
    let server = Server::with(rt, &tree.path("current"), &["--cgi"]);
    let mut client = server.connect();
    for (from, to) in [("one", "two"), ("two", "one"), ("one", "two")] {
        assert_eq!(client.get(format!("/{from}.txt")).status(), 200);
        assert_eq!(client.get("/same.txt").body_text(), from);
        turn(&tree, to);
        assert_eq!(client.get(format!("/{to}.txt")).status(), 200, "immediately");
        assert_eq!(client.get("/same.txt").body_text(), to);
        assert_eq!(client.get(format!("/{from}.txt")).status(), 404);
        assert!(client.get("/").body_text().contains(&format!("{to}.txt")));
    }
    turn(&tree, "one");
    let start = Instant::now();
    eventually("the file is that of the new tree", || client.get("/same.txt").body_text() == "one");
    assert!(start.elapsed() < SOON, "after {:?}", start.elapsed());
}

/// Scripts are those of the current tree.
pub fn a_link_that_is_changed_with_scripts(rt: Runtime) {
    let tree = versions();
    let server = Server::with(rt, &tree.path("current"), &["--cgi"]);
    assert_eq!(server.get("/cgi-bin/one").body_text(), "one");
    turn(&tree, "two");
    assert_eq!(server.get("/cgi-bin/two").body_text(), "two", "immediately");
    assert_eq!(server.get("/cgi-bin/same").body_text(), "two");
    turn(&tree, "one");
    let start = Instant::now();
    eventually("the script is that of the new tree", || server.get("/cgi-bin/same").body_text() == "one");
    assert!(start.elapsed() < SOON, "after {:?}", start.elapsed());
}

/// Like a build: the directory is removed and created again. In between, there are no files.
pub fn a_directory_that_is_recreated(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for n in 0..5 {
        assert_eq!(client.get("/").status(), 200);
        fs::remove_dir_all(tree.root()).expect("the path exists");
        for target in ["/", "/a.txt", "/folder/"] {
            assert_eq!(client.get(target).status(), 404, "{target}");
        }
        fs::create_dir(tree.root()).expect("the path is free");
        tree.file("new.txt", n.to_string());
        assert!(client.get("/").body_text().contains("new.txt"), "the listing is that of the new directory");
        assert_eq!(client.get("/new.txt").body_text(), n.to_string());
        fs::remove_dir_all(tree.root()).expect("the path exists");
        fs::create_dir(tree.root()).expect("the path is free");
        tree.file("index.html", "index");
        assert_eq!(client.get("/").body, b"index");
        fs::remove_file(tree.path("index.html")).expect("the path exists");
    }
}

fn start_in(rt: Runtime, directory: &Path, flags: &[&str]) -> Server {
    let mut command = Command::new(program());
    command.args(["--runtime", rt.name(), "-b", "127.0.0.1"]).args(flags).arg("0").current_dir(directory);
    Server::of(Process::start(&mut command))
}

/// The current directory is a name, too, and so is one below it.
pub fn the_current_directory(rt: Runtime) {
    let tree = Tree::new();
    tree.folder("dist").file("dist/a.txt", "old");
    let servers = [
        start_in(rt, &tree.path("dist"), &[]),
        start_in(rt, &tree.path("dist"), &["-d", "."]),
        start_in(rt, tree.root(), &["-d", "dist"]),
        start_in(rt, tree.root(), &["-d", "../root/dist/"]),
    ];
    for server in &servers {
        assert_eq!(server.get("/a.txt").body, b"old");
    }
    fs::remove_dir_all(tree.path("dist")).expect("the path exists");
    tree.folder("dist").file("dist/b.txt", "new");
    for server in &servers {
        assert_eq!(server.get("/b.txt").body, b"new");
        assert_eq!(server.get("/a.txt").status(), 404);
    }
}

/// A name that leads nowhere, to a file, into a loop, and back.
pub fn a_root_that_changes_its_meaning(rt: Runtime) {
    let tree = versions();
    let server = Server::with(rt, &tree.path("current"), &["--symlinks", "inside"]);
    let mut client = server.connect();
    assert_eq!(client.get("/same.txt").body_text(), "one");
    for wrong in ["nowhere", "one/same.txt", "current"] {
        turn(&tree, wrong);
        eventually("the root is gone", || client.get("/same.txt").status() == 404);
        assert_eq!(client.get("/").status(), 404);
        turn(&tree, "two");
        assert_eq!(client.get("/same.txt").body_text(), "two", "immediately");
    }
    fs::remove_file(tree.path("current")).expect("the path exists");
    symlink(tree.path("one"), tree.path("current")).expect("a link can be made");
    eventually("an absolute link is followed", || client.get("/same.txt").body_text() == "one");
}
