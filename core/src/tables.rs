//! Tables that are made at compile time.

/// An enum whose values have names, for transcripts and reports.
macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[$of_value:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        pub enum $name { $($(#[$of_value])* $value,)+ }

        impl $name {
            /// All of them, each with its name.
            pub const TABLE: &[(&'static str, $name)] = &[$(($text, $name::$value),)+];

            /// The name in transcripts and reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                Self::TABLE[self as usize].0
            }
        }
    };
}

/// A table with a value for each byte, such as whether it is allowed.
macro_rules! byte_table {
    ($byte:ident => $value:expr) => {{
        let $byte = 0_u8;
        let mut table = [$value; 256];
        let mut at = 0;
        while at < 256 {
            let $byte = at as u8;
            table[at] = $value;
            at += 1;
        }
        table
    }};
}

pub(crate) use {byte_table, named};
