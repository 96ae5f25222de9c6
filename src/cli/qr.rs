//! QR codes for terminals (`--qr`).

use fast_qr::{ECL, QRBuilder, QRCode};

/// The width of the light border in modules, as ISO/IEC 18004 requires.
const BORDER: usize = 4;

/// White on black, so that the code is not inverted on a terminal with a light background.
const COLORS: (&str, &str) = ("\x1b[97;40m", "\x1b[0m");

/// Draws a text as a QR code. Each character is two modules, one above the other. `None` if the text is too long.
pub(crate) fn draw(text: &str, has_colors: bool) -> Option<String> {
    // The smallest code: a screen has no scratches.
    let code = QRBuilder::new(text).ecl(ECL::L).build().ok()?;
    let (begin, end) = if has_colors { COLORS } else { ("", "") };
    let size = code.size + 2 * BORDER;
    let mut drawn = String::new();
    for row in (0..size).step_by(2) {
        drawn.push_str(begin);
        for column in 0..size {
            drawn.push(match (is_dark(&code, row, column), is_dark(&code, row + 1, column)) {
                (false, false) => '█',
                (false, true) => '▀',
                (true, false) => '▄',
                (true, true) => ' ',
            });
        }
        drawn.push_str(end);
        drawn.push('\n');
    }
    Some(drawn)
}

/// Whether a module is dark. Those of the border are light.
fn is_dark(code: &QRCode, row: usize, column: usize) -> bool {
    let within = |at: usize| at.checked_sub(BORDER).filter(|&at| at < code.size);
    matches!((within(row), within(column)), (Some(row), Some(column)) if code[row][column].value())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The modules of a drawing, without its border. Dark ones are `true`.
    fn modules(drawn: &str) -> Vec<Vec<bool>> {
        let mut rows = Vec::new();
        for line in drawn.lines() {
            rows.push(line.chars().map(|c| matches!(c, ' ' | '▄')).collect::<Vec<bool>>());
            rows.push(line.chars().map(|c| matches!(c, ' ' | '▀')).collect());
        }
        let size = rows[0].len() - 2 * BORDER;
        assert!(rows[..BORDER].iter().flatten().all(|dark| !dark), "the border is light");
        rows.iter().skip(BORDER).take(size).map(|row| row[BORDER..BORDER + size].to_vec()).collect()
    }

    /// Reads a QR code of the versions 1 to 5 with level L, whose data are one block of bytes, by ISO/IEC 18004.
    fn decode(drawn: &str) -> String {
        let modules = modules(drawn);
        let size = modules.len();
        let version = (size - 17) / 4;
        assert!((1..=5).contains(&version), "version {version}");
        // 7.9.1: the format, masked with 101010000010010, begins at the left of row 8. Level L is 01.
        let format = (0..5).fold(0, |bits, column| bits << 1 | u8::from(modules[8][column])) ^ 0b10101;
        assert_eq!(format >> 3, 0b01, "the level is L");
        let is_inverted = |row: usize, column: usize| match format & 0b111 {
            0 => (row + column) % 2 == 0,
            1 => row % 2 == 0,
            2 => column % 3 == 0,
            3 => (row + column) % 3 == 0,
            4 => (row / 2 + column / 3) % 2 == 0,
            5 => row * column % 2 + row * column % 3 == 0,
            6 => (row * column % 2 + row * column % 3) % 2 == 0,
            _ => ((row + column) % 2 + row * column % 3) % 2 == 0,
        };
        let is_near = |at: usize, center: usize| at.abs_diff(center) <= 2;
        let is_function = |row: usize, column: usize| {
            let is_finder = (row < 9 && (column < 9 || column >= size - 8)) || (row >= size - 8 && column < 9);
            let is_alignment = version > 1 && is_near(row, size - 7) && is_near(column, size - 7);
            is_finder || is_alignment || row == 6 || column == 6
        };
        // 7.7.3: pairs of columns from the right, alternately up and down, without the vertical timing pattern.
        let mut bits = Vec::new();
        let rights = (0..size).rev().filter(|&column| column != 6).collect::<Vec<_>>();
        for (turn, pair) in rights.chunks(2).enumerate() {
            for step in 0..size {
                let row = if turn % 2 == 0 { size - 1 - step } else { step };
                for &column in pair {
                    if !is_function(row, column) {
                        bits.push(modules[row][column] ^ is_inverted(row, column));
                    }
                }
            }
        }
        let number = |bits: &[bool]| bits.iter().fold(0, |number, &bit| number << 1 | usize::from(bit));
        assert_eq!(number(&bits[..4]), 0b0100, "the mode is bytes");
        let length = number(&bits[4..12]);
        let bytes = bits[12..].chunks(8).take(length).map(|bits| u8::try_from(number(bits)).expect("8 bits"));
        String::from_utf8(bytes.collect()).expect("text")
    }

    #[test]
    fn a_code_is_the_url() {
        for url in [
            "http://1.1.1.1/",
            "http://192.168.1.7:8000/",
            "https://192.168.178.123:65535/",
            "http://[fd12:3456:789a:bcde:f012:3456:789a:bcde]:8000/",
            "https://a-host-with-quite-a-long-name.example.home.arpa:8000/",
        ] {
            assert_eq!(decode(&draw(url, false).expect("short")), url);
        }
    }

    #[test]
    fn colors_are_set_and_reset_in_each_line() {
        let drawn = draw("http://192.168.1.7:8000/", true).expect("short");
        assert!(drawn.lines().all(|line| line.starts_with(COLORS.0) && line.ends_with(COLORS.1)));
        assert_eq!(drawn.replace(COLORS.0, "").replace(COLORS.1, ""), draw("http://192.168.1.7:8000/", false).unwrap());
    }

    #[test]
    fn a_text_may_be_too_long() {
        assert_eq!(draw(&"x".repeat(8_000), false), None);
    }
}
