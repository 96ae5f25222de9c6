//! A small JSON writer that appends to a string, with what a page needs.
//!
//! The output is safe inside a `<script>` element of any type: everything that could end the element or a line of
//! code is escaped, so that no value is taken for markup or code.

use std::fmt::Write;

use sanserve_core::is_deceptive;

/// An object or an array in progress.
pub(crate) struct Json<'o> {
    out: &'o mut String,
    is_first: bool,
    end: char,
}

/// Writes an object: `fill` adds its fields.
pub(crate) fn object(out: &mut String, fill: impl FnOnce(&mut Json<'_>)) {
    nested(out, '{', '}', fill);
}

/// Writes an array: `fill` adds its items.
pub(crate) fn array(out: &mut String, fill: impl FnOnce(&mut Json<'_>)) {
    nested(out, '[', ']', fill);
}

fn nested(out: &mut String, begin: char, end: char, fill: impl FnOnce(&mut Json<'_>)) {
    out.push(begin);
    let mut json = Json { out, is_first: true, end };
    fill(&mut json);
    let end = json.end;
    out.push(end);
}

/// Writes a string. Invisible characters that change how others are shown are written as `\u{202e}`.
pub(crate) fn string(text: &str, out: &mut String) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            // Shown as an escape, since it would change how the rest of the page reads.
            _ if is_deceptive(char) => {
                write!(out, "\\\\u{{{:x}}}", u32::from(char)).expect("writing to a String succeeds")
            }
            ' '..='~' if !matches!(char, '<' | '>' | '&') => out.push(char),
            _ => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}").expect("writing to a String succeeds");
                }
            }
        }
    }
    out.push('"');
}

impl Json<'_> {
    /// The next item of an array.
    pub(crate) fn item(&mut self) -> &mut String {
        if !std::mem::take(&mut self.is_first) {
            self.out.push(',');
        }
        self.out
    }

    /// The next field of an object.
    pub(crate) fn field(&mut self, name: &str) -> &mut String {
        self.item();
        string(name, self.out);
        self.out.push(':');
        self.out
    }

    /// A field that is a string.
    pub(crate) fn text(&mut self, name: &str, value: &str) {
        string(value, self.field(name));
    }

    /// A field that is a number or a Boolean.
    pub(crate) fn plain(&mut self, name: &str, value: impl std::fmt::Display) {
        write!(self.field(name), "{value}").expect("writing to a String succeeds");
    }

    /// A field that is an array of strings.
    pub(crate) fn texts<'t>(&mut self, name: &str, values: impl IntoIterator<Item = &'t str>) {
        array(self.field(name), |json| values.into_iter().for_each(|value| string(value, json.item())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_nest() {
        let mut out = String::new();
        object(&mut out, |json| {
            json.text("a", "x");
            json.plain("b", 7);
            json.texts("c", ["y", "z"]);
            array(json.field("d"), |_| {});
        });
        assert_eq!(out, r#"{"a":"x","b":7,"c":["y","z"],"d":[]}"#);
    }

    #[test]
    fn nothing_in_a_string_is_markup_or_code() {
        let mut out = String::new();
        string("</script><!--&\u{2028}\u{202e}\0\u{1f600}é\"\\\r\n\x7f", &mut out);
        let expected = concat!(
            r#""\u003c/script\u003e\u003c!--\u0026\\u{2028}\\u{202e}\u0000"#,
            r#"\ud83d\ude00\u00e9\"\\\u000d\n\u007f""#
        );
        assert_eq!(out, expected);
    }
}
