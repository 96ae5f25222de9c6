//! What each runtime does for a step: its system calls on Linux, with the names that strace uses.
//!
//! [`OPERATIONS`] is the table; [`Driver`] says which of its rows a step consists of. It follows the state of a
//! driver: the batch, whether the socket of std is blocking, and what is open. A transcript does not say whether a
//! file is in the cache, so any file that fits is assumed to be there. `tests/trace_calls.rs` compares the table with
//! the calls of real servers.

use sanserve_core::{Completion, Input, Kind, ScriptInput, Wait};
use sanserve_server::{BATCH, CacheLimits};
use sanserve_transcript::{Event, FeedThen, Middle, Sending, Then, What};

/// What one runtime does for an operation: its system calls in order, and a note about them.
pub(crate) struct Behavior {
    pub(crate) calls: &'static [&'static str],
    pub(crate) note: &'static str,
}

/// Something that a driver does, with the behavior of each runtime.
pub(crate) struct Operation {
    pub(crate) key: &'static str,
    pub(crate) what: &'static str,
    pub(crate) std: Behavior,
    pub(crate) mio: Behavior,
    pub(crate) smol: Behavior,
}

macro_rules! behavior {
    ($note:literal) => {
        Behavior { calls: &[], note: $note }
    };
    ($($call:literal),+ ; $note:literal) => {
        Behavior { calls: &[$($call),+], note: $note }
    };
}

macro_rules! operations {
    ($($key:literal $what:literal { std: [$($std:tt)*] mio: [$($mio:tt)*] smol: [$($smol:tt)*] })*) => {
        &[$(Operation { key: $key, what: $what, std: behavior!($($std)*), mio: behavior!($($mio)*), smol: behavior!($($smol)*) }),*]
    };
}

/// Everything that drivers do. The runtimes share `os/` and `server/`, so many rows have the same calls for all three.
pub(crate) const OPERATIONS: &[Operation] = operations! {
    "accept" "accepts the connection" {
        std: ["ppoll(listener, latch)", "accept4(listener, NONBLOCK|CLOEXEC)"; "The accepting thread hands the connection to an idle thread, or to a new one."]
        mio: ["epoll_wait(all)", "accept4(listener, NONBLOCK|CLOEXEC)", "epoll_ctl(ADD, socket, IN|OUT|RDHUP|ET)"; "Registered once, edge-triggered, for the life of the connection: no later wait registers anything. An idle connection takes 32 bytes."]
        smol: ["epoll_pwait(all)", "accept4(listener, NONBLOCK|CLOEXEC)"; "The connection becomes a task. Its socket is registered when it first has to wait."]
    }
    "wait-new" "waits on a new socket" {
        std: ["ppoll(socket: IN, deadline)"; "The socket is still non-blocking: there may be only one request, so it is not worth a call to change that."]
        mio: ["epoll_wait(all, next deadline)"; "One call for all connections. The deadline is an entry of a timing wheel."]
        smol: ["recvfrom(socket) = EAGAIN", "epoll_ctl(ADD, socket)", "epoll_ctl(MOD, socket, IN|ONESHOT)", "timerfd_settime(next deadline)", "epoll_pwait(all)"; "It tries to read first, then registers. The deadline is in a heap; the reactor has one timer for all of them. The task sleeps while the thread runs others."]
    }
    "set-blocking" "makes the socket blocking" {
        std: ["ioctl(socket, FIONBIO, 0)"; "From here on, one recv both waits and reads."]
        mio: ["Nothing: the socket is always non-blocking."]
        smol: ["Nothing: the socket is always non-blocking."]
    }
    "set-recv-timeout" "sets how long a read may block" {
        std: ["setsockopt(socket, SO_RCVTIMEO, 100 ms)"; "Set once, unless a deadline is nearer. A thread that blocks in recvfrom notices nothing but its socket, so it must return regularly."]
        mio: ["Nothing: the deadline is an entry in the timing wheel. When it moves later, the entry stays where it is."]
        smol: ["Nothing: the deadline is in a heap, and entries also stay when it moves later."]
    }
    "wait-read" "waits for bytes" {
        std: ["recvfrom(socket, window, 0)"; "The thread blocks in the call that will read. If nothing arrives for 100 ms, it waits in ppoll for its socket and for the latch that signals a shutdown."]
        mio: ["epoll_wait(all, next deadline)"; "The loop waits for all its connections at once."]
        smol: ["epoll_ctl(MOD, socket, IN|ONESHOT)", "timerfd_settime(next deadline)", "epoll_pwait(all)"; "The registration is one-shot, so it is renewed for each wait. The task sleeps."]
    }
    "wait-poll" "waits for bytes on a non-blocking socket" {
        std: ["ppoll(socket: IN, deadline)"; "The socket was made non-blocking for sendfile, which has no flag for that."]
        mio: ["epoll_wait(all, next deadline)"; "The loop waits for all its connections at once."]
        smol: ["epoll_ctl(MOD, socket, IN|ONESHOT)", "timerfd_settime(next deadline)", "epoll_pwait(all)"; "The registration is renewed. The task sleeps."]
    }
    "wait-write" "waits until the socket is writable" {
        std: ["ppoll(socket: OUT, deadline)"; "The write timeout of the core bounds the wait."]
        mio: ["epoll_wait(all, next deadline)"; "The socket is registered for both directions, so the event arrives when there is room."]
        smol: ["epoll_ctl(MOD, socket, OUT|ONESHOT)", "timerfd_settime(next deadline)", "epoll_pwait(all)"; "The task sleeps until there is room."]
    }
    "wait-script" "waits for the script and the peer" {
        std: ["ppoll(socket, output, exit, input; deadline)"; "One call for the peer, the script's pipes and the pipe that reports its exit."]
        mio: ["epoll_ctl(ADD, output)", "epoll_ctl(ADD, exit)", "epoll_wait(all, next deadline)"; "The pipes are registered for the first wait only; the script's input too, if it has one."]
        smol: ["epoll_ctl(MOD, socket, IN|ONESHOT)", "epoll_ctl(MOD, output, IN|ONESHOT)", "epoll_ctl(MOD, exit, IN|ONESHOT)", "epoll_pwait(all)"; "The registration of each descriptor is renewed."]
    }
    "wait-handler" "waits for the handler" {
        std: ["ppoll(socket, waker; deadline)"; "A waker writes to a socket pair. A blocking handler waits by itself instead."]
        mio: ["epoll_wait(all, next deadline)"; "A waker writes to the eventfd of the loop. The buffers go back to the pool meanwhile."]
        smol: ["epoll_ctl(MOD, socket, ONESHOT)", "epoll_pwait(all)"; "A waker wakes the task; an async handler awaits by itself instead."]
    }
    "wait-disk" "waits for the disk" {
        std: ["std never does this: the thread of the connection waits for the disk itself."]
        mio: ["epoll_wait(all)", "read(event)"; "A thread opens or reads what was not in memory (openat, fstat, pread64), and writes to the event of the loop when it is done. A file that is in memory never gets here."]
        smol: ["epoll_pwait(all)", "read(event)"; "A thread opens or reads what was not in memory (openat, fstat, pread64), and wakes the task when it is done. A file that is in memory never gets here."]
    }
    "wait-time" "waits for the deadline, and for a reset" {
        std: ["ppoll(socket, no events; deadline)"; "Only a reset or the deadline ends the wait."]
        mio: ["epoll_wait(all, next deadline)"; "A reset still causes an event."]
        smol: ["ppoll(socket, no events; 0)", "timerfd_settime(next deadline)", "epoll_pwait(all)"; "It checks for a reset once a second."]
    }
    "read" "reads from the socket" {
        std: ["recvfrom(socket, window, DONTWAIT)"; "ppoll has reported that it is readable."]
        mio: ["recvfrom(socket, window, 0)"; "The loop first reads from all connections that are ready, and processes the requests afterwards."]
        smol: ["recvfrom(socket, window, 0)"; "After a read that fills the window, it reads again before the next wait."]
    }
    "read-returns" "reads from the socket" {
        std: ["The recvfrom in which the thread was blocked returns."]
        mio: ["recvfrom(socket, window, 0)"; "The loop first reads from all connections that are ready, and processes the requests afterwards."]
        smol: ["recvfrom(socket, window, 0)"; "After a read that fills the window, it reads again before the next wait."]
    }
    "probe" "reads the socket once more" {
        std: ["recvfrom(socket, window, DONTWAIT)"; "Bytes that have arrived by now count, however late the driver is."]
        mio: ["recvfrom(socket, window, DONTWAIT)"; "Bytes that have arrived by now count, however late the driver is."]
        smol: ["recvfrom(socket, window, DONTWAIT)"; "Bytes that have arrived by now count, however late the driver is."]
    }
    "unread" "leaves the bytes in the socket" {
        std: ["The core has not asked to read, so TCP flow control slows the peer."]
        mio: ["The event is remembered and the bytes stay, so TCP flow control slows the peer."]
        smol: ["The socket is not registered for reading, so TCP flow control slows the peer."]
    }
    "time" "reaches the deadline" {
        std: ["recvfrom fails with EAGAIN, or ppoll returns 0, after its timeout."]
        mio: ["epoll_wait returns, and the entry of this connection in the timing wheel is due."]
        smol: ["epoll_pwait returns for the timer, and the entry of this connection in the heap is due."]
    }
    "ready" "learns that the socket is writable" {
        std: ["ppoll reports OUT."]
        mio: ["epoll_wait reports OUT, edge-triggered."]
        smol: ["epoll_pwait reports OUT, one-shot."]
    }
    "open-small" "opens a small file" {
        std: ["newfstatat(root, path)"; "The file is in the cache; this checks that it has not changed. The first time: openat, fstat, pread64, fstat, close."]
        mio: ["newfstatat(root, path)"; "The file is in the cache; this checks that it has not changed. One check serves all requests that had arrived before it. The first time: openat2, fstat, preadv2, fstat, close."]
        smol: ["newfstatat(root, path)"; "The file is in the cache; this checks that it has not changed, once per turn of the connection. The first time: openat2, fstat, preadv2, fstat, close."]
    }
    "open-large" "opens a large file" {
        std: ["openat(root, path, RDONLY|NONBLOCK)", "fstat(file)"; "Open until the exchange is finished. With --symlinks inside or never: openat2(RESOLVE_BENEATH)."]
        mio: ["openat2(root, path, RDONLY|NONBLOCK, RESOLVE_CACHED)", "fstat(file)"; "Open until the exchange is finished. If a name is not in memory, a thread opens it. With --symlinks inside or never also RESOLVE_BENEATH."]
        smol: ["openat2(root, path, RDONLY|NONBLOCK, RESOLVE_CACHED)", "fstat(file)"; "Open until the exchange is finished. If a name is not in memory, a thread opens it. With --symlinks inside or never also RESOLVE_BENEATH."]
    }
    "open-directory" "opens a directory" {
        std: ["openat(root, path, RDONLY|NONBLOCK)", "fstat(directory)"; "A directory is opened in the same way as a file, and recognized afterwards."]
        mio: ["openat2(root, path, RDONLY|NONBLOCK, RESOLVE_CACHED)", "fstat(directory)"; "A directory is opened in the same way as a file, and recognized afterwards."]
        smol: ["openat2(root, path, RDONLY|NONBLOCK, RESOLVE_CACHED)", "fstat(directory)"; "A directory is opened in the same way as a file, and recognized afterwards."]
    }
    "open-failed" "tries to open" {
        std: ["openat(root, path, RDONLY|NONBLOCK) = error"; "Errors are not cached."]
        mio: ["openat2(root, path, RDONLY|NONBLOCK, RESOLVE_CACHED) = error"; "Errors are not cached."]
        smol: ["openat2(root, path, RDONLY|NONBLOCK, RESOLVE_CACHED) = error"; "Errors are not cached."]
    }
    "list" "reads a batch of the directory" {
        std: ["getdents64(directory, 24 KiB)"; "At most 1,024 entries; symbolic links also need newfstatat."]
        mio: ["getdents64(directory, 24 KiB)"; "At most 1,024 entries, which count as 32 steps of the turn, so that other connections do not wait long."]
        smol: ["getdents64(directory, 24 KiB)"; "At most 1,024 entries; symbolic links also need newfstatat."]
    }
    "batch" "copies it into the batch" {
        std: ["No call: it is sent with the rest of the batch before the driver waits. The core already counts it as sent."]
        mio: ["No call: it is sent with the rest of the batch before the driver waits. The core already counts it as sent."]
        smol: ["No call: it is sent with the rest of the batch before the driver waits. The core already counts it as sent."]
    }
    "flush" "sends the batch" {
        std: ["sendto(socket, batch, DONTWAIT|NOSIGNAL)"; "Before it waits, half-closes or closes."]
        mio: ["sendto(socket, batch, DONTWAIT|NOSIGNAL)"; "Before it waits, half-closes or closes."]
        smol: ["sendto(socket, batch, DONTWAIT|NOSIGNAL)"; "Before it waits, half-closes or closes."]
    }
    "send" "sends it, together with the batch" {
        std: ["sendmsg(socket, [batch, head, body, tail], DONTWAIT|NOSIGNAL)"; "It does not fit into the batch of 16 KiB. A body in the cache is sent from the cache."]
        mio: ["sendmsg(socket, [batch, head, body, tail], DONTWAIT|NOSIGNAL)"; "It does not fit into the batch of 16 KiB. A body in the cache is sent from the cache."]
        smol: ["sendmsg(socket, [batch, head, body, tail], DONTWAIT|NOSIGNAL)"; "It does not fit into the batch of 16 KiB. A body in the cache is sent from the cache."]
    }
    "set-nonblocking" "makes the socket non-blocking" {
        std: ["ioctl(socket, FIONBIO, 1)"; "sendfile has no flag for that."]
        mio: ["Nothing: the socket is always non-blocking."]
        smol: ["Nothing: the socket is always non-blocking."]
    }
    "send-head" "sends the batch and the head" {
        std: ["sendmsg(socket, [batch, head], DONTWAIT|NOSIGNAL|MORE)"; "MORE: the body follows, and the kernel may put it into the same packets."]
        mio: ["sendmsg(socket, [batch, head], DONTWAIT|NOSIGNAL|MORE)"; "MORE: the body follows, and the kernel may put it into the same packets."]
        smol: ["sendmsg(socket, [batch, head], DONTWAIT|NOSIGNAL|MORE)"; "MORE: the body follows, and the kernel may put it into the same packets."]
    }
    "check-file" "checks that the file has not changed" {
        std: ["fstat(file)"; "Part of the file was sent before, and the rest must belong to the same version."]
        mio: ["fstat(file)"; "Part of the file was sent before, and the rest must belong to the same version."]
        smol: ["fstat(file)"; "Part of the file was sent before, and the rest must belong to the same version."]
    }
    "sendfile" "sends the file with sendfile" {
        std: ["sendfile(socket, file, at most 1 MiB)"; "The bytes never reach the process."]
        mio: ["sendfile(socket, file, at most 1 MiB)"; "The bytes never reach the process. After 2 MiB, other connections get their turn."]
        smol: ["sendfile(socket, file, at most 1 MiB)"; "The bytes never reach the process. After 1 MiB, other connections get their turn."]
    }
    "find" "looks up the script" {
        std: ["newfstatat(root, path)"; "One for each component, up to the first that is not a directory."]
        mio: ["newfstatat(root, path)"; "One for each component. If other connections wait, this one is queued: the loop starts one script per round."]
        smol: ["newfstatat(root, path)"; "One for each component, up to the first that is not a directory."]
    }
    "spool" "creates a temporary file for the body" {
        std: ["openat(/tmp, TMPFILE)"; "The file has no name and is deleted when it is closed."]
        mio: ["openat(/tmp, TMPFILE)"; "The file has no name and is deleted when it is closed."]
        smol: ["openat(/tmp, TMPFILE)"; "The file has no name and is deleted when it is closed."]
    }
    "rewind" "rewinds the temporary file" {
        std: ["lseek(file, 0)"; "The script reads the file as its standard input."]
        mio: ["lseek(file, 0)"; "The script reads the file as its standard input."]
        smol: ["lseek(file, 0)"; "The script reads the file as its standard input."]
    }
    "spawn" "starts the script" {
        std: ["getsockname(socket)", "openat(root, directory, PATH)", "newfstatat(root, path)", "pipe2(output)", "pipe2(stderr)", "pipe2(exit)", "sendmsg(launcher, [order, descriptors])"; "The launcher, a process with one thread, then calls clone and execve: this costs far more than anything else. If the server is root, the script runs as nobody. A thread of the server reads its stderr and enforces its time limit."]
        mio: ["getsockname(socket)", "openat(root, directory, PATH)", "newfstatat(root, path)", "pipe2(output)", "pipe2(stderr)", "pipe2(exit)", "sendmsg(launcher, [order, descriptors])"; "The launcher then calls clone and execve. This costs far more than anything else, so the loop starts one script per round. If the server is root, the script runs as nobody. A thread of the server reads its stderr and enforces its time limit."]
        smol: ["getsockname(socket)", "openat(root, directory, PATH)", "newfstatat(root, path)", "pipe2(output)", "pipe2(stderr)", "pipe2(exit)", "sendmsg(launcher, [order, descriptors])", "fcntl(output, F_DUPFD_CLOEXEC)", "epoll_ctl(ADD, output)", "epoll_ctl(ADD, exit)"; "The launcher then calls clone and execve: this costs far more than anything else. The reactor gets duplicates of the descriptors. If the server is root, the script runs as nobody."]
    }
    "spawn-failed" "fails to start the script" {
        std: ["Too many scripts are running, or the system cannot start another process."]
        mio: ["Too many scripts are running, or the system cannot start another process."]
        smol: ["Too many scripts are running, or the system cannot start another process."]
    }
    "feed" "writes to the script" {
        std: ["write(input)"; "The pipe is non-blocking: the core offers again what does not fit."]
        mio: ["write(input)"; "The pipe is non-blocking: the core offers again what does not fit."]
        smol: ["write(input)"; "The pipe is non-blocking: the core offers again what does not fit."]
    }
    "feed-file" "writes to the temporary file" {
        std: ["write(file)"; "The length must be known before the script starts (RFC 3875 section 4.1.2)."]
        mio: ["write(file)"; "The length must be known before the script starts (RFC 3875 section 4.1.2)."]
        smol: ["write(file)"; "The length must be known before the script starts (RFC 3875 section 4.1.2)."]
    }
    "end-input" "closes the script's input" {
        std: ["close(input)"; "The script reads end of file."]
        mio: ["close(input)"; "The script reads end of file. Closing also removes the descriptor from epoll."]
        smol: ["epoll_ctl(DEL, input)", "close(input)"; "The duplicate of the reactor is closed too."]
    }
    "kill" "terminates the script" {
        std: ["sendmsg(launcher, SIGTERM)"; "The launcher signals the process group. SIGKILL follows after a grace period."]
        mio: ["sendmsg(launcher, SIGTERM)"; "The launcher signals the process group. SIGKILL follows after a grace period."]
        smol: ["sendmsg(launcher, SIGTERM)"; "The launcher signals the process group. SIGKILL follows after a grace period."]
    }
    "log-script" "logs an error in the output of the script" {
        std: ["write(stderr)"; "The thread of the log writes it."]
        mio: ["write(stderr)"; "The thread of the log writes it."]
        smol: ["write(stderr)"; "The thread of the log writes it."]
    }
    "read-script" "reads the output of the script" {
        std: ["read(output, window)"; "ppoll has reported that it is readable."]
        mio: ["read(output, window)"; "Until there is no more: the event is edge-triggered."]
        smol: ["read(output, window)"; "The registration is renewed afterwards."]
    }
    "feedable" "learns that the pipe to the script is writable" {
        std: ["ppoll reports OUT for the script's input."]
        mio: ["epoll_wait reports OUT for the script's input, edge-triggered."]
        smol: ["epoll_pwait reports OUT for the script's input, one-shot."]
    }
    "log" "writes the log entry" {
        std: ["No call here: the line goes to a queue, and the thread of the log writes it (write)."]
        mio: ["No call here: the line goes to a queue, and the thread of the log writes it (write)."]
        smol: ["No call here: the line goes to a queue, and the thread of the log writes it (write)."]
    }
    "release" "releases the file" {
        std: ["close(file)"; "The file was open for this exchange."]
        mio: ["close(file)"; "The file was open for this exchange."]
        smol: ["close(file)"; "The file was open for this exchange."]
    }
    "release-script" "releases the script" {
        std: ["close(output)", "close(exit)"; "The launcher reaps the process and kills what is left of its group."]
        mio: ["close(output)", "close(exit)"; "The launcher reaps the process and kills what is left of its group."]
        smol: ["epoll_ctl(DEL, output)", "epoll_ctl(DEL, exit)", "close(output)", "close(exit)"; "The launcher reaps the process and kills what is left of its group."]
    }
    "call" "calls the handler" {
        std: ["The portable handler is called in the thread of the connection; a blocking one runs there and may block."]
        mio: ["The handler is called in the loop and must return at once."]
        smol: ["The portable handler is called in the task; an async one is resumed there."]
    }
    "wake" "is woken by the handler" {
        std: ["ppoll reports that the waker wrote to its socket pair."]
        mio: ["epoll_wait reports that the eventfd of the loop was written to."]
        smol: ["The task is scheduled: no call if the executor is awake."]
    }
    "down" "learns that the server is shutting down" {
        std: ["ppoll reports that the latch of the server is readable; a thread that blocks in recvfrom checks it within 100 ms."]
        mio: ["epoll_wait reports that the eventfd of the loop was written to; every connection gets a turn."]
        smol: ["Every task is woken and checks the phase of the server."]
    }
    "fault" "finds that the connection or the file is broken" {
        std: ["The previous call failed: ECONNRESET, EPIPE, or a file that ended early."]
        mio: ["The previous call failed, or epoll_wait reported ERR."]
        smol: ["The previous call failed: ECONNRESET, EPIPE, or a file that ended early."]
    }
    "shut" "half-closes" {
        std: ["shutdown(socket, SHUT_WR)"; "The peer reads end of file after the response; the server keeps reading, so that no reset destroys the response."]
        mio: ["shutdown(socket, SHUT_WR)"; "The peer reads end of file after the response; the server keeps reading, so that no reset destroys the response."]
        smol: ["shutdown(socket, SHUT_WR)"; "The peer reads end of file after the response; the server keeps reading, so that no reset destroys the response."]
    }
    "close" "closes" {
        std: ["close(socket)"; "The thread takes the next connection, or becomes idle."]
        mio: ["close(socket)"; "Closing also removes the socket from epoll. The buffers go back to the pool."]
        smol: ["epoll_ctl(DEL, socket)", "close(socket)"; "The task ends. The buffers go back to the pool."]
    }
    "nothing" "has nothing to do" {
        std: ["The driver only passes the input to the core."]
        mio: ["The driver only passes the input to the core."]
        smol: ["The driver only passes the input to the core."]
    }
};

/// The state of a driver, as far as its system calls depend on it.
#[derive(Debug, Default)]
pub(crate) struct Driver {
    accepted: bool,
    /// Bytes that wait for a flush.
    batch: u64,
    /// A file or directory is open.
    holds: bool,
    /// The file is assumed to be in the cache.
    cached: bool,
    /// Part of the file was sent.
    begun: bool,
    has_script: bool,
    spools: bool,
    /// The socket of std is blocking.
    blocks: bool,
    /// The driver has waited before.
    waited: bool,
    /// The next wait of std is a `ppoll`.
    polls: bool,
    /// The last wait of std is in `recvfrom`.
    in_recv: bool,
    /// The current value of `SO_RCVTIMEO`, in milliseconds.
    recv_timeout: Option<u64>,
    reads: bool,
}

impl Driver {
    /// The keys of the rows of [`OPERATIONS`] that an event consists of.
    pub(crate) fn operations(&mut self, event: &Event) -> Vec<&'static str> {
        let mut keys = Vec::new();
        if !std::mem::replace(&mut self.accepted, true) {
            keys.push("accept");
        }
        match &event.what {
            What::Recv(_) | What::Input(Input::Eof) => keys.push(match (self.reads, self.in_recv) {
                (false, _) => "unread",
                (true, true) => "read-returns",
                (true, false) => "read",
            }),
            What::Tick | What::Clock(_) => keys.push("time"),
            What::Input(input) => keys.push(of_input(input)),
            What::Script(_) => keys.push("read-script"),
            What::Send(sending) => self.send(sending, &mut keys),
            What::Open { answer, .. } => keys.push(match answer {
                Some(Ok(opened)) if opened.kind == Kind::Directory => {
                    self.hold(false);
                    "open-directory"
                }
                Some(Ok(opened)) if opened.len <= CacheLimits::default().file => {
                    (self.holds, self.cached, self.begun) = (false, true, false);
                    "open-small"
                }
                Some(Ok(_)) => {
                    self.hold(true);
                    "open-large"
                }
                Some(Err(_)) => "open-failed",
                None => "nothing",
            }),
            What::List { .. } => keys.push("list"),
            What::Find { .. } => keys.push("find"),
            What::Spool { .. } => {
                self.spools = true;
                keys.push("spool");
            }
            What::Spawn { told, answer } => {
                self.spools = false;
                if told.input == ScriptInput::Spooled {
                    keys.push("rewind");
                }
                self.has_script = *answer == Some(Ok(()));
                keys.push(if self.has_script { "spawn" } else { "spawn-failed" });
            }
            What::Feed { then, .. } => {
                keys.push(if self.spools { "feed-file" } else { "feed" });
                if matches!(then, FeedThen::End | FeedThen::Full) {
                    keys.push("fault");
                }
            }
            What::EndInput => keys.push("end-input"),
            What::Kill => keys.push("kill"),
            What::Log(_) => keys.push("log-script"),
            What::Call(_) => keys.push("call"),
            What::Finished(_) => {
                keys.push("log");
                if std::mem::take(&mut self.holds) {
                    keys.push("release");
                }
                if std::mem::take(&mut self.has_script) {
                    keys.push("release-script");
                }
                (self.spools, self.begun, self.cached) = (false, false, false);
            }
            What::Probe { .. } => keys.push("probe"),
            What::Wait(wait) => self.wait(wait, event.at, &mut keys),
            What::Shut { blocked } => {
                self.flush(&mut keys);
                if !blocked {
                    keys.push("shut");
                }
            }
            What::Close { blocked, .. } => {
                self.flush(&mut keys);
                if !blocked {
                    keys.push("close");
                }
            }
        }
        keys
    }

    fn hold(&mut self, is_file: bool) {
        (self.holds, self.begun) = (true, false);
        self.cached &= !is_file;
    }

    fn flush(&mut self, keys: &mut Vec<&'static str>) {
        if std::mem::take(&mut self.batch) > 0 {
            keys.push("flush");
        }
    }

    fn send(&mut self, sending: &Sending, keys: &mut Vec<&'static str>) {
        let len = sending.len();
        let is_whole = sending.taken.bytes.is_none() && sending.taken.then == Then::Poll;
        match sending.body {
            Middle::File { .. } if !self.cached => {
                if std::mem::take(&mut self.blocks) {
                    keys.push("set-nonblocking");
                }
                self.polls = true;
                if !sending.head.is_empty() || self.batch > 0 {
                    keys.push("send-head");
                }
                if std::mem::replace(&mut self.begun, true) {
                    keys.push("check-file");
                }
                self.batch = 0;
                keys.push("sendfile");
            }
            _ if is_whole && self.batch + len <= BATCH as u64 => {
                self.batch += len;
                keys.push("batch");
            }
            _ => {
                self.batch = 0;
                keys.push("send");
            }
        }
        if let Then::Broken(_) = sending.taken.then {
            keys.push("fault");
        }
    }

    fn wait(&mut self, wait: &Wait, now: u64, keys: &mut Vec<&'static str>) {
        let need = wait.need;
        if !need.write {
            self.flush(keys);
        }
        self.in_recv = false;
        self.reads = need.read;
        let waited = std::mem::replace(&mut self.waited, true);
        let key = match need {
            _ if need.script_read || need.script_write => "wait-script",
            _ if need.handler => "wait-handler",
            _ if need.write => "wait-write",
            _ if need.completion => "wait-disk",
            _ if !need.read => "wait-time",
            _ if !waited => "wait-new",
            _ if !self.blocks && std::mem::take(&mut self.polls) => "wait-poll",
            _ => {
                if !std::mem::replace(&mut self.blocks, true) {
                    keys.push("set-blocking");
                }
                self.set_recv_timeout(wait.deadline.map(|deadline| deadline.0.saturating_sub(now)), keys);
                self.in_recv = true;
                "wait-read"
            }
        };
        keys.push(key);
    }

    /// Follows the receive timeout of the std frontend.
    fn set_recv_timeout(&mut self, left: Option<u64>, keys: &mut Vec<&'static str>) {
        let Some(left) = left.map(|left| left.max(1)) else { return };
        if !self.recv_timeout.is_some_and(|set| (left / 4..=left).contains(&set)) {
            self.recv_timeout = Some(left);
            keys.push("set-recv-timeout");
        }
    }
}

fn of_input(input: &Input) -> &'static str {
    match input {
        Input::Writable => "ready",
        Input::Feedable => "feedable",
        Input::ScriptEof | Input::ScriptFailed(_) => "read-script",
        Input::Wake => "wake",
        Input::Leave | Input::Drain | Input::Cut => "down",
        Input::Broken(_) | Input::FeedEnd | Input::SpoolFull => "fault",
        Input::FilePending | Input::FileReady => "wait-disk",
        Input::Done(_, Completion::Opened(_) | Completion::Listed(_) | Completion::Found(_)) => "wait-disk",
        _ => "nothing",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use sanserve_transcript::Transcript;

    use super::*;

    fn operations(text: &str) -> Vec<Vec<&'static str>> {
        let mut driver = Driver::default();
        Transcript::parse(text).unwrap().events().map(|event| driver.operations(event)).collect()
    }

    #[test]
    fn keys_are_unique_and_behaviors_are_described() {
        let keys: BTreeSet<_> = OPERATIONS.iter().map(|operation| operation.key).collect();
        assert_eq!(keys.len(), OPERATIONS.len());
        for operation in OPERATIONS {
            assert!(!operation.what.is_empty());
            for behavior in [&operation.std, &operation.mio, &operation.smol] {
                assert!(!behavior.note.is_empty(), "{}", operation.key);
            }
        }
    }

    /// All transcripts together reach every row, and every key has a row.
    #[test]
    fn every_row_is_reached() {
        let mut reached = BTreeSet::new();
        for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/core/tests/transcripts")).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            reached.extend(operations(&text).into_iter().flatten());
        }
        // No connection of the corpus waits only for a deadline.
        reached.extend(operations("sanserve transcript 1\n@0 wait nothing until 5\n").into_iter().flatten());
        assert_eq!(reached, OPERATIONS.iter().map(|operation| operation.key).collect());
    }

    #[test]
    fn a_get_is_batched_and_sent_before_the_wait() {
        let steps = operations(include_str!("../../core/tests/transcripts/timeout-keep-alive.txt"));
        assert_eq!(steps[0], ["accept", "wait-new"]);
        assert!(steps.iter().any(|keys| keys[..] == ["batch"]), "{steps:?}");
        let behind = ["flush", "set-blocking", "set-recv-timeout", "wait-read"];
        assert!(steps.iter().any(|keys| keys[..] == behind), "{steps:?}");
    }
}
