//! The Merkle tree over an organization's links, as RFC 6962, section 2.1, has it: whoever holds a signed root can be
//! shown that one entry is in it, or that a later root only added to it, in a few hashes.

use aws_lc_rs::digest::{Context, SHA256};

use super::chain::Hash;

/// The hash of a leaf.
#[must_use]
pub fn leaf(data: &[u8]) -> Hash {
    digest(&[&[0], data])
}

/// The hash of the node above two others.
#[must_use]
pub fn node(left: &Hash, right: &Hash) -> Hash {
    digest(&[&[1], left, right])
}

/// The root of the tree without leaves.
#[must_use]
pub fn empty() -> Hash {
    digest(&[])
}

fn digest(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// A whole subtree: it has 2^`level` leaves, and is the `number`-th of its size, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subtree {
    /// Of so many leaves: 2^level.
    pub level: u8,
    /// Which of those of its size.
    pub number: u64,
}

/// As much of a tree as is needed to let it grow: the roots of its largest whole subtrees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    leaves: u64,
    roots: Vec<Hash>,
}

impl Frontier {
    /// Reads what [`Self::bytes`] wrote; `None`: it does not fit that many leaves.
    #[must_use]
    pub fn read(leaves: u64, bytes: &[u8]) -> Option<Self> {
        let (roots, rest) = bytes.as_chunks::<32>();
        let fits = rest.is_empty() && roots.len() == leaves.count_ones() as usize;
        fits.then(|| Self { leaves, roots: roots.to_vec() })
    }

    /// The roots one behind the other, the largest subtree's first.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.roots.concat()
    }

    /// How many leaves there are.
    #[must_use]
    pub const fn leaves(&self) -> u64 {
        self.leaves
    }

    /// Adds a leaf. `whole` is told of each subtree of two and more leaves that became whole by it.
    pub fn push(&mut self, leaf: Hash, mut whole: impl FnMut(Subtree, Hash)) {
        let mut root = leaf;
        let mut level = 0;
        while self.leaves >> level & 1 == 1 {
            let Some(left) = self.roots.pop() else { break };
            root = node(&left, &root);
            level += 1;
            whole(Subtree { level, number: self.leaves >> level }, root);
        }
        self.roots.push(root);
        self.leaves += 1;
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut roots = self.roots.iter().rev();
        let Some(smallest) = roots.next() else { return empty() };
        roots.fold(*smallest, |right, left| node(left, &right))
    }
}

/// The leaves from `first` to before `end` of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first leaf, from 0.
    pub first: u64,
    /// The one behind the last.
    pub end: u64,
}

impl Range {
    /// So many leaves.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.end - self.first
    }

    /// None.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.end == self.first
    }

    /// Its two halves: the left one has the largest power of two that leaves something to the right.
    #[must_use]
    pub const fn halves(self) -> (Self, Self) {
        let middle = self.first + (self.len().next_power_of_two() >> 1);
        (Self { first: self.first, end: middle }, Self { first: middle, end: self.end })
    }

    /// As a whole subtree, if it is one.
    #[must_use]
    pub fn whole(self) -> Option<Subtree> {
        let level = u8::try_from(self.len().checked_ilog2()?).ok()?;
        let whole = self.len().is_power_of_two() && self.first.is_multiple_of(self.len());
        whole.then(|| Subtree { level, number: self.first >> level })
    }
}

/// The ranges whose roots prove that leaf `index` is in a tree of `leaves` (RFC 6962, 2.1.1), the lowest first.
/// None if it is not.
#[must_use]
pub fn inclusion(index: u64, leaves: u64) -> Vec<Range> {
    let mut range = Range { first: 0, end: leaves };
    let mut path = Vec::new();
    while range.len() > 1 && index < leaves {
        let (left, right) = range.halves();
        let (inside, beside) = if index < right.first { (left, right) } else { (right, left) };
        path.push(beside);
        range = inside;
    }
    path.reverse();
    path
}

/// The ranges whose roots prove that the tree of `before` leaves is the beginning of the tree of `after`
/// (RFC 6962, 2.1.2). None if they are the same.
#[must_use]
pub fn consistency(before: u64, after: u64) -> Vec<Range> {
    let mut range = Range { first: 0, end: after };
    let mut path = Vec::new();
    // As long as only left halves were gone down, the old tree's root is known to whoever verifies.
    let mut known = true;
    while before > 0 && before < after && before != range.end {
        let (left, right) = range.halves();
        if before <= left.end {
            path.push(right);
            range = left;
        } else {
            path.push(left);
            range = right;
            known = false;
        }
    }
    if !known {
        path.push(range);
    }
    path.reverse();
    path
}

/// Whether the path shows that `leaf` is the one with this index in the tree of `leaves` with this root.
#[must_use]
pub fn is_included(leaf: &Hash, index: u64, leaves: u64, path: &[Hash], root: &Hash) -> bool {
    let ranges = inclusion(index, leaves);
    if index >= leaves || ranges.len() != path.len() {
        return false;
    }
    let up = ranges.iter().zip(path).fold(*leaf, |inside, (range, beside)| {
        if range.first > index { node(&inside, beside) } else { node(beside, &inside) }
    });
    up == *root
}

/// Whether the path shows that the tree of `before` leaves with the root `old` is the beginning of the one of `after`
/// leaves with the root `new`.
#[must_use]
pub fn is_consistent(before: u64, old: &Hash, after: u64, new: &Hash, path: &[Hash]) -> bool {
    if before == after {
        return old == new && path.is_empty();
    }
    if before == 0 || before > after {
        return before == 0 && path.is_empty();
    }
    let ranges = consistency(before, after);
    if ranges.len() != path.len() {
        return false;
    }
    let mut steps = ranges.iter().zip(path);
    // Either the old tree is a whole subtree of the new one, or the proof begins with the last subtree of the old one.
    let begun = if before.is_power_of_two() { Some(old) } else { steps.next().map(|(_, hash)| hash) };
    let Some(begun) = begun else { return false };
    let (mut was, mut is) = (*begun, *begun);
    for (range, beside) in steps {
        if range.first >= before {
            is = node(&is, beside);
        } else {
            was = node(beside, &was);
            is = node(beside, &is);
        }
    }
    was == *old && is == *new
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::digest::hex;

    const LEAVES: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.chars().map(|digit| u8::try_from(digit.to_digit(16).unwrap()).unwrap()).collect();
        digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect()
    }

    fn at(index: u64) -> usize {
        usize::try_from(index).unwrap()
    }

    fn given() -> Vec<Hash> {
        LEAVES.iter().map(|text| leaf(&bytes(text))).collect()
    }

    /// The root of a range, by the definition.
    fn root(leaves: &[Hash], range: Range) -> Hash {
        match range.len() {
            0 => empty(),
            1 => leaves[at(range.first)],
            _ => {
                let (left, right) = range.halves();
                node(&root(leaves, left), &root(leaves, right))
            }
        }
    }

    fn roots(leaves: &[Hash], ranges: &[Range]) -> Vec<Hash> {
        ranges.iter().map(|range| root(leaves, *range)).collect()
    }

    #[test]
    fn roots_are_those_of_the_specification_however_they_are_made() {
        let leaves = given();
        let mut frontier = Frontier::default();
        for (count, expected) in ROOTS.iter().enumerate() {
            assert_eq!(hex(&root(&leaves, Range { first: 0, end: count as u64 })), *expected);
            assert_eq!(hex(&frontier.root()), *expected);
            assert_eq!(Frontier::read(count as u64, &frontier.bytes()), Some(frontier.clone()));
            if let Some(leaf) = leaves.get(count) {
                frontier.push(*leaf, |_, _| {});
            }
        }
        assert_eq!(Frontier::read(3, &frontier.bytes()[..32]), None);
    }

    #[test]
    fn proofs_are_those_of_the_specification() {
        let leaves = given();
        let path = |ranges: &[Range]| roots(&leaves, ranges).iter().map(|hash| hex(hash)).collect::<Vec<_>>();
        let (a, b) = (
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        );
        let first = [a, b, "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"];
        let sixth = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b";
        let last = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";
        assert_eq!(path(&inclusion(0, 8)), first);
        assert_eq!(path(&inclusion(5, 8)), [sixth, last, ROOTS[4]]);
        assert_eq!(path(&inclusion(2, 3)), [ROOTS[2]]);
        assert_eq!(path(&consistency(1, 8)), first);
        let of_six = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a";
        assert_eq!(path(&consistency(6, 8)), [of_six, last, ROOTS[4]]);
        assert_eq!(path(&consistency(2, 5)), [b, sixth]);
    }

    #[test]
    fn whole_subtrees_are_told_as_they_become_whole() {
        let mut told = Vec::new();
        let mut frontier = Frontier::default();
        for leaf in given() {
            frontier.push(leaf, |subtree, hash| told.push((subtree.level, subtree.number, hex(&hash))));
        }
        let places: Vec<_> = told.iter().map(|(level, number, _)| (*level, *number)).collect();
        assert_eq!(places, [(1, 0), (1, 1), (2, 0), (1, 2), (1, 3), (2, 1), (3, 0)]);
        assert_eq!(told[2].2, ROOTS[4]);
        assert_eq!(told[6].2, ROOTS[8]);
        assert_eq!(Range { first: 4, end: 8 }.whole(), Some(Subtree { level: 2, number: 1 }));
        assert_eq!((Range { first: 2, end: 6 }.whole(), Range { first: 0, end: 3 }.whole()), (None, None));
    }

    fn numbered(count: u64) -> Vec<Hash> {
        (0..count).map(|number| leaf(&number.to_be_bytes())).collect()
    }

    proptest! {
        #[test]
        fn every_entry_is_shown_to_be_in_its_tree_and_no_other(count in 1_u64..70, index in 0_u64..70, other in 0_u64..70) {
            let (index, other, leaves) = (index % count, other % count, numbered(count));
            let root = root(&leaves, Range { first: 0, end: count });
            let path = roots(&leaves, &inclusion(index, count));
            prop_assert!(is_included(&leaves[at(index)], index, count, &path, &root));
            prop_assert_eq!(is_included(&leaves[at(other)], index, count, &path, &root), index == other);
            prop_assert_eq!(is_included(&leaves[at(index)], other, count, &path, &root), index == other);
            prop_assert!(!is_included(&leaves[at(index)], count, count, &path, &root));
        }

        #[test]
        fn every_beginning_is_shown_to_be_one_and_nothing_else_is(before in 0_u64..70, more in 0_u64..70, flip in 0_u64..70) {
            let (after, mut leaves) = (before + more, numbered(before + more));
            let old = root(&leaves, Range { first: 0, end: before });
            let new = root(&leaves, Range { first: 0, end: after });
            let path = roots(&leaves, &consistency(before, after));
            prop_assert!(is_consistent(before, &old, after, &new, &path));
            if before > 0 && more > 0 {
                // A tree that has another entry where the old one ended.
                let place = at(flip % before);
                leaves[place] = leaf(b"another");
                let forged = root(&leaves, Range { first: 0, end: after });
                let path = roots(&leaves, &consistency(before, after));
                prop_assert!(!is_consistent(before, &old, after, &forged, &path));
            }
        }
    }
}
