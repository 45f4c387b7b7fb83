//! Settings: those an organization has set itself, those it inherits from above, and the defaults.
//!
//! A value comes from the topmost organization that enforces one, else from the nearest that has set one (the
//! organization itself is the nearest), else it is the default.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{JobTx, OrganizationId, TenantTx};

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A text of 1 to so many characters, without control characters.
    Text(usize),
    /// `#` and six hexadecimal digits.
    Color,
    /// A URL that begins with `https://`.
    Url,
    /// An e-mail address.
    Email,
    /// An IANA time zone.
    TimeZone,
    /// A language as BCP 47 writes it: `en`, `de-AT`.
    Language,
    /// A whole number from the first to the second.
    Number(i64, i64),
    /// `true` or `false`.
    Flag,
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])* $name:ident = $word:literal, $shape:expr, $default:tt;)*) => {
        /// Something an organization can set.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Setting {
            $($(#[doc = $doc])* $name,)*
        }

        impl Setting {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word that is stored and shown.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// What it is for.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),*).trim_ascii_start(),)* }
            }

            /// What a value looks like.
            #[must_use]
            pub const fn shape(self) -> Shape {
                match self { $(Self::$name => $shape,)* }
            }

            /// What it is where nobody has set it.
            #[must_use]
            pub fn default(self) -> Value {
                match self { $(Self::$name => json!($default),)* }
            }
        }
    };
}

// One line each, with what it is for.
settings! {
    /// What the platform is called where the organization's people see it.
    BrandName = "brand.name", Shape::Text(100), "Gantry";
    /// The logo, as people see it.
    BrandLogo = "brand.logo_url", Shape::Url, null;
    /// The colour of what can be pressed.
    BrandColor = "brand.primary_color", Shape::Color, "#3b5bdb";
    /// Whom people write to when they need help.
    BrandSupportEmail = "brand.support_email", Shape::Email, null;
    /// Where people look when they need help.
    BrandSupportUrl = "brand.support_url", Shape::Url, null;
    /// The time zone of people who have chosen none.
    TimeZone = "time_zone", Shape::TimeZone, "UTC";
    /// The language of people who have chosen none.
    Language = "language", Shape::Language, "en";
    /// API keys that work at the same time; `null`: any number.
    ApiKeysMax = "api_keys.max", Shape::Number(1, 100_000), null;
    /// Days after which an API key expires at the latest; `null`: it need not expire.
    ApiKeysMaxDays = "api_keys.max_days", Shape::Number(1, 3_650), null;
    /// What a server may cost in a month, in the smallest unit of its currency, to be made without an approval; `null`: anything.
    ServersUnapprovedCost = "servers.unapproved_cost", Shape::Number(0, 1_000_000_000), null;
    /// Versions of the state of each server that are kept: with an old one somebody can go back.
    ServersStateVersions = "servers.state_versions", Shape::Number(2, 1_000), 50;
    /// Whether what a cloud has of ours that belongs to no server any more is removed without asking.
    ServersRemoveOrphans = "servers.remove_orphans", Shape::Flag, false;
    /// Whether what a module of the organization's own makes, of which nobody knows what it costs, is made without an approval.
    ServersUnapprovedModules = "servers.unapproved_modules", Shape::Flag, false;
}

/// The word names no setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no setting")]
pub struct UnknownSetting(pub String);

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Setting {
    type Err = UnknownSetting;

    fn from_str(word: &str) -> Result<Self, UnknownSetting> {
        Self::ALL.iter().copied().find(|it| it.as_str() == word).ok_or_else(|| UnknownSetting(word.to_owned()))
    }
}

impl Setting {
    /// Checks a value; where nobody need have one, `null` is one too.
    ///
    /// # Errors
    /// What to write instead.
    pub fn check(self, value: &Value) -> Result<(), String> {
        let fits = (value.is_null() && self.default().is_null()) || self.shape().fits(value);
        if fits { Ok(()) } else { Err(self.shape().to_string()) }
    }
}

impl Shape {
    fn fits(self, value: &Value) -> bool {
        let text = value.as_str();
        match self {
            Self::Text(longest) => text.is_some_and(|text| {
                (1..=longest).contains(&text.chars().count())
                    && !text.chars().any(char::is_control)
                    && !text.trim().is_empty()
            }),
            Self::Color => text.and_then(|text| text.strip_prefix('#')).is_some_and(|digits| {
                digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
            }),
            Self::Url => text.and_then(|text| text.strip_prefix("https://")).is_some_and(|rest| {
                (1..=2_000).contains(&rest.len())
                    && rest.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '[')
                    && rest.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\'))
            }),
            Self::Email => text.is_some_and(|text| {
                let (local, domain) = text.rsplit_once('@').unwrap_or_default();
                let plain =
                    |part: &str| part.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>,;:\\()[]".contains(&byte));
                text.len() <= 254
                    && !local.is_empty()
                    && plain(local)
                    && domain.contains('.')
                    && plain(domain)
                    && domain.split('.').all(|label| !label.is_empty())
            }),
            Self::TimeZone => text.is_some_and(|text| text.parse::<chrono_tz::Tz>().is_ok()),
            Self::Language => text.is_some_and(|text| {
                let mut parts = text.split('-');
                let language = parts.next().is_some_and(|first| {
                    (2..=3).contains(&first.len()) && first.bytes().all(|byte| byte.is_ascii_lowercase())
                });
                language
                    && text.len() <= 35
                    && parts.all(|part| {
                        (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
                    })
            }),
            Self::Number(least, most) => value.as_i64().is_some_and(|number| (least..=most).contains(&number)),
            Self::Flag => value.is_boolean(),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(longest) => write!(f, "a text of 1 to {longest} characters"),
            Self::Color => f.write_str("a colour: # and six of 0-9 and a-f"),
            Self::Url => f.write_str("a URL that begins with https://"),
            Self::Email => f.write_str("an e-mail address"),
            Self::TimeZone => f.write_str("an IANA time zone, such as Europe/Vienna"),
            Self::Language => f.write_str("a language, such as en or de-AT"),
            Self::Number(least, most) => write!(f, "a whole number from {least} to {most}"),
            Self::Flag => f.write_str("true or false"),
        }
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Nobody has set it.
    Default,
    /// The organization itself.
    Own,
    /// One above it.
    Inherited(OrganizationId),
    /// One above it, which lets nobody below set it to something else.
    Enforced(OrganizationId),
}

/// A value that an organization on the way up has set.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Who has.
    pub organization: OrganizationId,
    /// How far above: 0 is the organization itself.
    pub distance: i32,
    /// What.
    pub value: Value,
    /// Those below cannot set it to something else.
    pub enforced: bool,
    /// When.
    pub updated_at: DateTime<Utc>,
}

/// What holds for an organization.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The setting.
    pub setting: Setting,
    /// Its value.
    pub value: Value,
    /// Where that comes from.
    pub origin: Origin,
    /// What the organization has set itself, if another value holds or not.
    pub own: Option<Stored>,
}

/// What holds, of what was set on the way up, in any order.
#[must_use]
pub fn resolve(setting: Setting, stored: Vec<Stored>) -> Resolved {
    let own = stored.iter().find(|it| it.distance == 0).cloned();
    let enforced = stored.iter().filter(|it| it.enforced).max_by_key(|it| it.distance);
    let holds = enforced.or_else(|| stored.iter().min_by_key(|it| it.distance));
    let (value, origin) = match holds {
        None => (setting.default(), Origin::Default),
        Some(it) if it.distance == 0 => (it.value.clone(), Origin::Own),
        Some(it) if it.enforced => (it.value.clone(), Origin::Enforced(it.organization)),
        Some(it) => (it.value.clone(), Origin::Inherited(it.organization)),
    };
    Resolved { setting, value, origin, own }
}

/// Everything that holds for the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn all(tx: &mut TenantTx) -> Result<Vec<Resolved>, sqlx::Error> {
    let stored = on_the_way_up(tx, None).await?;
    let of = |setting: Setting| -> Vec<Stored> {
        stored.iter().filter(|(name, _)| name == setting.as_str()).map(|(_, it)| it.clone()).collect()
    };
    Ok(Setting::ALL.iter().map(|setting| resolve(*setting, of(*setting))).collect())
}

/// What holds for the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn get(tx: &mut TenantTx, setting: Setting) -> Result<Resolved, sqlx::Error> {
    let stored = on_the_way_up(tx, Some(setting)).await?;
    Ok(resolve(setting, stored.into_iter().map(|(_, it)| it).collect()))
}

async fn on_the_way_up(tx: &mut TenantTx, setting: Option<Setting>) -> Result<Vec<(String, Stored)>, sqlx::Error> {
    let organization = tx.organization();
    let rows = sqlx::query!(
        r#"select s.organization_id as "organization: OrganizationId", c.depth, s.name, s.value, s.enforced, s.updated_at
             from organization_closure c join organization_settings s on s.organization_id = c.ancestor_id
            where c.descendant_id = $1 and ($2::text is null or s.name = $2)"#,
        organization.uuid(),
        setting.map(Setting::as_str)
    )
    .fetch_all(tx.connection())
    .await?;
    let stored = rows.into_iter().map(|row| {
        let (distance, value, enforced, updated_at) = (row.depth, row.value, row.enforced, row.updated_at);
        (row.name, Stored { organization: row.organization, distance, value, enforced, updated_at })
    });
    Ok(stored.collect())
}

/// Sets it for the transaction's organization and, as far as they set nothing themselves, those below it.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set(tx: &mut TenantTx, setting: Setting, value: &Value, enforced: bool) -> Result<(), sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "insert into organization_settings (organization_id, name, value, enforced, updated_at)
         values ($1, $2, $3, $4, $5)
             on conflict (organization_id, name) do update
            set value = excluded.value, enforced = excluded.enforced, updated_at = excluded.updated_at",
        organization.uuid(),
        setting.as_str(),
        value,
        enforced,
        now
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// Forgets what the transaction's organization has set; `false`: nothing.
///
/// # Errors
/// When the database refuses or went away.
pub async fn unset(tx: &mut TenantTx, setting: Setting) -> Result<bool, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "delete from organization_settings where organization_id = $1 and name = $2",
        organization.uuid(),
        setting.as_str()
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(distance: i32, value: &str, enforced: bool) -> Stored {
        Stored {
            organization: OrganizationId::from_uuid(uuid::Uuid::from_u128(u128::from(distance.unsigned_abs()))),
            distance,
            value: json!(value),
            enforced,
            updated_at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_nearest_value_holds_unless_one_above_is_enforced() {
        let resolved = |stored: Vec<Stored>| {
            let resolved = resolve(Setting::BrandName, stored);
            (resolved.value, resolved.origin)
        };
        let id = |distance| stored(distance, "", false).organization;
        assert_eq!(resolved(vec![]), (json!("Gantry"), Origin::Default));
        assert_eq!(resolved(vec![stored(0, "own", false), stored(1, "up", false)]), (json!("own"), Origin::Own));
        assert_eq!(
            resolved(vec![stored(3, "top", false), stored(1, "up", false)]),
            (json!("up"), Origin::Inherited(id(1)))
        );
        // Of several that are enforced, the topmost: what is below it could not set it to something else either.
        let many = vec![stored(0, "own", true), stored(1, "up", true), stored(2, "top", true), stored(3, "x", false)];
        assert_eq!(resolved(many), (json!("top"), Origin::Enforced(id(2))));
        assert_eq!(resolved(vec![stored(0, "own", true), stored(2, "top", false)]), (json!("own"), Origin::Own));
    }

    #[test]
    fn values_are_as_their_setting_wants_them() {
        let good = [
            (Setting::BrandName, json!("Acme Ä")),
            (Setting::BrandLogo, json!("https://cdn.example/logo.svg?v=2")),
            (Setting::BrandLogo, Value::Null),
            (Setting::BrandColor, json!("#00ff7f")),
            (Setting::BrandSupportEmail, json!("help+eu@acme.example")),
            (Setting::TimeZone, json!("Europe/Vienna")),
            (Setting::Language, json!("de-AT")),
            (Setting::ApiKeysMax, json!(1)),
        ];
        for (setting, value) in good {
            assert_eq!(setting.check(&value), Ok(()), "{setting} {value}");
        }
        let bad = [
            (Setting::BrandName, Value::Null),
            (Setting::BrandName, json!(" ")),
            (Setting::BrandName, json!("a\nb")),
            (Setting::BrandName, json!("x".repeat(101))),
            (Setting::BrandLogo, json!("http://cdn.example/logo.svg")),
            (Setting::BrandLogo, json!("https://")),
            (Setting::BrandLogo, json!("https://a.example/\"><script>")),
            (Setting::BrandLogo, json!("javascript:alert(1)")),
            (Setting::BrandColor, json!("red")),
            (Setting::BrandColor, json!("#00ff7g")),
            (Setting::BrandColor, json!("#00FF7F")),
            (Setting::BrandSupportEmail, json!("nobody")),
            (Setting::BrandSupportEmail, json!("a@b..c")),
            (Setting::BrandSupportEmail, json!("a@b.c>\r\nBcc: all@b.c")),
            (Setting::TimeZone, json!("Mars/Olympus")),
            (Setting::Language, json!("english please")),
            (Setting::ApiKeysMax, json!(0)),
            (Setting::ApiKeysMax, json!(1.5)),
            (Setting::ApiKeysMax, json!("1")),
        ];
        for (setting, value) in bad {
            assert!(setting.check(&value).is_err(), "{setting} {value}");
        }
    }

    #[test]
    fn every_setting_has_a_default_that_fits_and_is_read_back_from_its_word() {
        for setting in Setting::ALL {
            assert_eq!(setting.check(&setting.default()), Ok(()), "{setting}");
            assert_eq!(setting.as_str().parse(), Ok(*setting));
            assert!(!setting.description().is_empty());
        }
        assert!("brand".parse::<Setting>().is_err());
    }
}
