//! Merkle trees over digests (PROTOCOL.md, *Trust*).
//!
//! Leaves, inner nodes and the root are hashed under labels of their own, and the root binds the
//! number of leaves. So no inner node passes for a leaf, and a root stands for one list only. The
//! shape is that of RFC 9162: at each level neighbours are paired, and one left over moves up.

use crate::id::Digest;
use crate::kdf::digest;

/// A tree with all its levels: for many paths over the same leaves.
#[derive(Clone, Debug)]
pub struct MerkleTree {
    /// From the hashed leaves up to the single top; one empty level where there are no leaves.
    levels: Vec<Vec<Digest>>,
    count: u32,
}

impl MerkleTree {
    /// The tree over `leaves`, at most 2^32 - 1 of them.
    pub fn new(leaves: &[Digest]) -> Self {
        let mut level: Vec<Digest> = leaves.iter().map(hash_leaf).collect();
        let mut levels = Vec::new();
        while level.len() > 1 {
            let above = level.chunks(2).map(parent).collect();
            levels.push(std::mem::replace(&mut level, above));
        }
        levels.push(level);
        Self { levels, count: leaves.len() as u32 }
    }

    /// The root, which binds the leaves, their order and their number.
    pub fn root(&self) -> Digest {
        let top = self.levels.last().and_then(|level| level.first());
        hash_root(self.count, top)
    }

    /// The siblings from leaf `index` up to the top, or nothing where there is no such leaf.
    pub fn path(&self, index: u32) -> Option<Vec<Digest>> {
        let siblings = self.levels.iter().enumerate().filter_map(|(height, level)| {
            let place = index as usize >> height;
            level.get(place ^ 1).copied()
        });
        (index < self.count).then(|| siblings.collect())
    }
}

/// The root over `leaves`.
pub fn root(leaves: &[Digest]) -> Digest {
    MerkleTree::new(leaves).root()
}

/// The path of leaf `index`; for several paths build a [`MerkleTree`] once.
pub fn path(leaves: &[Digest], index: u32) -> Option<Vec<Digest>> {
    MerkleTree::new(leaves).path(index)
}

/// Whether `leaf` is number `index` of the `count` leaves under `root`.
pub fn verify(root: Digest, count: u32, index: u32, leaf: Digest, path: &[Digest]) -> bool {
    if index >= count {
        return false;
    }
    let mut siblings = path.iter();
    let (mut node, mut place, mut last) = (hash_leaf(&leaf), index, count - 1);
    while last > 0 {
        // The last of an odd level has no sibling and moves up as it is.
        if place ^ 1 <= last {
            let Some(sibling) = siblings.next() else { return false };
            node = if place % 2 == 0 { hash_node(&node, sibling) } else { hash_node(sibling, &node) };
        }
        (place, last) = (place / 2, last / 2);
    }
    siblings.next().is_none() && hash_root(count, Some(&node)) == root
}

fn parent(pair: &[Digest]) -> Digest {
    match pair {
        [left, right] => hash_node(left, right),
        rest => rest.first().copied().unwrap_or_default(),
    }
}

fn hash_leaf(leaf: &Digest) -> Digest {
    digest("ward/1 merkle leaf", &[&leaf.0])
}

fn hash_node(left: &Digest, right: &Digest) -> Digest {
    digest("ward/1 merkle node", &[&left.0, &right.0])
}

fn hash_root(count: u32, top: Option<&Digest>) -> Digest {
    let top: &[u8] = top.map_or(&[], |top| &top.0);
    digest("ward/1 merkle root", &[&count.to_le_bytes(), top])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn leaves(count: u32) -> Vec<Digest> {
        (0..count).map(|index| digest("ward/1 test leaf", &[&index.to_le_bytes()])).collect()
    }

    #[test]
    fn every_leaf_has_a_path_and_only_its_own() {
        for count in 1..=33 {
            let leaves = leaves(count);
            let tree = MerkleTree::new(&leaves);
            let top = tree.root();
            for index in 0..count {
                let path = tree.path(index).unwrap();
                for other in 0..count {
                    let leaf = leaves[other as usize];
                    assert_eq!(verify(top, count, index, leaf, &path), other == index);
                    assert_eq!(verify(top, count, other, leaves[index as usize], &path), other == index);
                }
            }
            assert_eq!(tree.path(count), None);
        }
    }

    #[test]
    fn the_tree_of_three_is_as_in_rfc_9162() {
        let [a, b, c] = [0, 1, 2].map(|index| hash_leaf(&leaves(3)[index]));
        assert_eq!(root(&leaves(3)), hash_root(3, Some(&hash_node(&hash_node(&a, &b), &c))));
        assert_eq!(path(&leaves(3), 2).unwrap(), [hash_node(&a, &b)]);
    }

    #[test]
    fn the_count_is_bound() {
        let list = leaves(7);
        let (top, way) = (root(&list), path(&list, 2).unwrap());
        assert!((0..20).all(|count| verify(top, count, 2, list[2], &way) == (count == 7)));
        let roots: Vec<Digest> = (0..40).map(|count| root(&leaves(count))).collect();
        assert!((1..40).all(|i| !roots[..i].contains(&roots[i])));
    }

    #[test]
    fn a_path_of_another_length_is_refused() {
        let list = leaves(6);
        let (top, way) = (root(&list), path(&list, 3).unwrap());
        assert!(!verify(top, 6, 3, list[3], &way[..way.len() - 1]));
        assert!(!verify(top, 6, 3, list[3], &[way.clone(), vec![way[0]]].concat()));
        assert!(!verify(top, 6, 3, list[3], &[]));
        assert!(!verify(root(&[]), 0, 0, list[0], &[]));
    }

    #[test]
    fn an_inner_node_is_no_leaf() {
        let list = leaves(4);
        let hashed: Vec<Digest> = list.iter().map(hash_leaf).collect();
        let inner = [hash_node(&hashed[0], &hashed[1]), hash_node(&hashed[2], &hashed[3])];
        assert_ne!(root(&list), root(&inner));
        assert_ne!(root(&list), root(&hashed));
        assert!(!verify(root(&list), 2, 0, inner[0], &[inner[1]]));
        assert!(!verify(root(&list), 4, 0, inner[0], &[inner[1]]));
        // A repeated last leaf is another list.
        assert_ne!(root(&list[..3]), root(&[list[0], list[1], list[2], list[2]]));
    }

    #[test]
    fn an_altered_path_is_refused() {
        let list = leaves(5);
        let top = root(&list);
        for index in 0..5 {
            let way = path(&list, index).unwrap();
            for step in 0..way.len() {
                let mut altered = way.clone();
                altered[step].0[31] ^= 1;
                assert!(!verify(top, 5, index, list[index as usize], &altered));
            }
        }
    }
}
