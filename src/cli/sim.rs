//! `sanserve sim`: simulates hours of virtual time with many clients, a faulty network and a slow disk, in seconds.
//! A seed determines everything, on every machine.

pub(crate) mod served;

use std::process::ExitCode;
use std::time::Instant;

use clap::{Arg, ArgMatches, Command};
use sanserve_testing::{Faults, World};

use super::{SYSTEM, Side, units};

pub(crate) const SIDE: Side = Side { command, run };

/// A year.
const LONGEST: u64 = 365 * 86_400_000;

fn command() -> Command {
    Command::new("sim")
        .about("Simulates many clients and faults in virtual time and checks that every rule holds")
        .arg(
            number("seed", "1", "Seed of the random numbers, which determines everything that happens")
                .value_parser(units::whole(0..=u64::MAX)),
        )
        .arg(
            number("seeds", "1", "Number of worlds to simulate, with consecutive seeds")
                .value_parser(units::whole(1..=1_000_000_u64)),
        )
        .arg(
            number("connections", "100", "Connections in total, spread over the time")
                .value_parser(units::whole(1..=1_000_000_u64)),
        )
        .arg(
            Arg::new("faults")
                .long("faults")
                .value_name("LIST")
                .default_value("all")
                .value_parser(|text: &str| text.parse::<Faults>())
                .help("What goes wrong: split, slow, reset, halfclose, pipeline, shrink-file, slow-disk; all or none"),
        )
        .arg(
            Arg::new("for")
                .long("for")
                .value_name("TIME")
                .default_value("1h")
                .value_parser(duration)
                .help("Virtual time in which connections are made: 90s, 30m, 1h, 2d"),
        )
}

fn number(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("N").default_value(default).help(help)
}

/// A span of virtual time, at most a year.
fn duration(text: &str) -> Result<u64, String> {
    let millis = units::time(text)?;
    if millis > LONGEST { Err(format!("too long: must be at most {}", units::show_time(LONGEST))) } else { Ok(millis) }
}

fn run(matches: &ArgMatches) -> ExitCode {
    let one = |name| *matches.get_one::<u64>(name).expect("has a default");
    let faults = *matches.get_one::<Faults>("faults").expect("has a default");
    let (first, seeds) = (one("seed"), one("seeds"));
    for seed in (0..seeds).map(|n| first.wrapping_add(n)) {
        let began = Instant::now();
        let world = World::new(seed)
            .serving(served::server())
            .requests(served::request)
            .connections(one("connections"))
            .faults(faults)
            .lasting(one("for"));
        match world.try_run() {
            Ok(summary) => {
                print!("{summary}");
                if seeds > 1 {
                    println!();
                }
                // To stderr, since it depends on the machine and is not part of the result.
                let took = began.elapsed().as_secs_f64().max(1e-6);
                let times = summary.lasted as f64 / 1_000.0 / took;
                eprintln!("sanserve: {took:.2} s, {times:.0} times as fast as real time");
            }
            Err(failure) => {
                eprintln!("sanserve: seed {seed}, connection {}: {}", failure.connection, failure.what);
                if !failure.is_alone {
                    eprintln!(
                        "sanserve: replayed alone, this connection breaks no rule; its complete transcript follows"
                    );
                }
                print!("{}", failure.transcript.to_text());
                return ExitCode::from(SYSTEM);
            }
        }
    }
    let worlds = if seeds > 1 { format!(" in {seeds} worlds") } else { String::new() };
    eprintln!("sanserve: no rule was broken{worlds}");
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [("90s", 90_000), ("30m", 1_800_000), ("1h", 3_600_000), ("2d", 172_800_000)] {
            assert_eq!(duration(text), Ok(millis));
        }
        for text in ["", "h", "0", "0s", "-1s", "+1h", "1w", "366d", "8761h", "99999999999999999999h", "1 h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_fault_is_named_in_the_help() {
        let help = command().render_help().to_string();
        assert!(Faults::TABLE.iter().all(|(name, _)| help.contains(name)), "{help}");
    }
}
