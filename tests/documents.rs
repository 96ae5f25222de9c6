//! The pages of the repository: their links must be valid, and decisions must have numbers and dates.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sanserve_core::{Rule, Stage};

/// The folders of the crates that are published, apart from the root.
const PUBLISHED: [&str; 9] =
    ["core", "transcript", "testing", "os", "tls", "server", "frontend-std", "frontend-mio", "frontend-smol"];

/// All pages: those at the top, those below `docs`, and those of the crates.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ["", "docs", "docs/learn"].into_iter().chain(PUBLISHED) {
        for entry in fs::read_dir(root.join(folder)).expect("the folder exists") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The text of a page without its code blocks.
fn prose(page: &Path) -> String {
    let text = fs::read_to_string(page).expect("a page");
    let mut in_code = false;
    let lines = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The anchor of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(page: &Path) -> BTreeSet<String> {
    let prose = prose(page);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// The targets of the links of a page.
fn links(page: &Path) -> Vec<String> {
    let prose = prose(page);
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).filter(|target| !target.contains("://")).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut dead = Vec::new();
    let mut count = 0;
    for page in pages() {
        for link in links(&page) {
            count += 1;
            let (file, fragment) = link.split_once('#').map_or((&*link, None), |(file, name)| (file, Some(name)));
            let target = if file.is_empty() { page.clone() } else { page.parent().expect("a folder").join(file) };
            let leads = target.exists() && fragment.is_none_or(|name| anchors(&target).contains(name));
            if !leads {
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(count > 100, "only {count} links");
    assert!(dead.is_empty(), "{dead:#?}");
}

/// Files and directories of the repository that are named must exist.
/// The names in code style at the end of a text, as in "`A` and `B`": where a page says that they are in some file.
fn names_at_end(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some((before, name)) = rest.strip_suffix('`').and_then(|rest| rest.rsplit_once('`')) {
        names.push(name);
        rest = before.strip_suffix(" and ").or_else(|| before.strip_suffix(", ")).unwrap_or("");
    }
    names
}

/// "`NAME` in [`file.rs`](path/file.rs)": names change more often than files do.
#[test]
fn names_are_in_the_file_that_a_page_links_to() {
    let (mut count, mut missing) = (0, Vec::new());
    for page in pages() {
        let prose = prose(&page);
        for (at, _) in prose.match_indices(" in [`") {
            let target = prose[at..].split_once("](").and_then(|(_, rest)| rest.split_once(')'));
            let Some((target, _)) = target.filter(|(target, _)| target.ends_with(".rs")) else { continue };
            let source = fs::read_to_string(page.parent().expect("a folder").join(target)).expect("a source file");
            let words: BTreeSet<&str> = source.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            for name in names_at_end(&prose[..at]) {
                count += 1;
                if !words.contains(name.rsplit("::").next().expect("a name").trim_end_matches("()")) {
                    missing.push(format!("{}: {name} in {target}", page.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(count > 10, "{count}");
}

#[test]
fn every_path_that_is_named_exists() {
    const FOLDERS: [&str; 17] = [
        ".ci",
        "benches",
        "core",
        "docs",
        "examples",
        "frontend-mio",
        "frontend-smol",
        "frontend-std",
        "fuzz",
        "os",
        "server",
        "src",
        "testing",
        "testkit",
        "tests",
        "tls",
        "transcript",
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut dead = Vec::new();
    let mut count = 0;
    for page in pages() {
        let prose = prose(&page);
        for code in prose.split('`').skip(1).step_by(2) {
            let is_path = code.split_once('/').is_some_and(|(first, _)| FOLDERS.contains(&first))
                && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
            if is_path {
                count += 1;
                // `NAME` stands for any name.
                if !code.contains("NAME") && !root.join(code).exists() {
                    dead.push(format!("{}: {code}", page.display()));
                }
            }
        }
    }
    assert!(count > 50, "only {count} paths");
    assert!(dead.is_empty(), "{dead:#?}");
}

/// A page that is published with a crate is read where the rest of the repository is not.
#[test]
fn the_pages_of_crates_do_not_link_outside_their_crate() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in PUBLISHED {
        let links = links(&root.join(folder).join("README.md"));
        assert!(links.contains(&"LICENSE-MIT".to_owned()), "{folder}: {links:?}");
        let outside: Vec<_> = links.iter().filter(|link| link.starts_with("..") || link.starts_with('/')).collect();
        assert!(outside.is_empty(), "{folder}: {outside:?}");
    }
}

/// The table of `docs/rules.md` is that of the core, in the same order.
#[test]
fn the_order_of_rules_is_the_documented_one() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rules.md")).expect("the page");
    let table = text.split_once("| Rule of `explain` |").expect("the table").1;
    let rows: Vec<Vec<&str>> = table
        .lines()
        .skip(2)
        .map_while(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .map(|row| row.split(" | ").map(|cell| cell.trim().trim_matches('`')).collect())
        .collect();
    let stages =
        Stage::ALL.iter().map(|stage| vec![stage.rule(), stage.flag(), stage.sentence().trim_end_matches('.')]);
    assert_eq!(rows, stages.collect::<Vec<_>>());
    let names: BTreeSet<&str> = Rule::ALL.iter().map(|rule| rule.name()).collect();
    let unknown: Vec<_> =
        Stage::ALL.iter().map(|stage| stage.rule()).filter(|name| !name.is_empty() && !names.contains(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn anchors_are_githubs() {
    assert_eq!(anchor(" What `sanserve sim` does: a list"), "what-sanserve-sim-does-a-list");
    assert_eq!(anchor("3. No `unsafe`"), "3-no-unsafe");
}

/// `### 17. Title`, an empty line, and `*2026-11-28.* Context: ..`. Numbers are unique and without gaps.
#[test]
fn decisions_have_numbers_and_dates() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/decisions.md");
    let text = fs::read_to_string(page).expect("the page");
    let lines: Vec<&str> = text.lines().collect();
    let mut numbers = BTreeSet::new();
    for (at, line) in lines.iter().enumerate() {
        assert!(!line.starts_with("**"), "a decision without a number: {line}");
        let Some(heading) = line.strip_prefix("### ") else { continue };
        let number = heading.split_once(". ").and_then(|(number, _)| number.parse::<usize>().ok());
        let number = number.unwrap_or_else(|| panic!("a decision without a number: {line}"));
        assert!(numbers.insert(number), "{number} twice");
        let day = lines.get(at + 2).and_then(|first| first.strip_prefix('*')?.split_once(".* ")).map(|(day, _)| day);
        let form = day.map(|day| day.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>());
        assert_eq!(form.as_deref(), Some("0000-00-00"), "the date of {line}");
    }
    let all: BTreeSet<usize> = (1..=numbers.len()).collect();
    assert!(numbers.len() > 90 && numbers == all, "{:?} are left out", all.difference(&numbers));
}
