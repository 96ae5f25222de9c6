//! What is served is what the name of the root leads to now, and not what it led to when the server was started.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use testkit::process::Process;
use testkit::server::program;
use testkit::{Runtime, Server, Tree, eventually};

/// Far more than the second that a look at the name may be old, on a machine with much to do.
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
            fs::set_permissions(tree.path(&name), fs::Permissions::from_mode(0o755)).expect("it is ours");
        }
    }
    tree.link("current", "one");
    tree
}

fn turn(tree: &Tree, to: &str) {
    tree.link("next", to);
    fs::rename(tree.path("next"), tree.path("current")).expect("a link can be renamed");
}

/// A link that is turned: what only the new tree has is there at once, and the rest a second later at most.
pub fn a_link_that_is_turned(rt: Runtime) {
    let tree = versions();
    let server = Server::with(rt, &tree.path("current"), &["--cgi"]);
    let mut client = server.connect();
    for (from, to) in [("one", "two"), ("two", "one"), ("one", "two")] {
        assert_eq!(client.get(format!("/{from}.txt")).status(), 200);
        assert_eq!(client.get("/same.txt").body_text(), from);
        turn(&tree, to);
        assert_eq!(client.get(format!("/{to}.txt")).status(), 200, "at once");
        assert_eq!(client.get("/same.txt").body_text(), to);
        assert_eq!(client.get(format!("/{from}.txt")).status(), 404);
        assert!(client.get("/").body_text().contains(&format!("{to}.txt")));
    }
    turn(&tree, "one");
    let start = Instant::now();
    eventually("what both trees have is the new one's", || client.get("/same.txt").body_text() == "one");
    assert!(start.elapsed() < SOON, "after {:?}", start.elapsed());
}

/// Scripts are those of the tree that is there now.
pub fn a_link_that_is_turned_with_scripts(rt: Runtime) {
    let tree = versions();
    let server = Server::with(rt, &tree.path("current"), &["--cgi"]);
    assert_eq!(server.get("/cgi-bin/one").body_text(), "one");
    turn(&tree, "two");
    assert_eq!(server.get("/cgi-bin/two").body_text(), "two", "at once");
    assert_eq!(server.get("/cgi-bin/same").body_text(), "two");
    turn(&tree, "one");
    let start = Instant::now();
    eventually("the script is the new tree's", || server.get("/cgi-bin/same").body_text() == "one");
    assert!(start.elapsed() < SOON, "after {:?}", start.elapsed());
}

/// What a build does: the directory is removed and made anew. In between, nothing is there.
pub fn a_directory_made_anew(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for n in 0..5 {
        assert_eq!(client.get("/").status(), 200);
        fs::remove_dir_all(tree.root()).expect("it is there");
        for target in ["/", "/a.txt", "/folder/"] {
            assert_eq!(client.get(target).status(), 404, "{target}");
        }
        fs::create_dir(tree.root()).expect("it is gone");
        tree.file("new.txt", n.to_string());
        assert!(client.get("/").body_text().contains("new.txt"), "the listing is the new one's");
        assert_eq!(client.get("/new.txt").body_text(), n.to_string());
        fs::remove_dir_all(tree.root()).expect("it is there");
        fs::create_dir(tree.root()).expect("it is gone");
        tree.file("index.html", "index");
        assert_eq!(client.get("/").body, b"index");
        fs::remove_file(tree.path("index.html")).expect("it is there");
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
    fs::remove_dir_all(tree.path("dist")).expect("it is there");
    tree.folder("dist").file("dist/b.txt", "new");
    for server in &servers {
        assert_eq!(server.get("/b.txt").body, b"new");
        assert_eq!(server.get("/a.txt").status(), 404);
    }
}

/// A name that leads nowhere, to a file, in a circle, and back.
pub fn whatever_becomes_of_the_name(rt: Runtime) {
    let tree = versions();
    let server = Server::with(rt, &tree.path("current"), &["--symlinks", "inside"]);
    let mut client = server.connect();
    assert_eq!(client.get("/same.txt").body_text(), "one");
    for wrong in ["nowhere", "one/same.txt", "current"] {
        turn(&tree, wrong);
        eventually("nothing is there", || client.get("/same.txt").status() == 404);
        assert_eq!(client.get("/").status(), 404);
        turn(&tree, "two");
        assert_eq!(client.get("/same.txt").body_text(), "two", "at once");
    }
    fs::remove_file(tree.path("current")).expect("it is there");
    symlink(tree.path("one"), tree.path("current")).expect("a link can be made");
    eventually("an absolute link is as good", || client.get("/same.txt").body_text() == "one");
}
