//! `docs/conformance.md` names a test for each requirement. This checks that all of them exist.

use std::fs;
use std::path::Path;

/// The tests in the last column of each row, with the row.
fn named() -> Vec<(String, String)> {
    let text = read("docs/conformance.md");
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Section"));
    let last = |row: &str| row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default().to_owned();
    rows.flat_map(|row| {
        let cell = last(row);
        let names: Vec<String> = cell.split(", ").map(|name| name.trim_matches('`').to_owned()).collect();
        names.into_iter().map(|name| (name, row.to_owned())).collect::<Vec<_>>()
    })
    .collect()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn exists(name: &str) -> bool {
    let has = |file: &str, function: &str| read(file).contains(&format!("fn {function}("));
    match name.split_once(": ") {
        None => name == "-",
        Some(("transcript", file)) => {
            Path::new(env!("CARGO_MANIFEST_DIR")).join("core/tests/transcripts").join(file).exists()
        }
        Some(("served", case)) => {
            let Some((subject, case)) = case.split_once("::") else { return false };
            has(&format!("tests/served/{subject}.rs"), case)
        }
        Some(("embedding", case)) => has("tests/embedding.rs", case),
        Some(("https", case)) => has("tests/https.rs", case),
        Some(("core", test)) => match test.split_once(' ') {
            Some((file, function)) => has(&format!("core/{file}"), function),
            None => {
                let Some((module, function)) = test.split_once("::tests::") else { return false };
                let file = format!("core/src/{}", module.replace("::", "/"));
                let is_file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{file}.rs")).exists();
                has(&if is_file { format!("{file}.rs") } else { format!("{file}/mod.rs") }, function)
            }
        },
        Some(_) => false,
    }
}

#[test]
fn every_named_test_exists() {
    let named = named();
    assert!(named.len() > 150, "the table has only {} names", named.len());
    let missing: Vec<_> = named.iter().filter(|(name, _)| !exists(name)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn a_missing_test_is_noticed() {
    for name in [
        "transcript: none.txt",
        "served: files::none",
        "core: wire::head::tests::none",
        "core: tests/split.rs none",
        "x",
    ] {
        assert!(!exists(name), "{name}");
    }
}
