//! Dates in the formats of HTTP (RFC 9110 section 5.6.7).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::time::{Tick, Wall};

/// The length of `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(crate) const IMF_FIXDATE_LEN: usize = 29;

/// The last second of a year with four digits: 9999-12-31T23:59:59Z.
const LAST: i64 = 253_402_300_799;

/// Formats a date. A date that IMF-fixdate cannot express becomes the nearest one that it can.
pub(crate) fn imf_fixdate(wall: Wall) -> [u8; IMF_FIXDATE_LEN] {
    use std::io::Write;
    let seconds = wall.0.clamp(0, LAST).unsigned_abs();
    let mut text = [0; IMF_FIXDATE_LEN];
    let date = httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(seconds));
    write!(text.as_mut_slice(), "{date}").expect("an IMF-fixdate is 29 bytes");
    text
}

/// Formats a date as IMF-fixdate (Python's `date_time_string`).
#[must_use]
pub fn date_time_string(wall: Wall) -> String {
    String::from_utf8_lossy(&imf_fixdate(wall)).into_owned()
}

/// Parses a date in one of the three formats.
/// RFC 9110 section 5.6.7: "A recipient that parses a timestamp value in an HTTP field MUST accept all three HTTP-date
/// formats." The day of the week may be the wrong one, since people write dates by hand.
pub(crate) fn parse(text: &[u8]) -> Option<Wall> {
    const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    let text = std::str::from_utf8(text).ok()?;
    if let Some(wall) = parse_exactly(text) {
        return Some(wall);
    }
    let (day, rest) = text.split_at(text.find(|c: char| !c.is_ascii_alphabetic())?);
    let is_short = day.len() == 3;
    let name = |full: &'static str| if is_short { &full[..3] } else { full };
    let mut names = DAYS.into_iter().map(name);
    if !names.clone().any(|known| known == day) {
        return None;
    }
    names.find_map(|right| parse_exactly(&[right, rest].concat()))
}

fn parse_exactly(text: &str) -> Option<Wall> {
    let time: SystemTime = httpdate::parse_http_date(text).ok()?;
    let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    i64::try_from(seconds).ok().map(Wall)
}

/// The time of one turn, with the text of the `Date` field, which is formatted once per second.
///
/// ```
/// use sanserve_core::{Now, Tick, Wall};
///
/// let mut now = Now::new(Tick(0), Wall(784_111_777));
/// now.advance(Tick(1_500), Wall(784_111_778));
/// assert_eq!(now.date(), b"Sun, 06 Nov 1994 08:49:38 GMT");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic time, for timeouts.
    pub tick: Tick,
    /// Calendar time, for `Date` and for comparisons with the validators of files.
    pub wall: Wall,
    /// Milliseconds by which `tick` is late: those of handlers that block, which are no delay of the peer. No timeout
    /// counts them, but the [duration](crate::Entry::duration) of an exchange does.
    pub lag: u64,
    /// The line of the `Date` field.
    line: [u8; DATE.len() + IMF_FIXDATE_LEN + 2],
}

/// The part of the line before the date.
const DATE: &[u8] = b"Date: ";

impl Now {
    /// The given time.
    #[must_use]
    pub fn new(tick: Tick, wall: Wall) -> Now {
        let mut line = [0; DATE.len() + IMF_FIXDATE_LEN + 2];
        line[..DATE.len()].copy_from_slice(DATE);
        line[DATE.len()..][..IMF_FIXDATE_LEN].copy_from_slice(&imf_fixdate(wall));
        line[DATE.len() + IMF_FIXDATE_LEN..].copy_from_slice(b"\r\n");
        Now { tick, wall, lag: 0, line }
    }

    /// Moves to another time. The date is only formatted if the second has changed.
    pub fn advance(&mut self, tick: Tick, wall: Wall) {
        self.tick = tick;
        if wall != self.wall {
            *self = Now { lag: self.lag, ..Now::new(tick, wall) };
        }
    }

    /// The monotonic time, of which nothing is left out.
    pub(crate) fn real(&self) -> Tick {
        self.tick.after(self.lag)
    }

    /// The value of the `Date` field (RFC 9110 section 6.6.1).
    #[must_use]
    pub fn date(&self) -> &[u8] {
        &self.line[DATE.len()..][..IMF_FIXDATE_LEN]
    }

    /// The whole line of the `Date` field.
    pub(crate) fn date_line(&self) -> &[u8; DATE.len() + IMF_FIXDATE_LEN + 2] {
        &self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_outside_of_the_range_are_clamped() {
        assert_eq!(&imf_fixdate(Wall(784_111_777)), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&imf_fixdate(Wall(-1)), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(&imf_fixdate(Wall(i64::MAX)), b"Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn only_the_three_formats_are_parsed() {
        let expected = Some(Wall(784_111_777));
        assert_eq!(parse(b"Sun, 06 Nov 1994 08:49:37 GMT"), expected);
        assert_eq!(parse(b"Sunday, 06-Nov-94 08:49:37 GMT"), expected);
        assert_eq!(parse(b"Sun Nov  6 08:49:37 1994"), expected);
        assert_eq!(parse(b"Mon, 06 Nov 1994 08:49:37 GMT"), expected, "it was a Sunday");
        assert_eq!(parse(b"Tuesday, 06-Nov-94 08:49:37 GMT"), expected);
        assert_eq!(parse(b"Fri Nov  6 08:49:37 1994"), expected);
        for bad in [
            &b""[..],
            b"Sun",
            b"Xyz, 06 Nov 1994 08:49:37 GMT",
            b", 06 Nov 1994 08:49:37 GMT",
            b"Sun, 06 Nov 1994 08:49:37",
            b"yesterday",
            b"Sun, 06 Nov 1994 08:49:37 PST",
            b"\xff",
        ] {
            assert_eq!(parse(bad), None);
        }
    }
}
