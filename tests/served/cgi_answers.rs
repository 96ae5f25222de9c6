//! The output of scripts, and the responses made of it.

use testkit::Runtime;
use testkit::page::{check_any_error, check_error};
use testkit::response::check_date;
use testkit::scripts::{Gateway, request};

/// Fields that frame the message or concern the connection are written by the server; all others are passed on.
pub fn the_fields_of_an_answer(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let fields = "Content-Type: a/b\nSet-Cookie: a=1\nset-cookie: b=2\nConnection: close\n\
                  Transfer-Encoding: gzip\nDate: never\nServer: me\nX-A:  b \n\n";
    let mut client = gateway.connect();
    for head in [fields.to_owned(), fields.replace('\n', "\r\n")] {
        let answer = client.ask(request("GET", "/cgi-bin/say", "", head + "hello\nworld\n\n"));
        assert_eq!((answer.status(), answer.head.reason.as_str()), (200, "OK"));
        assert_eq!(answer.body, b"hello\nworld\n\n");
        let names = ["Server", "Date", "Content-Type", "Set-Cookie", "set-cookie", "X-A", "Transfer-Encoding"];
        assert_eq!(answer.head.names(), names);
        check_date(answer.text("Date").expect("it exists"));
        assert!(answer.text("Server").is_some_and(|server| server.starts_with("sanserve/")));
        assert_eq!(answer.head.all("Set-Cookie"), ["a=1", "b=2"]);
        assert_eq!((answer.text("X-A"), answer.text("Transfer-Encoding")), (Some("b"), Some("chunked")));
    }
    drop(client);
    gateway.settle();
}

/// `Status` sets the status, with the reason phrase of the script if there is one.
pub fn status(rt: Runtime) {
    let gateway = Gateway::start(rt);
    for (status, code, reason, body) in [
        ("404", 404, "Not Found", "gone"),
        ("404 Not here", 404, "Not here", "gone"),
        ("200 Fine", 200, "Fine", "gone"),
        ("500 \u{e9}", 500, "Internal Server Error", "gone"),
        ("299", 299, "", "gone"),
        ("204 Nothing", 204, "Nothing", ""),
        ("304", 304, "Not Modified", ""),
    ] {
        let mut client = gateway.connect();
        let output = format!("Status: {status}\nX: y\n\ngone");
        let answer = client.ask(request("GET", "/cgi-bin/say", "", output));
        assert_eq!((answer.status(), answer.body_text()), (code, body), "{status:?}");
        if !reason.is_empty() {
            assert_eq!(answer.head.reason, reason, "{status:?}");
        }
        assert_eq!(client.get("/a.txt").body, b"alpha\n", "the connection continues after {status:?}");
    }
    gateway.settle();
}

/// A length that a script announces frames its response: excess output is discarded, and missing output cuts the
/// connection.
pub fn lengths(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let mut client = gateway.connect();
    for (length, body) in [("5", "hello"), ("5", "hello and more"), ("0", ""), ("0", "more"), ("00", "")] {
        let answer =
            client.ask(request("GET", "/cgi-bin/say", "", format!("Content-Length: {length}\nX: y\n\n{body}")));
        let length: u64 = length.parse().expect("a number");
        assert_eq!((answer.status(), answer.head.length()), (200, Some(length)), "{body}");
        assert_eq!(answer.body_text(), &body[..usize::try_from(length).expect("small")]);
        assert!(answer.text("Transfer-Encoding").is_none());
    }
    for (length, body) in [("50", "hello"), ("1", ""), ("18446744073709551615", "much")] {
        let mut client = gateway.connect();
        client.send(request("GET", "/cgi-bin/say", "", format!("Content-Length: {length}\nX: y\n\n{body}")));
        assert_eq!(client.head().text("Content-Length"), Some(length));
        assert_eq!(client.rest_however().0, body.as_bytes(), "cut, never padded");
        gateway.server.log_line("of the cut", |line| line.contains("the script ended before the length it announced"));
    }
    drop(client);
    gateway.settle();
}

/// HEAD: no body, whatever the script prints; its length is kept.
pub fn head(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let mut client = gateway.connect();
    for (output, length) in [
        ("Content-Type: a/b\nContent-Length: 5\n\nhello", Some(5)),
        ("Content-Type: a/b\nContent-Length: 5\n\n", Some(5)),
        ("Content-Type: a/b\n\nhello", None),
    ] {
        let answer = client.ask(request("HEAD", "/cgi-bin/say", "", output));
        assert_eq!((answer.status(), answer.head.length(), answer.body.len()), (200, length, 0), "{output}");
        assert_eq!(answer.text("Content-Type"), Some("a/b"));
        assert_eq!(client.get("/cgi-bin/hello").body, b"hello\n");
    }
    let answer = client.ask(request("HEAD", "/cgi-bin/zeros?3000000", "", ""));
    assert_eq!((answer.status(), answer.body.len()), (200, 0));
    let answer = client.ask(request("HEAD", "/cgi-bin/none", "", ""));
    assert_eq!((answer.status(), answer.body.len()), (404, 0));
    drop(client);
    gateway.settle();
}

/// A `Location` with a path is handled as if it had been requested with GET.
pub fn local_redirects(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let place = gateway.tree.root().canonicalize().expect("the path exists");
    let place = place.display();
    let mut client = gateway.connect();
    for (location, status, body) in [
        ("/a.txt", 200, "alpha\n".to_owned()),
        ("/a.txt?q#fragment", 200, "alpha\n".to_owned()),
        ("/folder/../%61.txt", 200, "alpha\n".to_owned()),
        ("/cgi-bin/hello", 200, "hello\n".to_owned()),
        ("/cgi-bin/path/in%20fo?a=%20", 200, format!("/cgi-bin/path|/in fo|{place}/in fo|a=%20")),
    ] {
        for method in ["GET", "POST", "HEAD"] {
            let output = format!("Location: {location}\n\n");
            let answer = client.ask(request(method, "/cgi-bin/say", "Content-Type: a/b\r\n", output));
            assert_eq!(answer.status(), status, "{method} {location}");
            assert_eq!(answer.body_text(), if method == "HEAD" { "" } else { &body }, "{method} {location}");
            assert!(answer.text("Location").is_none(), "the redirect was sent to the client");
        }
    }
    // Neither the body nor its fields are passed to the second script.
    let answer = client.ask(request("POST", "/cgi-bin/say", "X-A: b\r\n", "Location: /cgi-bin/env\n\n"));
    let environment: Vec<&str> = answer.body_text().split('\0').collect();
    assert!(environment.contains(&"REQUEST_METHOD=GET") && environment.contains(&"HTTP_X_A=b"), "{environment:?}");
    assert!(environment.iter().all(|variable| !variable.starts_with("CONTENT_")), "{environment:?}");
    // Conditions and ranges of the request apply.
    let answer = client.ask(request("GET", "/cgi-bin/say", "Range: bytes=1-2\r\n", "Location: /a.txt\n\n"));
    assert_eq!((answer.status(), answer.body_text()), (206, "lp"));
    // Any other response of the target.
    for (location, status) in [("/none", 404), ("/folder", 301), ("/cgi-bin/none", 404), ("/cgi-bin/", 403)] {
        let answer = client.ask(request("GET", "/cgi-bin/say", "", format!("Location: {location}\n\n")));
        assert_eq!(answer.status(), status, "{location}");
    }
    // A redirect to itself. The script then has no body, and ends before its head.
    let answer = gateway.say("Location: /cgi-bin/say\n\n");
    check_error(&answer, 502, "CGI script ended before its head was complete ('/cgi-bin/say')");
    let text = "#!/bin/sh\nprintf 'Location: /cgi-bin/loop\\n\\n'\n";
    testkit::scripts::install(&gateway.tree, "cgi-bin", &[("loop", text)]);
    check_error(&gateway.get("/cgi-bin/loop"), 502, "CGI script redirects for ever ('/cgi-bin/loop')");
    let answer = gateway.say("Location: /a b\n\n");
    check_error(&answer, 404, "File not found");
    drop(client);
    gateway.settle();
}

/// A `Location` with a scheme, or with a `Status`, is sent to the client.
pub fn client_redirects(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let mut client = gateway.connect();
    for (head, status, location) in [
        ("Location: http://example/x?y#z\n", 302, "http://example/x?y#z"),
        ("Location: //example/\n", 302, "//example/"),
        ("Location: a.txt\n", 302, "a.txt"),
        ("Location: /a.txt\nStatus: 303 See Other\n", 303, "/a.txt"),
        ("Status: 301\nLocation: /cgi-bin/hello\n", 301, "/cgi-bin/hello"),
        ("Location: http://example/\nStatus: 307\n", 307, "http://example/"),
        ("Status: 201\nLocation: /new\n", 201, "/new"),
    ] {
        let output = format!("{head}Content-Type: a/b\n\nmoved");
        let answer = client.ask(request("POST", "/cgi-bin/say", "", output));
        assert_eq!((answer.status(), answer.text("Location")), (status, Some(location)), "{head:?}");
        assert_eq!(answer.body, b"moved");
    }
    drop(client);
    gateway.settle();
}

/// A malformed line of a head is dropped and logged. The rest of the response arrives, framed by the server.
pub fn wrong_lines(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let mut client = gateway.connect();
    let form = "it is not \"Name: value\"";
    let control = "its value has a control character";
    for (line, why, shown) in [
        ("no colon", form, "no colon"),
        ("a b: c", form, "a b: c"),
        (": c", form, ": c"),
        ("<!--: spam", form, "<!--: spam"),
        ("X: \x01\x1b[31m", control, "X: \\x01\\x1b[31m"),
        ("X: \0", control, "X: \\x00"),
        ("X: a\rSet-Cookie: b", control, "X: a\\x0dSet-Cookie: b"),
        ("Location:", "it has no value", "Location:"),
        ("Status: abc", "its status is not one of 200 to 599", "Status: abc"),
        ("Status: 101 Switching Protocols", "its status is not one of 200 to 599", "Status: 101 Switching Protocols"),
        ("Content-Length: -1", "it is no length", "Content-Length: -1"),
        ("Transfer-Encoding: chunked", "the server frames the answer", "Transfer-Encoding: chunked"),
        (
            "Content-Type: x/y\nContent-Length: 1, 2",
            "it contradicts another Content-Length, and none of them counts",
            "Content-Length: 1, 2",
        ),
        ("Content-Type: x/y", "a later line replaces it", "Content-Type: x/y"),
    ] {
        for end in ["\n", "\r\n"] {
            let output = format!("{line}{end}Content-Type: a/b{end}X-A: c{end}{end}hello");
            let answer = client.ask(request("POST", "/cgi-bin/say", "", output));
            assert_eq!((answer.status(), answer.body_text()), (200, "hello"), "{line:?}");
            assert_eq!(answer.head.all("Content-Type"), ["a/b"], "{line:?}");
            assert_eq!((answer.text("X-A"), answer.text("X"), answer.text("Set-Cookie")), (Some("c"), None, None));
            gateway.remark("say", &format!("a line of its head is dropped, since {why}: {shown}"));
        }
    }
    // The log is in the order of requests, so everything before this line is complete.
    let mark = |client: &mut testkit::Client, mark: &str| {
        client.ask(request("POST", "/cgi-bin/say", "", format!("{mark}\nX-B: c\n\nhello")));
        gateway.remark("say", &format!("a line of its head is dropped, since {form}: {mark}"));
        gateway.remarks("say").len()
    };
    let before = mark(&mut client, "before");
    // These are accepted without a log line.
    for (head, name, value) in [
        ("X-A : b", "X-A", "b"),
        ("X-A: b\n c\n\td", "X-A", "b c d"),
        (" X-A: b", "X-A", "b"),
        ("X-A: b\r\r", "X-A", "b"),
        ("X-A: caf\u{e9}", "X-A", "caf\u{e9}"),
        ("Location: http://x/\nLocation: http://x/\nStatus: 404: Not here", "Location", "http://x/"),
        ("HTTP/1.0 404 Not here\nX-A: b", "X-A", "b"),
        ("Content-Length: 5\nContent-Length: 5\nX-A: b", "Content-Length", "5"),
        ("Content-Length: 5, 5\nX-A: b", "Content-Length", "5"),
    ] {
        let answer = client.ask(request("POST", "/cgi-bin/say", "", format!("{head}\nX-B: c\n\nhello")));
        let status = if head.contains("404") { (404, "Not here") } else { (200, "OK") };
        assert_eq!((answer.status(), answer.head.reason.as_str(), answer.body_text()), (status.0, status.1, "hello"));
        assert_eq!((answer.head.all(name), answer.text("X-B")), (vec![value], Some("c")), "{head:?}");
    }
    let after = mark(&mut client, "after");
    assert_eq!(after, before + 1, "{:?}", gateway.remarks("say"));
    drop(client);
    gateway.settle();
}

/// Output without a head is sent as content if it is text.
pub fn no_head(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let mut client = gateway.connect();
    for (output, media, body) in [
        ("hello, world", "text/plain; charset=utf-8", "hello, world"),
        (
            "Traceback (most recent call last)\n\nsecret",
            "text/plain; charset=utf-8",
            "Traceback (most recent call last)\n\nsecret",
        ),
        (
            "<!DOCTYPE html>\n<p>hello</p>\n\n<p>more</p>\n",
            "text/html",
            "<!DOCTYPE html>\n<p>hello</p>\n\n<p>more</p>\n",
        ),
        ("\nsecret", "text/plain; charset=utf-8", "secret"),
        ("Content-Type: text/html\n<p>hello</p>\n", "text/html", "<p>hello</p>\n"),
        ("Content-Type: text/html\n<p>hello</p>\n\n<p>more</p>\n", "text/html", "<p>hello</p>\n\n<p>more</p>\n"),
    ] {
        let answer = client.ask(request("POST", "/cgi-bin/say", "", output));
        assert_eq!((answer.status(), answer.text("Content-Type"), answer.body_text()), (200, Some(media), body));
    }
    gateway.remark("say", "it printed no head; its output is sent as text/plain");
    gateway.remark("say", "an empty line is missing before its content: <p>hello</p>");
    drop(client);
    gateway.settle();
}

/// If nothing is usable, the response is a 502, and none of the output is sent.
pub fn garbage(rt: Runtime) {
    let gateway = Gateway::start(rt);
    for output in ["\x7fELF\x01\0\0\n\nsecret", "\0\n\nsecret", "HTTP/1.1 101 Switching Protocols\n\nsecret"] {
        let answer = gateway.say(output);
        check_error(&answer, 502, "CGI script sent an invalid head ('/cgi-bin/say')");
    }
    let incomplete = "CGI script ended before its head was complete ('/cgi-bin/say')";
    for output in ["", "\n", "Content-Ty", "Content-Type: a/b", "Content-Type: a/b\n", "Content-Type: a/b\r\n\r"] {
        check_error(&gateway.say(output), 502, incomplete);
    }
    gateway.settle();
}

/// The page of Python's cgitb arrives, even if the script had begun its head.
pub fn the_page_of_cgitb(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let page = "<!--: spam\nContent-Type: text/html\n\n<body bgcolor=\"#f0f0f8\"><font color=\"#f0f0f8\" size=\"-5\"> -->\n<p>ZeroDivisionError</p>\n";
    for before in ["", "Content-Type: text/plain\n"] {
        let answer = gateway.say(format!("{before}{page}"));
        assert_eq!((answer.status(), answer.text("Content-Type")), (200, Some("text/html")));
        assert!(answer.body_text().ends_with("<p>ZeroDivisionError</p>\n"), "{}", answer.body_text());
    }
    gateway.settle();
}

/// A head may be up to 64 KiB long.
pub fn long_heads(rt: Runtime) {
    const MOST: usize = 65_536;
    let gateway = Gateway::start(rt);
    let head = |length: usize| format!("X: {}\n\n", "y".repeat(length - "X: \n\n".len()));
    let mut client = gateway.connect();
    client.send(request("GET", "/cgi-bin/say", "Connection: close\r\n", head(MOST) + "body"));
    let answer = client.rest();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.len() > MOST, "{} bytes", answer.len());
    let answer = gateway.say("x".repeat(3 * MOST));
    assert_eq!((answer.status(), answer.body.len()), (200, 3 * MOST), "the output has no head");
    for output in [head(MOST + 1), "X: y\n".repeat(MOST)] {
        let answer = gateway.say(output);
        check_error(&answer, 502, "CGI script sent an invalid head ('/cgi-bin/say')");
    }
    gateway.settle();
}

/// A script whose name begins with `nph-` writes the complete response. Its framing is that of the server, and the
/// connection ends, so no part of it can pass for another response.
pub fn whole_answers(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for (method, output, status, body) in [
        ("POST", "HTTP/1.1 418 Teapot\r\nX: y\r\n\r\nshort and stout".to_owned(), 418, "short and stout"),
        ("POST", "HTTP/1.0 200 OK\nX: y\n\nshort".to_owned(), 200, "short"),
        (
            "POST",
            format!("HTTP/1.1 200 OK\r\nX: y\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok{evil}"),
            200,
            "ok",
        ),
        ("POST", format!("HTTP/1.1 200 OK\r\nX: y\r\nKeep-Alive: 5\r\nContent-Length: 0\r\n\r\n{evil}"), 200, ""),
        ("POST", format!("HTTP/1.1 204 No Content\r\nX: y\r\nContent-Length: 2\r\n\r\n{evil}"), 204, ""),
        ("POST", format!("HTTP/1.1 304 Not Modified\r\nX: y\r\n\r\n{evil}"), 304, ""),
        ("HEAD", format!("HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 2\r\n\r\nok{evil}"), 200, ""),
        (
            "POST",
            format!("HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{evil}"),
            200,
            "ok",
        ),
        ("POST", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX: y\r\n\r\nok".to_owned(), 200, "ok"),
        ("POST", "HTTP/1.1 200 OK\r\nno colon\r\nX: y\r\n\r\nok".to_owned(), 200, "ok"),
    ] {
        let mut client = gateway.connect();
        let answer = client.ask(request(method, "/cgi-bin/nph-say", "", &output));
        assert_eq!((answer.status(), answer.body_text(), answer.text("X")), (status, body, Some("y")), "{output:?}");
        assert_eq!(answer.head.all("Connection"), ["close"], "{output:?}");
        client.ends();
    }
    gateway.server.log_line("of the answer", |line| line.contains("\"POST /cgi-bin/nph-say HTTP/1.1\" 418 15"));
    // Its own `Date` and `Server` are used.
    let answer = gateway.server.ask(request(
        "POST",
        "/cgi-bin/nph-say",
        "",
        "HTTP/1.1 200 OK\r\nServer: me\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n",
    ));
    assert_eq!((answer.head.all("Server"), answer.head.all("Date").len()), (vec!["me"], 1));
    let large = format!("HTTP/1.0 200 OK\r\n\r\n{}", "z".repeat(3_000_000));
    let mut client = gateway.connect();
    let mut other = client.twin();
    let sent = request("POST", "/cgi-bin/nph-say", "", &large);
    let writer = std::thread::spawn(move || other.send(sent));
    assert!(client.response().body.len() == 3_000_000);
    writer.join().expect("everything is sent");
    // Missing bytes are not made up for.
    for (output, reason) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort", "the script ended before the length it announced"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            "the script ended before the length it announced",
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab", "the script's chunks are malformed"),
    ] {
        let mut client = gateway.connect();
        client.send(request("POST", "/cgi-bin/nph-say", "", output));
        assert_eq!(client.head().status, 200);
        assert!(!client.rest_however().0.ends_with(b"0\r\n\r\n"), "{output:?}");
        gateway.server.log_line("of the cut", |line| line.contains(reason));
    }
    for output in [
        "Content-Type: a/b\n\nsecret",
        "HTTP/2 200\r\n\r\nsecret",
        "\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\nsecret",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nsecret",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nsecret",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nsecret",
    ] {
        let answer = gateway.server.ask(request("POST", "/cgi-bin/nph-say", "", output));
        check_error(&answer, 502, "CGI script sent an invalid head ('/cgi-bin/nph-say')");
    }
    for output in ["HTTP/1.1", "HTTP/1.1 200 OK\r\nX: y\r\n", "HTTP/1.1 100 Continue\r\n\r\n", ""] {
        let answer = gateway.server.ask(request("POST", "/cgi-bin/nph-say", "", output));
        check_any_error(&answer, 502);
    }
    gateway.settle();
}

/// Scripts and files on one connection, one after the other and pipelined.
pub fn on_one_connection(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let say = |text: &str| request("POST", "/cgi-bin/say", "", format!("Content-Type: a/b\n\n{text}"));
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes();
    let chunked = |text: &str| {
        let body = testkit::scripts::chunked(format!("Content-Length: {}\n\n{text}", text.len()).as_bytes(), 7);
        [b"POST /cgi-bin/say HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", &body[..]].concat()
    };
    let exchanges: [(Vec<u8>, u16, &str); 10] = [
        (say("one"), 200, "one"),
        (get("/a.txt"), 200, "alpha\n"),
        (get("/cgi-bin/hello"), 200, "hello\n"),
        (chunked("two"), 200, "two"),
        (request("HEAD", "/cgi-bin/hello", "", ""), 200, ""),
        (get("/cgi-bin/hello"), 200, "hello\n"),
        (get("/cgi-bin/refuse"), 403, "no"),
        (get("/folder/inner.txt"), 200, "inner\n"),
        (request("POST", "/cgi-bin/say", "", "Location: /b.html\n\n"), 200, "<p>beta</p>\n"),
        (say("three"), 200, "three"),
    ];
    let mut client = gateway.connect();
    for (request, status, body) in &exchanges {
        let answer = client.ask(request);
        assert_eq!((answer.status(), answer.body_text()), (*status, *body));
    }
    let all: Vec<u8> = exchanges.iter().flat_map(|(request, ..)| request.clone()).collect();
    client.send(all.repeat(2));
    for (request, status, body) in exchanges.iter().chain(&exchanges) {
        let answer = client.response_to(request);
        assert_eq!((answer.status(), answer.body_text()), (*status, *body));
    }
    client.half_close();
    client.ends();
    gateway.settle();
}

/// For a client of HTTP/1.0, and with `-p HTTP/1.0`, a body without a length ends with the connection.
pub fn http_1_0(rt: Runtime) {
    let gateway = Gateway::start(rt);
    for fields in ["", "Connection: keep-alive\r\n"] {
        let mut client = gateway.connect();
        client.send(format!("GET /cgi-bin/hello HTTP/1.0\r\n{fields}\r\n"));
        let answer = client.response();
        assert_eq!((answer.status(), answer.body_text()), (200, "hello\n"));
        assert!(answer.text("Transfer-Encoding").is_none() && answer.head.length().is_none());
        client.ends();
    }
    let mut client = gateway.connect();
    let output = "Content-Type: a/b\nContent-Length: 2\n\nhi";
    let length = format!("Content-Length: {}", output.len());
    client.send(format!("GET /cgi-bin/say HTTP/1.0\r\nConnection: keep-alive\r\n{length}\r\n\r\n{output}"));
    let answer = client.response();
    assert_eq!((answer.body_text(), answer.text("Connection")), ("hi", Some("keep-alive")));
    client.send("GET /cgi-bin/hello HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().body, b"hello\n");
    client.ends();
    gateway.settle();
    let gateway = Gateway::with(rt, &["-p", "HTTP/1.0"]);
    let mut client = gateway.connect();
    client.send("GET /cgi-bin/hello HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = String::from_utf8(client.rest()).expect("text");
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\nhello\n"), "{answer}");
    gateway.settle();
}
