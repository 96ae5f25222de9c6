//! The clients that people use, on each runtime: with the exported CA they accept the server, and without it they do not.
//!
//! A client that is not installed is skipped with a note; in CI, the ones that `.ci/provision` installs have to be there.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;

use testkit::{Runtime, Server, TIMEOUT, Tree};

use crate::serve;

/// A program on `PATH`. `None`, with a note: it is not installed. In CI this panics.
pub(crate) fn find(program: &str, package: &str) -> Option<PathBuf> {
    let found = find_optional(program);
    assert!(
        found.is_some() || std::env::var_os("CI").is_none(),
        "CI needs {program}; on Debian: apt-get install {package}"
    );
    found
}

/// Like [`find`], for a program that CI need not have.
fn find_optional(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).map(|path| path.join(program)).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("{program} was not checked: it is not installed");
    }
    found
}

/// A server with a local CA, and the file of its certificate.
struct Served {
    server: Server,
    ca: PathBuf,
    home: tempfile::TempDir,
}

impl Served {
    fn start(runtime: Runtime, tree: &Tree, flags: &[&str]) -> Served {
        let home = tempfile::tempdir().expect("a temporary directory");
        let server = serve(runtime, tree, home.path(), &[&["--https"], flags].concat());
        let ca = home.path().join(".local/share/sanserve/ca.crt");
        assert!(ca.is_file());
        Served { server, ca, home }
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.server.address().port())
    }

    fn ca(&self) -> &str {
        self.ca.to_str().expect("text")
    }
}

/// Runs a program to its end, which must come in time.
#[track_caller]
fn run(command: &mut Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    // It may end without having read its input.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let (pid, (done, ended)) = (rustix::process::Pid::from_child(&child), mpsc::channel());
    thread::spawn(move || done.send(child.wait_with_output()));
    match ended.recv_timeout(TIMEOUT) {
        Ok(output) => output.expect("it can be waited for"),
        Err(_) => {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            panic!("{command:?} is still running after {TIMEOUT:?}")
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A program that prints the body of a URL: it succeeds with the CA, and fails without it.
fn check(what: &str, command: impl Fn(&Served, bool) -> Command) {
    let tree = Tree::plain();
    let expected = fs::read(tree.path("a.txt")).expect("a file");
    for runtime in Runtime::ALL {
        let served = Served::start(runtime, &tree, &[]);
        let trusting = run(&mut command(&served, true), "");
        assert!(trusting.status.success(), "{what}, {}: {}", runtime.name(), text(&trusting.stderr));
        assert_eq!(text(&trusting.stdout), text(&expected), "{what}, {}", runtime.name());
        let other = run(&mut command(&served, false), "");
        assert!(!other.status.success(), "{what}, {}: {}", runtime.name(), text(&other.stdout));
    }
}

#[test]
fn curl() {
    let Some(curl) = find("curl", "curl") else { return };
    check("curl", |served, is_trusting| {
        let mut command = Command::new(&curl);
        command.args(["-sS", "--fail", "--noproxy", "*"]).arg(served.url("/a.txt"));
        if is_trusting {
            command.args(["--cacert", served.ca()]);
        }
        command
    });
}

#[test]
fn python() {
    let Some(python) = find("python3", "python3") else { return };
    const SCRIPT: &str = "import ssl, sys, urllib.request\n\
        context = ssl.create_default_context(cafile=sys.argv[2] or None)\n\
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))\n\
        sys.stdout.buffer.write(opener.open(sys.argv[1]).read())\n";
    check("Python", |served, is_trusting| {
        let mut command = Command::new(&python);
        command.args(["-c", SCRIPT, &served.url("/a.txt"), if is_trusting { served.ca() } else { "" }]);
        command
    });
}

#[test]
fn node() {
    let Some(node) = find_optional("node") else { return };
    const SCRIPT: &str = "require('https').get(process.argv[1], r => r.pipe(process.stdout))\
        .on('error', e => { console.error(e.message); process.exit(1) })";
    check("Node", |served, is_trusting| {
        let mut command = Command::new(&node);
        command.args(["-e", SCRIPT, &served.url("/a.txt")]);
        if is_trusting {
            command.env("NODE_EXTRA_CA_CERTS", &served.ca);
        }
        command
    });
}

#[test]
fn java() {
    let (Some(java), Some(keytool)) = (find_optional("java"), find_optional("keytool")) else { return };
    const PROGRAM: &str = "public class Get { public static void main(String[] a) throws Exception {\n\
        try (var in = new java.net.URL(a[0]).openStream()) { in.transferTo(System.out); } System.out.flush(); } }\n";
    // A program in one file needs a compiler, which not every Java has.
    let place = tempfile::tempdir().expect("a temporary directory");
    let program = place.path().join("Get.java");
    fs::write(&program, PROGRAM).expect("a file");
    let compiled = Command::new("javac").arg(&program).current_dir(place.path()).output();
    if !compiled.is_ok_and(|output| output.status.success()) {
        eprintln!("Java was not checked: javac is not installed");
        return;
    }
    check("Java", |served, is_trusting| {
        let mut command = Command::new(&java);
        let store = served.home.path().join("trust.jks");
        if is_trusting {
            let import =
                ["-importcert", "-noprompt", "-alias", "sanserve", "-storepass", "changeit", "-file", served.ca()];
            let imported = Command::new(&keytool).args(import).arg("-keystore").arg(&store).output().expect("it runs");
            assert!(imported.status.success(), "{}", text(&imported.stdout));
            command.arg(format!("-Djavax.net.ssl.trustStore={}", store.display()));
            command.arg("-Djavax.net.ssl.trustStorePassword=changeit");
        }
        command.arg("-cp").arg(place.path()).args(["Get", &served.url("/a.txt")]);
        command
    });
}

#[test]
fn git_clones() {
    let Some(git) = find("git", "git") else { return };
    let tree = Tree::new();
    let git = |directory: &Path, arguments: &[&str]| {
        let mut command = Command::new(&git);
        command.args(["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main"]);
        command.args(arguments).current_dir(directory).env("GIT_CONFIG_NOSYSTEM", "1").env("NO_PROXY", "*");
        command
    };
    let done = |command: &mut Command| {
        let output = run(command, "");
        assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    };
    let source = tempfile::tempdir().expect("a temporary directory");
    fs::write(source.path().join("file"), "content\n").expect("a file");
    done(&mut git(source.path(), &["init", "-q"]));
    done(&mut git(source.path(), &["add", "file"]));
    done(&mut git(source.path(), &["commit", "-q", "-m", "x"]));
    let source = source.path().to_str().expect("text");
    done(&mut git(tree.root(), &["clone", "-q", "--bare", source, "repository.git"]));
    done(&mut git(&tree.path("repository.git"), &["update-server-info"]));
    for runtime in Runtime::ALL {
        let served = Served::start(runtime, &tree, &[]);
        let url = served.url("/repository.git");
        done(git(served.home.path(), &["clone", "-q", &url, "copy"]).env("GIT_SSL_CAINFO", &served.ca));
        assert_eq!(fs::read_to_string(served.home.path().join("copy/file")).expect("a file"), "content\n");
        let output = run(&mut git(served.home.path(), &["clone", "-q", &url, "other"]), "");
        assert!(!output.status.success() && text(&output.stderr).contains("certificate"), "{}", text(&output.stderr));
    }
}

/// apt fetches the lists of a repository.
#[test]
fn apt() {
    let (Some(apt), Some(sha256sum)) = (find_optional("apt-get"), find_optional("sha256sum")) else { return };
    let tree = Tree::new();
    tree.file("Packages", "Package: x\nVersion: 1\nArchitecture: all\nFilename: ./x.deb\nSize: 1\n");
    let sum = text(&run(Command::new(sha256sum).arg(tree.path("Packages")), "").stdout);
    let size = fs::metadata(tree.path("Packages")).expect("a file").len();
    let sum = sum.split(' ').next().expect("a digest");
    tree.file("Release", format!("Date: Sat, 28 Nov 2026 00:00:00 UTC\nSHA256:\n {sum} {size} Packages\n"));
    for runtime in Runtime::ALL {
        let served = Served::start(runtime, &tree, &[]);
        let at = |name: &str| served.home.path().join(name).display().to_string();
        for name in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(at(name)).expect("a directory");
        }
        fs::write(at("sources.list"), format!("deb [trusted=yes] {} ./\n", served.url("/"))).expect("a file");
        let update = |ca: &str| {
            let mut command = Command::new(&apt);
            for option in [
                format!("Dir::Etc::sourcelist={}", at("sources.list")),
                "Dir::Etc::sourceparts=-".to_owned(),
                format!("Dir::State::lists={}", at("lists")),
                format!("Dir::Cache={}", at("cache")),
                format!("Acquire::https::CaInfo={ca}"),
                "Acquire::https::Proxy=DIRECT".to_owned(),
                "Acquire::Retries=0".to_owned(),
                "APT::Sandbox::User=root".to_owned(),
                "APT::Update::Error-Mode=any".to_owned(),
            ] {
                command.args(["-o", &option]);
            }
            let output = run(command.arg("update"), "");
            (output.status.success(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
        };
        let (is_good, said) = update("/etc/ssl/certs/ca-certificates.crt");
        assert!(!is_good && said.to_lowercase().contains("certificate"), "{said}");
        let (is_good, said) = update(served.ca());
        assert!(is_good && said.contains("Packages"), "{}: {said}", runtime.name());
    }
}

/// With the CA in its database, as `sanserve cert install` puts it there, Chromium shows the page. Without, it does not.
#[test]
fn chromium() {
    let Some(chromium) = find("chromium", "chromium") else { return };
    if find("certutil", "libnss3-tools").is_none() {
        return;
    }
    let tree = Tree::new();
    // The page is only complete in a secure context, as cameras and service workers need.
    tree.file(
        "page.html",
        "<!DOCTYPE html><p id=p>not yet</p><script>p.textContent = 'secure ' + isSecureContext</script>",
    );
    for runtime in Runtime::ALL {
        let served = Served::start(runtime, &tree, &[]);
        let show = || {
            let profile = tempfile::tempdir().expect("a temporary directory");
            let mut command = Command::new(&chromium);
            command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
            command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
            command.arg("--no-proxy-server").arg(format!("--user-data-dir={}", profile.path().display()));
            command.arg("--dump-dom").arg(served.url("/page.html")).env("HOME", served.home.path());
            text(&run(&mut command, "").stdout)
        };
        let shown = show();
        assert!(!shown.contains("secure true"), "{shown}");
        let mut install = Command::new(testkit::server::program());
        install.args(["cert", "install"]).env("HOME", served.home.path()).env_remove("XDG_DATA_HOME");
        // Only for browsers, and not for the system.
        let tools = tempfile::tempdir().expect("a temporary directory");
        let certutil = find("certutil", "libnss3-tools").expect("it was there before");
        std::os::unix::fs::symlink(certutil, tools.path().join("certutil")).expect("a link");
        let installed = run(install.env("PATH", tools.path()), "");
        assert!(installed.status.success(), "{}", text(&installed.stderr));
        let shown = show();
        assert!(shown.contains("secure true"), "{}: {shown}", runtime.name());
    }
}

/// What `openssl s_client` prints for a connection with these arguments, and whether it has succeeded.
fn s_client(served: &Served, arguments: &[&str], input: &str) -> (bool, String) {
    let address = served.server.address().to_string();
    let mut command = Command::new("openssl");
    command
        .args(["s_client", "-connect", &address, "-servername", "localhost", "-CAfile", served.ca()])
        .args(arguments);
    let output = run(&mut command, input);
    (output.status.success(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
}

const REQUEST: &str = "GET /a.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

#[test]
fn openssl() {
    if find("openssl", "openssl").is_none() {
        return;
    }
    let tree = Tree::plain();
    for runtime in Runtime::ALL {
        let served = Served::start(runtime, &tree, &[]);
        let verified = ["-verify_return_error", "-verify_hostname", "localhost", "-alpn", "h2,http/1.1", "-ign_eof"];
        for (version, name) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
            let (is_good, said) = s_client(&served, &[&verified[..], &[version]].concat(), REQUEST);
            assert!(is_good && said.contains("Verify return code: 0 (ok)"), "{said}");
            for says in ["HTTP/1.1 200 OK", "ALPN protocol: http/1.1", "Server Temp Key: ", name] {
                assert!(said.contains(says), "{version}, {says}: {said}");
            }
            assert!(said.contains("Compression: NONE") && !said.contains("heartbeat"), "{said}");
        }
        // Each cipher of TLS 1.2 that is offered has forward secrecy and authenticated encryption.
        for cipher in
            ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"]
        {
            let (is_good, said) = s_client(&served, &["-tls1_2", "-cipher", cipher, "-ign_eof"], REQUEST);
            assert!(is_good && said.contains(&format!("Cipher is {cipher}")), "{cipher}: {said}");
        }
    }
}

#[test]
fn old_and_weak_protocols_are_refused() {
    if find("openssl", "openssl").is_none() {
        return;
    }
    let tree = Tree::plain();
    for runtime in Runtime::ALL {
        let served = Served::start(runtime, &tree, &[]);
        for arguments in [
            &["-tls1", "-cipher", "ALL:@SECLEVEL=0"][..],
            &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
            // Without authenticated encryption, without forward secrecy, without encryption, without authentication.
            &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA:@SECLEVEL=0"],
            &["-tls1_2", "-cipher", "kRSA:@SECLEVEL=0"],
            &["-tls1_2", "-cipher", "NULL:@SECLEVEL=0"],
            &["-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"],
            &["-tls1_2", "-cipher", "PSK:SRP:@SECLEVEL=0"],
            &["-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256"],
            // Another application protocol, and not HTTP/1.1.
            &["-alpn", "h2"],
        ] {
            let (is_good, said) = s_client(&served, arguments, REQUEST);
            let is_refused = said.contains("alert protocol version")
                || said.contains("alert handshake failure")
                || said.contains("alert no application protocol")
                || said.contains("no ciphers available")
                || said.contains("no protocols available");
            assert!(!is_good && is_refused && !said.contains("HTTP/1.1 200"), "{arguments:?}: {said}");
        }
        // And the next client is served.
        assert!(s_client(&served, &["-ign_eof"], REQUEST).1.contains("HTTP/1.1 200 OK"));
    }
}

/// Line `R` makes `s_client` renegotiate. The server refuses, and is there for others.
#[test]
fn renegotiation_is_refused() {
    if find("openssl", "openssl").is_none() {
        return;
    }
    let tree = Tree::plain();
    for runtime in Runtime::ALL {
        let served = Served::start(runtime, &tree, &[]);
        let (is_good, said) = s_client(&served, &["-tls1_2"], "R\n");
        assert!(said.contains("RENEGOTIATING") && said.contains("Secure Renegotiation IS supported"), "{said}");
        assert!(!is_good && said.contains("no renegotiation"), "{said}");
        assert!(s_client(&served, &["-ign_eof"], REQUEST).1.contains("HTTP/1.1 200 OK"));
    }
}
