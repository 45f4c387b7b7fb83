//! DigitalOcean: JSON, a token, pages by number. Droplets and volumes have tags; what has none is found by its name.

mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use async_trait::async_trait;
use hyper::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Vendor;
use super::account::{
    Account, Architecture, Catalogue, Extras, Headroom, Identity, Image, Key, Mark, Marked, Needs, Offer, Permission,
    Quota, Reach, Region, Removal, Size, Thing,
};
use super::price::Price;
use super::template::{INSTALLATION, LABEL, clean, name};
use super::wire::{Answer, Ask, Kind, PAGES, Wire, endless, segment, unusable};
use crate::{Error, Result, Secret};

pub(super) use template::pieces;

/// Where it is.
const API: &str = "https://api.digitalocean.com";

/// Kinds of things, each with where they are listed, in the order in which they can be removed: whose address it is cannot
/// be told any more when its droplet is gone.
const KINDS: [(&str, &str); 6] = [
    ("reserved_ip", "reserved_ips"),
    ("droplet", "droplets"),
    ("volume", "volumes"),
    ("firewall", "firewalls"),
    ("vpc", "vpcs"),
    ("ssh_key", "account/keys"),
];

/// An account or a team at DigitalOcean.
pub(super) struct DigitalOcean {
    wire: Wire,
    base: String,
    token: Secret,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Refused {
    id: String,
    message: String,
}

#[derive(Deserialize)]
struct WithAccount {
    account: Owner,
}

#[derive(Deserialize)]
struct Owner {
    uuid: String,
    #[serde(default)]
    email: String,
    droplet_limit: u64,
    #[serde(default)]
    volume_limit: Option<u64>,
    #[serde(default, alias = "floating_ip_limit")]
    reserved_ip_limit: Option<u64>,
    #[serde(default)]
    status: String,
    #[serde(default)]
    status_message: String,
    team: Option<Team>,
}

#[derive(Deserialize)]
struct Team {
    uuid: String,
    name: String,
}

#[derive(Deserialize)]
struct Place {
    slug: String,
    name: String,
    available: bool,
}

#[derive(Deserialize)]
struct Sized {
    slug: String,
    memory: u64,
    vcpus: u32,
    disk: u32,
    price_monthly: Price,
    price_hourly: Price,
    regions: Vec<String>,
    available: bool,
    #[serde(default)]
    gpu_info: Option<Value>,
}

#[derive(Deserialize)]
struct Distribution {
    slug: Option<String>,
    name: String,
    distribution: String,
    #[serde(default)]
    status: String,
}

impl DigitalOcean {
    pub(super) fn new(key: &Key, reach: &Reach) -> Result<Self> {
        let Key::Digitalocean { token } = key else { return Err(unusable("the credential", "it is another cloud's")) };
        let base = format!("{}/v2", reach.base(API));
        Ok(Self { wire: Wire::new(reach, &key.secrets())?, base, token: token.clone() })
    }

    async fn ask(&self, ask: Ask) -> Result<Answer> {
        let answer = self.wire.send(ask.bearer(self.token.expose())).await?;
        if answer.is_success() { Ok(answer) } else { Err(self.refusal(&answer)) }
    }

    fn refusal(&self, answer: &Answer) -> Error {
        let Refused { id, message } = answer.read().unwrap_or_default();
        let kind = if id == "not_found" { Kind::Missing } else { Kind::said(answer.status, &id, &message) };
        self.wire.refusal(kind, answer, &id, &message)
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.ask(Ask::get(format!("{}/{path}", self.base))).await?.read()
    }

    /// All of a list, which is called as the last part of its path.
    async fn all<T: DeserializeOwned>(&self, path: &str, query: &str) -> Result<Vec<T>> {
        let member = match path.rsplit('/').next().unwrap_or(path) {
            "keys" => "ssh_keys",
            last => last,
        };
        let mut found = Vec::new();
        for page in 1..=PAGES {
            let mut body: Value = self.read(&format!("{path}?page={page}&per_page=200{query}")).await?;
            let list = body.get_mut(member).map(Value::take).unwrap_or_default();
            let list: Vec<T> = serde_json::from_value(list)
                .map_err(|_| Error::Protocol(format!("{path} is not what it is to be").into()))?;
            let is_empty = list.is_empty();
            found.extend(list);
            // Where the next page is told too, and whatever it says, this is asked where it was asked before.
            if is_empty || body.pointer("/links/pages/next").is_none() {
                return Ok(found);
            }
        }
        Err(endless())
    }

    async fn owner(&self) -> Result<Owner> {
        Ok(self.read::<WithAccount>("account").await?.account)
    }

    async fn count(&self, path: &str) -> Result<u64> {
        let body: Value = self.read(&format!("{path}?per_page=1")).await?;
        let total = body.pointer("/meta/total").and_then(Value::as_u64);
        total.ok_or_else(|| Error::Protocol(format!("{path} does not say how many there are").into()))
    }

    /// Whether something can be made: a droplet that is none is refused for being none, or for the token.
    async fn may(&self, path: &str) -> Result<Option<bool>> {
        let ask = Ask::new(Method::POST, format!("{}/{path}", self.base)).json(&json!({}));
        match self.ask(ask).await {
            Err(Error::Rejected { code, .. }) if code == "forbidden" || code == "HTTP 403" => Ok(Some(false)),
            Err(Error::Rejected { code, .. }) if code == "unprocessable_entity" || code == "bad_request" => {
                Ok(Some(true))
            }
            Err(Error::Rejected { .. }) | Ok(_) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Account for DigitalOcean {
    fn vendor(&self) -> Vendor {
        Vendor::Digitalocean
    }

    async fn validate(&self) -> Result<Identity> {
        let owner = self.owner().await?;
        if owner.status == "locked" {
            let said = if owner.status_message.is_empty() { "it is locked" } else { &owner.status_message };
            let reason = said.chars().take(200).collect();
            return Err(Error::CredentialRefused { code: "locked".to_owned(), reason });
        }
        let mut permissions = vec![Permission { name: "account:read".to_owned(), held: Some(true) }];
        for (name, path) in [
            ("droplet:create", "droplets"),
            ("vpc:create", "vpcs"),
            ("firewall:create", "firewalls"),
            ("ssh_key:create", "account/keys"),
        ] {
            permissions.push(Permission { name: name.to_owned(), held: self.may(path).await? });
        }
        let (account, name) = owner.team.map_or((owner.uuid, owner.email), |team| (team.uuid, team.name));
        Ok(Identity { account, name, permissions })
    }

    async fn catalogue(&self, _: Option<&str>) -> Result<Catalogue> {
        let regions: Vec<Place> = self.all("regions", "").await?;
        let sizes: Vec<Sized> = self.all("sizes", "").await?;
        let images: Vec<Distribution> = self.all("images", "&type=distribution").await?;
        let known: BTreeSet<&str> = regions.iter().map(|it| it.slug.as_str()).collect();
        let sizes = sizes.into_iter().filter(|it| it.gpu_info.as_ref().is_none_or(Value::is_null)).map(|it| Size {
            cores: it.vcpus,
            memory_mib: it.memory,
            disk_gib: it.disk,
            architecture: Architecture::X86,
            family: String::new(),
            deprecated: !it.available,
            offers: it
                .regions
                .iter()
                .filter(|region| known.contains(region.as_str()))
                .map(|region| Offer {
                    region: region.clone(),
                    zones: Vec::new(),
                    available: it.available,
                    hourly: Some(it.price_hourly),
                    monthly: Some(it.price_monthly),
                })
                .collect(),
            id: it.slug,
        });
        let sizes: Vec<Size> = sizes.collect();
        let images = images.into_iter().filter(|it| {
            matches!(it.distribution.as_str(), "Debian" | "Ubuntu")
                && (it.status.is_empty() || it.status == "available")
        });
        let images = images.filter_map(|it| {
            let name = format!("{} {}", it.distribution, it.name);
            Some(Image { id: it.slug?, name, architecture: Some(Architecture::X86) })
        });
        let images = images.collect();
        let regions = regions.into_iter().map(|it| Region {
            id: it.slug,
            name: it.name,
            available: it.available,
            network_zone: String::new(),
        });
        // What volumes cost it does not tell. An address costs nothing as long as it is used.
        let extras = Extras { volume_gib: None, disk_gib: None, address: Some(Price::ZERO) };
        Ok(Catalogue { currency: "USD", regions: regions.collect(), sizes, images, extras })
    }

    async fn headroom(&self, needs: &Needs<'_>) -> Result<Headroom> {
        let owner = self.owner().await?;
        let mut quotas = vec![Quota {
            name: "droplets".to_owned(),
            needed: 1,
            used: self.count("droplets").await?,
            allowed: owner.droplet_limit,
        }];
        let quota = |name: &str, used, allowed| Quota { name: name.to_owned(), needed: 1, used, allowed };
        if let Some(allowed) = owner.reserved_ip_limit.filter(|_| needs.static_address) {
            quotas.push(quota("reserved IPs", self.count("reserved_ips").await?, allowed));
        }
        if let Some(allowed) = owner.volume_limit.filter(|_| needs.volume_gib > 0) {
            quotas.push(quota("volumes", self.count("volumes").await?, allowed));
        }
        Ok(Headroom::Said(quotas))
    }

    async fn tagged(&self, _: &str, label: &str) -> Result<Vec<Thing>> {
        let (tag, named) = (tag(label), name(label));
        let mut things = Vec::new();
        for (kind, path) in KINDS {
            let query = match kind {
                "droplet" => format!("&tag_name={}", segment(&tag)),
                _ => String::new(),
            };
            let found: Vec<Value> = self.all(path, &query).await?;
            let has_tag = |it: &Value| it["tags"].as_array().is_some_and(|all| all.iter().any(|it| *it == *tag));
            let ours = found.iter().filter(|it| match kind {
                "reserved_ip" => has_tag(&it["droplet"]),
                "droplet" | "volume" => has_tag(it),
                _ => it["name"] == *named,
            });
            things.extend(ours.filter_map(|it| thing(kind, it)));
        }
        Ok(things)
    }

    async fn marked(&self, _: &str, mark: Mark<'_>) -> Result<Vec<Marked>> {
        let tag = format!("{INSTALLATION}:{}", clean(mark.installation, "_-", 150));
        let mut marked = Vec::new();
        for (kind, path) in KINDS {
            let query = match kind {
                "droplet" => format!("&tag_name={}", segment(&tag)),
                _ => String::new(),
            };
            let found: Vec<Value> = self.all(path, &query).await?;
            marked.extend(found.iter().filter_map(|it| {
                let thing = thing(kind, it)?;
                let tags = match kind {
                    "droplet" | "volume" => &it["tags"],
                    "reserved_ip" => &it["droplet"]["tags"],
                    _ => return Marked::of_name(thing),
                };
                let tags = || tags.as_array().into_iter().flatten().filter_map(Value::as_str);
                Marked::of_labels(thing, mark, |name| tags().find_map(|tag| tag.strip_prefix(name)?.strip_prefix(':')))
            }));
        }
        Ok(marked)
    }

    async fn remove(&self, thing: &Thing) -> Result<Removal> {
        let Some((_, path)) = KINDS.iter().find(|(kind, _)| *kind == thing.kind) else {
            return Err(unusable("the thing to remove", "it is of no kind that is made there"));
        };
        let url = format!("{}/{path}/{}", self.base, segment(&thing.id));
        let answer = self.wire.send(Ask::new(Method::DELETE, url).bearer(self.token.expose())).await?;
        match answer.status {
            200..300 => Ok(Removal::Removed),
            404 => Ok(Removal::Gone),
            // It still holds something, or something else is done with it.
            403 | 422
                if ["members", "attached", "in use", "pending event", "being"]
                    .iter()
                    .any(|it| answer.read::<Refused>().unwrap_or_default().message.to_lowercase().contains(it)) =>
            {
                let Refused { id, message } = answer.read().unwrap_or_default();
                Err(self.wire.refusal(Kind::Moment, &answer, &id, &message))
            }
            _ => Err(self.refusal(&answer)),
        }
    }
}

/// The tag of everything that has tags.
pub(super) fn tag(label: &str) -> String {
    format!("{LABEL}:{}", clean(label, "_-", 200))
}

fn thing(kind: &str, it: &Value) -> Option<Thing> {
    let text = |it: &Value| it.as_str().map(str::to_owned).or_else(|| it.as_u64().map(|number| number.to_string()));
    Some(Thing {
        kind: kind.to_owned(),
        id: text(if kind == "reserved_ip" { &it["ip"] } else { &it["id"] })?,
        name: it["name"].as_str().unwrap_or_default().to_owned(),
        region: text(&it["region"]["slug"]).or_else(|| text(&it["region"])).unwrap_or_default(),
    })
}
