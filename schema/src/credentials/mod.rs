//! What opens an organization's accounts at clouds: which kinds there are, and what each looks like.

pub mod accounts;
pub mod orphans;
pub mod queries;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::words::words;

words! {
    /// Where servers are made.
    Cloud {
        /// Amazon Web Services.
        Aws = "aws",
        /// Google Cloud.
        Gcp = "gcp",
        /// Microsoft Azure.
        Azure = "azure",
        /// DigitalOcean.
        Digitalocean = "digitalocean",
        /// Hetzner Cloud.
        Hetzner = "hetzner",
        /// The platform's own, which costs nothing and is no use but to try things.
        Sandbox = "sandbox",
    }
}

/// The word names no cloud.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no cloud")]
pub struct UnknownCloud(pub String);

impl FromStr for Cloud {
    type Err = UnknownCloud;

    fn from_str(word: &str) -> Result<Self, UnknownCloud> {
        Self::ALL.iter().copied().find(|cloud| cloud.as_str() == word).ok_or_else(|| UnknownCloud(word.to_owned()))
    }
}

/// What opens an account at a cloud. Never printed; stored sealed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cloud", rename_all = "lowercase", deny_unknown_fields)]
pub enum Credential {
    /// A lasting key of a user.
    Aws {
        /// `AKIA…`
        access_key_id: String,
        /// 40 characters.
        secret_access_key: String,
    },
    /// The key file of a service account.
    Gcp {
        /// The file, JSON.
        service_account: String,
    },
    /// A client secret of an application.
    Azure {
        /// The directory.
        tenant_id: String,
        /// The application.
        client_id: String,
        /// Its secret.
        client_secret: String,
        /// What is billed.
        subscription_id: String,
    },
    /// A personal access token.
    Digitalocean {
        /// `dop_v1_…`
        token: String,
    },
    /// A token of a project.
    Hetzner {
        /// 64 characters.
        token: String,
    },
    /// Any word.
    Sandbox {
        /// 8 to 100 characters.
        token: String,
    },
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({}, [REDACTED])", self.cloud())
    }
}

/// A credential cannot be one of its cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Malformed {
    /// The member at fault.
    pub field: &'static str,
    /// What it is to be.
    pub reason: &'static str,
}

impl Credential {
    /// Of which cloud it is.
    #[must_use]
    pub const fn cloud(&self) -> Cloud {
        match self {
            Self::Aws { .. } => Cloud::Aws,
            Self::Gcp { .. } => Cloud::Gcp,
            Self::Azure { .. } => Cloud::Azure,
            Self::Digitalocean { .. } => Cloud::Digitalocean,
            Self::Hetzner { .. } => Cloud::Hetzner,
            Self::Sandbox { .. } => Cloud::Sandbox,
        }
    }

    /// Its members, each with its name.
    #[must_use]
    pub fn members(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Aws { access_key_id, secret_access_key } => {
                vec![("access_key_id", access_key_id), ("secret_access_key", secret_access_key)]
            }
            Self::Gcp { service_account } => vec![("service_account", service_account)],
            Self::Azure { tenant_id, client_id, client_secret, subscription_id } => vec![
                ("tenant_id", tenant_id),
                ("client_id", client_id),
                ("client_secret", client_secret),
                ("subscription_id", subscription_id),
            ],
            Self::Digitalocean { token } | Self::Hetzner { token } | Self::Sandbox { token } => vec![("token", token)],
        }
    }

    /// By what people recognise it; no secret.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Aws { access_key_id, .. } => access_key_id.clone(),
            Self::Gcp { service_account } => {
                let file: Value = serde_json::from_str(service_account).unwrap_or_default();
                file["client_email"].as_str().unwrap_or_default().chars().take(200).collect()
            }
            Self::Azure { subscription_id, .. } => subscription_id.clone(),
            Self::Digitalocean { token } | Self::Hetzner { token } | Self::Sandbox { token } => {
                let last = token.char_indices().rev().nth(3).map_or(0, |(at, _)| at);
                format!("…{}", token.get(last..).unwrap_or_default())
            }
        }
    }

    /// Whether it can be one of its cloud, going by how those look.
    ///
    /// # Errors
    /// Names the member that cannot.
    pub fn check(&self) -> Result<(), Malformed> {
        let wrong = |field, reason| Err(Malformed { field, reason });
        match self {
            Self::Aws { access_key_id, secret_access_key } => {
                let upper = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
                if access_key_id.starts_with("ASIA") {
                    return wrong(
                        "access_key_id",
                        "it is a temporary one (ASIA…), which ends before servers do; make a lasting one (AKIA…)",
                    );
                }
                if !(access_key_id.len() == 20 && access_key_id.starts_with("AKIA") && access_key_id.bytes().all(upper))
                {
                    return wrong("access_key_id", "an access key id of AWS is AKIA and 16 of A-Z and 0-9");
                }
                let secret = |byte: u8| byte.is_ascii_alphanumeric() || b"/+=".contains(&byte);
                if secret_access_key.len() != 40 || !secret_access_key.bytes().all(secret) {
                    return wrong("secret_access_key", "a secret access key of AWS has 40 of letters, digits, / and +");
                }
                Ok(())
            }
            Self::Gcp { service_account } => service_account_file(service_account),
            Self::Azure { tenant_id, client_id, client_secret, subscription_id } => {
                for (field, id) in
                    [("tenant_id", tenant_id), ("client_id", client_id), ("subscription_id", subscription_id)]
                {
                    if id.len() != 36 || uuid::Uuid::parse_str(id).is_err() {
                        return wrong(field, "ids of Azure look like 6f1c2a34-8d1e-4b0a-9c55-0a1b2c3d4e5f");
                    }
                }
                if uuid::Uuid::parse_str(client_secret).is_ok() {
                    return wrong("client_secret", "this is the secret's id; write its value, which Azure shows once");
                }
                if !(8..=200).contains(&client_secret.len())
                    || !client_secret.bytes().all(|byte| byte.is_ascii_graphic())
                {
                    return wrong("client_secret", "a client secret of Azure has 8 to 200 visible characters");
                }
                Ok(())
            }
            Self::Digitalocean { token } => {
                let hex = |rest: &str| rest.len() == 64 && rest.bytes().all(|byte| byte.is_ascii_hexdigit());
                if token.strip_prefix("dop_v1_").is_some_and(hex) {
                    Ok(())
                } else {
                    wrong("token", "a personal access token of DigitalOcean is dop_v1_ and 64 of 0-9 and a-f")
                }
            }
            Self::Hetzner { token } => {
                if token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                    Ok(())
                } else {
                    wrong("token", "a token of Hetzner Cloud has 64 letters and digits")
                }
            }
            Self::Sandbox { token } => {
                if (8..=100).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic()) {
                    Ok(())
                } else {
                    wrong("token", "a token of the sandbox has 8 to 100 visible characters, whichever you like")
                }
            }
        }
    }
}

fn service_account_file(text: &str) -> Result<(), Malformed> {
    let wrong = |reason| Err(Malformed { field: "service_account", reason });
    let Ok(Value::Object(file)) = serde_json::from_str::<Value>(text) else {
        return wrong("it is not the JSON of a key file; send the whole file as one text");
    };
    let member = |name: &str| file.get(name).and_then(Value::as_str).unwrap_or_default();
    if member("type") != "service_account" {
        return wrong("its type is not service_account; make a key of a service account and send that file");
    }
    if member("project_id").is_empty() || !member("client_email").contains('@') {
        return wrong("it has no project_id or no client_email; send the key file as Google gave it");
    }
    if !member("private_key").trim_start().starts_with("-----BEGIN PRIVATE KEY-----") {
        return wrong("its private_key is not one; send the key file as Google gave it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gcp(kind: &str, key: &str) -> Credential {
        let file = serde_json::json!({
            "type": kind, "project_id": "acme", "client_email": "ci@acme.iam.gserviceaccount.com", "private_key": key,
        });
        Credential::Gcp { service_account: file.to_string() }
    }

    fn azure(tenant: &str, secret: &str) -> Credential {
        let id = "6f1c2a34-8d1e-4b0a-9c55-0a1b2c3d4e5f".to_owned();
        Credential::Azure {
            tenant_id: tenant.to_owned(),
            client_id: id.clone(),
            client_secret: secret.to_owned(),
            subscription_id: id,
        }
    }

    fn aws(id: &str, secret: &str) -> Credential {
        Credential::Aws { access_key_id: id.to_owned(), secret_access_key: secret.to_owned() }
    }

    #[test]
    fn what_each_cloud_hands_out_is_taken() {
        let id = "6f1c2a34-8d1e-4b0a-9c55-0a1b2c3d4e5f";
        for good in [
            aws("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
            gcp("service_account", "-----BEGIN PRIVATE KEY-----\nMII"),
            azure(id, "Abc8Q~xyz_example.secret"),
            Credential::Digitalocean { token: format!("dop_v1_{}", "0f".repeat(32)) },
            Credential::Hetzner { token: "aB".repeat(32) },
            Credential::Sandbox { token: "sandbox-my-first-one".to_owned() },
        ] {
            assert_eq!(good.check(), Ok(()), "{good:?}");
            let stored = serde_json::to_vec(&good).unwrap();
            assert_eq!(serde_json::from_slice::<Credential>(&stored).unwrap(), good);
            assert!(good.hint().chars().count() >= 5);
        }
    }

    #[test]
    fn what_is_another_clouds_or_no_credential_is_refused_by_its_member() {
        let id = "6f1c2a34-8d1e-4b0a-9c55-0a1b2c3d4e5f";
        for (bad, field) in [
            (aws("ASIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"), "access_key_id"),
            (aws("AKIAIOSFODNN7EXAMPLE", "short"), "secret_access_key"),
            (gcp("authorized_user", "-----BEGIN PRIVATE KEY-----"), "service_account"),
            (gcp("service_account", "MII"), "service_account"),
            (Credential::Gcp { service_account: "[]".to_owned() }, "service_account"),
            (azure("acme.onmicrosoft.com", "Abc8Q~xyz_example.secret"), "tenant_id"),
            (azure(id, id), "client_secret"),
            (Credential::Digitalocean { token: "aB".repeat(32) }, "token"),
            (Credential::Hetzner { token: format!("dop_v1_{}", "0f".repeat(32)) }, "token"),
            (Credential::Sandbox { token: "short".to_owned() }, "token"),
        ] {
            assert_eq!(bad.check().unwrap_err().field, field, "{bad:?}");
        }
    }

    #[test]
    fn the_hint_of_a_token_is_its_end_and_nothing_is_printed() {
        let token = "aB".repeat(30) + "wxyz";
        let credential = Credential::Hetzner { token: token.clone() };
        assert_eq!(credential.hint(), "…wxyz");
        assert!(!format!("{credential:?}").contains(token.get(..8).unwrap()));
    }

    proptest! {
        #[test]
        fn whatever_is_sent_as_a_token_is_looked_at_without_a_panic(token in ".{0,80}") {
            for credential in [
                Credential::Hetzner { token: token.clone() },
                Credential::Sandbox { token: token.clone() },
                Credential::Gcp { service_account: token.clone() },
                aws(&token, &token),
                azure(&token, &token),
            ] {
                let (fits, hint) = (credential.check().is_ok(), credential.hint());
                prop_assert!(!fits || !hint.is_empty());
            }
        }
    }
}
