//! What of a plan is lost for good when it is carried out: what people want to be asked about, whatever it costs.

/// What a server is, by the type of its resource.
const MACHINES: [&str; 5] = [
    "aws_instance",
    "azurerm_linux_virtual_machine",
    "digitalocean_droplet",
    "google_compute_instance",
    "hcloud_server",
];

/// What a volume is.
const VOLUMES: [&str; 5] =
    ["aws_ebs_volume", "azurerm_managed_disk", "digitalocean_volume", "google_compute_disk", "hcloud_volume"];

/// The same in the sandbox, where everything has one type.
const SANDBOX: [(&str, Loss); 2] =
    [("terraform_data.machine", Loss::Machine), ("terraform_data.storage", Loss::Volume)];

/// What is lost when a resource is removed or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// The server itself, with its disk.
    Machine,
    /// A volume, with what is on it.
    Volume,
}

/// What is lost when something is done with the resource at an address: `replace` and `delete` lose something.
#[must_use]
pub fn loss(address: &str, action: &str) -> Option<Loss> {
    if !matches!(action, "replace" | "delete") {
        return None;
    }
    let kind = address.split('.').next().unwrap_or_default();
    let of = |kinds: &[&str], loss: Loss| kinds.contains(&kind).then_some(loss);
    let in_sandbox = || SANDBOX.iter().find(|(known, _)| *known == address).map(|(_, loss)| *loss);
    of(&MACHINES, Loss::Machine).or_else(|| of(&VOLUMES, Loss::Volume)).or_else(in_sandbox)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::clouds::templates::{catalogue, everything, with};
    use crate::clouds::{Vendor, template};

    #[test]
    fn every_template_has_one_machine_and_one_volume() {
        for vendor in Vendor::ALL {
            let labels = BTreeMap::new();
            let made =
                with(vendor, everything(), &labels, |wanted| template(vendor, &wanted, &catalogue(vendor)).unwrap());
            let resources = made.configuration["resource"].as_object().unwrap();
            let addresses = resources
                .iter()
                .flat_map(|(kind, all)| all.as_object().unwrap().keys().map(move |name| format!("{kind}.{name}")));
            let mut lost: Vec<String> =
                addresses.filter_map(|address| loss(&address, "replace")).map(|loss| format!("{loss:?}")).collect();
            lost.sort();
            assert_eq!(lost, ["Machine", "Volume"], "{vendor}");
        }
        assert_eq!(loss("terraform_data.machine", "delete"), Some(Loss::Machine));
        assert_eq!(loss("terraform_data.firewall", "replace"), None);
        assert_eq!(loss("aws_instance.server", "update"), None);
    }
}
