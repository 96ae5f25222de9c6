//! The limit on the memory that all connections of a server hold together, and its default.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use sanserve_core::Memory;

use crate::log::Log;

/// The default limit is this fraction of the available memory: a quarter.
const PART: u64 = 4;
/// The smallest default limit.
const LEAST: u64 = 8 << 20;
/// Memory of the program itself, including threads that do not belong to a connection.
const PROGRAM: u64 = 32 << 20;
/// Memory that each connection has in any case: a first window, and as much output.
const CONNECTION: u64 = 8 << 10;
/// Memory that the thread of a connection touches, including what the kernel holds for it.
const THREAD: u64 = 64 << 10;
/// Address space that is mapped for a thread in addition to its stack.
const AROUND_STACK: u64 = 32 << 10;
/// How often a refusal is logged.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// The memory that connections may take together, beyond the small amount that each has in any case.
#[derive(Debug)]
pub(crate) struct Budget {
    most: usize,
    taken: AtomicUsize,
    log: Log,
    start: Instant,
    /// When a refusal may be logged again, in milliseconds from the start.
    quiet_until: AtomicU64,
}

impl Budget {
    pub(crate) fn new(most: u64, log: Log) -> Budget {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Budget { most, taken: AtomicUsize::new(0), log, start: Instant::now(), quiet_until: AtomicU64::new(0) }
    }

    #[cold]
    fn refused(&self, bytes: usize) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let next = now.saturating_add(LOG_EVERY.as_millis() as u64);
        let is_due = |until: u64| (until <= now).then_some(next);
        if self.quiet_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_due).is_ok() {
            let (taken, most) = (self.taken.load(Ordering::Relaxed), self.most);
            self.log.error(format_args!(
                "connections hold {taken} of the {most} bytes that they may (--max-memory): {bytes} more were refused"
            ));
        }
    }
}

impl Memory for Budget {
    fn take(&self, bytes: usize) -> bool {
        let more = |taken: usize| taken.checked_add(bytes).filter(|taken| *taken <= self.most);
        let is_taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        if !is_taken {
            self.refused(bytes);
        }
        is_taken
    }

    fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Memory of a [`Budget`], given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Reserved {
    /// `None`: there is not so much.
    pub(crate) fn take(budget: &Arc<Budget>, bytes: usize) -> Option<Reserved> {
        budget.take(bytes).then(|| Reserved { budget: Arc::clone(budget), bytes })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// The default limit of the memory that the connections of a server may take: a quarter of the memory available to
/// this process, at least 8 MiB. The available memory is the least of the memory of the machine, the limits of the
/// control groups (`memory.max`, `memory.limit_in_bytes`), and the limits of the process (`RLIMIT_AS`,
/// `RLIMIT_DATA`).
#[must_use]
pub fn default_memory() -> u64 {
    (available() / PART).max(LEAST)
}

/// How many connections fit into the available memory at 8 KiB each: into a quarter of it, after what the program
/// itself takes.
pub(crate) fn connections_within_memory() -> usize {
    within(available(), PART, CONNECTION)
}

/// How many threads fit into the available memory, one per connection, with stacks of `stack` bytes: into half of
/// what the limits of the process leave for stacks (`RLIMIT_AS`, `RLIMIT_DATA`), and, at 64 KiB each, into half of
/// the available memory. At least 1.
#[must_use]
pub fn threads_within_memory(stack: usize) -> usize {
    let touched = within(available(), 2, THREAD);
    let stack = u64::try_from(stack).unwrap_or(u64::MAX).saturating_add(AROUND_STACK);
    limits().min().map_or(touched, |limit| touched.min(within(limit, 2, stack)))
}

/// How many items of `size` fit into one `part`th of `memory`.
fn within(memory: u64, part: u64, size: u64) -> usize {
    usize::try_from(memory.saturating_sub(PROGRAM) / part / size).unwrap_or(usize::MAX).max(1)
}

/// The memory available to this process.
fn available() -> u64 {
    limits().chain(machine()).chain(control_groups()).min().unwrap_or(1 << 30)
}

/// Whether the address space of this process is limited (`RLIMIT_AS`).
#[must_use]
pub fn has_address_limit() -> bool {
    getrlimit(Resource::As).current.is_some()
}

/// The limits of the process.
fn limits() -> impl Iterator<Item = u64> {
    [Resource::As, Resource::Data].into_iter().filter_map(|resource| getrlimit(resource).current)
}

/// The memory of the machine, if it is known.
fn machine() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// The limits of the control groups of this process and their parents.
fn control_groups() -> Vec<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit_files(&groups)
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .filter_map(|text| limit(&text))
        .collect()
}

/// The files that may contain a limit, from the content of `/proc/self/cgroup`: version 2 first, then version 1. In a
/// container, the path may not be the one that is mounted, so each parent is tried too.
fn limit_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        loop {
            files.push(format!("{root}{path}/{name}"));
            match path.rfind('/') {
                Some(at) => path = &path[..at],
                None => break,
            }
        }
    }
    files
}

/// The limit in the content of such a file. `max` means no limit.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_enforced() {
        let budget = Budget::new(100, Log::quiet());
        assert!(budget.take(60) && !budget.take(41) && budget.take(40) && !budget.take(1));
        assert!(!budget.take(usize::MAX));
        budget.give_back(50);
        assert!(budget.take(50));
    }

    #[test]
    fn refusals_are_logged_at_a_limited_rate() {
        let lines = crate::script::tests::Lines::default();
        let budget = Budget::new(100, Log::to(lines.clone()));
        (0..1_000).for_each(|_| assert!(!budget.take(101)));
        let expected =
            "sanserve: connections hold 0 of the 100 bytes that they may (--max-memory): 101 more were refused\n";
        assert_eq!(lines.text(), expected);
    }

    #[test]
    fn limits_of_control_groups_are_found() {
        assert_eq!(
            limit_files("0::/a/b\n"),
            ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/memory.max"]
        );
        assert_eq!(limit_files("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        let old = "12:cpu,cpuacct:/x\n3:memory:/docker/1\nnonsense\n";
        assert_eq!(limit_files(old)[0], "/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes");
        assert_eq!([limit("max\n"), limit("4096\n"), limit("")], [None, Some(4096), None]);
        assert!(default_memory() >= LEAST);
    }

    #[test]
    fn connections_fit_into_memory() {
        assert_eq!(within(300 << 20, PART, CONNECTION), 8_576);
        assert_eq!(within(300 << 20, 2, (256 << 10) + AROUND_STACK), 476);
        assert_eq!([within(0, PART, CONNECTION), within(33 << 20, 2, 2 << 20)], [1, 1]);
        assert!(threads_within_memory(usize::MAX) >= 1 && connections_within_memory() >= 1);
    }
}
