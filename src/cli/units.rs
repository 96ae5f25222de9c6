//! Parsers for numbers, sizes and times as people write them: `10M`, `64KiB`, `1.5s`, `5m`. All flags use these.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// The name of a unit, and its value in the smallest one.
type Unit = (&'static str, u64);

/// Units of sizes, in bytes: powers of 1,024, except for the SI units kB, MB, GB and TB. Case is ignored.
const SIZES: &[Unit] = &[
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1_000),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
    ("t", 1 << 40),
    ("tib", 1 << 40),
    ("tb", 1_000_000_000_000),
];

/// Units of times, in milliseconds.
const TIMES: &[Unit] =
    &[("ms", 1), ("s", 1_000), ("sec", 1_000), ("m", 60_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// The longest time: longer than anyone needs, and too short for any overflow.
const LONGEST: u64 = 36_500 * 86_400_000;

/// Returns a parser for whole numbers of a range.
pub(crate) fn whole<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Clone + Send + Sync + 'static,
{
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("not a whole number from {} to {}", range.start(), range.end()))
    }
}

/// A size in bytes: a number, or a number followed by a unit.
///
/// # Errors
///
/// Says what a size looks like.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    const RIGHT: &str = "not a size: a number of bytes, or a number with K, M, G or T, such as 4096, 64K or 1.5GiB";
    let (number, unit) = split(text);
    let unit = unit.to_ascii_lowercase();
    let scale = if unit.is_empty() { Some(1) } else { find(SIZES, &unit) };
    let (Some(number), Some(scale)) = (Decimal::parse(number), scale) else { return Err(RIGHT.into()) };
    if scale == 1 && number.has_fraction() {
        return Err("not a whole number of bytes; sizes are such as 4096, 64K or 1.5GiB".into());
    }
    number.times(scale).map(|(whole, _)| whole).ok_or_else(|| format!("too large: more than {} bytes", u64::MAX))
}

/// A size greater than 0.
///
/// # Errors
///
/// Says what a size looks like.
pub(crate) fn size_above_0(text: &str) -> Result<u64, String> {
    match size(text)? {
        0 => Err("too small: must be at least 1 byte".into()),
        size => Ok(size),
    }
}

/// A time in milliseconds, at least one: a number of seconds, or numbers followed by units.
///
/// # Errors
///
/// Says what a time looks like.
pub(crate) fn time(text: &str) -> Result<u64, String> {
    match time_or_0(text)? {
        0 => Err("too short: must be longer than 0".into()),
        millis => Ok(millis),
    }
}

/// A time that may be 0.
///
/// # Errors
///
/// Says what a time looks like.
pub(crate) fn time_or_0(text: &str) -> Result<u64, String> {
    const RIGHT: &str = "not a time: a number of seconds, or a number with ms, s, m, h or d, such as 90, 1.5s or 5m";
    let wrong = || RIGHT.to_owned();
    let too_long = || format!("too long: must be at most {}", show_time(LONGEST));
    let (mut rest, mut total, mut last) = (text, 0_u64, u64::MAX);
    loop {
        let (number, behind) = split(rest);
        let until = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(until);
        // A number without a unit is in seconds.
        let scale = if unit.is_empty() && rest.len() == text.len() { Some(1_000) } else { find(TIMES, unit) };
        // `1h30m`, and not `30m1h` or `1m1m`.
        let scale = scale.filter(|&scale| scale < last).ok_or_else(wrong)?;
        let (whole, has_rest) = Decimal::parse(number).ok_or_else(wrong)?.times(scale).ok_or_else(too_long)?;
        total = total.checked_add(whole).and_then(|sum| sum.checked_add(has_rest.into())).ok_or_else(too_long)?;
        if total > LONGEST {
            return Err(too_long());
        }
        if behind.is_empty() {
            return Ok(total);
        }
        if unit.is_empty() {
            return Err(wrong());
        }
        (rest, last) = (behind, scale);
    }
}

/// Formats a size so that [`size`] can parse it.
pub(crate) fn show_size(bytes: u64) -> String {
    show(bytes, &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)], "")
}

/// Formats a time so that [`time`] can parse it.
pub(crate) fn show_time(millis: u64) -> String {
    if millis == 0 {
        return "0s".into();
    }
    show(millis, &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)], "ms")
}

/// Uses the largest unit that gives a whole number.
fn show(number: u64, units: &[Unit], smallest: &str) -> String {
    let fits = units.iter().find(|(_, scale)| number > 0 && number % scale == 0);
    fits.map_or_else(|| format!("{number}{smallest}"), |(unit, scale)| format!("{}{unit}", number / scale))
}

/// Splits a text into the number that it begins with and the rest.
fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()))
}

fn find(units: &[Unit], name: &str) -> Option<u64> {
    units.iter().find(|(unit, _)| *unit == name).map(|(_, scale)| *scale)
}

/// A number with up to 18 decimals, exact. Further digits are dropped.
struct Decimal {
    whole: u128,
    /// In units of 10^-18.
    fraction: u128,
}

impl Decimal {
    const ONE: u128 = 1_000_000_000_000_000_000;

    /// Returns `None` if this is not a number. A number that is too large saturates.
    fn parse(text: &str) -> Option<Decimal> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) || (whole.is_empty() && fraction.is_empty()) {
            return None;
        }
        let number = |digits: &str| if digits.is_empty() { 0 } else { digits.parse().unwrap_or(u128::MAX) };
        let fraction = format!("{:0<18}", fraction.get(..18).unwrap_or(fraction));
        Some(Decimal { whole: number(whole), fraction: number(&fraction) })
    }

    fn has_fraction(&self) -> bool {
        self.fraction > 0
    }

    /// The whole part of the product, and whether it has a fraction. `None` on overflow.
    fn times(&self, scale: u64) -> Option<(u64, bool)> {
        let scale = u128::from(scale);
        let fraction = self.fraction * scale;
        let whole = self.whole.checked_mul(scale)?.checked_add(fraction / Self::ONE)?;
        Some((u64::try_from(whole).ok()?, fraction % Self::ONE != 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers() {
        let read = whole(1..=u16::MAX);
        assert_eq!((read("1"), read("65535")), (Ok(1), Ok(65_535)));
        for text in ["", "0", "65536", "-1", "1.5", "many", "99999999999999999999"] {
            assert_eq!(read(text), Err("not a whole number from 1 to 65535".into()), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("10M", 10 << 20),
            ("10m", 10 << 20),
            ("64KiB", 64 << 10),
            ("64kib", 64 << 10),
            ("64kB", 64_000),
            ("1g", 1 << 30),
            ("1GB", 1_000_000_000),
            ("2T", 2 << 40),
            ("7B", 7),
            ("1.5K", 1536),
            (".5m", 512 << 10),
            ("1.1K", 1126),
            ("18446744073709551615", u64::MAX),
            ("16777215T", 16_777_215 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "K", ".", "-1", "+1", "1.5", "1 K", "1KK", "1x", "1Ki", "nan", "inf", "1e3", "0x10", "1.2.3M"]
        {
            assert!(size(text).is_err_and(|what| what.contains("such as")), "{text}");
        }
        for text in ["18446744073709551616", "16777216T", "99999999999999999999999999999999999999999999G"] {
            assert!(size(text).is_err_and(|what| what.contains("too large")), "{text}");
        }
        assert_eq!((size_above_0("1"), size_above_0("0K").is_err()), (Ok(1), true));
    }

    #[test]
    fn times() {
        for (text, millis) in [
            ("90", 90_000),
            ("0.25", 250),
            (".5", 500),
            ("5.", 5_000),
            ("5m", 300_000),
            ("1.5s", 1_500),
            ("500ms", 500),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("10min", 600_000),
            ("3sec", 3_000),
            ("1h30m", 5_400_000),
            ("1m0.5s", 60_500),
            // Less than a millisecond is rounded up to one.
            ("0.0001", 1),
            ("0.1ms", 1),
        ] {
            assert_eq!(time(text), Ok(millis), "{text}");
        }
        for text in [
            "", "s", ".", "-1", "+1", "1 m", "1M", "1S", "1w", "1y", "soon", "nan", "inf", "1e3", "1m30", "30m1h",
            "1m1m", "1mm", "1s ", "5,5", "1:30",
        ] {
            assert!(time(text).is_err_and(|what| what.contains("such as")), "{text}");
        }
        for text in ["1e400", "99999999999999999999h", "36501d", "18446744073709551615", "36500d1ms"] {
            assert!(time(text).is_err(), "{text}");
        }
        for text in ["0", "0s", "0.0", "0ms", "0h0m"] {
            assert!(time(text).is_err_and(|what| what.contains("longer than 0")), "{text}");
            assert_eq!(time_or_0(text), Ok(0), "{text}");
        }
    }

    /// Formatted values can be parsed again.
    #[test]
    fn shown() {
        assert_eq!(show_time(0), "0s");
        for (millis, shown) in [(1, "1ms"), (1_500, "1500ms"), (15_000, "15s"), (120_000, "2m"), (90_000, "90s")] {
            assert_eq!((show_time(millis).as_str(), time(shown)), (shown, Ok(millis)));
        }
        for (bytes, shown) in [(0, "0"), (1_000, "1000"), (65_536, "64KiB"), (1 << 30, "1GiB"), (3 << 19, "1536KiB")] {
            assert_eq!((show_size(bytes).as_str(), size(shown)), (shown, Ok(bytes)));
        }
    }
}
