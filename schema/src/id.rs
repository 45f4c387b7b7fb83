//! Identifiers: one type per kind of thing, shown as `job_01k…` (the TypeID format), stored as `uuid`.
//!
//! Ids are version-7 UUIDs: they sort by the time they were made. That leaks the time, so secrets never
//! are ids.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use crate::Clock;

/// The text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an id of the form {prefix}_ and 26 characters, such as {prefix}_01h455vb4pex5vsknk084sn02q")]
pub struct InvalidId {
    /// What ids of this kind begin with.
    pub prefix: &'static str,
}

/// An id of a known kind of thing.
pub trait Identifier: std::fmt::Display {
    /// The name of its type.
    const TYPE: &'static str;

    /// What it is the id of, as a word: `api_key`.
    #[must_use]
    fn kind() -> String {
        let mut word = String::with_capacity(Self::TYPE.len());
        for letter in Self::TYPE.strip_suffix("Id").unwrap_or(Self::TYPE).chars() {
            if letter.is_ascii_uppercase() && !word.is_empty() {
                word.push('_');
            }
            word.push(letter.to_ascii_lowercase());
        }
        word
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
        #[sqlx(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// What ids of this kind begin with.
            pub const PREFIX: &'static str = $prefix;

            /// Takes a stored value for an id of this kind.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The value to store.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl $crate::id::Identifier for $name {
            const TYPE: &'static str = stringify!($name);
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}_{}", $prefix, base32(self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.strip_prefix($prefix)
                    .and_then(|rest| rest.strip_prefix('_'))
                    .and_then(from_base32)
                    .map(Self)
                    .ok_or(InvalidId { prefix: $prefix })
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        #[cfg(feature = "openapi")]
        crate::id::openapi_id!($name, $prefix);
    };
}

#[cfg(feature = "openapi")]
macro_rules! openapi_id {
    ($name:ident, $prefix:literal) => {
        impl poem_openapi::types::Type for $name {
            const IS_REQUIRED: bool = true;
            type RawValueType = Self;
            type RawElementValueType = Self;

            fn name() -> std::borrow::Cow<'static, str> {
                concat!("string_", $prefix, "_id").into()
            }

            fn schema_ref() -> poem_openapi::registry::MetaSchemaRef {
                let mut schema = poem_openapi::registry::MetaSchema::new("string");
                schema.pattern = Some(concat!("^", $prefix, "_[0-7][0-9a-hjkmnp-tv-z]{25}$").into());
                schema.example = Some(concat!($prefix, "_01h455vb4pex5vsknk084sn02q").into());
                poem_openapi::registry::MetaSchemaRef::Inline(Box::new(schema))
            }

            fn as_raw_value(&self) -> Option<&Self::RawValueType> {
                Some(self)
            }

            fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self::RawElementValueType> + 'a> {
                Box::new(std::iter::once(self))
            }
        }

        impl poem_openapi::types::ParseFromJSON for $name {
            fn parse_from_json(value: Option<serde_json::Value>) -> poem_openapi::types::ParseResult<Self> {
                match value.unwrap_or_default() {
                    serde_json::Value::String(text) => text.parse().map_err(poem_openapi::types::ParseError::custom),
                    other => Err(poem_openapi::types::ParseError::expected_type(other)),
                }
            }
        }

        impl poem_openapi::types::ParseFromParameter for $name {
            fn parse_from_parameter(value: &str) -> poem_openapi::types::ParseResult<Self> {
                value.parse().map_err(poem_openapi::types::ParseError::custom)
            }
        }

        impl poem_openapi::types::ToJSON for $name {
            fn to_json(&self) -> Option<serde_json::Value> {
                Some(serde_json::Value::String(self.to_string()))
            }
        }
    };
}
#[cfg(feature = "openapi")]
pub(crate) use openapi_id;

id!(
    /// A tenant.
    OrganizationId, "org");
id!(
    /// Somebody who signs in.
    PersonId, "usr");
id!(
    /// That somebody signed in.
    SessionId, "ses");
id!(
    /// What somebody proves himself with beside his password, or in place of it.
    FactorId, "fac");
id!(
    /// A sign-in that waits for its second step.
    PendingSignInId, "psi");
id!(
    /// What a passkey is to sign.
    ChallengeId, "chl");
id!(
    /// Something that was sent to somebody, to prove that it reached him.
    OneTimeId, "otk");
id!(
    /// A copy of what is known of somebody.
    ExportId, "exp");
id!(
    /// That somebody is to be forgotten.
    ErasureId, "era");
id!(
    /// Somebody is to prove himself with other factors than those he lost.
    FactorResetId, "frs");
id!(
    /// A code that was sent to somebody.
    SentCodeId, "scd");
id!(
    /// Somebody is to become a member.
    InvitationId, "inv");
id!(
    /// A role that an organization has made.
    RoleId, "rol");
id!(
    /// Support that one above an organization was given in it.
    SupportId, "sup");
id!(
    /// That an organization was locked down.
    LockdownId, "lck");
id!(
    /// A key a program signs its requests with.
    ApiKeyId, "key");
id!(
    /// A durable job.
    JobId, "job");
id!(
    /// A recurring job.
    ScheduleId, "sch");
id!(
    /// A worker process.
    WorkerId, "wrk");
id!(
    /// A batch of jobs a worker claimed together.
    ClaimId, "clm");
id!(
    /// A receiver of webhooks.
    EndpointId, "ep");
id!(
    /// Something that happened and that receivers are told.
    EventId, "evt");
id!(
    /// What the deliveries to a receiver are signed with.
    SecretId, "sec");
id!(
    /// One attempt to deliver an event to a receiver.
    AttemptId, "att");
id!(
    /// Something people must know.
    NoticeId, "ntc");
id!(
    /// A message to somebody: mail, or a text message.
    MessageId, "msg");
id!(
    /// A receiving bin of the inspector.
    BinId, "bin");
id!(
    /// A request that a bin received.
    InspectedId, "ins");
id!(
    /// An entry of the record.
    AuditEntryId, "aud");
id!(
    /// A key that signs checkpoints of the record.
    AuditKeyId, "auk");
id!(
    /// A copy of the record that was taken to its end.
    AuditArchiveId, "aua");

id!(
    /// An application that asks for tokens.
    OauthClientId, "ocl");
id!(
    /// A secret of such an application.
    OauthClientSecretId, "ocs");
id!(
    /// What a person lets an application do.
    OauthGrantId, "ogr");
id!(
    /// One run of an application through a flow, and whatever came of it.
    OauthAuthorizationId, "oau");
id!(
    /// A refresh token of an application.
    OauthRefreshTokenId, "ort");
id!(
    /// A device that waits for somebody's decision.
    OauthDeviceId, "odv");
id!(
    /// What tokens are signed with.
    SigningKeyId, "sgk");
id!(
    /// A license.
    LicenseId, "lic");
id!(
    /// What opens an account at a cloud.
    CloudCredentialId, "crd");
id!(
    /// What an organization's servers are made of, in the place of the platform's own.
    ModuleId, "mod");
id!(
    /// What a module once was.
    ModuleVersionId, "mdv");
id!(
    /// With what the platform gets into servers.
    SshKeyId, "ssk");
id!(
    /// A machine.
    ServerId, "srv");
id!(
    /// What Terraform looks after.
    StackId, "stk");
id!(
    /// Something that is done with a stack.
    RunId, "run");
id!(
    /// A version of what Terraform knows of a stack.
    TerraformStateId, "tfs");
id!(
    /// A license that waits for whoever has its code.
    LicenseClaimId, "lcl");
id!(
    /// A signed statement of what was used under licenses.
    LicenseStatementId, "lst");

impl OrganizationId {
    /// The organization that owns the platform's own jobs and schedules; the migrations make it.
    pub const PLATFORM: Self = Self(Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0000));
}

impl JobId {
    /// The moment the id was made, to the millisecond.
    #[must_use]
    pub fn minted_at(self) -> DateTime<Utc> {
        let millis = (self.0.as_u128() >> 80) as i64;
        DateTime::from_timestamp_millis(millis).unwrap_or_default()
    }
}

/// Crockford's base32 alphabet in lower case, as the TypeID specification wants.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

fn base32(uuid: Uuid) -> String {
    let value = uuid.as_u128();
    (0..26).map(|digit| char::from(ALPHABET[(value >> (125 - digit * 5)) as usize & 31])).collect()
}

fn from_base32(text: &str) -> Option<Uuid> {
    let text = text.as_bytes();
    // 26 digits are 130 bits; the first may only use three of its five.
    if text.len() != 26 || text[0] > b'7' {
        return None;
    }
    text.iter()
        .try_fold(0_u128, |value, digit| {
            let position = ALPHABET.iter().position(|letter| letter == digit)?;
            Some(value << 5 | position as u128)
        })
        .map(Uuid::from_u128)
}

/// Makes new ids: ordered within a process even inside one millisecond, random otherwise.
#[derive(Debug)]
pub struct IdMint {
    clock: Arc<dyn Clock>,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    millis: u64,
    /// The 74 bits that are neither time nor version nor variant.
    tail: u128,
    random: StdRng,
}

const TAIL_BITS: u32 = 74;

impl IdMint {
    /// A mint whose random part comes from the operating system.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with(clock, rand::make_rng())
    }

    /// A mint that makes the same ids in every run of a test.
    #[must_use]
    pub fn seeded(clock: Arc<dyn Clock>, seed: u64) -> Self {
        Self::with(clock, StdRng::seed_from_u64(seed))
    }

    fn with(clock: Arc<dyn Clock>, random: StdRng) -> Self {
        Self { clock, last: Mutex::new(Last { millis: 0, tail: 0, random }) }
    }

    /// A new id.
    pub fn mint<Id: From<Uuid>>(&self) -> Id {
        let now = u64::try_from(self.clock.now().timestamp_millis()).unwrap_or(0);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if now > last.millis {
            last.millis = now;
            last.tail = last.random.random::<u128>() >> (128 - TAIL_BITS);
        } else {
            // Same millisecond, or the clock stepped back: stay in order.
            last.tail += u128::from(last.random.random::<u32>()) + 1;
            if last.tail >> TAIL_BITS != 0 {
                last.millis += 1;
                last.tail = last.random.random::<u128>() >> (128 - TAIL_BITS);
            }
        }
        let (high, low) = (last.tail >> 62, last.tail & ((1 << 62) - 1));
        let value = u128::from(last.millis) << 80 | 7 << 76 | high << 64 | 2 << 62 | low;
        Id::from(Uuid::from_u128(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FixedClock;

    fn mint() -> IdMint {
        IdMint::seeded(Arc::new(FixedClock::at(DateTime::UNIX_EPOCH + chrono::Duration::days(20_000))), 7)
    }

    #[test]
    fn ids_follow_the_typeid_specification() {
        let cases = [
            ("00000000000000000000000000", "00000000-0000-0000-0000-000000000000"),
            ("0000000000000000000000000g", "00000000-0000-0000-0000-000000000010"),
            ("7zzzzzzzzzzzzzzzzzzzzzzzzz", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
            ("0123456789abcdefghjkmnpqrs", "0110c853-1d09-52d8-d73e-1194e95b5f19"),
            ("01h455vb4pex5vsknk084sn02q", "01890a5d-ac96-774b-bcce-b302099a8057"),
        ];
        for (text, uuid) in cases {
            let uuid: Uuid = uuid.parse().unwrap();
            assert_eq!(base32(uuid), text);
            assert_eq!(from_base32(text), Some(uuid));
        }
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for text in [
            "",
            "job",
            "job_",
            "org_01h455vb4pex5vsknk084sn02q",
            "job_8zzzzzzzzzzzzzzzzzzzzzzzzz",
            "job_01H455VB4PEX5VSKNK084SN02Q",
            "job_01h455vb4pex5vsknk084sn02",
            "job_ilou5vb4pex5vsknk084sn02qq",
        ] {
            assert_eq!(text.parse::<JobId>(), Err(InvalidId { prefix: "job" }), "{text}");
        }
    }

    #[test]
    fn a_kind_of_thing_is_called_by_a_word() {
        assert_eq!((ApiKeyId::kind(), OrganizationId::kind()), ("api_key".to_owned(), "organization".to_owned()));
    }

    #[test]
    fn ids_of_one_millisecond_keep_their_order() {
        let mint = mint();
        let ids: Vec<JobId> = (0..10_000).map(|_| mint.mint()).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
        assert_eq!(ids[9_999].minted_at(), mint.clock.now());
        assert_eq!(ids[0].uuid().get_version_num(), 7);
    }
}
