//! The event loop of one worker: wait, read from all connections that are ready, then give each its turn.
//!
//! Small requests do not wait for large transfers. A connection that has something new (a request, a wake-up, a
//! deadline) has its turn in the next round. One that continues a transfer waits in a separate queue, from which only a
//! limited number of bytes is sent before the loop checks for new events.
//!
//! All connections of a group are read before any is processed, so that one check of a file serves all requests for
//! it that had arrived by then (see the cache in `sanserve-server`).

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use sanserve_core::{Close, Need, Now, Peer, Resting, Tick, Wait};
use sanserve_os::Clock;
use sanserve_server::{
    Accepted, Acceptor, Budget, DrainDeadlines, Env, IDLE_GRACE, Listener, Local, Logger, Phase, Site, Turn,
    UNFINISHED_GRACE,
};

use crate::connection_limit::{ConnectionLimit, ConnectionPermit, Since};
use crate::deadlines::Deadlines;
use crate::leaving::Leaving;
use crate::parked::{Flags, Parked, State};
use crate::pool::{MAX_FREE, Pool};
use crate::script::Role;
use crate::slab::Slab;
use crate::turn::Loop;
use crate::waker::{ConnWaker, LoopWaker};

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
/// The most events of one wait.
const EVENTS: usize = 1024;
/// The most connections that are read before any of them is processed.
const GROUP: usize = 64;
/// The most steps of a turn, before other connections have theirs. A request needs far fewer.
const TURN_STEPS: u32 = 128;
/// The most bytes of the turn of a connection that has something new: a file of a megabyte with its head, which takes
/// some tenths of a millisecond. In several pieces it would take half as much processor time again.
const FRESH_BYTES: u64 = (1 << 20) + 64 * 1024;
/// The bytes of large transfers after which the loop checks for new events. The last turn may exceed it.
const BULK_BYTES: u64 = 256 * 1024;
/// How many bytes can be sent in the time of one step, so that the cost of turns without large sends counts as well.
const STEP_BYTES: u64 = 2 * 1024;
/// The longest wait of the loop, in milliseconds.
const LONGEST: u64 = 60_000;
/// The most connections accepted before others have their turn.
const ACCEPTS: usize = 64;
/// After how many milliseconds a worker that is at the limit of connections checks again, since it is not notified when a
/// connection of another worker closes.
const LOOK_AGAIN: u64 = 10;

/// One worker: its listener and its connections. It only shares the site and the limit of connections.
pub(crate) struct EventLoop {
    /// The number of this worker.
    number: usize,
    poll: Poll,
    loop_waker: Arc<LoopWaker>,
    /// The connections that were woken, while they are being processed.
    woken: Vec<Arc<ConnWaker>>,
    listener: Option<Listener>,
    site: Arc<Site>,
    connection_limit: Arc<ConnectionLimit>,
    clock: Clock,
    now: Now,
    files: Local,
    log: Logger,
    parked: Slab<Parked>,
    deadlines: Deadlines,
    /// Which connection is closed when the limit is reached.
    leaving: Leaving,
    /// Connections that have something new.
    queue: VecDeque<u32>,
    /// Connections that are about to start a script or to continue a listing, which takes much longer than other steps. One
    /// of them has its turn in each round, so that other connections wait for one such step, and not for several.
    slow: VecDeque<u32>,
    /// Connections that continue a transfer that took more than one turn.
    bulk: VecDeque<u32>,
    pool: Pool,
    /// Connections may be pending.
    acceptable: bool,
    acceptor: Acceptor,
    /// A connection is pending, but the limit is reached. The worker is notified when its own connections close, and checks
    /// the others regularly.
    full: bool,
    look_again: Option<Tick>,
    drain_deadlines: DrainDeadlines,
}

impl EventLoop {
    pub(crate) fn new(
        number: usize,
        listener: Listener,
        site: Arc<Site>,
        connection_limit: Arc<ConnectionLimit>,
        clock: Clock,
    ) -> io::Result<EventLoop> {
        listener.set_nonblocking(true)?;
        let poll = Poll::new()?;
        poll.registry().register(&mut SourceFd(&listener.as_fd().as_raw_fd()), LISTENER, Interest::READABLE)?;
        let now = clock.now();
        Ok(EventLoop {
            number,
            loop_waker: Arc::new(LoopWaker::new(poll.registry(), WAKER)?),
            woken: Vec::new(),
            poll,
            listener: Some(listener),
            files: Local::new(Arc::clone(site.root()), site.cache().clone()),
            log: site.log().logger(),
            site,
            connection_limit,
            deadlines: Deadlines::new(now.tick),
            clock,
            now,
            parked: Slab::new(),
            leaving: Leaving::default(),
            queue: VecDeque::new(),
            slow: VecDeque::new(),
            bulk: VecDeque::new(),
            pool: Pool::default(),
            acceptable: false,
            acceptor: Acceptor::default(),
            full: false,
            look_again: None,
            drain_deadlines: DrainDeadlines::default(),
        })
    }

    /// The waker of the loop.
    pub(crate) fn loop_waker(&self) -> &Arc<LoopWaker> {
        &self.loop_waker
    }

    /// Serves until the server is shut down and all connections have ended.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            self.follow_phase();
            if self.listener.is_none() && self.parked.len() == 0 {
                return Ok(());
            }
            self.round(&mut events)?;
        }
    }

    /// Waits for events, unless a connection has to continue, and gives turns.
    fn round(&mut self, events: &mut Events) -> io::Result<()> {
        self.log.flush();
        if let Err(error) = self.poll.poll(events, self.poll_timeout()) {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        self.clock.read(&mut self.now);
        for event in &*events {
            match event.token() {
                LISTENER => self.acceptable = true,
                WAKER => self.process_wakers(),
                token => self.became_ready(token, event),
            }
        }
        while let Some(at) = self.deadlines.due(self.now.tick) {
            self.enqueue(at);
        }
        self.deadlines.follow(self.now.tick);
        self.serve();
        if let Some(at) = self.slow.pop_front() {
            self.turn(at, FRESH_BYTES);
        }
        self.go_on();
        self.accept();
        self.publish();
        Ok(())
    }

    /// How long the loop may wait for events.
    fn poll_timeout(&self) -> Option<Duration> {
        let paused_until = self.acceptor.paused_until(self.now.tick);
        if !self.is_alone() || (self.may_accept() && paused_until.is_none()) {
            return Some(Duration::ZERO);
        }
        let next = [self.deadlines.next(), paused_until, self.look_again, self.drain_deadlines.next()]
            .into_iter()
            .flatten()
            .min()?;
        // Rounded up, since waking too early would spin. The timeout of the poll has 32 bits.
        Some(Duration::from_millis(next.since(self.clock.tick()).clamp(1, LONGEST)))
    }

    fn became_ready(&mut self, token: Token, event: &mio::event::Event) {
        let Some((at, role)) = Role::of(token) else { return };
        let Some(parked) = self.parked.get_mut(at) else { return };
        if role != Role::Socket {
            if parked.script_became_ready(role, event) {
                self.enqueue(at);
            }
            return;
        }
        let transport = &mut parked.transport;
        // A reset matters even if neither reading nor writing is needed.
        let is_reset = event.is_error();
        let is_closed = event.is_read_closed() || is_reset;
        let (mut is_news, mut has_room) = (is_reset, false);
        if is_reset {
            parked.flags.add(Flags::BROKEN);
        }
        if is_closed {
            transport.became_closed();
        }
        if event.is_readable() || is_closed {
            is_news |= transport.became_readable();
        }
        if event.is_writable() || is_reset {
            has_room = transport.became_writable();
        }
        if is_news {
            self.enqueue(at);
        } else if has_room && !std::mem::replace(&mut parked.queued, true) {
            self.bulk.push_back(at);
        }
    }

    /// Queues the connections that were woken, if the wakers are still valid, and closes connections that other
    /// workers have asked for.
    fn process_wakers(&mut self) {
        if self.connection_limit.take_asked(self.number) {
            self.close_one();
        }
        if self.full {
            // A place may have been given back.
            self.look_again = Some(self.now.tick);
        }
        let mut woken = std::mem::take(&mut self.woken);
        self.loop_waker.take_woken(&mut woken);
        for conn_waker in woken.drain(..) {
            if self.parked.get_mut(conn_waker.at()).is_some_and(|parked| parked.was_woken_by(&conn_waker)) {
                self.enqueue(conn_waker.at());
            }
        }
        self.woken = woken;
    }

    fn enqueue(&mut self, at: u32) {
        if let Some(parked) = self.parked.get_mut(at) {
            if !std::mem::replace(&mut parked.queued, true) {
                self.queue.push_back(at);
            }
        }
    }

    /// Gives each connection in the queue a turn; connections queued meanwhile have to wait.
    fn serve(&mut self) {
        let mut left = self.queue.len();
        while left > 0 {
            let group = left.min(GROUP);
            left -= group;
            for i in 0..group {
                self.read(self.queue[i]);
            }
            for _ in 0..group {
                if let Some(at) = self.queue.pop_front() {
                    self.turn(at, FRESH_BYTES);
                }
            }
        }
    }

    /// Gives turns to connections that continue a transfer, until so much is sent that the loop has to check for new events.
    /// Returns the cost of the turns.
    fn go_on(&mut self) -> u64 {
        let mut cost = 0;
        // Connections that are queued again have to wait.
        for _ in 0..self.bulk.len() {
            let Some(at) = self.bulk.pop_front() else { break };
            cost += self.turn(at, BULK_BYTES);
            if cost >= BULK_BYTES {
                break;
            }
        }
        cost
    }

    /// Whether no connection waits for a turn.
    fn is_alone(&self) -> bool {
        self.queue.is_empty() && self.slow.is_empty() && self.bulk.is_empty()
    }

    /// Reads if the connection waits for that. Memory is leased before the turn only in this case: any number of connections
    /// that are woken use the same lease one after the other.
    fn read(&mut self, at: u32) {
        if let Some(parked) = self.parked.get_mut(at) {
            if parked.transport.is_to_read() {
                parked.lease(&mut self.pool, &self.site);
                let cx = self.site.context(&self.now);
                parked.read(&Env::new(&self.site, cx, &self.files, &mut self.log));
            }
        }
    }

    /// Gives a connection a turn, in which it sends at most `bytes` of a file. Returns the cost of the turn, in bytes sent.
    fn turn(&mut self, at: u32, bytes: u64) -> u64 {
        let alone = self.is_alone();
        let Some(parked) = self.parked.get_mut(at) else { return 0 };
        parked.lease(&mut self.pool, &self.site);
        parked.queued = false;
        let (registry, loop_waker) = (self.poll.registry(), &self.loop_waker);
        let own = Loop { registry, loop_waker, at };
        let mut budget = Budget { steps: TURN_STEPS, bytes, large: u64::MAX, scripts_are_slow: !alone };
        let cx = self.site.context(&self.now);
        let env = &mut Env::new(&self.site, cx, &self.files, &mut self.log).with_io_pool();
        // A bug in one connection must not end the others.
        match catch_unwind(AssertUnwindSafe(|| parked.turn(&own, env, &mut budget))) {
            Ok(Turn::Wait(wait)) => self.begin_wait(at, wait),
            Ok(Turn::Yield | Turn::Call(_) | Turn::Finished) => self.enter_bulk(at),
            Ok(Turn::Slow) => {
                parked.flags.take(Flags::UNFINISHED);
                parked.queued = true;
                self.leaving.remove(at);
                self.slow.push_back(at);
            }
            Ok(Turn::Closed(Close::Upgraded)) if self.site.takes_upgrades() => self.upgrade(at),
            Ok(Turn::Closed(_)) => self.close(at),
            Err(panic) => {
                if let State::Busy(busy) = &parked.state {
                    self.site.log_panic(busy.session.connection.peer(), &*panic);
                }
                self.forget(at);
                drop(self.parked.remove(at));
                self.closed_one();
            }
        }
        bytes - budget.bytes + u64::from(TURN_STEPS - budget.steps) * STEP_BYTES
    }

    /// Registers a connection that waits, gives its memory back if possible, and enters its deadline.
    fn begin_wait(&mut self, at: u32, wait: Wait) {
        let Some(parked) = self.parked.get_mut(at) else { return };
        if let Err(error) = parked.register(at, self.poll.registry()) {
            self.site.log().error(format_args!("cannot watch a connection: {error}"));
            return self.close(at);
        }
        let is_unfinished = !wait.idle && parked.unfinished_since().is_some();
        let was_unfinished = parked.flags.take(Flags::UNFINISHED);
        if is_unfinished {
            parked.flags.add(Flags::UNFINISHED);
        }
        let free = match wait {
            Wait { idle: true, .. } => parked.rest(&self.site.context(&self.now)),
            Wait { need: Need { handler, write, completion: false, .. }, .. } if handler || write => {
                parked.put_away(&self.site.context(&self.now))
            }
            _ => None,
        };
        if let Some(busy) = free {
            self.pool.give_back(busy);
        }
        if wait.idle {
            self.leaving.idles(at);
            if self.full {
                self.look_again = Some(self.now.tick);
            }
        } else if !is_unfinished {
            self.leaving.remove(at);
        } else {
            if !was_unfinished {
                self.leaving.is_unfinished(at);
            }
            if self.full {
                // There may have been no other connection to wait for when this worker became full.
                self.look_again.get_or_insert(self.now.tick.after(LOOK_AGAIN));
            }
        }
        match wait.deadline {
            Some(deadline) => self.deadlines.enter(at, deadline),
            None => self.deadlines.forget(at),
        }
    }

    /// Queues a connection that continues a transfer.
    fn enter_bulk(&mut self, at: u32) {
        let Some(parked) = self.parked.get_mut(at) else { return };
        parked.flags.take(Flags::UNFINISHED);
        parked.queued = true;
        self.leaving.remove(at);
        self.bulk.push_back(at);
        // Of the connections that continue a transfer, only a limited number keep their workspaces meanwhile.
        if self.bulk.len() > MAX_FREE {
            if let Some(busy) = parked.put_away(&self.site.context(&self.now)) {
                self.pool.give_back(busy);
            }
        }
    }

    /// Releases a connection that has switched to another protocol, with its place.
    fn upgrade(&mut self, at: u32) {
        self.forget(at);
        let Some(parked) = self.parked.remove(at) else { return };
        let place = ConnectionPermit::new(Arc::clone(&self.connection_limit));
        if let Some(upgraded) = parked.upgrade(self.poll.registry(), &mut self.pool, self.site.draining().clone()) {
            self.site.hand_over(upgraded, place);
        }
        if self.full {
            // This loop is not notified when the place is given back.
            self.look_again.get_or_insert(self.now.tick.after(LOOK_AGAIN));
        }
    }

    /// Closes a connection.
    fn close(&mut self, at: u32) {
        let parked = self.parked.remove(at);
        self.forget(at);
        if let Some(busy) = parked.and_then(Parked::end) {
            self.pool.give_back(busy);
        }
        self.closed_one();
    }

    /// Removes the deadlines of this connection.
    fn forget(&mut self, at: u32) {
        self.deadlines.forget(at);
        self.leaving.remove(at);
    }

    /// Publishes since when the oldest connections of this worker have been idle or unfinished.
    fn publish(&mut self) {
        let mut of = |at: Option<u32>, since: fn(&Parked) -> Since| at.and_then(|at| since(self.parked.get_mut(at)?));
        let idle = of(self.leaving.oldest_idle(), Parked::idle_since);
        let unfinished = of(self.leaving.oldest_unfinished(), Parked::unfinished_since);
        self.connection_limit.publish(self.number, idle, unfinished);
    }

    /// Closes the connection that has been idle for longest, or one that has been unfinished for too long, to make
    /// room for a new one. Never one on which a request has arrived. `false`: there is none.
    fn close_one(&mut self) -> bool {
        while let Some(at) = self.leaving.oldest_idle() {
            let Some(parked) = self.parked.get_mut(at) else { return false };
            if parked.idle_since().is_some_and(|since| self.now.tick.since(since) < IDLE_GRACE) {
                break;
            }
            if parked.has_arrived() {
                // The connection is about to notice its request, and has an exchange in progress.
                self.leaving.remove(at);
                parked.transport.became_readable();
                self.enqueue(at);
                continue;
            }
            parked.flags.add(Flags::LEAVES);
            self.turn(at, FRESH_BYTES);
            self.connection_limit.notify_others(self.number);
            return true;
        }
        let Some(at) = self.leaving.oldest_unfinished() else { return false };
        let Some(parked) = self.parked.get_mut(at) else { return false };
        let is_old = parked.unfinished_since().is_some_and(|since| self.now.tick.since(since) >= UNFINISHED_GRACE);
        if is_old && !parked.has_arrived() {
            parked.flags.add(Flags::LEAVES);
            self.turn(at, FRESH_BYTES);
            self.connection_limit.notify_others(self.number);
            return true;
        }
        false
    }

    /// Tries to free a place for a pending client. `true`: one may be free now.
    fn make_place(&mut self) -> bool {
        self.publish();
        match self.connection_limit.with_oldest(self.number, self.now.tick) {
            Some(worker) if worker != self.number => {
                self.connection_limit.ask(worker);
                false
            }
            Some(_) => self.close_one(),
            None => false,
        }
    }

    fn may_accept(&self) -> bool {
        self.acceptable && self.listener.is_some() && !self.full
    }

    /// Gives the place of a connection back. If other workers wait too, this worker does not take it immediately: it
    /// would be the first each time.
    fn closed_one(&mut self) {
        self.connection_limit.give_back();
        if self.full {
            if self.connection_limit.waiting.load(Ordering::Acquire) > 1 {
                self.look_again.get_or_insert(self.now.tick.after(LOOK_AGAIN));
            } else {
                self.not_full();
            }
        }
    }

    fn now_full(&mut self) {
        self.full = true;
        self.connection_limit.waiting.fetch_add(1, Ordering::AcqRel);
        // If all connections belong to this worker, one of its own has to close, or to become idle.
        let others = self.parked.len() < self.connection_limit.most;
        let soon = others || self.leaving.oldest_idle().or(self.leaving.oldest_unfinished()).is_some();
        self.look_again = soon.then(|| self.now.tick.after(LOOK_AGAIN));
    }

    fn not_full(&mut self) {
        self.full = false;
        self.connection_limit.waiting.fetch_sub(1, Ordering::AcqRel);
        self.look_again = None;
    }

    /// Accepts pending connections, up to a limit. At the limit of connections, an idle one is closed to make room;
    /// if none is idle, no connection is accepted until one has closed.
    fn accept(&mut self) {
        if self.look_again.is_some_and(|at| at <= self.now.tick) {
            self.not_full();
        }
        if self.drain_deadlines.listens_until().is_some_and(|until| until <= self.now.tick) {
            self.stop_listening();
        }
        for _ in 0..ACCEPTS {
            if !self.may_accept() || self.acceptor.paused_until(self.now.tick).is_some() {
                return;
            }
            let Some(listener) = &self.listener else { return };
            // If a place were taken and given back in vain, the other workers would find all places taken meanwhile.
            if self.connection_limit.are_scarce() && !listener.is_acceptable() {
                return self.none_pending();
            }
            if !self.connection_limit.take() {
                // Another worker may take the place first.
                if !self.make_place() || !self.connection_limit.take() {
                    return self.now_full();
                }
            }
            let Some(listener) = &self.listener else { return };
            let accepted = self.acceptor.accept(listener, &self.site, self.now.tick);
            if !matches!(accepted, Accepted::Peer(..)) {
                self.connection_limit.give_back();
            }
            match accepted {
                Accepted::Peer(socket, peer) => self.add(socket, peer),
                Accepted::Again | Accepted::Pause(_) => {}
                Accepted::Nobody => self.none_pending(),
            }
        }
    }

    /// No connection is pending.
    fn none_pending(&mut self) {
        self.acceptable = false;
        if self.drain_deadlines.listens_until().is_some() {
            self.stop_listening();
        }
    }

    /// Closes the listener. Further clients are refused.
    fn stop_listening(&mut self) {
        self.listener = None;
        self.drain_deadlines.stop_listening();
        if self.full {
            self.not_full();
        }
    }

    /// Adds a connection. Most requests arrive together with their connection, so it is read in the next round, and
    /// registered only if it then waits. A connection that ends with its first response is never registered.
    fn add(&mut self, socket: OwnedFd, peer: Peer) {
        let at = self.parked.vacant();
        let cx = self.site.context(&self.now);
        let resting = Resting::new(peer, &cx);
        self.deadlines.enter(at, resting.deadline(&cx));
        if self.site.observes() {
            let mut connection = resting.resume();
            self.site.observe(&mut connection, &cx, "mio");
            if connection.is_observed() {
                self.parked.insert(Parked::recorded(socket, connection));
                // Its first turn determines what it waits for.
                return self.enqueue(at);
            }
        }
        let mut parked = Parked::new(socket, resting);
        parked.transport.became_readable();
        self.parked.insert(parked);
        self.leaving.idles(at);
        self.enqueue(at);
    }

    /// Follows the phase of the server: begins to shut down, or stops. Every connection then has a turn, in which it
    /// is informed. Connections that are already pending are still accepted.
    fn follow_phase(&mut self) {
        if self.site.draining().has_begun() {
            self.clock.read(&mut self.now);
        }
        match self.drain_deadlines.follow(&self.site, self.now.tick, self.connection_limit.taken()) {
            Some(Phase::Cut) => {
                self.stop_listening();
                self.enqueue_all();
            }
            Some(_) => {
                // The event for a pending connection may not have arrived yet, and a pause would be too long.
                self.acceptable = true;
                self.acceptor.resume();
                self.enqueue_all();
            }
            None => {}
        }
    }

    fn enqueue_all(&mut self) {
        for at in self.parked.numbers() {
            self.enqueue(at);
        }
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        self.loop_waker.close();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{ErrorKind, Read, Write};
    use std::net::{SocketAddr, TcpStream};

    use super::*;

    const DOWNLOADS: usize = 12;

    /// A loop, and a directory with a large file and a small one, that both outlive the loop's sockets.
    struct Bench {
        event_loop: EventLoop,
        address: SocketAddr,
        events: Events,
        _dir: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Bench {
            let dir = tempfile::tempdir().unwrap();
            File::create(dir.path().join("large")).unwrap().set_len(1 << 30).unwrap();
            fs::write(dir.path().join("small"), "small").unwrap();
            let listener = sanserve_os::bind(([127, 0, 0, 1], 0).into(), false).unwrap();
            let address = listener.local_addr().unwrap();
            let site = Arc::new(Site::new(dir.path()).unwrap().with_log(sanserve_server::Log::to(io::sink())));
            let limit = Arc::new(ConnectionLimit::new(1_000, 1));
            let event_loop = EventLoop::new(0, listener.into(), site, limit, Clock::start()).unwrap();
            Bench { event_loop, address, events: Events::with_capacity(EVENTS), _dir: dir }
        }

        /// One round without waiting, since the loop checks for pending connections.
        fn round(&mut self) {
            self.event_loop.acceptable = true;
            self.event_loop.round(&mut self.events).unwrap();
        }

        fn ask(&self, path: &str) -> TcpStream {
            let mut client = TcpStream::connect(self.address).unwrap();
            write!(client, "GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            client.set_nonblocking(true).unwrap();
            client
        }

        /// Begins `n` downloads that could all continue at the same time.
        fn with_downloads() -> (Bench, Vec<TcpStream>) {
            let mut bench = Bench::new();
            let mut clients: Vec<TcpStream> = (0..DOWNLOADS).map(|_| bench.ask("large")).collect();
            while bench.event_loop.bulk.len() < DOWNLOADS / 2 {
                bench.round();
                clients.iter_mut().for_each(|client| drop(take(client)));
            }
            (bench, clients)
        }
    }

    /// The bytes that have arrived, at most a few megabytes.
    fn take(client: &mut TcpStream) -> Vec<u8> {
        let mut all = vec![0; 4 << 20];
        match client.read(&mut all) {
            Ok(n) => all.truncate(n),
            Err(error) if error.kind() == ErrorKind::WouldBlock => all.clear(),
            Err(error) => panic!("{error}"),
        }
        all
    }

    /// How many descriptors the loop waits for, including its listener and its waker.
    #[cfg(target_os = "linux")]
    fn watched(bench: &Bench) -> usize {
        let info = format!("/proc/self/fdinfo/{}", bench.event_loop.poll.as_raw_fd());
        fs::read_to_string(info).unwrap().lines().filter(|line| line.starts_with("tfd:")).count()
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_connection_is_registered_when_it_waits_for_the_first_time() {
        let mut bench = Bench::new();
        let own = watched(&bench);
        let mut client = TcpStream::connect(bench.address).unwrap();
        write!(client, "GET /small HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        bench.round();
        assert_eq!((bench.event_loop.parked.len(), watched(&bench)), (1, own));
        bench.round();
        assert_eq!((bench.event_loop.parked.len(), watched(&bench)), (0, own));
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert!(answer.ends_with(b"\r\n\r\nsmall"));
        // A connection without a request yet, and one that may continue.
        let mut clients = [TcpStream::connect(bench.address).unwrap(), bench.ask("small")];
        (0..2).for_each(|_| bench.round());
        assert_eq!((bench.event_loop.parked.len(), watched(&bench)), (2, own + 2));
        assert!(take(&mut clients[1]).ends_with(b"\r\n\r\nsmall"));
        write!(clients[0], "GET /small HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        bench.round();
        assert!(take(&mut clients[0]).ends_with(b"\r\n\r\nsmall"));
        drop(clients);
        while bench.event_loop.parked.len() > 0 {
            bench.round();
        }
        assert_eq!(watched(&bench), own);
    }

    #[test]
    fn a_request_does_not_wait_for_the_downloads_of_others() {
        let (mut bench, mut clients) = Bench::with_downloads();
        let mut small = bench.ask("small");
        // It is accepted in this round.
        bench.round();
        for _ in 0..50 {
            bench.round();
            let answer = take(&mut small);
            assert!(answer.ends_with(b"\r\n\r\nsmall"), "{}", answer.escape_ascii());
            while bench.event_loop.bulk.len() < DOWNLOADS / 2 {
                bench.round();
                clients.iter_mut().for_each(|client| drop(take(client)));
            }
            write!(small, "GET /small HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        }
    }

    #[test]
    fn a_client_that_pipelines_without_end_does_not_delay_others() {
        let mut bench = Bench::new();
        let (mut hot, mut small) = (bench.ask("small"), bench.ask("small"));
        (0..2).for_each(|_| bench.round());
        assert!(!take(&mut hot).is_empty() && !take(&mut small).is_empty());
        let many = "GET /small HTTP/1.1\r\nHost: x\r\n\r\n".repeat(500);
        hot.write_all(many.as_bytes()).unwrap();
        bench.round();
        assert_eq!(bench.event_loop.bulk.len(), 1, "one turn does not suffice");
        write!(small, "GET /small HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        bench.round();
        assert!(take(&mut small).ends_with(b"\r\n\r\nsmall"));
        assert_eq!(bench.event_loop.bulk.len(), 1, "it has had one turn more");
    }

    #[test]
    fn downloads_go_on_a_bounded_piece_at_a_time_and_each_has_its_turn() {
        let (mut bench, mut clients) = Bench::with_downloads();
        let mut received = [0; DOWNLOADS];
        while received.iter().any(|&received| received < 4 << 20) {
            let waiting = bench.event_loop.bulk.len();
            let cost = bench.event_loop.go_on();
            assert!(cost < 2 * BULK_BYTES, "{cost}");
            assert!(cost >= BULK_BYTES || bench.event_loop.bulk.is_empty(), "{cost} of {waiting}");
            bench.round();
            for (client, received) in clients.iter_mut().zip(&mut received) {
                *received += take(client).len();
            }
        }
    }
}
