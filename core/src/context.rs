//! What a machine is told about the world: who the peer is, and what time it is.
//!
//! Time is an argument here. Nothing in this crate reads a clock; a driver reads it once a turn
//! and passes it in, so a test can pass any time it likes.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::config::Config;
use crate::date::{self, IMF_FIXDATE_LEN};
use crate::site::Site;

/// A point of monotonic time in milliseconds since some start that the driver chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

impl Tick {
    /// The tick `millis` later; saturates.
    #[must_use]
    pub fn after(self, millis: u64) -> Tick {
        Tick(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to `self`, 0 if it is later.
    #[must_use]
    pub fn since(self, earlier: Tick) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A point of calendar time in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub i64);

/// The time of one turn, with the `Date` field's text formatted once a second.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic time: every timeout is measured with it.
    pub tick: Tick,
    /// Calendar time: `Date`, and whether a validator lies in the future.
    pub wall: Wall,
    date: [u8; IMF_FIXDATE_LEN],
}

impl Now {
    /// The given time.
    #[must_use]
    pub fn new(tick: Tick, wall: Wall) -> Now {
        Now { tick, wall, date: date::imf_fixdate(wall) }
    }

    /// Moves to another time; formats the date only where the second has changed.
    pub fn advance(&mut self, tick: Tick, wall: Wall) {
        self.tick = tick;
        if wall != self.wall {
            *self = Now::new(tick, wall);
        }
    }

    /// The value of the `Date` field (RFC 9110 section 6.6.1).
    #[must_use]
    pub fn date(&self) -> &[u8] {
        &self.date
    }
}

/// The other end of a connection. An IPv4 address that came in over an IPv6 socket is plain IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer {
    ip: [u8; 16],
    port: u16,
}

impl Peer {
    /// The address, canonical.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        Ipv6Addr::from(self.ip).to_canonical()
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Peer {
        let ip = match address.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        Peer { ip: ip.octets(), port: address.port() }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", SocketAddr::new(self.ip(), self.port))
    }
}

/// What every call to a machine is given: the rules, the site, the time.
#[derive(Clone, Copy)]
pub struct Context<'s> {
    /// Limits, timeouts and protocol version.
    pub config: &'s Config,
    /// The decisions that an embedder may override.
    pub site: &'s dyn Site,
    /// The time of this turn.
    pub now: &'s Now,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("config", self.config).field("now", self.now).finish_non_exhaustive()
    }
}
