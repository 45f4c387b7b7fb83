//! The chain of an organization's entries: each link is SHA-256 over the link before it and the fields of the entry, every
//! field behind its length, so that no two lists of fields are taken for each other.
//!
//! ```text
//! link(n) = SHA-256(link(n-1) | for each field: length as 4 bytes, big endian | field)      link(0) = 32 zero bytes
//! fields  = number, moment, organization, actor, action, everything else as JSON
//! ```

use aws_lc_rs::digest::{Context, SHA256};

/// A link, and a node of the Merkle tree.
pub type Hash = [u8; 32];

/// What the first entry is linked to.
pub const BEGINNING: Hash = [0; 32];

/// The fields one behind the other, each behind its length.
pub fn encode(fields: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(fields.iter().map(|field| field.len() + 4).sum());
    for field in fields {
        // No field comes near four gigabytes; what did would not be told apart from one that is as long as that.
        bytes.extend_from_slice(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(field.as_bytes());
    }
    bytes
}

/// The link of an entry with these fields behind `previous`.
#[must_use]
pub fn link(previous: &Hash, fields: &[&str]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(previous);
    context.update(&encode(fields));
    let mut link = [0; 32];
    link.copy_from_slice(context.finish().as_ref());
    link
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::digest::hex;

    #[test]
    fn links_are_those_of_the_specification() {
        let first = link(&BEGINNING, &["1", "2026-01-01T00:00:00Z", "org_1", "usr_1", "user.login", "{}"]);
        assert_eq!(hex(&first), "86e8f4b9345c8f6d1deb5eb5dc2506b2baf2078e4f2dc45b97db414abe78e83f");
        let second =
            link(&first, &["2", "2026-01-01T00:00:01Z", "org_1", "usr_1", "token.created", r#"{"id":"tok_1"}"#]);
        assert_eq!(hex(&second), "e3e8e7f88f8d8a7b169d308772c14932988f369201d0c2a6b4657edc51f87c38");
    }

    /// The links of a list of entries, as whoever verifies computes them.
    fn links(entries: &[Vec<String>]) -> Vec<Hash> {
        let mut previous = BEGINNING;
        let next = |entry: &Vec<String>| {
            let fields: Vec<&str> = entry.iter().map(String::as_str).collect();
            previous = link(&previous, &fields);
            previous
        };
        entries.iter().map(next).collect()
    }

    fn entries() -> impl Strategy<Value = Vec<Vec<String>>> {
        proptest::collection::vec(proptest::collection::vec("[a-z{}\"]{0,6}", 6), 2..20)
    }

    proptest! {
        #[test]
        fn any_single_edit_is_seen_there_and_in_every_later_link(
            before in entries(), place in any::<prop::sample::Index>(), field in 0_usize..6, text in "[a-z]{0,6}"
        ) {
            let place = place.index(before.len());
            let mut after = before.clone();
            after[place][field] = text;
            let (before, after, same) = (links(&before), links(&after), before[place] == after[place]);
            prop_assert_eq!(&before[..place], &after[..place]);
            for (old, new) in before.iter().zip(&after).skip(place) {
                prop_assert_eq!(old == new, same);
            }
        }

        #[test]
        fn any_removed_entry_is_seen(before in entries(), place in any::<prop::sample::Index>()) {
            let place = place.index(before.len());
            let mut after = before.clone();
            after.remove(place);
            prop_assert_ne!(links(&before).pop(), links(&after).pop());
        }

        #[test]
        fn any_two_entries_that_changed_places_are_seen(
            before in entries(), one in any::<prop::sample::Index>(), other in any::<prop::sample::Index>()
        ) {
            let (one, other) = (one.index(before.len()), other.index(before.len()));
            let mut after = before.clone();
            after.swap(one, other);
            prop_assert_eq!(links(&before).pop() == links(&after).pop(), before == after);
        }

        #[test]
        fn text_that_moves_from_one_field_to_the_next_is_seen(text in "[a-z]{1,12}", cut in 0_usize..12, moved in 0_usize..12) {
            let (cut, moved) = (cut.min(text.len()), moved.min(text.len()));
            let split = |at: usize| text.split_at(at);
            let (one, other) = (split(cut), split(moved));
            let same = link(&BEGINNING, &[one.0, one.1]) == link(&BEGINNING, &[other.0, other.1]);
            prop_assert_eq!(same, cut == moved);
        }
    }
}
