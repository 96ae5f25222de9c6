//! Certificates that nobody has to make: a local certificate authority (CA) and a certificate for the names and the
//! addresses of this machine (`--https`), and trust in it (`sanserve cert`).
//!
//! [`make`] makes them, [`names`] says for which names, [`store`] keeps them, and [`trust`] installs the CA where
//! clients look for theirs.

mod make;
mod names;
mod store;
pub(crate) mod trust;

use std::path::PathBuf;

use sanserve_tls::identity::Identity;
use sanserve_tls::rustls::pki_types::UnixTime;

use make::Leaf;
pub(crate) use make::{Authority, fingerprint};
pub(crate) use names::Names;
pub(crate) use store::Store;

/// What `--https` serves with.
pub(crate) struct Local {
    pub(crate) identity: Identity,
    pub(crate) authority: Authority,
    /// Whether the CA was made just now.
    pub(crate) is_new: bool,
    /// The file that it is kept in.
    pub(crate) path: PathBuf,
}

/// The certificate for these names: the one that is kept, if it is for all of them and valid for long enough, or else a
/// new one. The CA is made if there is none. Runs at the same time wait for each other.
///
/// The error is a message of one line.
pub(crate) fn ensure(store: &Store, names: &Names, now: UnixTime) -> Result<Local, String> {
    let _lock = store.lock()?;
    let kept = store.authority()?;
    let is_new = kept.is_none();
    let authority = match kept {
        Some(authority) => authority,
        None => {
            let made = Authority::make(names, now)?;
            store.keep_authority(&made)?;
            made
        }
    };
    if let Err(error) = authority.check_time(now) {
        return Err(store.damaged(&error));
    }
    let kept = if is_new { None } else { store.leaf()? };
    let kept =
        kept.filter(|leaf| !authority.is_due(leaf.identity(), now) && authority.is_good(leaf.identity(), names, now));
    let leaf = match kept {
        Some(leaf) => leaf,
        None => {
            let made = authority.issue(names, now)?;
            store.keep_leaf(&made)?;
            made
        }
    };
    Ok(Local { identity: leaf.into_identity(), authority, is_new, path: store.authority_path() })
}

/// A certificate that nobody vouches for and nothing of which is kept (`--https=once`).
pub(crate) fn once(names: &Names, now: UnixTime) -> Result<Identity, String> {
    Ok(Leaf::self_signed(names, now)?.into_identity())
}

/// How to make devices trust the CA, one line each.
pub(crate) fn how_to_trust() -> &'static str {
    "\
To trust it:
  here     sanserve cert install
  others   sanserve cert export ca.crt, copy that file to the device (it has no secrets), and compare the fingerprint
  Linux    as root: cp ca.crt /usr/local/share/ca-certificates/ && update-ca-certificates
  macOS    open ca.crt, and set it to Always Trust in Keychain Access
  iOS      open ca.crt, install the profile in Settings, then General > About > Certificate Trust Settings
  Android  Settings > Security > More > Install from storage > CA certificate
  Firefox  Settings > Privacy & Security > View Certificates > Authorities > Import
"
}
