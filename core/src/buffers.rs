//! The memory of a busy connection. It belongs to the driver, which takes it from a pool and returns it when the
//! connection is idle ([`Wait::idle`](crate::Wait)). The contents of the bytes are not interpreted here.

use std::sync::Arc;

use crate::conditional::LastValidators;
use crate::handler_error::HandlerError;
use crate::handover::{FileHandle, Handover, UpgradeState};
use crate::listing::Listing;
use crate::peer::Peer;
use crate::range::ByteRange;
use crate::reason::{Reason, Reasons};
use crate::request::Request;
use crate::secured::Secured;
use crate::share::{Memory, Share};
use crate::time::Tick;
use crate::wire::Head;

/// The initial size of the window for the peer.
const FIRST_WINDOW: usize = 4 * 1024;

/// The size that the window may grow to while a body is read.
const BODY_WINDOW: usize = 16 * 1024;

/// The window grows by this much even if no memory can be reserved, as long as so little is unread that the rest of a
/// line may be missing. Otherwise, the connection could not make progress.
const LEAST_GROWTH: usize = 1024;

/// The initial size of the window for the output of a script: the capacity of a pipe.
const SCRIPT_WINDOW: usize = 64 * 1024;

/// The memory of a busy connection. It is reused from exchange to exchange without being freed.
///
/// ```
/// use sanserve_core::Buffers;
///
/// let mut buf = Buffers::new();
/// // A driver reads from the socket into the free part of the window, and says how much that was.
/// let spare = buf.input.spare();
/// spare[..3].copy_from_slice(b"GET");
/// buf.input.commit(3);
/// assert_eq!(buf.input.unread(), b"GET");
/// ```
#[derive(Debug)]
pub struct Buffers {
    /// Bytes from the peer.
    pub input: Window,
    /// Bytes from a script.
    pub script: Window,
    pub(crate) output: Output,
    pub(crate) head: Head,
    pub(crate) scratch: Scratch,
    /// The trailer section of the request, as received.
    pub(crate) trailers: Vec<u8>,
    /// The trailer section of the response, as it will be sent.
    pub(crate) trailing: Vec<u8>,
    /// What a handler has given to the driver.
    pub(crate) handover: Handover,
    /// What the log entry says of the current exchange.
    pub(crate) account: Account,
    /// The head of the request that a local redirect substitutes for that of the peer; otherwise empty.
    pub(crate) moved: Vec<u8>,
    /// Why the response is what it is, if this is recorded.
    pub(crate) reasons: Reasons,
    /// The memory that these buffers have reserved from the budget of the server.
    pub(crate) share: Share,
}

/// What is counted of an exchange for its log entry.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Account {
    /// When the first byte of its request arrived, of the time of which nothing is left out.
    pub(crate) began: Tick,
    /// The number of bytes of the body that were read, with its framing.
    pub(crate) received: u64,
}

/// Intermediate values of a response.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The path below the root.
    pub(crate) path: Vec<u8>,
    /// The message of an error response.
    pub(crate) message: Vec<u8>,
    /// A page whose length is not known yet, or the target of a redirect.
    pub(crate) page: Vec<u8>,
    /// The last fields `Last-Modified` and `ETag`.
    pub(crate) validators: LastValidators,
    pub(crate) listing: Listing,
    pub(crate) ranges: Vec<ByteRange>,
    /// The arguments of a script, then its environment.
    pub(crate) variables: Vec<u8>,
    /// Messages about a script for the log.
    pub(crate) remarks: Vec<u8>,
    /// Why the handler failed, for the log; empty if it did not.
    pub(crate) failure: Vec<u8>,
    /// What the handler calls the exchange, for the log.
    pub(crate) tag: Vec<u8>,
    /// The page that replaces a response that the handler did not complete.
    pub(crate) failed: Option<Box<HandlerError>>,
}

impl Default for Buffers {
    fn default() -> Buffers {
        Buffers {
            input: Window::starting_with(FIRST_WINDOW),
            script: Window::starting_with(SCRIPT_WINDOW),
            output: Output::default(),
            head: Head::default(),
            scratch: Scratch::default(),
            trailers: Vec::new(),
            trailing: Vec::new(),
            handover: Handover::default(),
            account: Account::default(),
            moved: Vec::new(),
            reasons: Reasons::default(),
            share: Share::default(),
        }
    }
}

impl Buffers {
    /// Creates buffers, which allocate when they are first used.
    #[must_use]
    pub fn new() -> Buffers {
        Buffers::default()
    }

    /// Creates buffers that reserve memory from `memory`, except for the first 4 KiB of input and of output.
    #[must_use]
    pub fn within(memory: Arc<dyn Memory>) -> Buffers {
        Buffers { share: Share::of(memory), ..Buffers::default() }
    }

    /// How much output may be formatted ahead of the socket: `wanted`, or less if memory is short.
    pub(crate) fn output_room(&mut self, wanted: usize) -> usize {
        let has = self.output.reserved.max(FIRST_WINDOW);
        if wanted <= has {
            return wanted;
        }
        if !self.share.grow(wanted - self.output.reserved) {
            return has;
        }
        self.output.reserved = wanted;
        wanted
    }

    /// Like [`output_room`](Self::output_room), before `more` bytes of output. Reserves nothing if they fit in the
    /// first 4 KiB.
    pub(crate) fn output_room_for(&mut self, more: usize, wanted: usize) -> usize {
        if self.output.bytes.len() + more <= FIRST_WINDOW { wanted } else { self.output_room(wanted) }
    }

    /// Makes room for a complete body of `len` bytes. Returns `false` if no memory is available.
    pub(crate) fn make_room_for_body(&mut self, len: usize) -> bool {
        let has_room = self.output.bytes.len().saturating_add(len) <= FIRST_WINDOW
            // With room for a head, so that the vector does not double its capacity for one.
            || (self.output_room(len) >= len && self.output.bytes.try_reserve_exact(len + FIRST_WINDOW).is_ok());
        self.output.is_refused |= !has_room;
        has_room
    }

    /// Releases the memory of the output and of a listing, once everything has been sent.
    pub(crate) fn end_exchange(&mut self) {
        // It was attached for a part that never came.
        self.handover.file = None;
        self.output.is_refused = false;
        if self.output.reserved > 0 && self.output.unsent().is_empty() {
            self.output.shrink();
            self.share.shrink(std::mem::take(&mut self.output.reserved));
        }
        if self.scratch.listing.charged > 0 {
            self.scratch.listing.shrink();
            self.share.shrink(std::mem::take(&mut self.scratch.listing.charged));
        }
    }

    /// Shrinks the window to its initial size, if it is empty.
    pub(crate) fn shrink_input(&mut self) {
        let freed = self.input.shrink();
        self.share.shrink(freed);
    }

    /// Drops the head except for the request line, which the log needs. For a response that takes a long time and no
    /// longer needs the head.
    pub(crate) fn keep_line_only(&mut self) {
        if self.input.charged == 0 || !self.moved.is_empty() {
            return;
        }
        let line = self.head.line;
        self.head.clear();
        self.head.line = line;
        let freed = self.input.keep(line.end());
        self.share.shrink(freed);
    }

    /// The file that a handler has attached to its response
    /// ([`Reply::attach_file`](crate::Reply::attach_file)): for the driver, after each call of the handler before which
    /// no part of another file was being sent ([`Connection::is_sending_file`](crate::Connection::is_sending_file)).
    pub fn take_file(&mut self) -> Option<FileHandle> {
        self.handover.file.take()
    }

    /// What a handler hands to the next protocol ([`Reply::upgrade_with`](crate::Reply::upgrade_with)): for the driver,
    /// at [`Close::Upgraded`](crate::Close::Upgraded).
    pub fn take_upgrade_state(&mut self) -> Option<UpgradeState> {
        self.handover.upgrade.take()
    }

    /// Starts to record which rules decide about responses, until [`recycle`](Self::recycle). This costs memory and
    /// time for each exchange; servers do not enable it.
    pub fn explain(&mut self) {
        self.reasons.begin();
    }

    /// The decisions about the current exchange, in the order in which they were made; at most 256. They remain
    /// available until the poll after [`Step::Finished`](crate::Step::Finished). Empty unless
    /// [`explain`](Self::explain) was called.
    #[must_use]
    pub fn reasons(&self) -> &[Reason] {
        self.reasons.all()
    }

    /// The request, what is derived from it, and the recorded decisions.
    pub(crate) fn split<'b>(
        &'b mut self,
        peer: Peer,
        secured: Option<&'b Arc<Secured>>,
    ) -> (Request<'b>, &'b mut Scratch, &'b mut Reasons) {
        let Buffers { input, head, moved, scratch, reasons, .. } = self;
        let bytes = if moved.is_empty() { input.head() } else { moved };
        (Request { head, bytes, peer, secured }, scratch, reasons)
    }

    /// The number of bytes in these buffers. Spare capacity is only counted for the windows.
    #[must_use]
    pub fn held(&self) -> u64 {
        let texts = [
            &self.scratch.remarks,
            &self.scratch.failure,
            &self.scratch.tag,
            &self.scratch.path,
            &self.scratch.message,
            &self.scratch.page,
            &self.scratch.variables,
            &self.trailers,
            &self.trailing,
            &self.moved,
        ];
        let windows = self.input.held() + self.script.held() + self.output.bytes.len() + self.scratch.listing.held();
        (windows + texts.iter().map(|text| text.len()).sum::<usize>()) as u64
    }

    /// The bytes that `head` refers to.
    pub(crate) fn head_bytes(&self) -> &[u8] {
        if self.moved.is_empty() { self.input.head() } else { &self.moved }
    }

    /// Prepares the buffers for another connection: clears everything, so that no data of one peer can be read as that
    /// of another, and releases memory that an unusual exchange needed.
    pub fn recycle(&mut self) {
        self.input.clear();
        self.input.shrink();
        self.output.clear();
        self.output.shrink();
        self.scratch.listing.shrink();
        (self.output.reserved, self.scratch.listing.charged) = (0, 0);
        self.output.is_refused = false;
        self.scratch.path.shrink_to(4 * 1024);
        // A vector is never shrunk below its length.
        self.scratch.page.clear();
        self.scratch.page.shrink_to(4 * 1024);
        self.scratch.message.clear();
        self.scratch.message.shrink_to(1024);
        self.scratch.failure = Vec::new();
        self.scratch.tag = Vec::new();
        self.scratch.failed = None;
        self.head.shrink();
        self.scratch.ranges.shrink_to(16);
        self.script.free();
        self.scratch.variables = Vec::new();
        self.moved = Vec::new();
        self.trailers = Vec::new();
        self.trailing = Vec::new();
        self.handover = Handover::default();
        self.reasons = Reasons::default();
        self.share.release();
    }

    /// Frees what [`recycle`](Self::recycle) keeps for the next exchange, for a connection that has been idle for a while
    /// and keeps its buffers. They are allocated again when they are used.
    pub fn free(&mut self) {
        self.recycle();
        self.input.free();
        self.output.bytes = Vec::new();
        self.head.fields = Vec::new();
        let Scratch { path, message, page, ranges, remarks, .. } = &mut self.scratch;
        [path, message, page, remarks].into_iter().for_each(|text| *text = Vec::new());
        *ranges = Vec::new();
    }
}

/// Bytes from a peer or a script: the head of the current exchange, which is kept until the exchange is finished, then
/// the bytes that have not been read yet.
///
/// Invariant: `head + pinned <= start <= end <= bytes.len()`.
#[derive(Debug)]
pub struct Window {
    bytes: Vec<u8>,
    /// The initial size.
    first: usize,
    /// Where the pinned head begins.
    head: usize,
    /// The length of the pinned head.
    pinned: usize,
    /// Where the unread bytes begin.
    start: usize,
    /// Where the unread bytes end and the spare room begins.
    end: usize,
    /// The number of bytes that ever arrived.
    arrived: u64,
    /// The memory reserved from the budget of the server.
    charged: usize,
}

impl Window {
    fn starting_with(first: usize) -> Window {
        Window { bytes: Vec::new(), first, head: 0, pinned: 0, start: 0, end: 0, arrived: 0, charged: 0 }
    }

    /// The room for more bytes. It is not empty if the last step needs [`Need::read`](crate::Need), or `script_read`
    /// for the window of a script.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.bytes.is_empty() {
            self.bytes.resize(self.first, 0);
        }
        &mut self.bytes[self.end..]
    }

    /// Declares that the first `n` bytes of the spare room have been filled.
    ///
    /// # Panics
    /// If `n` is larger than the spare room.
    pub fn commit(&mut self, n: usize) {
        assert!(n <= self.bytes.len() - self.end, "committed more than the spare room");
        self.end += n;
        self.arrived += n as u64;
    }

    /// The number of bytes that ever arrived, on any connection. Only differences are meaningful.
    pub(crate) fn arrived(&self) -> u64 {
        self.arrived
    }

    /// Copies as much of `bytes` as there is room for, and returns how much that was. For drivers that have the bytes
    /// already, such as tests.
    pub fn fill(&mut self, bytes: &[u8]) -> usize {
        let spare = self.spare();
        let n = bytes.len().min(spare.len());
        spare[..n].copy_from_slice(&bytes[..n]);
        self.commit(n);
        n
    }

    /// The bytes that have not been consumed yet.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The size of the whole window.
    #[must_use]
    pub fn held(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no byte of any exchange is buffered.
    pub(crate) fn is_empty(&self) -> bool {
        self.pinned == 0 && self.start == self.end
    }

    /// Consumes the first `n` unread bytes.
    pub(crate) fn consume(&mut self, n: usize) {
        debug_assert!(n <= self.end - self.start);
        self.start += n;
        if self.pinned == 0 && self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Pins the first `n` unread bytes as the head of the current exchange.
    pub(crate) fn pin(&mut self, n: usize) {
        debug_assert!(self.pinned == 0 && n <= self.end - self.start);
        self.head = self.start;
        self.pinned = n;
        self.start += n;
    }

    /// The pinned head.
    pub(crate) fn head(&self) -> &[u8] {
        &self.bytes[self.head..self.head + self.pinned]
    }

    /// Releases the pinned head.
    pub(crate) fn unpin(&mut self) {
        self.pinned = 0;
        self.consume(0);
    }

    /// Makes spare room, by moving the contents or by growing up to `most` unread bytes. Returns `false` if that many
    /// bytes are unread already, or if no memory is available.
    pub(crate) fn make_room(&mut self, most: usize, share: &mut Share) -> bool {
        if self.end < self.bytes.len() || self.bytes.is_empty() {
            return true;
        }
        let held = self.pinned + (self.end - self.start);
        if held < self.bytes.len() {
            self.compact();
            return true;
        }
        let unread = self.end - self.start;
        if unread >= most {
            return false;
        }
        let full = self.pinned.saturating_add(most);
        let more = (self.bytes.len() * 2).min(full) - self.bytes.len();
        self.grow(more, share) || (unread < 2 * LEAST_GROWTH && self.extend(LEAST_GROWTH))
    }

    /// Grows the window for a body, so that fewer reads are needed, if memory is available.
    pub(crate) fn widen(&mut self, share: &mut Share) {
        if self.bytes.len() < BODY_WINDOW && !self.bytes.is_empty() {
            self.grow(BODY_WINDOW - self.bytes.len(), share);
        }
    }

    fn grow(&mut self, more: usize, share: &mut Share) -> bool {
        if !share.grow(more) {
            return false;
        }
        let grown = self.extend(more);
        if grown {
            self.charged += more;
        } else {
            share.shrink(more);
        }
        grown
    }

    /// Grows the vector. Returns `false` if the system has no memory.
    fn extend(&mut self, more: usize) -> bool {
        let grown = self.bytes.try_reserve_exact(more).is_ok();
        if grown {
            self.bytes.resize(self.bytes.len() + more, 0);
        }
        grown
    }

    /// Moves the contents to the front.
    fn compact(&mut self) {
        self.bytes.copy_within(self.head..self.head + self.pinned, 0);
        self.bytes.copy_within(self.start..self.end, self.pinned);
        self.end = self.pinned + (self.end - self.start);
        (self.head, self.start) = (0, self.pinned);
    }

    /// Keeps the first `n` bytes of the head and the unread bytes, and shrinks to what these need. Returns how much
    /// memory of the server became free.
    fn keep(&mut self, n: usize) -> usize {
        self.pinned = self.pinned.min(n);
        self.compact();
        let len = self.end.max(self.first);
        if len >= self.bytes.len() {
            return 0;
        }
        let freed = self.charged.min(self.bytes.len() - len);
        self.bytes.truncate(len);
        self.bytes.shrink_to(len);
        self.charged -= freed;
        freed
    }

    pub(crate) fn clear(&mut self) {
        (self.head, self.pinned, self.start, self.end) = (0, 0, 0, 0);
    }

    /// Shrinks to the initial size, if the window is empty. Returns how much memory of the server became free.
    pub(crate) fn shrink(&mut self) -> usize {
        if self.bytes.len() <= self.first || !self.is_empty() {
            return 0;
        }
        self.bytes.truncate(self.first);
        self.bytes.shrink_to(self.first);
        std::mem::take(&mut self.charged)
    }

    fn free(&mut self) {
        self.clear();
        self.bytes = Vec::new();
        self.charged = 0;
    }
}

/// Bytes that are formatted for the peer and not sent yet.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// All formatted bytes; writers append here.
    pub(crate) bytes: Vec<u8>,
    sent: usize,
    /// The memory reserved from the budget of the server.
    reserved: usize,
    /// Whether there was no memory for a complete body in the current exchange.
    pub(crate) is_refused: bool,
}

impl Output {
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Records that `n` more bytes were sent. Once all are, the buffer is reused.
    pub(crate) fn sent(&mut self, n: usize) {
        self.sent += n;
        debug_assert!(self.sent <= self.bytes.len());
        if self.sent >= self.bytes.len() {
            self.clear();
        }
    }

    /// Discards all but the first `n` unsent bytes.
    pub(crate) fn keep(&mut self, n: usize) {
        self.bytes.truncate(self.sent + n);
        self.sent(0);
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.sent = 0;
    }

    fn shrink(&mut self) {
        self.bytes.shrink_to(FIRST_WINDOW);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::Bound;

    #[test]
    fn recycle_leaves_nothing_of_a_connection() {
        let mut buf = Buffers::new();
        buf.input.fill(b"GET /one HTTP/1.1\r\n\r\nGET /two");
        buf.input.pin(21);
        buf.output.bytes.extend_from_slice(b"half a response");
        buf.recycle();
        assert!(buf.input.is_empty() && buf.input.unread().is_empty() && buf.output.unsent().is_empty());
    }

    #[test]
    fn the_head_is_kept_while_a_body_is_consumed() {
        let mut window = Window::starting_with(FIRST_WINDOW);
        assert_eq!(window.fill(b"HEADbody"), 8);
        window.pin(4);
        for _ in 0..10_000 {
            window.consume(4);
            assert!(window.make_room(1, &mut Share::default()));
            assert_eq!(window.head(), b"HEAD");
            assert_eq!(window.fill(b"body"), 4);
            assert_eq!(window.unread(), b"body");
        }
        assert_eq!(window.bytes.len(), FIRST_WINDOW);
    }

    #[test]
    fn a_window_does_not_grow_beyond_its_bound() {
        let mut window = Window::starting_with(FIRST_WINDOW);
        let mut share = Share::default();
        while window.make_room(40_000, &mut share) {
            let spare = window.spare().len();
            window.commit(spare);
        }
        assert!((40_000..=80_000).contains(&window.unread().len()));
        let all = window.unread().len();
        window.consume(all);
        window.shrink();
        assert_eq!(window.spare().len(), FIRST_WINDOW);
    }

    #[test]
    fn reserved_memory_is_released() {
        let memory = Arc::new(Bound::of(100_000));
        let left = || memory.left();
        let mut all: Vec<Buffers> = (0..3).map(|_| Buffers::within(memory.clone())).collect();
        for buf in &mut all {
            while buf.input.make_room(64 * 1024, &mut buf.share) {
                let spare = buf.input.spare().len();
                buf.input.commit(spare);
            }
        }
        assert!(left() < 64 * 1024, "{}", left());
        assert!(all.iter_mut().any(|buf| buf.share.take_refused()));
        let lens: Vec<usize> = all.iter().map(|buf| buf.input.bytes.len()).collect();
        assert_eq!(lens.iter().map(|len| len - FIRST_WINDOW).sum::<usize>() + left(), 100_000);
        all[0].head.line = crate::wire::Span::new(0, 100);
        all[0].input.pin(lens[0]);
        all[0].keep_line_only();
        assert_eq!((all[0].input.head().len(), all[0].input.bytes.len()), (100, FIRST_WINDOW));
        assert_eq!(all[0].output_room(64 * 1024), 64 * 1024);
        assert_eq!(all[1].output_room(64 * 1024), FIRST_WINDOW, "the budget is used up");
        all[0].end_exchange();
        all[0].recycle();
        all[1].recycle();
        drop(all);
        assert_eq!(left(), 100_000);
    }
}
