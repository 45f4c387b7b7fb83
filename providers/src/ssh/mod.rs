//! Into servers, by SSH: with a key from memory, and only where the host key is the one that is believed.

mod guard;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::{self, Handle};
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{ChannelMsg, Disconnect, Preferred};
use tokio::time::timeout;

pub use guard::{Config, Guard};

/// Where a server is, and who has to answer.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its address.
    pub address: &'a str,
    /// The port.
    pub port: u16,
    /// As whom.
    pub username: &'a str,
    /// The host key that is believed, as `known_hosts` has it.
    pub host_key: &'a str,
}

/// Why nobody got in.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// Nobody answers there.
    #[error("{address}:{port} does not answer: {why}")]
    Unreachable {
        /// Where.
        address: String,
        /// Where.
        port: u16,
        /// Why.
        why: String,
    },
    /// Nobody is to be contacted there.
    #[error("{address} is an address that the platform does not contact, or leads to one")]
    Address {
        /// Where that was to be.
        address: String,
    },
    /// Somebody else answers there.
    #[error("the host key there is {found}, and {believed} is believed")]
    HostKey {
        /// Of whoever answers: its fingerprint.
        found: String,
        /// Of whoever has to: its fingerprint.
        believed: String,
    },
    /// It lets us not in.
    #[error("the server does not take the platform's key for {0}")]
    Refused(String),
    /// A key is none.
    #[error("a key that is none: {0}")]
    Key(String),
    /// It did not come to its end.
    #[error("a command on the server did not come to its end: {0}")]
    Command(String),
}

impl SshError {
    /// Whether it may be otherwise a moment later: a server that begins does not answer yet, and does not know us yet.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Refused(_) | Self::Command(_))
    }
}

/// Takes the one host key that is believed.
struct Pinned {
    believed: PublicKey,
    found: Arc<Mutex<Option<String>>>,
}

impl client::Handler for Pinned {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let found = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } if key.key_data() == self.believed.key_data() => {
                return Ok(true);
            }
            PublicKeyOrCertificate::PublicKey { key, .. } => key.fingerprint(HashAlg::Sha256).to_string(),
            PublicKeyOrCertificate::Certificate(_) => "a certificate".to_owned(),
        };
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        Ok(false)
    }
}

/// Somebody is in.
pub struct Session {
    handle: Handle<Pinned>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session")
    }
}

/// What a command came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its status; `None`: a signal ended it.
    pub status: Option<u32>,
    /// What it said, and complained.
    pub text: String,
}

/// Gets in, with the Ed25519 key that these 32 bytes make.
///
/// # Errors
/// When nobody answers, somebody else does, or we are not let in.
pub async fn connect(place: Place<'_>, seed: &[u8], within: Duration) -> Result<Session, SshError> {
    let key = |text: &str| PublicKey::from_openssh(text.trim()).map_err(|error| SshError::Key(error.to_string()));
    let believed = key(place.host_key)?;
    let seed: [u8; 32] = seed.try_into().map_err(|_| SshError::Key("it has not 32 bytes".to_owned()))?;
    let ours = Arc::new(PrivateKey::from(Ed25519Keypair::from_seed(&seed)));
    let found = Arc::new(Mutex::new(None));
    // A server has keys of several algorithms, and one of them is believed.
    let preferred = Preferred { key: vec![believed.algorithm()].into(), ..Preferred::DEFAULT };
    let inactivity_timeout = Some(Duration::from_mins(1));
    // A command that says nothing for a while is no connection that is lost.
    let keepalive_interval = Some(Duration::from_secs(15));
    let config = client::Config { inactivity_timeout, keepalive_interval, preferred, ..client::Config::default() };
    let unreachable = |why: String| SshError::Unreachable { address: place.address.to_owned(), port: place.port, why };
    let entering = async {
        let pinned = Pinned { believed: believed.clone(), found: Arc::clone(&found) };
        let connected = client::connect(Arc::new(config), (place.address, place.port), pinned).await;
        let mut handle = connected.map_err(|error| {
            let found = found.lock().unwrap_or_else(PoisonError::into_inner).take();
            match found {
                Some(found) => SshError::HostKey { found, believed: believed.fingerprint(HashAlg::Sha256).to_string() },
                None => unreachable(error.to_string()),
            }
        })?;
        let ours = PrivateKeyWithHashAlg::new(ours, None);
        match handle.authenticate_publickey(place.username, ours).await {
            Ok(answer) if answer.success() => Ok(Session { handle }),
            Ok(_) => Err(SshError::Refused(place.username.to_owned())),
            Err(error) => Err(unreachable(error.to_string())),
        }
    };
    match timeout(within, entering).await {
        Ok(entered) => entered,
        Err(_) => Err(unreachable(format!("not within {} s", within.as_secs()))),
    }
}

impl Session {
    /// Has a command done, and reads the first bytes of what it says.
    ///
    /// # Errors
    /// When it does not come to its end in time.
    pub async fn run(&self, command: &str, most: usize, within: Duration) -> Result<Said, SshError> {
        let lost = |error: russh::Error| SshError::Command(error.to_string());
        let doing = async {
            let mut channel = self.handle.channel_open_session().await.map_err(lost)?;
            channel.exec(true, command).await.map_err(lost)?;
            let (mut status, mut text) = (None, Vec::new());
            while let Some(message) = channel.wait().await {
                match message {
                    ChannelMsg::Data { data } => text.extend_from_slice(&data),
                    ChannelMsg::ExtendedData { data, .. } => text.extend_from_slice(&data),
                    ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                    _ => {}
                }
                text.truncate(most);
            }
            Ok(Said { status, text: String::from_utf8_lossy(&text).into_owned() })
        };
        match timeout(within, doing).await {
            Ok(said) => said,
            Err(_) => Err(SshError::Command(format!("not within {} s", within.as_secs()))),
        }
    }

    /// Leaves.
    pub async fn leave(self) {
        // Whoever does not hear it sees that the connection ends.
        let _unheard = self.handle.disconnect(Disconnect::ByApplication, "", "en").await;
    }
}
