//! Accounts of organizations at clouds, opened for a job, and what there is to be had with them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Duration, Utc};
use gantry_providers::clouds::account::{Catalogue, Key};
use gantry_providers::clouds::{Account, Blueprint, Network, Options, Protocol, Rule, Vendor, sandbox};
use gantry_schema::CloudCredentialId;
use gantry_schema::credentials::{Cloud, Credential};
use gantry_schema::servers::keys::SshKey;
use gantry_schema::servers::options::{self, Protocol as Wanted};

use super::setback::Setback;
use crate::Context;

/// How old what a cloud said may be.
const AGE: Duration = Duration::hours(1);

/// Catalogues that are kept at most; a few hundred kilobytes each.
const KEPT: usize = 50;

/// The vendor of a cloud; `None`: it is the sandbox.
pub(crate) const fn vendor(cloud: Cloud) -> Option<Vendor> {
    match cloud {
        Cloud::Aws => Some(Vendor::Aws),
        Cloud::Gcp => Some(Vendor::Gcp),
        Cloud::Azure => Some(Vendor::Azure),
        Cloud::Digitalocean => Some(Vendor::Digitalocean),
        Cloud::Hetzner => Some(Vendor::Hetzner),
        Cloud::Sandbox => None,
    }
}

/// What opens an account; `None`: the sandbox needs nothing.
pub(crate) fn key(credential: &Credential) -> Result<Option<Key>, Setback> {
    let Some(vendor) = vendor(credential.cloud()) else { return Ok(None) };
    Ok(Some(Key::of(vendor, credential.members())?))
}

/// Opens an account; `None`: it is the sandbox.
pub(crate) fn account(cx: &Context, credential: &Credential) -> Result<Option<Arc<dyn Account>>, Setback> {
    let Some(key) = key(credential)? else { return Ok(None) };
    let clock = cx.clone();
    let now = Arc::new(move || clock.now().timestamp());
    Ok(Some(cx.providers().clouds.open(key, now)?))
}

/// What there is to be had, and when that was read.
#[derive(Debug, Clone)]
pub(crate) struct Read {
    pub catalogue: Arc<Catalogue>,
    pub at: DateTime<Utc>,
}

/// Catalogues that this process has read.
#[derive(Debug, Default)]
struct Catalogues(Mutex<HashMap<(CloudCredentialId, String), Read>>);

/// What there is to be had with a credential in a region. What was read within the last hour is not read again.
pub(crate) async fn catalogue(
    cx: &Context,
    credential: CloudCredentialId,
    account: Option<&Arc<dyn Account>>,
    region: &str,
) -> Result<Read, Setback> {
    let Some(account) = account else {
        return Ok(Read { catalogue: Arc::new(sandbox::catalogue()), at: cx.now() });
    };
    let (kept, now) = (cx.shared(Catalogues::default), cx.now());
    let place = (credential, region.to_owned());
    let fresh = |read: &&Read| now - read.at < AGE;
    if let Some(read) = kept.0.lock().unwrap_or_else(PoisonError::into_inner).get(&place).filter(fresh) {
        return Ok(read.clone());
    }
    let read = Read { catalogue: Arc::new(account.catalogue(Some(region)).await?), at: now };
    keep(&kept, place, read.clone());
    Ok(read)
}

fn keep(kept: &Catalogues, place: (CloudCredentialId, String), read: Read) {
    let mut kept = kept.0.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() >= KEPT {
        let oldest = kept.iter().min_by_key(|(_, read)| read.at).map(|(place, _)| place.clone());
        oldest.map(|place| kept.remove(&place));
    }
    kept.insert(place, read);
}

/// What is wanted of a server, as clouds are told.
pub(crate) fn options<'a>(wanted: &options::Options, whose: &'a str, run: &'a str, key: &'a SshKey) -> Options<'a> {
    use secrecy::ExposeSecret as _;
    let rule = |rule: &options::Rule| Rule {
        protocol: match rule.protocol {
            Wanted::Tcp => Protocol::Tcp,
            Wanted::Udp => Protocol::Udp,
            Wanted::Icmp => Protocol::Icmp,
        },
        ports: rule.ports,
        sources: rule.sources.clone(),
        description: rule.description.clone(),
    };
    Options {
        organization: whose,
        run,
        ssh_sources: wanted.ssh_sources.clone(),
        rules: wanted.rules.iter().map(rule).collect(),
        network: wanted.network.map(|network| Network { range: network.range, subnet: network.subnet }),
        static_address: wanted.static_address,
        volume_gib: wanted.volume_gib,
        disk_gib: wanted.disk_gib,
        authorized_keys: wanted.authorized_keys.clone(),
        secret: key.seed.expose_secret(),
        ..Options::default()
    }
}

/// What is needed of an account for a server.
pub(crate) async fn headroom(
    account: &Arc<dyn Account>,
    catalogue: &Catalogue,
    wanted: &Blueprint<'_>,
) -> Result<Option<gantry_providers::clouds::account::Headroom>, Setback> {
    use gantry_providers::clouds::account::Needs;
    let Some(size) = catalogue.sizes.iter().find(|size| size.id == wanted.size) else { return Ok(None) };
    let needs = Needs {
        region: wanted.region,
        size,
        static_address: wanted.options.static_address,
        volume_gib: wanted.options.volume_gib.unwrap_or(0),
    };
    Ok(Some(account.headroom(&needs).await?))
}
