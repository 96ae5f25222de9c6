//! The environment of scripts, and which requests are for scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use testkit::page::{check_any_error, check_error};
use testkit::process::Process;
use testkit::scripts::{Gateway, chunked, request};
use testkit::server::program;
use testkit::{Response, Runtime, Server};

/// The environment of a script in the order of names, without the variables that the server passes on from its own.
#[track_caller]
fn environment(answer: &Response) -> Vec<String> {
    assert_eq!(answer.status(), 200, "{answer:?}");
    let mut all: Vec<String> = answer.body_text().split_terminator('\0').map(str::to_owned).collect();
    all.sort_unstable();
    let passed = ["PATH", "LANG", "TZ"];
    for name in passed {
        let value = all.iter().position(|variable| variable.split('=').next() == Some(name)).map(|at| all.remove(at));
        if name != "PATH" || std::env::var_os(name).is_some() {
            let ours = std::env::var(name).ok().map(|value| format!("{name}={value}"));
            assert_eq!(value, ours, "the variable of the server");
        }
    }
    let mark = all.iter().position(|variable| variable.starts_with("SCRIPT_OF=")).expect("--cgi-env adds it");
    all.remove(mark);
    all
}

/// Exactly the specified variables, and nothing of the server's own environment.
pub fn the_environment(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let port = gateway.server.address().port();
    let port = format!("SERVER_PORT={port}");
    let software = concat!("SERVER_SOFTWARE=sanserve/", env!("CARGO_PKG_VERSION"));
    let root = gateway.tree.root().canonicalize().expect("the path exists");
    let root = root.display();
    let (document_root, filename) = (format!("DOCUMENT_ROOT={root}"), format!("SCRIPT_FILENAME={root}/cgi-bin/env"));
    let mut client = gateway.connect();
    let remote_port = format!("REMOTE_PORT={}", client.local().port());
    let answer = client.get("/cgi-bin/env");
    let expected = [
        &document_root,
        "GATEWAY_INTERFACE=CGI/1.1",
        "HTTP_HOST=x",
        "QUERY_STRING=",
        "REDIRECT_STATUS=200",
        "REMOTE_ADDR=127.0.0.1",
        "REMOTE_HOST=",
        &remote_port,
        "REQUEST_METHOD=GET",
        "REQUEST_SCHEME=http",
        "REQUEST_URI=/cgi-bin/env",
        &filename,
        "SCRIPT_NAME=/cgi-bin/env",
        "SERVER_ADDR=127.0.0.1",
        "SERVER_NAME=x",
        &port,
        "SERVER_PROTOCOL=HTTP/1.1",
        software,
    ];
    assert_eq!(environment(&answer), expected);
    let fields = "Content-Type: a/b; c=d\r\nAccept: text/html\r\nX-One: 1\r\nX_One: spoofed\r\nX.One: odd\r\n\
                  Proxy: http://evil/\r\nAuthorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\naccept: a/b\r\n\
                  Cookie: c=1\r\nCookie: d=2\r\nConnection: X-Hop\r\nX-Hop: h\r\nTE: trailers\r\nUser-Agent: me\r\n\
                  X-Under_score: spoofed\r\nContent-Encoding: gzip\r\nProxy-Authorization: Basic eDp5\r\n\
                  Content-Length: 3\r\n";
    let head = format!("POST /cgi-bin/env/more/?x=%20&y=+ HTTP/1.1\r\nHost: [::1]:81\r\n{fields}\r\nabc");
    let answer = client.ask(head);
    let translated = format!("PATH_TRANSLATED={root}/more/");
    let expected = [
        "CONTENT_LENGTH=3",
        "CONTENT_TYPE=a/b; c=d",
        &document_root,
        "GATEWAY_INTERFACE=CGI/1.1",
        "HTTP_ACCEPT=text/html,a/b",
        "HTTP_CONTENT_ENCODING=gzip",
        "HTTP_COOKIE=c=1; d=2",
        "HTTP_HOST=[::1]:81",
        "HTTP_USER_AGENT=me",
        "HTTP_X_ONE=1",
        "PATH_INFO=/more/",
        &translated,
        "QUERY_STRING=x=%20&y=+",
        "REDIRECT_STATUS=200",
        "REMOTE_ADDR=127.0.0.1",
        "REMOTE_HOST=",
        &remote_port,
        "REQUEST_METHOD=POST",
        "REQUEST_SCHEME=http",
        "REQUEST_URI=/cgi-bin/env/more/?x=%20&y=+",
        &filename,
        "SCRIPT_NAME=/cgi-bin/env",
        "SERVER_ADDR=127.0.0.1",
        "SERVER_NAME=[::1]",
        &port,
        "SERVER_PROTOCOL=HTTP/1.1",
        software,
    ];
    assert_eq!(environment(&answer), expected);
    let mut client = gateway.connect();
    client.send("GET /cgi-bin/env HTTP/1.0\r\nAuthorization: Bearer secret\r\n\r\n");
    let told = environment(&client.response());
    assert!(told.contains(&"SERVER_NAME=127.0.0.1".to_owned()), "the address if the request names no host: {told:?}");
    assert!(told.contains(&"SERVER_PROTOCOL=HTTP/1.0".to_owned()), "{told:?}");
    assert!(told.iter().all(|variable| !variable.contains("secret") && !variable.starts_with("HTTP_")), "{told:?}");
    drop(client);
    gateway.settle();
}

/// Claims of a client about its identity are not verified: no variable contains them, whatever the field, the scheme
/// and the spelling, even after a local redirect.
pub fn claims(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let mut client = gateway.connect();
    for fields in [
        "Authorization: Basic bWFsbG9yeTp4\r\n",
        "AUTHORIZATION: basic bWFsbG9yeTp4\r\nauthorization: Basic bWFsbG9yeTp4\r\n",
        "Authorization: Digest username=\"mallory\"\r\n",
        "Authorization: Bearer mallory\r\n",
        "Proxy-Authorization: Basic bWFsbG9yeTp4\r\n",
        "Remote_User: mallory\r\nREMOTE_USER: mallory\r\nAuth_Type: Basic\r\nHTTP_AUTHORIZATION: x\r\n",
        "Remote-User: mallory\r\nAuth-Type: Basic\r\nRedirect-Remote-User: mallory\r\n",
        "Content_Length: 5\r\nContent_Type: mallory\r\nDocument_Root: /\r\nScript-Filename: /etc/passwd\r\n",
        "Https: on\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\n",
    ] {
        let moved = format!("Content-Length: {}\r\n", "Location: /cgi-bin/env\n\n".len());
        let said = format!("POST /cgi-bin/say HTTP/1.1\r\nHost: x\r\n{fields}{moved}\r\nLocation: /cgi-bin/env\n\n");
        for request in [format!("GET /cgi-bin/env HTTP/1.1\r\nHost: x\r\n{fields}\r\n"), said] {
            let told = environment(&client.ask(request));
            let own = |variable: &&String| !variable.starts_with("HTTP_");
            assert!(told.iter().filter(own).all(|variable| !variable.contains("mallory")), "{fields}: {told:?}");
            let names: Vec<&str> = told.iter().filter_map(|variable| variable.split('=').next()).collect();
            let never = ["REMOTE_USER", "AUTH_TYPE", "REDIRECT_REMOTE_USER", "HTTP_AUTHORIZATION", "CONTENT_TYPE"];
            assert!(never.iter().chain(&["CONTENT_LENGTH", "HTTPS"]).all(|name| !names.contains(name)), "{told:?}");
            for expected in ["REMOTE_ADDR=127.0.0.1", "REQUEST_SCHEME=http", "REQUEST_METHOD=GET"] {
                assert!(told.iter().any(|variable| variable == expected), "{fields}: {told:?}");
            }
        }
    }
    drop(client);
    gateway.settle();
}

/// `--cgi-pass-authorization`: the field is passed, and nothing derived from it.
pub fn authorization_is_passed(rt: Runtime) {
    let gateway = Gateway::with(rt, &["--cgi-pass-authorization"]);
    let mut client = gateway.connect();
    for value in ["Basic bWFsbG9yeTp4", "Digest username=\"mallory\"", "Bearer a.b.c"] {
        let fields = format!("authorization: {value}\r\nProxy-Authorization: {value}\r\n");
        let told = environment(&client.ask(request("GET", "/cgi-bin/env", &fields, "")));
        assert!(told.contains(&format!("HTTP_AUTHORIZATION={value}")), "{told:?}");
        let about = told.iter().filter(|variable| variable.contains("AUTH") || variable.contains("REMOTE_USER"));
        assert_eq!(about.count(), 1, "{told:?}");
    }
    let twice = "Authorization: Basic bWFsbG9yeTp4\r\nAuthorization: Basic YTpi\r\n";
    let told = environment(&client.ask(request("GET", "/cgi-bin/env", twice, "")));
    assert!(told.iter().all(|variable| !variable.contains("AUTH")), "{told:?}");
    drop(client);
    gateway.settle();
}

/// All fields about the body are passed, except for type and length, which have variables of their own.
pub fn fields_of_the_body(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let fields = "Content-Encoding: gzip\r\nContent-Language: de\r\nContent-MD5: x\r\nContent-Range: bytes 0-0/1\r\n\
                  Content-Disposition: attachment\r\nContent-Location: /x\r\nContent-Type: a/b\r\n";
    let told = environment(&gateway.server.ask(request("POST", "/cgi-bin/env", fields, "a")));
    let about: Vec<&str> = told.iter().map(String::as_str).filter(|variable| variable.contains("CONTENT")).collect();
    let expected = [
        "CONTENT_LENGTH=1",
        "CONTENT_TYPE=a/b",
        "HTTP_CONTENT_DISPOSITION=attachment",
        "HTTP_CONTENT_ENCODING=gzip",
        "HTTP_CONTENT_LANGUAGE=de",
        "HTTP_CONTENT_LOCATION=/x",
        "HTTP_CONTENT_MD5=x",
        "HTTP_CONTENT_RANGE=bytes 0-0/1",
    ];
    assert_eq!(about, expected);
    gateway.settle();
}

/// Paths are absolute and without symbolic links, however the directory is named; the address is that of the
/// connection.
pub fn places(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let root = gateway.tree.root().canonicalize().expect("the path exists");
    let link = gateway.tree.outside().join("link");
    std::os::unix::fs::symlink(&root, &link).expect("a free name");
    let outside = gateway.tree.outside().to_owned();
    let name = root.file_name().expect("a file name").to_owned();
    let relative = std::path::Path::new(".").join(&name).join("..").join(&name);
    for directory in [link, relative] {
        let mut command = Command::new(program());
        command.args(["--runtime", rt.name(), "--cgi", "--cgi-env=SCRIPT_OF=x", "-d"]).arg(&directory);
        command.args(["-b", "::", "0"]).current_dir(&outside);
        let server = Server::of(Process::start(&mut command));
        let told = environment(&server.get("/cgi-bin/env/a//b/"));
        let root = root.display();
        for expected in [
            format!("DOCUMENT_ROOT={root}"),
            format!("SCRIPT_FILENAME={root}/cgi-bin/env"),
            format!("PATH_TRANSLATED={root}/a//b/"),
            "SCRIPT_NAME=/cgi-bin/env".into(),
            "REQUEST_URI=/cgi-bin/env/a//b/".into(),
        ] {
            assert!(told.contains(&expected), "{expected} in {told:?}");
        }
        for address in ["127.0.0.1", "127.0.0.2", "::1"] {
            let to = std::net::SocketAddr::new(address.parse().expect("an address"), server.address().port());
            let mut client = testkit::Client::connect(to);
            let told = environment(&client.get("/cgi-bin/env"));
            assert!(told.contains(&format!("SERVER_ADDR={address}")), "{told:?}");
            assert!(told.contains(&format!("REMOTE_PORT={}", client.local().port())), "{told:?}");
            assert!(told.contains(&format!("REMOTE_ADDR={}", client.local().ip())), "{told:?}");
            // If the request names no host, the name is the address of the connection, and not the unspecified one.
            client = testkit::Client::connect(to);
            client.send("GET /cgi-bin/env HTTP/1.0\r\n\r\n");
            let told = environment(&client.response());
            let name = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
            assert!(told.contains(&format!("SERVER_NAME={name}")), "{told:?}");
        }
    }
    gateway.settle();
}

/// `--cgi-env` adds variables, but never replaces those of the request.
pub fn variables_for_scripts(rt: Runtime) {
    let flags = ["--cgi-env", "A=b=c", "--cgi-env=EMPTY=", "--cgi-env=FOR_SCRIPTS", "--cgi-env=NOT_SET_ANYWHERE"];
    let more = ["--cgi-env=SERVER_NAME=other", "--cgi-env", "HTTP_HOST=other"];
    let gateway = Gateway::with(rt, &[&flags[..], &more].concat());
    let told = environment(&gateway.get("/cgi-bin/env"));
    for variable in ["A=b=c", "EMPTY=", "FOR_SCRIPTS=known", "SERVER_NAME=x", "HTTP_HOST=x"] {
        assert!(told.iter().any(|other| other == variable), "{variable} in {told:?}");
    }
    let is_absent = |name: &str| told.iter().all(|variable| !variable.starts_with(name));
    assert!(is_absent("NOT_SET_ANYWHERE") && is_absent("NOT_FOR_SCRIPTS") && is_absent("TMPDIR"), "{told:?}");
    gateway.settle();
}

/// A script runs in its own directory, with the words of a query without `=` as arguments.
pub fn directory_and_arguments(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let place = gateway.place();
    let place = place.display();
    for (query, arguments) in [
        ("", ""),
        ("?", ""),
        ("?one", "[one]\n"),
        ("?one+t%77o++%3d+a%20b", "[one]\n[two]\n[]\n[=]\n[a b]\n"),
        ("?a=b", ""),
        ("?a+b=c", ""),
        ("?-s", "[-s]\n"),
        ("?a%00b", ""),
        ("?%24(id)+%60id%60+;id", "[$(id)]\n[`id`]\n[;id]\n"),
    ] {
        let answer = gateway.get(format!("/cgi-bin/about{query}"));
        assert_eq!(answer.body_text(), format!("{place}\n./about\n{arguments}"), "{query}");
    }
    // RFC 3875 section 4.4: only for GET and HEAD.
    let answer = gateway.post("/cgi-bin/about?one", "");
    assert_eq!(answer.body_text(), format!("{place}\n./about\n"));
    let answer = gateway.get("/cgi-bin/sub/hello");
    assert_eq!(answer.body_text(), format!("hello below in {place}/sub\n"));
    gateway.settle();
}

/// The rest of the target after the script is its path, decoded once; the query is passed unchanged.
pub fn paths(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let root = gateway.tree.root().canonicalize().expect("the path exists");
    let root = root.display();
    for (target, info, query) in [
        ("/cgi-bin/path", "", ""),
        ("/cgi-bin/path/", "/", ""),
        ("/cgi-bin/path/a/b", "/a/b", ""),
        ("/cgi-bin/path/a//b/../c/", "/a//c/", ""),
        ("/cgi-bin/path/http://a.example//b", "/http://a.example//b", ""),
        ("/cgi-bin/path/http:%2f%2Fa.example%2F/b", "/http://a.example//b", ""),
        ("/cgi-bin/path//", "//", ""),
        ("//cgi-bin//path///a", "///a", ""),
        ("/cgi-bin/path/a//../b", "/b", ""),
        ("/cgi-bin/path/a/./%2e%2E/%2fb", "//b", ""),
        ("/cgi-bin/path//x/%2e%2e/%2e/a", "//a", ""),
        ("/cgi-bin/none//..//path//a", "//a", ""),
        ("/cgi-bin/sub/hello/..//..///path/.a/..b", "/.a/..b", ""),
        ("/cgi-bin/path/a%2fb%20c%2520", "/a/b c%20", ""),
        ("/cgi-bin/path/a?x=/../%20%", "/a", "x=/../%20%"),
        ("/cgi-bin/path?a?b", "", "a?b"),
        ("//cgi-bin/./x/../path/y", "/y", ""),
        ("/%63gi-bin/path/%e2%82%ac", "/\u{20ac}", ""),
        ("http://x/cgi-bin/path/y?z", "/y", "z"),
    ] {
        let answer = gateway.get(target);
        let translated = if info.is_empty() { String::new() } else { format!("{root}{info}") };
        assert_eq!(answer.body_text(), format!("/cgi-bin/path|{info}|{translated}|{query}"), "{target}");
    }
    assert_eq!(gateway.get("/cgi-bin/two%20words").body_text(), "/cgi-bin/two words\n");
    gateway.settle();
}

/// However the path of a script is spelled, its source is never sent.
pub fn no_source(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let (mut run, mut asked) = (0, 0);
    for script in ["hello", "text", "sub/hello"] {
        for directory in [
            "/cgi-bin/",
            "//cgi-bin/",
            "///cgi-bin//",
            "/./cgi-bin/",
            "/cgi-bin/./",
            "/cgi-bin/sub/../",
            "/folder/../cgi-bin/",
            "/../cgi-bin/",
            "/%63gi-bin/",
            "/cgi%2dbin/",
            "/cgi%2Dbin/",
            "/cgi-bin%2f",
            "/cgi-bin%2F",
            "/%2fcgi-bin/",
            "/%2Fcgi-bin%2F%2f",
            "/%2e/cgi-bin/",
            "/%2E%2e/cgi-bin/",
            "/x%2f..%2fcgi-bin/",
            "/CGI-BIN/",
            "/cgi-bin%00/",
            "/cgi-bin%20/",
            "/cgi-bin;/",
            "/%2563gi-bin/",
            "http://x/cgi-bin/",
            "http://x//cgi-bin/",
            "/x/..//cgi-bin/",
            "//..//cgi-bin//.//",
            "/cgi-bin//sub//..//",
            "/cgi-bin/hello/..//",
            "/cgi-bin%5c",
            "/cgi-bin\\",
        ] {
            for end in
                ["", "/", "/.", "/..", "/x", "%2f", "%2F.", "?", "?a=b", "#x", "%00", "/%00", "%20", ".", "~", "\\"]
            {
                let target = format!("{directory}{script}{end}");
                for fields in ["", "Range: bytes=0-\r\n"] {
                    let mut client = gateway.connect();
                    client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}Connection: close\r\n\r\n"));
                    let answer = client.response();
                    let is_source = |part: &[u8]| part.windows(2).any(|pair| pair == b"#!");
                    assert!(!is_source(&answer.body), "{target} with {fields:?}: {answer:?}");
                    assert!([200, 301, 400, 403, 404].contains(&answer.status()), "{target}: {answer:?}");
                    run += usize::from(answer.status() == 200);
                    asked += 1;
                    if fields.is_empty() && answer.status() != 200 {
                        break;
                    }
                }
            }
        }
    }
    assert!(run > 200 && asked > 900, "{run} of {asked} are run");
    gateway.settle();
}

/// `--hide-dotfiles`: no spelling leads to a script whose name, or whose directory's name, begins with a dot. The
/// rest of the path after a script is not a file name.
pub fn hidden_scripts(rt: Runtime) {
    let gateway = Gateway::with(rt, &["--hide-dotfiles"]);
    gateway.tree.folder("cgi-bin/.folder");
    let hello = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nhidden'\n";
    testkit::scripts::install(&gateway.tree, "cgi-bin", &[(".script", hello), (".folder/script", hello)]);
    for name in [".script", ".folder/script"] {
        for directory in
            ["/cgi-bin/", "//cgi-bin//", "/cgi-bin/hello/..//", "/cgi-bin/./", "/cgi%2dbin%2f", "/x//../cgi-bin/"]
        {
            for end in ["", "/", "//x", "?x", "/%2e"] {
                let target = format!("{directory}{}{end}", name.replace('.', "%2e"));
                for target in [target, format!("{directory}{name}{end}")] {
                    let answer = gateway.get(&target);
                    assert_eq!(answer.status(), 404, "{target}: {answer:?}");
                }
            }
        }
    }
    let answer = gateway.get("/cgi-bin/path/.git//config");
    assert_eq!(answer.body_text().split('|').nth(1), Some("/.git//config"));
    gateway.settle();
}

/// Files that cannot be run, and why.
pub fn refusals(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let answer = gateway.get("/cgi-bin");
    assert_eq!((answer.status(), answer.text("Location")), (301, Some("/cgi-bin/")));
    for (target, status, message) in [
        ("/cgi-bin/", 403, "CGI script is not a plain file ('/cgi-bin/')"),
        ("/cgi-bin/sub", 403, "CGI script is not a plain file ('/cgi-bin/sub')"),
        ("/cgi-bin/sub/", 403, "CGI script is not a plain file ('/cgi-bin/sub/')"),
        ("/cgi-bin/sub/deep/", 403, "CGI script is not a plain file ('/cgi-bin/sub/deep/')"),
        ("/cgi-bin/text", 403, "CGI script is not executable ('/cgi-bin/text')"),
        ("/cgi-bin/text/x", 403, "CGI script is not executable ('/cgi-bin/text')"),
        ("/cgi-bin/none", 404, "No such CGI script ('/cgi-bin/none')"),
        ("/cgi-bin/none/x?y", 404, "No such CGI script ('/cgi-bin/none')"),
        ("/cgi-bin/%3Cb%3E", 404, "No such CGI script ('/cgi-bin/<b>')"),
        ("/cgi-bin/sub/none", 404, "No such CGI script ('/cgi-bin/sub/none')"),
        ("/htbin/x", 404, "No such CGI script ('/htbin/x')"),
        ("/cgi-bin/no-interpreter", 502, "CGI script cannot be started ('/cgi-bin/no-interpreter')"),
    ] {
        for method in ["GET", "HEAD", "POST"] {
            let answer = gateway.server.ask(request(method, target, "", ""));
            if method == "HEAD" {
                assert_eq!((answer.status(), answer.body.len()), (status, 0), "{target}");
            } else {
                check_error(&answer, status, message);
            }
        }
    }
    check_error(&gateway.get("/cgi-bin/%00"), 400, "Bad request path: encoded NUL");
    gateway.tree.fifo("cgi-bin/fifo");
    check_error(&gateway.get("/cgi-bin/fifo"), 403, "CGI script is not a plain file ('/cgi-bin/fifo')");
    gateway
        .server
        .log_line("of the script", |line| line.starts_with("sanserve: /cgi-bin/no-interpreter: CGI script not run: "));
    let missing = "(No such file or directory (os error 2))";
    gateway.remark(
        "no-interpreter",
        &format!("CGI script not run: interpreter '/no/such/interpreter' does not exist {missing}"),
    );
    check_any_error(&gateway.get("/cgi-bin/cr-lf"), 502);
    let why = "the script has CR LF at its line ends; with LF alone its interpreter is '/bin/sh'";
    gateway.remark("cr-lf", &format!("CGI script not run: interpreter '/bin/sh\\r' does not exist: {why} {missing}"));
    check_any_error(&gateway.get("/cgi-bin/interpreter-directory"), 403);
    let denied = "(Permission denied (os error 13))";
    gateway.remark("interpreter-directory", &format!("CGI script not run: interpreter '/bin' is not a file {denied}"));
    // Executable, but not for the user of the scripts.
    if rustix::process::geteuid().is_root() {
        fs::set_permissions(gateway.tree.path("cgi-bin/hello"), fs::Permissions::from_mode(0o700))
            .expect("permissions can be changed");
        check_error(&gateway.get("/cgi-bin/hello"), 403, "CGI script is not executable ('/cgi-bin/hello')");
        assert_ne!(gateway.get("/cgi-bin/who").body_text().trim(), "0", "nobody");
    }
    gateway.settle();
}

/// Scripts support every method but TRACE and CONNECT; files, and the server itself, support GET, HEAD and OPTIONS.
pub fn methods(rt: Runtime) {
    const OF_SCRIPTS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
    const OF_FILES: &str = "GET, HEAD, OPTIONS";
    let gateway = Gateway::start(rt);
    let mut client = gateway.connect();
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "MKCOL", "REPORT", "get", "x!y"] {
        for body in ["", "some text"] {
            let answer = client.ask(request(method, "/cgi-bin/echo-method?q", "", body));
            assert_eq!(answer.body_text(), format!("{method} {} {body}", body.len()), "{method}");
            client.send(format!(
                "{method} /cgi-bin/echo-method HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            ));
            client.send(chunked(body.as_bytes(), 3));
            assert_eq!(client.response().body_text(), format!("{method} {} {body}", body.len()), "{method}");
        }
        let answer = client.ask(format!("{method} /cgi-bin/echo-method HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(answer.body_text(), format!("{method}  "), "{method}");
        for (target, status, message) in [
            ("/cgi-bin/none", 404, "No such CGI script ('/cgi-bin/none')"),
            ("/cgi-bin/", 403, "CGI script is not a plain file ('/cgi-bin/')"),
            ("/cgi-bin/sub", 403, "CGI script is not a plain file ('/cgi-bin/sub')"),
            ("/cgi-bin/text", 403, "CGI script is not executable ('/cgi-bin/text')"),
        ] {
            check_error(&client.ask(request(method, target, "", "a")), status, message);
        }
    }
    // The script responds to OPTIONS itself.
    let answer = client.ask(request("OPTIONS", "/cgi-bin/say", "", "Status: 204\nAllow: BREW\n\n"));
    assert_eq!((answer.status(), answer.text("Allow")), (204, Some("BREW")));
    let answer = client.ask(request("PUT", "/cgi-bin/say", "Expect: 100-continue\r\n", "Location: /a.txt\n\n"));
    assert_eq!(answer.status(), 100);
    assert_eq!(client.response().body, b"alpha\n", "a local redirect is a GET");
    for (method, target, status, message, allow) in [
        ("POST", "/a.txt", 501, "Can only POST to CGI scripts", OF_FILES),
        ("POST", "/", 501, "Can only POST to CGI scripts", OF_FILES),
        ("POST", "/none", 501, "Can only POST to CGI scripts", OF_FILES),
        ("POST", "/cgi-bin", 501, "Can only POST to CGI scripts", OF_FILES),
        ("TRACE", "/cgi-bin/hello", 501, "Unsupported method ('TRACE')", OF_SCRIPTS),
        ("TRACE", "/a.txt", 501, "Unsupported method ('TRACE')", OF_FILES),
        ("CONNECT", "x:80", 501, "Unsupported method ('CONNECT')", OF_FILES),
        ("PUT", "/a.txt", 501, "Unsupported method ('PUT')", OF_FILES),
        ("DELETE", "/cgi-bin/../a.txt", 501, "Unsupported method ('DELETE')", OF_FILES),
        ("PATCH", "/cgi-bin", 501, "Unsupported method ('PATCH')", OF_FILES),
    ] {
        let answer = client.ask(request(method, target, "", "a"));
        check_error(&answer, status, message);
        assert_eq!(answer.text("Allow"), Some(allow), "{method} {target}");
    }
    for target in ["/a.txt", "/cgi-bin", "/none", "*"] {
        let answer = client.ask(format!("OPTIONS {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!((answer.status(), answer.text("Allow")), (204, Some(OF_FILES)), "{target}");
    }
    drop(client);
    gateway.settle();
}

/// Without `--cgi` there are no scripts; with `--cgi-dir` they are elsewhere.
pub fn directories(rt: Runtime) {
    let gateway = Gateway::with(rt, &["--cgi-dir", "folder/scripts/", "--cgi-dir=/more"]);
    let hello = "#!/bin/sh\nprintf 'Content-Type: a/b\\n\\n%s' \"$SCRIPT_NAME\"\n";
    for folder in ["folder/scripts", "more/sub"] {
        gateway.tree.folder(folder);
        testkit::scripts::install(&gateway.tree, folder, &[("x", hello)]);
    }
    for target in ["/folder/scripts/x", "/more/sub/x"] {
        assert_eq!(gateway.get(target).body_text(), target);
    }
    assert_eq!(gateway.get("/folder/inner.txt").body, b"inner\n");
    assert!(gateway.get("/cgi-bin/hello").body.starts_with(b"#!/bin/sh"), "a file like any other");
    check_any_error(&gateway.post("/cgi-bin/hello", ""), 501);
    gateway.wait_for_none();
    let server = Server::start(rt, gateway.tree.root());
    assert!(server.get("/cgi-bin/hello").body.starts_with(b"#!/bin/sh"));
    check_error(&server.ask(request("POST", "/cgi-bin/hello", "", "")), 501, "Unsupported method ('POST')");
}

/// `--cgi-dir /`: all files are scripts, at any depth.
pub fn the_whole_root(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let server = Server::with(rt, gateway.tree.root(), &["--cgi", "--cgi-dir", "/"]);
    check_error(&server.get("/a.txt"), 403, "CGI script is not executable ('/a.txt')");
    assert_eq!(server.get("/cgi-bin/hello").body, b"hello\n");
    assert_eq!(server.get("/cgi-bin/path/more").body_text().split('|').next(), Some("/cgi-bin/path"));
    // The server itself is not a script.
    let answer = server.ask("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((answer.status(), answer.text("Allow")), (204, Some("GET, HEAD, OPTIONS")));
}
