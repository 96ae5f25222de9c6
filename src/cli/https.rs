//! What the flags of HTTPS come to: the certificates, what is printed about them, and how they are kept up to date.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use sanserve_server::Log;
use sanserve_tls::identity::Identities;
use sanserve_tls::rustls::pki_types::UnixTime;

use super::flags::{Kept, Source, Tls};
use super::local_ca::{self, Names, Store, fingerprint, how_to_trust};
use super::tls::{self, Reason, Reloader};

/// How often the names and addresses of this machine are looked at.
const CHECK: Duration = Duration::from_secs(60);
/// How often the age of the certificate is looked at.
const EXPIRY_CHECK: Duration = Duration::from_secs(12 * 3_600);

/// The certificates of a server.
pub(crate) struct Https {
    pub(crate) identities: Identities,
    /// What is printed about them, in whole lines.
    pub(crate) about: String,
    source: Source,
    bound: Vec<IpAddr>,
}

impl Https {
    /// Loads or makes the certificates. `bound` are the addresses that the server is asked to listen on.
    ///
    /// The error is a message of one line.
    pub(crate) fn prepare(flags: &Tls, bound: &[IpAddr]) -> Result<Https, String> {
        let now = UnixTime::now();
        let (identities, about) = match &flags.source {
            Source::Files(pairs) => (tls::load(pairs)?, String::new()),
            Source::Local(Kept::Once) => {
                let identity = local_ca::once(&Names::current(bound), now)?;
                let about = format!("Certificate for this run alone: SHA-256 {}\n", fingerprint(&identity));
                (vec![identity], about)
            }
            Source::Local(Kept::Kept) => {
                let local = local_ca::ensure(&Store::of_user()?, &Names::current(bound), now)?;
                let described = local.authority.describe(&local.path);
                let about = match local.is_new {
                    true => format!("Made a local CA: {described}{}", how_to_trust()),
                    false => format!("Certificate of {described}"),
                };
                (vec![local.identity], about)
            }
        };
        let (source, bound) = (flags.source.clone(), bound.to_vec());
        Ok(Https { identities: Identities::new(identities), about, source, bound })
    }

    /// Starts the thread that reloads or renews the certificates: when it is asked to and, if they are made here, when
    /// the addresses of the machine have changed or the certificate expires soon.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn keep_fresh(self, log: Log) -> io::Result<Reloader> {
        let Https { identities, source, bound, .. } = self;
        match source {
            Source::Files(pairs) => Reloader::start(None, move |_| tls::reload(&pairs, &identities, &log)),
            // Nothing is kept, and a new one would be distrusted again.
            Source::Local(Kept::Once) => Reloader::start(None, |_| {}),
            Source::Local(Kept::Kept) => {
                let mut last = (Names::current(&bound), UnixTime::now(), Ok(()));
                Reloader::start(Some(CHECK), move |reason| {
                    let (names, now) = (Names::current(&bound), UnixTime::now());
                    let is_recent = now.as_secs().abs_diff(last.1.as_secs()) < EXPIRY_CHECK.as_secs();
                    if reason == Reason::Interval && names == last.0 && is_recent {
                        return;
                    }
                    let outcome = renew(&identities, &names, now);
                    match &outcome {
                        Err(error) if reason == Reason::Asked || outcome != last.2 => {
                            log.error(format_args!("{error}; the certificate in use is kept"));
                        }
                        _ => {}
                    }
                    last = (names, now, outcome);
                })
            }
        }
    }
}

/// Uses the certificate that is kept, which is made anew if it has to be.
fn renew(identities: &Identities, names: &Names, now: UnixTime) -> Result<(), String> {
    let local = local_ca::ensure(&Store::of_user()?, names, now)?;
    let is_same = identities.current().first().is_some_and(|current| current.chain() == local.identity.chain());
    if !is_same {
        identities.replace([local.identity]);
    }
    Ok(())
}
