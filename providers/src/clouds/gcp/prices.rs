//! What machines of Google Cloud cost: cores and memory of each family are priced apart from each other, and put together
//! here.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::clouds::account::{Extras, Size};
use crate::clouds::price::Price;

/// Compute Engine, among all that is billed.
pub(super) const SERVICE: &str = "6F81-5844-456A";

/// Machines that share a core: the part of a core that is billed, in thousandths.
const SHARED: [(&str, u64); 3] = [("e2-micro", 250), ("e2-small", 500), ("e2-medium", 1_000)];

#[derive(Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    pub(super) skus: Vec<Sku>,
    #[serde(default, rename = "nextPageToken")]
    pub(super) next: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sku {
    #[serde(default)]
    description: String,
    #[serde(default)]
    category: Category,
    #[serde(default)]
    service_regions: Vec<String>,
    #[serde(default)]
    pricing_info: Vec<PricingInfo>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Category {
    usage_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PricingInfo {
    pricing_expression: Expression,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Expression {
    #[serde(default)]
    usage_unit: String,
    #[serde(default)]
    tiered_rates: Vec<Rate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rate {
    unit_price: UnitPrice,
}

#[derive(Deserialize)]
struct UnitPrice {
    #[serde(default)]
    units: String,
    #[serde(default)]
    nanos: i64,
}

impl Sku {
    /// The price beyond what is free, by a unit.
    fn price(&self, unit: &str) -> Option<Price> {
        let expression = &self.pricing_info.first()?.pricing_expression;
        let rate = expression.tiered_rates.last().filter(|_| expression.usage_unit == unit)?;
        let units: i64 = if rate.unit_price.units.is_empty() { 0 } else { rate.unit_price.units.parse().ok()? };
        Some(Price::of_nanos(units.checked_mul(1_000_000_000)?.checked_add(rate.unit_price.nanos)?))
    }

    fn is_in(&self, region: &str) -> bool {
        self.category.usage_type == "OnDemand" && self.service_regions.iter().any(|it| it == region)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Core,
    Memory,
}

/// Of which family a SKU is the core or the memory: `N2D AMD Instance Core running in EMEA`.
fn part(description: &str) -> Option<(&str, Part)> {
    let (of, _) = description.split_once(" running in ")?;
    let (of, part) = match of.strip_suffix(" Instance Core") {
        Some(of) => (of, Part::Core),
        None => (of.strip_suffix(" Instance Ram")?, Part::Memory),
    };
    let mut words = of.split(' ');
    let family = words.next()?;
    // Anything else is a machine of another making: spot, custom, sole tenancy.
    words.all(|word| matches!(word, "AMD" | "Arm" | "Predefined")).then_some((family, part))
}

/// Puts the prices of a region to its sizes.
pub(super) fn price(skus: &[Sku], region: &str, sizes: &mut [Size]) {
    let mut cores: BTreeMap<&str, Price> = BTreeMap::new();
    let mut memory: BTreeMap<&str, Price> = BTreeMap::new();
    for sku in skus.iter().filter(|it| it.is_in(region)) {
        match part(&sku.description) {
            Some((family, Part::Core)) => drop(sku.price("h").map(|price| cores.insert(family, price))),
            Some((family, Part::Memory)) => drop(sku.price("GiBy.h").map(|price| memory.insert(family, price))),
            None => {}
        }
    }
    for size in sizes {
        let (Some(core), Some(memory)) = (cores.get(&*size.family), memory.get(&*size.family)) else { continue };
        // With a disk or an accelerator of its own it costs more than its cores and its memory.
        let is_plain = !size.id.ends_with("-lssd") && !size.id.contains("gpu") && !size.id.contains("metal");
        let shared = SHARED.iter().find(|(id, _)| *id == size.id).map(|(_, part)| *part);
        let thousandths = shared.unwrap_or_else(|| u64::from(size.cores) * 1_000);
        let part = |price: &Price, many: u64, of: u64| {
            let whole = i128::from(price.nanos()) * i128::from(many);
            i64::try_from(whole.div_euclid(i128::from(of)) + i128::from(whole.rem_euclid(i128::from(of)) > 0)).ok()
        };
        let (Some(core), Some(memory)) = (part(core, thousandths, 1_000), part(memory, size.memory_mib, 1_024)) else {
            continue;
        };
        let hourly = Price::of_nanos(core) + Price::of_nanos(memory);
        for offer in size.offers.iter_mut().filter(|it| it.region == region && is_plain) {
            (offer.hourly, offer.monthly) = (Some(hourly), Some(hourly.monthly()));
        }
    }
}

/// What costs extra in a region.
pub(super) fn extras(skus: &[Sku], region: &str) -> Extras {
    let here = || skus.iter().filter(|it| it.is_in(region) || it.service_regions.iter().any(|it| it == "global"));
    let of =
        |start: &str, unit: &str| here().find(|it| it.description.starts_with(start)).and_then(|it| it.price(unit));
    let disk = of("Balanced PD Capacity", "GiBy.mo");
    let address = of("External IP Charge on a Standard VM", "h").map(Price::monthly);
    Extras { volume_gib: disk, disk_gib: disk, address }
}
