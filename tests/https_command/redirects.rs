//! `--http-redirect`.

use std::net::{Ipv4Addr, SocketAddr};

use rustix::process::Signal;
use testkit::{Client, Runtime, Server, Tree};

use crate::serve;

/// The address of plain HTTP.
fn plain(server: &Server) -> SocketAddr {
    let line = server.process().stdout.line("the redirection", |line| line.starts_with("Redirecting HTTP on "));
    let port = line.split(' ').skip_while(|word| *word != "port").nth(1).expect("a port");
    assert_eq!(line, format!("Redirecting HTTP on 127.0.0.1 port {port} to HTTPS"));
    (Ipv4Addr::LOCALHOST, port.parse().expect("a number")).into()
}

#[test]
fn every_request_is_redirected_to_the_same_url() {
    let (tree, home) = (Tree::plain(), tempfile::tempdir().expect("a temporary directory"));
    for runtime in Runtime::ALL {
        let server = serve(runtime, &tree, home.path(), &["--https=once", "--http-redirect=0", "--hsts=60"]);
        let port = server.address().port();
        let mut client = Client::connect(plain(&server));
        for (request, location) in [
            ("GET /a.txt HTTP/1.1\r\nHost: a.example\r\n\r\n", format!("https://a.example:{port}/a.txt")),
            ("GET /none?x=%20&y HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", format!("https://[::1]:{port}/none?x=%20&y")),
            ("HEAD / HTTP/1.1\r\nHost: 192.0.2.1:8080\r\n\r\n", format!("https://192.0.2.1:{port}/")),
            ("GET //evil.example/ HTTP/1.1\r\nHost: a\r\n\r\n", format!("https://a:{port}/evil.example/")),
            ("GET http://b.example/c HTTP/1.1\r\nHost: a\r\n\r\n", format!("https://b.example:{port}/c")),
            ("DELETE /x HTTP/1.1\r\nHost: a\r\n\r\n", format!("https://a:{port}/x")),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", format!("https://a:{port}/")),
            ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", format!("https://a:{port}/x")),
        ] {
            client.send(request);
            let response = client.response_to(request.as_bytes());
            assert_eq!((response.status(), response.text("Location")), (308, Some(location.as_str())), "{request}");
            assert_eq!((response.body_text(), response.text("Strict-Transport-Security")), ("", None), "{request}");
        }
    }
}

#[test]
fn without_a_host_there_is_nothing_to_redirect_to() {
    let (tree, home) = (Tree::plain(), tempfile::tempdir().expect("a temporary directory"));
    for runtime in Runtime::ALL {
        let server = serve(runtime, &tree, home.path(), &["--https=once", "--http-redirect=0"]);
        for request in [
            "GET /a.txt HTTP/1.0\r\n\r\n",
            "GET /a.txt HTTP/1.0\r\nHost:\r\n\r\n",
            "GET /a.txt HTTP/1.1\r\n\r\n",
            "GET /a.txt HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET /a.txt HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET /a.txt HTTP/1.1\r\nHost: user@a\r\n\r\n",
            "GET /a.txt HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET /a.txt HTTP/1.1\r\nHost: a:80:80\r\n\r\n",
        ] {
            let mut client = Client::connect(plain(&server));
            client.send(request);
            let response = client.response();
            assert_eq!((response.status(), response.text("Location")), (400, None), "{request}");
        }
    }
}

/// Plain HTTP on the port of HTTPS is redirected too.
#[test]
fn plain_http_on_the_port_of_https() {
    let (tree, home) = (Tree::plain(), tempfile::tempdir().expect("a temporary directory"));
    for runtime in Runtime::ALL {
        let server = serve(runtime, &tree, home.path(), &["--https=once", "--hsts=60"]);
        let port = server.address().port();
        let mut client = Client::connect(server.address());
        let response = client.ask(format!("GET /a.txt?b HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"));
        let location = format!("https://localhost:{port}/a.txt?b");
        assert_eq!((response.status(), response.text("Location")), (308, Some(location.as_str())));
        // RFC 6797 section 7.2: "An HSTS Host MUST NOT include the STS header field in HTTP responses conveyed over
        // non-secure transport."
        assert_eq!(response.text("Strict-Transport-Security"), None);
    }
}

#[test]
fn it_ends_with_the_server() {
    let (tree, home) = (Tree::plain(), tempfile::tempdir().expect("a temporary directory"));
    for runtime in Runtime::ALL {
        let mut server = serve(runtime, &tree, home.path(), &["--https=once", "--http-redirect=0"]);
        let mut client = Client::connect(plain(&server));
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response().status(), 308);
        server.process().signal(Signal::TERM);
        assert_eq!(server.process_mut().ended().code(), Some(0));
    }
}
