//! Between floats and the fixed-point integers that are masked: exact, and as fast as a mask.

use multiversion::multiversion;
use zeroize::Zeroize as _;

/// Adding this to a double below 2^51 leaves no bits for a fraction: the processor rounds to the nearest integer, ties to
/// even (IEEE 754), and the integer is the difference of the bits. (`f64::round` takes longer than five masks.)
const ROUNDS: f64 = 1.5 * (1_u64 << 52) as f64;

/// The largest size of a quantized value: 2^51 - 1.
pub const QUANTIZED_LIMIT: u64 = (1 << 51) - 1;

/// The largest scale at which a float's multiple is exact: 2^29.
const SCALE_LIMIT: u64 = 1 << 29;

/// Why floats cannot be quantized. The values are never repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantizeError {
    /// Not a number, infinite, or beyond the bound.
    #[error("the value at index {index} is no number within the bound: clip values, or raise the bound")]
    Value {
        /// Where in the vector.
        index: usize,
    },
    /// A scale of 0, or one whose odd part is beyond 2^29.
    #[error("{0} is no scale for floats: use a power of ten from 1 to 1000000000")]
    Scale(u64),
}

/// The nearest multiples of 1 / `scale`, in units of it; ties go to the even one. Exact for every float, as 24 bits of it
/// and 29 of the scale fit a double: the product is never rounded.
///
/// Fails with [`QuantizeError`] where a value is no number or lies beyond `scaled_bound` (in units of 1 / `scale`, at most
/// [`QUANTIZED_LIMIT`]) once it is rounded.
pub fn quantize(values: &[f32], scale: u64, scaled_bound: u64) -> Result<Vec<i64>, QuantizeError> {
    let scale = exact(scale)?;
    let bound = scaled_bound.min(QUANTIZED_LIMIT) as i64;
    let mut quantized = Vec::with_capacity(values.len());
    if all_within(values, scale, bound, &mut quantized) {
        return Ok(quantized);
    }
    let index = quantized.iter().position(|value| !within(*value, bound)).unwrap_or_default();
    quantized.as_mut_slice().zeroize();
    Err(QuantizeError::Value { index })
}

/// The doubles nearest to `sums` in units of 1 / `scale`; beyond 2^53 within one unit in the last place.
///
/// Fails with [`QuantizeError::Scale`].
pub fn dequantize(sums: &[i64], scale: u64) -> Result<Vec<f64>, QuantizeError> {
    let scale = exact(scale)?;
    let mut values = Vec::with_capacity(sums.len());
    divide(sums, scale, &mut values);
    Ok(values)
}

/// `scale` as a double whose product with a float is exact.
fn exact(scale: u64) -> Result<f64, QuantizeError> {
    let odd = scale.unbounded_shr(scale.trailing_zeros());
    if odd == 0 || odd > SCALE_LIMIT { Err(QuantizeError::Scale(scale)) } else { Ok(scale as f64) }
}

fn within(value: i64, bound: i64) -> bool {
    (-bound..=bound).contains(&value)
}

/// Appends the values; whether all are within the bound. What is no number, or of 2^51 and more, has bits that differ by
/// 2^51 and more.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn all_within(values: &[f32], scale: f64, bound: i64, to: &mut Vec<i64>) -> bool {
    let zero = ROUNDS.to_bits();
    let mut fit = true;
    // One test at the end: a loop that may stop early is not vectorised.
    to.extend(values.iter().map(|value| {
        let value = (f64::from(*value) * scale + ROUNDS).to_bits().wrapping_sub(zero) as i64;
        fit &= within(value, bound);
        value
    }));
    fit
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn divide(sums: &[i64], scale: f64, to: &mut Vec<f64>) {
    to.extend(sums.iter().map(|sum| *sum as f64 / scale));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same by the digits of the exact decimal expansion, as people round on paper: ties to even.
    fn by_digits(value: f32, places: usize) -> Option<i64> {
        let digits = format!("{:.160}", value.abs());
        let (whole, fraction) = digits.split_once('.')?;
        let (kept, dropped) = fraction.split_at(places);
        let floor: i64 = format!("{whole}{kept}").parse().ok()?;
        let half = format!("5{}", "0".repeat(dropped.len() - 1));
        let up = dropped > half.as_str() || (dropped == half && floor % 2 == 1);
        Some((floor + i64::from(up)) * if value < 0.0 { -1 } else { 1 })
    }

    #[test]
    fn ties_go_to_the_even_neighbour() {
        let ties = [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.0, -0.0];
        assert_eq!(quantize(&ties, 1, 9).unwrap(), [0, 2, 2, 0, -2, -2, 0, 0]);
        assert_eq!(quantize(&[0.125, 0.375], 100, 99).unwrap(), [12, 38]);
    }

    #[test]
    fn what_is_no_number_within_the_bound_is_named_by_its_place() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 10.0, -9.500_001, 4e15, 2e16] {
            assert_eq!(quantize(&[9.0, bad, bad], 1, 9), Err(QuantizeError::Value { index: 1 }), "{bad}");
            let error = quantize(&[bad], 1, 9).unwrap_err().to_string();
            assert_eq!(error, "the value at index 0 is no number within the bound: clip values, or raise the bound");
        }
        assert_eq!(quantize(&[9.4, -9.4], 1, 9).unwrap(), [9, -9], "it counts what comes of rounding");
        let edge = (1_u64 << 51) as f32;
        assert!(quantize(&[edge], 1, u64::MAX).is_err() && quantize(&[-edge], 1, u64::MAX).is_err());
    }

    #[test]
    fn a_scale_that_would_round_twice_is_refused() {
        for scale in [0, (1 << 29) + 1, u64::MAX] {
            assert_eq!(quantize(&[1.0], scale, 9), Err(QuantizeError::Scale(scale)));
            assert_eq!(dequantize(&[1], scale), Err(QuantizeError::Scale(scale)));
        }
    }

    #[test]
    fn sums_are_the_doubles_that_their_decimals_are() {
        for sum in [0, 1, -1, 3, 10, 123_456_789, (1 << 53) - 1, -(1 << 53)] {
            for places in 0..=9_u32 {
                let scale = 10_u64.pow(places);
                let text = format!("{}e-{places}", sum);
                assert_eq!(dequantize(&[sum], scale).unwrap(), [text.parse::<f64>().unwrap()], "{text}");
            }
        }
    }

    proptest! {
        #[test]
        fn every_float_is_rounded_as_its_decimal_digits_are(bits in any::<u32>(), places in 0_u32..=9) {
            let value = f32::from_bits(bits);
            let quantized = quantize(&[value], 10_u64.pow(places), QUANTIZED_LIMIT);
            match by_digits(value, places as usize).filter(|digits| within(*digits, QUANTIZED_LIMIT as i64)) {
                Some(digits) if value.is_finite() => prop_assert_eq!(quantized, Ok(vec![digits])),
                _ => prop_assert_eq!(quantized, Err(QuantizeError::Value { index: 0 })),
            }
        }

        #[test]
        fn a_value_on_the_grid_comes_back(value in -(1_i64 << 23)..(1 << 23), places in 0_u32..=9) {
            let scale = 10_u64.pow(places);
            let float = (value as f64 / scale as f64) as f32;
            let quantized = quantize(&[float], scale, QUANTIZED_LIMIT).unwrap();
            prop_assert_eq!(quantized, vec![value]);
        }
    }
}
