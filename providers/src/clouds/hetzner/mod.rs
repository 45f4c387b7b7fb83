//! Hetzner Cloud: JSON, a token, pages by number. It does not say what an account may have before it is tried.

mod template;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use hyper::Method;

use super::Vendor;
use super::account::{
    Account, Architecture, Catalogue, Extras, Headroom, Identity, Image, Key, Mark, Marked, Needs, Offer, Permission,
    Reach, Region, Removal, Size, Thing, currency,
};
use super::price::Price;
use super::template::{INSTALLATION, LABEL, clean};
use super::wire::{Answer, Ask, Kind, PAGES, Wire, endless, segment, unusable};
use crate::{Error, Result, Secret};

pub(super) use template::pieces;

/// Where it is.
const API: &str = "https://api.hetzner.cloud";

/// Kinds of things, in the order in which they can be removed.
const KINDS: [&str; 6] = ["servers", "volumes", "primary_ips", "firewalls", "networks", "ssh_keys"];

/// A project of Hetzner Cloud.
pub(super) struct Hetzner {
    wire: Wire,
    base: String,
    token: Secret,
}

#[derive(Deserialize)]
struct Refused {
    error: Said,
}

#[derive(Deserialize)]
struct Said {
    code: String,
    message: String,
}

#[derive(Deserialize)]
struct Page {
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    pagination: Option<Pagination>,
}

#[derive(Deserialize)]
struct Pagination {
    next_page: Option<u32>,
}

#[derive(Deserialize)]
struct Location {
    name: String,
    #[serde(default)]
    city: String,
    #[serde(default)]
    country: String,
    network_zone: String,
}

#[derive(Deserialize)]
struct ServerType {
    name: String,
    cores: u32,
    memory: f64,
    disk: u32,
    architecture: String,
    deprecation: Option<Value>,
    #[serde(default)]
    deprecated: bool,
    #[serde(default)]
    locations: Vec<Available>,
    prices: Vec<Offered>,
}

#[derive(Deserialize)]
struct Available {
    name: String,
    #[serde(default = "yes")]
    available: bool,
}

const fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct Offered {
    location: String,
    price_hourly: Net,
    price_monthly: Net,
}

#[derive(Deserialize)]
struct Net {
    net: Price,
}

#[derive(Deserialize)]
struct System {
    name: Option<String>,
    #[serde(default)]
    description: String,
    architecture: String,
    os_flavor: String,
    deprecated: Option<String>,
}

#[derive(Deserialize)]
struct Pricing {
    currency: String,
    volume: Option<Volume>,
    #[serde(default)]
    primary_ips: Vec<PrimaryIp>,
}

#[derive(Deserialize)]
struct Volume {
    price_per_gb_month: Net,
}

#[derive(Deserialize)]
struct PrimaryIp {
    #[serde(rename = "type")]
    kind: String,
    prices: Vec<AddressPrice>,
}

#[derive(Deserialize)]
struct AddressPrice {
    price_monthly: Net,
}

impl Hetzner {
    pub(super) fn new(key: &Key, reach: &Reach) -> Result<Self> {
        let Key::Hetzner { token } = key else { return Err(unusable("the credential", "it is another cloud's")) };
        let base = format!("{}/v1", reach.base(API));
        Ok(Self { wire: Wire::new(reach, &key.secrets())?, base, token: token.clone() })
    }

    async fn ask(&self, ask: Ask) -> Result<Answer> {
        let answer = self.wire.send(ask.bearer(self.token.expose())).await?;
        if answer.is_success() { Ok(answer) } else { Err(self.refusal(&answer)) }
    }

    fn refusal(&self, answer: &Answer) -> Error {
        let read = answer.read::<Refused>().map(|it| it.error).ok();
        let Said { code, message } = read.unwrap_or_else(|| Said { code: String::new(), message: String::new() });
        let kind = match code.as_str() {
            "locked"
            | "conflict"
            | "resource_locked"
            | "resource_in_use"
            | "maintenance"
            | "must_be_unassigned"
            | "volume_still_attached"
            | "resource_unavailable" => Kind::Moment,
            "not_found" => Kind::Missing,
            code => Kind::said(answer.status, code, ""),
        };
        self.wire.refusal(kind, answer, &code, &message)
    }

    /// All of a list.
    async fn all<T: DeserializeOwned>(&self, path: &str, query: &str) -> Result<Vec<T>> {
        let mut found = Vec::new();
        let mut page = 1;
        for _ in 0..PAGES {
            let url = format!("{}/{path}?page={page}&per_page=50{query}", self.base);
            let mut body: Value = self.ask(Ask::get(url)).await?.read()?;
            let list = body.get_mut(path).map(Value::take).unwrap_or_default();
            let list: Vec<T> = serde_json::from_value(list)
                .map_err(|_| Error::Protocol(format!("{path} is not what it is to be").into()))?;
            found.extend(list);
            let meta = serde_json::from_value::<Page>(body).ok().and_then(|it| it.meta?.pagination?.next_page);
            match meta {
                Some(next) if next > page => page = next,
                _ => return Ok(found),
            }
        }
        Err(endless())
    }

    /// Whether something can be made: a key that is none is refused for being none, or for the token.
    async fn may_write(&self) -> Result<Option<bool>> {
        let ask = Ask::new(Method::POST, format!("{}/ssh_keys", self.base)).json(&json!({}));
        match self.ask(ask).await {
            Err(Error::Rejected { code, .. }) if code == "token_readonly" || code == "forbidden" => Ok(Some(false)),
            Err(Error::Rejected { code, .. }) if code == "invalid_input" || code == "json_error" => Ok(Some(true)),
            Err(Error::Rejected { .. }) | Ok(_) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Account for Hetzner {
    fn vendor(&self) -> Vendor {
        Vendor::Hetzner
    }

    async fn validate(&self) -> Result<Identity> {
        let servers: Value = self.ask(Ask::get(format!("{}/servers?per_page=1", self.base))).await?.read()?;
        if !servers["servers"].is_array() {
            return Err(Error::Protocol("it does not say which servers there are".into()));
        }
        let permission = |name: &str, held| Permission { name: name.to_owned(), held };
        let permissions = vec![permission("read", Some(true)), permission("write", self.may_write().await?)];
        // A token belongs to a project, and the project is not told.
        Ok(Identity { account: String::new(), name: String::new(), permissions })
    }

    async fn catalogue(&self, _: Option<&str>) -> Result<Catalogue> {
        let pricing = self.ask(Ask::get(format!("{}/pricing", self.base))).await?.read::<Value>()?;
        let pricing: Pricing = serde_json::from_value(pricing["pricing"].clone())
            .map_err(|_| Error::Protocol("the prices are not what they are to be".into()))?;
        let currency = currency(&pricing.currency)
            .ok_or_else(|| Error::Protocol("the prices are in a currency that is not known".into()))?;
        let locations: Vec<Location> = self.all("locations", "").await?;
        let types: Vec<ServerType> = self.all("server_types", "").await?;
        let images: Vec<System> = self.all("images", "&type=system&status=available").await?;
        let address = pricing.primary_ips.iter().find(|it| it.kind == "ipv4").and_then(|it| it.prices.first());
        Ok(Catalogue {
            currency,
            regions: locations
                .into_iter()
                .map(|it| Region {
                    name: [it.city, it.country].join(", ").trim_matches([',', ' ']).to_owned(),
                    id: it.name,
                    available: true,
                    network_zone: it.network_zone,
                })
                .collect(),
            sizes: types.into_iter().map(size).collect(),
            images: images.into_iter().filter_map(image).collect(),
            extras: Extras {
                volume_gib: pricing.volume.map(|it| it.price_per_gb_month.net),
                disk_gib: None,
                address: address.map(|it| it.price_monthly.net),
            },
        })
    }

    async fn headroom(&self, _: &Needs<'_>) -> Result<Headroom> {
        Ok(Headroom::Unsaid)
    }

    async fn tagged(&self, _: &str, label: &str) -> Result<Vec<Thing>> {
        let selector = segment(&format!("{LABEL}=={}", clean(label, "._-", 63)));
        let mut things = Vec::new();
        for kind in KINDS {
            let found: Vec<Value> = self.all(kind, &format!("&label_selector={selector}")).await?;
            things.extend(found.iter().filter_map(|it| thing(kind, it)));
        }
        Ok(things)
    }

    async fn marked(&self, _: &str, mark: Mark<'_>) -> Result<Vec<Marked>> {
        let selector = segment(&format!("{INSTALLATION}=={}", clean(mark.installation, "._-", 63)));
        let mut marked = Vec::new();
        for kind in KINDS {
            let found: Vec<Value> = self.all(kind, &format!("&label_selector={selector}")).await?;
            marked.extend(found.iter().filter_map(|it| {
                Marked::of_labels(thing(kind, it)?, mark, |name| it.pointer(&format!("/labels/{name}"))?.as_str())
            }));
        }
        Ok(marked)
    }

    async fn remove(&self, thing: &Thing) -> Result<Removal> {
        if !KINDS.contains(&thing.kind.as_str()) {
            return Err(unusable("the thing to remove", "it is of no kind that is made there"));
        }
        let url = format!("{}/{}/{}", self.base, thing.kind, segment(&thing.id));
        match self.ask(Ask::new(Method::DELETE, url)).await {
            Ok(_) => Ok(Removal::Removed),
            Err(Error::Rejected { code, .. }) if code == "not_found" || code == "HTTP 404" => Ok(Removal::Gone),
            Err(error) => Err(error),
        }
    }
}

fn size(it: ServerType) -> Size {
    // GB with a point, of which the least is a half.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 64 TiB")]
    let memory_mib = (it.memory.clamp(0.0, 65_536.0) * 1024.0) as u64;
    let offers = it.prices.iter().map(|price| {
        let here = it.locations.iter().find(|location| location.name == price.location);
        Offer {
            region: price.location.clone(),
            zones: Vec::new(),
            // Before it said where it has a size, having a price there was all it said.
            available: here.map_or(it.locations.is_empty(), |here| here.available),
            hourly: Some(price.price_hourly.net),
            monthly: Some(price.price_monthly.net),
        }
    });
    Size {
        cores: it.cores,
        memory_mib,
        disk_gib: it.disk,
        architecture: Architecture::read(&it.architecture),
        family: String::new(),
        deprecated: it.deprecated || it.deprecation.is_some_and(|it| !it.is_null()),
        offers: offers.collect(),
        id: it.name,
    }
}

fn image(it: System) -> Option<Image> {
    let name = it.name?;
    if !matches!(it.os_flavor.as_str(), "debian" | "ubuntu") || it.deprecated.is_some() {
        return None;
    }
    Some(Image { id: name, name: it.description, architecture: Some(Architecture::read(&it.architecture)) })
}

fn thing(kind: &str, it: &Value) -> Option<Thing> {
    let region = ["/location/name", "/datacenter/location/name"].iter().find_map(|at| it.pointer(at)?.as_str());
    Some(Thing {
        kind: kind.to_owned(),
        id: it["id"].as_u64()?.to_string(),
        name: it["name"].as_str().unwrap_or_default().to_owned(),
        region: region.unwrap_or_default().to_owned(),
    })
}
