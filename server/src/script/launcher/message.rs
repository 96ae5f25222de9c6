//! What a server and its launcher say to each other. Both are of one build or ask for the same
//! [`VERSION`], so there is no more to the format than that: numbers are little-endian, texts have their length
//! in front.

use std::ffi::CString;

/// Changes with the format.
pub(super) const VERSION: u64 = 1;

/// What a server asks for. One of them is one packet; its descriptors come with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// The first one, with the pipe that reports go to.
    Hello {
        /// [`VERSION`].
        version: u64,
        /// The soft limit on descriptors that scripts get; `u64::MAX`: none.
        nofile: u64,
    },
    /// Runs a script, with the descriptors of its directory, its output, its stderr, the pipe that its end is
    /// told by, and its input, if it has one.
    Spawn(Box<Order>),
    /// Sends a signal to the group of a script, if it is not reaped.
    Signal {
        /// Which script.
        id: u64,
        /// The number of the signal.
        signal: i32,
    },
}

/// A script to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::script) struct Order {
    /// What reports call it.
    pub(in crate::script) id: u64,
    /// The user and the group to become.
    pub(in crate::script) user: Option<(u32, u32)>,
    /// The file that was checked: device and inode.
    pub(in crate::script) file: (u64, u64),
    /// The path of its directory. Its user has to be able to reach it.
    pub(in crate::script) place: CString,
    /// Its name there, behind `./`.
    pub(in crate::script) name: CString,
    /// With the name in front.
    pub(in crate::script) arguments: Vec<CString>,
    /// As `NAME=VALUE`.
    pub(in crate::script) environment: Vec<CString>,
}

/// How a script ended, or why it never began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::script) enum Ending {
    /// It has exited with this code; a signal is a negative number.
    Exited(i32),
    /// The system does not run it: an error number.
    Refused(i32),
    /// Its user must not search a directory on the way to it.
    Unreachable,
    /// Its name stands for another file than the one that was checked.
    Replaced,
    /// The launcher itself is gone.
    Unknown,
}

/// A report: how the script with this number ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(in crate::script) id: u64,
    pub(super) ending: Ending,
}

impl Report {
    /// Its length. It is far below what a pipe takes in one piece.
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

impl Request {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let number = |n: u64, out: &mut Vec<u8>| out.extend_from_slice(&n.to_le_bytes());
        let numbers = |all: &[u64], out: &mut Vec<u8>| all.iter().for_each(|n| number(*n, out));
        match self {
            Request::Hello { version, nofile } => numbers(&[0, *version, *nofile], out),
            Request::Signal { id, signal } => numbers(&[1, *id, u64::from(signal.unsigned_abs())], out),
            Request::Spawn(order) => {
                let (user, group) = order.user.unwrap_or_default();
                let both = u64::from(user) << 32 | u64::from(group);
                numbers(&[2, order.id, both, order.file.0, order.file.1], out);
                text(&order.place, out);
                text(&order.name, out);
                for list in [&order.arguments, &order.environment] {
                    number(list.len() as u64, out);
                    list.iter().for_each(|each| text(each, out));
                }
            }
        }
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Request> {
        let mut reader = Reader(bytes);
        Some(match reader.number()? {
            0 => Request::Hello { version: reader.number()?, nofile: reader.number()? },
            1 => Request::Signal { id: reader.number()?, signal: i32::try_from(reader.number()?).ok()? },
            2 => {
                let (id, both) = (reader.number()?, reader.number()?);
                Request::Spawn(Box::new(Order {
                    id,
                    // Nobody is made root.
                    user: (both != 0).then_some(((both >> 32) as u32, both as u32)),
                    file: (reader.number()?, reader.number()?),
                    place: reader.text()?,
                    name: reader.text()?,
                    arguments: reader.texts()?,
                    environment: reader.texts()?,
                }))
            }
            _ => return None,
        })
    }
}

fn text(text: &CString, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn number(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*bytes))
    }

    fn text(&mut self) -> Option<CString> {
        let len = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        CString::new(bytes).ok()
    }

    fn texts(&mut self) -> Option<Vec<CString>> {
        (0..self.number()?).map(|_| self.text()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_were_written() {
        let order = Order {
            id: 7,
            user: Some((65_534, 65_533)),
            file: (1, u64::MAX),
            place: c"/srv".into(),
            name: c"./x".into(),
            arguments: vec![c"./x".into(), c"".into()],
            environment: vec![c"A=b".into()],
        };
        let requests = [
            Request::Hello { version: VERSION, nofile: u64::MAX },
            Request::Signal { id: u64::MAX, signal: 15 },
            Request::Spawn(Box::new(Order { user: None, ..order.clone() })),
            Request::Spawn(Box::new(order)),
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
