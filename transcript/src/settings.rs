//! The head of a transcript: the configuration and environment, written only where they differ from the defaults.

use std::mem;
use std::net::SocketAddr;
use std::time::Duration;

use sanserve_core::{Chunked, Config, Etag, MediaTypes, Now, Peer, Protocol, Wall};

use crate::words;

/// The configuration and environment of a connection.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// Limits, timeouts and protocol version.
    pub config: Config,
    /// The calendar time at tick 0, which advances with the ticks. [`Settings::starting`] sets both fields.
    pub wall: Wall,
    /// The milliseconds of that second that have passed; less than 1,000.
    pub wall_millis: u16,
    /// The address of the client.
    pub peer: Peer,
    /// The name of the policy and handler of the transcript. Programs that replay it define what the name stands for.
    pub site: String,
    /// Whether credentials were masked ([`Secrets::Masked`](crate::Secrets)). If so, they are also masked in a replay.
    pub masked: bool,
}

/// The default policy, without a handler.
const PLAIN: &str = "plain";

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            config: Config::default(),
            wall: Wall(784_111_777),
            wall_millis: 0,
            peer: Peer::from(([127, 0, 0, 1], 4000)),
            site: PLAIN.into(),
            masked: false,
        }
    }
}

/// A number of the configuration: its name, and how to access it.
struct Number {
    name: &'static str,
    get: fn(&Config) -> u64,
    set: fn(&mut Config, u64),
}

/// A field of [`Limits`](sanserve_core::Limits).
macro_rules! limit {
    ($name:literal, $field:ident) => {
        Number {
            name: $name,
            get: |config| as_u64(config.limits.$field),
            set: |config, value| config.limits.$field = value.try_into().unwrap_or_default(),
        }
    };
}

/// A time of [`Timeouts`](sanserve_core::Timeouts), in milliseconds.
macro_rules! timeout {
    ($name:literal, $get:ident, $set:ident) => {
        Number {
            name: $name,
            get: |config| millis(config.timeouts.$get()),
            set: |config, value| config.timeouts = config.timeouts.clone().$set(time(value)),
        }
    };
}

/// A part of a [`Pace`](sanserve_core::Pace), whose times are in milliseconds.
macro_rules! pace {
    ($name:literal, $pace:ident, $set:ident, |$of:ident| $get:expr, |$old:ident, $value:ident| $new:expr) => {
        Number {
            name: $name,
            get: |config| {
                let $of = config.timeouts.$pace();
                $get
            },
            set: |config, $value| {
                let $old = config.timeouts.$pace();
                config.timeouts = config.timeouts.clone().$set($new);
            },
        }
    };
}

fn as_u64(value: impl TryInto<u64>) -> u64 {
    value.try_into().unwrap_or_default()
}

fn millis(time: Duration) -> u64 {
    as_u64(time.as_millis())
}

fn time(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const NUMBERS: &[Number] = &[
    limit!("limit request-line", request_line),
    limit!("limit field-line", field_line),
    limit!("limit fields", fields),
    limit!("limit head", head),
    limit!("limit blank-lines", blank_lines),
    limit!("limit chunk-line", chunk_line),
    limit!("limit trailers", trailers),
    limit!("limit body", body),
    limit!("limit drain", drain),
    limit!("limit linger", linger),
    limit!("limit listing", listing),
    limit!("limit output", output),
    limit!("limit error-page", error_page),
    limit!("limit ranges", ranges),
    limit!("limit script-head", script_head),
    limit!("limit script-body", script_body),
    limit!("limit redirects", redirects),
    timeout!("timeout handshake", handshake, with_handshake),
    timeout!("timeout head", head, with_head),
    timeout!("timeout keep-alive", keep_alive, with_keep_alive),
    pace!("timeout body-silence", body, with_body, |pace| millis(pace.silence()), |pace, value| pace
        .with_silence(time(value))),
    pace!("timeout body-grace", body, with_body, |pace| millis(pace.grace()), |pace, value| pace
        .with_grace(time(value))),
    pace!("timeout body-rate", body, with_body, |pace| pace.rate(), |pace, value| pace.with_rate(value)),
    pace!("timeout write-silence", write, with_write, |pace| millis(pace.silence()), |pace, value| pace
        .with_silence(time(value))),
    pace!("timeout write-grace", write, with_write, |pace| millis(pace.grace()), |pace, value| pace
        .with_grace(time(value))),
    pace!("timeout write-rate", write, with_write, |pace| pace.rate(), |pace, value| pace.with_rate(value)),
    timeout!("timeout drain-silence", drain_silence, with_drain_silence),
    timeout!("timeout linger-silence", linger_silence, with_linger_silence),
    timeout!("timeout linger", linger, with_linger),
    timeout!("timeout script", script, with_script),
    timeout!("timeout script-grace", script_grace, with_script_grace),
    timeout!("timeout script-silence", script_silence, with_script_silence),
    timeout!("timeout script-drain", script_drain, with_script_drain),
];

impl Settings {
    /// Sets [`config`](Self::config).
    #[must_use]
    pub fn with_config(self, config: Config) -> Settings {
        Settings { config, ..self }
    }

    /// Sets [`peer`](Self::peer).
    #[must_use]
    pub fn with_peer(self, peer: impl Into<Peer>) -> Settings {
        Settings { peer: peer.into(), ..self }
    }

    /// Sets [`site`](Self::site).
    #[must_use]
    pub fn with_site(self, site: impl Into<String>) -> Settings {
        Settings { site: site.into(), ..self }
    }

    /// Sets [`masked`](Self::masked).
    #[must_use]
    pub fn with_masked(self, masked: bool) -> Settings {
        Settings { masked, ..self }
    }

    /// The same for a connection that begins `now`, as a [`Recorder`](crate::Recorder) of it needs them.
    #[must_use]
    pub fn starting(self, now: &Now) -> Settings {
        Settings { wall: now.wall, wall_millis: (now.tick.0 % 1000) as u16, ..self }
    }

    /// Parses one line of the head. `Err` contains the error message.
    pub(super) fn read(&mut self, line: &str) -> Result<(), String> {
        let line = line.trim_end();
        if let Some(directory) = line.strip_prefix("cgi ") {
            self.config.cgi.directories.push(path(directory)?);
            return Ok(());
        }
        if let Some(rule) = line.strip_prefix("rule ") {
            let (name, value) = rule.split_once(' ').unwrap_or((rule, ""));
            let rules = self.config.rules.as_deref().cloned().unwrap_or_default();
            let rules = rules.with_text(name, value).map_err(|error| error.to_string())?;
            self.config = mem::take(&mut self.config).with_rules(rules);
            return Ok(());
        }
        if let Some(types) = self.read_types(line) {
            self.config.types = types?;
            return Ok(());
        }
        let (name, value) = line.rsplit_once(' ').ok_or("a setting is a name and a value")?;
        let bad = || format!("invalid value for {name}: {value}");
        match name {
            "protocol" if value == "HTTP/1.0" => self.config.protocol = Protocol::Http10,
            "protocol" if value == "HTTP/1.1" => self.config.protocol = Protocol::Http11,
            "wall" => {
                let (seconds, millis) = value.split_once('.').unwrap_or((value, "000"));
                let is_millis = millis.len() == 3 && millis.bytes().all(|byte| byte.is_ascii_digit());
                self.wall = Wall(seconds.parse().map_err(|_| bad())?);
                self.wall_millis = millis.parse().ok().filter(|_| is_millis).ok_or_else(bad)?;
            }
            "peer" if value == Peer::unix().to_string() => self.peer = Peer::unix(),
            "peer" => self.peer = value.parse::<SocketAddr>().map_err(|_| bad())?.into(),
            "site" => self.site = value.into(),
            "masked" if value == "yes" => self.masked = true,
            "etag" if value == "content" => self.config.etag = Etag::Content,
            "etag" if value == "off" => self.config.etag = Etag::Off,
            "handled" if value == "yes" => self.config.handled = true,
            "hide-dotfiles" if value == "yes" => self.config.hide_dotfiles = true,
            "pass-authorization" if value == "yes" => self.config.cgi.pass_authorization = true,
            "chunked" if value == "refuse" => self.config.cgi.chunked = Chunked::Refuse,
            "health" => self.config.health = Some(value.into()),
            "server-name" => self.config.server_name = value.into(),
            "server-port" => self.config.server_port = value.parse().map_err(|_| bad())?,
            _ => {
                let number = NUMBERS.iter().find(|number| number.name == name);
                let number = number.ok_or_else(|| format!("unknown setting: {name}"))?;
                let value = value.parse().map_err(|_| bad())?;
                (number.set)(&mut self.config, value);
            }
        }
        Ok(())
    }

    /// Parses a setting about media types; `None` if it is another setting.
    fn read_types(&self, line: &str) -> Option<Result<MediaTypes, String>> {
        let types = || self.config.types.clone();
        let (name, value) = line.split_once(' ')?;
        let read = match (name, value) {
            ("type", value) => {
                let (extension, kind) = value.split_once(' ')?;
                types().with(extension, kind)
            }
            ("unknown-type", kind) => types().with_unknown(kind),
            ("charset", "off") => types().with_charset(None),
            ("charset", charset) => types().with_charset(Some(charset)),
            _ => return None,
        };
        Some(read.map_err(|error| error.to_string()))
    }

    /// Appends the lines of the head.
    pub(super) fn write(&self, out: &mut String) {
        let default = Settings::default();
        if self.config.protocol != default.config.protocol {
            out.push_str("protocol HTTP/1.0\n");
        }
        let flags = [
            ("handled", self.config.handled),
            ("hide-dotfiles", self.config.hide_dotfiles),
            ("pass-authorization", self.config.cgi.pass_authorization),
            ("masked", self.masked),
        ];
        for (name, _) in flags.into_iter().filter(|(_, is_set)| *is_set) {
            out.push_str(&format!("{name} yes\n"));
        }
        for number in NUMBERS {
            let value = (number.get)(&self.config);
            if value != (number.get)(&default.config) {
                out.push_str(&format!("{} {value}\n", number.name));
            }
        }
        for directory in &self.config.cgi.directories {
            out.push_str("cgi ");
            words::word(directory.as_bytes(), out);
            out.push('\n');
        }
        if let Some(health) = &self.config.health {
            out.push_str(&format!("health {health}\n"));
        }
        for (name, value) in self.config.rules.iter().flat_map(|rules| rules.to_text()) {
            out.push_str(format!("rule {name} {value}").trim_end());
            out.push('\n');
        }
        if self.config.cgi.chunked == Chunked::Refuse {
            out.push_str("chunked refuse\n");
        }
        match self.config.etag {
            Etag::Modified => {}
            Etag::Content => out.push_str("etag content\n"),
            Etag::Off => out.push_str("etag off\n"),
        }
        for (extension, kind) in self.config.types.extensions() {
            out.push_str(&format!("type {extension} {kind}\n"));
        }
        if let Some(kind) = self.config.types.unknown() {
            out.push_str(&format!("unknown-type {kind}\n"));
        }
        if let Some(charset) = self.config.types.charset() {
            out.push_str(&format!("charset {}\n", charset.unwrap_or("off")));
        }
        if !self.config.server_name.is_empty() {
            out.push_str(&format!("server-name {}\n", self.config.server_name));
        }
        if self.config.server_port != default.config.server_port {
            out.push_str(&format!("server-port {}\n", self.config.server_port));
        }
        if (self.wall, self.wall_millis) != (default.wall, default.wall_millis) {
            out.push_str(&format!("wall {}", self.wall.0));
            if self.wall_millis > 0 {
                out.push_str(&format!(".{:03}", self.wall_millis));
            }
            out.push('\n');
        }
        if self.peer != default.peer {
            out.push_str(&format!("peer {:?}\n", self.peer));
        }
        if self.site != default.site {
            out.push_str(&format!("site {}\n", self.site));
        }
    }
}

/// Parses a path, bare or quoted.
fn path(text: &str) -> Result<String, String> {
    let Some(inside) = text.strip_prefix('"') else { return Ok(text.into()) };
    let (path, _) = words::unquote(inside)?;
    String::from_utf8(path).map_err(|_| format!("not UTF-8: {text}"))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use sanserve_core::{Cgi, Rules};

    #[test]
    fn every_number_of_the_configuration_has_a_name() {
        let config = Config::default();
        let text = format!("{:?}{:?}", config.limits, config.timeouts);
        let numbers = text.split(": ").filter(|part| part.starts_with(|c: char| c.is_ascii_digit())).count();
        assert_eq!(numbers, NUMBERS.len(), "a field of Config is missing in NUMBERS");
    }

    #[test]
    fn written_settings_can_be_parsed() {
        let mut settings = Settings::default();
        for (at, number) in NUMBERS.iter().enumerate() {
            (number.set)(&mut settings.config, 7 + at as u64);
        }
        settings.config.protocol = Protocol::Http10;
        (settings.config.hide_dotfiles, settings.config.handled, settings.masked) = (true, true, true);
        settings.config.cgi = Cgi::default()
            .with_directories(["/a", "/b \"ä"])
            .with_chunked(Chunked::Refuse)
            .with_pass_authorization(true);
        (settings.config.server_name, settings.config.server_port) = ("here".into(), 8);
        settings.config.etag = Etag::Off;
        let types = MediaTypes::default().with(".a", "a/b; c=\"d e\"").unwrap().with_unknown("text/x; d=e").unwrap();
        settings.config.types = types.with_charset(Some("latin-1")).unwrap();
        let rules = Rules::new().with_header_for("/a b*", "X-A", "b  c").unwrap().with_clean_urls();
        settings.config = settings.config.with_rules(rules.with_redirect("/a b", "/c").unwrap());
        (settings.wall, settings.wall_millis) = (Wall(-5), 7);
        settings.site = "echo".into();
        for peer in [Peer::from((Ipv6Addr::LOCALHOST, 1)), Peer::unix()] {
            settings.peer = peer;
            let mut text = String::new();
            settings.write(&mut text);
            let mut read = Settings::default();
            text.lines().for_each(|line| read.read(line).unwrap());
            assert_eq!(read, settings);
        }
    }
}
