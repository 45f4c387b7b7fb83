//! Whether a server can be as it is wanted, before anything is asked of its cloud: names, networks, firewalls; and what else
//! there is, where there is no such thing.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::account::{Catalogue, Image, Offer, Region, Size};
use super::{Because, Blueprint, Network, Protocol, Refusal, Vendor};

/// Names that are shown where there is no such thing.
const SHOWN: usize = 5;

/// What Docker gives to containers unless it is told otherwise.
const DOCKER: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(172, 17, 0, 0), 16);

/// Where private networks are.
const PRIVATE: [Ipv4Net; 3] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
];

/// What DigitalOcean keeps for itself.
const DIGITALOCEANS: [Ipv4Net; 4] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 10, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(10, 229, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 15),
    Ipv4Net::new_assert(Ipv4Addr::new(10, 246, 0, 0), 24),
];

/// The network of a server for which none was chosen.
pub const USUAL: Network = Network {
    range: Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 16),
    subnet: Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 1, 0), 24),
};

/// What a disk has that belongs to no size and was not asked for otherwise, in GiB.
pub const USUAL_DISK: u32 = 50;

/// What a server that can be made is made of.
#[derive(Debug, Clone, Copy)]
pub struct Plausible<'a> {
    /// Where.
    pub region: &'a Region,
    /// How large.
    pub size: &'a Size,
    /// What the region has of it.
    pub offer: &'a Offer,
    /// With what it begins.
    pub image: &'a Image,
    /// In which network.
    pub network: Network,
}

/// Whether a server can be made as it is wanted, going by a catalogue.
///
/// # Errors
/// Says what cannot be, and what else there is.
pub fn check<'a>(vendor: Vendor, wanted: &Blueprint<'_>, from: &'a Catalogue) -> Result<Plausible<'a>, Refusal> {
    let refuse = |because: Because, said: String| Err(Refusal { because, said });
    if !is_host_name(wanted.name) {
        let said =
            format!("{:?} is no host name: letters, digits and hyphens, at most 63, no hyphen at an end", wanted.name);
        return refuse(Because::Name, said);
    }
    let usable: Vec<&Region> = from.regions.iter().filter(|region| region.available).collect();
    let Some(&region) = usable.iter().find(|it| it.id == wanted.region) else {
        return refuse(Because::Region, unknown(vendor, "region", wanted.region, usable.iter().map(|it| &*it.id)));
    };
    let living = || from.sizes.iter().filter(|size| !size.deprecated);
    let Some(size) = from.sizes.iter().find(|size| size.id == wanted.size) else {
        let here = living().filter(|size| size.offer(wanted.region).is_some());
        return refuse(Because::Size, unknown(vendor, "size", wanted.size, here.map(|size| &*size.id)));
    };
    let Some(offer) = size.offer(wanted.region) else {
        let elsewhere: Vec<&str> = size.offers.iter().map(|offer| &*offer.region).collect();
        let said = format!("{} is not to be had in {}; {}", size.id, region.id, there_are("it is in", &elsewhere));
        return refuse(Because::Size, said);
    };
    if !offer.available {
        let here = living().filter(|it| it.offer(wanted.region).is_some_and(|offer| offer.available));
        let larger = here.filter(|it| it.cores >= size.cores && it.memory_mib >= size.memory_mib);
        let instead = nearest(&size.id, larger.map(|it| &*it.id));
        let said = format!("{} has no {} at the moment; {}", region.id, size.id, there_are("it has", &instead));
        return refuse(Because::Capacity, said);
    }
    let fits = |image: &&Image| image.architecture.is_none_or(|it| it == size.architecture);
    let Some(image) = from.images.iter().filter(fits).find(|image| image.id == wanted.image) else {
        let names = from.images.iter().filter(fits).map(|image| &*image.id);
        let mut said = unknown(vendor, "image", wanted.image, names);
        if from.images.iter().any(|image| image.id == wanted.image) {
            let architecture = size.architecture.as_str();
            said = format!("{} does not run on {}, whose processors are {architecture}; {said}", wanted.image, size.id);
        }
        return refuse(Because::Image, said);
    };
    let network = network(vendor, wanted)?;
    ports(wanted)?;
    Ok(Plausible { region, size, offer, image, network })
}

fn ports(wanted: &Blueprint<'_>) -> Result<(), Refusal> {
    for rule in &wanted.options.rules {
        let wrong = match (rule.protocol, rule.ports) {
            (Protocol::Icmp, Some(_)) => "ICMP has no ports",
            (Protocol::Tcp | Protocol::Udp, None) => "a rule for TCP or UDP names its ports",
            (_, Some((first, last))) if first > last || first == 0 => {
                "its ports go from the lower to the higher, from 1"
            }
            _ if rule.sources.is_empty() => "a rule names who is let in",
            _ => continue,
        };
        let said = format!("a rule of the firewall cannot be: {wrong}");
        return Err(Refusal { because: Because::Network, said });
    }
    // What the least of the clouds takes.
    if wanted.options.rules.len() > 40 {
        let said = "more than 40 rules of a firewall are not possible on every cloud".to_owned();
        return Err(Refusal { because: Because::Network, said });
    }
    Ok(())
}

fn network(vendor: Vendor, wanted: &Blueprint<'_>) -> Result<Network, Refusal> {
    let network = wanted.options.network.unwrap_or(USUAL);
    let refuse = |said: String| Err(Refusal { because: Because::Network, said });
    let Network { range, subnet } = network;
    if range.trunc() != range || subnet.trunc() != subnet {
        return refuse(format!(
            "{range} or {subnet} is an address in a network, and no network: write {}",
            range.trunc()
        ));
    }
    if !PRIVATE.iter().any(|private| private.contains(&range)) {
        return refuse(format!("{range} is not private; choose a part of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"));
    }
    if !range.contains(&subnet) {
        return refuse(format!("{subnet} is no part of {range}"));
    }
    // AWS and DigitalOcean take /16 to /28, and the others what they do.
    if range.prefix_len() < 16 || subnet.prefix_len() > 28 {
        return refuse(format!("{range} with {subnet} is not possible on every cloud: from /16 to /28"));
    }
    if overlap(range, DOCKER) {
        return refuse(format!("{range} overlaps {DOCKER}, which Docker gives to containers"));
    }
    if vendor == Vendor::Digitalocean && wanted.options.network.is_some() {
        if subnet != range {
            return refuse("DigitalOcean's networks have no parts: write the same range twice".to_owned());
        }
        if let Some(theirs) = DIGITALOCEANS.into_iter().find(|theirs| overlap(range, *theirs)) {
            return refuse(format!("{range} overlaps {theirs}, which DigitalOcean keeps for itself"));
        }
    }
    match wanted.options.others.iter().find(|other| overlap(range, **other)) {
        Some(other) => refuse(format!("{range} overlaps {other}, which is used already")),
        None => Ok(network),
    }
}

fn overlap(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other) || other.contains(&one)
}

fn is_host_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

fn unknown<'a>(vendor: Vendor, what: &str, wanted: &str, all: impl Iterator<Item = &'a str>) -> String {
    let near = nearest(wanted, all);
    let wanted: String = wanted.chars().take(80).collect();
    format!("{} has no {what} {wanted:?}; {}", vendor.title(), meant(&near))
}

/// What may have been meant.
pub(super) fn meant(near: &[&str]) -> String {
    if near.is_empty() { "there is none".to_owned() } else { format!("did you mean {}?", near.join(", ")) }
}

fn there_are(lead: &str, names: &[&str]) -> String {
    if names.is_empty() { "there is none".to_owned() } else { format!("{lead} {}", names.join(", ")) }
}

/// The names that are most like one: those that differ least, and those that contain it.
#[must_use]
pub fn nearest<'a>(wanted: &str, all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted: String = wanted.chars().take(80).collect::<String>().to_lowercase();
    let mut near: Vec<(usize, &str)> = all
        .map(|name| {
            let distance = strsim::damerau_levenshtein(&wanted, &name.to_lowercase());
            let holds = wanted.len() >= 2 && name.to_lowercase().contains(&wanted);
            (if holds { distance.min(2) } else { distance }, name)
        })
        .collect();
    near.sort_unstable();
    near.dedup();
    near.into_iter().take(SHOWN).map(|(_, name)| name).collect()
}
