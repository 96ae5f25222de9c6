//! `sanserve sim`: the same seed prints the same, and invalid arguments are refused.

use std::process::{Command, Output};

fn sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sanserve")).arg("sim").args(arguments).output().expect("the program runs")
}

#[track_caller]
fn summary(arguments: &[&str]) -> String {
    let output = sim(arguments);
    let error = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{arguments:?}: {error}");
    let mut lines: Vec<&str> = error.lines().collect();
    assert!(lines.pop().is_some_and(|line| line.starts_with("sanserve: no rule was broken")), "{error}");
    assert!(lines.iter().all(|line| line.ends_with("times as fast as real time")), "{error}");
    String::from_utf8(output.stdout).expect("text")
}

/// The last word of the line that begins with `name`.
fn value<'s>(summary: &'s str, name: &str) -> &'s str {
    let line = summary.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {summary}"));
    line.split_whitespace().next_back().expect("a value")
}

#[test]
fn the_same_seed_prints_the_same() {
    let first = summary(&["--seed", "7", "--connections", "40"]);
    assert_eq!(first, summary(&["--seed=7", "--connections=40", "--for=60m", "--faults=all"]));
    let other = summary(&["--seed", "8", "--connections", "40"]);
    assert_ne!(value(&first, "hash"), value(&other, "hash"));
    assert_eq!((value(&first, "seed"), value(&first, "connections")), ("7", "40"));
    assert_eq!(value(&first, "hash").len(), 32);
    // Several worlds are those of consecutive seeds.
    assert_eq!(summary(&["--seed=7", "--seeds=2", "--connections=40"]), format!("{first}\n{other}\n"));
}

#[test]
fn an_hour_with_a_hundred_clients_takes_less_than_a_thousandth() {
    let began = std::time::Instant::now();
    let text = summary(&[]);
    // Also without optimization, on a busy machine.
    assert!(began.elapsed().as_millis() < 3_600, "{:?}", began.elapsed());
    assert_eq!((value(&text, "seed"), value(&text, "connections")), ("1", "100"));
    for timer in ["keep-alive", "head", "body", "write", "linger"] {
        assert_ne!(value(&text, &format!("timeout {timer}")), "0", "{text}");
    }
    for status in ["200", "206", "304", "400", "404", "408"] {
        assert_ne!(value(&text, &format!("  status {status}")), "0", "{text}");
    }
}

#[test]
fn without_faults_nothing_goes_wrong() {
    let text = summary(&["--faults", "none", "--for", "30m"]);
    for timer in ["head", "body", "write"] {
        assert_eq!(value(&text, &format!("timeout {timer}")), "0", "{text}");
    }
    assert!(!text.contains("close broken") && !text.contains("status 408"), "{text}");
}

#[test]
fn invalid_arguments_are_refused() {
    for arguments in [
        &["--seed", "x"][..],
        &["--seed", "-1"],
        &["--connections", "0"],
        &["--seeds", "0"],
        &["--faults", "splitt"],
        &["--faults", ""],
        &["--for", "0"],
        &["--for", "0s"],
        &["--for", "1y"],
        &["--no-such-flag"],
        &["7"],
    ] {
        let output = sim(arguments);
        let error = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert_eq!(error.lines().filter(|line| line.contains("error: ")).count(), 1, "{arguments:?}: {error}");
        assert!(error.starts_with("usage: sanserve sim") && output.stdout.is_empty(), "{arguments:?}: {error}");
    }
}
