//! `--https`: the local CA, and `sanserve cert`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use rustix::process::Signal;
use testkit::process::Process;
use testkit::server::program;
use testkit::{Runtime, Tree, eventually};

use crate::session::Session;
use crate::{banner, command, serve};

fn home() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn kept(home: &Path) -> PathBuf {
    home.join(".local/share/sanserve")
}

/// Runs `sanserve cert`: its exit code, stdout and stderr. Only these tools are on its `PATH`.
fn cert(home: &Path, arguments: &[&str], tools: &Path) -> (Option<i32>, String, String) {
    let mut command = Command::new(program());
    command.arg("cert").args(arguments).env("HOME", home).env_remove("XDG_DATA_HOME").env("PATH", tools);
    let output = command.output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_first_run_makes_a_ca_and_later_ones_use_it() {
    let tree = Tree::plain();
    for runtime in Runtime::ALL {
        let home = home();
        let server = serve(runtime, &tree, home.path(), &["--https"]);
        assert!(banner(&server).starts_with("Serving HTTPS on 127.0.0.1 port "));
        for says in
            ["Made a local CA: sanserve local CA ", "SHA-256 ", "To trust it:", "  iOS ", "  Android ", "  Firefox "]
        {
            server.process().stdout.line(says, |line| line.starts_with(says));
        }
        let ca = fs::read_to_string(kept(home.path()).join("ca.crt")).expect("the certificate of the CA");
        let mut certificates = Vec::new();
        for name in ["localhost", "127.0.0.1"] {
            let mut session = Session::connect(server.address(), name, &ca).expect("trusted");
            session.get("/a.txt").expect("a response");
            certificates.push(session.certificate());
        }
        assert!(Session::connect(server.address(), "example.org", &ca).is_err());
        drop(server);

        let server = serve(runtime, &tree, home.path(), &["--https"]);
        let line = server.process().stdout.line("the CA", |line| line.contains("local CA"));
        assert!(line.starts_with("Certificate of sanserve local CA "), "{line}");
        let session = Session::connect(server.address(), "localhost", &ca).expect("trusted");
        assert_eq!(session.certificate(), certificates[0], "the certificate is kept");
        // SIGHUP looks at them again: as if the certificate had to be renewed, and as if the CA were damaged.
        fs::remove_file(kept(home.path()).join("server.pem")).expect("it is kept");
        server.process().signal(Signal::HUP);
        eventually("another certificate is used", || {
            Session::connect(server.address(), "localhost", &ca).expect("trusted").certificate() != certificates[0]
        });
        let authority = fs::read(kept(home.path()).join("ca.pem")).expect("it is kept");
        fs::write(kept(home.path()).join("ca.pem"), "nonsense").expect("a file");
        server.process().signal(Signal::HUP);
        let line = server.process().stderr.line("the problem", |line| line.contains("the certificate in use is kept"));
        assert!(line.contains("cannot use the local CA"), "{line}");
        Session::connect(server.address(), "localhost", &ca).expect("trusted");
        fs::write(kept(home.path()).join("ca.pem"), authority).expect("a file");

        for (name, mode) in [("", 0o700), ("ca.pem", 0o600), ("server.pem", 0o600)] {
            let metadata = fs::metadata(kept(home.path()).join(name)).expect("it is kept");
            assert_eq!(metadata.permissions().mode() & 0o777, mode, "{name}");
        }
    }
}

#[test]
fn nothing_of_once_is_kept() {
    let tree = Tree::plain();
    for runtime in Runtime::ALL {
        let home = home();
        let server = serve(runtime, &tree, home.path(), &["--https=once"]);
        let line = server.process().stdout.line("the fingerprint", |line| line.contains("SHA-256"));
        assert!(line.starts_with("Certificate for this run alone: SHA-256 "), "{line}");
        assert_eq!(line.rsplit(' ').next().expect("the last word").split(':').count(), 32);
        assert!(Session::connect(server.address(), "localhost", "").is_err(), "nobody vouches for it");
        assert_eq!(fs::read_dir(home.path()).expect("a directory").count(), 0);
    }
}

#[test]
fn first_runs_at_the_same_time_share_a_ca() {
    let (tree, home) = (Tree::plain(), home());
    let names: Vec<String> = thread::scope(|scope| {
        let run = || {
            let server = serve(Runtime::Mio, &tree, home.path(), &["--https"]);
            let line = server.process().stdout.line("the fingerprint", |line| line.starts_with("SHA-256 "));
            let ca = fs::read_to_string(kept(home.path()).join("ca.crt")).expect("the certificate of the CA");
            Session::connect(server.address(), "localhost", &ca).expect("trusted");
            line
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
}

#[test]
fn a_store_that_cannot_be_used() {
    let tree = Tree::plain();
    let home = home();
    let refused = |home: Option<&Path>| {
        let mut command = command(Runtime::Mio, &tree, Path::new("/nonexistent"), &["--https"]);
        match home {
            Some(home) => command.env("HOME", home),
            None => command.env_remove("HOME"),
        };
        let mut process = Process::start(&mut command);
        assert_eq!(process.ended().code(), Some(1));
        let stderr = String::from_utf8(process.stderr.bytes()).expect("text");
        assert!(stderr.starts_with("sanserve: ") && stderr.lines().count() == 1, "{stderr}");
        assert_eq!(process.stdout.bytes(), b"");
        stderr
    };
    assert!(refused(None).contains("neither XDG_DATA_HOME nor HOME is set"));
    fs::write(home.path().join("file"), "").expect("a file");
    assert!(refused(Some(&home.path().join("file"))).contains("cannot keep a local CA in"));
    drop(serve(Runtime::Mio, &tree, home.path(), &["--https"]));
    let ca = kept(home.path()).join("ca.pem");
    fs::write(&ca, "nonsense").expect("a file");
    let line = refused(Some(home.path()));
    assert!(
        line.contains("ca.pem: there is no certificate in it") && line.contains("`sanserve cert remove`"),
        "{line}"
    );
    fs::set_permissions(&ca, fs::Permissions::from_mode(0o640)).expect("the owner may");
    assert!(refused(Some(home.path())).contains("others have access to its key: its mode is 640"));
    let (code, stdout, _) = cert(home.path(), &["remove"], home.path());
    assert!(code == Some(0) && stdout.starts_with("Deleted "), "{stdout}");
    drop(serve(Runtime::Mio, &tree, home.path(), &["--https"]));
}

/// `cd; sanserve --https` would serve the key of the CA, since dotfiles are served.
#[test]
fn the_key_of_the_ca_is_not_served() {
    let tree = Tree::plain();
    let home = tree.root();
    for ca in ["absent", "there"] {
        let mut process = Process::start(&mut command(Runtime::Mio, &tree, home, &["--https"]));
        assert_eq!(process.ended().code(), Some(1), "{ca}");
        let stderr = String::from_utf8(process.stderr.bytes()).expect("text");
        let says = format!("ca.pem: it is inside {}, which is served; use --hide-dotfiles", home.display());
        assert!(stderr.contains(&says) && stderr.lines().count() == 1, "{stderr}");
        assert_eq!(kept(home).exists(), ca == "there");
        let server = serve(Runtime::Mio, &tree, home, &["--https", "--hide-dotfiles"]);
        let ca = fs::read_to_string(kept(home).join("ca.crt")).expect("the certificate of the CA");
        let mut session = Session::connect(server.address(), "localhost", &ca).expect("trusted");
        for (path, status) in [("/a.txt", "200"), ("/.local/share/sanserve/ca.pem", "404")] {
            let (head, _) = session.get(path).expect("a response");
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        }
    }
}

#[test]
fn the_ca_is_shown_exported_and_removed() {
    let (tree, home) = (Tree::plain(), home());
    let at = home.path();
    let no_tools = tempfile::tempdir().expect("a temporary directory");
    for command in [&[][..], &["show"], &["export"], &["install"], &["remove"]] {
        let (code, stdout, stderr) = cert(at, command, no_tools.path());
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{command:?}");
        assert!(stderr.starts_with("sanserve: there is no local CA") && stderr.lines().count() == 1, "{stderr}");
    }
    let server = serve(Runtime::Mio, &tree, at, &["--https"]);
    let (code, shown, _) = cert(at, &[], no_tools.path());
    let fingerprint = server.process().stdout.line("the fingerprint", |line| line.starts_with("SHA-256 "));
    assert!(code == Some(0) && shown.contains(&fingerprint) && shown.contains("To trust it:"), "{shown}");
    let (_, exported, _) = cert(at, &["export"], no_tools.path());
    assert!(exported.starts_with("-----BEGIN CERTIFICATE-----\n") && !exported.contains("PRIVATE"), "{exported}");
    Session::connect(server.address(), "localhost", &exported).expect("trusted");
    let file = at.join("exported.crt");
    let (code, stdout, _) = cert(at, &["export", file.to_str().expect("text")], no_tools.path());
    assert_eq!((code, stdout.as_str()), (Some(0), ""));
    assert_eq!(fs::read_to_string(&file).expect("a file"), exported);
    let (code, _, stderr) = cert(at, &["export", "/nonexistent/x"], no_tools.path());
    assert!(code == Some(1) && stderr.contains("cannot write /nonexistent/x: No such file"), "{stderr}");
    let (code, _, stderr) = cert(at, &["install"], no_tools.path());
    assert!(code == Some(1) && stderr.contains("no tool to install certificates is there"), "{stderr}");
    let (code, stdout, _) = cert(at, &["remove"], no_tools.path());
    assert!(code == Some(0) && stdout.starts_with("Deleted ") && stdout.contains("ca.pem"), "{stdout}");
    let left: Vec<_> =
        fs::read_dir(kept(at)).expect("a directory").map(|entry| entry.expect("one").file_name()).collect();
    assert_eq!(left, ["lock"]);
    // The server has what it needs in memory.
    Session::connect(server.address(), "localhost", &exported).expect("trusted");
}

/// The database of Chromium, and that of a profile of Firefox.
#[test]
fn the_ca_is_installed_for_browsers() {
    let Some(certutil) = crate::clients::find("certutil", "libnss3-tools") else { return };
    let (tree, home, tools) = (Tree::plain(), home(), tempfile::tempdir().expect("a temporary directory"));
    let at = home.path();
    std::os::unix::fs::symlink(&certutil, tools.path().join("certutil")).expect("a link");
    let databases = [at.join(".pki/nssdb"), at.join(".mozilla/firefox/x.default")];
    fs::create_dir_all(&databases[1]).expect("a profile");
    let certutil = |arguments: &[&str], database: &Path| {
        let database = format!("sql:{}", database.display());
        Command::new(&certutil).args(arguments).args(["-d", &database]).output().expect("it runs")
    };
    assert!(certutil(&["-N", "--empty-password"], &databases[1]).status.success());
    drop(serve(Runtime::Mio, &tree, at, &["--https"]));
    for _ in ["first", "again"] {
        let (code, stdout, stderr) = cert(at, &["install"], tools.path());
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        let lines: Vec<&str> = stdout.lines().collect();
        assert_eq!(lines.len(), 2, "{stdout}");
        for (line, database) in lines.iter().zip(&databases) {
            assert_eq!(*line, format!("Installed: NSS, by certutil in {}", database.display()));
            let listed = String::from_utf8(certutil(&["-L"], database).stdout).expect("text");
            let ours: Vec<&str> = listed.lines().filter(|line| line.starts_with("sanserve local CA ")).collect();
            assert!(ours.len() == 1 && ours[0].trim_end().ends_with("C,,"), "{listed}");
        }
    }
    let (code, stdout, _) = cert(at, &["remove"], tools.path());
    assert!(code == Some(0) && stdout.lines().filter(|line| line.starts_with("Removed: NSS")).count() == 2, "{stdout}");
    for database in &databases {
        assert!(!String::from_utf8_lossy(&certutil(&["-L"], database).stdout).contains("sanserve"));
    }
}

/// A tool that fails is reported, and the others are tried.
#[test]
fn a_tool_that_fails() {
    let (tree, home, tools) = (Tree::plain(), home(), tempfile::tempdir().expect("a temporary directory"));
    drop(serve(Runtime::Mio, &tree, home.path(), &["--https"]));
    let tool = tools.path().join("certutil");
    fs::write(&tool, "#!/bin/sh\necho >&2 'certutil: it is broken'\nexit 255\n").expect("a script");
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("executable");
    let (code, stdout, stderr) = cert(home.path(), &["install"], tools.path());
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(
        stderr.contains("nssdb: certutil failed: certutil: it is broken") && stderr.lines().count() == 1,
        "{stderr}"
    );
    // The key is deleted whatever the tools say.
    let (_, stdout, _) = cert(home.path(), &["remove"], tools.path());
    assert!(stdout.contains("Deleted "), "{stdout}");
    assert!(!kept(home.path()).join("ca.pem").exists());
}
