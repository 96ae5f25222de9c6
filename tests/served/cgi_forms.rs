//! Programs that are commonly used with CGI: forms, with uploads.

use std::fmt::Write;

use testkit::Runtime;
use testkit::scripts::{Gateway, chunked, request};

const BOUNDARY: &str = "------------------------d74496d66958873e";

/// A binary file, which contains neither the boundary nor text.
fn upload() -> Vec<u8> {
    (0..150_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 | 0x80).collect()
}

fn multipart(parts: &[(&str, Option<&str>, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file, value) in parts {
        let mut head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"");
        if let Some(file) = file {
            write!(head, "; filename=\"{file}\"\r\nContent-Type: application/octet-stream")
                .expect("writing to a String cannot fail");
        }
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(b"\r\n\r\n");
        body.extend_from_slice(value);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

/// A script reports the same fields for each way to send a form.
fn forms(gateway: &Gateway, script: &str) {
    // The sums are those of `printf '%s' value | md5sum`, and of the empty file.
    const FIELDS: [&str; 3] = [
        "name None 10 d8736e14a4bc0a5d2f78f44eb04af4a5\n",
        "note None 5 1ea05573a66cf18c09f0e1bdd5d7ca70\n",
        "blank None 0 d41d8cd98f00b204e9800998ecf8427e\n",
    ];
    let target = format!("/cgi-bin/{script}");
    let text = "name=J%c3%bcrgen+X%26&note=a%3Db%2bc&blank=";
    let mut client = gateway.connect();
    let answer = client.get(format!("{target}?{text}"));
    let reported: Vec<&str> = answer.body_text().split_inclusive('\n').collect();
    assert_eq!(shape(&reported), shape(&FIELDS), "{script}: {answer:?}");
    let urlencoded = "Content-Type: application/x-www-form-urlencoded\r\n";
    let posted = client.ask(request("POST", &target, urlencoded, text));
    assert_eq!(posted.body_text(), answer.body_text(), "{script}");
    let file = upload();
    let parts = [
        ("name", None, "J\u{fc}rgen X&".as_bytes()),
        ("note", None, b"a=b+c"),
        ("blank", None, b""),
        ("file", Some("any thing.bin"), &file),
        ("none", Some("empty.txt"), b""),
    ];
    let body = multipart(&parts);
    let kind = format!("Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n");
    let posted = client.ask(request("POST", &target, &kind, &body));
    let lines = posted.body_text().strip_prefix(answer.body_text()).expect("the same fields first");
    let lines: Vec<&str> = lines.lines().collect();
    let [with_file, empty] = lines[..] else { panic!("two files: {lines:?}") };
    assert!(with_file.starts_with("file any thing.bin 150000 "), "{with_file}");
    assert_eq!(empty, "none empty.txt 0 d41d8cd98f00b204e9800998ecf8427e");
    client.send(format!("POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{kind}\r\n"));
    client.send(chunked(&body, 4_001));
    assert_eq!(client.response().body_text(), posted.body_text(), "{script}: in chunks");
    drop(client);
    gateway.settle();
}

/// Name, file name and length of each field.
fn shape<'l>(lines: &[&'l str]) -> Vec<&'l str> {
    lines.iter().map(|line| line.rsplit_once(' ').expect("four words").0).collect()
}

/// Whether the user of the scripts can run this one. If not, a test reports that and passes, except in CI.
pub fn can_run(gateway: &Gateway, script: &str) -> bool {
    !is_missing(script, gateway.get(format!("/cgi-bin/{script}")).status() != 200)
}

/// Reports that a prerequisite is missing, and fails in CI.
pub fn is_missing(what: &str, missing: bool) -> bool {
    if missing {
        assert!(std::env::var_os("CI").is_none(), "CI needs {what} and its prerequisites");
        eprintln!("{what}, or one of its prerequisites, is missing; it is not tested");
    }
    missing
}

/// With the module `cgi` of Python, if it exists.
pub fn python(rt: Runtime) {
    let gateway = Gateway::start(rt);
    if can_run(&gateway, "fields.py") {
        forms(&gateway, "fields.py");
    }
}

/// With a Perl script that reads its input itself.
pub fn perl(rt: Runtime) {
    let gateway = Gateway::start(rt);
    if can_run(&gateway, "fields.pl") {
        forms(&gateway, "fields.pl");
    }
}

/// With PHP.
pub fn php(rt: Runtime) {
    let gateway = Gateway::start(rt);
    if can_run(&gateway, "fields.php") {
        forms(&gateway, "fields.php");
    }
}
