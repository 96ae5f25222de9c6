//! The messages between a server and its launcher. Both are of the same build or require the same [`VERSION`], so the
//! format is simple: numbers are little-endian, a text has its length before it and a NUL after it, and a list has
//! its length before it.
//!
//! An order is written text by text and read in place, because it is as long as a script's environment, and both
//! sides process thousands of them per second.

use std::ffi::CStr;

/// Incremented when the format changes.
pub(super) const VERSION: u64 = 3;

/// A request of the server. It is one packet, and its descriptors come with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request<'p> {
    /// The first request, with the pipes for reports, and for scripts that cannot be run.
    Hello {
        /// [`VERSION`].
        version: u64,
        /// The soft limit of descriptors for scripts; `u64::MAX`: none.
        nofile: u64,
        /// The user and the group to switch to, for all scripts.
        user: Option<(u32, u32)>,
    },
    /// Runs a script, with the descriptors of its directory, its output, its stderr, the pipe that reports its end,
    /// and its input, if it has one.
    Spawn(Order<'p>),
    /// Sends a signal to the group of a script, unless it was reaped.
    Signal {
        /// The number of the script.
        id: u64,
        /// The number of the signal.
        signal: i32,
    },
}

/// A script to be run, as read by the launcher.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Order<'p> {
    /// The number of the script in reports.
    pub(super) id: u64,
    /// The file that was checked: device and inode.
    pub(super) file: (u64, u64),
    /// The exchange is about to wait for the end of a script.
    pub(super) is_urgent: bool,
    /// The path of its directory, which its user must be able to reach.
    pub(super) place: &'p CStr,
    /// Its name in the directory, after `./`.
    pub(super) name: &'p CStr,
    /// The arguments, beginning with the name.
    pub(super) arguments: Vec<&'p CStr>,
    /// As `NAME=VALUE`.
    pub(super) environment: Vec<&'p CStr>,
}

/// An order as written by the server: place, name, the list of arguments, the list of environment variables.
#[derive(Debug)]
pub(in crate::script) struct Packet {
    bytes: Vec<u8>,
    /// The position of the length of the last list.
    list: Option<usize>,
}

impl Packet {
    /// An order for the script with number `id`, which is this file: device and inode. `is_urgent`: the exchange is
    /// about to wait for the end of a script.
    pub(in crate::script) fn new(id: u64, file: (u64, u64), is_urgent: bool) -> Packet {
        let mut bytes = Vec::with_capacity(2048);
        numbers(&[2, id, file.0, file.1, is_urgent.into()], &mut bytes);
        Packet { bytes, list: None }
    }

    /// Adds a text that consists of these parts, to the list if one has begun. `Err`: it contains a NUL.
    pub(in crate::script) fn text(&mut self, parts: &[&[u8]]) -> Result<(), HasNul> {
        if parts.iter().any(|part| part.contains(&0)) {
            return Err(HasNul);
        }
        if let Some(at) = self.list {
            let count = self.bytes[at..].first_chunk_mut().expect("the file exists");
            *count = (u64::from_le_bytes(*count) + 1).to_le_bytes();
        }
        let len: usize = parts.iter().map(|part| part.len()).sum();
        numbers(&[len as u64], &mut self.bytes);
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.bytes.push(0);
        Ok(())
    }

    /// Begins a list of texts.
    pub(in crate::script) fn list(&mut self) {
        self.list = Some(self.bytes.len());
        numbers(&[0], &mut self.bytes);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A text contains a NUL, which would end it for the reader.
#[derive(Debug)]
pub(in crate::script) struct HasNul;

fn numbers(all: &[u64], out: &mut Vec<u8>) {
    all.iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
}

/// How a script ended, or why it could not be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::script) enum Ending {
    /// It has exited with this code; a signal is a negative number.
    Exited(i32),
    /// The system could not run it: an error number.
    Refused(i32),
    /// Its user may not search a directory on the way to it.
    Unreachable,
    /// Its name now refers to another file than the one that was checked.
    Replaced,
    /// The launcher itself has ended.
    Unknown,
}

/// A report of how the script with this number ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(in crate::script) id: u64,
    pub(super) ending: Ending,
}

impl Report {
    /// The length of a report, which is far below what a pipe writes atomically.
    pub(super) const LEN: usize = 16;

    pub(super) fn to_bytes(self) -> [u8; Report::LEN] {
        let (kind, value) = match self.ending {
            Ending::Exited(code) => (0, code),
            Ending::Refused(error) => (1, error),
            Ending::Unreachable => (2, 0),
            Ending::Replaced => (3, 0),
            Ending::Unknown => (4, 0),
        };
        let mut bytes = [0; Report::LEN];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..12].copy_from_slice(&u32::to_le_bytes(kind));
        bytes[12..].copy_from_slice(&i32::to_le_bytes(value));
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Report> {
        let mut reader = Reader(bytes);
        let (id, both) = (reader.number()?, reader.number()?);
        let value = (both >> 32) as u32 as i32;
        let ending = match both as u32 {
            0 => Ending::Exited(value),
            1 => Ending::Refused(value),
            2 => Ending::Unreachable,
            3 => Ending::Replaced,
            4 => Ending::Unknown,
            _ => return None,
        };
        Some(Report { id, ending })
    }
}

impl<'p> Request<'p> {
    /// Writes a request without texts; for an order there is [`Packet`].
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Request::Hello { version, nofile, user } => {
                // No script switches to root.
                let (user, group) = user.unwrap_or_default();
                numbers(&[0, *version, *nofile, u64::from(user), u64::from(group)], out);
            }
            Request::Signal { id, signal } => numbers(&[1, *id, u64::from(signal.unsigned_abs())], out),
            Request::Spawn(_) => unreachable!("a server sends a packet"),
        }
    }

    pub(super) fn read(bytes: &'p [u8]) -> Option<Request<'p>> {
        let mut reader = Reader(bytes);
        Some(match reader.number()? {
            0 => {
                let (version, nofile) = (reader.number()?, reader.number()?);
                let user = (reader.number()?, reader.number()?);
                let user = (user != (0, 0)).then_some((u32::try_from(user.0).ok()?, u32::try_from(user.1).ok()?));
                Request::Hello { version, nofile, user }
            }
            1 => Request::Signal { id: reader.number()?, signal: i32::try_from(reader.number()?).ok()? },
            2 => Request::Spawn(Order {
                id: reader.number()?,
                file: (reader.number()?, reader.number()?),
                is_urgent: reader.number()? != 0,
                place: reader.text()?,
                name: reader.text()?,
                arguments: reader.texts()?,
                environment: reader.texts()?,
            }),
            _ => return None,
        })
    }
}

struct Reader<'p>(&'p [u8]);

impl<'p> Reader<'p> {
    fn number(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*bytes))
    }

    fn text(&mut self) -> Option<&'p CStr> {
        let len = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len.checked_add(1)?)?;
        self.0 = rest;
        CStr::from_bytes_with_nul(bytes).ok()
    }

    fn texts(&mut self) -> Option<Vec<&'p CStr>> {
        let number = usize::try_from(self.number()?).ok()?;
        // Each text takes nine bytes at least.
        let mut texts = Vec::with_capacity(number.min(self.0.len() / 9));
        for _ in 0..number {
            texts.push(self.text()?);
        }
        Some(texts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_were_written() {
        let requests = [
            Request::Hello { version: VERSION, nofile: u64::MAX, user: None },
            Request::Hello { version: VERSION, nofile: 1024, user: Some((65_534, 65_533)) },
            Request::Signal { id: u64::MAX, signal: 15 },
        ];
        for request in requests {
            let mut bytes = Vec::new();
            request.write(&mut bytes);
            for len in 0..bytes.len() {
                assert_eq!(Request::read(&bytes[..len]), None, "{len} of {request:?}");
            }
            assert_eq!(Request::read(&bytes), Some(request));
        }
        assert_eq!(Request::read(&[9; 8]), None);
    }

    #[test]
    fn orders_are_read_as_they_were_written() {
        for is_urgent in [false, true] {
            let mut packet = Packet::new(7, (1, u64::MAX), is_urgent);
            packet.text(&[b"/srv"]).unwrap();
            packet.text(&[b"./", b"x"]).unwrap();
            packet.list();
            packet.text(&[b"./x"]).unwrap();
            packet.text(&[]).unwrap();
            packet.list();
            packet.text(&[b"A", b"=", b"b"]).unwrap();
            let order = Order {
                id: 7,
                file: (1, u64::MAX),
                is_urgent,
                place: c"/srv",
                name: c"./x",
                arguments: vec![c"./x", c""],
                environment: vec![c"A=b"],
            };
            let bytes = packet.bytes();
            for len in 0..bytes.len() {
                assert_eq!(Request::read(&bytes[..len]), None, "{len} of {order:?}");
            }
            assert_eq!(Request::read(bytes), Some(Request::Spawn(order)));
        }
    }

    #[test]
    fn a_text_has_no_nul() {
        let mut packet = Packet::new(7, (1, 2), false);
        packet.list();
        let before = packet.bytes().to_vec();
        assert!(packet.text(&[b"A", b"=", b"b\0c"]).is_err());
        assert_eq!(packet.bytes(), before);
        // A packet from another source is not a request.
        let mut bytes = Vec::new();
        numbers(&[2, 7, 1, 2, 0, 3], &mut bytes);
        bytes.extend_from_slice(b"a\0b\0");
        assert_eq!(Request::read(&bytes), None);
    }

    #[test]
    fn reports_are_read_as_they_were_written() {
        let endings = [
            Ending::Exited(0),
            Ending::Exited(-9),
            Ending::Refused(13),
            Ending::Unreachable,
            Ending::Replaced,
            Ending::Unknown,
        ];
        for ending in endings {
            let report = Report { id: u64::MAX - 1, ending };
            assert_eq!(Report::from_bytes(&report.to_bytes()), Some(report));
        }
        assert_eq!(Report::from_bytes(&[9; Report::LEN]), None);
    }
}
