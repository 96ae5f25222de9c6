//! `--tls-cert`, `--tls-key` and `--tls-password-file`.

use std::fs;
use std::path::Path;
use std::process::Command;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustix::process::Signal;
use testkit::process::Process;
use testkit::server::program;
use testkit::{Runtime, Tree, eventually};

use crate::session::Session;
use crate::{banner, serve};

/// A certificate for these names, which is its own issuer, and its key, as PEM.
fn made(names: &[&str]) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("names");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// A directory with `cert.pem` and `key.pem`.
fn files(names: &[&str]) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (certificate, key) = made(names);
    fs::write(directory.path().join("cert.pem"), &certificate).expect("a file");
    fs::write(directory.path().join("key.pem"), key).expect("a file");
    (directory, certificate)
}

fn flag(name: &str, directory: &Path, file: &str) -> String {
    format!("--{name}={}", directory.join(file).display())
}

#[test]
fn a_certificate_and_its_key() {
    let tree = Tree::plain();
    let (directory, certificate) = files(&["localhost", "127.0.0.1"]);
    let at = directory.path();
    for runtime in Runtime::ALL {
        let flags = [flag("tls-cert", at, "cert.pem"), flag("tls-key", at, "key.pem"), "--hsts=1d".into()];
        let server = serve(runtime, &tree, at, &flags.each_ref().map(String::as_str));
        // Python's banner.
        let port = server.address().port();
        assert_eq!(banner(&server), format!("Serving HTTPS on 127.0.0.1 port {port} (https://127.0.0.1:{port}/) ..."));
        for name in ["localhost", "127.0.0.1"] {
            let mut session = Session::connect(server.address(), name, &certificate).expect("trusted");
            for path in ["/a.txt", "/b.txt", "/none"] {
                let (head, body) = session.get(path).expect("a response");
                let found = fs::read(tree.path(&path[1..]));
                assert_eq!(head.starts_with("HTTP/1.1 200 OK\r\n"), found.is_ok(), "{head}");
                if let Ok(found) = found {
                    assert_eq!(body, found);
                }
                assert!(head.contains("\r\nStrict-Transport-Security: max-age=86400\r\n"), "{head}");
            }
        }
        assert!(Session::connect(server.address(), "example.org", &certificate).is_err());
    }
}

/// Each problem is one line that names the file, with exit code 1, before anything listens.
#[test]
fn files_that_cannot_be_used() {
    let tree = Tree::new();
    let (directory, certificate) = files(&["localhost"]);
    let at = directory.path();
    let write = |name: &str, text: &str| fs::write(at.join(name), text).expect("a file");
    let (_, other_key) = made(&["localhost"]);
    write("other.pem", &other_key);
    write("empty.pem", "");
    write("half.pem", &certificate[..certificate.len() / 2]);
    write("wrong", "not the password\n");
    write("right", " open sesame\t\r\n");
    write("large.pem", &"\n".repeat((1 << 20) + 1));
    for (name, years) in [("old", (2020, 2021)), ("new", (2090, 2091))] {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
        let pem = params.self_signed(&key).expect("a certificate").pem();
        write(&format!("{name}.pem"), &format!("{pem}{}", key.serialize_pem()));
    }
    let mut cases = vec![
        ("none.pem", "key.pem", None, "cannot read {}/none.pem: No such file or directory"),
        ("cert.pem", "none.pem", None, "cannot read {}/none.pem: No such file or directory"),
        ("cert.pem", "key.pem", Some("none"), "cannot read {}/none: No such file or directory"),
        (".", "key.pem", None, "cannot read {}/.: Is a directory"),
        ("large.pem", "key.pem", None, "cannot read {}/large.pem: it is larger than 1 MiB"),
        ("empty.pem", "key.pem", None, "cannot use the certificate {}/empty.pem: there is no certificate in it"),
        (
            "half.pem",
            "key.pem",
            None,
            "cannot use the certificate {}/half.pem: the section CERTIFICATE is not valid PEM",
        ),
        ("cert.pem", "cert.pem", None, "cannot use the key {}/cert.pem: there is no private key in it"),
        (
            "cert.pem",
            "other.pem",
            None,
            "cannot use the certificate {}/cert.pem with the key {}/other.pem: the private key does not belong",
        ),
        (
            "old.pem",
            "old.pem",
            None,
            "cannot use the certificate {}/old.pem: the certificate expired at 2021-01-01T00:00:00Z; it is ",
        ),
        (
            "new.pem",
            "new.pem",
            None,
            "cannot use the certificate {}/new.pem: the certificate is not valid before 2090-01-01T00:00:00Z; it is ",
        ),
    ];
    let encrypt = [
        "pkcs8",
        "-topk8",
        "-v2",
        "aes-256-cbc",
        "-passout",
        "pass:open sesame",
        "-in",
        "key.pem",
        "-out",
        "locked.pem",
    ];
    if Command::new("openssl").args(encrypt).current_dir(at).output().is_ok() {
        cases.extend([
            ("cert.pem", "locked.pem", None, "cannot use the key {}/locked.pem: the private key is encrypted and needs a password (--tls-password-file)"),
            ("cert.pem", "locked.pem", Some("wrong"), "cannot use the key {}/locked.pem: the password of the private key is wrong"),
        ]);
        // White space around the password is not part of it.
        for runtime in Runtime::ALL {
            let flags = [
                flag("tls-cert", at, "cert.pem"),
                flag("tls-key", at, "locked.pem"),
                flag("tls-password-file", at, "right"),
            ];
            let server = serve(runtime, &tree, at, &flags.each_ref().map(String::as_str));
            Session::connect(server.address(), "localhost", &certificate).expect("trusted");
        }
    } else {
        assert!(std::env::var_os("CI").is_none(), "CI needs openssl");
        eprintln!("encrypted keys were not checked: openssl is not installed");
    }
    for (certificate, key, password, says) in cases {
        let mut flags = vec![flag("tls-cert", at, certificate), flag("tls-key", at, key)];
        flags.extend(password.map(|file| flag("tls-password-file", at, file)));
        let mut process = Process::start(Command::new(program()).args(["-b", "127.0.0.1", "0"]).args(&flags));
        let code = process.ended().code();
        let stderr = String::from_utf8(process.stderr.bytes()).expect("text");
        let says = format!("sanserve: {}", says.replace("{}", &at.display().to_string()));
        assert!(stderr.starts_with(&says) && stderr.lines().count() == 1, "{flags:?}: {stderr}");
        assert_eq!((code, process.stdout.bytes().as_slice()), (Some(1), &b""[..]), "{flags:?}");
    }
}

/// As with Python, they may be in the directory that is served, but that is rarely meant.
#[test]
fn a_key_that_is_served_is_warned_of() {
    let (directory, certificate) = files(&["localhost"]);
    let tree = Tree::plain();
    for file in ["cert.pem", "key.pem"] {
        fs::copy(directory.path().join(file), tree.path(file)).expect("a copy");
    }
    for (key, is_served) in [(tree.root(), true), (directory.path(), false)] {
        let flags = [flag("tls-cert", tree.root(), "cert.pem"), flag("tls-key", key, "key.pem")];
        let server = serve(Runtime::Mio, &tree, tree.root(), &flags.each_ref().map(String::as_str));
        Session::connect(server.address(), "localhost", &certificate).expect("trusted");
        let lines = server.process().stderr.so_far();
        let warnings: Vec<&String> = lines.iter().filter(|line| line.contains("warning")).collect();
        assert_eq!(warnings.len(), usize::from(is_served), "{lines:?}");
        for line in warnings {
            assert!(line.contains("key.pem is served: it is inside"), "{line}");
        }
    }
}

#[test]
fn usage_errors_are_pythons() {
    for (arguments, says) in [
        (&["--tls-key", "k"][..], "error: --tls-key requires --tls-cert to be set"),
        (&["--tls-password-file", "p"], "error: --tls-password-file requires --tls-cert to be set"),
        (&["--tls-cert"], "error: a value is required for '--tls-cert <PATH>'"),
        (&["--http-redirect", "0"], "error: --http-redirect requires --https or --tls-cert to be set"),
        (&["--hsts", "1"], "error: --hsts requires --https or --tls-cert to be set"),
    ] {
        let mut process = Process::start(Command::new(program()).args(arguments));
        assert_eq!(process.ended().code(), Some(2), "{arguments:?}");
        let stderr = String::from_utf8(process.stderr.bytes()).expect("text");
        assert!(stderr.starts_with("usage: sanserve "), "{stderr}");
        assert!(stderr.lines().last().is_some_and(|line| line.contains(says)), "{arguments:?}: {stderr}");
    }
}

/// A client gets the certificate for the name that it asks for (SNI), whichever key is where.
#[test]
fn several_certificates() {
    let tree = Tree::plain();
    let (one, one_certificate) = files(&["one.example"]);
    let (other, other_certificate) = files(&["*.other.example"]);
    for runtime in Runtime::ALL {
        let flags = [
            flag("tls-cert", one.path(), "cert.pem"),
            flag("tls-key", one.path(), "key.pem"),
            flag("tls-cert", other.path(), "cert.pem"),
            flag("tls-key", other.path(), "key.pem"),
        ];
        let server = serve(runtime, &tree, one.path(), &flags.each_ref().map(String::as_str));
        for (name, certificate) in [("one.example", &one_certificate), ("x.other.example", &other_certificate)] {
            Session::connect(server.address(), name, certificate).expect("trusted").get("/a.txt").expect("a response");
        }
        assert!(Session::connect(server.address(), "x.other.example", &one_certificate).is_err());
    }
}

/// A recording has the plaintext, no key, and what its replay needs to know of the flags.
#[test]
fn a_recording_replays_the_same() {
    let tree = Tree::plain();
    let (directory, certificate) = files(&["localhost"]);
    let at = directory.path();
    for runtime in Runtime::ALL {
        let recordings = tempfile::tempdir().expect("a temporary directory");
        let record = format!("--record={}", recordings.path().display());
        let flags = [flag("tls-cert", at, "cert.pem"), flag("tls-key", at, "key.pem"), "--hsts=60".into(), record];
        let mut server = serve(runtime, &tree, at, &flags.each_ref().map(String::as_str));
        let mut session = Session::connect(server.address(), "localhost", &certificate).expect("trusted");
        session.get("/a.txt").expect("a response");
        drop(session);
        server.process().signal(Signal::TERM);
        assert_eq!(server.process_mut().ended().code(), Some(0));
        let recorded = fs::read_dir(recordings.path()).expect("a directory").map(|entry| entry.expect("one").path());
        let recorded: Vec<_> = recorded.filter(|path| path.extension().is_some_and(|it| it == "txt")).collect();
        assert_eq!(recorded.len(), 1, "{recorded:?}");
        let text = fs::read_to_string(&recorded[0]).expect("text");
        assert!(text.contains("max-age=60") && text.contains("GET /a.txt HTTP/1.1"), "{text}");
        let mut replay = Process::start(Command::new(program()).arg("replay").arg(&recorded[0]));
        let code = replay.ended().code();
        assert_eq!(code, Some(0), "{}\n{text}", String::from_utf8_lossy(&replay.stdout.bytes()));
    }
}

/// SIGHUP loads the files again. Open connections stay, and a pair that cannot be used keeps what it was.
#[test]
fn a_reload() {
    let tree = Tree::plain();
    for runtime in Runtime::ALL {
        let (directory, old) = files(&["localhost"]);
        let at = directory.path();
        let flags = [flag("tls-cert", at, "cert.pem"), flag("tls-key", at, "key.pem")];
        let server = serve(runtime, &tree, at, &flags.each_ref().map(String::as_str));
        let mut open = Session::connect(server.address(), "localhost", &old).expect("trusted");
        open.get("/a.txt").expect("a response");

        // A certificate whose key has not been replaced yet.
        let (new, new_key) = made(&["localhost"]);
        fs::write(at.join("cert.pem"), &new).expect("a file");
        server.process().signal(Signal::HUP);
        let line = server.process().stderr.line("the problem", |line| line.contains("the one in use is kept"));
        assert!(line.contains("the private key does not belong to the first certificate"), "{line}");
        Session::connect(server.address(), "localhost", &old).expect("the old one is in use");

        fs::write(at.join("key.pem"), new_key).expect("a file");
        server.process().signal(Signal::HUP);
        eventually("the new one is in use", || Session::connect(server.address(), "localhost", &new).is_ok());
        assert!(Session::connect(server.address(), "localhost", &old).is_err());
        let (head, _) = open.get("/a.txt").expect("the connection is still open");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    }
}
