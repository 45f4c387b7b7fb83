//! What a cloud offers, as people name it, and whether the catalogue that was last read has it: what is misspelt is refused
//! before a job is asked for.

use std::fmt;
use std::str::FromStr;

use chrono::Duration;
use gantry_schema::credentials::accounts;
use gantry_schema::{CloudCredentialId, JobTx as _, TenantTx};
use serde::Deserialize;

use crate::error::Error;
use crate::field::{Wrong, text_type};

/// How old a catalogue may be by which something is refused: clouds get new regions and sizes.
const AGE: Duration = Duration::days(2);

/// Names that are shown where there is no such thing.
const SHOWN: usize = 5;

/// A cloud's word for a region, a size or an image: `fsn1`, `Standard_B2s`, `debian-cloud/debian-12`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CloudWord(String);

impl CloudWord {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<CloudWord> for String {
    fn from(word: CloudWord) -> Self {
        word.0
    }
}

impl FromStr for CloudWord {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:/-".contains(&byte);
        if (1..=100).contains(&text.len()) && text.bytes().all(fits) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Wrong("this is no word of a cloud's; write 1 to 100 of letters, digits, _, ., :, / and -".into()))
        }
    }
}

impl fmt::Display for CloudWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(CloudWord, "cloud-word", |schema| {
    schema.pattern = Some("^[A-Za-z0-9_.:/-]{1,100}$".into());
});

/// Of a catalogue, what is named.
#[derive(Debug, Default, Deserialize)]
struct Kept {
    regions: Vec<Named>,
    sizes: Vec<Named>,
    images: Vec<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    id: String,
}

/// What is wanted of a cloud.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) region: &'a str,
    /// `None`: a module says so.
    pub(super) size: Option<&'a str>,
    /// `None`: it is there already, or a module says so.
    pub(super) image: Option<&'a str>,
}

/// Whether what is wanted is in the catalogue that was last read with a credential, as far as one was.
///
/// # Errors
/// Names what is not, and what may have been meant.
pub(super) async fn check(tx: &mut TenantTx, credential: CloudCredentialId, wanted: Wanted<'_>) -> Result<(), Error> {
    let everywhere = kept(tx, credential, "").await?;
    known("region", wanted.region, &everywhere.regions)?;
    let mut there = kept(tx, credential, wanted.region).await?;
    if there.sizes.is_empty() {
        there = everywhere;
    }
    if let Some(size) = wanted.size {
        known("size", size, &there.sizes)?;
    }
    match wanted.image {
        Some(image) => known("image", image, &there.images),
        None => Ok(()),
    }
}

async fn kept(tx: &mut TenantTx, credential: CloudCredentialId, region: &str) -> Result<Kept, Error> {
    let now = tx.now();
    match accounts::catalogue(tx, credential, region).await? {
        Some((kept, read_at)) if now - read_at < AGE => serde_json::from_value(kept).map_err(Error::internal),
        _ => Ok(Kept::default()),
    }
}

fn known(what: &'static str, wanted: &str, all: &[Named]) -> Result<(), Error> {
    if all.is_empty() || all.iter().any(|it| it.id == wanted) {
        return Ok(());
    }
    let lower = wanted.to_lowercase();
    let distance = |it: &&Named| {
        let name = it.id.to_lowercase();
        let distance = strsim::damerau_levenshtein(&lower, &name);
        if lower.len() >= 2 && name.contains(&lower) { distance.min(2) } else { distance }
    };
    let mut near: Vec<&Named> = all.iter().collect();
    near.sort_by_key(distance);
    let near: Vec<&str> = near.iter().take(SHOWN).map(|it| it.id.as_str()).collect();
    let detail = format!("the cloud has no {what} {wanted:?}; did you mean {}?", near.join(", "));
    Err(Error::field(what, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_misspelt_is_refused_with_what_may_have_been_meant() {
        let all: Vec<Named> = ["fsn1", "nbg1", "hel1"].map(|id| Named { id: id.to_owned() }).into();
        assert!(known("region", "fsn1", &all).is_ok() && known("region", "fsn", &[]).is_ok());
        let said = format!("{:?}", known("region", "fns1", &all).unwrap_err());
        assert!(said.contains("did you mean fsn1, "), "{said}");
    }
}
