//! The time zone in a build without the feature `local-time`: UTC.

use sanserve_core::{Wall, date_time_string};

/// The time zone of the times in the log.
pub(super) struct Zone;

impl Zone {
    pub(super) fn system() -> Zone {
        Zone
    }

    /// The time as `DD/Mon/YYYY HH:MM:SS`.
    pub(super) fn format(&self, wall: Wall) -> [u8; 20] {
        // `Sun, 06 Nov 1994 08:49:37 GMT`
        let date = date_time_string(wall);
        let mut text = *b"00/Mon/0000 00:00:00";
        for (place, from) in [(0..2, 5..7), (3..6, 8..11), (7..11, 12..16), (12..20, 17..25)] {
            text[place].copy_from_slice(&date.as_bytes()[from]);
        }
        text
    }
}
