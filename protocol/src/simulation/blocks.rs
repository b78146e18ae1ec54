//! The blocks of a committee, reckoned once more from what PROTOCOL.md says of them (*Sharing*): plainly, with sets of
//! seats, so that nothing is taken over from the code that is judged.

use std::collections::BTreeSet;

type Seats = BTreeSet<u8>;

/// The blocks of a committee of `c` seats of which any `t` may collude, in the order in which they are numbered.
pub(super) fn blocks(c: u8, t: u8) -> Vec<Seats> {
    let quorum = (c + t) / 2 + 1;
    // Where c >= 3t any quorum holds t+1 copies of every seed.
    let most = if c >= 3 * t { quorum - t - 1 } else { quorum - 1 };
    if t == 1 { even_runs(c, most) } else { cover(c, t, most) }
}

/// The numbers of the blocks whose seeds the member in `seat` holds: of those that it is not in.
pub(super) fn held(c: u8, t: u8, seat: u8) -> BTreeSet<u16> {
    (0..).zip(blocks(c, t)).filter(|(_, block)| !block.contains(&seat)).map(|(number, _)| number).collect()
}

/// The seats dealt to as few runs as hold `most` each: one seat to every run in turn, until none is left.
fn even_runs(c: u8, most: u8) -> Vec<Seats> {
    let runs = c.div_ceil(most);
    let mut lengths = vec![0; usize::from(runs)];
    (0..c).for_each(|seat| lengths[usize::from(seat % runs)] += 1);
    let mut seats = 0..c;
    lengths.into_iter().map(|length| seats.by_ref().take(length).collect()).collect()
}

/// Again and again the set of `most` seats, the first of equals, that covers most sets of `t` that none covers yet.
fn cover(c: u8, t: u8, most: u8) -> Vec<Seats> {
    let (candidates, mut open) = (choose(0, c, most), choose(0, c, t));
    let mut chosen = Vec::new();
    while !open.is_empty() {
        let mut best: (usize, Option<&Seats>) = (0, None);
        for candidate in &candidates {
            let gain = open.iter().filter(|set| set.is_subset(candidate)).count();
            if gain > best.0 {
                best = (gain, Some(candidate));
            }
        }
        let Some(block) = best.1 else { break };
        open.retain(|set| !set.is_subset(block));
        chosen.push(block.clone());
    }
    chosen
}

/// All sets of `size` of the seats from `first` below `end`, in lexicographic order.
fn choose(first: u8, end: u8, size: u8) -> Vec<Seats> {
    if size == 0 {
        return vec![Seats::new()];
    }
    let with = |seat: u8| choose(seat + 1, end, size - 1).into_iter().map(move |set| &set | &Seats::from([seat]));
    (first..end).flat_map(with).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::sharing::Sharing;

    #[test]
    fn the_product_numbers_the_same_blocks() {
        for (c, t) in (2..=10).flat_map(|c| (1..c).map(move |t| (c, t))) {
            let sharing = Sharing::new(c, t).unwrap();
            let seats = |bits: u16| (0..c).filter(|seat| bits >> seat & 1 == 1).collect::<Seats>();
            let product: Vec<Seats> = sharing.blocks().into_iter().map(|block| seats(block.bits())).collect();
            assert_eq!(blocks(c, t), product, "c={c}, t={t}");
            for seat in 0..c {
                let product: BTreeSet<u16> = sharing.held_by(seat).into_iter().map(|block| block as u16).collect();
                assert_eq!(held(c, t, seat), product, "c={c}, t={t}, seat {seat}");
            }
        }
    }

    #[test]
    fn any_t_lie_in_a_block_and_any_quorum_holds_every_seed() {
        for (c, t) in (2..=7).flat_map(|c| (1..c).map(move |t| (c, t))) {
            let blocks = blocks(c, t);
            assert!(choose(0, c, t).iter().all(|set| blocks.iter().any(|block| set.is_subset(block))));
            let copies = if c >= 3 * t { usize::from(t) + 1 } else { 1 };
            for quorum in choose(0, c, (c + t) / 2 + 1) {
                assert!(blocks.iter().all(|block| quorum.difference(block).count() >= copies), "c={c}, t={t}");
            }
        }
    }
}
