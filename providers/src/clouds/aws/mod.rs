//! AWS: signed questions. EC2 and STS answer XML, quotas and prices JSON; pages have a token for the next.

mod sign;
mod template;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use hyper::Method;
use hyper::header::{self, HeaderName};
use roxmltree::{Document, Node};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Vendor;
use super::account::{
    Account, Architecture, Catalogue, Extras, Headroom, Identity, Image, Key, Mark, Marked, Needs, Offer, Permission,
    Quota, Reach, Region, Removal, Size, Thing,
};
use super::price::Price;
use super::template::{INSTALLATION, LABEL, ORGANIZATION, clean};
use super::wire::{Answer, Ask, Kind, PAGES, Wire, endless, unusable};
use crate::{Error, Result, Secret};
use sign::Signer;

pub(super) use template::pieces;

/// Where prices are told, and what is asked of no region in particular.
const HOME: &str = "us-east-1";

const EC2: &str = "2016-11-15";
const STS: &str = "2011-06-15";

/// Systems of which templates make servers: what they are called here, who makes their images, and how those are called.
const SYSTEMS: &[(&str, &str, &str, &str)] = &[
    ("ubuntu-24.04", "Ubuntu 24.04", "099720109477", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{}-server-*"),
    ("ubuntu-22.04", "Ubuntu 22.04", "099720109477", "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-{}-server-*"),
    ("debian-13", "Debian 13", "136693071363", "debian-13-{}-*"),
    ("debian-12", "Debian 12", "136693071363", "debian-12-{}-*"),
];

/// Kinds of things, in the order in which they can be removed.
const KINDS: [&str; 11] = [
    "instance",
    "elastic-ip",
    "volume",
    "key-pair",
    "network-interface",
    "subnet",
    "route-table",
    "internet-gateway",
    "security-group-rule",
    "security-group",
    "vpc",
];

/// A key that is a key and is nobody's, encoded: whether one may be brought is asked with it.
const ASKED_KEY: &str =
    "c3NoLWVkMjU1MTkgQUFBQUMzTnphQzFsWkRJMU5URTVBQUFBSUowdjhoQlBuaHNxNHozdlNhRFRjN2tXMWNiSDdsTjV5OVpHYk0yQ3RQcU0=";

/// An account of AWS.
pub(super) struct Aws {
    wire: Wire,
    reach: Reach,
    id: String,
    secret: Secret,
}

/// The members of a question.
type Members<'a> = &'a [(&'a str, &'a str)];

impl Aws {
    pub(super) fn new(key: &Key, reach: &Reach) -> Result<Self> {
        let Key::Aws { id, secret } = key else { return Err(unusable("the credential", "it is another cloud's")) };
        Ok(Self {
            wire: Wire::new(reach, &key.secrets())?,
            reach: reach.clone(),
            id: id.clone(),
            secret: secret.clone(),
        })
    }

    async fn signed(&self, ask: Ask, region: &str, service: &str) -> Result<Answer> {
        let signer = Signer { id: &self.id, secret: self.secret.expose(), region, service };
        let ask = signer.sign(ask, self.wire.now());
        self.wire.send(ask.ok_or_else(|| unusable("the address of AWS", "it is none"))?).await
    }

    /// Asks by a form, and reads XML.
    async fn query(
        &self,
        service: &str,
        region: &str,
        version: &str,
        action: &str,
        members: Members<'_>,
    ) -> Result<Answer> {
        check_region(region)?;
        let base = self.reach.base(&format!("https://{service}.{region}.amazonaws.com"));
        let mut all = vec![("Action".to_owned(), action.to_owned()), ("Version".to_owned(), version.to_owned())];
        all.extend(members.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let ask = Ask::new(Method::POST, format!("{base}/")).form(&all);
        let answer = self.signed(ask, region, service).await?;
        if answer.is_success() { Ok(answer) } else { Err(self.refusal(&answer)) }
    }

    async fn ec2(&self, region: &str, action: &str, members: Members<'_>) -> Result<Answer> {
        self.query("ec2", region, EC2, action, members).await
    }

    /// All items of a list of EC2's, each read by a function.
    async fn items<T>(
        &self,
        region: &str,
        action: &str,
        members: Members<'_>,
        list: &str,
        read: impl Fn(Node<'_, '_>) -> Option<T> + Send + Sync,
    ) -> Result<Vec<T>>
    where
        T: Send,
    {
        let mut found = Vec::new();
        let mut token = String::new();
        for _ in 0..PAGES {
            let mut members = members.to_vec();
            if !token.is_empty() {
                members.push(("NextToken", &token));
            }
            let answer = self.ec2(region, action, &members).await?;
            let next = {
                let text = text(&answer)?;
                let document = document(text)?;
                let root = document.root_element();
                if child(root, list).is_none() && root.tag_name().name() != format!("{action}Response") {
                    return Err(Error::Protocol(format!("{action} is not what it is to be").into()));
                }
                found.extend(under(root, list).filter_map(&read));
                said(root, "nextToken").to_owned()
            };
            if next.is_empty() || next == token {
                return Ok(found);
            }
            token = next;
        }
        Err(endless())
    }

    /// Asks by JSON.
    async fn json(&self, service: &str, region: &str, target: &str, body: &Value) -> Result<Value> {
        check_region(region)?;
        let host = if service == "pricing" { "api.pricing" } else { service };
        let base = self.reach.base(&format!("https://{host}.{region}.amazonaws.com"));
        let ask = Ask {
            body: body.to_string().into(),
            ..Ask::new(Method::POST, format!("{base}/"))
                .header(header::CONTENT_TYPE, "application/x-amz-json-1.1")
                .header(HeaderName::from_static("x-amz-target"), target)
        };
        let answer = self.signed(ask, region, service).await?;
        if answer.is_success() { answer.read() } else { Err(self.refusal(&answer)) }
    }

    fn refusal(&self, answer: &Answer) -> Error {
        let (code, message) = refused(answer);
        let kind = if code.ends_with(".NotFound") || code == "NoSuchResourceException" {
            Kind::Missing
        } else if matches!(
            code.as_str(),
            "DependencyViolation" | "VolumeInUse" | "IncorrectState" | "InvalidIPAddress.InUse"
        ) {
            Kind::Moment
        } else {
            match Kind::said(answer.status, &code, "") {
                // What is not permitted has a status of its own in JSON, and none in XML.
                Kind::Moment if answer.status == 412 => Kind::Refused,
                kind => kind,
            }
        };
        self.wire.refusal(kind, answer, &code, &message)
    }

    /// Whether something is permitted: it is asked whether it could be done.
    async fn may(&self, action: &str, members: Members<'_>) -> Result<Option<bool>> {
        let members: Vec<(&str, &str)> = members.iter().copied().chain([("DryRun", "true")]).collect();
        match self.ec2(HOME, action, &members).await {
            Err(Error::Rejected { code, .. }) if code == "DryRunOperation" => Ok(Some(true)),
            Err(Error::Rejected { code, .. }) if code == "UnauthorizedOperation" => Ok(Some(false)),
            Err(Error::Rejected { .. }) | Ok(_) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn regions(&self) -> Result<Vec<Region>> {
        let members = [("AllRegions", "true")];
        self.items(HOME, "DescribeRegions", &members, "regionInfo", |it| {
            let id = said(it, "regionName").to_owned();
            let opted = said(it, "optInStatus");
            let available = opted.is_empty() || opted == "opt-in-not-required" || opted == "opted-in";
            Some(Region { name: id.clone(), id, available, network_zone: String::new() })
        })
        .await
    }

    /// What a region has, without prices.
    async fn sizes(&self, region: &str) -> Result<Vec<Size>> {
        let members = [("LocationType", "availability-zone"), ("MaxResults", "1000")];
        let offered = self.items(region, "DescribeInstanceTypeOfferings", &members, "instanceTypeOfferingSet", |it| {
            Some((said(it, "instanceType").to_owned(), said(it, "location").to_owned()))
        });
        let mut zones: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (size, zone) in offered.await? {
            zones.entry(size).or_default().insert(zone);
        }
        let members = [
            ("MaxResults", "100"),
            ("Filter.1.Name", "current-generation"),
            ("Filter.1.Value.1", "true"),
            ("Filter.2.Name", "supported-virtualization-type"),
            ("Filter.2.Value.1", "hvm"),
            ("Filter.3.Name", "bare-metal"),
            ("Filter.3.Value.1", "false"),
        ];
        let sizes = self.items(region, "DescribeInstanceTypes", &members, "instanceTypeSet", |it| {
            let architectures: Vec<&str> =
                under(child(it, "processorInfo")?, "supportedArchitectures").filter_map(|it| it.text()).collect();
            let architecture = architectures.iter().find(|it| matches!(**it, "x86_64" | "arm64"))?;
            Some(Size {
                id: said(it, "instanceType").to_owned(),
                cores: said(child(it, "vCpuInfo")?, "defaultVCpus").parse().ok()?,
                memory_mib: said(child(it, "memoryInfo")?, "sizeInMiB").parse().ok()?,
                disk_gib: 0,
                architecture: Architecture::read(architecture),
                family: String::new(),
                deprecated: said(it, "currentGeneration") == "false",
                offers: Vec::new(),
            })
        });
        let mut sizes = sizes.await?;
        for size in &mut sizes {
            let zones: Vec<String> = zones.remove(&size.id).unwrap_or_default().into_iter().collect();
            let (hourly, monthly) = (None, None);
            let available = !zones.is_empty();
            size.offers = vec![Offer { region: region.to_owned(), zones, available, hourly, monthly }];
        }
        Ok(sizes)
    }

    /// What sizes cost in a region, in an hour.
    async fn prices(&self, region: &str) -> Result<BTreeMap<String, Price>> {
        let filter = |field: &str, value: &str| json!({ "Type": "TERM_MATCH", "Field": field, "Value": value });
        let filters = json!([
            filter("regionCode", region),
            filter("operatingSystem", "Linux"),
            filter("preInstalledSw", "NA"),
            filter("tenancy", "Shared"),
            filter("capacitystatus", "Used"),
        ]);
        let mut prices = BTreeMap::new();
        for product in self.products(&filters).await? {
            let Some(size) = product.pointer("/product/attributes/instanceType").and_then(Value::as_str) else {
                continue;
            };
            if let Some(price) = on_demand(&product, "Hrs") {
                prices.insert(size.to_owned(), price);
            }
        }
        Ok(prices)
    }

    /// What a GiB of a volume costs, and an address in an hour.
    async fn extras(&self, region: &str) -> Result<Extras> {
        let filter = |field: &str, value: &str| json!({ "Type": "TERM_MATCH", "Field": field, "Value": value });
        let volumes =
            json!([filter("regionCode", region), filter("volumeApiName", "gp3"), filter("productFamily", "Storage")]);
        let volume = self.products(&volumes).await?.iter().find_map(|it| on_demand(it, "GB-Mo"));
        let addresses = json!([filter("regionCode", region), filter("group", "VPCPublicIPv4Address")]);
        let body =
            json!({ "ServiceCode": "AmazonVPC", "FormatVersion": "aws_v1", "Filters": addresses, "MaxResults": 100 });
        let listed = self.json("pricing", HOME, "AWSPriceListService.GetProducts", &body).await?;
        let address = products_of(&listed).iter().find_map(|it| on_demand(it, "Hrs").filter(|it| *it > Price::ZERO));
        Ok(Extras { volume_gib: volume, disk_gib: volume, address: address.map(Price::monthly) })
    }

    async fn products(&self, filters: &Value) -> Result<Vec<Value>> {
        let mut found = Vec::new();
        let mut token = Value::Null;
        for _ in 0..PAGES {
            let mut body =
                json!({ "ServiceCode": "AmazonEC2", "FormatVersion": "aws_v1", "Filters": filters, "MaxResults": 100 });
            if !token.is_null() {
                body["NextToken"] = token.clone();
            }
            let listed = self.json("pricing", HOME, "AWSPriceListService.GetProducts", &body).await?;
            found.extend(products_of(&listed));
            match listed.get("NextToken") {
                Some(Value::String(next)) if !next.is_empty() && token != *next => token = next.clone().into(),
                _ => return Ok(found),
            }
        }
        Err(endless())
    }

    async fn images(&self, region: &str) -> Result<Vec<Image>> {
        let mut patterns = Vec::new();
        let mut makers = BTreeSet::new();
        for (_, _, maker, pattern) in SYSTEMS {
            makers.insert(*maker);
            patterns.extend(["amd64", "arm64"].map(|it| pattern.replace("{}", it)));
        }
        let mut members: Vec<(String, String)> = vec![("Filter.1.Name".to_owned(), "name".to_owned())];
        members.extend(patterns.iter().enumerate().map(|(at, it)| (format!("Filter.1.Value.{}", at + 1), it.clone())));
        members.push(("Filter.2.Name".to_owned(), "state".to_owned()));
        members.push(("Filter.2.Value.1".to_owned(), "available".to_owned()));
        members.extend(makers.iter().enumerate().map(|(at, it)| (format!("Owner.{}", at + 1), (*it).to_owned())));
        let members: Vec<(&str, &str)> = members.iter().map(|(name, value)| (&**name, &**value)).collect();
        let names = self.items(region, "DescribeImages", &members, "imagesSet", |it| {
            Some((said(it, "name").to_owned(), Architecture::read(said(it, "architecture"))))
        });
        let names = names.await?;
        let mut images = Vec::new();
        for (id, name, _, pattern) in SYSTEMS {
            for (architecture, word) in [(Architecture::X86, "amd64"), (Architecture::Arm, "arm64")] {
                let pattern = pattern.replace("{}", word);
                let start = pattern.trim_end_matches('*');
                if names.iter().any(|(name, it)| name.starts_with(start) && *it == architecture) {
                    images.push(Image {
                        id: (*id).to_owned(),
                        name: (*name).to_owned(),
                        architecture: Some(architecture),
                    });
                }
            }
        }
        Ok(images)
    }

    async fn allowed(&self, region: &str, service: &str, code: &str) -> Result<Option<u64>> {
        let body = json!({ "ServiceCode": service, "QuotaCode": code });
        let said = self.json("servicequotas", region, "ServiceQuotasV20190624.GetServiceQuota", &body).await;
        match said {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is bounded before")]
            Ok(said) => Ok(said.pointer("/Quota/Value").and_then(Value::as_f64).map(|it| it.clamp(0.0, 1e15) as u64)),
            // Who may not ask does not learn it.
            Err(Error::Rejected { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Processors of everything that runs under the common quota.
    async fn used_cores(&self, region: &str) -> Result<u64> {
        let members = [
            ("Filter.1.Name", "instance-state-name"),
            ("Filter.1.Value.1", "pending"),
            ("Filter.1.Value.2", "running"),
            ("MaxResults", "1000"),
        ];
        let reservations = self.items(region, "DescribeInstances", &members, "reservationSet", |it| {
            let cores = under(it, "instancesSet").filter(|it| is_standard(said(*it, "instanceType"))).map(|it| {
                let options = child(it, "cpuOptions");
                let number = |name| options.and_then(|it| said(it, name).parse::<u64>().ok());
                number("coreCount").unwrap_or(1) * number("threadsPerCore").unwrap_or(2)
            });
            Some(cores.sum::<u64>())
        });
        Ok(reservations.await?.into_iter().sum())
    }

    /// Takes off what holds a thing from both sides.
    async fn let_go(&self, thing: &Thing) -> Result<()> {
        let (region, id) = (thing.region.as_str(), thing.id.as_str());
        let (action, member, list, held, name) = match thing.kind.as_str() {
            "internet-gateway" => {
                ("DescribeInternetGateways", "InternetGatewayId.1", "internetGatewaySet", "attachmentSet", "vpcId")
            }
            "route-table" => {
                ("DescribeRouteTables", "RouteTableId.1", "routeTableSet", "associationSet", "routeTableAssociationId")
            }
            _ => return Ok(()),
        };
        let members = [(member, id)];
        let found = self.items(region, action, &members, list, |it| {
            Some(under(it, held).map(|it| said(it, name).to_owned()).collect::<Vec<_>>())
        });
        for other in found.await?.into_iter().flatten() {
            let let_go = if thing.kind == "route-table" {
                self.ec2(region, "DisassociateRouteTable", &[("AssociationId", &other)]).await
            } else {
                self.ec2(region, "DetachInternetGateway", &[("InternetGatewayId", id), ("VpcId", &other)]).await
            };
            match let_go {
                // What it was bound to is gone in the meantime.
                Err(error) if is_gone(&error) => {}
                let_go => drop(let_go?),
            }
        }
        Ok(())
    }

    async fn count(&self, region: &str, action: &str, list: &str) -> Result<u64> {
        Ok(self.items(region, action, &[], list, |_| Some(1)).await?.into_iter().sum())
    }
}

/// It becomes part of a host's name.
fn check_region(region: &str) -> Result<()> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=32).contains(&region.len()) && region.bytes().all(fits) {
        Ok(())
    } else {
        Err(Error::Rejected { code: "InvalidRegion".to_owned(), reason: "it is no region of AWS".to_owned() })
    }
}

/// Sizes that share one quota: `Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances`.
fn is_standard(size: &str) -> bool {
    let family = size.split(|it: char| !it.is_ascii_lowercase()).next().unwrap_or_default();
    let first = family.chars().next().unwrap_or_default();
    "acdhimrtz".contains(first) && !matches!(family, "dl" | "hpc" | "inf" | "trn" | "mac")
}

fn products_of(listed: &Value) -> Vec<Value> {
    let all = listed["PriceList"].as_array().into_iter().flatten();
    all.filter_map(|it| serde_json::from_str(it.as_str()?).ok()).collect()
}

/// The one price that is not for a reservation.
fn on_demand(product: &Value, unit: &str) -> Option<Price> {
    let terms = product.pointer("/terms/OnDemand")?.as_object()?;
    let dimensions = terms.values().flat_map(|term| term["priceDimensions"].as_object().into_iter().flatten());
    let mut prices = dimensions
        .filter(|(_, it)| it["unit"] == *unit)
        .filter_map(|(_, it)| Price::read(it["pricePerUnit"]["USD"].as_str()?));
    prices.next()
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Refused {
    #[serde(rename = "__type")]
    kind: String,
    #[serde(alias = "Message")]
    message: String,
}

/// The code and the words of a refusal, in any of the three forms AWS has for it.
fn refused(answer: &Answer) -> (String, String) {
    if let Ok(Refused { kind, message }) = answer.read::<Refused>() {
        return (kind.rsplit('#').next().unwrap_or_default().to_owned(), message);
    }
    let Ok(text) = text(answer) else { return Default::default() };
    let Ok(document) = document(text) else { return Default::default() };
    let error = document.descendants().find(|it| it.tag_name().name() == "Error");
    error.map_or_else(Default::default, |it| (said(it, "Code").to_owned(), said(it, "Message").to_owned()))
}

fn text(answer: &Answer) -> Result<&str> {
    std::str::from_utf8(&answer.body).map_err(|_| Error::Protocol("it is no text".into()))
}

/// Without types of their own (DTD): nothing can be made large in it.
fn document(text: &str) -> Result<Document<'_>> {
    Document::parse(text).map_err(|_| Error::Protocol("it is no XML".into()))
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|it| it.tag_name().name() == name)
}

/// The text of a child; nothing where there is none.
fn said<'a>(node: Node<'a, '_>, name: &str) -> &'a str {
    child(node, name).and_then(|it| it.text()).unwrap_or_default().trim()
}

/// The items of a list.
fn under<'a, 'input: 'a>(
    node: Node<'a, 'input>,
    list: &str,
) -> impl Iterator<Item = Node<'a, 'input>> + use<'a, 'input> {
    child(node, list).into_iter().flat_map(|it| it.children().filter(|it| it.tag_name().name() == "item"))
}

#[async_trait]
impl Account for Aws {
    fn vendor(&self) -> Vendor {
        Vendor::Aws
    }

    async fn validate(&self) -> Result<Identity> {
        let answer = self.query("sts", HOME, STS, "GetCallerIdentity", &[]).await?;
        let (account, name) = {
            let document = document(text(&answer)?)?;
            let result = document.descendants().find(|it| it.tag_name().name() == "GetCallerIdentityResult");
            let result = result.ok_or_else(|| Error::Protocol("it does not say whose key that is".into()))?;
            (said(result, "Account").to_owned(), said(result, "Arn").to_owned())
        };
        let mut permissions = Vec::new();
        let actions: &[(&str, Members<'_>)] = &[
            ("DescribeInstances", &[]),
            ("DescribeInstanceTypes", &[]),
            ("DescribeImages", &[("Owner.1", "self")]),
            ("CreateVpc", &[("CidrBlock", "10.0.0.0/16")]),
            ("CreateInternetGateway", &[]),
            ("CreateSecurityGroup", &[("GroupName", "gantry"), ("GroupDescription", "gantry")]),
            ("ImportKeyPair", &[("KeyName", "gantry-asks"), ("PublicKeyMaterial", ASKED_KEY)]),
            ("RunInstances", &[("ImageId", "ami-00000000000000000"), ("MinCount", "1"), ("MaxCount", "1")]),
            ("AllocateAddress", &[("Domain", "vpc")]),
        ];
        for (action, members) in actions {
            permissions.push(Permission { name: format!("ec2:{action}"), held: self.may(action, members).await? });
        }
        let asked = json!({ "ServiceCode": "AmazonEC2", "MaxResults": 1 });
        let held = match self.json("pricing", HOME, "AWSPriceListService.DescribeServices", &asked).await {
            Ok(_) => Some(true),
            Err(Error::Rejected { code, .. }) if code.starts_with("AccessDenied") => Some(false),
            // Whose key it is was said by another service.
            Err(_) => None,
        };
        permissions.push(Permission { name: "pricing:DescribeServices".to_owned(), held });
        Ok(Identity { account, name, permissions })
    }

    async fn catalogue(&self, region: Option<&str>) -> Result<Catalogue> {
        let regions = self.regions().await?;
        let mut catalogue = Catalogue { currency: "USD", regions, ..Catalogue::default() };
        let Some(region) = region else { return Ok(catalogue) };
        if !catalogue.regions.iter().any(|it| it.id == region && it.available) {
            return Ok(catalogue);
        }
        catalogue.sizes = self.sizes(region).await?;
        catalogue.images = self.images(region).await?;
        let prices = match self.prices(region).await {
            // Who may not ask does not learn them.
            Err(Error::Rejected { .. }) => return Ok(catalogue),
            prices => prices?,
        };
        for size in &mut catalogue.sizes {
            let price = prices.get(&size.id).copied();
            for offer in &mut size.offers {
                (offer.hourly, offer.monthly) = (price, price.map(Price::monthly));
            }
        }
        catalogue.extras = self.extras(region).await?;
        Ok(catalogue)
    }

    async fn headroom(&self, needs: &Needs<'_>) -> Result<Headroom> {
        let region = needs.region;
        check_region(region)?;
        let mut quotas = Vec::new();
        let mut quota = |name: &str, needed: u64, used: u64, allowed: u64| {
            quotas.push(Quota { name: name.to_owned(), needed, used, allowed });
        };
        if is_standard(&needs.size.id)
            && let Some(allowed) = self.allowed(region, "ec2", "L-1216C47A").await?
        {
            quota("vCPUs of standard instances", needs.size.cores.into(), self.used_cores(region).await?, allowed);
        }
        if let Some(allowed) = self.allowed(region, "vpc", "L-F678F1CE").await? {
            quota("VPCs", 1, self.count(region, "DescribeVpcs", "vpcSet").await?, allowed);
        }
        if needs.static_address
            && let Some(allowed) = self.allowed(region, "ec2", "L-0263D0A3").await?
        {
            quota("Elastic IPs", 1, self.count(region, "DescribeAddresses", "addressesSet").await?, allowed);
        }
        Ok(if quotas.is_empty() { Headroom::Unsaid } else { Headroom::Said(quotas) })
    }

    async fn tagged(&self, region: &str, label: &str) -> Result<Vec<Thing>> {
        let value = clean(label, "_-", 200);
        let things = self.tags(region, LABEL, Some(&value)).await?.into_iter();
        self.living(region, LABEL, &value, things.map(|(thing, _)| thing).collect(), |thing| thing).await
    }

    async fn marked(&self, region: &str, mark: Mark<'_>) -> Result<Vec<Marked>> {
        let installation = clean(mark.installation, "_-", 200);
        let mut labels: BTreeMap<String, [Option<String>; 2]> = BTreeMap::new();
        for (at, name) in [LABEL, ORGANIZATION].into_iter().enumerate() {
            for (thing, value) in self.tags(region, name, None).await? {
                labels.entry(thing.id).or_default()[at] = Some(value);
            }
        }
        let ours = self.tags(region, INSTALLATION, Some(&installation)).await?.into_iter();
        let marked = ours.filter_map(|(thing, installation)| {
            let [server, organization] = labels.get(&thing.id)?;
            Marked::of_labels(thing, mark, |name| match name {
                LABEL => server.as_deref(),
                ORGANIZATION => organization.as_deref(),
                _ => Some(&installation),
            })
        });
        self.living(region, INSTALLATION, &installation, marked.collect(), |marked| &marked.thing).await
    }

    async fn remove(&self, thing: &Thing) -> Result<Removal> {
        let id = thing.id.as_str();
        let (action, member) = match thing.kind.as_str() {
            "instance" => ("TerminateInstances", "InstanceId.1"),
            "elastic-ip" => ("ReleaseAddress", "AllocationId"),
            "volume" => ("DeleteVolume", "VolumeId"),
            "key-pair" => ("DeleteKeyPair", "KeyPairId"),
            "network-interface" => ("DeleteNetworkInterface", "NetworkInterfaceId"),
            "subnet" => ("DeleteSubnet", "SubnetId"),
            "route-table" => ("DeleteRouteTable", "RouteTableId"),
            "internet-gateway" => ("DeleteInternetGateway", "InternetGatewayId"),
            "security-group" => ("DeleteSecurityGroup", "GroupId"),
            "vpc" => ("DeleteVpc", "VpcId"),
            _ => return Err(unusable("the thing to remove", "it is of no kind that is made there")),
        };
        match self.let_go(thing).await {
            Err(error) if is_gone(&error) => return Ok(Removal::Gone),
            let_go => let_go?,
        }
        match self.ec2(&thing.region, action, &[(member, id)]).await {
            Ok(_) => Ok(Removal::Removed),
            Err(error) if is_gone(&error) => Ok(Removal::Gone),
            Err(error) => Err(error),
        }
    }
}

impl Aws {
    /// What has a tag, and its value; `value`: only those with this one.
    async fn tags(&self, region: &str, name: &str, value: Option<&str>) -> Result<Vec<(Thing, String)>> {
        let mut members = vec![("Filter.1.Name", "key"), ("Filter.1.Value.1", name)];
        if let Some(value) = value {
            members.extend([("Filter.2.Name", "value"), ("Filter.2.Value.1", value)]);
        }
        let things = self.items(region, "DescribeTags", &members, "tagSet", |it| {
            let id = said(it, "resourceId").to_owned();
            // Not everybody who speaks as AWS does calls it the same.
            let kind = if id.starts_with("eipalloc-") { "elastic-ip" } else { said(it, "resourceType") };
            let kind = kind.to_owned();
            let thing = Thing { kind, id, name: String::new(), region: region.to_owned() };
            Some((thing, value.unwrap_or_else(|| said(it, "value")).to_owned()))
        });
        things.await
    }

    /// Without what is no more, and in the order in which it can be removed.
    async fn living<T: Send>(
        &self,
        region: &str,
        tag: &str,
        value: &str,
        mut things: Vec<T>,
        thing: impl Fn(&T) -> &Thing + Send + Sync,
    ) -> Result<Vec<T>> {
        // What has ended keeps its tags for an hour.
        let tag = format!("tag:{tag}");
        let living = [
            ("Filter.1.Name", tag.as_str()),
            ("Filter.1.Value.1", value),
            ("Filter.2.Name", "instance-state-name"),
            ("Filter.2.Value.1", "pending"),
            ("Filter.2.Value.2", "running"),
            ("Filter.2.Value.3", "stopping"),
            ("Filter.2.Value.4", "stopped"),
        ];
        let living = self.items(region, "DescribeInstances", &living, "reservationSet", |it| {
            Some(under(it, "instancesSet").map(|it| said(it, "instanceId").to_owned()).collect::<Vec<_>>())
        });
        let living: Vec<String> = living.await?.into_iter().flatten().collect();
        things.retain(|it| thing(it).kind != "instance" || living.contains(&thing(it).id));
        // Rules go with their group.
        things.retain(|it| thing(it).kind != "security-group-rule");
        things.sort_by_key(|it| KINDS.iter().position(|kind| *kind == thing(it).kind).unwrap_or(KINDS.len()));
        Ok(things)
    }
}

fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Rejected { code, .. } if code.ends_with(".NotFound"))
}
