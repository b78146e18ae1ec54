//! Says a few of many like things, and counts the rest: junk may come by the thousand, and a log is for people.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For how long what is said counts.
const WINDOW: Duration = Duration::from_secs(60);

/// So many lines a minute of one sort.
///
/// ```
/// let quota = nats::Quota::new(2);
/// let said: Vec<String> = (0..4).filter_map(|_| quota.pass()).map(|note| format!("junk{note}")).collect();
/// assert_eq!(said, ["junk", "junk; more of this sort is counted for a minute"]);
/// ```
#[derive(Debug)]
pub struct Quota {
    few: u32,
    window: Mutex<Option<Window>>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    said: u32,
    left_out: u64,
}

/// What to add to a line that may be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Nothing.
    None,
    /// It is the last one for now.
    Last,
    /// So many like it were left out before.
    After(u64),
}

impl Quota {
    /// At most `few` lines within a minute; at least one.
    pub const fn new(few: u32) -> Self {
        Self { few, window: Mutex::new(None) }
    }

    /// Whether one more may be said, and what to add to it.
    pub fn pass(&self) -> Option<Note> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<Note> {
        // Numbers only: a panic elsewhere cannot have left them half-changed.
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let over = window.as_ref().is_none_or(|window| now.duration_since(window.began) >= WINDOW);
        if over {
            let left_out = window.as_ref().map_or(0, |window| window.left_out);
            *window = Some(Window { began: now, said: 1, left_out: 0 });
            return Some(if left_out > 0 { Note::After(left_out) } else { Note::None });
        }
        let window = window.as_mut()?;
        if window.said >= self.few {
            window.left_out += 1;
            return None;
        }
        window.said += 1;
        Some(if window.said == self.few { Note::Last } else { Note::None })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::None => Ok(()),
            Note::Last => f.write_str("; more of this sort is counted for a minute"),
            Note::After(left_out) => write!(f, "; {left_out} of this sort were left out before"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_is_counted_with_the_next_line() {
        let (quota, start) = (Quota::new(3), Instant::now());
        let at = |seconds| quota.pass_at(start + Duration::from_secs(seconds));
        assert_eq!(
            [at(0), at(1), at(2), at(3), at(59)],
            [Some(Note::None), Some(Note::None), Some(Note::Last), None, None]
        );
        assert_eq!([at(60), at(200)], [Some(Note::After(2)), Some(Note::None)]);
    }
}
