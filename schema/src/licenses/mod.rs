//! Licenses: what an organization may use, as a signed key that anybody verifies without asking anybody.
//!
//! The key and its rules are pure: [`paseto`] signs, [`keys`] names what is signed with, [`claims`] is what a license says,
//! [`chain`] is a license with those above it that it was made of, [`domain`] where it may be used, and [`evaluate`] what
//! follows from all of it at a moment; [`alerts`] is what is told before that surprises anybody. [`code`] is what people type to
//! fetch a key, [`revocations`] are lists of what an issuer revoked, and [`statements`] say what was used, both signed and carried
//! by hand where nothing is connected. [`standing`] is what is in force by the tables, and [`queries`] are the tables, with
//! [`claiming`], [`history`], [`listed`] and [`stated`].

pub mod alerts;
pub mod chain;
pub mod claiming;
pub mod claims;
pub mod code;
pub mod domain;
pub mod evaluate;
pub mod features;
pub mod history;
pub mod keys;
pub mod listed;
pub mod paseto;
pub mod queries;
pub mod revocations;
pub mod standing;
pub mod stated;
pub mod statements;

pub use chain::{Anchors, Chain, ChainError, within};
pub use claims::{Claims, Delegation, Kind, Mode};
pub use evaluate::{Access, Circumstances, Evaluation, Link, State, Status};
pub use features::{Feature, Limit};
pub use keys::{KeyId, PublicKey, PublicKeys, SecretKey};
pub use standing::{Licensed, Trust, licensed};
