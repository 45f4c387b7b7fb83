//! Accounts at clouds: whose they are, what there is to be had and what it costs, what they may still have, and what is
//! there of ours.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use url::Url;

use super::plausible::USUAL_DISK;
use super::price::Price;
use super::template::{INSTALLATION, LABEL, ORGANIZATION};
use super::{Because, Blueprint, Refusal, aws, azure, digitalocean, gcp, hetzner};
use crate::error::Cause;
use crate::{Error, Result, Secret};

/// Whose account it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Vendor {
    /// Amazon Web Services.
    Aws,
    /// Google Cloud.
    Gcp,
    /// Microsoft Azure.
    Azure,
    /// DigitalOcean.
    Digitalocean,
    /// Hetzner Cloud.
    Hetzner,
}

impl Vendor {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Aws, Self::Gcp, Self::Azure, Self::Digitalocean, Self::Hetzner];

    /// The word programs compare with.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Gcp => "gcp",
            Self::Azure => "azure",
            Self::Digitalocean => "digitalocean",
            Self::Hetzner => "hetzner",
        }
    }

    /// As it is called.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Aws => "AWS",
            Self::Gcp => "Google Cloud",
            Self::Azure => "Azure",
            Self::Digitalocean => "DigitalOcean",
            Self::Hetzner => "Hetzner Cloud",
        }
    }
}

impl fmt::Display for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word names none of the clouds that have accounts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no cloud with accounts")]
pub struct UnknownVendor(pub String);

impl FromStr for Vendor {
    type Err = UnknownVendor;

    fn from_str(word: &str) -> Result<Self, UnknownVendor> {
        Self::ALL.into_iter().find(|it| it.as_str() == word).ok_or_else(|| UnknownVendor(word.to_owned()))
    }
}

/// What opens an account.
#[derive(Debug, Clone)]
pub enum Key {
    /// A lasting key of a user.
    Aws {
        /// `AKIA…`
        id: String,
        /// What belongs to it.
        secret: Secret,
    },
    /// A key of a service account.
    Gcp(Box<gcp::ServiceAccount>),
    /// A client secret of an application.
    Azure {
        /// The directory.
        tenant: String,
        /// The application.
        client: String,
        /// Its secret.
        secret: Secret,
        /// What is billed.
        subscription: String,
    },
    /// A personal access token.
    Digitalocean {
        /// It.
        token: Secret,
    },
    /// A token of a project.
    Hetzner {
        /// It.
        token: Secret,
    },
}

impl Key {
    /// Made of its members: `token`; `access_key_id` and `secret_access_key`; `service_account`; `tenant_id`, `client_id`,
    /// `client_secret` and `subscription_id`.
    ///
    /// # Errors
    /// When a member is missing, or cannot be one.
    pub fn of<'a>(vendor: Vendor, members: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let members: Vec<(&str, &str)> = members.into_iter().collect();
        let member = |name: &'static str| {
            let found = members.iter().find(|(it, value)| *it == name && !value.is_empty());
            found.map(|(_, value)| (*value).to_owned()).ok_or_else(|| {
                let source = "it is missing".into();
                Error::Configuration { what: format!("the credential of {}, its {name}", vendor.title()), source }
            })
        };
        // They become parts of addresses.
        let id = |name: &'static str| {
            let value = member(name)?;
            if value.len() <= 64 && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
                Ok(value)
            } else {
                let source = "it is none".into();
                Err(Error::Configuration { what: format!("the credential of {}, its {name}", vendor.title()), source })
            }
        };
        Ok(match vendor {
            Vendor::Aws => Self::Aws { id: id("access_key_id")?, secret: Secret::new(member("secret_access_key")?) },
            Vendor::Gcp => Self::Gcp(Box::new(gcp::ServiceAccount::read(&member("service_account")?)?)),
            Vendor::Azure => Self::Azure {
                tenant: id("tenant_id")?,
                client: id("client_id")?,
                secret: Secret::new(member("client_secret")?),
                subscription: id("subscription_id")?,
            },
            Vendor::Digitalocean => Self::Digitalocean { token: Secret::new(member("token")?) },
            Vendor::Hetzner => Self::Hetzner { token: Secret::new(member("token")?) },
        })
    }

    /// Of which cloud it is.
    #[must_use]
    pub const fn vendor(&self) -> Vendor {
        match self {
            Self::Aws { .. } => Vendor::Aws,
            Self::Gcp(_) => Vendor::Gcp,
            Self::Azure { .. } => Vendor::Azure,
            Self::Digitalocean { .. } => Vendor::Digitalocean,
            Self::Hetzner { .. } => Vendor::Hetzner,
        }
    }

    /// What Terraform's plugin finds in its environment: the only way by which it learns the credential.
    #[must_use]
    pub fn environment(&self, region: &str) -> Vec<(String, String)> {
        let named = |all: &[(&str, &str)]| {
            all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
        };
        match self {
            Self::Aws { id, secret } => named(&[
                ("AWS_ACCESS_KEY_ID", id),
                ("AWS_SECRET_ACCESS_KEY", secret.expose()),
                ("AWS_REGION", region),
                // It is not to ask the machine it runs on for another.
                ("AWS_EC2_METADATA_DISABLED", "true"),
            ]),
            Self::Gcp(account) => {
                named(&[("GOOGLE_CREDENTIALS", account.file.expose()), ("GOOGLE_PROJECT", &account.project)])
            }
            Self::Azure { tenant, client, secret, subscription } => named(&[
                ("ARM_TENANT_ID", tenant),
                ("ARM_CLIENT_ID", client),
                ("ARM_CLIENT_SECRET", secret.expose()),
                ("ARM_SUBSCRIPTION_ID", subscription),
                ("ARM_USE_CLI", "false"),
            ]),
            Self::Digitalocean { token } => named(&[("DIGITALOCEAN_TOKEN", token.expose())]),
            Self::Hetzner { token } => named(&[("HCLOUD_TOKEN", token.expose())]),
        }
    }

    /// What must not be seen anywhere.
    pub(super) fn secrets(&self) -> Vec<&str> {
        match self {
            Self::Aws { secret, .. } | Self::Azure { secret, .. } => vec![secret.expose()],
            Self::Gcp(account) => vec![account.key.expose()],
            Self::Digitalocean { token } | Self::Hetzner { token } => vec![token.expose()],
        }
    }
}

/// Seconds since 1970, of whoever keeps the time.
pub type Now = Arc<dyn Fn() -> i64 + Send + Sync>;

/// How accounts are reached.
#[derive(Clone)]
pub struct Reach {
    /// Where the cloud is instead of where it really is, without a path: for a server that stands in for it.
    pub endpoint: Option<Url>,
    /// The time.
    pub now: Now,
    /// The time for one answer.
    pub deadline: Duration,
}

impl Reach {
    /// Where clouds really are.
    #[must_use]
    pub fn real(now: Now) -> Self {
        Self { endpoint: None, now, deadline: Duration::from_secs(30) }
    }

    /// Where somebody stands in for the cloud.
    ///
    /// # Errors
    /// When that is no `https://` and no `http://` of this machine.
    pub fn at(self, endpoint: &str) -> Result<Self> {
        let wrong = |source: Cause| Error::Configuration { what: "the address of a cloud".to_owned(), source };
        let url: Url = endpoint.parse().map_err(|error: url::ParseError| wrong(error.into()))?;
        let local = url.host_str().is_some_and(|host| matches!(host, "127.0.0.1" | "localhost" | "[::1]"));
        let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.path() == "/";
        if !plain || !(url.scheme() == "https" || (url.scheme() == "http" && local)) {
            return Err(wrong("it is https://host, or http://127.0.0.1:port".into()));
        }
        Ok(Self { endpoint: Some(url), ..self })
    }

    /// The address of one of a cloud's services, without a slash at its end.
    pub(super) fn base(&self, really: &str) -> String {
        let url = self.endpoint.as_ref().map_or(really, Url::as_str);
        url.trim_end_matches('/').to_owned()
    }
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reach")
            .field("endpoint", &self.endpoint)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// Opens an account. Nothing is asked yet.
///
/// # Errors
/// When no client can be made.
pub fn open(key: Key, reach: &Reach) -> Result<Arc<dyn Account>> {
    Ok(match key.vendor() {
        Vendor::Hetzner => Arc::new(hetzner::Hetzner::new(&key, reach)?),
        Vendor::Digitalocean => Arc::new(digitalocean::DigitalOcean::new(&key, reach)?),
        Vendor::Aws => Arc::new(aws::Aws::new(&key, reach)?),
        Vendor::Gcp => Arc::new(gcp::Gcp::new(&key, reach)?),
        Vendor::Azure => Arc::new(azure::Azure::new(&key, reach)?),
    })
}

/// An account at a cloud. What it answers is read, never cached.
#[async_trait]
pub trait Account: Send + Sync {
    /// At which cloud.
    fn vendor(&self) -> Vendor;

    /// Whose account it is, and what may be done with it.
    async fn validate(&self) -> Result<Identity>;

    /// What there is to be had. Where sizes are asked for region by region (AWS, Google Cloud, Azure), sizes and images are
    /// those of `region`, and without one there are only regions.
    async fn catalogue(&self, region: Option<&str>) -> Result<Catalogue>;

    /// Whether the account may have what is needed.
    async fn headroom(&self, needs: &Needs<'_>) -> Result<Headroom>;

    /// What is there in a region that carries a label, in the order in which it can be removed. Of every kind that the
    /// templates make.
    async fn tagged(&self, region: &str, label: &str) -> Result<Vec<Thing>>;

    /// What is there in a region that was made for an organization by an installation, whatever the server, in the order in
    /// which it can be removed. Of kinds that have no labels, what is called as templates call things.
    async fn marked(&self, region: &str, mark: Mark<'_>) -> Result<Vec<Marked>>;

    /// Removes one of those. What something else still holds cannot be removed yet: that is an error that passes.
    async fn remove(&self, thing: &Thing) -> Result<Removal>;
}

/// Whose account it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// By what the cloud knows the account, the project or the subscription; empty where it does not say.
    pub account: String,
    /// By what people know it.
    pub name: String,
    /// What may be done with it, as far as the cloud says so.
    pub permissions: Vec<Permission>,
}

impl Identity {
    /// What is needed and not permitted.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        self.permissions.iter().filter(|it| it.held == Some(false)).map(|it| it.name.as_str())
    }
}

/// Something that has to be permitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// The cloud's own name for it.
    pub name: String,
    /// Whether it is; `None`: the cloud does not say.
    pub held: Option<bool>,
}

/// What there is to be had. It can be written down and read again: whoever asks often keeps it, with the time he asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    /// Of all its prices; ISO 4217. Taxes are not in them.
    #[serde(deserialize_with = "known_currency")]
    pub currency: Currency,
    /// Where.
    pub regions: Vec<Region>,
    /// How large.
    pub sizes: Vec<Size>,
    /// With what to begin. Only those from which a template makes a server: Debian and Ubuntu.
    pub images: Vec<Image>,
    /// What costs extra.
    pub extras: Extras,
}

/// One of the currencies clouds have their prices in, by ISO 4217.
pub type Currency = &'static str;

/// Currencies clouds have their prices in.
pub(super) fn currency(said: &str) -> Option<Currency> {
    ["EUR", "USD"].into_iter().find(|known| *known == said)
}

fn known_currency<'de, D: Deserializer<'de>>(from: D) -> Result<Currency, D::Error> {
    let said = String::deserialize(from)?;
    currency(&said).ok_or_else(|| D::Error::custom("the currency is not known"))
}

/// Where servers are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// The cloud's word for it.
    pub id: String,
    /// Where that is, in words.
    pub name: String,
    /// Whether this account can have something there.
    pub available: bool,
    /// The part of the network it belongs to, where networks are larger than regions (Hetzner).
    pub network_zone: String,
}

/// How large a server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// The cloud's word for it.
    pub id: String,
    /// Processors.
    pub cores: u32,
    /// Memory.
    pub memory_mib: u64,
    /// The disk that belongs to it; 0: it has what is asked for.
    pub disk_gib: u32,
    /// What its processors understand.
    pub architecture: Architecture,
    /// Of which quota it takes, where a cloud has one for each family.
    pub family: String,
    /// Whether it is on its way out.
    pub deprecated: bool,
    /// Where it is to be had, and for how much.
    pub offers: Vec<Offer>,
}

impl Size {
    /// What is offered in a region.
    #[must_use]
    pub fn offer(&self, region: &str) -> Option<&Offer> {
        self.offers.iter().find(|offer| offer.region == region)
    }
}

/// What a region has of a size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Where.
    pub region: String,
    /// The parts of the region that have it, where that matters.
    pub zones: Vec<String>,
    /// Whether there is any at the moment.
    pub available: bool,
    /// For an hour; `None`: the cloud does not say.
    pub hourly: Option<Price>,
    /// For a month; `None`: the cloud does not say.
    pub monthly: Option<Price>,
}

/// What processors understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// Intel's and AMD's.
    #[default]
    X86,
    /// ARM's, with 64 bits.
    Arm,
}

impl Architecture {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::X86 => "x86",
            Self::Arm => "arm",
        }
    }

    /// From the words clouds have for it.
    pub(super) fn read(word: &str) -> Self {
        let word = word.to_ascii_lowercase();
        if word.starts_with("arm") || word == "aarch64" { Self::Arm } else { Self::X86 }
    }
}

/// What a server begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The cloud's word for it.
    pub id: String,
    /// In words.
    pub name: String,
    /// Processors that can run it; `None`: any.
    pub architecture: Option<Architecture>,
}

/// What costs extra, in a month; `None`: the cloud does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extras {
    /// A GiB of a volume.
    pub volume_gib: Option<Price>,
    /// A GiB of the server's own disk, where that is not part of its size.
    pub disk_gib: Option<Price>,
    /// A public address.
    pub address: Option<Price>,
}

/// What is needed of an account.
#[derive(Debug, Clone, Copy)]
pub struct Needs<'a> {
    /// Where.
    pub region: &'a str,
    /// One of this size.
    pub size: &'a Size,
    /// With an address of its own that stays.
    pub static_address: bool,
    /// With a volume, in GiB.
    pub volume_gib: u32,
}

/// What an account may have of something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Of what, as the cloud calls it.
    pub name: String,
    /// How much more is needed.
    pub needed: u64,
    /// How much there is.
    pub used: u64,
    /// How much there may be.
    pub allowed: u64,
}

impl Quota {
    /// Whether it is enough.
    #[must_use]
    pub const fn fits(&self) -> bool {
        self.used.saturating_add(self.needed) <= self.allowed
    }
}

/// Whether an account may have what is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Headroom {
    /// What the cloud says of it.
    Said(Vec<Quota>),
    /// The cloud does not say before it is tried.
    Unsaid,
}

impl Headroom {
    /// Why it cannot be had, if the cloud says so.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        let Self::Said(quotas) = self else { return None };
        let short: Vec<String> = quotas
            .iter()
            .filter(|quota| !quota.fits())
            .map(|it| {
                format!("{} more of {} are needed, and {} of {} are used", it.needed, it.name, it.used, it.allowed)
            })
            .collect();
        (!short.is_empty()).then(|| Refusal { because: Because::Quota, said: short.join("; ") })
    }
}

/// Something of ours at a cloud.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thing {
    /// What it is, in the cloud's word.
    pub kind: String,
    /// By what the cloud knows it.
    pub id: String,
    /// By what people know it.
    pub name: String,
    /// Where it is.
    pub region: String,
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)?;
        if self.name.is_empty() { Ok(()) } else { write!(f, " ({})", self.name) }
    }
}

/// Who made something, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark<'a> {
    /// The installation.
    pub installation: &'a str,
    /// The organization.
    pub organization: &'a str,
}

impl<'a> Mark<'a> {
    /// The one that is made for a server with these options.
    #[must_use]
    pub const fn of(options: &super::Options<'a>) -> Self {
        Self { installation: options.installation, organization: options.organization }
    }
}

/// Something at a cloud that looks like ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// What it is.
    pub thing: Thing,
    /// The label of the server it was made for.
    pub server: String,
    /// It says itself who made it, and for whom. Without, it is only called like something of ours.
    pub by_label: bool,
}

impl Marked {
    /// Something with labels, if they are those of the mark.
    pub(super) fn of_labels<'a>(thing: Thing, mark: Mark<'_>, label: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let is = |name: &str, wanted: &str| label(name).is_some_and(|it| it.eq_ignore_ascii_case(wanted));
        let ours = is(INSTALLATION, mark.installation) && is(ORGANIZATION, mark.organization);
        let server = label(LABEL).filter(|_| ours)?.to_ascii_lowercase();
        Some(Self { thing, server, by_label: true })
    }

    /// Something without labels, if it is called as templates call things: `gantry-srv-01h455vb4pex5vsknk084sn02q`.
    pub(super) fn of_name(thing: Thing) -> Option<Self> {
        let rest = thing.name.strip_prefix("gantry-srv-")?;
        let is_id = |id: &&str| id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let (id, rest) = (rest.get(..26).filter(is_id)?, rest.get(26..)?);
        if !(rest.is_empty() || rest.starts_with('-')) {
            return None;
        }
        Some(Self { server: format!("srv_{id}"), by_label: false, thing })
    }
}

/// What came of removing something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is removed, or about to be.
    Removed,
    /// It was gone.
    Gone,
}

/// What a server costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// ISO 4217.
    pub currency: &'static str,
    /// In an hour; `None`: the cloud does not say what the size costs.
    pub hourly: Option<Price>,
    /// In a month; `None`: the cloud does not say what the size costs.
    pub monthly: Option<Price>,
    /// What that is made of, in a month.
    pub parts: Vec<(&'static str, Price)>,
    /// What is not in it.
    pub without: Vec<&'static str>,
}

impl Catalogue {
    /// What a server costs, going by this catalogue.
    #[must_use]
    pub fn estimate(&self, wanted: &Blueprint<'_>) -> Estimate {
        let mut without = vec!["taxes", "traffic", "backups"];
        let size = self.sizes.iter().find(|size| size.id == wanted.size);
        let offer = size.and_then(|size| size.offer(wanted.region));
        let (hourly, monthly) = offer.map_or((None, None), |offer| (offer.hourly, offer.monthly));
        let mut parts: Vec<(&'static str, Price)> = monthly.map(|price| ("server", price)).into_iter().collect();
        let mut add = |what: &'static str, price: Option<Price>, many: u32| match price {
            Some(price) => parts.push((what, price * many)),
            None => without.push(what),
        };
        add("address", self.extras.address, 1);
        if size.is_some_and(|size| size.disk_gib == 0) {
            add("disk", self.extras.disk_gib, wanted.options.disk_gib.unwrap_or(USUAL_DISK));
        }
        if let Some(volume) = wanted.options.volume_gib {
            add("volume", self.extras.volume_gib, volume);
        }
        let extras: Price = parts.iter().filter(|(what, _)| *what != "server").map(|(_, price)| *price).sum();
        let hours = i64::from(super::price::HOURS);
        Estimate {
            currency: self.currency,
            hourly: hourly.map(|price| price + Price::of_nanos((extras.nanos() + hours - 1) / hours)),
            monthly: monthly.map(|price| price + extras),
            parts,
            without,
        }
    }
}
