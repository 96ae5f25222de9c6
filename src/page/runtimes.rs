//! What each runtime does for a step: its system calls on Linux, as strace names them.
//!
//! [`DEEDS`] is the table, written once; [`Driver`] says which of its rows a step is made of. It follows what a
//! driver remembers: the batch, whether the socket of std blocks, what is held open. Whether a file is in the
//! cache does not stand in a transcript: one that would fit is taken to be there. `tests/trace_calls.rs`
//! compares with what the servers really do.

use sanserve::core::{Completion, Input, Kind, ScriptInput, Wait};
use sanserve::server::{BATCH, CacheLimits};
use sanserve::transcript::{Event, FeedThen, Middle, Sending, Then, What};

/// What one runtime does for one thing: its system calls in order, and what is to be said about them.
pub(crate) struct Doing {
    pub(crate) calls: &'static [&'static str],
    pub(crate) remark: &'static str,
}

/// One thing that a driver does, on each runtime.
pub(crate) struct Deed {
    pub(crate) key: &'static str,
    pub(crate) what: &'static str,
    pub(crate) std: Doing,
    pub(crate) mio: Doing,
    pub(crate) smol: Doing,
}

macro_rules! doing {
    ($remark:literal) => {
        Doing { calls: &[], remark: $remark }
    };
    ($($call:literal),+ ; $remark:literal) => {
        Doing { calls: &[$($call),+], remark: $remark }
    };
}

macro_rules! deeds {
    ($($key:literal $what:literal { std: [$($std:tt)*] mio: [$($mio:tt)*] smol: [$($smol:tt)*] })*) => {
        &[$(Deed { key: $key, what: $what, std: doing!($($std)*), mio: doing!($($mio)*), smol: doing!($($smol)*) }),*]
    };
}

/// All that drivers do. The shared part of the three is in `os/`, so many rows have the same calls thrice.
pub(crate) const DEEDS: &[Deed] = deeds! {
    "accept" "accepts the connection" {
        std: ["ppoll(listener, latch)", "accept4(listener, NONBLOCK|CLOEXEC)"; "The accepting thread hands it to a thread of its own: one that rests, or a new one."]
        mio: ["epoll_wait(all)", "accept4(listener, NONBLOCK|CLOEXEC)", "epoll_ctl(ADD, socket, IN|OUT|RDHUP|ET)"; "Edge-triggered, and once for the connection's life: no later wait registers anything. Idle, it is 32 bytes."]
        smol: ["epoll_pwait(all)", "accept4(listener, NONBLOCK|CLOEXEC)"; "It becomes a task. Its socket is not registered before it is first waited for."]
    }
    "wait-new" "waits on a new socket" {
        std: ["ppoll(socket: IN, deadline)"; "The socket does not block yet. One request may be all that ever comes, so nothing is arranged for more."]
        mio: ["epoll_wait(all, next deadline)"; "One call for all connections. The deadline is an entry of a timing wheel."]
        smol: ["recvfrom(socket) = EAGAIN", "epoll_ctl(ADD, socket)", "epoll_ctl(MOD, socket, IN|ONESHOT)", "timerfd_settime(next deadline)", "epoll_pwait(all)"; "It tries first, then registers. The deadline is in a heap; one timer of the reactor stands for all of them. The task sleeps, the thread runs others."]
    }
    "arrange-blocking" "makes the socket block" {
        std: ["ioctl(socket, FIONBIO, 0)"; "From here on one recv is a wait and a read."]
        mio: ["Nothing: its socket never blocks."]
        smol: ["Nothing: its socket never blocks."]
    }
    "arrange-patience" "sets how long a read may block" {
        std: ["setsockopt(socket, SO_RCVTIMEO, 100 ms)"; "Once, unless the deadline is nearer. A thread that blocks in recvfrom sees nothing but its socket."]
        mio: ["Nothing: the deadline is an entry of the timing wheel. One that moves later leaves its entry where it is."]
        smol: ["Nothing: the deadline is in a heap, as lazily."]
    }
    "wait-read" "waits for bytes" {
        std: ["recvfrom(socket, window, 0)"; "The thread blocks in the very call that will read. If nothing comes for 100 ms, it waits in ppoll for its socket, and for the latch that says that the server goes down."]
        mio: ["epoll_wait(all, next deadline)"; "The loop waits for all connections at once."]
        smol: ["epoll_ctl(MOD, socket, IN|ONESHOT)", "timerfd_settime(next deadline)", "epoll_pwait(all)"; "The event is used up each time, so it is asked for anew. The task sleeps."]
    }
    "wait-poll" "waits for bytes, the socket not blocking" {
        std: ["ppoll(socket: IN, deadline)"; "It sent from a descriptor, and sendfile knows no flag for that: the socket was made not to block."]
        mio: ["epoll_wait(all, next deadline)"; "The loop waits for all connections at once."]
        smol: ["epoll_ctl(MOD, socket, IN|ONESHOT)", "timerfd_settime(next deadline)", "epoll_pwait(all)"; "The event is asked for anew. The task sleeps."]
    }
    "wait-write" "waits until the socket takes more" {
        std: ["ppoll(socket: OUT, deadline)"; "The write clock of the core bounds it."]
        mio: ["epoll_wait(all, next deadline)"; "It was registered for both directions: the event comes by itself when there is room."]
        smol: ["epoll_ctl(MOD, socket, OUT|ONESHOT)", "timerfd_settime(next deadline)", "epoll_pwait(all)"; "The task sleeps until there is room."]
    }
    "wait-script" "waits for the script and the peer" {
        std: ["ppoll(socket, output, exit, input; deadline)"; "One call for the peer, the script's pipes and the descriptor of its process."]
        mio: ["epoll_ctl(ADD, output)", "epoll_ctl(ADD, exit)", "epoll_wait(all, next deadline)"; "The pipes and the process descriptor are registered with its first wait only; its input too, if it has one."]
        smol: ["epoll_ctl(MOD, socket, IN|ONESHOT)", "epoll_ctl(MOD, output, IN|ONESHOT)", "epoll_ctl(MOD, exit, IN|ONESHOT)", "epoll_pwait(all)"; "Each descriptor that is needed is asked for anew."]
    }
    "wait-handler" "waits for the handler" {
        std: ["ppoll(socket, bell; deadline)"; "The bell is a socket pair that a waker writes to. A blocking handler waits by itself instead."]
        mio: ["epoll_wait(all, next deadline)"; "A waker writes to the eventfd of the loop. Buffers go back to the pool meanwhile."]
        smol: ["epoll_ctl(MOD, socket, ONESHOT)", "epoll_pwait(all)"; "A waker wakes the task; an async handler awaits by itself instead."]
    }
    "wait-disk" "waits for the disk" {
        std: ["None of the three does this: what the disk says, it says within the call. A driver with threads for the disk would."]
        mio: ["None of the three does this: what the disk says, it says within the call, and the loop waits for that."]
        smol: ["None of the three does this: what the disk says, it says within the call, and the thread waits for that."]
    }
    "wait-time" "waits for the time, and for a reset" {
        std: ["ppoll(socket, no events; deadline)"; "Only a reset or the deadline ends it."]
        mio: ["epoll_wait(all, next deadline)"; "An edge that means a reset still comes."]
        smol: ["ppoll(socket, no events; 0)", "timerfd_settime(next deadline)", "epoll_pwait(all)"; "It looks for a reset once a second."]
    }
    "read" "reads what came" {
        std: ["recvfrom(socket, window, DONTWAIT)"; "ppoll has said that there is something."]
        mio: ["recvfrom(socket, window, 0)"; "All connections that are ready are read from first, and answered afterwards."]
        smol: ["recvfrom(socket, window, 0)"; "A read that fills the window is tried again before the next wait."]
    }
    "read-returns" "reads what came" {
        std: ["The recvfrom returns in which the thread has been blocked."]
        mio: ["recvfrom(socket, window, 0)"; "All connections that are ready are read from first, and answered afterwards."]
        smol: ["recvfrom(socket, window, 0)"; "A read that fills the window is tried again before the next wait."]
    }
    "probe" "looks at the socket once more" {
        std: ["recvfrom(socket, window, DONTWAIT)"; "Whatever has arrived by now is seen, before anything is closed."]
        mio: ["recvfrom(socket, window, DONTWAIT)"; "Whatever has arrived by now is seen, before anything is closed."]
        smol: ["recvfrom(socket, window, DONTWAIT)"; "Whatever has arrived by now is seen, before anything is closed."]
    }
    "unread" "leaves what came in the socket" {
        std: ["The core has not asked to read: TCP holds the peer back."]
        mio: ["The event is noted and the bytes stay: TCP holds the peer back."]
        smol: ["Nothing is asked of the reactor: TCP holds the peer back."]
    }
    "time" "sees that the time has come" {
        std: ["The recvfrom ends with EAGAIN, or the ppoll with 0: its time is over."]
        mio: ["epoll_wait returns, and the wheel says that this connection is due."]
        smol: ["epoll_pwait returns for the timer, and the heap says that this connection is due."]
    }
    "ready" "hears that the socket takes more" {
        std: ["ppoll says OUT."]
        mio: ["epoll_wait says OUT: an edge."]
        smol: ["epoll_pwait says OUT, once."]
    }
    "open-small" "opens a small file" {
        std: ["newfstatat(root, path)"; "The cache has it, and this is the check that it is still the same file. The first time: openat, fstat, pread64, fstat, close."]
        mio: ["newfstatat(root, path)"; "The cache has it, and this is the check. One check serves all requests that had arrived by then. The first time: openat, fstat, pread64, fstat, close."]
        smol: ["newfstatat(root, path)"; "The cache has it, and this is the check, good for one turn of the connection. The first time: openat, fstat, pread64, fstat, close."]
    }
    "open-large" "opens a large file" {
        std: ["openat(root, path, RDONLY|NONBLOCK)", "fstat(file)"; "Kept until the exchange is finished. With --symlinks inside or never: openat2(RESOLVE_BENEATH)."]
        mio: ["openat(root, path, RDONLY|NONBLOCK)", "fstat(file)"; "Kept until the exchange is finished. The loop waits for it. With --symlinks inside or never: openat2(RESOLVE_BENEATH)."]
        smol: ["openat(root, path, RDONLY|NONBLOCK)", "fstat(file)"; "Kept until the exchange is finished. The thread waits for it. With --symlinks inside or never: openat2(RESOLVE_BENEATH)."]
    }
    "open-directory" "opens a directory" {
        std: ["openat(root, path, RDONLY|NONBLOCK)", "fstat(directory)"; "A directory is opened as a file is, and then looked at."]
        mio: ["openat(root, path, RDONLY|NONBLOCK)", "fstat(directory)"; "A directory is opened as a file is, and then looked at."]
        smol: ["openat(root, path, RDONLY|NONBLOCK)", "fstat(directory)"; "A directory is opened as a file is, and then looked at."]
    }
    "open-failed" "tries to open" {
        std: ["openat(root, path, RDONLY|NONBLOCK) = error"; "That something is missing is not cached."]
        mio: ["openat(root, path, RDONLY|NONBLOCK) = error"; "That something is missing is not cached."]
        smol: ["openat(root, path, RDONLY|NONBLOCK) = error"; "That something is missing is not cached."]
    }
    "list" "reads a batch of the directory" {
        std: ["getdents64(directory, 24 KiB)"; "At most 1,024 entries; for links also newfstatat."]
        mio: ["getdents64(directory, 24 KiB)"; "At most 1,024 entries, which count as 32 steps of the turn: the others are not held up."]
        smol: ["getdents64(directory, 24 KiB)"; "At most 1,024 entries; for links also newfstatat."]
    }
    "batch" "copies it into the batch" {
        std: ["No call: it leaves with what else is batched, before the driver waits. The core is told that all was sent."]
        mio: ["No call: it leaves with what else is batched, before the driver waits. The core is told that all was sent."]
        smol: ["No call: it leaves with what else is batched, before the driver waits. The core is told that all was sent."]
    }
    "flush" "sends the batch" {
        std: ["sendto(socket, batch, DONTWAIT|NOSIGNAL)"; "Before it waits, half-closes or closes."]
        mio: ["sendto(socket, batch, DONTWAIT|NOSIGNAL)"; "Before it waits, half-closes or closes."]
        smol: ["sendto(socket, batch, DONTWAIT|NOSIGNAL)"; "Before it waits, half-closes or closes."]
    }
    "send" "sends it together with the batch" {
        std: ["sendmsg(socket, [batch, head, body, tail], DONTWAIT|NOSIGNAL)"; "It does not fit into the batch of 16 KiB. A body from the cache is sent from there."]
        mio: ["sendmsg(socket, [batch, head, body, tail], DONTWAIT|NOSIGNAL)"; "It does not fit into the batch of 16 KiB. A body from the cache is sent from there."]
        smol: ["sendmsg(socket, [batch, head, body, tail], DONTWAIT|NOSIGNAL)"; "It does not fit into the batch of 16 KiB. A body from the cache is sent from there."]
    }
    "arrange-nonblocking" "makes the socket not block" {
        std: ["ioctl(socket, FIONBIO, 1)"; "sendfile knows no flag for that."]
        mio: ["Nothing: its socket never blocks."]
        smol: ["Nothing: its socket never blocks."]
    }
    "send-head" "sends batch and head" {
        std: ["sendmsg(socket, [batch, head], DONTWAIT|NOSIGNAL|MORE)"; "More follows: the kernel puts it into the same packets."]
        mio: ["sendmsg(socket, [batch, head], DONTWAIT|NOSIGNAL|MORE)"; "More follows: the kernel puts it into the same packets."]
        smol: ["sendmsg(socket, [batch, head], DONTWAIT|NOSIGNAL|MORE)"; "More follows: the kernel puts it into the same packets."]
    }
    "check-file" "looks whether the file is still the same" {
        std: ["fstat(file)"; "Some of it went out before: what follows must be of the same state."]
        mio: ["fstat(file)"; "Some of it went out before: what follows must be of the same state."]
        smol: ["fstat(file)"; "Some of it went out before: what follows must be of the same state."]
    }
    "sendfile" "lets the kernel send the file" {
        std: ["sendfile(socket, file, at most 1 MiB)"; "The bytes never reach the process."]
        mio: ["sendfile(socket, file, at most 1 MiB)"; "The bytes never reach the process. After 2 MiB the others have their turn."]
        smol: ["sendfile(socket, file, at most 1 MiB)"; "The bytes never reach the process. After 1 MiB the others have their turn."]
    }
    "find" "looks for the script" {
        std: ["newfstatat(root, path)"; "One for each component, down to the first that is no directory."]
        mio: ["newfstatat(root, path)"; "One for each component. If others wait, this connection then queues: one script is started in a round of the loop."]
        smol: ["newfstatat(root, path)"; "One for each component, down to the first that is no directory."]
    }
    "spool" "makes a file for the body" {
        std: ["openat(/tmp, TMPFILE)"; "It has no name, and is gone when it is closed."]
        mio: ["openat(/tmp, TMPFILE)"; "It has no name, and is gone when it is closed."]
        smol: ["openat(/tmp, TMPFILE)"; "It has no name, and is gone when it is closed."]
    }
    "rewind" "goes back to the beginning of that file" {
        std: ["lseek(file, 0)"; "The script reads it as its input."]
        mio: ["lseek(file, 0)"; "The script reads it as its input."]
        smol: ["lseek(file, 0)"; "The script reads it as its input."]
    }
    "spawn" "starts the script" {
        std: ["getsockname(socket)", "pipe2(output)", "pipe2(stderr)", "clone()", "child: dup2, setuid, chdir, setpgid, execve", "pidfd_open(child)", "write(attendant's bell)"; "Far more than anything else costs. As root it becomes nobody. A thread of the server, the attendant, reads its stderr and ends it in time."]
        mio: ["getsockname(socket)", "pipe2(output)", "pipe2(stderr)", "clone()", "child: dup2, setuid, chdir, setpgid, execve", "pidfd_open(child)", "write(attendant's bell)"; "Far more than anything else costs: the loop starts one in a round. As root it becomes nobody. The attendant reads its stderr and ends it in time."]
        smol: ["getsockname(socket)", "pipe2(output)", "pipe2(stderr)", "clone()", "child: dup2, setuid, chdir, setpgid, execve", "pidfd_open(child)", "write(attendant's bell)", "fcntl(output, F_DUPFD_CLOEXEC)", "epoll_ctl(ADD, output)", "epoll_ctl(ADD, exit)"; "Far more than anything else costs. The reactor gets descriptors of its own of the pipes. As root it becomes nobody."]
    }
    "spawn-failed" "cannot start the script" {
        std: ["Either as many run as may, or clone or execve fails."]
        mio: ["Either as many run as may, or clone or execve fails."]
        smol: ["Either as many run as may, or clone or execve fails."]
    }
    "feed" "writes to the script" {
        std: ["write(input)"; "The pipe does not block: what does not fit is offered again."]
        mio: ["write(input)"; "The pipe does not block: what does not fit is offered again."]
        smol: ["write(input)"; "The pipe does not block: what does not fit is offered again."]
    }
    "feed-file" "writes to that file" {
        std: ["write(file)"; "The length must be known before the script runs (RFC 3875 section 4.1.2)."]
        mio: ["write(file)"; "The length must be known before the script runs (RFC 3875 section 4.1.2)."]
        smol: ["write(file)"; "The length must be known before the script runs (RFC 3875 section 4.1.2)."]
    }
    "end-input" "closes the script's input" {
        std: ["close(input)"; "The script reads the end."]
        mio: ["close(input)"; "The script reads the end. epoll forgets it by itself."]
        smol: ["epoll_ctl(DEL, input)", "close(input)"; "The reactor's descriptor is let go too."]
    }
    "kill" "ends the script" {
        std: ["kill(-group, SIGTERM)"; "SIGKILL follows after a grace: that is the attendant's."]
        mio: ["kill(-group, SIGTERM)"; "SIGKILL follows after a grace: that is the attendant's."]
        smol: ["kill(-group, SIGTERM)"; "SIGKILL follows after a grace: that is the attendant's."]
    }
    "remark" "logs what is wrong with what the script printed" {
        std: ["write(stderr)"; "A thread of the log's writes it."]
        mio: ["write(stderr)"; "A thread of the log's writes it."]
        smol: ["write(stderr)"; "A thread of the log's writes it."]
    }
    "read-script" "reads what the script said" {
        std: ["read(output, window)"; "ppoll has said that there is something."]
        mio: ["read(output, window)"; "Until there is nothing more: the event was an edge."]
        smol: ["read(output, window)"; "It is asked for anew afterwards."]
    }
    "feedable" "hears that the script takes more" {
        std: ["ppoll says OUT for its input."]
        mio: ["epoll_wait says OUT for its input: an edge."]
        smol: ["epoll_pwait says OUT for its input, once."]
    }
    "log" "writes the log entry" {
        std: ["No call here: the line goes to a queue, from which a thread of its own writes (write)."]
        mio: ["No call here: the line goes to a queue, from which a thread of its own writes (write)."]
        smol: ["No call here: the line goes to a queue, from which a thread of its own writes (write)."]
    }
    "release" "lets the file go" {
        std: ["close(file)"; "What was held for the exchange."]
        mio: ["close(file)"; "What was held for the exchange."]
        smol: ["close(file)"; "What was held for the exchange."]
    }
    "release-script" "lets the script go" {
        std: ["close(output)", "close(exit)"; "Its process is reaped (wait4), and what is left of its group killed."]
        mio: ["close(output)", "close(exit)"; "Its process is reaped (wait4), and what is left of its group killed."]
        smol: ["epoll_ctl(DEL, output)", "epoll_ctl(DEL, exit)", "close(output)", "close(exit)"; "Its process is reaped (wait4), and what is left of its group killed."]
    }
    "call" "calls the handler" {
        std: ["The portable handler is called in the thread of the connection; a blocking one runs there and may block."]
        mio: ["The handler is called in the loop, and returns at once."]
        smol: ["The portable handler is called in the task; an async one is resumed there."]
    }
    "wake" "is woken by the handler" {
        std: ["ppoll says that the bell has rung."]
        mio: ["epoll_wait says that the eventfd of the loop was written to."]
        smol: ["The task is scheduled again: no call if the executor is awake."]
    }
    "down" "is told that the server goes down" {
        std: ["ppoll says that the latch of the server is readable; a thread that blocks in recvfrom looks at it within 100 ms."]
        mio: ["epoll_wait says that the eventfd of the loop was written to; every connection has a turn."]
        smol: ["Every task is woken, and looks at the phase of the server."]
    }
    "fault" "finds the connection or the file beyond use" {
        std: ["The call before this has failed: ECONNRESET, EPIPE, or a file that ends early."]
        mio: ["The call before this has failed, or epoll_wait has said ERR."]
        smol: ["The call before this has failed: ECONNRESET, EPIPE, or a file that ends early."]
    }
    "shut" "half-closes" {
        std: ["shutdown(socket, SHUT_WR)"; "The peer reads the end behind the answer; it is read on, so that no reset overtakes that."]
        mio: ["shutdown(socket, SHUT_WR)"; "The peer reads the end behind the answer; it is read on, so that no reset overtakes that."]
        smol: ["shutdown(socket, SHUT_WR)"; "The peer reads the end behind the answer; it is read on, so that no reset overtakes that."]
    }
    "close" "closes" {
        std: ["close(socket)"; "The thread takes the next connection, or rests."]
        mio: ["close(socket)"; "epoll forgets it by itself. Buffers go back to the pool."]
        smol: ["epoll_ctl(DEL, socket)", "close(socket)"; "The task ends. Buffers go back to the pool."]
    }
    "nothing" "has nothing to do" {
        std: ["The core was told, and that is all."]
        mio: ["The core was told, and that is all."]
        smol: ["The core was told, and that is all."]
    }
};

/// What a driver remembers from step to step, as far as its calls depend on it.
#[derive(Debug, Default)]
pub(crate) struct Driver {
    accepted: bool,
    /// Bytes that wait for a flush.
    batch: u64,
    /// A file or directory is held open.
    holds: bool,
    /// The file that is held is taken to be in the cache.
    cached: bool,
    /// Some of the file went out.
    begun: bool,
    has_script: bool,
    spools: bool,
    /// The socket of std blocks.
    blocks: bool,
    /// It was waited for before.
    waited: bool,
    /// The next wait of std is a poll.
    polls: bool,
    /// The last wait of std blocks in `recvfrom`.
    in_recv: bool,
    /// What `SO_RCVTIMEO` is, in milliseconds.
    patience: Option<u64>,
    reads: bool,
}

impl Driver {
    /// The rows of [`DEEDS`] that an event is made of.
    pub(crate) fn deeds(&mut self, event: &Event) -> Vec<&'static str> {
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
            What::Log(_) => keys.push("remark"),
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
                    keys.push("arrange-nonblocking");
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
                    keys.push("arrange-blocking");
                }
                self.be_patient(wait.deadline.map(|deadline| deadline.0.saturating_sub(now)), keys);
                self.in_recv = true;
                "wait-read"
            }
        };
        keys.push(key);
    }

    /// As `patience` of std has it.
    fn be_patient(&mut self, left: Option<u64>, keys: &mut Vec<&'static str>) {
        let Some(left) = left.map(|left| left.max(1)) else { return };
        if !self.patience.is_some_and(|set| (left / 4..=left).contains(&set)) {
            self.patience = Some(left);
            keys.push("arrange-patience");
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
        Input::Done(_, Completion::Opened(_) | Completion::Listed(_) | Completion::Found(_)) => "wait-disk",
        _ => "nothing",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use sanserve::transcript::Transcript;

    use super::*;

    fn deeds(text: &str) -> Vec<Vec<&'static str>> {
        let mut driver = Driver::default();
        Transcript::parse(text).unwrap().events().map(|event| driver.deeds(event)).collect()
    }

    #[test]
    fn keys_are_unique_and_each_says_something() {
        let keys: BTreeSet<_> = DEEDS.iter().map(|deed| deed.key).collect();
        assert_eq!(keys.len(), DEEDS.len());
        for deed in DEEDS {
            assert!(!deed.what.is_empty());
            for doing in [&deed.std, &deed.mio, &deed.smol] {
                assert!(!doing.remark.is_empty(), "{}", deed.key);
            }
        }
    }

    /// All transcripts together reach every row, and no row is asked for that is not there.
    #[test]
    fn every_row_is_reached() {
        let mut reached = BTreeSet::new();
        for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/core/tests/transcripts")).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            reached.extend(deeds(&text).into_iter().flatten());
        }
        // No connection of the corpus waits for the time alone.
        reached.extend(deeds("sanserve transcript 1\n@0 wait nothing until 5\n").into_iter().flatten());
        assert_eq!(reached, DEEDS.iter().map(|deed| deed.key).collect());
    }

    #[test]
    fn a_get_is_batched_and_leaves_before_the_wait() {
        let steps = deeds(include_str!("../../core/tests/transcripts/timeout-keep-alive.txt"));
        assert_eq!(steps[0], ["accept", "wait-new"]);
        assert!(steps.iter().any(|keys| keys[..] == ["batch"]), "{steps:?}");
        let behind = ["flush", "arrange-blocking", "arrange-patience", "wait-read"];
        assert!(steps.iter().any(|keys| keys[..] == behind), "{steps:?}");
    }
}
