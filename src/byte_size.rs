//! Numbers of bytes with units.

use std::fmt;
use std::str::FromStr;

/// A number of bytes, written with a unit: `512m`, `4 GiB`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Units and the powers of 2 that they are.
const UNITS: [(&str, u32); 5] = [("t", 40), ("g", 30), ("m", 20), ("k", 10), ("", 0)];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        let digits = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
        let (number, unit) = lower.split_at(digits);
        let unit = unit.trim();
        let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit);
        let shift = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, shift)| *shift);
        let bytes = match (number.parse::<u64>(), shift) {
            (Ok(number), Some(shift)) => number.checked_mul(1 << shift),
            _ => None,
        };
        bytes
            .map(Self)
            .ok_or_else(|| format!("expected a number of bytes with k, m, g or t, such as 512m, found '{text}'"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = self;
        let unit = UNITS.iter().find(|(_, shift)| *bytes > 0 && bytes.trailing_zeros() >= *shift);
        let (unit, shift) = unit.unwrap_or(&("", 0));
        write!(f, "{}{unit}", bytes >> shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_sizes_are_parsed_and_shown_with_units() {
        for (text, bytes, shown) in [
            ("512", 512, "512"),
            ("2 K", 2048, "2k"),
            ("4GiB", 4 << 30, "4g"),
            ("1536m", 1536 << 20, "1536m"),
            ("0", 0, "0"),
        ] {
            let size: ByteSize = text.parse().expect(text);
            assert_eq!((size.0, size.to_string().as_str()), (bytes, shown));
        }
        for wrong in ["", "g", "-1g", "1x", "99999999999t"] {
            assert!(wrong.parse::<ByteSize>().is_err(), "{wrong}");
        }
    }
}
