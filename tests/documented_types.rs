//! The documentation of each type that people start from has an example, which is run with the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Types that the crates of the runtimes do not export themselves, by their crate: those of policies, of tests, and of
/// drivers.
const OTHERS: [(&str, &[&str]); 2] = [
    (
        "core",
        &[
            "Authenticated",
            "Buffers",
            "Chunked",
            "Connection",
            "ContentCoding",
            "Context",
            "DefaultPolicy",
            "Entry",
            "ErrorPage",
            "Fields",
            "FileHandle",
            "HeadWriter",
            "Input",
            "MediaTypes",
            "Memory",
            "Now",
            "Observer",
            "Step",
            "Tick",
            "Tracker",
            "UpgradeState",
            "Wall",
        ],
    ),
    ("server", &["CacheLimits", "Logger"]),
];

/// Parts of others, whose examples show them.
const PARTS: [&str; 2] = ["BoxedAnswer", "RequestsIter"];

/// Where the exported types of a runtime are defined.
const CRATES: [&str; 6] = ["core", "os", "server", "frontend-std", "frontend-mio", "frontend-smol"];

/// The names of the types that `lib.rs` exports.
fn exported(lib: &str) -> BTreeSet<String> {
    let uses = lib.split("\npub use ").skip(1).filter_map(|rest| rest.split_once(';')).map(|(names, _)| names);
    let words = uses.flat_map(|names| names.split(|c: char| !c.is_alphanumeric() && c != '_'));
    let own = lib.split("\npub struct ").skip(1).filter_map(|rest| rest.split([' ', '<', ';']).next());
    let names = words.chain(own).filter(|name| name.starts_with(|c: char| c.is_ascii_uppercase()));
    names.map(str::to_owned).collect()
}

/// The sources in a directory, and below it.
fn sources(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![fs::read_to_string(&path).expect("a source")],
        })
        .collect()
}

/// Whether a line defines the type. Some are defined by a macro, as `Call {`, or as the only one of it.
fn defines(line: &str, name: &str) -> bool {
    let line = line.trim();
    let rest = ["pub struct ", "pub enum ", "pub trait "].iter().find_map(|start| line.strip_prefix(start));
    let found = rest.unwrap_or(line).strip_prefix(name);
    found.is_some_and(|after| (rest.is_some() && !after.starts_with(|c: char| c.is_alphanumeric())) || after == " {")
        || (name == "Limits" && line == "{")
}

/// The documentation before each definition of the type.
fn documentation<'s>(source: &'s str, name: &'s str) -> impl Iterator<Item = String> + 's {
    let lines: Vec<&str> = source.lines().collect();
    let places: Vec<usize> = (0..lines.len()).filter(|&at| defines(lines[at], name)).collect();
    places.into_iter().map(move |at| {
        let before = lines[..at].iter().rev().take_while(|line| {
            let line = line.trim();
            line.starts_with("///") || !(line.is_empty() || line.ends_with(['{', '}', ';']))
        });
        let mut docs: Vec<&str> = before.copied().filter(|line| line.trim().starts_with("///")).collect();
        docs.reverse();
        docs.join("\n")
    })
}

#[test]
fn each_type_that_people_start_from_has_an_example() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wanted: Vec<(&str, String)> = Vec::new();
    for runtime in ["frontend-std", "frontend-mio", "frontend-smol"] {
        let lib = fs::read_to_string(root.join(runtime).join("src/lib.rs")).expect("a source");
        let names = exported(&lib);
        assert!(names.len() > 30 && names.contains("Server") && names.contains("Request"), "{runtime}: {names:?}");
        wanted.extend(names.into_iter().filter(|name| !PARTS.contains(&&**name)).map(|name| (runtime, name)));
    }
    for (krate, names) in OTHERS {
        wanted.extend(names.iter().map(|&name| (krate, name.to_owned())));
    }
    let all: BTreeMap<&str, Vec<String>> =
        CRATES.into_iter().map(|krate| (krate, sources(&root.join(krate).join("src")))).collect();
    let mut missing = BTreeSet::new();
    for (krate, name) in &wanted {
        // Where the crate does not define it, it is that of one below.
        let places = [*krate].into_iter().chain(CRATES.into_iter().filter(|other| !other.starts_with("frontend-")));
        let sources = places.flat_map(|place| &all[place]).filter(|source| source.contains(name.as_str()));
        let docs = sources.flat_map(|source| documentation(source, name));
        let docs: Vec<String> = docs.filter(|docs| !docs.is_empty()).collect();
        let documented = docs.iter().any(|docs| docs.contains("```"));
        if !documented {
            missing.insert(format!("{krate}: {name}, {}", if docs.is_empty() { "not found" } else { "no example" }));
        }
    }
    assert!(wanted.len() > 120, "{} types", wanted.len());
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn definitions_are_recognized() {
    for (line, name, is_one) in [
        ("pub struct Call<'a> {", "Call", true),
        ("pub enum Call {", "Call", true),
        ("    Call {", "Call", true),
        ("pub struct Caller;", "Call", false),
        ("    Call { a: 1 }", "Call", false),
        ("impl Call {", "Call", false),
        ("pub struct Wall(pub i64);", "Wall", true),
    ] {
        assert_eq!(defines(line, name), is_one, "{line}");
    }
    let source = "use a;\n\n/// One.\n///\n/// ```\n/// a\n/// ```\n#[derive(A)]\npub struct A;\n";
    assert_eq!(documentation(source, "A").collect::<Vec<_>>(), ["/// One.\n///\n/// ```\n/// a\n/// ```"]);
}
