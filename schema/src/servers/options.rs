//! What may be wanted of a server besides where it is, how large it is and with what it begins.

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

/// What else is wanted of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// From where it is reached by SSH; `None`: from everywhere.
    pub ssh_sources: Option<Vec<IpNet>>,
    /// What else is let in, besides SSH, HTTP and HTTPS.
    pub rules: Vec<Rule>,
    /// Its network; `None`: the usual one.
    pub network: Option<Network>,
    /// Whether its address is to stay when the machine is another.
    pub static_address: bool,
    /// How large a volume it has; `None`: it has none.
    pub volume_gib: Option<u32>,
    /// How large its disk is, where that is not part of its size; `None`: the usual.
    pub disk_gib: Option<u32>,
    /// Public keys of people who get in beside the platform, as `authorized_keys` has them.
    pub authorized_keys: Vec<String>,
}

/// Keys of people, at most.
pub const MOST_KEYS: usize = 20;

/// Characters that all of them may have together: what a machine is told when it begins has its bounds.
pub const LONGEST_KEYS: usize = 8 * 1024;

/// Something that is let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// By which protocol.
    pub protocol: Protocol,
    /// To which ports, from the first to the last. ICMP has none.
    pub ports: Option<(u16, u16)>,
    /// From where.
    pub sources: Vec<IpNet>,
    /// What for.
    pub description: String,
}

/// Protocols that firewalls of all clouds know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp,
}

/// A private network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// All of it.
    pub range: Ipv4Net,
    /// The part the server is in.
    pub subnet: Ipv4Net,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_chose_is_as_usual() {
        assert_eq!(serde_json::from_str::<Options>("{}").unwrap(), Options::default());
        let chosen = Options {
            ssh_sources: Some(vec!["203.0.113.0/24".parse().unwrap()]),
            rules: vec![Rule {
                protocol: Protocol::Udp,
                ports: Some((51_820, 51_820)),
                sources: vec!["::/0".parse().unwrap()],
                description: "WireGuard".to_owned(),
            }],
            volume_gib: Some(20),
            ..Options::default()
        };
        let kept = serde_json::to_value(&chosen).unwrap();
        assert_eq!(serde_json::from_value::<Options>(kept).unwrap(), chosen);
    }
}
