//! Google Cloud: JSON, a token for an hour that a service account signs for, pages with a token for the next. Its networks
//! and firewalls have no labels and are found by their names.

mod prices;
mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hyper::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::Vendor;
use super::account::{
    Account, Architecture, Catalogue, Headroom, Identity, Image, Key, Mark, Marked, Needs, Offer, Permission, Quota,
    Reach, Region, Removal, Size, Thing,
};
use super::plausible::USUAL_DISK;
use super::template::{INSTALLATION, LABEL, clean, name};
use super::wire::{Answer, Ask, Kind, PAGES, Wire, endless, segment, unusable};
use crate::{Error, Result, Secret};

pub(super) use template::pieces;

const COMPUTE: &str = "https://compute.googleapis.com";
const TOKENS: &str = "https://oauth2.googleapis.com";
const BILLING: &str = "https://cloudbilling.googleapis.com";
const PROJECTS: &str = "https://cloudresourcemanager.googleapis.com";

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// What a template needs to be permitted.
const PERMISSIONS: [&str; 9] = [
    "compute.instances.create",
    "compute.instances.delete",
    "compute.disks.create",
    "compute.networks.create",
    "compute.subnetworks.create",
    "compute.firewalls.create",
    "compute.addresses.create",
    "compute.regions.get",
    "compute.machineTypes.list",
];

/// Who makes the images from which templates make servers.
const MAKERS: [&str; 2] = ["debian-cloud", "ubuntu-os-cloud"];

/// Kinds of things, in the order in which they can be removed; whether they have labels, and whether they are in a part of a
/// region, in a region or in none.
const KINDS: [(&str, bool, Scope); 6] = [
    ("instances", true, Scope::Zone),
    ("disks", true, Scope::Zone),
    ("addresses", true, Scope::Region),
    ("firewalls", false, Scope::Global),
    ("subnetworks", false, Scope::Region),
    ("networks", false, Scope::Global),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Zone,
    Region,
    Global,
}

/// What opens a project, from its key file. Where tokens come from is in the file too, and is not believed: whoever wrote it
/// would have us call what they like.
#[derive(Debug, Clone)]
pub struct ServiceAccount {
    /// The file, for Terraform's plugin, with no address in it but Google's.
    pub(super) file: Secret,
    pub(super) project: String,
    email: String,
    pub(super) key: Secret,
}

#[derive(Deserialize)]
struct KeyFile {
    project_id: String,
    client_email: String,
    private_key: String,
}

impl ServiceAccount {
    /// Reads a key file.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(file: &str) -> Result<Self> {
        let wrong = |why: &'static str| unusable("the key file of a service account", why);
        let read: KeyFile = serde_json::from_str(file).map_err(|_| wrong("it is none"))?;
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte));
        if read.project_id.is_empty() || read.project_id.len() > 64 || !plain(&read.project_id) {
            return Err(wrong("its project_id is none"));
        }
        let mut members: Value = serde_json::from_str(file).map_err(|_| wrong("it is none"))?;
        for (member, address) in [
            ("token_uri", "https://oauth2.googleapis.com/token"),
            ("auth_uri", "https://accounts.google.com/o/oauth2/auth"),
        ] {
            members[member] = address.into();
        }
        if let Some(members) = members.as_object_mut() {
            members.retain(|name, _| {
                [
                    "type",
                    "project_id",
                    "private_key_id",
                    "private_key",
                    "client_email",
                    "client_id",
                    "token_uri",
                    "auth_uri",
                ]
                .contains(&name.as_str())
            });
        }
        Ok(Self {
            file: Secret::new(members.to_string()),
            project: read.project_id,
            email: read.client_email,
            key: Secret::new(read.private_key),
        })
    }

    /// Signs that it wants a token.
    fn assertion(&self, now: i64) -> Result<String> {
        let wrong = |why: &'static str| unusable("the private key of a service account", why);
        let lines = self.key.expose().lines().filter(|line| !line.starts_with("-----"));
        let written: String = lines.flat_map(|line| line.chars().filter(|it| !it.is_whitespace())).collect();
        let der = STANDARD.decode(written).map_err(|_| wrong("it is none"))?;
        let pair = RsaKeyPair::from_pkcs8(&der).map_err(|_| wrong("it is none of RSA"))?;
        let claims = json!({
            "iss": self.email, "scope": SCOPE, "aud": format!("{TOKENS}/token"), "iat": now, "exp": now + 3_600,
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({ "alg": "RS256", "typ": "JWT" })), part(&claims));
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| wrong("it does not sign"))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// A project of Google Cloud.
pub(super) struct Gcp {
    wire: Wire,
    account: ServiceAccount,
    compute: String,
    tokens: String,
    billing: String,
    projects: String,
    /// A token, and until when it is good.
    token: Mutex<Option<(Secret, i64)>>,
}

#[derive(Deserialize)]
struct Token {
    access_token: String,
    expires_in: i64,
}

#[derive(Deserialize)]
struct Machine {
    name: String,
    #[serde(rename = "guestCpus")]
    cores: u32,
    #[serde(rename = "memoryMb")]
    memory_mib: u64,
    #[serde(default)]
    architecture: String,
    deprecated: Option<Value>,
}

#[derive(Deserialize)]
struct System {
    family: Option<String>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    architecture: String,
    deprecated: Option<Value>,
}

#[derive(Deserialize)]
struct Place {
    name: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    zones: Vec<String>,
}

#[derive(Deserialize)]
struct Limits {
    #[serde(default)]
    quotas: Vec<Limit>,
}

#[derive(Deserialize)]
struct Limit {
    metric: String,
    limit: f64,
    usage: f64,
}

impl Gcp {
    pub(super) fn new(key: &Key, reach: &Reach) -> Result<Self> {
        let Key::Gcp(account) = key else { return Err(unusable("the credential", "it is another cloud's")) };
        Ok(Self {
            wire: Wire::new(reach, &[account.key.expose()])?,
            compute: format!("{}/compute/v1/projects", reach.base(COMPUTE)),
            tokens: reach.base(TOKENS),
            billing: reach.base(BILLING),
            projects: reach.base(PROJECTS),
            account: (**account).clone(),
            token: Mutex::new(None),
        })
    }

    async fn token(&self) -> Result<Secret> {
        let mut held = self.token.lock().await;
        let now = self.wire.now();
        if let Some((token, until)) = &*held
            && now < *until
        {
            return Ok(token.clone());
        }
        let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer".to_owned();
        let form = [("grant_type".to_owned(), grant), ("assertion".to_owned(), self.account.assertion(now)?)];
        let answer = self.wire.send(Ask::new(Method::POST, format!("{}/token", self.tokens)).form(&form)).await?;
        if !answer.is_success() {
            return Err(self.refusal(&answer));
        }
        let token: Token = answer.read()?;
        let secret = Secret::new(token.access_token);
        // A minute early: what is asked takes its time.
        *held = Some((secret.clone(), now.saturating_add(token.expires_in.clamp(0, 3_600) - 60)));
        Ok(secret)
    }

    async fn ask(&self, ask: Ask) -> Result<Answer> {
        let token = self.token().await?;
        let answer = self.wire.send(ask.bearer(token.expose())).await?;
        if answer.is_success() { Ok(answer) } else { Err(self.refusal(&answer)) }
    }

    fn refusal(&self, answer: &Answer) -> Error {
        let said: Value = answer.read().unwrap_or_default();
        let text = |at: &str| said.pointer(at).and_then(Value::as_str).unwrap_or_default();
        let (reason, message) = match text("/error/errors/0/reason") {
            // Where tokens come from, a refusal looks otherwise; and newer services have a status instead.
            "" if said["error"].is_string() => (text("/error"), text("/error_description")),
            "" => (text("/error/status"), text("/error/message")),
            reason => (reason, text("/error/message")),
        };
        let kind = match reason {
            "resourceInUseByAnotherResource" | "resourceNotReady" => Kind::Moment,
            "notFound" | "NOT_FOUND" => Kind::Missing,
            reason => Kind::said(answer.status, reason, ""),
        };
        self.wire.refusal(kind, answer, reason, message)
    }

    fn project(&self) -> String {
        format!("{}/{}", self.compute, segment(&self.account.project))
    }

    async fn read<T: DeserializeOwned>(&self, url: String) -> Result<T> {
        self.ask(Ask::get(url)).await?.read()
    }

    /// All of a list, of which only these members are asked for.
    async fn all<T: DeserializeOwned>(&self, url: &str, fields: &str, query: &str) -> Result<Vec<T>> {
        let mut found = Vec::new();
        let mut token = String::new();
        for _ in 0..PAGES {
            let fields = segment(&format!("nextPageToken,items({fields})"));
            let mut body: Value =
                self.read(format!("{url}?maxResults=500&fields={fields}{query}&pageToken={}", segment(&token))).await?;
            if !body.is_object() {
                return Err(Error::Protocol("a list is not what it is to be".into()));
            }
            // An empty list is left out.
            if let Some(items) = body.get_mut("items").map(Value::take) {
                let items: Vec<T> = serde_json::from_value(items)
                    .map_err(|_| Error::Protocol("a list is not what it is to be".into()))?;
                found.extend(items);
            }
            match body["nextPageToken"].as_str() {
                Some(next) if !next.is_empty() && next != token => next.clone_into(&mut token),
                _ => return Ok(found),
            }
        }
        Err(endless())
    }

    async fn permissions(&self) -> Result<Vec<Permission>> {
        let url = format!("{}/v1/projects/{}:testIamPermissions", self.projects, segment(&self.account.project));
        let held = match self.ask(Ask::new(Method::POST, url).json(&json!({ "permissions": PERMISSIONS }))).await {
            // A project in which that service is not turned on does not say.
            Err(Error::Rejected { .. }) => None,
            answer => Some(answer?.read::<Value>()?),
        };
        let has = |held: &Value, name: &str| {
            held["permissions"].as_array().is_some_and(|all| all.iter().any(|it| *it == *name))
        };
        Ok(PERMISSIONS
            .iter()
            .map(|name| Permission { name: (*name).to_owned(), held: held.as_ref().map(|held| has(held, name)) })
            .collect())
    }

    async fn places(&self) -> Result<Vec<Place>> {
        self.all(&format!("{}/regions", self.project()), "name,status,zones", "").await
    }

    /// What a region has, with the zones that have it.
    async fn sizes(&self, place: &Place) -> Result<Vec<Size>> {
        let mut sizes: BTreeMap<String, Size> = BTreeMap::new();
        for zone in place.zones.iter().filter_map(|it| it.rsplit('/').next()).take(10) {
            let url = format!("{}/zones/{}/machineTypes", self.project(), segment(zone));
            let found: Vec<Machine> =
                self.all(&url, "name,guestCpus,memoryMb,architecture,deprecated,accelerators", "").await?;
            for it in found {
                let size = sizes.entry(it.name.clone()).or_insert_with(|| Size {
                    cores: it.cores,
                    memory_mib: it.memory_mib,
                    disk_gib: 0,
                    architecture: Architecture::read(&it.architecture),
                    family: it.name.split('-').next().unwrap_or_default().to_ascii_uppercase(),
                    deprecated: it.deprecated.is_some(),
                    offers: vec![Offer { region: place.name.clone(), available: true, ..Offer::default() }],
                    id: it.name,
                });
                size.offers[0].zones.push(zone.to_owned());
            }
        }
        Ok(sizes.into_values().collect())
    }

    async fn images(&self) -> Result<Vec<Image>> {
        let mut images: BTreeMap<String, Image> = BTreeMap::new();
        for maker in MAKERS {
            let url = format!("{}/{maker}/global/images", self.compute);
            let found: Vec<System> = self.all(&url, "family,description,architecture,deprecated", "").await?;
            for it in found.into_iter().filter(|it| it.deprecated.is_none()) {
                let Some(family) = it.family else { continue };
                // Those for special machines, and those without cloud-init.
                let is_plain =
                    family.starts_with("debian-") || (family.starts_with("ubuntu-") && family.contains("lts"));
                if !is_plain || ["minimal", "pro", "fips", "accelerator", "nvidia"].iter().any(|it| family.contains(it))
                {
                    continue;
                }
                let id = format!("{maker}/{family}");
                let architecture = Some(Architecture::read(&it.architecture));
                images.insert(id.clone(), Image { id, name: it.description.chars().take(100).collect(), architecture });
            }
        }
        Ok(images.into_values().collect())
    }

    fn place_of(scope: Scope, region: &str, it: &Value) -> Option<String> {
        let last = |member: &str| it[member].as_str()?.rsplit('/').next().map(str::to_owned);
        match scope {
            Scope::Global => Some("global".to_owned()),
            Scope::Region => Some(format!("regions/{}", last("region").unwrap_or_else(|| region.to_owned()))),
            Scope::Zone => Some(format!("zones/{}", last("zone")?)),
        }
    }
}

#[async_trait]
impl Account for Gcp {
    fn vendor(&self) -> Vendor {
        Vendor::Gcp
    }

    async fn validate(&self) -> Result<Identity> {
        let project: Value = self.read(format!("{}?fields=name,id", self.project())).await?;
        let Some(name) = project["name"].as_str() else {
            return Err(Error::Protocol("it does not say which project that is".into()));
        };
        let permissions = self.permissions().await?;
        Ok(Identity { account: name.to_owned(), name: self.account.email.clone(), permissions })
    }

    async fn catalogue(&self, region: Option<&str>) -> Result<Catalogue> {
        let places = self.places().await?;
        let regions = places.iter().map(|it| Region {
            id: it.name.clone(),
            name: it.name.clone(),
            available: it.status == "UP",
            network_zone: String::new(),
        });
        let mut catalogue = Catalogue { currency: "USD", regions: regions.collect(), ..Catalogue::default() };
        let Some(place) = places.iter().find(|it| Some(it.name.as_str()) == region) else { return Ok(catalogue) };
        catalogue.sizes = self.sizes(place).await?;
        catalogue.images = self.images().await?;
        match self.skus().await {
            // Who may not ask does not learn prices.
            Err(Error::Rejected { .. }) => {}
            skus => {
                let skus = skus?;
                prices::price(&skus, &place.name, &mut catalogue.sizes);
                catalogue.extras = prices::extras(&skus, &place.name);
            }
        }
        Ok(catalogue)
    }

    async fn headroom(&self, needs: &Needs<'_>) -> Result<Headroom> {
        let region = segment(needs.region);
        let there: Limits = self.read(format!("{}/regions/{region}?fields=quotas", self.project())).await?;
        let everywhere: Limits = self.read(format!("{}?fields=quotas", self.project())).await?;
        let cores = u64::from(needs.size.cores);
        // Newer families have a quota of their own, older ones share one.
        let own = format!("{}_CPUS", needs.size.family);
        let has_own = there.quotas.iter().any(|it| it.metric == own && it.limit > 0.0);
        let wanted = |metric: &str| match metric {
            "CPUS" if !has_own => cores,
            "CPUS_ALL_REGIONS" => cores,
            metric if has_own && metric == own => cores,
            "INSTANCES" | "IN_USE_ADDRESSES" | "NETWORKS" | "SUBNETWORKS" => 1,
            "FIREWALLS" => 4,
            "STATIC_ADDRESSES" => u64::from(needs.static_address),
            // The server's own disk is one of those too.
            "SSD_TOTAL_GB" => u64::from(needs.volume_gib) + u64::from(USUAL_DISK),
            _ => 0,
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is bounded before")]
        let whole = |number: f64| number.clamp(0.0, 1e15) as u64;
        let quotas = there.quotas.iter().chain(&everywhere.quotas).map(|it| Quota {
            needed: wanted(&it.metric),
            used: whole(it.usage),
            allowed: whole(it.limit),
            name: it.metric.clone(),
        });
        Ok(Headroom::Said(quotas.filter(|it| it.needed > 0).collect()))
    }

    async fn tagged(&self, region: &str, label: &str) -> Result<Vec<Thing>> {
        let (value, named) = (clean(label, "_-", 63).to_ascii_lowercase(), name(label));
        let labelled = format!("labels.{LABEL}={value}");
        let found = self.found(region, &labelled, &format!("name eq {named}.*")).await?.into_iter();
        // Filters are theirs to read: what has only a similar name is not ours.
        let is_ours = |name: &str| name == named || name.starts_with(&format!("{named}-"));
        let ours = found.filter(|it| it.has_labels || is_ours(&it.thing.name));
        Ok(ours.map(|it| it.thing).collect())
    }

    async fn marked(&self, region: &str, mark: Mark<'_>) -> Result<Vec<Marked>> {
        let installation = clean(mark.installation, "_-", 63).to_ascii_lowercase();
        let labelled = format!("labels.{INSTALLATION}={installation}");
        let found = self.found(region, &labelled, "name eq gantry-srv-.*").await?.into_iter();
        let marked = found.filter_map(|Found { thing, has_labels, labels }| {
            if has_labels {
                Marked::of_labels(thing, mark, |name| labels[name].as_str())
            } else {
                Marked::of_name(thing)
            }
        });
        Ok(marked.collect())
    }

    async fn remove(&self, thing: &Thing) -> Result<Removal> {
        let parts: Vec<String> = thing.id.split('/').map(segment).collect();
        if !KINDS.iter().any(|(kind, ..)| *kind == thing.kind) || parts.iter().any(|it| it.is_empty() || it == "..") {
            return Err(unusable("the thing to remove", "it is of no kind that is made there"));
        }
        match self.ask(Ask::new(Method::DELETE, format!("{}/{}", self.project(), parts.join("/")))).await {
            Ok(_) => Ok(Removal::Removed),
            Err(Error::Rejected { code, .. }) if matches!(code.as_str(), "notFound" | "NOT_FOUND" | "HTTP 404") => {
                Ok(Removal::Gone)
            }
            Err(error) => Err(error),
        }
    }
}

/// Something that was found.
struct Found {
    thing: Thing,
    has_labels: bool,
    labels: Value,
}

impl Gcp {
    /// What there is in a region of all kinds, by a filter for those that have labels, and by one for those that have none.
    async fn found(&self, region: &str, labelled: &str, named: &str) -> Result<Vec<Found>> {
        let mut all = Vec::new();
        for (kind, has_labels, scope) in KINDS {
            let filter = format!("&filter={}", segment(if has_labels { labelled } else { named }));
            let fields = "id,name,zone,region,labels";
            let found: Vec<Value> = match scope {
                Scope::Global => self.all(&format!("{}/global/{kind}", self.project()), fields, &filter).await?,
                Scope::Region => {
                    let url = format!("{}/regions/{}/{kind}", self.project(), segment(region));
                    self.all(&url, fields, &filter).await?
                }
                Scope::Zone => {
                    let places = self.places().await?;
                    let zones = places.iter().filter(|it| it.name == region).flat_map(|it| &it.zones);
                    let mut found = Vec::new();
                    for zone in zones.filter_map(|it| it.rsplit('/').next()) {
                        let url = format!("{}/zones/{}/{kind}", self.project(), segment(zone));
                        found.extend(self.all::<Value>(&url, fields, &filter).await?);
                    }
                    found
                }
            };
            for mut it in found {
                let Some(name) = it["name"].as_str() else { continue };
                let Some(place) = Self::place_of(scope, region, &it) else { continue };
                let (kind, id) = (kind.to_owned(), format!("{place}/{kind}/{name}"));
                let thing = Thing { kind, id, name: name.to_owned(), region: region.to_owned() };
                all.push(Found { thing, has_labels, labels: it["labels"].take() });
            }
        }
        Ok(all)
    }

    /// What everything of Compute Engine costs.
    async fn skus(&self) -> Result<Vec<prices::Sku>> {
        let fields = "nextPageToken,skus(description,category,serviceRegions,pricingInfo(pricingExpression(usageUnit,tieredRates(unitPrice))))";
        let url = format!("{}/v1/services/{}/skus", self.billing, prices::SERVICE);
        let (mut found, mut token) = (Vec::new(), String::new());
        for _ in 0..PAGES {
            let asked = format!(
                "{url}?currencyCode=USD&pageSize=5000&fields={}&pageToken={}",
                segment(fields),
                segment(&token)
            );
            let page: prices::Page = self.read(asked).await?;
            found.extend(page.skus);
            if page.next.is_empty() || page.next == token {
                return Ok(found);
            }
            token = page.next;
        }
        Err(endless())
    }
}
