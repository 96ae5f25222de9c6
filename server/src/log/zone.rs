//! The local time zone.

use std::thread;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use sanserve_core::Wall;

/// The time zone of the times in the log.
#[derive(Debug)]
pub(super) struct Zone(TimeZone);

impl Zone {
    /// The time zone of the system. The lookup needs more stack than the thread of a connection may have, so it gets a
    /// thread of its own.
    pub(super) fn system() -> Zone {
        let lookup = thread::Builder::new().name("zone".into()).spawn(TimeZone::system);
        Zone(lookup.ok().and_then(|lookup| lookup.join().ok()).unwrap_or(TimeZone::UTC))
    }

    #[cfg(test)]
    pub(super) fn posix(zone: &str) -> Zone {
        Zone(TimeZone::posix(zone).unwrap())
    }

    /// The time as `DD/Mon/YYYY HH:MM:SS`. The names of months are English in every locale, as in Python.
    pub(super) fn format(&self, wall: Wall) -> [u8; 20] {
        const MONTHS: [&[u8; 3]; 12] =
            [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
        let at = Timestamp::from_second(wall.0).unwrap_or(Timestamp::UNIX_EPOCH);
        let at = self.0.to_offset(at).to_datetime(at);
        let mut text = *b"00/Mon/0000 00:00:00";
        let mut two = |place: usize, value: i16| {
            let value = u8::try_from(value).unwrap_or(0);
            text[place] = b'0' + value / 10 % 10;
            text[place + 1] = b'0' + value % 10;
        };
        two(0, at.day().into());
        two(7, at.year() / 100);
        two(9, at.year() % 100);
        two(12, at.hour().into());
        two(15, at.minute().into());
        two(18, at.second().into());
        text[3..6].copy_from_slice(MONTHS[usize::try_from(at.month() - 1).expect("months count from 1")]);
        text
    }
}
