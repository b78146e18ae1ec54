//! Decimals to integers and back, exactly: no value passes through a float (PROTOCOL.md, *Sharing*).
//!
//! A value is a secret, so no error here repeats it.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// What one unit is worth in the ring: a power of ten from 1 to 10^9. With 1,000,000, the default,
/// decimals of six places add up exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Scale(u64);

/// A number that is no [`Scale`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no scale: use a power of ten from 1 to 1000000000")]
pub struct ScaleError(u64);

impl Scale {
    /// The scale of `scale` steps to a unit.
    pub fn new(scale: u64) -> Result<Self, ScaleError> {
        if (0..=9).any(|places| scale == 10_u64.pow(places)) { Ok(Self(scale)) } else { Err(ScaleError(scale)) }
    }

    /// Steps to a unit.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Decimal places that it holds: 0 to 9.
    pub fn places(self) -> u32 {
        self.0.ilog10()
    }
}

impl Default for Scale {
    fn default() -> Self {
        Self(1_000_000)
    }
}

impl TryFrom<u64> for Scale {
    type Error = ScaleError;

    fn try_from(scale: u64) -> Result<Self, ScaleError> {
        Self::new(scale)
    }
}

impl From<Scale> for u64 {
    fn from(scale: Scale) -> u64 {
        scale.0
    }
}

/// Why a text is no value. The text itself is never repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// Nothing but blanks.
    #[error("the value is empty: give a number, or leave the record out by a rule that does not look at values")]
    Empty,
    /// NaN or an infinity.
    #[error("the value is not a finite number: correct it where it is recorded")]
    NotFinite,
    /// Anything else that is no decimal number.
    #[error(
        "the value is no decimal number: use digits with '.' before the decimals, such as 17.99, -3 or 1.2e-3, \
         without separators or units"
    )]
    NotANumber,
    /// More decimals than the scale holds.
    #[error("the value has more than {} decimals: round it where it is recorded, or set a larger scale", spelled(.places))]
    TooFine {
        /// How many the scale holds.
        places: u32,
    },
    /// Too large for 64 bits at this scale.
    #[error("the value is too large for {} decimals: use a larger unit, or set a smaller scale", spelled(.places))]
    TooLarge {
        /// How many the scale holds.
        places: u32,
    },
}

fn spelled(places: &u32) -> &'static str {
    const WORDS: [&str; 10] = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    WORDS.get(*places as usize).copied().unwrap_or("that many")
}

/// The value of `text` in steps of the scale: a sign, digits, a fraction and an exponent (`e-3`), of
/// which all but some digits may be absent; blanks around it are ignored. Exact or refused.
pub fn parse(text: &str, scale: Scale) -> Result<i64, DecimalError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(DecimalError::Empty);
    }
    let (negative, unsigned) = split_sign(text);
    let number = Number::read(unsigned).ok_or_else(|| refusal(unsigned))?;
    let steps = number.steps(scale)?;
    let signed = if negative { -steps } else { steps };
    i64::try_from(signed).map_err(|_| DecimalError::TooLarge { places: scale.places() })
}

/// The shortest exact decimal of a sum in steps of the scale: `600`, `17.99`, `-0.000001`.
pub fn format(sum: i128, scale: Scale) -> String {
    let (steps, scale_steps) = (sum.unsigned_abs(), u128::from(scale.get()));
    let (whole, fraction) = (steps / scale_steps, steps % scale_steps);
    let sign = if sum < 0 { "-" } else { "" };
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    let decimals = format!("{fraction:0width$}", width = scale.places() as usize);
    format!("{sign}{whole}.{}", decimals.trim_end_matches('0'))
}

fn split_sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

fn refusal(unsigned: &str) -> DecimalError {
    let names = ["nan", "inf", "infinity"];
    if names.iter().any(|name| unsigned.eq_ignore_ascii_case(name)) {
        DecimalError::NotFinite
    } else {
        DecimalError::NotANumber
    }
}

/// A number as it is written: the digits of `whole` and `fraction`, times ten to the `exponent`.
struct Number<'a> {
    whole: &'a str,
    fraction: &'a str,
    exponent: i64,
}

impl<'a> Number<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, read_exponent(exponent)?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits_only = is_digits(whole) && is_digits(fraction) && !(whole.is_empty() && fraction.is_empty());
        digits_only.then_some(Self { whole, fraction, exponent })
    }

    /// The number's size in steps of the scale; zeros at either end of its digits do not count.
    fn steps(&self, scale: Scale) -> Result<i128, DecimalError> {
        let places = scale.places();
        let digits = Zeroizing::new([self.whole, self.fraction].concat());
        let significant = digits.trim_end_matches('0');
        let dropped = (digits.len() - significant.len()) as i64;
        let significant = significant.trim_start_matches('0');
        if significant.is_empty() {
            return Ok(0);
        }
        let shift = self.exponent.saturating_add(dropped + i64::from(places) - self.fraction.len() as i64);
        let zeros = u32::try_from(shift.min(20)).map_err(|_| DecimalError::TooFine { places })?;
        // 2^63 has 19 digits: whatever has more is refused before it is computed.
        if significant.len() + zeros as usize > 19 {
            return Err(DecimalError::TooLarge { places });
        }
        let value = significant.bytes().fold(0, |value, digit| value * 10 + i128::from(digit - b'0'));
        Ok(value * 10_i128.pow(zeros))
    }
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The exponent; one of absurd size saturates, which refuses every number but zero.
fn read_exponent(text: &str) -> Option<i64> {
    let (negative, digits) = split_sign(text);
    if digits.is_empty() || !is_digits(digits) {
        return None;
    }
    let size = digits.parse::<i64>().unwrap_or(i64::MAX / 2).min(i64::MAX / 2);
    Some(if negative { -size } else { size })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn scale(places: u32) -> Scale {
        Scale::new(10_u64.pow(places)).unwrap()
    }

    fn six(text: &str) -> Result<i64, DecimalError> {
        parse(text, Scale::default())
    }

    #[test]
    fn scales() {
        assert_eq!((0..=9).map(|places| scale(places).places()).collect::<Vec<_>>(), (0..=9).collect::<Vec<_>>());
        for wrong in [0, 2, 11, 10_000_000_000, u64::MAX] {
            assert_eq!(Scale::new(wrong), Err(ScaleError(wrong)));
            assert!(rmp_serde::from_slice::<Scale>(&rmp_serde::to_vec(&wrong).unwrap()).is_err());
        }
        let encoded = rmp_serde::to_vec(&Scale::default()).unwrap();
        assert_eq!(rmp_serde::from_slice::<Scale>(&encoded).unwrap().get(), 1_000_000);
    }

    #[test]
    fn numbers_as_people_write_them() {
        for (text, steps) in [
            ("600", 600_000_000),
            (" 17.99\t", 17_990_000),
            ("-0.000001", -1),
            ("+3", 3_000_000),
            ("0", 0),
            ("-0.0", 0),
            ("007", 7_000_000),
            (".5", 500_000),
            ("5.", 5_000_000),
            ("1.2e-03", 1_200),
            ("1.2E3", 1_200_000_000),
            ("12e+1", 120_000_000),
            ("1200e-8", 12),
            ("0.0000010000", 1),
            ("0e999999999999999999999999", 0),
            ("0.00000000000000000000000000000001e32", 1_000_000),
            ("100000000000000000000000000000000e-32", 1_000_000),
            ("9223372036854.775807", i64::MAX),
            ("-9223372036854.775808", i64::MIN),
        ] {
            assert_eq!(six(text), Ok(steps), "{text}");
        }
    }

    #[test]
    fn all_else_is_refused() {
        for text in ["", " ", "\t\n"] {
            assert_eq!(six(text), Err(DecimalError::Empty));
        }
        for text in ["nan", "NaN", "-inf", "Infinity", "+INF"] {
            assert_eq!(six(text), Err(DecimalError::NotFinite), "{text}");
        }
        for text in [
            "-",
            "+",
            ".",
            "-.",
            "e5",
            "1e",
            "1e+",
            "1e1.5",
            "1e5e5",
            "--1",
            "+-1",
            "1 2",
            "1,5",
            "1.2.3",
            "0x10",
            "1_000",
            "\u{663}",
            "\u{2212}1",
            "12kg",
            "1e-",
            ".e1",
            "1e--1",
        ] {
            assert_eq!(six(text), Err(DecimalError::NotANumber), "{text}");
        }
        for text in ["0.0000001", "1.2e-6", "1e-7", "1e-99999999999999999999", "9999999999999999999999999.1234567"] {
            assert_eq!(six(text), Err(DecimalError::TooFine { places: 6 }), "{text}");
        }
        for text in
            ["9223372036854.775808", "-9223372036854.775809", "1e13", "1e99999999999999999999", "99999999999999999999"]
        {
            assert_eq!(six(text), Err(DecimalError::TooLarge { places: 6 }), "{text}");
        }
    }

    #[test]
    fn errors_say_rule_and_remedy_and_not_the_value() {
        let texts =
            ["31.4159265", "31.4159265kg", "314159265314159265314"].map(|text| six(text).unwrap_err().to_string());
        assert!(texts.iter().all(|text| !text.contains("314") && !text.contains("31.4")));
        assert!(texts[0].contains("more than six decimals"));
        assert!(parse("0.5", scale(0)).unwrap_err().to_string().contains("more than no decimals"));
    }

    #[test]
    fn sums_are_written_short() {
        for (sum, text) in [
            (600_000_000, "600"),
            (17_990_000, "17.99"),
            (-1, "-0.000001"),
            (0, "0"),
            (-1_500_000, "-1.5"),
            (100, "0.0001"),
        ] {
            assert_eq!(format(sum, Scale::default()), text);
        }
        assert_eq!(format(-42, scale(0)), "-42");
        assert_eq!(format(i128::MIN, scale(9)), "-170141183460469231731687303715.884105728");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(steps in any::<i64>(), places in 0_u32..=9) {
            prop_assert_eq!(parse(&format(steps.into(), scale(places)), scale(places)), Ok(steps));
        }

        #[test]
        fn an_exponent_moves_the_point(steps in -1_000_000_000_i64..1_000_000_000, by in 0_usize..=9) {
            let shifted = format!("{steps}e-{by}");
            let nine = parse(&shifted, scale(9)).unwrap();
            prop_assert_eq!(nine, steps * 10_i64.pow(9 - by as u32));
        }

        #[test]
        fn sums_are_exact(cents in prop::collection::vec(-1_000_000_000_i64..1_000_000_000, 0..50)) {
            let written = cents.iter().map(|cents| {
                let sign = if *cents < 0 { "-" } else { "" };
                format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
            });
            let sum: i128 = written.map(|text| i128::from(six(&text).unwrap())).sum();
            let expected = format(cents.iter().map(|&cents| i128::from(cents)).sum(), scale(2));
            prop_assert_eq!(format(sum, Scale::default()), expected);
        }

        #[test]
        fn no_text_panics(text in "[ +\\-.eE0-9a]{0,40}") {
            let _ = six(&text);
        }
    }
}
