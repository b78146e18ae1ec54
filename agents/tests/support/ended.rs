//! What is left of a process that has ended.

use serde_json::Value;

/// How a process ended, and all that it said.
#[derive(Debug)]
pub struct Ended {
    pub what: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// The last line of its standard output, as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON ({error}): {self:#?}"))
    }

    /// All lines of its standard output, each as JSON.
    pub fn all_json(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The sums of its answer, as they are written.
    #[track_caller]
    pub fn sums(&self) -> Vec<String> {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.json()["sum"].as_array().unwrap_or_else(|| panic!("{self:#?}")).iter().map(Value::to_string).collect()
    }

    /// The one sum of its answer, as it is written.
    #[track_caller]
    pub fn sum(&self) -> String {
        let [sum] = &self.sums()[..] else { panic!("{self:#?}") };
        sum.clone()
    }

    /// The session of its answer or refusal.
    pub fn session(&self) -> String {
        self.json()["session"].as_str().unwrap().to_owned()
    }

    /// The round of its answer or refusal.
    pub fn round(&self) -> u64 {
        self.json()["round"].as_u64().unwrap()
    }

    /// It aborted with this reason; what it said.
    #[track_caller]
    pub fn aborted(&self, reason: &str) -> String {
        assert_eq!(self.code, Some(3), "{self:#?}");
        let report = self.json();
        assert_eq!((&report["outcome"], &report["reason"]), (&"aborted".into(), &reason.into()), "{self:#?}");
        let message = report["message"].as_str().unwrap().to_owned();
        assert!(self.stderr.contains(&message), "{self:#?}");
        message
    }

    /// It was refused as wrong use; what it said.
    #[track_caller]
    pub fn refused(&self) -> &str {
        assert_eq!(self.code, Some(2), "{self:#?}");
        let line = self.stderr.lines().last().unwrap_or_default();
        assert!(self.stderr.contains("error: "), "{self:#?}");
        line
    }

    /// All that it wrote, to both streams.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// It opened this sum over so many patients.
    #[track_caller]
    pub fn opened(&self, sum: &str, cohort: u32) {
        assert_eq!((self.sum().as_str(), &self.json()["cohort"]), (sum, &cohort.into()), "{self:#?}");
    }
}
