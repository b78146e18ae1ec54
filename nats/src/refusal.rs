//! Permission errors as errors of the call that caused them.
//!
//! The broker answers a forbidden publish or subscribe with an error line that names only the subject, and
//! async-nats hands that line to the event callback; the call itself would just time out. So each call registers
//! the subject that it is about to use, and the callback wakes whoever waits on the subject named.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// What the broker forbade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    Publish,
    Subscribe,
}

/// Who waits for a refusal of which subject.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    by_subject: HashMap<(Verb, String), Vec<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    wake: oneshot::Sender<()>,
}

impl Refusals {
    /// Registers a call on `subject`; to be done before the call is sent.
    pub(crate) fn expect(self: &Arc<Self>, verb: Verb, subject: String) -> Expected {
        let (wake, woken) = oneshot::channel();
        let mut waiting = self.lock();
        let id = waiting.next;
        waiting.next += 1;
        let key = (verb, subject);
        waiting.by_subject.entry(key.clone()).or_default().push(Waiter { id, wake });
        Expected { refusals: Arc::clone(self), key, id, state: Expecting::Nothing(woken) }
    }

    /// Takes an error line of the broker; true if it was a refusal that some call waited for.
    pub(crate) fn report(&self, line: &str) -> bool {
        let Some((verb, subject)) = violation(line) else { return false };
        let Some(waiters) = self.lock().by_subject.remove(&(verb, subject.to_owned())) else { return false };
        for waiter in waiters {
            // One that has gone away needs no answer.
            waiter.wake.send(()).ok();
        }
        true
    }

    /// The map holds only waiters, so a panic elsewhere cannot have left it half-changed.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that may yet be refused.
#[derive(Debug)]
pub(crate) struct Expected {
    refusals: Arc<Refusals>,
    key: (Verb, String),
    id: u64,
    state: Expecting,
}

#[derive(Debug)]
enum Expecting {
    /// Not refused so far.
    Nothing(oneshot::Receiver<()>),
    /// Refused once is refused for good.
    Refused,
}

impl Expected {
    /// Returns when the call is refused, or at once if it was; else never. Cancel safe.
    pub(crate) async fn refused(&mut self) {
        if let Expecting::Nothing(woken) = &mut self.state {
            // The other end lives in the registry until it wakes this one.
            if woken.await.is_err() {
                std::future::pending::<()>().await;
            }
            self.state = Expecting::Refused;
        }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut waiting = self.refusals.lock();
        if let Some(waiters) = waiting.by_subject.get_mut(&self.key) {
            waiters.retain(|waiter| waiter.id != self.id);
            if waiters.is_empty() {
                waiting.by_subject.remove(&self.key);
            }
        }
    }
}

/// The verb and subject of `Permissions Violation for Publish to "x"`, in any case of letters.
fn violation(line: &str) -> Option<(Verb, &str)> {
    let lower = line.to_ascii_lowercase();
    let rest = lower.strip_prefix("permissions violation for ")?;
    let verb = if rest.starts_with("publish to ") {
        Verb::Publish
    } else if rest.starts_with("subscription to ") {
        Verb::Subscribe
    } else {
        return None;
    };
    line.split('"').nth(1).map(|subject| (verb, subject))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_names_verb_and_subject() {
        assert_eq!(violation("Permissions Violation for Publish to \"a.B\""), Some((Verb::Publish, "a.B")));
        assert_eq!(
            violation("permissions violation for Subscription to \"x.>\" using queue \"q\""),
            Some((Verb::Subscribe, "x.>"))
        );
        assert_eq!(violation("Authorization Violation"), None);
    }

    #[tokio::test]
    async fn only_the_calls_on_that_subject_are_woken() {
        let refusals = Arc::new(Refusals::default());
        let mut mine = refusals.expect(Verb::Publish, "a".into());
        let other = refusals.expect(Verb::Publish, "b".into());
        assert!(!refusals.report("Permissions Violation for Subscription to \"a\""));
        assert!(refusals.report("Permissions Violation for Publish to \"a\""));
        mine.refused().await;
        // And again: whoever asks twice hears it twice.
        mine.refused().await;
        assert!(matches!(&other.state, Expecting::Nothing(woken) if woken.is_empty()));
        drop((mine, other));
        assert!(refusals.lock().by_subject.is_empty());
    }
}
