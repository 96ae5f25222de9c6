//! The order in which the connections of a loop are closed when the limit of connections is reached.
//!
//! Idle connections are closed first, beginning with the one that has been idle for longest. After them come
//! connections whose request is incomplete, or that only wait for the peer to close.

const NONE: u32 = u32::MAX;

/// The neighbours of a connection in its list, by number.
#[derive(Clone, Copy)]
struct Link {
    next: u32,
    previous: u32,
}

/// In no list, or the only one in its list.
const ALONE: Link = Link { next: NONE, previous: NONE };

#[derive(Clone, Copy)]
struct List {
    first: u32,
    last: u32,
}

/// The order. A connection is in at most one of the two lists.
pub(crate) struct Leaving {
    links: Vec<Link>,
    idle: List,
    unfinished: List,
}

impl Default for Leaving {
    fn default() -> Leaving {
        let empty = List { first: NONE, last: NONE };
        Leaving { links: Vec::new(), idle: empty, unfinished: empty }
    }
}

impl Leaving {
    /// The connection is idle from now on.
    pub(crate) fn idles(&mut self, at: u32) {
        self.remove(at);
        push(&mut self.idle, &mut self.links, at);
    }

    /// From now on, the request of the connection is incomplete, or it waits for the peer to close.
    pub(crate) fn is_unfinished(&mut self, at: u32) {
        self.remove(at);
        push(&mut self.unfinished, &mut self.links, at);
    }

    /// The connection has an exchange in progress, or has closed.
    pub(crate) fn remove(&mut self, at: u32) {
        let Some(link) = self.links.get(at as usize).copied() else { return };
        for list in [&mut self.idle, &mut self.unfinished] {
            if list.first == at {
                list.first = link.next;
            }
            if list.last == at {
                list.last = link.previous;
            }
        }
        if link.next != NONE {
            self.links[link.next as usize].previous = link.previous;
        }
        if link.previous != NONE {
            self.links[link.previous as usize].next = link.next;
        }
        self.links[at as usize] = ALONE;
    }

    /// The connection that has been idle for longest.
    pub(crate) fn oldest_idle(&self) -> Option<u32> {
        (self.idle.first != NONE).then_some(self.idle.first)
    }

    /// The connection that has been unfinished for longest.
    pub(crate) fn oldest_unfinished(&self) -> Option<u32> {
        (self.unfinished.first != NONE).then_some(self.unfinished.first)
    }
}

fn push(list: &mut List, links: &mut Vec<Link>, at: u32) {
    if at as usize >= links.len() {
        links.resize(at as usize + 1, ALONE);
    }
    links[at as usize] = Link { next: NONE, previous: list.last };
    match list.last {
        NONE => list.first = at,
        last => links[last as usize].next = at,
    }
    list.last = at;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(leaving: &mut Leaving) -> Vec<u32> {
        std::iter::from_fn(|| {
            let next = leaving.oldest_idle().or(leaving.oldest_unfinished())?;
            leaving.remove(next);
            Some(next)
        })
        .collect()
    }

    #[test]
    fn the_longest_idle_is_closed_first() {
        let mut leaving = Leaving::default();
        assert_eq!(drain(&mut leaving), []);
        (0..5).for_each(|at| leaving.idles(at));
        leaving.is_unfinished(9);
        leaving.idles(0);
        leaving.is_unfinished(2);
        leaving.remove(3);
        leaving.remove(3);
        leaving.remove(1_000);
        assert_eq!(drain(&mut leaving), [1, 4, 0, 9, 2]);
        leaving.idles(4);
        assert_eq!(drain(&mut leaving), [4]);
    }

    #[test]
    fn the_order_equals_that_of_a_plain_list() {
        let mut leaving = Leaving::default();
        let (mut idle, mut unfinished): (Vec<u32>, Vec<u32>) = Default::default();
        let mut random = 7_u32;
        for _ in 0..10_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = random >> 8 & 15;
            idle.retain(|other| *other != at);
            unfinished.retain(|other| *other != at);
            match random >> 28 & 3 {
                0 => leaving.remove(at),
                1 => {
                    leaving.is_unfinished(at);
                    unfinished.push(at);
                }
                _ => {
                    leaving.idles(at);
                    idle.push(at);
                }
            }
            assert_eq!(leaving.oldest_idle(), idle.first().copied());
            assert_eq!(leaving.oldest_unfinished(), unfinished.first().copied());
        }
        assert_eq!(drain(&mut leaving), [idle, unfinished].concat());
    }
}
