//! What scripts do in a world, and when.

use sanserve_core::Wait;

use super::super::scripts::{Next, Program, Taken};
use super::{At, Event, Op, Random, World};

impl World {
    /// The script in hand, or the file that its body goes to, takes what is fed.
    pub(super) fn feed(&mut self, n: usize) {
        let line = &mut self.lines[n];
        let hop = line.rig.hops.in_hand().expect("a script to feed");
        let offered = hop.offered.len() as u64;
        let taken = match &mut line.program {
            Some((_, program)) if hop.since.is_some() => program.take(hop, offered),
            _ if self.faulty && self.random.one_in(10) => Taken::Closes,
            _ if self.random.one_in(8) => Taken::Blocks,
            _ => Taken::Bytes(self.random.size(offered)),
        };
        if taken == Taken::Blocks {
            // The clock of the body begins anew behind it.
            line.excused += self.config.timeouts.body.grace;
        }
        self.act(
            n,
            match taken {
                Taken::Bytes(most) => Op::Fed(most),
                Taken::Blocks => Op::FeedBlocked,
                Taken::Closes => Op::FeedEnd,
            },
        );
    }

    /// The script comes to writing, if somebody reads.
    pub(super) fn run_script(&mut self, n: usize) {
        let line = &mut self.lines[n];
        let (Some(hop), Some((_, program))) = (line.rig.hops.in_hand(), &mut line.program) else { return };
        match program.next(hop) {
            Next::Write(bytes) if matches!(line.rig.at, At::Wait(wait) if wait.need.script_read) => {
                self.act(n, Op::Script(bytes));
            }
            Next::Close => self.act(n, Op::ScriptEof),
            Next::Write(_) | Next::Nothing => {}
        }
    }

    /// What a script does by itself is put on the way.
    pub(super) fn await_script(&mut self, n: usize, wait: Wait) {
        let line = &mut self.lines[n];
        let Some(hop) = line.rig.hops.in_hand() else { return };
        let number = line.rig.hops.all.len();
        if hop.since.is_some() && line.program.as_ref().is_none_or(|(of, _)| *of != number) {
            line.excused += self.config.timeouts.script;
            line.program = Some((number, Program::new(&hop.name, Random::new(self.random.next()))));
        }
        let runs = hop.is_alive();
        let (delay, reads_on) = match &mut line.program {
            Some((of, program)) if *of == number && runs => {
                let idle = hop.eof || program.next(hop) == Next::Nothing;
                (Some(program.delay()).filter(|_| !idle), program.reads_on())
            }
            _ => (None, true),
        };
        if let (Some(delay), false) = (delay, line.script_due) {
            line.script_due = true;
            self.schedule(self.now + delay, n, Event::Script);
        }
        let line = &mut self.lines[n];
        if wait.need.script_write && reads_on && !line.feed_due {
            line.feed_due = true;
            let delay = self.random.within(1, 100);
            line.excused += delay;
            self.schedule(self.now + delay, n, Event::Feed);
        }
    }
}
