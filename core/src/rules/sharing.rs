//! Fields that say which other sites may use the responses, and what their pages may do.

use super::{InvalidRule, Rules};
use crate::fields::Fields;
use crate::reason::{Reasons, Rule};

/// What scripts of other origins may read of a response besides what they always may: what requests for ranges need.
const EXPOSED: &str = "Accept-Ranges, Content-Encoding, Content-Length, Content-Range, ETag";

/// The origins whose pages may read the responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cors {
    All,
    /// These, as browsers write them.
    Some(Vec<String>),
}

impl Cors {
    /// The value of `Access-Control-Allow-Origin` for a request of this origin.
    fn allowed(&self, origin: Option<&[u8]>) -> Option<&str> {
        match self {
            Cors::All => Some("*"),
            Cors::Some(all) => all.iter().map(String::as_str).find(|known| origin == Some(known.as_bytes())),
        }
    }
}

/// How pages are isolated from other sites, for [`Rules::with_isolation`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isolation {
    /// What they load from other sites needs `Cross-Origin-Resource-Policy` or CORS.
    #[default]
    RequireCorp,
    /// What they load from other sites is requested without credentials, such as cookies.
    Credentialless,
}

impl Isolation {
    /// The value of `Cross-Origin-Embedder-Policy`.
    pub(super) fn embedder(self) -> &'static str {
        match self {
            Isolation::RequireCorp => "require-corp",
            Isolation::Credentialless => "credentialless",
        }
    }
}

impl Rules {
    /// Lets the pages of all origins read the responses: `Access-Control-Allow-Origin: *`, with the fields that
    /// requests for ranges need, and responses to preflight requests. A field that a handler or script has set itself
    /// is kept. Credentials are never allowed. Replaces [`with_cors_origin`](Self::with_cors_origin).
    #[must_use]
    pub fn with_cors(self) -> Rules {
        Rules { cors: Some(Cors::All), ..self }
    }

    /// As [`with_cors`](Self::with_cors), for one more origin, such as `https://app.example`. Others cannot read the
    /// responses, all of which have `Vary: Origin`. Replaces [`with_cors`](Self::with_cors).
    ///
    /// # Errors
    /// If it is not an origin: a scheme and a host, optionally a port, and no path.
    pub fn with_cors_origin(mut self, origin: &str) -> Result<Rules, InvalidRule> {
        let host = origin.split_once("://").filter(|(scheme, _)| !scheme.is_empty()).map_or("", |(_, host)| host);
        if host.is_empty()
            || !origin.bytes().all(|byte| byte.is_ascii_graphic())
            || host.contains(['/', '?', '#', '@', '*', ','])
        {
            return Err(InvalidRule(format!("not an origin, such as https://app.example: {origin:?}")));
        }
        let origin = origin.to_ascii_lowercase();
        match &mut self.cors {
            Some(Cors::Some(all)) => all.push(origin),
            cors => *cors = Some(Cors::Some(vec![origin])),
        }
        Ok(self)
    }

    /// Isolates pages from other sites, so that they can use shared memory and precise timers
    /// (`crossOriginIsolated`): `Cross-Origin-Opener-Policy`, `Cross-Origin-Embedder-Policy` and
    /// `Cross-Origin-Resource-Policy`. The last is `cross-origin` with [`with_cors`](Self::with_cors), else
    /// `same-origin`. A field that a handler or script has set itself is kept.
    #[must_use]
    pub fn with_isolation(self, isolation: Isolation) -> Rules {
        Rules { isolation: Some(isolation), ..self }
    }

    /// Sends `X-Content-Type-Options: nosniff` with every response, so that browsers take no file for another type than
    /// the one that is sent. They then refuse scripts and styles whose type is not that of one. The pages of this server
    /// (listings and errors) have it in any case.
    #[must_use]
    pub fn with_nosniff(self) -> Rules {
        Rules { nosniff: true, ..self }
    }

    /// Whether pages of other origins may read responses.
    pub(crate) fn has_cors(&self) -> bool {
        self.cors.is_some()
    }

    /// Whether the pages of this origin may read responses.
    pub(crate) fn allows_origin(&self, origin: &[u8]) -> bool {
        self.cors.as_ref().is_some_and(|cors| cors.allowed(Some(origin)).is_some())
    }

    /// Adds the fields to a response for a request of this origin, where it has none of them.
    pub(crate) fn add_sharing(&self, origin: Option<&[u8]>, out: &mut Fields<'_>, reasons: &mut Reasons) {
        let mut add = |rule: Rule, name: &str, value: &str| {
            if !out.has(name) {
                out.append(name, value.as_bytes()).expect("a valid field");
                reasons.note_with(rule, |out| out.extend(format!("{name}: {value}").bytes()));
            }
        };
        if self.nosniff {
            add(Rule::Nosniff, "X-Content-Type-Options", "nosniff");
        }
        if let Some(isolation) = self.isolation {
            let resources = if self.has_cors() { "cross-origin" } else { "same-origin" };
            add(Rule::Isolate, "Cross-Origin-Opener-Policy", "same-origin");
            add(Rule::Isolate, "Cross-Origin-Embedder-Policy", isolation.embedder());
            add(Rule::Isolate, "Cross-Origin-Resource-Policy", resources);
        }
        let Some(cors) = &self.cors else { return };
        if let Some(origin) = cors.allowed(origin) {
            add(Rule::Cors, "Access-Control-Allow-Origin", origin);
            add(Rule::Cors, "Access-Control-Expose-Headers", EXPOSED);
        }
        // RFC 9110 section 12.5.5: caches must not use the response to one origin for another.
        if let Cors::Some(_) = cors {
            out.append("Vary", b"Origin").expect("a valid field");
            reasons.note(Rule::Cors, b"Vary: Origin");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(rules: &Rules, origin: Option<&str>, own: &str) -> String {
        let mut out = own.as_bytes().to_vec();
        rules.add_sharing(origin.map(str::as_bytes), &mut Fields::new(&mut out, 0), &mut Reasons::default());
        String::from_utf8(out).unwrap().replace("\r\n", "|")
    }

    #[test]
    fn origins_are_allowed() {
        let exposed = format!("Access-Control-Expose-Headers: {EXPOSED}|");
        let all = format!("Access-Control-Allow-Origin: *|{exposed}");
        for origin in [None, Some("https://a.example"), Some("null")] {
            assert_eq!(fields(&Rules::new().with_cors(), origin, ""), all);
        }
        let some = Rules::new().with_cors_origin("https://A.example").unwrap();
        let some = some.with_cors_origin("http://localhost:3000").unwrap();
        for origin in ["https://a.example", "http://localhost:3000"] {
            let expected = format!("Access-Control-Allow-Origin: {origin}|{exposed}Vary: Origin|");
            assert_eq!(fields(&some, Some(origin), ""), expected);
        }
        for origin in [None, Some("http://a.example"), Some("https://a.example:444"), Some("null"), Some("")] {
            assert_eq!(fields(&some, origin, ""), "Vary: Origin|", "{origin:?}");
        }
        let own = "access-control-allow-origin: mine\r\nVary: x\r\n";
        let expected = format!("access-control-allow-origin: mine|Vary: x|{exposed}Vary: Origin|");
        assert_eq!(fields(&some, Some("https://a.example"), own), expected);
        for wrong in [
            "",
            "a.example",
            "https://",
            "https://a.example/",
            "https://*.example",
            "*",
            "null",
            "a b://c",
            "https://a\r\n",
        ] {
            assert!(Rules::new().with_cors_origin(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn pages_are_isolated() {
        let alone = Rules::new().with_isolation(Isolation::RequireCorp).with_nosniff();
        let expected = "X-Content-Type-Options: nosniff|Cross-Origin-Opener-Policy: same-origin|\
                        Cross-Origin-Embedder-Policy: require-corp|Cross-Origin-Resource-Policy: same-origin|";
        assert_eq!(fields(&alone, None, ""), expected);
        let shared = Rules::new().with_isolation(Isolation::Credentialless).with_cors();
        let fields = fields(&shared, None, "");
        assert!(
            fields.contains("Embedder-Policy: credentialless|Cross-Origin-Resource-Policy: cross-origin|"),
            "{fields}"
        );
    }
}
