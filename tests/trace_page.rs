//! `sanserve trace`: the command line, and the page in a real browser.
//!
//! Without Chromium, the tests of the page report that and pass, except in CI. What can be tested without a browser
//! is tested beside the source (`src/page`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sanserve_core::{Call, DefaultPolicy, Reply};
use sanserve_transcript::{Transcript, perform};
use testkit::browser::Browser;
use testkit::eventually;
use testkit::server::program;

/// The example of the documentation: a GET on a connection that is then idle.
const GET: &str = "timeout-keep-alive";

fn transcript(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("core/tests/transcripts/{name}.txt"))
}

fn trace(file: &Path, page: &Path) -> Output {
    Command::new(program()).arg("trace").arg(file).arg("-o").arg(page).output().expect("the program runs")
}

/// The page of a transcript, in a folder that is removed with this value.
struct Page {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Page {
    #[track_caller]
    fn of(text: &str) -> Page {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let (file, path) = (folder.path().join("made.txt"), folder.path().join("page.html"));
        fs::write(&file, text).expect("the file can be written");
        let output = trace(&file, &path);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Page { folder, path }
    }

    #[track_caller]
    fn named(name: &str) -> Page {
        Page::of(&fs::read_to_string(transcript(name)).expect("a transcript of the corpus"))
    }
}

// ---- The command line ----

#[track_caller]
fn refused(output: &Output, code: i32, says: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(said.lines().count(), 1, "not one line: {said}");
    assert!(says.iter().all(|part| said.contains(part)), "{said}");
}

#[test]
fn a_page_goes_to_a_file_or_to_standard_output() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let page = folder.path().join("page.html");
    fs::write(&page, "what was there before").expect("the file can be written");
    let output = trace(&transcript(GET), &page);
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty());
    let written = fs::read(&page).expect("the page was written");
    assert!(written.starts_with(b"<!DOCTYPE html>"));
    let output = Command::new(program()).arg("trace").arg(transcript(GET)).output().expect("the program runs");
    assert!(output.status.success());
    assert_eq!(output.stdout, written);
}

#[test]
fn files_that_are_not_transcripts_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (file, page) = (folder.path().join("a.txt"), folder.path().join("page.html"));
    refused(&trace(&file, &page), 2, &["cannot read", "a.txt"]);
    fs::write(&file, "sanserve transcript 1\n@0 wait read until 15000 idle\n@1 bark\n")
        .expect("the file can be written");
    refused(&trace(&file, &page), 2, &["a.txt: line 3:"]);
    assert!(!page.exists(), "the page was written");
    fs::write(&file, "sanserve transcript 1\n").expect("the file can be written");
    refused(&trace(&file, &folder.path().join("no/page.html")), 1, &["cannot write", "no/page.html"]);
}

#[test]
fn a_transcript_that_differs_is_shown_with_a_message() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (file, page) = (folder.path().join("a.txt"), folder.path().join("page.html"));
    let text = "sanserve transcript 1\n@0 wait read until 15000 idle\n@7 eof\n@7 close idle\n";
    fs::write(&file, text).expect("the file can be written");
    refused(&trace(&file, &page), 1, &["line 4 differs", "expected @7 close idle", "the core did @7 close done"]);
    assert!(fs::read_to_string(&page).expect("the page was written").contains(r#""actual":"@7 close done""#));
    refused(&trace(&transcript("handler-echo"), &page), 1, &["made with the site echo"]);
}

// ---- The page ----

/// The number of the selected step; several, if more than one is selected.
const SELECTED: &str = "[...document.querySelectorAll('.step')].map((row, at) => row.getAttribute('aria-selected') === 'true' ? at + 1 : 0).filter((at) => at).join()";
const SAY: &str = "document.querySelector('.say').textContent";

#[test]
fn keys_walk_through_the_steps() {
    let Some(mut browser) = Browser::start() else { return };
    let page = Page::named(GET);
    browser.open(&page.path, "#3");
    assert_eq!(browser.ask("document.querySelectorAll('.step').length"), "11");
    assert_eq!(browser.ask(SELECTED), "3");
    assert_eq!(
        browser.ask("document.querySelector('.bytes').textContent"),
        "@100 open a.txt -> file 6 @784111700.000000005"
    );
    assert!(browser.ask(SAY).starts_with("The core asks for a.txt"));
    assert_eq!(
        browser.ask("[...document.querySelectorAll('.half .name b')].map((half) => half.textContent)"),
        "Done,Owed"
    );
    for (key, at) in [
        ("ArrowRight", "4"),
        ("ArrowLeft", "3"),
        ("ArrowDown", "4"),
        ("ArrowUp", "3"),
        ("j", "4"),
        ("k", "3"),
        ("Home", "1"),
        ("ArrowLeft", "1"),
        ("PageDown", "11"),
        ("End", "11"),
        ("ArrowRight", "11"),
        ("PageUp", "1"),
        ("x", "1"),
    ] {
        browser.press(key);
        assert_eq!(browser.ask(SELECTED), at, "{key}");
        assert_eq!(browser.ask("location.hash"), format!("#{at}"), "{key}");
    }
    assert!(browser.ask("document.querySelector('[aria-live]').textContent").starts_with("Step 1 of 11, at 0 ms."));
    // The fragment of the address, and the pointer.
    browser.ask("location.hash = '#7'");
    eventually("the step of the address is shown", || browser.ask(SELECTED) == "7");
    browser.ask("document.getElementById('step-4').click()");
    assert_eq!(browser.ask(SELECTED), "4");
    assert_eq!(browser.ask("document.querySelector('.steps').getAttribute('aria-activedescendant')"), "step-4");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_step_shows_the_machine_and_what_each_runtime_does() {
    let Some(mut browser) = Browser::start() else { return };
    let page = Page::named(GET);
    browser.open(&page.path, "#4");
    let machine = "[...document.querySelectorAll('.machine svg')].map((svg) => `${svg.querySelector('.now text').textContent} ${svg.querySelectorAll('g.taken').length}`)";
    assert_eq!(browser.ask(machine), "Done 0,Done 2", "Owed to Body to Done");
    assert_eq!(
        browser.ask("document.querySelector('.half + .half .moves').textContent"),
        "Owed \u{2192} Body head of the response; Body \u{2192} Done last byte, keep-alive"
    );
    assert_eq!(browser.ask("document.querySelector('.coupling .now').textContent"), "Done + Done: next exchange");
    // Each state and each row of the tables is drawn.
    assert_eq!(browser.ask("document.querySelectorAll('.machine rect').length"), "10");
    let rows = sanserve_core::INBOUND.len() + sanserve_core::OUTBOUND.len();
    assert_eq!(browser.ask("document.querySelectorAll('.machine svg path').length"), rows.to_string());
    browser.open(&page.path, "#6");
    assert!(browser.ask("document.querySelector('.timer').textContent").contains("keep-alive"));
    for (key, runtime, call) in [
        ("1", "std", "recvfrom(socket, window, 0)"),
        ("2", "mio", "epoll_wait(all, next deadline)"),
        ("3", "smol", "epoll_pwait(all)"),
    ] {
        browser.press(key);
        assert_eq!(browser.ask("document.querySelector('[aria-pressed=true]').textContent"), runtime);
        let calls =
            browser.ask("[...document.querySelectorAll('.calls li')].map((call) => call.textContent).join('\\n')");
        assert!(
            calls.starts_with("sendto(socket, batch") && calls.lines().any(|line| line == call),
            "{runtime}: {calls}"
        );
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn nothing_in_a_transcript_runs() {
    let Some(mut browser) = Browser::start() else { return };
    let attack = "</script><script>document.title='taken'</script><img src=x onerror=document.title='taken'><!--";
    let inputs =
        format!("sanserve transcript 1\n# {attack}\n@0 recv \"GET /{attack} HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n\"\n");
    let parsed = Transcript::parse(&inputs).expect("a valid transcript");
    let text = perform(&parsed, &DefaultPolicy, &mut |_: Call, _: &mut Reply<'_>| Ok(())).to_text();
    let page = Page::of(&text);
    browser.open(&page.path, "#2");
    assert_eq!(browser.ask("document.title"), "made.txt - sanserve trace");
    assert_eq!(browser.ask("document.images.length + document.scripts.length"), "2", "the data and the script");
    assert!(browser.ask("document.querySelector('.bytes').textContent").contains(attack), "the text is not shown");
    assert!(browser.ask("document.querySelector('.about').textContent").contains(attack), "the text is not shown");
    assert_eq!(browser.complaints(), Vec::<String>::new());
    // Even if a script got into the page, the policy would not let it run.
    let page_text = fs::read_to_string(&page.path).expect("the page was written");
    let broken = page_text.replace(
        "<main",
        "<script>document.title='taken'</script><img src='data:,' onerror=\"document.title='taken'\"><main",
    );
    let path = page.folder.path().join("broken.html");
    fs::write(&path, broken).expect("the file can be written");
    browser.open(&path, "#2");
    assert_eq!(browser.ask("document.title"), "made.txt - sanserve trace");
    assert_ne!(browser.complaints(), Vec::<String>::new(), "the policy has not blocked it");
}

#[test]
fn a_difference_is_shown_where_it_is() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = tempfile::tempdir().expect("a temporary directory");
    let page = folder.path().join("page.html");
    trace(&transcript("handler-echo"), &page);
    browser.open(&page, "#2");
    assert_eq!(browser.ask("document.querySelector('.notice').hidden"), "true");
    browser.press("ArrowRight");
    let notice = browser.ask("document.querySelector('.notice').textContent");
    assert!(notice.starts_with("Transcript: @0 call request") && notice.contains("(line 11)"), "{notice}");
    // Both sides, in the diagram and in full.
    let sides = browser.ask("[...document.querySelectorAll('.differs .sides dd')].map((side) => side.textContent)");
    let (told, said) = sides.split_once(',').expect("two");
    assert!(told == "@0 call request" && said == "@0 send", "{sides}");
    let instead = browser.ask("document.querySelector('.instead:not([hidden]) .bytes').textContent");
    assert!(instead.starts_with("@0 send"), "{instead}");
    assert_eq!(browser.ask("document.querySelectorAll('.step.untold').length"), "7");
    assert_eq!(browser.ask("document.querySelectorAll('.machine .now').length"), "0", "no state is shown");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// A large file, and another request pipelined after it, for a client that does not read immediately.
const UNSENT: &str = "sanserve transcript 1
@0 wait read until 15000 idle
@5 recv \"GET /large HTTP/1.1\\r\\nHost: x\\r\\n\\r\\nGET /b HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n\"
@5 open large -> file 43000000
@5 send 200 ..
    -> 1000000 blocked
@5 wait write until 120005
@900 writable
@900 send file 999832+42000168
@900 finished 200 43000000 \"GET /large HTTP/1.1\"
@900 open b -> file 6
@900 send 200 ..
@900 finished 200 6 \"GET /b HTTP/1.1\"
@900 wait read until 15900 idle
";

/// A file that was announced is not sent yet, and the next exchange waits for it.
#[test]
fn unsent_bytes_are_shown() {
    let Some(mut browser) = Browser::start() else { return };
    let page = Page::of(UNSENT);
    let outbound = "document.querySelector('.half + .half .name b').textContent";
    let next = "document.querySelectorAll('.coupling .now').length";
    let dashed = "document.querySelectorAll('.machine svg.unsent').length";
    for (step, says, lit, is_dashed) in [
        (4, "Done \u{2013} 42,000,168 bytes still to be sent", "0", "1"),
        (5, "Done \u{2013} 42,000,168 bytes still to be sent", "0", "1"),
        (7, "Done", "1", "0"),
    ] {
        browser.open(&page.path, &format!("#{step}"));
        assert_eq!(browser.ask(outbound), says, "step {step}");
        assert_eq!(browser.ask(next), lit, "step {step}");
        assert_eq!(browser.ask(dashed), is_dashed, "step {step}");
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn two_requests_in_one_piece_are_two() {
    let Some(mut browser) = Browser::start() else { return };
    let page = Page::of(UNSENT);
    browser.open(&page.path, "#2");
    let labels = "[...document.querySelectorAll('#step-2 .label')].map((label) => label.textContent)";
    assert_eq!(browser.ask(labels), "GET /large HTTP/1.1,GET /b HTTP/1.1");
    assert!(browser.ask(SAY).contains("with 2 requests"), "{}", browser.ask(SAY));
}

/// On a small landscape screen such as that of a projector, the text of a step, the keys and the legend are all
/// visible.
#[test]
fn nothing_essential_is_below_the_fold() {
    let Some(mut browser) = Browser::start() else { return };
    let page = Page::of(UNSENT);
    for (width, height) in [(1024, 768), (1280, 720), (1920, 1080)] {
        browser.resize(width, height);
        for step in [1, 2, 4, 5, 11] {
            browser.open(&page.path, &format!("#{step}"));
            // No panel is so small that its text would overlap the next one.
            let squeezed = "[...document.querySelectorAll('.stage > .wide')].filter((panel) => panel.scrollHeight > panel.clientHeight + 1).map((panel) => panel.className)";
            assert_eq!(browser.ask(squeezed), "", "{width} x {height}, step {step}");
            if step == 1 {
                // This step has more system calls than fit.
                continue;
            }
            let below = "['.controls', '.step[aria-selected=true]', '.say', '.machine svg', '.half + .half svg', '.facts', '.coupling', '.clocks', '.stage > .panel:last-child h2', '.operation h3', 'footer', 'footer span:last-child'].filter((each) => [...document.querySelectorAll(each)].some((found) => { const box = found.getBoundingClientRect(); return box.height === 0 || box.top < 0 || box.bottom > innerHeight; }) || !document.querySelector(each))";
            assert_eq!(browser.ask(below), "", "{width} x {height}, step {step}");
            assert_eq!(browser.ask("document.documentElement.scrollHeight"), height.to_string(), "{width} x {height}");
        }
        let legend = browser.ask("document.querySelector('footer').textContent");
        assert!(
            ["output of the core", "input to the core", "more to send", "Home"]
                .iter()
                .all(|sign| legend.contains(sign))
        );
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn it_fits_every_width_in_light_and_dark() {
    let Some(mut browser) = Browser::start() else { return };
    let page = Page::named("cgi-post");
    for scheme in ["light", "dark"] {
        browser.show_on("screen", scheme);
        for (width, height) in [(400, 800), (820, 1180), (1024, 768), (1280, 720), (1920, 1080)] {
            browser.resize(width, height);
            browser.open(&page.path, "#4");
            assert_eq!(browser.ask("document.documentElement.dataset.theme"), scheme);
            // Only elements that scroll by themselves are wider than the window.
            assert_eq!(browser.ask("document.documentElement.scrollWidth"), width.to_string(), "{scheme}, {width}");
            let buttons = browser.ask("[...document.querySelectorAll('button')].filter((button) => { const box = button.getBoundingClientRect(); return box.left < 0 || box.right > innerWidth || box.top < 0; }).length");
            assert_eq!(buttons, "0", "{scheme}, {width}");
        }
        // WCAG 2.2, 1.4.3: the contrast of text is at least 4.5 to 1.
        let contrast = "(() => {
            const style = getComputedStyle(document.documentElement);
            const light = (name) => {
                const hex = style.getPropertyValue(name).trim();
                const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255)
                    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const pairs = ['ink panel', 'ink marked', 'ink code', 'ink ground', 'soft panel', 'soft ground', 'soft marked',
                'soft pure', 'ink pure', 'said panel', 'said marked', 'told panel', 'told marked', 'mark panel', 'mark marked', 'wrong panel',
                'on said', 'on wrong'];
            return pairs.filter((pair) => {
                const [a, b] = pair.split(' ').map((name) => light(`--${name}`)).sort((a, b) => b - a);
                return !((a + 0.05) / (b + 0.05) >= 4.5);
            }).join();
        })()";
        assert_eq!(browser.ask(contrast), "", "{scheme}");
    }
    browser.press("t");
    assert_eq!(browser.ask("document.documentElement.dataset.theme"), "light");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn each_step_is_printed_in_words() {
    let Some(mut browser) = Browser::start() else { return };
    let page = Page::named("pipelining");
    browser.show_on("print", "dark");
    browser.open(&page.path, "#3");
    browser.ask("dispatchEvent(new Event('beforeprint'))");
    let shown = |selector: &str| {
        format!(
            "[...document.querySelectorAll('{selector}')].filter((each) => each.getClientRects().length > 0).length"
        )
    };
    assert_eq!(browser.ask(&shown(".step .print")), "14");
    assert_eq!(browser.ask(&shown("button")), "0");
    assert_eq!(browser.ask(&shown(".machine svg")), "2");
    assert_eq!(browser.ask("getComputedStyle(document.body).color"), "rgb(0, 0, 0)", "the text is printed in black");
    assert!(browser.ask("document.querySelector('#step-2 .print').innerText").contains("recvfrom(socket, window, 0)"));
    assert!(browser.print().starts_with("JVBERi0"), "a PDF in base64");
    browser.ask("dispatchEvent(new Event('afterprint'))");
    assert_eq!(browser.ask("document.querySelectorAll('.step .print').length"), "0");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn walking_through_thousands_of_steps_takes_constant_work() {
    let Some(mut browser) = Browser::start() else { return };
    let mut inputs = String::from("sanserve transcript 1\n@0 wait read until 15000 idle\n");
    for at in 1..=1000 {
        inputs.push_str(&format!(
            "@{at} recv \"GET /{at} HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n\"\n@{at} open {at} -> file 6\n"
        ));
    }
    let parsed = Transcript::parse(&inputs).expect("a valid transcript");
    let played = perform(&parsed, &DefaultPolicy, &mut |_: Call, _: &mut Reply<'_>| Ok(()));
    let page = Page::of(&played.to_text());
    browser.open(&page.path, "#2500");
    assert_eq!(browser.ask("document.querySelectorAll('.step').length"), "5001");
    assert_eq!(browser.ask(SELECTED), "2500");
    let is_seen = "(() => { const [box, row] = ['.sequence', '[aria-selected=true]'].map((each) => document.querySelector(each).getBoundingClientRect()); return row.top >= box.top && row.bottom <= box.bottom + 1; })()";
    eventually("the step is in view", || browser.ask(is_seen) == "true");
    for key in ["End", "Home", "PageDown", "ArrowRight"] {
        browser.press(key);
        eventually("the step is in view", || browser.ask(is_seen) == "true");
    }
    assert_eq!(browser.ask(SELECTED), "12");
    // A step only modifies its own row and the previous one, however many there are.
    let touched = "(() => {
        let touched = 0;
        const watch = new MutationObserver((changes) => { touched += changes.length; });
        watch.observe(document.querySelector('.steps'), { subtree: true, childList: true, attributes: true });
        for (let i = 0; i < 10; i++) document.dispatchEvent(new KeyboardEvent('keydown', { key: 'j' }));
        touched += watch.takeRecords().length;
        return touched <= 40;
    })()";
    assert_eq!(browser.ask(touched), "true");
    assert_eq!(browser.ask(SELECTED), "22");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
