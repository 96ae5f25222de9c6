//! The faults of a world, by name. What they do is implemented in `clients` and `world`.

use std::fmt;
use std::ops::BitOr;

/// A set of faults.
///
/// ```
/// use sanserve_testing::Faults;
///
/// let faults: Faults = "split,reset".parse().unwrap();
/// assert_eq!(faults, Faults::SPLIT | Faults::RESET);
/// assert!(!faults.has(Faults::SLOW));
/// assert_eq!(faults.to_string(), "split,reset");
/// assert!("splitt".parse::<Faults>().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults(u8);

impl Faults {
    /// Bytes are split into pieces of any size.
    pub const SPLIT: Faults = Faults(1);
    /// Clients that send or read slowly or not at all, and a slow disk.
    pub const SLOW: Faults = Faults(2);
    /// Clients that reset the connection at some point.
    pub const RESET: Faults = Faults(4);
    /// Clients that half-close after their last request, or in the middle of one.
    pub const HALF_CLOSE: Faults = Faults(8);
    /// Requests that do not wait for earlier responses.
    pub const PIPELINE: Faults = Faults(16);
    /// Files that become shorter while they are sent.
    pub const SHRINK_FILE: Faults = Faults(32);
    /// A disk that takes up to a minute for each operation, since neither names nor contents are in memory.
    pub const SLOW_DISK: Faults = Faults(64);

    /// All faults with their names, in canonical order.
    pub const TABLE: &[(&str, Faults)] = &[
        ("split", Faults::SPLIT),
        ("slow", Faults::SLOW),
        ("reset", Faults::RESET),
        ("halfclose", Faults::HALF_CLOSE),
        ("pipeline", Faults::PIPELINE),
        ("shrink-file", Faults::SHRINK_FILE),
        ("slow-disk", Faults::SLOW_DISK),
    ];

    /// No faults.
    #[must_use]
    pub const fn none() -> Faults {
        Faults(0)
    }

    /// All faults.
    #[must_use]
    pub const fn all() -> Faults {
        Faults(127)
    }

    /// Whether all of `other` are in this set.
    #[must_use]
    pub const fn has(self, other: Faults) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Faults {
    type Output = Faults;

    fn bitor(self, other: Faults) -> Faults {
        Faults(self.0 | other.0)
    }
}

/// A name that is not in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSuchFault(String);

impl fmt::Display for NoSuchFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown fault: {}; the faults are ", self.0)?;
        Faults::TABLE.iter().try_for_each(|(name, _)| write!(f, "{name}, "))?;
        f.write_str("all and none")
    }
}

impl std::error::Error for NoSuchFault {}

/// Parses names separated by commas, or `all`, or `none`.
impl std::str::FromStr for Faults {
    type Err = NoSuchFault;

    fn from_str(text: &str) -> Result<Faults, NoSuchFault> {
        let one = |name: &str| match name {
            "all" => Ok(Faults::all()),
            "none" => Ok(Faults::none()),
            name => Faults::TABLE
                .iter()
                .find(|row| row.0 == name)
                .map(|row| row.1)
                .ok_or_else(|| NoSuchFault(if name.is_empty() { "(nothing)".into() } else { name.into() })),
        };
        text.split(',').try_fold(Faults::none(), |all, name| Ok(all | one(name.trim())?))
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Faults::TABLE.iter().filter(|row| self.has(row.1)).map(|row| row.0).collect();
        f.write_str(if names.is_empty() { "none".into() } else { names.join(",") }.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_complete() {
        let all = Faults::TABLE.iter().fold(Faults::none(), |all, row| all | row.1);
        assert_eq!(all, Faults::all());
        assert_eq!("all".parse(), Ok(all));
        assert_eq!(all.to_string().parse(), Ok(all));
        assert_eq!(Faults::none().to_string().parse(), Ok(Faults::none()));
        assert!("".parse::<Faults>().is_err());
    }
}
