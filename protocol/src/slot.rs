//! One chunk of a sum, as server, members and hospital make it.

use vectors::Lanes;

use crate::chunks::Chunks;

/// One chunk of a sum. It is with at most one job at a time; changes that come meanwhile wait for the next, so that many
/// are made in one walk.
#[derive(Debug)]
pub(crate) struct Slot<C> {
    /// None while a job has it.
    sum: Option<Lanes>,
    pub(crate) waiting: Vec<C>,
}

impl<C> Slot<C> {
    /// Nothing, as long as `chunk`.
    pub(crate) fn zero(chunks: &Chunks, chunk: u32) -> Self {
        Self { sum: Some(Lanes::zero(chunks.ring(), chunks.len(chunk))), waiting: Vec::new() }
    }

    /// Lends the sum to a job that makes the changes which wait; `None` where one has it, or nothing waits.
    pub(crate) fn lend(&mut self) -> Option<(Lanes, Vec<C>)> {
        if self.waiting.is_empty() {
            return None;
        }
        Some((self.sum.take()?, std::mem::take(&mut self.waiting)))
    }

    /// A job brought the sum back.
    pub(crate) fn back(&mut self, sum: Lanes) {
        self.sum = Some(sum);
    }

    /// Whether no job has the sum and nothing waits.
    pub(crate) fn is_done(&self) -> bool {
        self.sum.is_some() && self.waiting.is_empty()
    }

    /// Gives the sum away, where it is done.
    pub(crate) fn take(&mut self) -> Option<Lanes> {
        if self.is_done() { self.sum.take() } else { None }
    }
}
