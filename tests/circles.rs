//! No two modules of a crate need each other, directly or by way of others, so that each can be read without those that
//! use it. A module and those below it count as one, as seen from its siblings. `core/tests/floors.rs` says more about
//! the core: which module stands on which.

#[path = "../core/tests/imports/mod.rs"]
mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// All crates, by the directories of their sources.
const CRATES: &[&str] = &[
    "core/src",
    "frontend-mio/src",
    "frontend-smol/src",
    "frontend-std/src",
    "os/src",
    "server/src",
    "src",
    "testing/src",
    "testkit/src",
    "tls/src",
    "transcript/src",
];

/// Which modules of one parent use which others.
type Arrows = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_modules_need_each_other() {
    let mut found = Vec::new();
    for source in CRATES {
        for (parent, arrows) in arrows(&Path::new(env!("CARGO_MANIFEST_DIR")).join(source)) {
            found
                .extend(circles(&arrows).into_iter().map(|circle| format!("{source} {parent}: {}", circle.join(", "))));
        }
    }
    assert!(found.is_empty(), "modules need each other: {found:#?}");
}

#[test]
fn a_circle_is_found() {
    let arrows = |all: &[(&str, &[&str])]| -> Arrows {
        all.iter().map(|(from, to)| ((*from).to_owned(), to.iter().map(|to| (*to).to_owned()).collect())).collect()
    };
    assert!(circles(&arrows(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])])).is_empty());
    let two =
        arrows(&[("a", &["b"]), ("b", &["c", "e"]), ("c", &["a"]), ("d", &["a", "e"]), ("e", &["f"]), ("f", &["e"])]);
    assert_eq!(circles(&two), [vec!["a", "b", "c"], vec!["e", "f"]]);
}

/// For each module with submodules, which of these use which others. The root of a crate is `lib`, which uses all.
fn arrows(src: &Path) -> BTreeMap<String, Arrows> {
    let modules = imports::modules(src);
    let paths: BTreeSet<&[String]> =
        modules.iter().flat_map(|module| (1..=module.path.len()).map(|len| &module.path[..len])).collect();
    let mut all = BTreeMap::<String, Arrows>::new();
    for path in &paths {
        let (name, parent) = path.split_last().expect("not the root");
        let siblings = all.entry(parent.join("::")).or_default();
        siblings.entry(name.clone()).or_default();
        if parent.is_empty() {
            siblings.entry("lib".to_owned()).or_default().insert(name.clone());
        }
    }
    let mut seen = 0;
    for module in modules.iter().filter(|module| !module.path.is_empty()) {
        for used in &module.uses {
            seen += 1;
            let common = module.path.iter().zip(used).take_while(|(a, b)| a == b).count();
            let (Some(from), Some(to)) = (module.path.get(common), used.get(common)) else { continue };
            let siblings = all.get_mut(&module.path[..common].join("::")).expect("an entry for each parent");
            let to = match paths.contains(&used[..=common]) {
                true => to.clone(),
                false if common == 0 => "lib".to_owned(),
                false => continue,
            };
            siblings.get_mut(from).expect("an entry for each module").insert(to);
        }
    }
    assert!(seen > 0, "no imports were found in {}", src.display());
    all
}

/// The groups of those that reach each other.
fn circles(arrows: &Arrows) -> Vec<Vec<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        arrows.keys().map(|from| (from, reached_from(arrows, from))).collect();
    let mut circles: Vec<Vec<String>> = reached
        .iter()
        .filter(|(from, to)| to.contains(*from))
        .map(|(from, to)| to.iter().filter(|to| reached[**to].contains(from)).map(|to| (**to).clone()).collect())
        .collect();
    circles.dedup();
    circles.sort_unstable();
    circles.dedup();
    circles
}

fn reached_from<'a>(arrows: &'a Arrows, start: &'a String) -> BTreeSet<&'a String> {
    let (mut reached, mut ahead) = (BTreeSet::new(), vec![start]);
    while let Some(next) = ahead.pop() {
        ahead.extend(arrows.get(next).into_iter().flatten().filter(|to| reached.insert(*to)));
    }
    reached
}
