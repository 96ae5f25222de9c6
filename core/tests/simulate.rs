//! Seeded simulation: many clients of all kinds, a faulty network and disk, hours of virtual time.
//! 200 seeds here; `SANSERVE_SEEDS=10000` for more, `SANSERVE_SEED=7` for one. What fails is printed
//! with its seed and the shortest history of the connection that was found to fail too.
//!
//! The corpus of the fuzz targets is replayed here as well.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a test has a console, files and an environment"
)]

mod world;

use std::path::Path;

use world::{bodies, network};

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn seeds() {
    let one = variable("SANSERVE_SEED");
    let seeds = one.map_or(0..variable("SANSERVE_SEEDS").unwrap_or(200), |seed| seed..seed + 1);
    let (mut millis, mut answers) = (0, 0);
    for seed in seeds.clone() {
        match network::live(seed) {
            Ok((lasted, answered)) => {
                millis += lasted;
                answers += answered;
            }
            Err(failure) => {
                eprintln!("SANSERVE_SEED={seed}: {}", failure.what);
                eprintln!("output {}, {:?}", failure.config.limits.output, failure.config.protocol);
                for (at, op) in &failure.history {
                    match op {
                        world::rig::Op::Recv(bytes) => eprintln!("@{at} recv {}", bytes.escape_ascii()),
                        world::rig::Op::Script(bytes) => eprintln!("@{at} script {}", bytes.escape_ascii()),
                        op => eprintln!("@{at} {op:?}"),
                    }
                }
                panic!("seed {seed}: {}", failure.what);
            }
        }
    }
    println!("{} worlds, {} hours, {answers} exchanges", seeds.count(), millis / 3_600_000);
}

#[test]
fn fuzz_corpus() {
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
