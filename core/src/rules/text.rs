//! Rules as text, in the form of the flags of the command. Transcripts have them too.

use std::time::Duration;

use super::field::Kind;
use super::sharing::Cors;
use super::{Cache, InvalidRule, Isolation, Rules};
use crate::status::StatusCode;

impl Rules {
    /// Adds a rule in the form of a flag of the command: its name without dashes, and its value, which is empty for a
    /// flag without one. A pattern comes first, followed by `=`.
    ///
    /// ```
    /// use sanserve_core::Rules;
    ///
    /// # fn main() -> Result<(), sanserve_core::InvalidRule> {
    /// let rules = Rules::new().with_text("header", "*.css=X-Name: value")?.with_text("cors", "")?;
    /// assert_eq!(rules, Rules::new().with_header_for("*.css", "X-Name", "value")?.with_cors());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If there is no such rule, or if the value is not valid.
    pub fn with_text(self, name: &str, value: &str) -> Result<Rules, InvalidRule> {
        match (name, value) {
            ("header", field) => self.with_field_text(Kind::Header, field),
            ("header-always", field) => self.with_field_text(Kind::HeaderAlways, field),
            ("cache", value) => {
                let (pattern, time) =
                    value.rsplit_once('=').map_or((None, value), |(pattern, time)| (Some(pattern), time));
                let cache = cache(time)?;
                match pattern {
                    Some(pattern) => self.with_cache_for(pattern, cache),
                    None => Ok(self.with_cache(cache)),
                }
            }
            ("cors", "" | "*") => Ok(self.with_cors()),
            ("cors", origin) => self.with_cors_origin(origin),
            ("isolate", "") => Ok(self.with_isolation(Isolation::RequireCorp)),
            ("isolate", "credentialless") => Ok(self.with_isolation(Isolation::Credentialless)),
            ("isolate", value) => Err(InvalidRule(format!("neither nothing nor credentialless: {value:?}"))),
            ("nosniff", "") => Ok(self.with_nosniff()),
            ("route-prefix", path) => self.with_route_prefix(path),
            ("redirect", value) => match value.split_once('=') {
                Some((from, to)) => self.with_redirect(from, to),
                None => Err(InvalidRule(format!("not of the form /OLD=/NEW: {value:?}"))),
            },
            ("index", name) => self.with_index(name),
            ("clean-urls", "") => Ok(self.with_clean_urls()),
            ("spa", "") => self.with_spa("index.html"),
            ("spa", file) => self.with_spa(file),
            ("no-listing", "") => Ok(self.without_listing()),
            ("error-page", value) => {
                let parts = value.split_once('=').and_then(|(status, file)| {
                    let status = status.parse().ok().and_then(StatusCode::new)?;
                    Some((status, file))
                });
                let (status, file) =
                    parts.ok_or_else(|| InvalidRule(format!("not of the form 404=FILE: {value:?}")))?;
                self.with_error_page(status, file)
            }
            _ => Err(InvalidRule(format!("not a rule: {name} {value:?}"))),
        }
    }

    fn with_field_text(self, kind: Kind, text: &str) -> Result<Rules, InvalidRule> {
        let colon = text.find(':').unwrap_or(text.len());
        // Neither a path nor a pattern has an equals sign, and no field has one in its name.
        let equals = if text.starts_with('/') { text.find('=') } else { text[..colon].find('=') };
        let (pattern, field) = equals.map_or((None, text), |at| (Some(&text[..at]), &text[at + 1..]));
        match field.split_once(':') {
            Some((name, value)) => self.with_field(kind, pattern, name, value),
            None => Err(InvalidRule(format!("not a field, such as 'X-Name: value': {field:?}"))),
        }
    }

    /// The rules as text, each with its name: [`with_text`](Self::with_text) makes the same of them.
    #[must_use]
    pub fn to_text(&self) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        for rule in &self.fields {
            let pattern = rule.pattern.as_ref().map_or_else(String::new, |pattern| format!("{}=", pattern.as_str()));
            let (name, value) = (&rule.name, &rule.value);
            all.push(match rule.kind {
                Kind::Cache => ("cache", format!("{pattern}{}", cache_text(value))),
                Kind::HeaderAlways => ("header-always", format!("{pattern}{name}: {value}")),
                Kind::Header => ("header", format!("{pattern}{name}: {value}")),
            });
        }
        match &self.cors {
            None => {}
            Some(Cors::All) => all.push(("cors", String::new())),
            Some(Cors::Some(origins)) => all.extend(origins.iter().map(|origin| ("cors", origin.clone()))),
        }
        match self.isolation {
            None => {}
            Some(Isolation::RequireCorp) => all.push(("isolate", String::new())),
            Some(Isolation::Credentialless) => all.push(("isolate", "credentialless".into())),
        }
        if self.has_prefix() {
            let mut prefix = vec![b'/'];
            crate::text::encode_path(&self.prefix, &mut prefix);
            all.push(("route-prefix", String::from_utf8(prefix).expect("encoded as ASCII")));
        }
        all.extend(self.redirects.iter().map(|redirect| ("redirect", redirect.to_string())));
        all.extend(self.index.iter().map(|name| ("index", name.clone().into_owned())));
        all.extend(self.spa.iter().map(|file| ("spa", file.clone())));
        all.extend(self.error_pages.iter().map(|(status, file)| ("error-page", format!("{}={file}", status.code()))));
        let flags = [("nosniff", self.nosniff), ("clean-urls", self.clean_urls), ("no-listing", self.no_listing)];
        all.extend(flags.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| (name, String::new())));
        all
    }
}

fn cache(text: &str) -> Result<Cache, InvalidRule> {
    match text {
        "never" => Ok(Cache::Never),
        "immutable" => Ok(Cache::Immutable),
        _ => {
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            // RFC 9111 section 1.2.2: more than 2^31 seconds may not be understood.
            let seconds = text.parse::<u64>().ok().filter(|&seconds| is_number && seconds <= 1 << 31);
            let seconds =
                seconds.ok_or_else(|| InvalidRule(format!("not a number of seconds, never or immutable: {text:?}")))?;
            Ok(Cache::For(Duration::from_secs(seconds)))
        }
    }
}

/// The text of a value of `Cache-Control`.
fn cache_text(value: &str) -> &str {
    match value {
        "no-store" => "never",
        value => value.strip_prefix("max-age=").unwrap_or("immutable"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(all: &[(&str, &str)]) -> Result<Rules, InvalidRule> {
        all.iter().try_fold(Rules::new(), |rules, (name, value)| rules.with_text(name, value))
    }

    #[test]
    fn rules_survive_as_text() {
        let rules = read(&[
            ("header", "X-A: b = c: d"),
            ("header", "/v2/*:x=Content-Type: a/b; c=d"),
            ("header", "X-Empty:"),
            ("header-always", "*.css=x-a:b"),
            ("cache", "3600"),
            ("cache", "*.css=never"),
            ("cache", "/assets/*=immutable"),
            ("cors", "https://a.example"),
            ("cors", "https://b.example"),
            ("isolate", "credentialless"),
            ("nosniff", ""),
            ("route-prefix", "/a%20b/c/"),
            ("redirect", "/old/*=/new/*?x=y#z"),
            ("redirect", "/a=https://x.example/?q"),
            ("index", "main.html"),
            ("index", "caf\u{e9} .htm"),
            ("clean-urls", ""),
            ("spa", ""),
            ("no-listing", ""),
            ("error-page", "404=errors/404.html"),
            ("error-page", "500=500.html"),
        ])
        .unwrap();
        let text = rules.to_text();
        assert_eq!(text.len(), 21);
        let text: Vec<(&str, &str)> = text.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(read(&text).unwrap(), rules);
        for all in [[("cors", ""), ("isolate", "")], [("cors", "*"), ("spa", "/app.html")]] {
            let rules = read(&all).unwrap();
            let text = rules.to_text();
            assert_eq!(
                text.iter().try_fold(Rules::new(), |rules, (name, value)| rules.with_text(name, value)),
                Ok(rules)
            );
        }
        assert_eq!(Rules::new().to_text(), []);
    }

    #[test]
    fn a_pattern_is_told_from_a_field() {
        let of = |text| read(&[("header", text)]);
        let with = |pattern, name, value| Rules::new().with_header_for(pattern, name, value);
        assert_eq!(of("*.css=X-A: b"), with("*.css", "X-A", "b"));
        assert_eq!(of("/a:b=X-A:c=d"), with("/a:b", "X-A", "c=d"));
        assert_eq!(of("X-A: b=c:d"), Rules::new().with_header("X-A", "b=c:d"));
        assert_eq!(of("X-A:"), Rules::new().with_header("X-A", ""));
    }

    #[test]
    fn wrong_text_is_refused() {
        for (name, value) in [
            ("header", ""),
            ("header", "X-A"),
            ("header", "*.css"),
            ("header", "/a X-A: b"),
            ("header", "=X-A: b"),
            ("header", "a/b=X-A: b"),
            ("header", "Content-Length: 3"),
            ("header", "*.css=Connection: close"),
            ("header", "X-A: b\r\nX-B: c"),
            ("header", "X-A: b\n"),
            ("header-always", "X A: b"),
            ("cache", ""),
            ("cache", "1h"),
            ("cache", "-1"),
            ("cache", "+1"),
            ("cache", "2147483649"),
            ("cache", "*.css="),
            ("cache", "=3"),
            ("cors", "a.example"),
            ("isolate", "yes"),
            ("nosniff", "yes"),
            ("route-prefix", ""),
            ("redirect", "/a"),
            ("redirect", "/a="),
            ("redirect", "/a=/a"),
            ("index", ""),
            ("spa", "../x"),
            ("no-listing", "yes"),
            ("error-page", "404"),
            ("error-page", "404="),
            ("error-page", "x=y"),
            ("error-page", "400=a.html"),
            ("error-page", "99999999=a.html"),
            ("other", ""),
        ] {
            let error = read(&[(name, value)]).expect_err(value).to_string();
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }
}
