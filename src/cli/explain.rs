//! `sanserve explain`: what the response to a request would be, and by which rules.
//!
//! The request goes to the same state machine that serves, with the same directory, but no port is opened and no
//! script is run. The reasons are those that the core records while it decides
//! ([`Buffers::explain`](sanserve_core::Buffers::explain)); this module contains no rules of HTTP.

mod report;
mod request;
mod walk;

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use sanserve_os::{Root, Symlinks};
use sanserve_server::{Log, Site, wants_colors};

use super::{SYSTEM, Side, USAGE, flags, plain};

pub(crate) const SIDE: Side = Side { command, run };

/// The flags of a server that can change a response.
const SHARED: [&str; 14] = [
    "directory",
    "protocol",
    "symlinks",
    "hide-dotfiles",
    "etag",
    "content-type",
    "mime",
    "charset",
    "max-body",
    "cgi",
    "cgi-dir",
    "cgi-chunked",
    "cgi-pass-authorization",
    "health",
];

fn command() -> Command {
    Command::new("explain")
        .about("Shows the response to a request and the rules that decide it. Opens no port and runs no script")
        .args_override_self(true)
        .infer_long_args(true)
        .arg(
            Arg::new("request")
                .value_name("REQUEST")
                .required(true)
                .value_parser(ValueParser::os_string())
                .help("A request line, such as 'HEAD /a.txt HTTP/1.0', with or without version; or just a target"),
        )
        .arg(
            Arg::new("header")
                .short('H')
                .long("header")
                .value_name("FIELD")
                .action(ArgAction::Append)
                .allow_hyphen_values(true)
                .value_parser(ValueParser::os_string())
                .help("A header field of the request, such as 'Range: bytes=0-9'; may be repeated"),
        )
        // Deferred, so that starting a server does not build these flags.
        .defer(|command| {
            let command = command.args(flags::shared(SHARED)).arg(flags::response_header());
            let rules = flags::RULES.map(|name| (name != "header").then_some(name));
            rules.into_iter().flatten().fold(command, |command, name| command.args(flags::shared([name])))
        })
}

fn run(matches: &ArgMatches) -> ExitCode {
    let text = matches.get_one::<OsString>("request").expect("required");
    let fields = matches.get_many::<OsString>("header").into_iter().flatten();
    let request = match request::Request::of(text, fields) {
        Ok(request) => request,
        Err(what) => {
            super::print_error(what);
            return ExitCode::from(USAGE);
        }
    };
    let directory = matches.get_one::<PathBuf>("directory").expect("has a default");
    let rules = match flags::rules(matches) {
        Ok(rules) => rules,
        Err(error) => {
            super::print_error(error);
            return ExitCode::from(USAGE);
        }
    };
    let symlinks = *matches.get_one::<Symlinks>("symlinks").expect("has a default");
    let root = match Root::open(directory, symlinks) {
        Ok(root) => root,
        Err(error) => {
            super::print_error(format_args!("cannot serve {}: {}", directory.display(), plain(&error)));
            return ExitCode::from(SYSTEM);
        }
    };
    // The default port of a server.
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8000));
    let config = flags::config(matches).with_rules(rules);
    let site = Site::beneath(root).with_config(config).with_log(Log::quiet()).bound_to(address);
    let story = walk::walk(&request, &site);
    let mut out = io::stdout();
    let text = report::write(&story, wants_colors(&out));
    // The reader of the pipe may have closed it.
    let _ = out.write_all(&text).and_then(|()| out.flush());
    ExitCode::SUCCESS
}
