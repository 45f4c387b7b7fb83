//! Azure: JSON, a token for an hour that a client secret is exchanged for, pages with the address of the next. Everything of
//! a server is in a resource group of its own.

mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use async_trait::async_trait;
use hyper::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Mutex;

use super::Vendor;
use super::account::{
    Account, Architecture, Catalogue, Extras, Headroom, Identity, Image, Key, Mark, Marked, Needs, Offer, Permission,
    Quota, Reach, Region, Removal, Size, Thing,
};
use super::price::Price;
use super::template::{INSTALLATION, LABEL, clean};
use super::wire::{Answer, Ask, Kind, PAGES, Wire, endless, segment, unusable};
use crate::{Error, Result, Secret};

pub(super) use template::pieces;

const LOGIN: &str = "https://login.microsoftonline.com";
const MANAGEMENT: &str = "https://management.azure.com";
const PRICES: &str = "https://prices.azure.com";

/// What a template needs to be permitted.
const PERMISSIONS: [&str; 6] = [
    "Microsoft.Resources/subscriptions/resourceGroups/write",
    "Microsoft.Resources/subscriptions/resourceGroups/delete",
    "Microsoft.Compute/virtualMachines/write",
    "Microsoft.Compute/disks/write",
    "Microsoft.Network/virtualNetworks/write",
    "Microsoft.Network/publicIPAddresses/write",
];

/// Whose images templates make servers from: the publisher, its offers, and how those that are meant are called.
const SYSTEMS: [(&str, &str, &[&str]); 4] = [
    ("Canonical", "ubuntu-24_04-lts", &["server", "server-arm64"]),
    ("Canonical", "0001-com-ubuntu-server-jammy", &["22_04-lts-gen2", "22_04-lts-arm64"]),
    ("Debian", "debian-13", &["13-gen2", "13-arm64"]),
    ("Debian", "debian-12", &["12-gen2", "12-arm64"]),
];

/// Kinds of things besides groups, in the order in which they can be removed, each with the version in which it is asked for.
const KINDS: [(&str, &str); 6] = [
    ("Microsoft.Compute/virtualMachines", "2024-07-01"),
    ("Microsoft.Compute/disks", "2024-03-02"),
    ("Microsoft.Network/networkInterfaces", "2024-05-01"),
    ("Microsoft.Network/publicIPAddresses", "2024-05-01"),
    ("Microsoft.Network/networkSecurityGroups", "2024-05-01"),
    ("Microsoft.Network/virtualNetworks", "2024-05-01"),
];

const GROUP: &str = "Microsoft.Resources/resourceGroups";
const GROUPS: &str = "2021-04-01";

/// A subscription of Azure.
pub(super) struct Azure {
    wire: Wire,
    login: String,
    management: String,
    prices: String,
    tenant: String,
    client: String,
    secret: Secret,
    subscription: String,
    /// A token, and until when it is good.
    token: Mutex<Option<(Secret, i64)>>,
}

#[derive(Deserialize)]
struct Token {
    access_token: String,
    expires_in: i64,
}

#[derive(Deserialize)]
struct Page<T> {
    #[serde(alias = "Items")]
    value: Vec<T>,
    #[serde(default, rename = "nextLink", alias = "NextPageLink")]
    next: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    name: String,
    #[serde(default)]
    display_name: String,
    #[serde(default)]
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    region_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sku {
    resource_type: String,
    name: String,
    #[serde(default)]
    family: String,
    #[serde(default)]
    capabilities: Vec<Capability>,
    #[serde(default)]
    restrictions: Vec<Restriction>,
}

#[derive(Deserialize)]
struct Capability {
    name: String,
    value: String,
}

#[derive(Deserialize)]
struct Restriction {
    #[serde(rename = "type", default)]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Retail {
    #[serde(default)]
    arm_sku_name: String,
    #[serde(default)]
    sku_name: String,
    #[serde(default)]
    product_name: String,
    #[serde(default)]
    unit_of_measure: String,
    retail_price: Price,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Usage {
    current_value: u64,
    limit: i64,
    name: UsageName,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UsageName {
    value: String,
    #[serde(default)]
    localized_value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Permitted {
    #[serde(default)]
    actions: Vec<String>,
    #[serde(default)]
    not_actions: Vec<String>,
}

#[derive(Deserialize)]
struct Found {
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    tags: Option<BTreeMap<String, String>>,
}

impl Azure {
    /// What has a tag with a value, and all its tags.
    async fn found(&self, name: &str, value: &str) -> Result<Vec<(Thing, BTreeMap<String, String>)>> {
        let filter = format!("&$filter={}", segment(&format!("tagName eq '{name}' and tagValue eq '{value}'")));
        let mut found: Vec<Found> = self.all(self.below("/resources", GROUPS, &filter)).await?;
        let rank = |kind: &str| KINDS.iter().position(|(it, _)| it.eq_ignore_ascii_case(kind));
        found.retain(|it| rank(&it.kind).is_some());
        found.sort_by_key(|it| rank(&it.kind));
        // What is in a group goes with it, and comes before it only for those who look at what there is.
        let groups: Vec<Found> = self.all(self.below("/resourcegroups", GROUPS, &filter)).await?;
        let groups = groups.into_iter().map(|it| Found { kind: GROUP.to_owned(), ..it });
        let thing = |it: Found| {
            let thing = Thing { kind: it.kind, id: it.id, name: it.name, region: it.location };
            (thing, it.tags.unwrap_or_default())
        };
        Ok(found.into_iter().chain(groups).map(thing).collect())
    }

    pub(super) fn new(key: &Key, reach: &Reach) -> Result<Self> {
        let Key::Azure { tenant, client, secret, subscription } = key else {
            return Err(unusable("the credential", "it is another cloud's"));
        };
        Ok(Self {
            wire: Wire::new(reach, &key.secrets())?,
            login: reach.base(LOGIN),
            management: reach.base(MANAGEMENT),
            prices: reach.base(PRICES),
            tenant: tenant.clone(),
            client: client.clone(),
            secret: secret.clone(),
            subscription: subscription.clone(),
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
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &self.client),
            ("client_secret", self.secret.expose()),
            ("scope", "https://management.azure.com/.default"),
        ];
        let form = form.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let url = format!("{}/{}/oauth2/v2.0/token", self.login, self.tenant);
        let answer = self.wire.send(Ask::new(Method::POST, url).form(&form)).await?;
        if !answer.is_success() {
            return Err(self.refusal(&answer));
        }
        let token: Token = answer.read()?;
        let secret = Secret::new(token.access_token);
        // A minute early: what is asked takes its time.
        *held = Some((secret.clone(), now.saturating_add(token.expires_in.clamp(0, 86_400) - 60)));
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
        let (code, message) = match text("/error/code") {
            // Where tokens come from, a refusal looks otherwise.
            "" => (text("/error"), text("/error_description")),
            code => (code, text("/error/message")),
        };
        let kind = match code {
            "ResourceGroupNotFound" | "ResourceNotFound" | "NotFound" => Kind::Missing,
            "InUse" | "AnotherOperationInProgress" => Kind::Moment,
            code if code.starts_with("InUse") || code.contains("CannotBeDeleted") || code.contains("InUse") => {
                Kind::Moment
            }
            code => Kind::said(answer.status, code, ""),
        };
        self.wire.refusal(kind, answer, code, message)
    }

    /// An address below the subscription.
    fn below(&self, path: &str, version: &str, query: &str) -> String {
        format!("{}/subscriptions/{}{path}?api-version={version}{query}", self.management, self.subscription)
    }

    /// All of a list. Where the next page is it says itself, and that is asked for only where the first was: the token goes
    /// along.
    async fn all<T: DeserializeOwned>(&self, url: String) -> Result<Vec<T>> {
        let base = self.management.clone();
        self.pages(url, &base, true).await
    }

    async fn pages<T: DeserializeOwned>(&self, url: String, base: &str, signed: bool) -> Result<Vec<T>> {
        let (mut found, mut next) = (Vec::new(), url);
        for _ in 0..PAGES {
            let ask = Ask::get(next.clone());
            let answer = if signed {
                self.ask(ask).await?
            } else {
                let answer = self.wire.send(ask).await?;
                if !answer.is_success() {
                    return Err(self.refusal(&answer));
                }
                answer
            };
            let page: Page<T> = answer.read()?;
            found.extend(page.value);
            match page.next.filter(|link| !link.is_empty()) {
                None => return Ok(found),
                Some(link) => {
                    let link: url::Url =
                        link.parse().map_err(|_| Error::Protocol("the next page is nowhere".into()))?;
                    let query = link.query().map(|it| format!("?{it}")).unwrap_or_default();
                    let following = format!("{base}{}{query}", link.path());
                    if following == next {
                        return Err(endless());
                    }
                    next = following;
                }
            }
        }
        Err(endless())
    }

    async fn permissions(&self) -> Result<Vec<Permission>> {
        let url = self.below("/providers/Microsoft.Authorization/permissions", "2022-04-01", "");
        let all: Option<Vec<Permitted>> = match self.all(url).await {
            Err(Error::Rejected { .. }) => None,
            all => Some(all?),
        };
        let held = |all: &[Permitted], name: &str| {
            all.iter().any(|it| {
                it.actions.iter().any(|it| matches(it, name)) && !it.not_actions.iter().any(|it| matches(it, name))
            })
        };
        Ok(PERMISSIONS
            .iter()
            .map(|name| Permission { name: (*name).to_owned(), held: all.as_deref().map(|all| held(all, name)) })
            .collect())
    }

    async fn regions(&self) -> Result<Vec<Region>> {
        let places: Vec<Place> = self.all(self.below("/locations", "2022-12-01", "")).await?;
        let physical =
            places.into_iter().filter(|it| it.metadata.as_ref().is_none_or(|it| it.region_type != "Logical"));
        let region =
            |it: Place| Region { id: it.name, name: it.display_name, available: true, network_zone: String::new() };
        Ok(physical.map(region).collect())
    }

    async fn sizes(&self, region: &str) -> Result<Vec<Size>> {
        let filter = format!("&$filter={}", segment(&format!("location eq '{region}'")));
        let url = self.below("/providers/Microsoft.Compute/skus", "2021-07-01", &filter);
        let skus: Vec<Sku> = self.all(url).await?;
        let machines = skus.into_iter().filter(|it| it.resource_type == "virtualMachines");
        Ok(machines.filter_map(|it| size(it, region)).collect())
    }

    async fn retail(&self, region: &str) -> Result<BTreeMap<String, Price>> {
        let filter =
            format!("serviceName eq 'Virtual Machines' and armRegionName eq '{region}' and priceType eq 'Consumption'");
        let items = self.listed(&filter).await?;
        let mut prices: BTreeMap<String, Price> = BTreeMap::new();
        for it in items {
            let is_other =
                ["Windows", "CloudServices", "Cloud Services"].iter().any(|word| it.product_name.contains(word))
                    || ["Spot", "Low Priority"].iter().any(|word| it.sku_name.contains(word));
            if it.unit_of_measure == "1 Hour" && !is_other && !it.arm_sku_name.is_empty() {
                prices.entry(it.arm_sku_name).or_insert(it.retail_price);
            }
        }
        Ok(prices)
    }

    /// What is sold by retail, which everybody may ask.
    async fn listed(&self, filter: &str) -> Result<Vec<Retail>> {
        let url = format!("{}/api/retail/prices?currencyCode='USD'&$filter={}", self.prices, segment(filter));
        self.pages(url, &self.prices, false).await
    }

    async fn address(&self, region: &str) -> Result<Option<Price>> {
        let filter = format!(
            "serviceName eq 'Virtual Network' and armRegionName eq '{region}' and meterName eq 'Standard IPv4 Static Public IP'"
        );
        let items = self.listed(&filter).await?;
        Ok(items.into_iter().find(|it| it.unit_of_measure == "1 Hour").map(|it| it.retail_price.monthly()))
    }

    async fn images(&self, region: &str) -> Result<Vec<Image>> {
        let mut images = Vec::new();
        for (publisher, offer, wanted) in SYSTEMS {
            let path = format!(
                "/providers/Microsoft.Compute/locations/{}/publishers/{publisher}/artifacttypes/vmimage/offers/{offer}/skus",
                segment(region)
            );
            let listed = match self.ask(Ask::get(self.below(&path, "2024-07-01", ""))).await {
                // A region that does not have it.
                Err(Error::Rejected { .. }) => continue,
                answer => answer?.read::<Vec<Found>>()?,
            };
            for sku in wanted.iter().filter(|wanted| listed.iter().any(|it| it.name == **wanted)) {
                let architecture = if sku.ends_with("arm64") { Architecture::Arm } else { Architecture::X86 };
                let id = format!("{publisher}:{offer}:{sku}");
                images.push(Image { name: format!("{publisher} {offer} {sku}"), id, architecture: Some(architecture) });
            }
        }
        Ok(images)
    }

    async fn usages(&self, provider: &str, region: &str, version: &str) -> Result<Vec<Usage>> {
        let path = format!("/providers/{provider}/locations/{}/usages", segment(region));
        self.all(self.below(&path, version, "")).await
    }
}

/// It becomes part of what is asked.
fn check_region(region: &str) -> Result<()> {
    if (1..=40).contains(&region.len()) && region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    {
        Ok(())
    } else {
        Err(Error::Rejected { code: "InvalidLocation".to_owned(), reason: "it is no region of Azure".to_owned() })
    }
}

/// Whether an action is one of those that a pattern with stars means.
fn matches(pattern: &str, action: &str) -> bool {
    let (pattern, action) = (pattern.to_ascii_lowercase(), action.to_ascii_lowercase());
    let mut parts = pattern.split('*');
    let Some(mut rest) = action.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

fn size(it: Sku, region: &str) -> Option<Size> {
    let capability = |name: &str| it.capabilities.iter().find(|it| it.name == name).map(|it| it.value.as_str());
    let memory: f64 = capability("MemoryGB")?.parse().ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is bounded before")]
    let memory_mib = (memory.clamp(0.0, 65_536.0) * 1024.0) as u64;
    let available = !it.restrictions.iter().any(|it| it.kind == "Location");
    Some(Size {
        cores: capability("vCPUsAvailable").or_else(|| capability("vCPUs"))?.parse().ok()?,
        memory_mib,
        disk_gib: 0,
        architecture: Architecture::read(capability("CpuArchitectureType").unwrap_or_default()),
        family: it.family,
        deprecated: false,
        offers: vec![Offer { region: region.to_owned(), available, ..Offer::default() }],
        id: it.name,
    })
}

#[async_trait]
impl Account for Azure {
    fn vendor(&self) -> Vendor {
        Vendor::Azure
    }

    async fn validate(&self) -> Result<Identity> {
        let said: Value = self.ask(Ask::get(self.below("", "2022-12-01", ""))).await?.read()?;
        let Some(account) = said["subscriptionId"].as_str() else {
            return Err(Error::Protocol("it does not say which subscription that is".into()));
        };
        if let Some(state) = said["state"].as_str().filter(|state| !matches!(*state, "Enabled" | "Warned" | "PastDue"))
        {
            let reason = format!("the subscription is {}", state.chars().take(40).collect::<String>());
            return Err(Error::CredentialRefused { code: "SubscriptionDisabled".to_owned(), reason });
        }
        let name = said["displayName"].as_str().unwrap_or_default().to_owned();
        Ok(Identity { account: account.to_owned(), name, permissions: self.permissions().await? })
    }

    async fn catalogue(&self, region: Option<&str>) -> Result<Catalogue> {
        let regions = self.regions().await?;
        let mut catalogue = Catalogue { currency: "USD", regions, ..Catalogue::default() };
        let Some(region) = region.filter(|region| catalogue.regions.iter().any(|it| it.id == **region)) else {
            return Ok(catalogue);
        };
        check_region(region)?;
        catalogue.sizes = self.sizes(region).await?;
        catalogue.images = self.images(region).await?;
        let prices = self.retail(region).await?;
        for size in &mut catalogue.sizes {
            let price = prices.get(&size.id).copied();
            for offer in &mut size.offers {
                (offer.hourly, offer.monthly) = (price, price.map(Price::monthly));
            }
        }
        // Disks are sold by steps of their size, of which none fits in a price for each GiB.
        catalogue.extras = Extras { volume_gib: None, disk_gib: None, address: self.address(region).await? };
        Ok(catalogue)
    }

    async fn headroom(&self, needs: &Needs<'_>) -> Result<Headroom> {
        check_region(needs.region)?;
        let cores = u64::from(needs.size.cores);
        let mut quotas = Vec::new();
        let compute = self.usages("Microsoft.Compute", needs.region, "2024-07-01").await?;
        let network = self.usages("Microsoft.Network", needs.region, "2024-05-01").await?;
        for it in compute.into_iter().chain(network) {
            let needed = match it.name.value.as_str() {
                "cores" => cores,
                "virtualMachines"
                | "VirtualNetworks"
                | "PublicIPAddresses"
                | "NetworkSecurityGroups"
                | "NetworkInterfaces"
                | "StandardSkuPublicIpAddresses"
                | "PublicIpAddresses" => 1,
                family if family.eq_ignore_ascii_case(&needs.size.family) => cores,
                _ => continue,
            };
            let name = if it.name.localized_value.is_empty() { it.name.value } else { it.name.localized_value };
            quotas.push(Quota {
                name,
                needed,
                used: it.current_value,
                allowed: u64::try_from(it.limit).unwrap_or(u64::MAX),
            });
        }
        Ok(if quotas.is_empty() { Headroom::Unsaid } else { Headroom::Said(quotas) })
    }

    async fn tagged(&self, _: &str, label: &str) -> Result<Vec<Thing>> {
        let found = self.found(LABEL, &clean(label, "_-", 200)).await?;
        Ok(found.into_iter().map(|(thing, _)| thing).collect())
    }

    async fn marked(&self, _: &str, mark: Mark<'_>) -> Result<Vec<Marked>> {
        let found = self.found(INSTALLATION, &clean(mark.installation, "_-", 200)).await?.into_iter();
        let marked =
            found.filter_map(|(thing, tags)| Marked::of_labels(thing, mark, |name| tags.get(name).map(String::as_str)));
        Ok(marked.collect())
    }

    async fn remove(&self, thing: &Thing) -> Result<Removal> {
        let version =
            KINDS.iter().find(|(kind, _)| kind.eq_ignore_ascii_case(&thing.kind)).map(|(_, version)| *version);
        let version = version.or((thing.kind == GROUP).then_some(GROUPS));
        let ours = format!("/subscriptions/{}/resourcegroups/", self.subscription).to_ascii_lowercase();
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./()".contains(&byte);
        let is_below = thing.id.to_ascii_lowercase().starts_with(&ours);
        let Some(version) = version.filter(|_| is_below && thing.id.bytes().all(fits) && !thing.id.contains(".."))
        else {
            return Err(unusable("the thing to remove", "it is of no kind that is made there"));
        };
        let url = format!("{}{}?api-version={version}", self.management, thing.id);
        match self.ask(Ask::new(Method::DELETE, url)).await {
            Ok(answer) if answer.status == 204 => Ok(Removal::Gone),
            Ok(_) => Ok(Removal::Removed),
            Err(Error::Rejected { code, .. }) if code.ends_with("NotFound") || code == "HTTP 404" => Ok(Removal::Gone),
            Err(error) => Err(error),
        }
    }
}
