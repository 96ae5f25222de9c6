//! The corpus of the fuzz target, and generated inputs.

mod body;

use std::path::Path;

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/tls");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

#[track_caller]
fn check(data: &[u8]) {
    if let Err(panic) = std::panic::catch_unwind(|| body::machine(data)) {
        eprintln!("{}", data.escape_ascii());
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn the_corpus_passes() {
    let corpus = corpus();
    assert!(corpus.len() > 5);
    corpus.iter().for_each(|data| check(data));
}

/// Like a short run of a fuzzer: random operations, and pieces of the corpus.
#[test]
fn generated_inputs_pass() {
    let corpus = corpus();
    let mut state = 14_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    for _ in 0..400 {
        let mut data = vec![random(2) as u8];
        let most = random(160);
        while data.len() < most {
            if random(2) == 0 {
                data.extend([random(9) as u8, random(256) as u8]);
            } else {
                let seed = &corpus[random(corpus.len())];
                let from = random(seed.len());
                data.extend_from_slice(&seed[from..]);
            }
        }
        check(&data);
    }
}
