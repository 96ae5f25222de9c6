//! Splitting changes nothing: each transcript that does not depend on time is replayed with its input cut in every way
//! and its output taken in small pieces.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "reads the corpus")]

mod corpus;

use std::panic::catch_unwind;

use sanserve_transcript::{Event, Finish, Script, Spoken, Take, What};

/// Longer inputs are not cut at every position.
const LONG: usize = 1_500;

/// The number of tests among which the corpus is divided, so that they run in parallel.
const SHARDS: usize = 4;

#[test]
fn splitting_changes_nothing_0() {
    split_all(0);
}

#[test]
fn splitting_changes_nothing_1() {
    split_all(1);
}

#[test]
fn splitting_changes_nothing_2() {
    split_all(2);
}

#[test]
fn splitting_changes_nothing_3() {
    split_all(3);
}

#[test]
fn most_transcripts_can_be_split() {
    let cases = corpus::load();
    let split = cases.iter().filter(|case| Script::of(&case.transcript).is_some()).count();
    assert!(split * 5 > cases.len() * 3, "only {split} of {}", cases.len());
}

fn split_all(shard: usize) {
    let failures: Vec<String> = corpus::load().into_iter().skip(shard).step_by(SHARDS).filter_map(split).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Replays a transcript in every way, and reports the first difference.
fn split(case: corpus::Case) -> Option<String> {
    let script = Script::of(&case.transcript)?;
    let name = &case.transcript.settings.site;
    let expected = Script::told(&case.transcript);
    ways(script.input.len()).into_iter().find_map(|(cuts, take)| {
        let spoken = catch_unwind(|| {
            let (policy, mut handler) = corpus::world(name);
            script.play(&cuts, take, &*policy, &mut *handler)
        });
        let what = match spoken {
            Ok(spoken) if spoken == expected => return None,
            Ok(spoken) => first(&expected, &spoken),
            Err(_) => "  it panicked".into(),
        };
        let few = &cuts[..cuts.len().min(8)];
        Some(format!("{}: {take:?}, {} cuts, at {few:?}..\n{what}", case.name, cuts.len()))
    })
}

/// Where the input is cut, and how the output is taken.
fn ways(len: usize) -> Vec<(Vec<usize>, Take)> {
    let bytewise: Vec<usize> = (1..len).collect();
    let mut ways = Vec::new();
    for take in [Take::All, Take::Bytes(1), Take::Bytes(7), Take::Block(61)] {
        ways.push((Vec::new(), take));
        if len <= LONG || take == Take::All {
            ways.push((bytewise.clone(), take));
        }
    }
    let step = if len <= LONG { 1 } else { len / 50 };
    ways.extend((1..len).step_by(step).map(|cut| (vec![cut], Take::All)));
    let mut random = Random(0x5eed);
    for round in 0..12 {
        let mut cuts: Vec<usize> = (0..1 + round % 5).map(|_| random.below(len.max(1))).collect();
        cuts.sort_unstable();
        ways.push((cuts, if round % 2 == 0 { Take::Bytes(97) } else { Take::Block(1 + random.below(300) as u64) }));
    }
    ways
}

/// The first difference.
fn first(expected: &Spoken, spoken: &Spoken) -> String {
    if expected.finished != spoken.finished {
        let log = |spoken: &Spoken| {
            let event =
                |finish: &Finish| Event { at: 0, joined: false, what: What::Finished(finish.clone()) }.to_string();
            spoken.finished.iter().map(event).collect::<Vec<_>>().join("\n           ")
        };
        return format!("  expected {}\n  actual   {}", log(expected), log(spoken));
    }
    if expected.close != spoken.close {
        return format!("  expected {:?}\n  actual   {:?}", expected.close, spoken.close);
    }
    let at = expected.bytes.iter().zip(&spoken.bytes).take_while(|(a, b)| a == b).count();
    let around = |bytes: &[u8]| bytes[at.saturating_sub(20)..bytes.len().min(at + 40)].escape_ascii().to_string();
    format!("  byte {at}\n  expected {}\n  actual   {}", around(&expected.bytes), around(&spoken.bytes))
}

/// A deterministic generator (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap_or_default()
    }
}
