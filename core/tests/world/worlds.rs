//! The simulated worlds of the library, with their own disks, scripts and requests, and with the reference model as a
//! second check of each connection.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use sanserve_core::{Cgi, Chunked, Config, Protocol, SpawnError};
use sanserve_testing::{Failure, Faults, Script, Server, Summary, World};
use sanserve_transcript::Transcript;

use super::disk::{self, Disk, File, Node};
use super::handlers::{Echo, Routed};
use super::random::Random;
use super::requests;
use super::rig::{At, Rig};
use super::verdict;

/// Valid heads; `{}` is replaced by the announced length.
const HEADS: [&str; 12] = [
    "Content-Type: a/b\nX-Script: yes\n\n",
    "Content-Type: a/b\r\nX-Script: yes\r\n\r\n",
    "X-Script: yes\nContent-Length: {}\n\n",
    "Content-Length: {}\nX-Script: yes\nStatus: 404 Not here\n\n",
    "Status: 201\nX-Script: yes\nContent-Length: {}\n\n",
    "Status: 204\nX-Script: yes\n\n",
    "Status: 304\nX-Script: yes\nContent-Length: {}\n\n",
    "Status: 503\nX-Script: yes\n\n",
    "Location: http://x/y\nX-Script: yes\n\n",
    "Location: //x/y\nX-Script: yes\n\n",
    "Location: /a\nStatus: 303\nX-Script: yes\n\n",
    "X-Script: yes\nConnection: close\nTransfer-Encoding: chunked\nServer: me\nTrailer: y\n\n",
];

/// Heads that end the connection, invalid heads, and local redirects.
const ODD: [&str; 15] = [
    "Status: 205 Begin anew\nX-Script: yes\n\n",
    "\n",
    "no colon\n\n",
    "X-Script: yes\n folded\n\n",
    "X-Script: yes\nX Y: z\n\n",
    "X-Script: yes\nStatus: 100 Continue\n\n",
    "X-Script: yes\nStatus: 20\n\n",
    "X-Script: yes\nContent-Length: -1\n\n",
    "X-Script: yes\nContent-Length: 3\nContent-Length: 3\n\n",
    "HTTP/1.1 200 OK\nX-Script: yes\n\n",
    "Location: /a\nX-Script: yes\n\n",
    "Location: /mid?q=1#f\n\n",
    "Location: /cgi-bin/wild\nX-Y: z\n\n",
    "Location: /cgi-bin/good/more?a+b\n\n",
    "Location: /not a target\n\n",
];

/// Runs the world of a seed.
pub fn run(seed: u64) -> Result<Summary, Box<Failure>> {
    let mut random = Random::new(seed);
    let scripts = random.one_in(2);
    let config = config(scripts, &mut random);
    let disk = disk(scripts, &mut random);
    let names: &'static [&'static str] = if scripts { SCRIPTS } else { &[] };
    let watched = disk.clone();
    let server = Server::new()
        .policy(Routed)
        .handler(Echo::default)
        .disk(disk)
        .config(config)
        .rule(move |transcript| check(transcript, &watched));
    // Hours, or so short that the server shuts down while all clients are active.
    let millis = *random.pick(&[3 * 3_600_000, 2_000, 20_000]);
    World::new(seed)
        .serving(server)
        .connections(random.within(1, 10))
        .faults(*random.pick(&[Faults::all(), Faults::all(), Faults::none(), Faults::SPLIT | Faults::PIPELINE]))
        .lasting(millis)
        .requests(move |random| requests::any(names, random))
        .try_run()
}

/// Checks a connection against the model.
fn check(transcript: &Transcript, disk: &Disk) -> Result<(), String> {
    let judged = catch_unwind(AssertUnwindSafe(|| {
        let rig = Rig::watching(transcript, disk.clone());
        // A minimized history may end at any point.
        verdict::check(&rig, matches!(rig.at, At::Close(_)))
    }));
    judged.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default())
    })
}

fn config(scripts: bool, random: &mut Random) -> Config {
    let mut config = Config::default().with_handled(true);
    config.limits.output = 1 << random.within(9, 16);
    config.limits.body = 4_000;
    if random.one_in(8) {
        config.protocol = Protocol::Http10;
    }
    if scripts {
        config.cgi = Cgi::python();
        config.limits.redirects = 2;
        config.limits.script_head = *random.pick(&[200, 65_536]);
        config.timeouts = config.timeouts.with_script(Duration::from_secs(*random.pick(&[2, 10, 30, 300])));
        if random.one_in(4) {
            config.cgi.chunked = Chunked::Refuse;
        }
    }
    config
}

/// The names of scripts in requests; `wild` scripts differ in each world.
const SCRIPTS: &[&str] = &[
    "good", "good", "wild0", "wild1", "wild2", "wild3", "wild4", "wild5", "big", "move", "missing", "plain", "dir",
    "busy", "nph-wild",
];

fn disk(scripts: bool, random: &mut Random) -> Disk {
    let mut disk = disk::small();
    disk.nodes.insert(b"big.bin".to_vec(), Node::File(File::new(3, 30_000)));
    disk.nodes.insert(b"mid".to_vec(), Node::File(File::new(6, 3_000)));
    for path in ["a", "mid", "d/", "index/index.html"] {
        if random.one_in(8) {
            disk = disk.slow(path, random.within(1, 2_000));
        }
    }
    for directory in if scripts { &["cgi-bin", "htbin"][..] } else { &[] } {
        let mut put = |name: &str, node: Node| _ = disk.nodes.insert(format!("{directory}/{name}").into_bytes(), node);
        put("plain", Node::File(File::new(7, 10)));
        put("dir", Node::Directory(Vec::new()));
        put(
            "busy",
            Node::Script(Script::refused(*random.pick(&[SpawnError::Busy, SpawnError::Denied, SpawnError::Failed]))),
        );
        put("move", Node::Script(Script::printing("Location: /cgi-bin/move\n\n")));
        put("big", Node::Script(Script::printing([HEADS[0].as_bytes(), &random.bytes(100_000)].concat())));
        put("good", Node::Script(script(true, "", random)));
        put("nph-wild", Node::Script(script(false, RAW, random)));
        for n in 0..6 {
            put(&format!("wild{n}"), Node::Script(script(false, "", random)));
        }
    }
    disk
}

/// A head that a script writes itself.
const RAW: &str = "HTTP/1.1 200 OK\r\nX-Script: yes\r\nServer: me\r\nDate: now\r\nConnection: close\r\n\r\n";

/// A script with this head, or a random one.
fn script(is_good: bool, head: &str, random: &mut Random) -> Script {
    let size = random.below(3_000);
    let head = match head {
        "" if !is_good && random.one_in(3) => *random.pick(&ODD),
        "" => *random.pick(&HEADS),
        head => head,
    };
    // The announced length may be too large or too small.
    let announced = match random.below(6) {
        0 if !is_good => size + random.size(50),
        1 => size.saturating_sub(random.size(50)),
        _ => size,
    };
    let head = head.replace("{}", &announced.to_string());
    let mut output = [head.as_bytes(), &random.bytes(size)].concat();
    if !is_good && random.one_in(4) {
        // The script dies at some point.
        output.truncate(usize::try_from(random.below(output.len() as u64 + 1)).expect("an index"));
    }
    let piece = usize::try_from(random.size(8_000)).expect("small").max(output.len() / 8 + 1);
    let pause = if is_good { random.within(1, 50) } else { *random.pick(&[0, 1, 20, 400, 4_000]) };
    let mut script = Script::printing(output).slowly(piece, pause);
    if random.one_in(3) && !head.contains("Content-Length") {
        script = script.echoing();
    }
    if random.one_in(4) {
        script = script.deaf();
    }
    if !is_good && random.one_in(8) {
        script = script.hanging();
    }
    script
}
