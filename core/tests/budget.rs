//! Budgets as tests: the size of a connection, and the heap allocations and polls of an exchange in the steady state.

use std::net::SocketAddr;

use sanserve_core::{
    Buffers, Completion, Config, Connection, Context, DefaultPolicy, FsError, Input, Kind, Now, Opened, Peer, Resting,
    Step, Tick, Wall,
};

/// Exchanges before the measurement, so that buffers reach their size.
const WARM_UP: u64 = 8;
/// Exchanges in the measurement.
const EXCHANGES: u64 = 2_000;
/// One poll each for `Act(Open)`, `Send`, `Finished` and `Wait`.
const POLLS: u64 = 4;

#[test]
fn a_connection_is_small() {
    assert!(size_of::<Connection>() <= 256, "{}", size_of::<Connection>());
    assert!(size_of::<Resting>() <= 32, "{}", size_of::<Resting>());
}

#[test]
fn the_allocation_counter_works() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![0_u8; 100])));
    assert_eq!(counted.count_total, 1);
}

#[test]
fn a_get_allocates_nothing() {
    measure(&[b"GET /a.txt HTTP/1.1\r\nHost: example\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n"], Ok(FILE), b" 200 ");
}

#[test]
fn a_not_modified_allocates_nothing() {
    let tag = b"GET /a.txt HTTP/1.1\r\nHost: example\r\nIf-None-Match: \"2ebc9854-5-400\"\r\n\r\n";
    let date = b"GET /a.txt HTTP/1.1\r\nHost: example\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:48:20 GMT\r\n\r\n";
    measure(&[tag, date], Ok(FILE), b" 304 ");
}

#[test]
fn a_not_found_allocates_nothing() {
    measure(&[b"GET /a%20b/../nothing HTTP/1.1\r\nHost: example\r\n\r\n"], Err(FsError::NotFound), b" 404 ");
}

#[test]
fn a_range_allocates_nothing() {
    measure(&[b"GET /a.txt HTTP/1.1\r\nHost: example\r\nRange: bytes=10-19\r\n\r\n"], Ok(FILE), b" 206 ");
}

#[test]
fn a_head_allocates_nothing() {
    measure(&[b"HEAD /a.txt HTTP/1.1\r\nHost: example\r\n\r\n"], Ok(FILE), b" 200 ");
}

const FILE: Opened = Opened { kind: Kind::File, len: 1024, modified: 784_111_700, modified_nanos: 5, digest: None };

/// Runs many exchanges on one connection, one second apart, and compares them with the budget.
fn measure(requests: &[&[u8]], opened: Result<Opened, FsError>, status: &[u8]) {
    let config = Config::default();
    let mut now = Now::new(Tick(0), Wall(784_111_777));
    let peer = Peer::from(SocketAddr::from(([127, 0, 0, 1], 4000)));
    let mut connection = Connection::new(peer, &Context { config: &config, policy: &DefaultPolicy, now: &now });
    let mut buf = Buffers::new();
    let mut run = |from: u64, to: u64| {
        let mut polls = 0;
        for n in from..to {
            now.advance(Tick(n * 1000), Wall(784_111_777 + i64::try_from(n).expect("few")));
            buf.input.fill(requests[n as usize % requests.len()]);
            let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
            polls += exchange(&mut connection, &mut buf, &cx, opened, status);
        }
        polls
    };
    run(0, WARM_UP);
    let mut polls = 0;
    let allocated = allocation_counter::measure(|| polls = run(WARM_UP, WARM_UP + EXCHANGES));
    assert_eq!(allocated.count_total, 0, "heap allocations in {EXCHANGES} exchanges");
    assert!(polls <= POLLS * EXCHANGES, "{polls} polls for {EXCHANGES} exchanges");
}

/// Runs one exchange and returns the number of polls.
fn exchange(
    connection: &mut Connection,
    buf: &mut Buffers,
    cx: &Context<'_>,
    opened: Result<Opened, FsError>,
    status: &[u8],
) -> u64 {
    let mut finished = 0;
    for polls in 1.. {
        let input = match connection.poll(buf, cx) {
            Step::Send(transmit) => {
                assert_eq!(&transmit.head[8..13], status);
                Input::Sent(transmit.len())
            }
            Step::Act(ticket, _) => Input::Done(ticket, Completion::Opened(opened)),
            Step::Finished(_) => {
                finished += 1;
                continue;
            }
            Step::Wait(wait) => {
                assert!(wait.idle && finished == 1);
                return polls;
            }
            step => panic!("{step:?}"),
        };
        connection.handle(input);
    }
    unreachable!()
}
