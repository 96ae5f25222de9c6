//! The arguments that every call to a connection needs.

use std::fmt;

use crate::config::Config;
use crate::date::Now;
use crate::policy::Policy;

/// The configuration, the policy and the time, which every call to a connection needs.
///
/// ```
/// use sanserve_core::{Config, Context, DefaultPolicy, Now, Tick, Wall};
///
/// let (config, mut now) = (Config::default(), Now::new(Tick(0), Wall(784_111_777)));
/// let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
/// assert_eq!(cx.now.date(), b"Sun, 06 Nov 1994 08:49:37 GMT");
///
/// // The next turn has another time.
/// now.advance(Tick(1_000), Wall(784_111_778));
/// let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
/// assert_eq!(cx.now.date(), b"Sun, 06 Nov 1994 08:49:38 GMT");
/// ```
#[derive(Clone, Copy)]
pub struct Context<'s> {
    /// Limits, timeouts and protocol version.
    pub config: &'s Config,
    /// The decisions that an embedder may override.
    pub policy: &'s dyn Policy,
    /// The time of this turn.
    pub now: &'s Now,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("config", self.config).field("now", self.now).finish_non_exhaustive()
    }
}
