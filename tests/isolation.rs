//! What browsers make of the fields for isolation and CORS, in a headless Chromium. Without one, the tests say so and
//! pass.

use testkit::browser::Browser;
use testkit::{Runtime, Server, Tree, eventually};

/// A page with a worker.
fn page() -> Tree {
    let tree = Tree::new();
    tree.file("index.html", "<!DOCTYPE html><title>page</title><script src=\"page.js\"></script>\n")
        .file("page.js", "new Worker('worker.js').onmessage = (event) => { window.told = event.data }\n")
        .file("worker.js", "postMessage(`${crossOriginIsolated} ${typeof SharedArrayBuffer}`)\n")
        .file("data.txt", "0123456789");
    tree
}

fn url(server: &Server) -> String {
    format!("http://localhost:{}/", server.address().port())
}

#[test]
fn pages_and_their_workers_are_isolated() {
    let Some(mut browser) = Browser::start() else { return };
    let tree = page();
    for (flags, is_isolated) in
        [(&[][..], "false"), (&["--isolate"], "true"), (&["--isolate=credentialless", "--nosniff"], "true")]
    {
        let server = Server::with(Runtime::Mio, tree.root(), flags);
        browser.go(&url(&server));
        assert_eq!(browser.ask("crossOriginIsolated"), is_isolated, "{flags:?}");
        eventually("the worker has said", || browser.ask("typeof window.told") == "string");
        assert!(browser.ask("window.told").starts_with(is_isolated), "{flags:?}: {}", browser.ask("window.told"));
        if is_isolated == "true" {
            assert_eq!(browser.ask("new SharedArrayBuffer(8).byteLength"), "8");
        }
    }
}

/// Listings and errors are shown as without the policy that they have.
#[test]
fn pages_of_the_server_obey_their_policy() {
    let Some(mut browser) = Browser::start() else { return };
    let tree = page();
    tree.folder("listed").file("listed/<img src=x onerror=alert(1)>", "x");
    let server = Server::with(Runtime::Mio, tree.root(), &[]);
    for path in ["listed/", "none"] {
        browser.go(&format!("{}{path}", url(&server)));
        assert_eq!(browser.ask("getComputedStyle(document.documentElement).colorScheme"), "light dark", "{path}");
        let script = "Object.assign(document.createElement('script'), {textContent: 'window.ran = true'})";
        browser.ask(&format!("(document.head.append({script}), 0)"));
        assert_eq!(browser.ask("typeof window.ran"), "undefined", "{path}");
    }
    let wrong: Vec<_> = browser
        .complaints()
        .into_iter()
        .filter(|what| what.contains("Content Security Policy") && what.contains("style"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// A page of one origin requests a range from another, which needs a preflight request.
#[test]
fn pages_of_other_origins_read_ranges() {
    let Some(mut browser) = Browser::start() else { return };
    let tree = page();
    let app = Server::with(Runtime::Mio, tree.root(), &[]);
    let origin = url(&app);
    let allow = format!("--cors={}", origin.trim_end_matches('/'));
    for (flags, expected) in [
        (&["--cors"][..], "206 bytes 2-4/10 234"),
        (&[allow.as_str(), "--isolate"], "206 bytes 2-4/10 234"),
        (&["--cors=http://other.example"], "TypeError"),
        (&[], "TypeError"),
    ] {
        let data = Server::with(Runtime::Mio, tree.root(), flags);
        browser.go(&origin);
        let fetch = format!(
            "(window.got = undefined, fetch('{}data.txt', {{headers: {{Range: 'bytes=2-4', 'If-Match': '*'}}}})\
             .then(async (r) => {{ window.got = `${{r.status}} ${{r.headers.get('Content-Range')}} ${{await r.text()}}` }})\
             .catch((error) => {{ window.got = error.name }}), 0)",
            url(&data)
        );
        browser.ask(&fetch);
        eventually("there is a response", || browser.ask("typeof window.got") == "string");
        assert_eq!(browser.ask("window.got"), expected, "{flags:?}");
    }
}
