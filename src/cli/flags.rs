//! The flags: those of `python -m http.server`, and our own.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser, ValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use sanserve_core::{Cgi, Chunked, Config, Etag, Limits, MediaTypes, Pace, Protocol, Rules, Timeouts};
use sanserve_os::Symlinks;
use sanserve_server::ScriptRules;
use sanserve_transcript::Secrets;

use super::tls::Pair;
use super::units::{self, show_size, show_time};
use super::{SIDES, Side};

/// The flags of the server, parsed and checked.
#[derive(Debug)]
pub(crate) struct Flags {
    pub(crate) port: u16,
    /// Where to listen. Empty: on all interfaces.
    pub(crate) bind: Vec<Bind>,
    /// The permissions of Unix sockets, if they are not those that the umask leaves.
    pub(crate) socket_mode: Option<u32>,
    pub(crate) directory: PathBuf,
    pub(crate) runtime: Runtime,
    pub(crate) workers: Option<usize>,
    /// The limit on threads that wait for disks, if it is not the default.
    pub(crate) io_threads: Option<usize>,
    pub(crate) quiet: bool,
    pub(crate) symlinks: Symlinks,
    pub(crate) connections: Option<usize>,
    pub(crate) memory: Option<u64>,
    pub(crate) grace: Duration,
    pub(crate) drain_delay: Duration,
    pub(crate) log_file: Option<PathBuf>,
    pub(crate) scripts: ScriptRules,
    pub(crate) config: Config,
    pub(crate) record: Option<Record>,
    pub(crate) trace: bool,
    pub(crate) secrets: Secrets,
    pub(crate) invite: Invite,
    pub(crate) tls: Option<Tls>,
}

/// How the server speaks HTTPS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tls {
    pub(crate) source: Source,
    /// The port of plain HTTP that redirects.
    pub(crate) redirect: Option<u16>,
    /// For how many seconds browsers are told to use HTTPS only.
    pub(crate) hsts: Option<u64>,
}

/// Where the certificates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// From files, `--tls-cert`.
    Files(Vec<Pair>),
    /// They are made here, `--https`.
    Local(Kept),
}

/// Whether what is made for `--https` is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// A certificate authority and a certificate are kept for the next run.
    Kept,
    /// A certificate is made for this run alone.
    Once,
}

/// What the server does to be found by people, beside its banner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Invite {
    /// Print the URLs by which other devices reach it.
    pub(crate) lan: bool,
    /// Print the first of them as a QR code too.
    pub(crate) qr: bool,
    /// Open a browser.
    pub(crate) open: bool,
}

/// A value of `--bind`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bind {
    /// An IP address or a name.
    Host(String),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// Where connections are recorded, and with which limits.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) directory: PathBuf,
    pub(crate) most: Option<usize>,
    pub(crate) size: Option<u64>,
    pub(crate) rate: Option<u64>,
}

/// The frontend that drives the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    Mio,
    Std,
    Smol,
}

/// What the command line asks for.
pub(crate) enum Asked {
    /// Run a server.
    Serve(Box<Flags>),
    /// Run a subcommand with these arguments.
    Side(&'static Side, Box<ArgMatches>),
}

/// The flags that are rules of the site.
pub(crate) const RULES: [&str; 13] = [
    "header",
    "header-always",
    "cache",
    "cors",
    "isolate",
    "nosniff",
    "route-prefix",
    "redirect",
    "index",
    "clean-urls",
    "spa",
    "no-listing",
    "error-page",
];

/// The name of `--header` for a command that has a flag of that name already.
pub(crate) const RESPONSE_HEADER: &str = "response-header";

/// Headings of `--help`. The flags before the first heading say what is served, and how.
const SITE: &str = "Rules of the site";
const BOUNDS: &str = "Limits";
const TIMES: &str = "Timeouts";
const HTTPS: &str = "HTTPS";
const SCRIPTS: &str = "CGI scripts";
const LOGS: &str = "Recording and tracing";

/// The longest line of `--help`. A narrower terminal gets shorter lines.
const WIDTH: usize = 80;

/// The last lines of `--help`.
const UNITS: &str = "A SIZE is a number of bytes, or a number with K, M, G or T: 4096, 64K, 1.5GiB (powers of \
    1024; kB, MB, GB: of 1000). A TIME is a number of seconds, or a number with ms, s, m, h or d: 90, 1.5s, 5m.";

/// The first line of a usage error of the server.
const USAGE: &str = "usage: sanserve [-h] [-b ADDRESS] [-d DIRECTORY] [-p VERSION] [OPTIONS] [port]";

/// The first line of a usage error, for the command that was given.
pub(crate) fn usage() -> String {
    let named = std::env::args_os().nth(1).unwrap_or_default();
    let mut command = command();
    command.build();
    match command.find_subcommand_mut(&named) {
        // clap writes `Usage:`, argparse does not.
        Some(side) => side.render_usage().to_string().replacen("Usage:", "usage:", 1),
        None => USAGE.into(),
    }
}

/// Parses the command line of the process.
pub(crate) fn read() -> Result<Asked, clap::Error> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|word| word == "help") {
        // `sanserve help --help` is the same as `sanserve help`.
        arguments.retain(|word| word != "--help" && word != "-h");
    }
    let matches = command().try_get_matches_from(&arguments).map_err(|error| advised(error, &arguments))?;
    if let Some((name, of_side)) = matches.subcommand() {
        let side = SIDES.iter().find(|side| (side.command)().get_name() == name).expect("made of the same table");
        return Ok(Asked::Side(side, Box::new(of_side.clone())));
    }
    Ok(Asked::Serve(Box::new(understand(&matches)?)))
}

fn understand(matches: &ArgMatches) -> Result<Flags, clap::Error> {
    let mut flags = Flags::from(matches);
    flags.scripts.environment.extend(cgi_environment(matches)?);
    let rules = rules(matches).map_err(|what| command().error(ErrorKind::ValueValidation, what + "\n"))?;
    flags.tls = tls(matches)?;
    let rules = match flags.tls.as_ref().and_then(|tls| tls.hsts) {
        None => rules,
        Some(seconds) => rules
            .with_header_always("Strict-Transport-Security", &format!("max-age={seconds}"))
            .map_err(|what| command().error(ErrorKind::ValueValidation, format!("{what}\n")))?,
    };
    flags.config = flags.config.with_rules(rules);
    if flags.socket_mode.is_some() && !flags.bind.iter().any(|bind| matches!(bind, Bind::Unix(_))) {
        let message = "--socket-mode needs a Unix socket: --bind unix:PATH\n";
        return Err(command().error(ErrorKind::MissingRequiredArgument, message));
    }
    Ok(flags)
}

fn command() -> Command {
    serving()
        .args_conflicts_with_subcommands(true)
        .subcommands(SIDES.iter().map(|side| (side.command)().args_override_self(true).infer_long_args(true)))
        .max_term_width(WIDTH)
}

/// Flags of the server, by name, for use in a subcommand.
pub(crate) fn shared<const N: usize>(names: [&str; N]) -> [Arg; N] {
    let serving = serving();
    let flag = |name| serving.get_arguments().find(|arg| arg.get_id() == name).expect("one of the flags below").clone();
    names.map(flag)
}

fn serving() -> Command {
    let defaults = Timeouts::default();
    Command::new("sanserve")
        .about("Serves a directory over HTTP.")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .after_help(UNITS)
        // As in Python's argparse: the last occurrence wins, and names may be abbreviated.
        .args_override_self(true)
        .infer_long_args(true)
        .arg(
            Arg::new("port")
                .value_parser(port)
                .default_value("8000")
                .help("Port to listen on; 0 picks a free one"),
        )
        .arg(
            Arg::new("bind")
                .short('b')
                .long("bind")
                .value_name("ADDRESS")
                .action(ArgAction::Append)
                .value_parser(OsStringValueParser::new().try_map(bind))
                .help("Address to listen on, a host name, for all of its addresses, or unix:PATH, for a Unix socket; may be repeated [default: all interfaces]"),
        )
        .arg(
            Arg::new("socket-mode")
                .long("socket-mode")
                .value_name("MODE")
                .value_parser(socket_mode)
                .help("Permissions of Unix sockets, in octal digits, such as 0660 [default: what the umask leaves]"),
        )
        .arg(
            Arg::new("directory")
                .short('d')
                .long("directory")
                .value_name("DIRECTORY")
                .value_parser(value_parser!(PathBuf))
                .default_value(".")
                .hide_default_value(true)
                .help("Directory to serve [default: the current one]"),
        )
        .arg(
            Arg::new("protocol")
                .short('p')
                .long("protocol")
                .value_name("VERSION")
                .value_parser(PossibleValuesParser::new(["HTTP/1.0", "HTTP/1.1"]).map(|version| match version.as_str() {
                    "HTTP/1.0" => Protocol::Http10,
                    _ => Protocol::Http11,
                }))
                .default_value("HTTP/1.1")
                .help("HTTP version of the responses"),
        )
        .arg(
            Arg::new("runtime")
                .long("runtime")
                .value_name("RUNTIME")
                .value_parser(PossibleValuesParser::new(["mio", "std", "smol"]).map(|runtime| match runtime.as_str() {
                    "std" => Runtime::Std,
                    "smol" => Runtime::Smol,
                    _ => Runtime::Mio,
                }))
                .default_value("mio")
                .help("What drives connections: a mio event loop, std threads, or smol tasks"),
        )
        .arg(
            Arg::new("workers")
                .long("workers")
                .value_name("N")
                .value_parser(units::whole(1..=u16::MAX))
                .help("Number of event loops (mio), executor threads (smol), or concurrent connections (std) [default: 1 per processor, at most 4; std: 4096]"),
        )
        .arg(
            Arg::new("io-threads")
                .long("io-threads")
                .value_name("N")
                .value_parser(units::whole(0..=u16::MAX))
                .help("Maximum number of threads that wait for disks, so that event loops do not (mio, smol); 0: none [default: 32]"),
        )
        .arg(
            Arg::new("quiet")
                .short('q')
                .long("quiet")
                .action(ArgAction::SetTrue)
                .help("Do not log requests"),
        )
        .arg(
            Arg::new("lan")
                .long("lan")
                .action(ArgAction::SetTrue)
                .help("Print the URLs by which other devices on the network reach the server"),
        )
        .arg(
            Arg::new("qr")
                .long("qr")
                .action(ArgAction::SetTrue)
                .help("Print them, and the first one as a QR code"),
        )
        .arg(
            Arg::new("open")
                .long("open")
                .action(ArgAction::SetTrue)
                .help("Open the server in a browser"),
        )
        .arg(
            Arg::new("symlinks")
                .long("symlinks")
                .value_name("POLICY")
                .value_parser(PossibleValuesParser::new(["follow", "inside", "never"]).map(|policy| match policy.as_str() {
                    "inside" => Symlinks::Inside,
                    "never" => Symlinks::Never,
                    _ => Symlinks::Follow,
                }))
                .default_value("follow")
                .help("Symbolic links: follow them anywhere, only inside the directory, or never"),
        )
        .arg(
            Arg::new("hide-dotfiles")
                .long("hide-dotfiles")
                .action(ArgAction::SetTrue)
                .help("Do not serve or list names that begin with a dot"),
        )
        .arg(
            Arg::new("etag")
                .long("etag")
                .value_name("FROM")
                .value_parser(PossibleValuesParser::new(["mtime", "content", "off"]).map(|from| match from.as_str() {
                    "content" => Etag::Content,
                    "off" => Etag::Off,
                    _ => Etag::Modified,
                }))
                .default_value("mtime")
                .help("How to make entity tags: from modification time and length, from a hash of the content, or not at all"),
        )
        .arg(
            Arg::new("content-type")
                .long("content-type")
                .value_name("TYPE")
                .value_parser(|text: &str| MediaTypes::default().with_unknown(text).map(|_| text.to_owned()))
                .help("Media type of files with an unknown extension [default: application/octet-stream]"),
        )
        .arg(
            Arg::new("mime")
                .long("mime")
                .value_name(".EXT=TYPE")
                .action(ArgAction::Append)
                .value_parser(mime)
                .help("Media type of files with this extension; may be repeated"),
        )
        .arg(
            Arg::new("charset")
                .long("charset")
                .value_name("NAME")
                .value_parser(|text: &str| MediaTypes::default().with_charset(Some(text)).map(|_| text.to_owned()))
                .help("Charset of text files, or off to send none [default: utf-8]"),
        )
        .next_help_heading(SITE)
        .args(rule_flags())
        .next_help_heading(BOUNDS)
        .arg(
            Arg::new("connections")
                .long("max-connections")
                .value_name("N")
                .value_parser(units::whole(1..=u32::MAX))
                .help("Maximum number of concurrent connections; beyond that, the one idle longest is closed [default: 16384, or what descriptors and memory allow]"),
        )
        .arg(
            Arg::new("max-memory")
                .long("max-memory")
                .value_name("SIZE")
                .value_parser(units::size)
                .help("Maximum memory for the buffers of all connections, not counting 4 KiB each; beyond that, 503 [default: a quarter of the available memory]"),
        )
        .arg(
            Arg::new("max-body")
                .long("max-body")
                .value_name("SIZE")
                .value_parser(units::size)
                .help(defaulting("Largest request body; beyond that, 413", show_size(Limits::default().body))),
        )
        .next_help_heading(HTTPS)
        .arg(
            Arg::new("https")
                .long("https")
                .value_name("once")
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("kept")
                .value_parser(PossibleValuesParser::new(["once", "kept"]).map(|kept| match kept.as_str() {
                    "once" => Kept::Once,
                    _ => Kept::Kept,
                }))
                .hide_possible_values(true)
                .conflicts_with("tls-cert")
                .help("Serve HTTPS with a certificate of a local CA, which the first run makes (see `sanserve cert`); with =once, with a certificate that is not kept"),
        )
        .arg(
            tls_file("tls-cert")
                .help("Serve HTTPS with the chain of certificates in this file, and the private key if it is there; repeat it for certificates of other names (SNI)"),
        )
        .arg(tls_file("tls-key").help("File of the private key of the --tls-cert before it"))
        .arg(tls_file("tls-password-file").help("File with the password of that key, if it is encrypted"))
        .arg(
            Arg::new("http-redirect")
                .long("http-redirect")
                .value_name("PORT")
                .value_parser(port)
                .help("Redirect all requests of plain HTTP on this port to HTTPS"),
        )
        .arg(
            Arg::new("hsts")
                .long("hsts")
                .value_name("TIME")
                .value_parser(units::time_or_0)
                .help("Tell browsers to use only HTTPS with this host, on all of its ports, for so long (Strict-Transport-Security)"),
        )
        .next_help_heading(SCRIPTS)
        .arg(
            Arg::new("cgi")
                .long("cgi")
                .action(ArgAction::SetTrue)
                .help("Run files under /cgi-bin and /htbin as CGI scripts"),
        )
        .arg(
            Arg::new("cgi-dir")
                .long("cgi-dir")
                .value_name("PATH")
                .action(ArgAction::Append)
                .value_parser(cgi_directory)
                .requires("cgi")
                .help("Run files under this path instead; may be repeated"),
        )
        .arg(
            Arg::new("cgi-env")
                .long("cgi-env")
                .value_name("NAME[=VALUE]")
                .action(ArgAction::Append)
                .value_parser(ValueParser::os_string())
                .requires("cgi")
                .help("Pass this environment variable to scripts, by default with its current value; may be repeated"),
        )
        .arg(
            Arg::new("cgi-max")
                .long("cgi-max")
                .value_name("N")
                .value_parser(units::whole(1..=u32::MAX))
                .requires("cgi")
                .help("Maximum number of concurrent scripts; beyond that, 503 [default: 256]"),
        )
        .arg(
            Arg::new("cgi-read-first")
                .long("cgi-read-first")
                .value_name("SIZE")
                .value_parser(units::size)
                .requires("cgi")
                .help(defaulting(
                    "Request bodies up to this size are read completely before the script is started",
                    show_size(Limits::default().script_body as u64),
                )),
        )
        .arg(
            Arg::new("cgi-spool-total")
                .long("cgi-spool-total")
                .value_name("SIZE")
                .value_parser(units::size)
                .requires("cgi")
                .help(defaulting(
                    "Maximum disk space for chunked bodies in temporary files, in total; beyond that, 503",
                    show_size(ScriptRules::default().spool_total),
                )),
        )
        .arg(time("cgi-timeout", defaults.script(), "How long a script may run in total").requires("cgi"))
        .arg(
            time("cgi-half-close", defaults.script_silence(), "How long a script may write nothing after the client has half-closed a persistent connection")
                .requires("cgi"),
        )
        .arg(
            Arg::new("cgi-chunked")
                .long("cgi-chunked")
                .value_name("POLICY")
                .value_parser(PossibleValuesParser::new(["spool", "refuse"]))
                .requires("cgi")
                .help("Chunked request bodies for scripts: spool them to a temporary file, or reject them with 411 [default: spool]"),
        )
        .arg(
            Arg::new("cgi-pass-authorization")
                .long("cgi-pass-authorization")
                .action(ArgAction::SetTrue)
                .requires("cgi")
                .help("Pass the Authorization field to scripts, including any password in it"),
        )
        .next_help_heading(TIMES)
        .arg(time("handshake-timeout", defaults.handshake(), "How long a TLS handshake may take"))
        .arg(time("head-timeout", defaults.head(), "How long a request head may take, from its first byte"))
        .arg(time("keep-alive", defaults.keep_alive(), "How long a connection may be idle between requests"))
        .arg(time("body-timeout", defaults.body().silence(), "How long a request body may stall, or stay below 256 bytes per second"))
        .arg(time("write-timeout", defaults.write().silence(), "How long a client may read nothing, or less than 256 bytes per second"))
        .arg(
            time("grace", Duration::from_secs(30), "How long requests in progress may take after SIGTERM or Ctrl-C")
                .value_parser(units::time_or_0),
        )
        .arg(
            time("drain-delay", Duration::ZERO, "How long to keep serving after SIGTERM or Ctrl-C, while --health responds 503")
                .value_parser(units::time_or_0),
        )
        .arg(
            Arg::new("health")
                .long("health")
                .value_name("PATH")
                .value_parser(health)
                .help("Health check: respond to this path with 200, or with 503 once a shutdown was requested [default: none]"),
        )
        .next_help_heading(LOGS)
        .arg(
            Arg::new("log-file")
                .long("log-file")
                .value_name("PATH")
                .value_parser(value_parser!(PathBuf))
                .help("Append the log to this file; it is reopened on SIGHUP and SIGUSR1 [default: stderr]"),
        )
        .arg(
            Arg::new("record")
                .long("record")
                .value_name("DIRECTORY")
                .value_parser(value_parser!(PathBuf))
                .help("Record each connection to a file in this directory, for `sanserve replay`"),
        )
        .arg(
            Arg::new("record-max")
                .long("record-max")
                .value_name("N")
                .value_parser(units::whole(1..=u32::MAX))
                .requires("record")
                .help("Maximum number of recordings to keep; the oldest is deleted first [default: 1000]"),
        )
        .arg(
            Arg::new("record-size")
                .long("record-size")
                .value_name("SIZE")
                .value_parser(units::size_above_0)
                .requires("record")
                .help("Largest recording; the rest of the connection is not recorded [default: 1MiB]"),
        )
        .arg(
            Arg::new("record-rate")
                .long("record-rate")
                .value_name("SIZE")
                .value_parser(units::size_above_0)
                .requires("record")
                .help("Maximum bytes to record per second; the excess is not recorded [default: 2MiB]"),
        )
        .arg(
            Arg::new("trace")
                .long("trace")
                .action(ArgAction::SetTrue)
                .help("Print the events of all connections to stderr, one per line"),
        )
        .arg(
            Arg::new("secrets")
                .long("secrets")
                .action(ArgAction::SetTrue)
                .help("Do not mask credentials, such as Authorization and Cookie, in recordings and traces"),
        )
        .arg(
            Arg::new("version")
                .short('V')
                .long("version")
                .action(ArgAction::Version)
                .help_heading(None)
                .help("Print the version"),
        )
}

/// The flags in [`RULES`], in that order.
fn rule_flags() -> [Arg; RULES.len()] {
    [
        rule("header", "[PATTERN=]FIELD")
            .short('H')
            .help("Add a field, such as 'X-Name: value', to responses with 200, 206 or 304; may be repeated. With a PATTERN, only for some paths or names: '/docs/*', '*.css'"),
        rule("header-always", "[PATTERN=]FIELD").help("As --header, for every response, errors too"),
        rule("cache", "[PATTERN=]SECONDS")
            .help("How long caches may keep responses: SECONDS, never or immutable; may be repeated, the last PATTERN that matches applies"),
        optional(rule("cors", "ORIGIN"))
            .action(ArgAction::Append)
            .help("Let pages of other origins read the responses: of all origins, or of this one, such as https://app.example; may be repeated"),
        optional(rule("isolate", "credentialless"))
            .action(ArgAction::Set)
            .help("Isolate pages from other sites, for shared memory (COOP, COEP, CORP)"),
        switch("nosniff", "Forbid browsers to guess the types of files (X-Content-Type-Options)"),
        rule("route-prefix", "PATH")
            .action(ArgAction::Set)
            .conflicts_with("cgi")
            .help("Serve the directory beneath this path, such as /docs; other paths are 404"),
        rule("redirect", "/OLD=/NEW")
            .help("Redirect a path with 308 to another one or to a URL; with /* at the end of both, everything below it; may be repeated"),
        rule("index", "NAME")
            .help("Index page of directories; may be repeated, in order of preference [default: index.html, index.htm]"),
        switch("clean-urls", "Serve about.html at /about, and redirect /about.html there"),
        optional(rule("spa", "FILE"))
            .action(ArgAction::Set)
            .help("Serve this file to navigations to paths that do not exist, for applications that route on the client [default file: index.html]"),
        switch("no-listing", "Do not list directories; those without an index page are 404"),
        rule("error-page", "STATUS=FILE")
            .help("Send this file as the page of the error 404, 500 or 503; may be repeated"),
    ]
}

/// A flag that is a rule with a value, checked by the core.
fn rule(name: &'static str, value: &'static str) -> Arg {
    let check = move |text: &str| Rules::new().with_text(name, text).map(|_| text.to_owned());
    Arg::new(name).long(name).value_name(value).action(ArgAction::Append).value_parser(check)
}

/// The same, with a value that may be omitted, and else follows an equals sign.
fn optional(flag: Arg) -> Arg {
    flag.num_args(0..=1).require_equals(true).default_missing_value("")
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// `--header` for a command that has a flag of that name already.
pub(crate) fn response_header() -> Arg {
    let [header, ..] = rule_flags();
    header.id(RESPONSE_HEADER).long(RESPONSE_HEADER).short(None).help("The flag --header of the server")
}

/// A flag whose value is a file for TLS.
fn tls_file(name: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("PATH").action(ArgAction::Append).value_parser(value_parser!(PathBuf))
}

/// A flag whose value is a time, in milliseconds.
fn time(name: &'static str, default: Duration, help: &str) -> Arg {
    let default = show_time(u64::try_from(default.as_millis()).expect("a default is short"));
    Arg::new(name).long(name).value_name("TIME").value_parser(units::time).help(defaulting(help, default))
}

/// A help text that ends with the default as clap formats it, for a flag whose default clap does not know.
fn defaulting(help: &str, default: String) -> String {
    format!("{help} [default: {default}]")
}

/// The path of the health check, as it appears in request targets.
fn health(text: &str) -> Result<String, String> {
    let is_path =
        text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'));
    if is_path {
        Ok(text.to_owned())
    } else {
        Err("not a path: it begins with / and has no spaces, ? or #, such as /health".into())
    }
}

/// A value of `--bind`.
fn bind(text: OsString) -> Result<Bind, String> {
    if let Some(path) = text.as_bytes().strip_prefix(b"unix:") {
        return match path {
            b"" => Err("no path after unix:, such as unix:/run/http.sock".into()),
            path => Ok(Bind::Unix(OsStr::from_bytes(path).into())),
        };
    }
    match text.into_string() {
        Ok(host) if host.contains('/') => Err(format!("neither an address nor a name; for a Unix socket: unix:{host}")),
        Ok(host) => Ok(Bind::Host(host)),
        Err(_) => Err("neither an address nor a name".into()),
    }
}

/// The permissions of a file, in octal digits.
fn socket_mode(text: &str) -> Result<u32, &'static str> {
    let is_octal = (1..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = u32::from_str_radix(text, 8).ok().filter(|&mode| is_octal && mode <= 0o777);
    mode.ok_or("not permissions in octal digits, 0 to 0777, such as 0660")
}

/// A port. The error for anything else suggests what was probably meant.
fn port(text: &str) -> Result<u16, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().map_err(|_| match is_number {
        true => "not a port: the highest is 65535".to_owned(),
        false => meant(text).unwrap_or_else(|| "neither a port, 0 to 65535, nor a command".to_owned()),
    })
}

/// What was probably meant by a word that is neither a port nor a command.
fn meant(word: &str) -> Option<String> {
    let is_directory = word.contains('/') || matches!(word, "." | ".." | "~") || Path::new(word).is_dir();
    if is_directory {
        return Some(format!("to serve a directory: -d {word}"));
    }
    if is_command(word) {
        return Some("a command must come before all flags".to_owned());
    }
    let lower = word.to_lowercase();
    // One letter in three may be wrong. Two adjacent letters that are swapped count as one.
    let is_near = |name: &String| {
        (!lower.is_empty() && name.starts_with(&lower)) || strsim::osa_distance(name, &lower) <= (name.len() / 3).max(1)
    };
    let names = SIDES.iter().map(|side| (side.command)().get_name().to_owned()).chain(["help".to_owned()]);
    let nearest = names.filter(is_near).min_by_key(|name| strsim::osa_distance(name, &lower));
    nearest.map(|name| format!("did you mean the command `{name}`?"))
}

/// The existing name that is most similar to the one given.
pub(crate) fn similar(error: &clap::Error) -> Option<String> {
    let name = |kind| match error.get(kind)? {
        ContextValue::String(name) => Some(format!("`{name}`")),
        // clap puts the best match last.
        ContextValue::Strings(names) => names.last().map(|name| format!("`{name}`")),
        _ => None,
    };
    name(ContextKind::SuggestedArg).or_else(|| name(ContextKind::SuggestedSubcommand))
}

/// The most helpful error: clap may complain about one word although an earlier one is wrong, as in
/// `sanserve repaly --emit-test x` and `sanserve ./ 8000`.
fn advised(error: clap::Error, arguments: &[OsString]) -> clap::Error {
    let named = |kind| match error.get(kind) {
        Some(ContextValue::String(name)) => Some(name.clone()),
        _ => None,
    };
    let culprit = match error.kind() {
        ErrorKind::UnknownArgument => named(ContextKind::InvalidArg),
        ErrorKind::ArgumentConflict | ErrorKind::InvalidSubcommand => named(ContextKind::InvalidSubcommand),
        _ => None,
    };
    let Some(culprit) = culprit else { return error };
    let first = arguments.get(1).map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    let words = match is_command(&first) {
        true => vec![culprit.clone()],
        // All positional words. If a flag is unknown they cannot be told from values, so only the first word.
        false => command()
            .mut_arg("port", |port| port.num_args(0..).value_parser(ValueParser::string()))
            .try_get_matches_from(arguments)
            .map_or(vec![first.clone()], |matches| matches.get_many("port").into_iter().flatten().cloned().collect()),
    };
    let is_wrong = |word: &&String| !word.starts_with('-') && port(word).is_err();
    let what = words.iter().filter(is_wrong).find_map(|word| Some((word, meant(word)?)));
    let message = match what {
        Some((word, what)) if error.kind() == ErrorKind::InvalidSubcommand || !is_command(&first) => {
            format!("invalid value '{word}': {what}\n")
        }
        // clap takes the word for a subcommand that conflicts with a port.
        _ if error.kind() == ErrorKind::ArgumentConflict => format!("unexpected argument '{culprit}' found\n"),
        _ => return error,
    };
    command().error(ErrorKind::ValueValidation, message)
}

fn is_command(word: &str) -> bool {
    word == "help" || SIDES.iter().any(|side| (side.command)().get_name() == word)
}

/// An extension and its media type.
fn mime(text: &str) -> Result<(String, String), String> {
    let (extension, kind) = text.split_once('=').ok_or("not of the form .EXT=TYPE, such as .txt=text/plain")?;
    MediaTypes::default().with(extension, kind).map_err(|error| error.to_string())?;
    Ok((extension.into(), kind.into()))
}

/// The media types that the flags define. Each value was checked when its flag was parsed.
fn media_types(matches: &ArgMatches) -> MediaTypes {
    const CHECKED: &str = "the flag was checked";
    let mut types = MediaTypes::default();
    for (extension, kind) in matches.try_get_many::<(String, String)>("mime").ok().flatten().into_iter().flatten() {
        types = types.with(extension, kind).expect(CHECKED);
    }
    let one = |name| matches.try_get_one::<String>(name).ok().flatten();
    if let Some(kind) = one("content-type") {
        types = types.with_unknown(kind).expect(CHECKED);
    }
    if let Some(charset) = one("charset") {
        let charset = Some(charset.as_str()).filter(|charset| !charset.eq_ignore_ascii_case("off"));
        types = types.with_charset(charset).expect(CHECKED);
    }
    types
}

/// The rules that the flags define. Each is valid, but they may contradict each other.
pub(crate) fn rules(matches: &ArgMatches) -> Result<Rules, String> {
    let mut rules = Rules::new();
    let flags = RULES.map(|name| (name, name)).into_iter().chain([(RESPONSE_HEADER, "header")]);
    for (flag, name) in flags {
        let is_set = matches.try_get_one::<bool>(flag).ok().flatten() == Some(&true);
        let values = matches.try_get_many::<String>(flag).ok().flatten().into_iter().flatten().map(String::as_str);
        for value in values.chain(Some("").filter(|_| is_set)) {
            rules = rules
                .with_text(name, value)
                .map_err(|error| format!("invalid value '{value}' for '--{flag}': {error}"))?;
        }
    }
    Ok(rules)
}

/// A path as in a request target: with a leading slash and without a trailing one.
fn cgi_directory(text: &str) -> Result<String, &'static str> {
    let path = format!("/{}", text.trim_matches('/'));
    let is_plain = path == "/" || path[1..].split('/').all(|part| !matches!(part, "" | "." | ".."));
    if is_plain { Ok(path) } else { Err("empty, . and .. components are not allowed; a path is such as /cgi-bin") }
}

/// The environment variables that `--cgi-env` adds for scripts.
fn cgi_environment(matches: &ArgMatches) -> Result<Vec<(OsString, OsString)>, clap::Error> {
    let mut environment = Vec::new();
    for text in matches.get_many::<OsString>("cgi-env").into_iter().flatten() {
        let bytes = text.as_bytes();
        let equals = bytes.iter().position(|&byte| byte == b'=');
        let name = OsStr::from_bytes(&bytes[..equals.unwrap_or(bytes.len())]).to_owned();
        if name.is_empty() {
            let message = format!("invalid value '{}' for '--cgi-env': no name before =\n", text.to_string_lossy());
            return Err(command().error(ErrorKind::ValueValidation, message));
        }
        match equals {
            Some(equals) => environment.push((name, OsStr::from_bytes(&bytes[equals + 1..]).to_owned())),
            // A variable that is not set here is not set for scripts either.
            None => environment.extend(std::env::var_os(&name).map(|value| (name, value))),
        }
    }
    Ok(environment)
}

impl From<&ArgMatches> for Flags {
    fn from(matches: &ArgMatches) -> Flags {
        let mut scripts = ScriptRules::default();
        scripts.spool_total = matches.get_one::<u64>("cgi-spool-total").copied().unwrap_or(scripts.spool_total);
        scripts.most = matches.get_one::<u32>("cgi-max").map_or(scripts.most, |&n| n as usize);
        Flags {
            port: *matches.get_one("port").expect("has a default"),
            bind: matches.get_many("bind").into_iter().flatten().cloned().collect(),
            socket_mode: matches.get_one("socket-mode").copied(),
            directory: matches.get_one::<PathBuf>("directory").expect("has a default").clone(),
            runtime: *matches.get_one("runtime").expect("has a default"),
            workers: matches.get_one::<u16>("workers").copied().map(usize::from),
            io_threads: matches.get_one::<u16>("io-threads").copied().map(usize::from),
            quiet: matches.get_flag("quiet"),
            symlinks: *matches.get_one("symlinks").expect("has a default"),
            connections: matches.get_one::<u32>("connections").map(|&n| n as usize),
            memory: matches.get_one("max-memory").copied(),
            grace: Duration::from_millis(matches.get_one("grace").copied().unwrap_or(30_000)),
            drain_delay: Duration::from_millis(matches.get_one("drain-delay").copied().unwrap_or(0)),
            log_file: matches.get_one("log-file").cloned(),
            record: matches.get_one::<PathBuf>("record").map(|directory| Record {
                directory: directory.clone(),
                most: matches.get_one::<u32>("record-max").map(|&n| n as usize),
                size: matches.get_one("record-size").copied(),
                rate: matches.get_one("record-rate").copied(),
            }),
            trace: matches.get_flag("trace"),
            secrets: if matches.get_flag("secrets") { Secrets::Kept } else { Secrets::Masked },
            scripts,
            config: config(matches),
            // It is checked by `tls`.
            tls: None,
            invite: Invite {
                lan: matches.get_flag("lan") || matches.get_flag("qr"),
                qr: matches.get_flag("qr"),
                open: matches.get_flag("open"),
            },
        }
    }
}

/// What the flags say of HTTPS.
fn tls(matches: &ArgMatches) -> Result<Option<Tls>, clap::Error> {
    let missing = |message: String| command().error(ErrorKind::MissingRequiredArgument, message);
    let source = match matches.get_one::<Kept>("https") {
        Some(kept) => Source::Local(*kept),
        None if matches.contains_id("tls-cert") => Source::Files(pairs(matches).map_err(missing)?),
        None => {
            // The first one is Python's message.
            for (flag, needs) in [
                ("tls-key", "--tls-cert"),
                ("tls-password-file", "--tls-cert"),
                ("http-redirect", "--https or --tls-cert"),
                ("hsts", "--https or --tls-cert"),
            ] {
                if matches.contains_id(flag) {
                    return Err(missing(format!("--{flag} requires {needs} to be set\n")));
                }
            }
            return Ok(None);
        }
    };
    for flag in ["tls-key", "tls-password-file"] {
        if matches!(source, Source::Local(_)) && matches.contains_id(flag) {
            return Err(missing(format!("--{flag} requires --tls-cert to be set\n")));
        }
    }
    Ok(Some(Tls {
        source,
        redirect: matches.get_one("http-redirect").copied(),
        hsts: matches.get_one::<u64>("hsts").map(|millis| millis / 1_000),
    }))
}

/// The certificates of `--tls-cert`, each with the key and the password that follow it. If there is only one, the order
/// does not matter, and the last key and the last password count, as in Python. The error is a message.
fn pairs(matches: &ArgMatches) -> Result<Vec<Pair>, String> {
    let given = |name: &str| {
        let places = matches.indices_of(name).into_iter().flatten();
        places.zip(matches.get_many::<PathBuf>(name).into_iter().flatten().cloned()).collect::<Vec<_>>()
    };
    let certificates = given("tls-cert");
    let mut pairs: Vec<Pair> =
        certificates.iter().map(|(_, path)| Pair { certificate: path.clone(), key: None, password: None }).collect();
    for flag in ["tls-key", "tls-password-file"] {
        for (place, path) in given(flag) {
            let before = certificates.iter().filter(|(certificate, _)| *certificate < place).count();
            let shown = path.display();
            let pair = match (before.checked_sub(1), &mut pairs[..]) {
                (_, [only]) => only,
                (Some(at), all) => &mut all[at],
                (None, _) => return Err(format!("--{flag} {shown} has to follow its --tls-cert\n")),
            };
            let part = if flag == "tls-key" { &mut pair.key } else { &mut pair.password };
            if part.replace(path.clone()).is_some() && certificates.len() > 1 {
                let certificate = pair.certificate.display();
                return Err(format!("--{flag} {shown} is the second one of --tls-cert {certificate}\n"));
            }
        }
    }
    Ok(pairs)
}

/// The configuration of a server, from the flags that the command has.
pub(crate) fn config(matches: &ArgMatches) -> Config {
    let one = |name| matches.try_get_one::<u64>(name).ok().flatten().copied();
    let has = |name| matches.try_get_one::<bool>(name).ok().flatten().copied().unwrap_or_default();
    let default = Timeouts::default();
    let time = |name, default| one(name).map_or(default, Duration::from_millis);
    let pace = |name, default: Pace| {
        one(name).map(Duration::from_millis).map_or(default, |time| Pace::new(time, time, default.rate()))
    };
    let timeouts = Timeouts::default()
        .with_handshake(time("handshake-timeout", default.handshake()))
        .with_head(time("head-timeout", default.head()))
        .with_keep_alive(time("keep-alive", default.keep_alive()))
        .with_body(pace("body-timeout", default.body()))
        .with_write(pace("write-timeout", default.write()))
        .with_script(time("cgi-timeout", default.script()))
        .with_script_silence(time("cgi-half-close", default.script_silence()));
    let mut limits = Limits::default();
    limits.body = one("max-body").unwrap_or(limits.body);
    limits.script_body =
        one("cgi-read-first").map_or(limits.script_body, |size| usize::try_from(size).unwrap_or(usize::MAX));
    let mut cgi = if has("cgi") { Cgi::python() } else { Cgi::default() };
    if let Ok(Some(directories)) = matches.try_get_many::<String>("cgi-dir") {
        cgi.directories = directories.cloned().collect();
    }
    if matches.try_get_one::<String>("cgi-chunked").is_ok_and(|policy| policy.is_some_and(|policy| policy == "refuse"))
    {
        cgi.chunked = Chunked::Refuse;
    }
    cgi.pass_authorization = has("cgi-pass-authorization");
    let protocol = *matches.get_one("protocol").expect("has a default");
    let types = media_types(matches);
    let etag = matches.try_get_one::<Etag>("etag").ok().flatten().copied().unwrap_or_default();
    let config = Config::default()
        .with_protocol(protocol)
        .with_cgi(cgi)
        .with_hide_dotfiles(has("hide-dotfiles"))
        .with_etag(etag)
        .with_types(types)
        .with_limits(limits)
        .with_timeouts(timeouts);
    match matches.try_get_one::<String>("health") {
        Ok(Some(path)) => config.with_health(path.as_str()),
        _ => config,
    }
}

#[cfg(test)]
mod tests {
    use sanserve_core::{Cache, Isolation, StatusCode};

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Flags, clap::Error> {
        let matches = command().try_get_matches_from(["sanserve"].iter().chain(arguments));
        understand(&matches?)
    }

    #[test]
    fn the_command_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn pythons_flags_work_as_in_python() {
        let flags = parse(&["8001", "-b", "::1", "--directory=/tmp", "-p", "HTTP/1.0"]).unwrap();
        assert_eq!((flags.port, flags.bind), (8001, vec![host("::1")]));
        assert_eq!(flags.directory, PathBuf::from("/tmp"));
        assert_eq!(flags.config.protocol, Protocol::Http10);
        let flags = parse(&[]).unwrap();
        assert_eq!((flags.port, flags.bind, flags.runtime), (8000, vec![], Runtime::Mio));
        assert_eq!(flags.config, Config::default());
    }

    #[test]
    fn the_last_occurrence_counts() {
        let flags = parse(&["-d", "/a", "-pHTTP/1.1", "-q", "-d/b", "-p", "HTTP/1.0", "-q"]);
        let flags = flags.unwrap();
        assert_eq!(flags.directory, PathBuf::from("/b"));
        assert_eq!((flags.config.protocol, flags.quiet), (Protocol::Http10, true));
        let flags =
            parse(&["--grace", "1", "--runtime=std", "--workers=2", "--runtime=smol", "--workers=3", "--grace=2"]);
        let flags = flags.unwrap();
        assert_eq!((flags.runtime, flags.workers, flags.grace), (Runtime::Smol, Some(3), Duration::from_secs(2)));
    }

    #[test]
    fn names_may_be_abbreviated() {
        let flags = parse(&["--dir", "/tmp", "--bi=::1", "--proto=HTTP/1.0", "--max-c", "7", "--hide"]).unwrap();
        assert_eq!((flags.directory, flags.bind), (PathBuf::from("/tmp"), vec![host("::1")]));
        assert_eq!((flags.connections, flags.config.protocol), (Some(7), Protocol::Http10));
        assert!(flags.config.hide_dotfiles);
    }

    fn host(text: &str) -> Bind {
        Bind::Host(text.into())
    }

    #[test]
    fn several_addresses() {
        let flags =
            parse(&["-b::1", "--bind=unix:/a b", "-b", "localhost", "-b=unix:c", "--socket-mode=0660"]).unwrap();
        let unix = |path: &str| Bind::Unix(path.into());
        assert_eq!(flags.bind, [host("::1"), unix("/a b"), host("localhost"), unix("c")]);
        assert_eq!(flags.socket_mode, Some(0o660));
        for (mode, bits) in [("0", 0), ("0777", 0o777), ("777", 0o777), ("0007", 7)] {
            assert_eq!(parse(&["-bunix:a", "--socket-mode", mode]).unwrap().socket_mode, Some(bits));
        }
        for mode in ["1000", "00660", "0668", "", "+660", "u+rw", "0o660"] {
            assert!(parse(&["-bunix:a", "--socket-mode", mode]).is_err_and(|error| error.use_stderr()), "{mode}");
        }
        assert!(parse(&["-b", "unix:"]).is_err_and(|error| error.to_string().contains("no path after unix:")));
        assert!(parse(&["-b", "/run/s"]).is_err_and(|error| error.to_string().contains("unix:/run/s")));
        assert!(parse(&["-b", "::1", "--socket-mode=0660"]).is_err_and(|error| error.use_stderr()));
    }

    #[test]
    fn a_qr_code_comes_with_the_urls() {
        let invite = |arguments: &[&str]| parse(arguments).unwrap().invite;
        assert_eq!(invite(&[]), Invite::default());
        assert_eq!(invite(&["--lan"]), Invite { lan: true, ..Invite::default() });
        assert_eq!(invite(&["--qr", "--open"]), Invite { lan: true, qr: true, open: true });
    }

    #[test]
    fn certificates_and_their_keys() {
        let files = |arguments: &[&str]| match parse(arguments).unwrap().tls.unwrap().source {
            Source::Files(pairs) => pairs,
            Source::Local(_) => panic!("made here"),
        };
        let pair = |certificate: &str, key: Option<&str>, password: Option<&str>| Pair {
            certificate: certificate.into(),
            key: key.map(PathBuf::from),
            password: password.map(PathBuf::from),
        };
        assert_eq!(parse(&[]).unwrap().tls, None);
        assert_eq!(files(&["--tls-cert", "a"]), [pair("a", None, None)]);
        let all = || pair("a", Some("k"), Some("p"));
        assert_eq!(files(&["--tls-cert=a", "--tls-key=k", "--tls-password-file=p"]), [all()]);
        assert_eq!(files(&["--tls-password-file=p", "--tls-key=x", "--tls-key=k", "--tls-cert=a"]), [all()]);
        let several =
            ["--tls-cert=a", "--tls-key=k", "--tls-password-file=p", "--tls-cert=b", "--tls-cert=c", "--tls-key=l"];
        assert_eq!(files(&several), [all(), pair("b", None, None), pair("c", Some("l"), None)]);
        for (wrong, says) in [
            (&["--tls-key=k"][..], "--tls-key requires --tls-cert to be set"),
            (&["--tls-password-file=p"], "--tls-password-file requires --tls-cert to be set"),
            (&["--https", "--tls-key=k"], "--tls-key requires --tls-cert to be set"),
            (&["--http-redirect=80"], "--http-redirect requires --https or --tls-cert to be set"),
            (&["--hsts=1"], "--hsts requires --https or --tls-cert to be set"),
            (&["--tls-key=k", "--tls-cert=a", "--tls-cert=b"], "--tls-key k has to follow its --tls-cert"),
            (&["--tls-cert=b", "--tls-cert=a", "--tls-key=k", "--tls-key=l"], "--tls-key l is the second one of"),
            (&["--https", "--tls-cert=a"], "cannot be used with"),
            (&["--https=twice"], "invalid value 'twice'"),
            (&["--tls-cert=a", "--http-redirect=65536"], "the highest is 65535"),
        ] {
            let error = parse(wrong).expect_err("a usage error");
            assert!(error.use_stderr() && error.to_string().contains(says), "{wrong:?}: {error}");
        }
    }

    #[test]
    fn local_certificates() {
        let tls = |arguments: &[&str]| parse(arguments).unwrap().tls.unwrap();
        let local = |kept| Tls { source: Source::Local(kept), redirect: None, hsts: None };
        assert_eq!(tls(&["--https"]), local(Kept::Kept));
        // The word after it is the port.
        assert_eq!(parse(&["--https", "8443"]).unwrap().port, 8443);
        assert_eq!(tls(&["--https=once"]), local(Kept::Once));
        let flags = tls(&["--https", "--http-redirect", "80", "--hsts", "1d"]);
        assert_eq!(flags, Tls { redirect: Some(80), hsts: Some(86_400), ..local(Kept::Kept) });
        assert_eq!(tls(&["--https", "--hsts=0"]).hsts, Some(0));
    }

    #[test]
    fn invalid_values_are_refused() {
        for arguments in [
            &["65536"][..],
            &["x"],
            &["-p", "HTTP/2"],
            &["--runtime", "tokio"],
            &["--workers", "0"],
            &["--grace", "-1"],
            &["--keep-alive", "nan"],
            &["1", "2"],
            &["--no-such-flag"],
            &["--head-timeout", "0"],
            &["--w=1"],
            &["-p", "HTTP/2", "-p", "HTTP/1.1"],
        ] {
            assert!(parse(arguments).is_err_and(|error| error.use_stderr()), "{arguments:?}");
        }
    }

    #[test]
    fn scripts() {
        let flags = parse(&["--cgi"]).unwrap();
        assert_eq!(flags.config.cgi, Cgi::python());
        assert_eq!(flags.scripts, ScriptRules::default());
        let flags = parse(&[
            "--cgi",
            "--cgi-dir=scripts/",
            "--cgi-dir",
            "/a/b",
            "--cgi-env",
            "A=b=c",
            "--cgi-env=NO_SUCH_VARIABLE",
            "--cgi-env=EMPTY=",
            "--cgi-max=7",
            "--cgi-read-first=1K",
            "--cgi-spool-total=2K",
            "--cgi-timeout=1.5",
            "--cgi-half-close=10",
            "--cgi-chunked=refuse",
            "--cgi-pass-authorization",
            "--max-body=9",
        ]);
        let flags = flags.unwrap();
        assert_eq!(
            flags.config.cgi,
            Cgi::default()
                .with_directories(["/scripts", "/a/b"])
                .with_chunked(Chunked::Refuse)
                .with_pass_authorization(true)
        );
        let added: Vec<_> = flags.scripts.environment[ScriptRules::default().environment.len()..].to_vec();
        assert_eq!(added, [("A".into(), "b=c".into()), ("EMPTY".into(), "".into())]);
        assert_eq!(flags.config.timeouts.script_silence(), Duration::from_secs(10));
        assert_eq!((flags.config.limits.script_body, flags.scripts.spool_total), (1024, 2048));
        assert_eq!((flags.scripts.most, flags.config.limits.body), (7, 9));
        assert_eq!(flags.config.timeouts.script(), Duration::from_millis(1_500));
        for wrong in [
            &["--cgi-max=7"][..],
            &["--cgi-read-first=7"],
            &["--cgi-spool-total=7"],
            &["--cgi", "--cgi-max=0"],
            &["--cgi", "--cgi-env==x"],
            &["--cgi", "--cgi-env="],
            &["--cgi", "--cgi-dir=/a/../b"],
            &["--cgi", "--cgi-chunked=x"],
            &["--cgi-dir=/a"],
            &["--cgi-pass-authorization"],
        ] {
            assert!(parse(wrong).is_err_and(|error| error.use_stderr()), "{wrong:?}");
        }
    }

    #[test]
    fn media_types_are_checked() {
        let flags =
            parse(&["--mime", ".a=x/y; z=1", "--mime=.b=x/z", "--content-type=text/x", "--charset=OFF"]).unwrap();
        let types = MediaTypes::default().with(".a", "x/y; z=1").unwrap().with(".b", "x/z").unwrap();
        assert_eq!(flags.config.types, types.with_unknown("text/x").unwrap().with_charset(None).unwrap());
        for wrong in [
            "--mime=.a",
            "--mime=a=x/y",
            "--mime=.=x/y",
            "--mime=.a=",
            "--mime=.a=x",
            "--mime=.a=x/y\r\nX: y",
            "--mime=.a/b=x/y",
            "--content-type=",
            "--content-type=text",
            "--content-type=text/plain\n",
            "--charset=",
            "--charset=utf 8",
            "--charset=utf-8\r\nX: y",
        ] {
            assert!(parse(&[wrong]).is_err_and(|error| error.use_stderr()), "{wrong:?}");
        }
    }

    #[test]
    fn rules_of_the_site() {
        let flags = parse(&[
            "-H",
            "X-A: b",
            "8001",
            "--header=*.css=X-B: c",
            "--header-always",
            "X-C:d",
            "--cache",
            "60",
            "--cache=/assets/*=immutable",
            "--cors=https://a.example",
            "--cors=https://b.example",
            "--isolate",
            "--nosniff",
            "--route-prefix=/base",
            "--redirect",
            "/old=/new?a=b",
            "--index=main.html",
            "--clean-urls",
            "--spa",
            "--no-listing",
            "--error-page",
            "404=404.html",
        ])
        .unwrap();
        let rules = Rules::new()
            .with_header("X-A", "b")
            .and_then(|rules| rules.with_header_for("*.css", "X-B", "c"))
            .and_then(|rules| rules.with_header_always("X-C", "d"))
            .and_then(|rules| {
                rules.with_cache(Cache::For(Duration::from_secs(60))).with_cache_for("/assets/*", Cache::Immutable)
            })
            .and_then(|rules| rules.with_cors_origin("https://a.example"))
            .and_then(|rules| rules.with_cors_origin("https://b.example"))
            .and_then(|rules| rules.with_isolation(Isolation::RequireCorp).with_nosniff().with_route_prefix("/base"))
            .and_then(|rules| rules.with_redirect("/old", "/new?a=b"))
            .and_then(|rules| rules.with_index("main.html"))
            .and_then(|rules| rules.with_clean_urls().with_spa("index.html"))
            .and_then(|rules| rules.without_listing().with_error_page(StatusCode::NOT_FOUND, "404.html"))
            .unwrap();
        assert_eq!((flags.port, flags.config), (8001, Config::default().with_rules(rules)));
        // A value that may be omitted takes no word after it.
        let flags = parse(&["--cors", "8001", "--isolate=credentialless", "--spa=app/index.html"]).unwrap();
        let rules = Rules::new().with_cors().with_isolation(Isolation::Credentialless).with_spa("app/index.html");
        assert_eq!((flags.port, flags.config), (8001, Config::default().with_rules(rules.unwrap())));
    }

    #[test]
    fn wrong_rules_are_refused() {
        for wrong in [
            &["-H", "Content-Length: 3"][..],
            &["-H", "transfer-encoding: chunked"],
            &["--header", "*.css=Connection: close"],
            &["--header", "X-A: b\r\nX-B: c"],
            &["--header-always=X-A: b\n\nX-B: c"],
            &["--header", "X-A"],
            &["--cache", "1h"],
            &["--cache", "-1"],
            &["--cors=a.example"],
            &["--isolate=yes"],
            &["--spa=../x"],
            &["--index", "a/b"],
            &["--error-page", "404"],
            &["--error-page", "403=a.html"],
            &["--redirect", "/a=/a"],
            &["--redirect", "/a=/b", "--redirect", "/b=/a"],
            &["--route-prefix", "base"],
            &["--route-prefix", "/base", "--cgi"],
        ] {
            assert!(parse(wrong).is_err_and(|error| error.use_stderr()), "{wrong:?}");
        }
    }

    #[test]
    fn recordings_and_traces() {
        let flags = parse(&[]).unwrap();
        assert!(flags.record.is_none() && !flags.trace && flags.secrets == Secrets::Masked);
        let flags =
            parse(&["--record", "a/b", "--record-max=7", "--record-size=9", "--record-rate=8", "--trace", "--secrets"])
                .unwrap();
        let record = flags.record.unwrap();
        assert_eq!((record.directory, record.most), (PathBuf::from("a/b"), Some(7)));
        assert_eq!((record.size, record.rate), (Some(9), Some(8)));
        assert!(flags.trace && flags.secrets == Secrets::Kept);
        for wrong in [&["--record-max=7"][..], &["--record=x", "--record-max=0"], &["--record=x", "--record-size=0"]] {
            assert!(parse(wrong).is_err_and(|error| error.use_stderr()), "{wrong:?}");
        }
    }

    #[test]
    fn seconds_may_have_decimals() {
        let flags = parse(&["--handshake-timeout=3", "--head-timeout", "0.25", "--grace", "1", "--write-timeout=2"]);
        let flags = flags.unwrap();
        assert_eq!(flags.config.timeouts.handshake(), Duration::from_secs(3));
        assert_eq!(flags.config.timeouts.head(), Duration::from_millis(250));
        assert_eq!(flags.config.timeouts.write().silence(), Duration::from_secs(2));
        assert_eq!(flags.grace, Duration::from_secs(1));
        let flags = parse(&["--grace", "0", "--drain-delay", "0s"]).unwrap();
        assert_eq!((flags.grace, flags.drain_delay), (Duration::ZERO, Duration::ZERO));
    }
}
