//! The head of a transcript: the rules and the world, written only where they are not the default.

use crate::config::{Chunked, Config, Protocol};
use crate::context::Wall;

/// What a connection is given beside its inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Limits, timeouts and protocol version.
    pub config: Config,
    /// Calendar time at tick 0; it goes on with the ticks.
    pub wall: Wall,
    /// The other end.
    pub peer: std::net::SocketAddr,
    /// The name of the site and handler that the transcript was made with. What it stands for is
    /// up to whoever plays it.
    pub site: String,
}

/// The site that changes nothing.
const PLAIN: &str = "plain";

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            config: Config::default(),
            wall: Wall(784_111_777),
            peer: std::net::SocketAddr::from(([127, 0, 0, 1], 4000)),
            site: PLAIN.into(),
        }
    }
}

/// A number of the configuration: its name and where it is.
struct Number {
    name: &'static str,
    get: fn(&Config) -> u64,
    set: fn(&mut Config, u64),
}

macro_rules! numbers {
    ($($name:literal => $($field:ident).+;)*) => {
        &[$(Number {
            name: $name,
            get: |config| as_u64(config.$($field).+),
            set: |config, value| config.$($field).+ = value.try_into().unwrap_or_default(),
        },)*]
    };
}

fn as_u64(value: impl TryInto<u64>) -> u64 {
    value.try_into().unwrap_or_default()
}

const NUMBERS: &[Number] = numbers! {
    "limit request-line" => limits.request_line;
    "limit field-line" => limits.field_line;
    "limit fields" => limits.fields;
    "limit head" => limits.head;
    "limit blank-lines" => limits.blank_lines;
    "limit chunk-line" => limits.chunk_line;
    "limit trailers" => limits.trailers;
    "limit body" => limits.body;
    "limit drain" => limits.drain;
    "limit linger" => limits.linger;
    "limit listing" => limits.listing;
    "limit output" => limits.output;
    "limit ranges" => limits.ranges;
    "limit script-head" => limits.script_head;
    "limit redirects" => limits.redirects;
    "timeout head" => timeouts.head;
    "timeout keep-alive" => timeouts.keep_alive;
    "timeout body-silence" => timeouts.body.silence;
    "timeout body-grace" => timeouts.body.grace;
    "timeout body-rate" => timeouts.body.rate;
    "timeout write-silence" => timeouts.write.silence;
    "timeout write-grace" => timeouts.write.grace;
    "timeout write-rate" => timeouts.write.rate;
    "timeout linger-silence" => timeouts.linger_silence;
    "timeout linger" => timeouts.linger;
    "timeout script" => timeouts.script;
    "timeout script-grace" => timeouts.script_grace;
    "timeout script-silence" => timeouts.script_silence;
};

impl Settings {
    /// Takes one line of the head. `Err` says what is wrong with it.
    pub(super) fn read(&mut self, line: &str) -> Result<(), String> {
        let (name, value) = line.trim_end().rsplit_once(' ').ok_or("a setting is a name and a value")?;
        let bad = || format!("no value for {name}: {value}");
        match name {
            "protocol" if value == "HTTP/1.0" => self.config.protocol = Protocol::Http10,
            "protocol" if value == "HTTP/1.1" => self.config.protocol = Protocol::Http11,
            "wall" => self.wall = Wall(value.parse().map_err(|_| bad())?),
            "peer" => self.peer = value.parse().map_err(|_| bad())?,
            "site" => self.site = value.into(),
            "hide-dotfiles" if value == "yes" => self.config.hide_dotfiles = true,
            "handled" if value == "yes" => self.config.handled = true,
            "cgi" => self.config.cgi.directories.push(value.into()),
            "chunked" if value == "refuse" => self.config.cgi.chunked = Chunked::Refuse,
            "server-name" => self.config.server_name = value.into(),
            "server-port" => self.config.server_port = value.parse().map_err(|_| bad())?,
            _ => {
                let number = NUMBERS.iter().find(|number| number.name == name);
                let number = number.ok_or_else(|| format!("no such setting: {name}"))?;
                let value = value.parse().map_err(|_| bad())?;
                (number.set)(&mut self.config, value);
            }
        }
        Ok(())
    }

    /// Appends the lines of the head.
    pub(super) fn write(&self, out: &mut String) {
        let default = Settings::default();
        if self.config.protocol != default.config.protocol {
            out.push_str("protocol HTTP/1.0\n");
        }
        if self.config.hide_dotfiles {
            out.push_str("hide-dotfiles yes\n");
        }
        if self.config.handled {
            out.push_str("handled yes\n");
        }
        for number in NUMBERS {
            let value = (number.get)(&self.config);
            if value != (number.get)(&default.config) {
                out.push_str(&format!("{} {value}\n", number.name));
            }
        }
        for directory in &self.config.cgi.directories {
            out.push_str(&format!("cgi {directory}\n"));
        }
        if self.config.cgi.chunked == Chunked::Refuse {
            out.push_str("chunked refuse\n");
        }
        if !self.config.server_name.is_empty() {
            out.push_str(&format!("server-name {}\n", self.config.server_name));
        }
        if self.config.server_port != default.config.server_port {
            out.push_str(&format!("server-port {}\n", self.config.server_port));
        }
        if self.wall != default.wall {
            out.push_str(&format!("wall {}\n", self.wall.0));
        }
        if self.peer != default.peer {
            out.push_str(&format!("peer {}\n", self.peer));
        }
        if self.site != default.site {
            out.push_str(&format!("site {}\n", self.site));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Cgi;

    #[test]
    fn every_number_of_the_configuration_can_be_written() {
        let config = Config::default();
        let text = format!("{:?}{:?}", config.limits, config.timeouts);
        let numbers = text.split(": ").filter(|part| part.starts_with(|c: char| c.is_ascii_digit())).count();
        assert_eq!(numbers, NUMBERS.len(), "a field of Config is missing in NUMBERS");
    }

    #[test]
    fn what_is_written_is_read() {
        let mut settings = Settings::default();
        for (at, number) in NUMBERS.iter().enumerate() {
            (number.set)(&mut settings.config, 7 + at as u64);
        }
        settings.config.protocol = Protocol::Http10;
        settings.config.hide_dotfiles = true;
        settings.config.handled = true;
        settings.config.cgi = Cgi { directories: vec!["/a".into(), "/b".into()], chunked: Chunked::Refuse };
        (settings.config.server_name, settings.config.server_port) = ("here".into(), 8);
        settings.wall = Wall(-5);
        settings.peer = "[::1]:1".parse().unwrap();
        settings.site = "echo".into();
        let mut text = String::new();
        settings.write(&mut text);
        let mut read = Settings::default();
        text.lines().for_each(|line| read.read(line).unwrap());
        assert_eq!(read, settings);
    }
}
