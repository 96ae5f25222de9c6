//! `sanserve explain` agrees with the server: its head is compared with that of a server, over a real socket, and the
//! rules that it names with the expected ones.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use testkit::process::Process;
use testkit::response::mask_dates;
use testkit::server::program;
use testkit::{Runtime, Server, Tree};

/// The entity tag of `a.txt`, and the date of every file.
const TAG: &str = "\"2ebc98a1-0-6\"";
const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

struct Ended {
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

impl Ended {
    /// The report, and the head of the response after it.
    #[track_caller]
    fn parts(&self) -> (&str, String) {
        let text = std::str::from_utf8(&self.stdout).expect("a report is text");
        let (report, head) = text.rsplit_once("\n\n").unwrap_or_else(|| panic!("a report and a head: {text}"));
        (report, head.replace('\n', "\r\n") + "\r\n")
    }
}

fn explain<A: AsRef<OsStr>>(arguments: &[A]) -> Ended {
    let mut process = Process::start(Command::new(program()).arg("explain").args(arguments));
    let code = process.ended().code();
    let stderr = String::from_utf8(process.stderr.bytes()).expect("text");
    Ended { code, stdout: process.stdout.bytes(), stderr }
}

/// The request, its fields, its body, and the rules that the report must name.
type Case = (&'static str, Vec<String>, &'static str, &'static [&'static str]);

fn tree() -> Tree {
    let tree = Tree::plain();
    tree.file("b c.html", "<p>\n").file("x.tar.gz", "gz").file("code.js", "1").file("none", "").file(".dot", "dot\n");
    tree.folder("indexed").file("indexed/index.htm", "<p>index</p>\n").folder("listed").file("listed/<b>.txt", "");
    tree.link("link", "a.txt").file(b"\xff.bin", "x");
    tree.folder("cgi-bin").file("cgi-bin/text", "no script\n").file("cgi-bin/run", "#!/bin/sh\nexit 9\n");
    fs::set_permissions(tree.path("cgi-bin/run"), fs::Permissions::from_mode(0o755))
        .expect("permissions can be changed");
    for name in ["b c.html", "x.tar.gz", "code.js", "none", ".dot", "indexed/index.htm"] {
        tree.stamp(name, testkit::tree::STAMP);
    }
    tree
}

fn with(request: &'static str, field: impl Into<String>, rules: &'static [&'static str]) -> Case {
    (request, vec![field.into()], "", rules)
}

fn alone(request: &'static str, rules: &'static [&'static str]) -> Case {
    (request, Vec::new(), "", rules)
}

/// Flags of servers, and the cases for each.
fn cases() -> Vec<(&'static [&'static str], Vec<Case>)> {
    let usual = vec![
        alone("/a.txt", &["origin-form", "file", "entity-tag", "last-modified", "extension", "charset", "stays-open"]),
        alone("GET /a.txt HTTP/1.1", &["version", "host", "no-body", "content-length"]),
        alone("HEAD /a.txt", &["head-alone"]),
        alone("GET /a.txt HTTP/1.0", &["version-old", "host-optional", "close-of-1.0", "closes"]),
        alone("GET /a/../b%20c.html?q HTTP/1.1", &["query", "percent-decoding", "dot-segments", "path"]),
        alone("/../../a.txt", &["clamped"]),
        alone("//folder//inner.txt", &["leading-slashes", "double-slashes"]),
        alone("/folder", &["slash-redirect", "open", "empty"]),
        alone("/folder?q=<b>", &["slash-redirect", "query"]),
        alone("/indexed/", &["index-tried", "index-chosen", "open-in", "trailing-slash"]),
        alone("/listed/", &["listing", "list", "page"]),
        alone("/a.txt/", &["file-with-slash"]),
        alone("/nothing", &["not-found"]),
        alone("/%00", &["NulInPath"]),
        alone("/%ff.bin", &["percent-decoding"]),
        alone("/%zz", &["bad-escape"]),
        alone("/x.tar.gz", &["compressed"]),
        alone("/code.js", &["extension-of-python"]),
        alone("/none", &["extension-missing"]),
        alone("http://other/a.txt", &["absolute-form", "host-of-target"]),
        alone("OPTIONS *", &["asterisk-form", "method-options", "allow"]),
        alone("PUT /a.txt", &["UnsupportedMethod", "allow"]),
        alone("GET *", &["MalformedTarget", "close-of-violation"]),
        alone("a.txt", &["MalformedTarget"]),
        alone("GET /a b", &["MalformedLine"]),
        alone("GET /a.txt HTTP/2.0", &["UnsupportedVersion"]),
        with("/a.txt", "Range: bytes=1-3", &["range"]),
        with("/a.txt", "Range: bytes=0-0,4-", &["ranges"]),
        with("/a.txt", "Range: bytes=100-", &["range-beyond", "range-unsatisfiable"]),
        with("/a.txt", "Range: lines=1-", &["range-unit"]),
        with("HEAD /a.txt", "Range: bytes=1-3", &["range-without-get"]),
        ("/a.txt", vec!["Range: bytes=1-3".into(), "If-Range: \"x\"".into()], "", &["if-range-other-tag"]),
        ("/a.txt", vec!["Range: bytes=1-3".into(), format!("If-Range: {TAG}")], "", &["if-range-tag", "range"]),
        with("/a.txt", format!("If-None-Match: {TAG}"), &["if-none-match-false", "no-content"]),
        with("/a.txt", "If-Match: \"x\"", &["if-match-false"]),
        with("/a.txt", format!("If-Modified-Since: {DATE}"), &["if-modified-since-false"]),
        with("/a.txt", "If-Modified-Since: yesterday", &["if-modified-since-invalid"]),
        with("/nothing", "If-None-Match: *", &["conditions-ignored"]),
        with("/a.txt", "Connection: close", &["close-asked", "closes"]),
        with("/a.txt", "Host: a b", &["HostMalformed"]),
        with("/a.txt", "no colon", &["MalformedField"]),
        with("/a.txt", " folded: x", &["ObsFold"]),
        with("/a.txt", "Expect: magic", &["UnknownExpectation"]),
        with("POST /a.txt", "Content-Length: 1073741825", &["BodyTooLarge"]),
        ("/a.txt", vec!["Content-Length: 5".into()], ".....", &["body-length", "body-dropped", "body-made-up"]),
        ("/a.txt", vec!["Transfer-Encoding: chunked".into()], "0\r\n\r\n", &["body-chunked", "body-dropped"]),
    ];
    let scripts = vec![
        alone("/cgi-bin/nothing", &["script-path", "find", "script-refused"]),
        alone("/cgi-bin/text", &["script-refused"]),
        alone("POST /a.txt", &["PostToFile", "no-script"]),
        alone("/a.txt", &["no-script", "file"]),
    ];
    vec![
        (&[], usual),
        (&["-p", "HTTP/1.0"], vec![alone("/a.txt", &["close-of-protocol", "closes"])]),
        (&["--hide-dotfiles"], vec![alone("/.dot", &["hidden-dotfile"]), alone("/listed/", &["listing"])]),
        (&["--symlinks", "never"], vec![alone("/link", &["symlinks-refuse", "not-found"]), alone("/a.txt", &["file"])]),
        (&["--cgi"], scripts),
        (
            &["--header-always=X-A: b", "--cache=60", "--cors", "--isolate", "--nosniff", "--redirect=/old=/a.txt"],
            vec![
                alone("/a.txt", &["header-always", "cache", "cors", "isolate", "nosniff", "file"]),
                alone("/nothing", &["header-always", "cors", "not-found"]),
                alone("/old?q", &["redirect", "header-always"]),
                (
                    "OPTIONS /old",
                    vec!["Origin: http://o".into(), "Access-Control-Request-Method: GET".into()],
                    "",
                    &["cors-preflight", "cors"],
                ),
            ],
        ),
        (
            &[
                "--route-prefix=/b",
                "--clean-urls",
                "--spa=a.txt",
                "--error-page=404=code.js",
                "--no-listing",
                "--index=x",
            ],
            vec![
                alone("/b/a.txt", &["route-prefix", "file"]),
                alone("/a.txt", &["outside-prefix", "error-page"]),
                alone("/b/b%20c", &["clean-url"]),
                alone("/b/b%20c.html", &["clean-url-redirect"]),
                with("/b/route", "Accept: text/html", &["spa"]),
                alone("/b/route", &["spa-unasked", "error-page"]),
                alone("/b/listed/", &["index-tried", "listing-off", "error-page"]),
            ],
        ),
        (
            &["--health", "/a.txt"],
            vec![alone("/a.txt", &["health", "content-length"]), alone("OPTIONS /a.txt", &["health", "allow"])],
        ),
    ]
}

/// The bytes of a request, formatted independently of `explain`.
fn wire((request, fields, body, _): &Case) -> Vec<u8> {
    let line = match (request.contains(' '), request.contains(" HTTP/")) {
        (false, _) => format!("GET {request} HTTP/1.1"),
        (true, false) => format!("{request} HTTP/1.1"),
        (true, true) => (*request).to_owned(),
    };
    let host = if fields.iter().any(|field| field.starts_with("Host:")) || line.ends_with("HTTP/1.0") {
        ""
    } else {
        "Host: localhost\r\n"
    };
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("{line}\r\n{fields}{host}\r\n{body}").into_bytes()
}

#[test]
fn the_head_is_that_of_the_server() {
    let tree = tree();
    let directory = tree.root().to_str().expect("a temporary path is text");
    let mut compared = 0;
    for (flags, cases) in cases() {
        let servers = Runtime::ALL.map(|runtime| Server::with(runtime, tree.root(), flags));
        for case in cases {
            let mut arguments = vec![case.0, "-d", directory];
            case.1.iter().for_each(|field| arguments.extend(["-H", field]));
            arguments.extend(flags);
            let ended = explain(&arguments);
            assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{arguments:?}");
            let (report, head) = ended.parts();
            for rule in case.3 {
                let is_named = report.lines().any(|line| line.split_whitespace().next() == Some(rule));
                assert!(is_named, "{rule} for {arguments:?} in\n{report}");
            }
            let head = String::from_utf8(mask_dates(head.as_bytes())).expect("text");
            for server in &servers {
                let mut client = server.connect();
                client.send(wire(&case));
                let sent = String::from_utf8(mask_dates(&client.head().raw)).expect("text");
                assert_eq!(head, sent, "{arguments:?}\n{report}");
            }
            compared += 1;
        }
    }
    assert!(compared >= 40, "{compared}");
}

/// A script is found, and its environment is shown, but it is not run.
#[test]
fn scripts_are_not_run() {
    let tree = tree();
    let marker = tree.path("marker");
    tree.file("cgi-bin/touch", format!("#!/bin/sh\ntouch '{}'\n", marker.display()));
    fs::set_permissions(tree.path("cgi-bin/touch"), fs::Permissions::from_mode(0o755))
        .expect("permissions can be changed");
    let directory = tree.root().to_str().expect("a temporary path is text");
    for (request, field) in [
        ("GET /cgi-bin/touch/more%20path?two+words", "X-One: 1"),
        ("POST /cgi-bin/touch", "Content-Length: 5"),
        ("POST /cgi-bin/touch", "Transfer-Encoding: chunked"),
    ] {
        let ended = explain(&[request, "-H", field, "-d", directory, "--cgi"]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{request}");
        let text = String::from_utf8(ended.stdout).expect("text");
        assert!(text.ends_with("(the script would write the response)\n"), "{text}");
        assert!(text.contains("script-path") && text.contains("is executable"), "{text}");
        if field == "X-One: 1" {
            let translated = format!("PATH_TRANSLATED={directory}/more path");
            for told in ["HTTP_X_ONE=1", "PATH_INFO=/more path", "SCRIPT_NAME=/cgi-bin/touch", "argument", &translated]
            {
                assert!(text.contains(told), "{told} in {text}");
            }
        }
    }
    assert!(!marker.exists());
}

/// Whatever the command line contains, there is no panic, no second line, and no control character on a terminal.
#[test]
fn hostile_words() {
    let tree = tree();
    tree.folder(b"\x1b[31mred");
    let directory = tree.root().as_os_str();
    let bytes = OsStr::from_bytes;
    for (request, field, rule) in [
        (&b"/\x1b[31mred"[..], &b"X: y"[..], "MalformedLine"),
        (b"/%1b[31mred", b"X: y", "slash-redirect"),
        (b"GET /a.txt\x7f HTTP/1.1", b"X: y", "MalformedLine"),
        (b"/\xff\xfe", b"X: \xff", "not-found"),
        (b"/a.txt", b"X: \x1b]0;title\x07", "MalformedValue"),
        (b"/a.txt", b"\x9b31m: y", "MalformedField"),
        (b"\t", b"X: y", "MalformedLine"),
        (b" ", b"X: y", "MalformedLine"),
        (b"GET  HTTP/1.1", b"X: y", "MalformedLine"),
        (b"/a.txt", b": y", "MalformedField"),
        (b"/a.txt", b"Content-Length: 99999999999999999999", "MalformedLength"),
    ] {
        let shown = request.escape_ascii();
        let ended = explain(&[bytes(request), bytes(b"-H"), bytes(field), bytes(b"-d"), directory]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{shown}");
        let (report, _) = ended.parts();
        assert!(report.contains(rule), "{rule} for {shown} in\n{report}");
        let control = ended.stdout.iter().find(|byte| byte.is_ascii_control() && **byte != b'\n');
        assert_eq!(control, None, "{shown}");
    }
    // Text of more than one line is not a request.
    for (request, field) in [
        ("/a.txt HTTP/1.1\r\nX: y", "X: y"),
        ("/a.txt\n", "X: y"),
        ("", "X: y"),
        ("/a.txt", "X: y\r\n\r\nGET /b.html HTTP/1.1"),
        ("/a.txt", "X: y\rZ: z"),
        ("/a.txt", ""),
    ] {
        let ended = explain(&[OsStr::new(request), "-H".as_ref(), field.as_ref(), "-d".as_ref(), directory]);
        assert_eq!((ended.code, ended.stdout.len()), (Some(2), 0), "{request:?} {field:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
}

/// A head of any size is explained within the limits of the server.
#[test]
fn long_heads() {
    let tree = tree();
    let directory = tree.root().to_str().expect("a temporary path is text");
    let (target, field) = (format!("/{}", "a".repeat(65_536)), format!("X: {}", "b".repeat(60_000)));
    for (arguments, rule) in [
        (vec![target.as_str()], "LineTooLong"),
        (vec!["/a.txt", "-H", &field], "file"),
        (vec!["/a.txt", "-H", &field, "-H", &field, "-H", &field], "HeadTooLarge"),
        ([vec!["/a.txt"], ["-H", "X: y"].repeat(100)].concat(), "TooManyFields"),
    ] {
        let ended = explain(&[&arguments[..], &["-d", directory]].concat());
        assert_eq!(ended.code, Some(0), "{rule}: {}", ended.stderr);
        assert!(ended.parts().0.lines().any(|line| line.split_whitespace().next() == Some(rule)), "{rule}");
    }
}

/// The first line is the verdict.
#[test]
fn it_begins_with_the_verdict() {
    let tree = tree();
    tree.link("dangling", "nowhere").link("loop", "loop").link("out", "/").folder("closed").file("locked", "x");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        tree.path("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .expect("a FIFO");
    let _socket = std::os::unix::net::UnixListener::bind(tree.path("socket")).expect("a socket");
    fs::set_permissions(tree.path("closed"), fs::Permissions::from_mode(0o300)).expect("permissions can be changed");
    fs::set_permissions(tree.path("locked"), fs::Permissions::from_mode(0o000)).expect("permissions can be changed");
    tree.link("to-fifo", "fifo");
    let long = format!("/{}", "a".repeat(5_000));
    let directory = tree.root().to_str().expect("a temporary path is text");
    let mut cases: Vec<(&[&str], &str)> = vec![
        (&["GET /a.txt"], "GET /a.txt -> 200, file a.txt, 6 bytes"),
        (&["/a.txt"], "GET /a.txt -> 200, file a.txt, 6 bytes"),
        (&["HEAD /a.txt"], "HEAD /a.txt -> 200, file a.txt, no body, 6 bytes for GET"),
        (&["/a.txt", "-H", "Range: bytes=1-2"], "GET /a.txt -> 206, part of file a.txt, bytes 1-2/6, 2 bytes"),
        (&["/a.txt", "-H", "If-None-Match: *"], "GET /a.txt -> 304, file a.txt has not changed"),
        (&["/a.txt", "-H", "Range: bytes=9-"], "GET /a.txt -> 416, "),
        (&["/indexed/"], "GET /indexed/ -> 200, file indexed/index.htm, "),
        (&["/listed/"], "GET /listed/ -> 200, listing of directory listed, "),
        (&["/listed"], "GET /listed -> 301, to /listed/"),
        (&["OPTIONS /a.txt"], "OPTIONS /a.txt -> 204, allows GET, HEAD, OPTIONS"),
        (&["PUT /a.txt"], "PUT /a.txt -> 501, UnsupportedMethod: "),
        (&["/%00"], "GET /%00 -> 400, NulInPath: "),
        (&["/nothing"], "GET /nothing -> 404, nothing does not exist"),
        (&["/nothing/x"], "GET /nothing/x -> 404, nothing does not exist"),
        (&["/a.txt/"], "GET /a.txt/ -> 404, file a.txt is not a directory, "),
        (&["/a.txt/x"], "GET /a.txt/x -> 404, a.txt/x is below something that is not a directory"),
        (&["/fifo"], "GET /fifo -> 404, fifo is a FIFO, which is never served"),
        (&["/to-fifo"], "GET /to-fifo -> 404, to-fifo is a FIFO, which is never served"),
        (&["/socket"], "GET /socket -> 404, socket is a socket, which is never served"),
        (&["/dangling"], "GET /dangling -> 404, dangling is a symbolic link to nowhere, which does not exist"),
        (&["/dangling/x"], "GET /dangling/x -> 404, dangling is a symbolic link to nowhere, which does not exist"),
        (&["/loop"], "GET /loop -> 404, loop is a symbolic link to loop, which leads into a loop"),
        (
            &["/link", "--symlinks=never"],
            "GET /link -> 404, link is a symbolic link to a.txt, and symbolic links are not ",
        ),
        (&["/out", "--symlinks=inside"], "GET /out -> 404, out is a symbolic link to /, which leads out of "),
        (&["/.dot", "--hide-dotfiles"], "GET /.dot -> 404, its name begins with a dot (--hide-dotfiles)"),
        (&["/cgi-bin/run", "--cgi"], "GET /cgi-bin/run -> script cgi-bin/run would respond"),
        (&["/cgi-bin/text", "--cgi"], "GET /cgi-bin/text -> 403, cgi-bin/text has no execute bit"),
        (&["/cgi-bin/", "--cgi"], "GET /cgi-bin/ -> 403, cgi-bin/ is not a regular file"),
        (&["/up", "--health=/up"], "GET /up -> 200, the server is healthy (--health)"),
        (&["HEAD /up?now", "--health=/up"], "HEAD /up?now -> 200, the server is healthy (--health)"),
        (&["OPTIONS /up", "--health=/up"], "OPTIONS /up -> 204, allows GET, HEAD, OPTIONS"),
        (&["PUT /up", "--health=/up"], "PUT /up -> 501, UnsupportedMethod: "),
        (&["/cgi-bin/run", "--cgi", "--health=/cgi-bin/run"], "GET /cgi-bin/run -> 200, the server is healthy"),
        (&["/upper", "--health=/up"], "GET /upper -> 404, upper does not exist"),
        (&["/a.txt", "--route-prefix=/b"], "GET /a.txt -> 404, it is not below the prefix (--route-prefix)"),
        (&["/listed/", "--no-listing"], "GET /listed/ -> 404, directory listed has no index page and is not listed"),
        (&["/x?q", "--redirect=/x=/y"], "GET /x?q -> 308, to /y?q"),
        (&["/x", "--error-page=404=a.txt"], "GET /x -> 404, file a.txt"),
        (&["/a.txt", "--response-header=*.txt=X-A: b"], "GET /a.txt -> 200, file a.txt, "),
        (
            &["OPTIONS /", "-H", "Origin: http://o", "-H", "Access-Control-Request-Method: GET", "--cors"],
            "OPTIONS / -> 204, a page of this origin may send the request (--cors)",
        ),
        (&["/cgi-bin/none", "--cgi"], "GET /cgi-bin/none -> 404, cgi-bin/none does not exist"),
    ];
    let locked = ["/locked"];
    if fs::File::open(tree.path("locked")).is_err() {
        cases.push((&locked, "GET /locked -> 404, locked is a file without read permission, mode 000"));
        cases.push((&["/closed/"], "GET /closed/ -> 404, directory closed cannot be read"));
    }
    for (arguments, verdict) in cases {
        let ended = explain(&[arguments, &["-d", directory]].concat());
        let text = String::from_utf8(ended.stdout).expect("a report is text");
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with(verdict), "{arguments:?}: {first}");
    }
    // It must be readable to be removed.
    fs::set_permissions(tree.path("closed"), fs::Permissions::from_mode(0o700)).expect("permissions can be changed");
    let ended = explain(&[&long, "-d", directory]);
    let first = ended.stdout.split(|&byte| byte == b'\n').next().unwrap_or_default();
    assert!(first.len() < 300, "the line is too long for a terminal");
    // Times are shown as dates.
    let ended = explain(&["/none", "-d", directory]);
    assert!(ended.parts().0.contains(&format!("a file of 0 bytes, modified {DATE} and 0 ns")), "{}", ended.parts().0);
}

#[test]
fn usage_and_errors() {
    let missing = explain(&["/", "-d", "/no/such/directory"]);
    assert_eq!((missing.code, missing.stderr.lines().count()), (Some(1), 1), "{}", missing.stderr);
    assert!(missing.stderr.contains("/no/such/directory"));
    for arguments in [&[][..], &["/", "/"], &["/", "--port", "1"], &["/", "-p", "HTTP/2"], &["/", "--cgi-dir", "/x"]] {
        let ended = explain(arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.stderr);
        assert_eq!(ended.stderr.lines().filter(|line| line.contains("error: ")).count(), 1, "{}", ended.stderr);
    }
    let help = explain(&["--help"]);
    let text = String::from_utf8(help.stdout).expect("text");
    assert!(
        help.code == Some(0) && ["-H", "--directory", "--symlinks", "--cgi"].iter().all(|flag| text.contains(flag))
    );
}

/// Apart from `Date`, the report only depends on the request and the disk, and has no colours in a pipe.
#[test]
fn the_same_report_each_time() {
    let tree = tree();
    let directory = tree.root().to_str().expect("a temporary path is text");
    let report = || mask_dates(explain(&["/listed/", "-d", directory]).parts().1.as_bytes());
    assert_eq!(report(), report());
    let ended = explain(&["/a.txt", "-d", directory]);
    assert!(!ended.stdout.contains(&0x1b));
}
