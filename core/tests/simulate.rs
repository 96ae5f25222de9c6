//! Seeded simulation: many clients of all kinds, a faulty network and disk, hours of virtual time. Runs 200 seeds;
//! `SANSERVE_SEEDS=10000` for more, `SANSERVE_SEED=7` for one. A failure is printed with its seed and the shortest
//! history of the connection that also fails.
//!
//! The corpus of the fuzz targets is replayed here as well.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a test has a console, files and an environment"
)]

mod world;

use std::collections::BTreeMap;
use std::path::Path;

use world::{bodies, worlds};

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn worlds_break_no_rule() {
    let one = variable("SANSERVE_SEED");
    let seeds = one.map_or(0..variable("SANSERVE_SEEDS").unwrap_or(200), |seed| seed..seed + 1);
    let (mut millis, mut answers, mut statuses) = (0, 0, BTreeMap::new());
    for seed in seeds.clone() {
        match worlds::run(seed) {
            Ok(summary) => {
                millis += summary.lasted;
                answers += summary.requests;
                summary.statuses.into_iter().for_each(|(status, n)| *statuses.entry(status).or_insert(0) += n);
            }
            Err(failure) => panic!("SANSERVE_SEED={seed}: {failure}"),
        }
    }
    println!("{} worlds, {} hours, {answers} exchanges", seeds.count(), millis / 3_600_000);
    // Every kind of response has occurred.
    let all = [200, 201, 204, 206, 301, 302, 303, 304, 400, 403, 404, 408, 411, 502, 503, 504];
    let missing: Vec<u16> = all.into_iter().filter(|status| !statuses.contains_key(status)).collect();
    assert!(one.is_some() || missing.is_empty(), "{missing:?} are missing: {statuses:?}");
}

#[test]
fn the_fuzz_corpus_passes() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, body) in bodies::TARGETS {
        let mut count = 0;
        for entry in std::fs::read_dir(corpus.join(name)).expect("a corpus") {
            let path = entry.expect("an entry").path();
            let data = std::fs::read(&path).expect("a file");
            if let Err(panic) = std::panic::catch_unwind(|| body(&data)) {
                eprintln!("{}", path.display());
                std::panic::resume_unwind(panic);
            }
            count += 1;
        }
        assert!(count > 0, "no corpus for {name}");
    }
}

/// The limits of the harness grow with its input: many large responses take many steps.
#[test]
fn a_session_may_be_long() {
    const CODE: fn(&str) -> u8 = |piece| {
        let at = bodies::PIECES.iter().position(|other| *other == piece).expect("a piece");
        u8::try_from(at).expect("few pieces")
    };
    let [late, big] = ["late", "big"].map(|name| CODE(&format!("GET /h/{name} HTTP/1.1\r\nHost: x\r\n\r\n")));
    // After a request that is not answered yet, as many as fit in the window.
    let input: Vec<u8> = [&[0, 0, late][..], &[0, big].repeat(390)].concat();
    bodies::session(&input);
}

/// Like a short run of a fuzzer: inputs of any length, from random bytes and from pieces of the corpus.
#[test]
fn generated_inputs_pass() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let mut random = world::random::Random::new(14);
    for (name, body) in bodies::TARGETS {
        let mut seeds: Vec<_> = std::fs::read_dir(corpus.join(name))
            .expect("a corpus")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        seeds.sort();
        let seeds: Vec<Vec<u8>> = seeds.iter().map(|path| std::fs::read(path).expect("a file")).collect();
        for n in 0..200 {
            let mut data = Vec::new();
            let most = random.size(1_200);
            while (data.len() as u64) < most {
                if random.one_in(3) {
                    let n = random.size(20);
                    data.extend(random.bytes(n));
                } else {
                    let seed = random.pick(&seeds);
                    let from = usize::try_from(random.below(seed.len() as u64 + 1)).expect("an index");
                    data.extend_from_slice(&seed[from..]);
                }
            }
            if let Err(panic) = std::panic::catch_unwind(|| body(&data)) {
                eprintln!("{name} {n}: {}", data.escape_ascii());
                std::panic::resume_unwind(panic);
            }
        }
    }
}
