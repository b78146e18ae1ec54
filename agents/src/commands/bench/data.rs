//! The vectors of a bench: floats without fractions that follow from patient, round and coordinate, so that nobody has to keep
//! them and everybody knows their sum.

use super::setting::Setting;

/// Vectors repeat after so many coordinates, a prime: a chunk in the wrong place makes a wrong sum.
const PERIOD: usize = 4_093;

/// The first coordinates of a vector; the rest repeats them.
fn period(setting: &Setting, patient: usize, round: u32) -> impl Iterator<Item = i64> {
    let span = 2 * setting.bound + 1;
    let bound = setting.bound as i64;
    let step = 1 + patient as u64 % 7 + u64::from(round) % 5;
    let first = patient as u64 * 31 + u64::from(round) * 17;
    (0..PERIOD as u64).map(move |at| ((first + at * step) % span) as i64 - bound)
}

/// The vector of `patient` in `round`.
pub fn vector(setting: &Setting, patient: usize, round: u32) -> Vec<f32> {
    let period: Vec<f32> = period(setting, patient, round).map(|value| value as f32).collect();
    period.iter().copied().cycle().take(setting.chunks.dimension() as usize).collect()
}

/// The sum of the vectors in `round` of all patients that stay, coordinate by coordinate, without end.
pub fn sum(setting: &Setting, round: u32) -> impl Iterator<Item = i64> {
    let mut sum = vec![0; PERIOD];
    for patient in 0..setting.staying() {
        sum.iter_mut().zip(period(setting, patient, round)).for_each(|(sum, value)| *sum += value);
    }
    std::iter::repeat(sum).flatten()
}
