//! `sanserve conform`: the corpus of the core over real sockets on all three runtimes, and the reports for a corpus
//! that does not match.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::process::Process;
use testkit::server::program;

/// At least this many transcripts of the core's corpus can be played over sockets.
const AT_LEAST: usize = 240;

/// How long the whole corpus may take on a busy machine; alone it takes some seconds.
const WHILE: Duration = Duration::from_secs(120);

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    /// The runtime, the hash and the number of transcripts, for each runtime.
    #[track_caller]
    fn lines(&self) -> Vec<(&str, &str, usize)> {
        let line = |line| {
            let words: Vec<&str> = str::split_whitespace(line).collect();
            assert!(words.len() == 4 && words[3] == "transcripts", "{line}");
            (words[0], words[1], words[2].parse().expect("a number"))
        };
        self.stdout.lines().take(3).map(line).collect()
    }

    #[track_caller]
    fn is_refused(&self, code: i32, says: &str) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{}", self.stderr);
        assert_eq!(self.stderr.lines().count(), 1, "not one line: {}", self.stderr);
        assert!(self.stderr.contains(says), "{}", self.stderr);
    }
}

/// A temporary directory with a corpus, and one for what `conform` builds, which must be empty afterwards.
struct Bench {
    corpus: tempfile::TempDir,
    built: tempfile::TempDir,
}

impl Bench {
    fn new(transcripts: &[(&str, &str)]) -> Bench {
        let fresh = || tempfile::tempdir().expect("a temporary directory");
        let bench = Bench { corpus: fresh(), built: fresh() };
        // The user of the scripts must be able to reach them.
        fs::set_permissions(bench.built.path(), fs::Permissions::from_mode(0o755)).expect("permissions can be changed");
        for (name, text) in transcripts {
            fs::write(bench.corpus.path().join(name), text).expect("a file can be written");
        }
        bench
    }

    #[track_caller]
    fn run(&self, flags: &[&str]) -> Ended {
        self.run_at(self.corpus.path(), flags)
    }

    #[track_caller]
    fn run_at(&self, corpus: &Path, flags: &[&str]) -> Ended {
        let mut command = Command::new(program());
        command.arg("conform").arg(corpus).args(flags).env("TMPDIR", self.built.path());
        let mut process = Process::start(&mut command);
        let code = process.ended_within(WHILE).code();
        let left = fs::read_dir(self.built.path()).expect("the path exists").count();
        assert_eq!(left, 0, "the temporary files are not removed");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Ended { code, stdout: text(process.stdout.bytes()), stderr: text(process.stderr.bytes()) }
    }
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("core/tests/transcripts")
}

/// The transcript in the documentation, which has several times, and ends with a timeout.
fn example() -> String {
    let text = include_str!("../docs/transcripts.md");
    let (_, rest) = text.split_once("```\n").expect("the first block");
    rest.split_once("```\n").expect("its end").0.to_owned()
}

#[test]
fn the_corpus_of_the_core_is_the_same_everywhere() {
    let ended = Bench::new(&[]).run_at(&corpus(), &["-v"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    let lines = ended.lines();
    assert_eq!(lines.iter().map(|line| line.0).collect::<Vec<_>>(), ["mio", "std", "smol"]);
    let (_, hash, played) = lines[0];
    assert!(hash.len() == 32 && lines.iter().all(|line| (line.1, line.2) == (hash, played)), "{lines:?}");
    assert!(played >= AT_LEAST, "{played} of {}", ended.stdout);
    assert_eq!(ended.stdout.lines().last(), Some("same"));
    let all = fs::read_dir(corpus()).expect("the path exists").count();
    let skipped = ended.stdout.lines().filter(|line| line.starts_with("skipped ")).count();
    assert_eq!(played + skipped, all, "each is played, or skipped with a reason");
}

/// Like a recording: it takes more than a moment, and ends with an idle connection.
#[test]
fn a_transcript_with_passing_time_can_be_played() {
    let ended = Bench::new(&[("example.txt", &example()), ("other.md", "no transcript")]).run(&[]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    assert_eq!(ended.lines()[2].2, 1);
}

/// The hash depends on the bytes only: it is the same each time, and different for another response.
#[test]
fn a_hash_depends_on_the_bytes() {
    let longer = example().replace("file 6", "file 7").replace("Length: 6", "Length: 7").replace("5-6", "5-7");
    let longer = longer.replace("file 0+6", "file 0+7").replace("200 6", "200 7");
    let hash = |text: &str| {
        let ended = Bench::new(&[("a.txt", text)]).run(&[]);
        assert_eq!(ended.code, Some(0), "{}", ended.stdout);
        ended.lines()[0].1.to_owned()
    };
    assert_eq!(hash(&example()), hash(&example()));
    assert_ne!(hash(&example()), hash(&longer));
}

#[test]
fn a_wrong_expectation_is_reported() {
    let wrong = example().replace("Accept-Ranges: bytes", "Accept-Ranges: lines");
    let extra =
        example().replace("Accept-Ranges: bytes\\r\\n\"\n", "Accept-Ranges: bytes\\r\\n\"\n    \"X: y\\r\\n\"\n");
    for planted in [wrong, extra] {
        assert_ne!(planted, example());
        let ended = Bench::new(&[("good.txt", &example()), ("planted.txt", &planted)]).run(&[]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(1), ""), "{}", ended.stdout);
        assert!(ended.stdout.contains("planted: transcript and mio differ at byte "), "{}", ended.stdout);
        assert!(ended.stdout.contains("..") && !ended.stdout.contains("good:"), "{}", ended.stdout);
        assert_eq!(ended.stdout.lines().last(), Some("1 difference"));
    }
}

/// A transcript may be hostile: nothing is created outside of the temporary directory.
#[test]
fn nothing_is_created_elsewhere() {
    let bench = Bench::new(&[]);
    let outside = bench.built.path().join("outside");
    for path in ["../../outside", "x/../../../outside", "./a", outside.to_str().expect("text")] {
        let text = example().replace("open a.txt", &format!("open {path}"));
        fs::write(bench.corpus.path().join("a.txt"), text).expect("a file can be written");
        let ended = bench.run(&["-v"]);
        assert_eq!(ended.code, Some(1), "{}", ended.stdout);
        assert!(ended.stdout.contains("skipped a: a path that no server opens"), "{path}: {}", ended.stdout);
    }
}

/// Transcripts that cannot be played are skipped, and if nothing was played, the result is a failure.
#[test]
fn skipped_transcripts_are_listed() {
    let handler = fs::read_to_string(corpus().join("handler-hello.txt")).expect("the path exists");
    let slow = fs::read_to_string(corpus().join("timeout-head.txt")).expect("the path exists");
    let full = fs::read_to_string(corpus().join("blocked.txt")).expect("the path exists");
    let bench = Bench::new(&[("handler.txt", &handler), ("slow.txt", &slow), ("full.txt", &full)]);
    let ended = bench.run(&["--verbose"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(1), ""));
    for line in [
        "skipped handler: it needs the site hello",
        "skipped slow: it depends on time",
        "skipped full: it needs a full socket",
        "3 skipped",
        "nothing was played",
    ] {
        assert!(ended.stdout.lines().any(|other| other == line), "{line} in {}", ended.stdout);
    }
    assert!(!bench.run(&[]).stdout.contains("handler"));
}

#[test]
fn errors() {
    let bench = Bench::new(&[]);
    bench.run(&[]).is_refused(2, "no transcripts");
    bench.run_at(Path::new("/no/such/directory"), &[]).is_refused(2, "/no/such/directory");
    Bench::new(&[("bad.txt", "sanserve transcript 1\n@0 nonsense\n")]).run(&[]).is_refused(2, "bad.txt");
    Bench::new(&[("bad.txt", "sanserve transcript 9\n")]).run(&[]).is_refused(2, "bad.txt");
    let bench = Bench::new(&[]);
    fs::write(bench.corpus.path().join("bytes.txt"), b"\xff").expect("a file can be written");
    bench.run(&[]).is_refused(2, "bytes.txt");
    let usage = Bench::new(&[]).run(&["more"]);
    assert_eq!(usage.code, Some(2));
}
