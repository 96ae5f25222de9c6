//! A headless browser: Chromium, controlled over a pipe (the DevTools protocol).
//!
//! Queries are JavaScript expressions and answers are text, so that no JSON needs to be parsed here.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use crate::wait::{TIMEOUT, eventually};

/// The names under which Chromium may be installed.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// How Chromium is started: without any network traffic of its own. It only loads pages that the tests have made, so
/// it does not need its sandbox, which does not work as root and in containers. It expects its pipe at descriptors 3
/// and 4.
const START: &str = r#"exec "$0" --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
    --disable-background-networking --disable-component-update --disable-sync --hide-scrollbars \
    --remote-debugging-pipe --user-data-dir="$1" 3<&0 4>&1 1>&2"#;

/// A browser with one page. Dropping it ends the browser.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<String>,
    /// Events that were received between answers, in which errors are looked for.
    events: Vec<String>,
    session: String,
    last: u32,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser. `None`: none is installed. In CI this panics.
    #[track_caller]
    pub fn start() -> Option<Browser> {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&paths)
            .flat_map(|path| NAMES.map(|name| path.join(name)))
            .find(|path| path.is_file());
        let Some(program) = found else {
            assert!(std::env::var_os("CI").is_none(), "CI needs a browser; on Debian: apt-get install chromium");
            eprintln!("no page was checked: Chromium is not installed; on Debian: apt-get install chromium");
            return None;
        };
        let profile = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new("sh");
        command.args(["-c", START]).arg(program).arg(profile.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("sh");
        let (to, out) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let (said, from) = mpsc::channel();
        thread::spawn(move || {
            for message in BufReader::new(out).split(0) {
                let Ok(message) = message else { return };
                if said.send(String::from_utf8_lossy(&message).into_owned()).is_err() {
                    return;
                }
            }
        });
        let mut browser =
            Browser { child, to, from, events: Vec::new(), session: String::new(), last: 0, _profile: profile };
        let target = text_of(&browser.tell("Target.createTarget", r#"{"url":"about:blank"}"#), "targetId");
        let attach = format!(r#"{{"targetId":"{target}","flatten":true}}"#);
        browser.session = text_of(&browser.tell("Target.attachToTarget", &attach), "sessionId");
        for domain in ["Page", "Runtime", "Log"] {
            browser.tell(&format!("{domain}.enable"), "{}");
        }
        Some(browser)
    }

    /// Opens a file at a fragment, and waits until its script has run.
    #[track_caller]
    pub fn open(&mut self, page: &Path, fragment: &str) {
        // The same file with another fragment would not be loaded again.
        self.tell("Page.navigate", r#"{"url":"about:blank"}"#);
        let url = format!("file://{}{fragment}", page.display());
        self.tell("Page.navigate", &format!(r#"{{"url":{}}}"#, quoted(&url)));
        eventually("the page is loaded", || {
            self.ask("location.protocol + document.readyState + Boolean(document.querySelector('header'))")
                == "file:completetrue"
        });
    }

    /// Opens a URL, and waits until the page is complete.
    #[track_caller]
    pub fn go(&mut self, url: &str) {
        self.tell("Page.navigate", &format!(r#"{{"url":{}}}"#, quoted(url)));
        eventually("the page is loaded", || {
            self.ask("document.readyState + location.href") == format!("complete{url}")
        });
    }

    /// Evaluates an expression, and returns its value as text.
    #[track_caller]
    pub fn ask(&mut self, expression: &str) -> String {
        // In hexadecimal nothing needs to be unescaped.
        let hex = format!(
            "Array.from(new TextEncoder().encode(String({expression})), (b) => b.toString(16).padStart(2, '0')).join('')"
        );
        let answer =
            self.tell("Runtime.evaluate", &format!(r#"{{"expression":{},"returnByValue":true}}"#, quoted(&hex)));
        assert!(!answer.contains("exceptionDetails"), "{expression}: {answer}");
        let hex = text_of(&answer, "value");
        let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
        String::from_utf8((0..hex.len()).step_by(2).map(digits).collect()).expect("UTF-8")
    }

    /// Presses and releases a key.
    #[track_caller]
    pub fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            self.tell("Input.dispatchKeyEvent", &format!(r#"{{"type":"{kind}","key":"{key}","code":"{key}"}}"#));
        }
    }

    /// Sets the size of the window.
    #[track_caller]
    pub fn resize(&mut self, width: u32, height: u32) {
        let size = format!(r#"{{"width":{width},"height":{height},"deviceScaleFactor":1,"mobile":false}}"#);
        self.tell("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Emulates a medium, `screen` or `print`, with the colour scheme `light` or `dark`.
    #[track_caller]
    pub fn show_on(&mut self, media: &str, scheme: &str) {
        let features = format!(r#"[{{"name":"prefers-color-scheme","value":"{scheme}"}}]"#);
        self.tell("Emulation.setEmulatedMedia", &format!(r#"{{"media":"{media}","features":{features}}}"#));
    }

    /// Prints the page, and returns the document in base64.
    #[track_caller]
    pub fn print(&mut self) -> String {
        let printed = self.tell("Page.printToPDF", r#"{"printBackground":true}"#);
        text_of(&printed, "data")
    }

    /// The errors so far: exceptions, and violations of the content security policy.
    #[track_caller]
    pub fn complaints(&mut self) -> Vec<String> {
        // All events of the page come before the answer.
        self.ask("0");
        let is_one = |event: &&String| {
            ["Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening"]
                .iter()
                .any(|name| event.contains(name))
        };
        self.events.iter().filter(is_one).cloned().collect()
    }

    /// Calls a method of the protocol and waits for its result.
    #[track_caller]
    fn tell(&mut self, method: &str, parameters: &str) -> String {
        self.last += 1;
        let session =
            if self.session.is_empty() { String::new() } else { format!(r#","sessionId":"{}""#, self.session) };
        let message = format!(r#"{{"id":{},"method":"{method}","params":{parameters}{session}}}"#, self.last);
        self.to
            .write_all(message.as_bytes())
            .and_then(|()| self.to.write_all(b"\0"))
            .expect("the browser reads its pipe");
        let mine = format!(r#"{{"id":{},"#, self.last);
        loop {
            let said = self.from.recv_timeout(TIMEOUT).unwrap_or_else(|error| panic!("{method}: {error}"));
            if said.starts_with(&mine) {
                assert!(!said.starts_with(&format!(r#"{mine}"error""#)), "{method}: {said}");
                return said;
            }
            self.events.push(said);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The text of a field that contains no escapes.
#[track_caller]
fn text_of(json: &str, field: &str) -> String {
    let (_, rest) = json.split_once(&format!(r#""{field}":""#)).unwrap_or_else(|| panic!("no {field} in {json}"));
    rest.split_once('"').expect("a closing quote").0.to_owned()
}

/// A string of JSON.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
