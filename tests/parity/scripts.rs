//! The cases for scripts: `python3 -m http.server --cgi`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::cases::Case;
use testkit::Tree;
use testkit::scripts::install;

/// Lines end with CR LF, because Python passes on the output of a script unchanged.
const SCRIPTS: &[(&str, &str)] = &[
    ("hello", "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\nhello\\n'\n"),
    ("folder/hello", "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\nbelow\\n'\n"),
    ("two words", "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\nwords\\n'\n"),
    (
        "path",
        "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n%s|%s|%s|%s' \"$SCRIPT_NAME\" \"$PATH_INFO\" \
         \"$PATH_TRANSLATED\" \"$QUERY_STRING\"\n",
    ),
    (
        "variable",
        "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\neval \"printf %s \\\"\\${$QUERY_STRING-not set}\\\"\"\n",
    ),
    ("arguments", "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\nfor a; do printf '[%s]' \"$a\"; done\n"),
    ("body", "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\nexec head -c \"$CONTENT_LENGTH\"\n"),
    ("where", "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\nbasename \"$PWD\"\n"),
    ("status", "#!/bin/sh\nprintf 'Status: 404 Not here\\r\\nContent-Type: text/plain\\r\\n\\r\\ngone\\n'\n"),
    ("elsewhere", "#!/bin/sh\nprintf 'Location: http://x/\\r\\n\\r\\n'\n"),
    ("local", "#!/bin/sh\nprintf 'Location: /a.txt\\r\\n\\r\\n'\n"),
    ("length", "#!/bin/sh\nprintf 'Content-Length: 2\\r\\n\\r\\nhi and more'\n"),
    ("fields", "#!/bin/sh\nprintf 'Content-Type: a/b\\r\\nX-A: y\\r\\nConnection: x\\r\\n\\r\\n'\n"),
    ("silent", "#!/bin/sh\nexit 1\n"),
    ("garbage", "#!/bin/sh\nprintf 'no\\001head\\r\\n\\r\\nbody'\n"),
    ("nph-whole", "#!/bin/sh\nprintf 'HTTP/1.0 299 All\\r\\nX-A: y\\r\\n\\r\\nwhole'\n"),
    ("no-interpreter", "#!/no/such/interpreter\n"),
];

/// Scripts and files.
pub fn tree() -> Tree {
    let tree = super::cases::tree();
    tree.folder("cgi-bin/folder").folder("htbin");
    install(&tree, "cgi-bin", SCRIPTS);
    install(&tree, "htbin", &SCRIPTS[..1]);
    tree.file("cgi-bin/text", "text\n");
    for folder in [tree.path("cgi-bin/folder"), tree.outside().to_owned()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("permissions can be changed");
    }
    fs::set_permissions(tree.path("cgi-bin/text"), fs::Permissions::from_mode(0o644))
        .expect("permissions can be changed");
    tree
}

/// GETs; the name of the case is the target.
const TARGETS: &[&str] = &[
    "/cgi-bin",
    "/cgi-bin/",
    "/cgi-bin/hello",
    "/htbin/hello",
    "/htbin/none",
    "/cgi-bin/none",
    "/cgi-bin/none/x",
    "/cgi-bin/text",
    "/cgi-bin/folder",
    "/cgi-bin/folder/",
    "/cgi-bin/folder/hello",
    "/cgi-bin/folder/none",
    "/cgi-bin/two%20words",
    "/cgi-bin/hello%00",
    "//cgi-bin/hello",
    "/./cgi-bin/hello",
    "/cgi-bin/./hello",
    "/cgi-bin//hello",
    "/folder/../cgi-bin/hello",
    "/%63gi-bin/hello",
    "/cgi-bin%2fhello",
    "/cgi%2Dbin/hello",
    "/cgi-bin/../a.txt",
    "/CGI-BIN/hello",
    "/cgi-bin/path",
    "/cgi-bin/path/",
    "/cgi-bin/path/a",
    "/cgi-bin/path/a/b",
    "/cgi-bin/path/a/b/",
    "/cgi-bin/path/a//b",
    "/cgi-bin/path/a/../b",
    "/cgi-bin/path/a%20b",
    "/cgi-bin/path/%2525",
    "/cgi-bin/path/a?b=%20+c",
    "/cgi-bin/path?",
    "/cgi-bin/path?a?b",
    "/cgi-bin/path?a/b=/..",
    "/cgi-bin/arguments",
    "/cgi-bin/arguments?one",
    "/cgi-bin/arguments?one+two",
    "/cgi-bin/arguments?a%20b",
    "/cgi-bin/arguments?a=b",
    "/cgi-bin/where",
    "/cgi-bin/status",
    "/cgi-bin/elsewhere",
    "/cgi-bin/local",
    "/cgi-bin/length",
    "/cgi-bin/fields",
    "/cgi-bin/silent",
    "/cgi-bin/garbage",
    "/cgi-bin/nph-whole",
    "/cgi-bin/no-interpreter",
];

/// Complete inputs, and a name for each.
const INPUTS: &[(&str, &str)] = &[
    ("cgi-head", "HEAD /cgi-bin/hello HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("cgi-head-none", "HEAD /cgi-bin/none HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("cgi-http-1.0", "GET /cgi-bin/hello HTTP/1.0\r\n\r\n"),
    ("cgi-post", "POST /cgi-bin/body HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"),
    ("cgi-post-nothing", "POST /cgi-bin/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"),
    ("cgi-post-arguments", "POST /cgi-bin/arguments?one HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"),
    ("cgi-post-unread", "POST /cgi-bin/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"),
    ("cgi-post-none", "POST /cgi-bin/none HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"),
    ("cgi-post-file", "POST /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"),
    ("cgi-post-directory", "POST /folder/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"),
    ("cgi-put", "PUT /cgi-bin/hello HTTP/1.1\r\nHost: x\r\n\r\n"),
];

/// Variables that are requested with the fields below and without.
const VARIABLES: &[&str] = &[
    "GATEWAY_INTERFACE",
    "SERVER_SOFTWARE",
    "SERVER_NAME",
    "SERVER_PROTOCOL",
    "REQUEST_METHOD",
    "SCRIPT_NAME",
    "PATH_INFO",
    "PATH_TRANSLATED",
    "REMOTE_ADDR",
    "REMOTE_HOST",
    "REMOTE_USER",
    "AUTH_TYPE",
    "CONTENT_TYPE",
    "CONTENT_LENGTH",
    "HTTP_ACCEPT",
    "HTTP_COOKIE",
    "HTTP_REFERER",
    "HTTP_USER_AGENT",
    "HTTP_HOST",
    "HTTP_X_A",
    "HTTP_PROXY",
    "HTTP_AUTHORIZATION",
    "REQUEST_URI",
    "REQUEST_SCHEME",
    "DOCUMENT_ROOT",
    "SCRIPT_FILENAME",
    "REDIRECT_STATUS",
    "SERVER_ADDR",
    "REMOTE_PORT",
    "OF_SERVER",
];

const FIELDS: &str = "Accept: a/b\r\nAccept: c/d\r\nCookie: a=1\r\nCookie: b=2\r\nReferer: r\r\nUser-Agent: me\r\n\
                      X-A: y\r\nProxy: z\r\nContent-Type: e/f\r\nAuthorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n";

/// All cases.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: String, request: String| cases.push(Case { name, request: request.into_bytes() });
    for target in TARGETS {
        add((*target).to_owned(), format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
    }
    for (name, input) in INPUTS {
        add((*name).to_owned(), (*input).to_owned());
    }
    for name in VARIABLES {
        let request = format!("GET /cgi-bin/variable?{name} HTTP/1.1\r\nHost: x\r\n");
        add(format!("plain {name}"), format!("{request}\r\n"));
        add(format!("with fields {name}"), format!("{request}{FIELDS}\r\n"));
    }
    cases
}
