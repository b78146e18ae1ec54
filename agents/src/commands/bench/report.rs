//! What came out: medians with their spread, for people and as JSON.

use serde_json::{Value, json};

use super::cast::{ROLES, Sample};
use super::processor::Processor;
use super::setting::Setting;
use crate::cli::BenchRole;
use crate::spent::mebibytes;

/// The places of some roles in [`ROLES`].
const SERVER: usize = 1;
const PATIENTS: usize = 2;
const MEMBERS: usize = 3;

/// The middle of many values, and the quarters around it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    low: f64,
    median: f64,
    high: f64,
}

impl Spread {
    fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self { low: quantile(&values, 0.25), median: quantile(&values, 0.5), high: quantile(&values, 0.75) }
    }
}

/// The value below which so large a part of `sorted` lies, between its neighbours in proportion; 0 of nothing.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = part * sorted.len().saturating_sub(1) as f64;
    let value = |at: f64| sorted.get(at as usize).copied().unwrap_or_default();
    value(at.floor()) + (value(at.ceil()) - value(at.floor())) * at.fract()
}

/// All that was measured.
pub struct Report {
    /// What was measured.
    pub setting: Setting,
    processor: Processor,
    /// Plain and secure.
    pairs: Vec<(Sample, Sample)>,
}

impl Report {
    /// Nothing yet.
    pub fn new(setting: Setting, processor: Processor) -> Self {
        Self { setting, processor, pairs: Vec::new() }
    }

    /// Adds a pair; what people read of it.
    pub fn add(&mut self, plain: Sample, secure: Sample) -> String {
        self.pairs.push((plain, secure));
        let (plain, secure) = (plain.seconds, secure.seconds);
        format!("plain {plain:.3} s, secure {secure:.3} s, ratio {:.2}", secure / plain)
    }

    fn plain(&self, of: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(self.pairs.iter().map(|(plain, _)| of(plain)))
    }

    fn secure(&self, of: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(self.pairs.iter().map(|(_, secure)| of(secure)))
    }

    fn ratio(&self) -> Spread {
        Spread::of(self.pairs.iter().map(|(plain, secure)| secure.seconds / plain.seconds))
    }

    /// From when all sums are in to the answer.
    fn checks(&self) -> Spread {
        self.secure(|sample| sample.seconds - sample.summed)
    }

    /// Processor time of a role in a secure round: the mean, as single rounds are counted in hundredths only.
    fn secure_cpu(&self, role: usize) -> f64 {
        mean(self.pairs.iter().map(|(_, secure)| secure.cpu[role]))
    }

    fn plain_cpu(&self, role: usize) -> f64 {
        mean(self.pairs.iter().map(|(plain, _)| plain.cpu[role]))
    }

    /// What all members together take beyond what as many other patients do.
    fn member_cpu(&self) -> f64 {
        let others = self.setting.part(BenchRole::Patients).len().max(1) as f64;
        let share = self.setting.part(BenchRole::Members).len() as f64 / others;
        (self.secure_cpu(MEMBERS) - share * self.secure_cpu(PATIENTS)).max(0.0)
    }

    fn bytes_up_per_coordinate(&self) -> f64 {
        self.secure(|sample| sample.bytes as f64).median / self.setting.chunks.dimension() as f64
    }

    fn cohort(&self) -> u32 {
        self.pairs.iter().map(|(_, secure)| secure.cohort).min().unwrap_or_default()
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "patients": self.setting.patients.len(),
            "dim": self.setting.chunks.dimension(),
            "ring": self.setting.chunks.ring().bits(),
            "plain_s": round(self.plain(|sample| sample.seconds).median),
            "secure_s": round(self.secure(|sample| sample.seconds).median),
            "ratio": round(self.ratio().median),
            "audit": self.setting.audit.to_string(),
            "checks_s": round(self.checks().median),
            "client_mask_ms": round(self.processor.mask * 1e3),
            "server_cpu_s": round(self.secure_cpu(SERVER)),
            "member_cpu_s": round(self.member_cpu()),
            "server_peak_mib": round(self.secure(|sample| mebibytes(sample.peak[SERVER])).median),
            "bytes_up_per_coordinate": round(self.bytes_up_per_coordinate()),
            "cohort": self.cohort(),
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let spread = |name: &str, Spread { low, median, high }, unit: &str| {
            format!("{name:<10}{median:>8.3}{unit}  ({low:.3} to {high:.3})\n")
        };
        let mut text = format!("{} pairs; medians, and in brackets the middle half\n", self.pairs.len());
        text += &spread("plain", self.plain(|sample| sample.seconds), " s");
        text += &spread("secure", self.secure(|sample| sample.seconds), " s");
        text += &spread("- cohort", self.secure(|sample| sample.fixed), " s");
        text += &spread("- confirms", self.secure(|sample| sample.confirmed), " s");
        text += &spread("- sums", self.secure(|sample| sample.summed), " s");
        text += &spread("- checks", self.checks(), " s");
        text += &spread("ratio", self.ratio(), "  ");
        let (bytes, each) = (self.secure(|sample| sample.bytes as f64).median, self.bytes_up_per_coordinate());
        text += &format!("each patient sends {bytes:.0} bytes, {each:.3} a coordinate (float32: 4)\n");
        text += &format!("cohort of {}, every sum right\n\n", self.cohort());
        text += "a round   CPU s: plain  secure   peak MiB: plain  secure\n";
        for (role, name) in ROLES.iter().enumerate() {
            text += &format!(
                "{name:<10}{:>12.3}{:>8.3}{:>16.0}{:>8.0}\n",
                self.plain_cpu(role),
                self.secure_cpu(role),
                self.plain(|sample| mebibytes(sample.peak[role])).median,
                self.secure(|sample| mebibytes(sample.peak[role])).median,
            );
        }
        text += &format!("members beyond what they do as patients: {:.3} CPU s", self.member_cpu());
        text
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1) as f64;
    values.sum::<f64>() / count
}

/// To six digits after the point: more would pretend.
fn round(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// What the processor does, and what that means for one patient.
pub fn processor(setting: &Setting, processor: &Processor) -> String {
    let Processor { keystream, blake3, add, mask, keystreams, hash } = processor;
    format!(
        "this processor, one core: keystream {:.1} GB/s, BLAKE3 {:.1} GB/s, add {:.1} GB/s\n\
         a vector of {}: masked in {:.2} ms, its {} keystreams alone {:.2} ms; hashing it for the checks {:.2} ms",
        keystream / 1e9,
        blake3 / 1e9,
        add / 1e9,
        setting.chunks.dimension(),
        mask * 1e3,
        setting.sharing.blocks().len(),
        keystreams * 1e3,
        hash * 1e3,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_few_values_lies_between_them() {
        assert_eq!(Spread::of([3.0, 1.0]), Spread { low: 1.5, median: 2.0, high: 2.5 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0, 5.0]), Spread { low: 2.0, median: 3.0, high: 4.0 });
        assert_eq!(Spread::of([7.0]), Spread { low: 7.0, median: 7.0, high: 7.0 });
    }
}
