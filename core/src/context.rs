//! The arguments that every call to a connection needs.

use std::fmt;

use crate::config::Config;
use crate::date::Now;
use crate::policy::Policy;

/// The configuration, the policy and the time, which every call to a connection needs.
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
