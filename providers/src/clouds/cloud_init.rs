//! What a machine does when it begins: user data for cloud-init, the same on every cloud.
//!
//! It is written as JSON, which is YAML too: no text of a customer can become a member of it.
//!
//! The first host key is ours: it is made before the machine is, goes along in its user data, and is what Terraform answers
//! as `host_key`. So the first contact is pinned, with nobody in between to believe. What is in user data can be read on the
//! machine, and by whoever may read it at the cloud; for that reason the key is good for the first contact only.
//! Over it, [`PREPARE`] has the machine make a key of its own, whose private half never leaves it; whoever wrote its public
//! half down has it used from then on with [`TAKE`]. The first key can be made again from a secret and the server's label,
//! as often as a run is tried, and is kept nowhere. It reaches Terraform in the environment, as a sensitive variable: neither
//! the configuration nor what Terraform says has it. Its plan and state have it, sealed as they are, and worthless once the
//! machine has a key of its own.

use aws_lc_rs::hmac;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use serde_json::json;

use super::{Because, Blueprint, Refusal};

/// Who works on a server.
pub const USER: &str = "deploy";

/// The variable that has the user data.
pub(super) const VARIABLE: &str = "user_data";

/// Has a machine make a host key of its own, and say its public half. As often as one likes.
pub const PREPARE: &str = "sudo -n /usr/local/sbin/gantry-host-key prepare";

/// Has a machine use its own host key from now on. As often as one likes.
pub const TAKE: &str = "sudo -n /usr/local/sbin/gantry-host-key take";

/// What every cloud takes: the least of them is AWS's, before it is encoded.
const LARGEST: usize = 16 * 1024;

const HOST_KEY: &str = include_str!("host_key.sh");

const SSHD: &str = "\
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin no
AllowUsers deploy
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitEmptyPasswords no
MaxAuthTries 3
LoginGraceTime 30
X11Forwarding no
AllowAgentForwarding no
PermitUserEnvironment no
";

const UPGRADES: &str = "\
APT::Periodic::Update-Package-Lists \"1\";
APT::Periodic::Unattended-Upgrade \"1\";
APT::Periodic::AutocleanInterval \"7\";
";

/// The key a machine shows when somebody comes for the first time.
#[derive(Clone, PartialEq, Eq)]
pub struct FirstKey {
    private: String,
    /// As `known_hosts` has it.
    pub public: String,
}

impl std::fmt::Debug for FirstKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FirstKey({}, [REDACTED])", self.public)
    }
}

impl FirstKey {
    /// Of a server, made from a secret. The same for the same; the secret cannot be found from it.
    ///
    /// # Errors
    /// When the secret has fewer than 32 bytes.
    pub fn of(secret: &[u8], label: &str) -> Result<Self, Refusal> {
        let off = |said: &str| Refusal { because: Because::Off, said: said.to_owned() };
        if secret.len() < 32 {
            return Err(off("the secret from which host keys are made has fewer than 32 bytes"));
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let made = hmac::sign(&key, format!("first host key of {label}").as_bytes());
        let seed: [u8; 32] = made.as_ref().try_into().map_err(|_| off("no host key can be made"))?;
        let key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
        let written = key.to_openssh(LineEnding::LF).map_err(|_| off("no host key can be made"))?;
        let public = key.public_key().to_openssh().map_err(|_| off("no host key can be made"))?;
        Ok(Self { private: written.to_string(), public })
    }
}

/// What a machine does when it begins. `volume` is the path at which its volume is found, if it has one.
pub(crate) fn user_data(wanted: &Blueprint<'_>, first: &FirstKey, volume: Option<&str>) -> Result<String, Refusal> {
    let mut then = vec![
        json!(["systemctl", "enable", "--now", "docker"]),
        json!(["usermod", "-aG", "docker", USER]),
        json!(["systemctl", "enable", "--now", "unattended-upgrades"]),
    ];
    if let Some(volume) = volume {
        // It may come later than the machine does.
        let mount = format!(
            "for i in $(seq 60); do [ -b '{volume}' ] && break; sleep 5; done; \
             if [ -b '{volume}' ]; then blkid '{volume}' || mkfs.ext4 -q '{volume}'; mkdir -p /mnt/data; \
             grep -q ' /mnt/data ' /etc/fstab || echo '{volume} /mnt/data ext4 defaults,nofail,discard 0 2' >>/etc/fstab; \
             mount -a; fi"
        );
        then.push(json!(["sh", "-c", mount]));
    }
    then.push(json!(["sh", "-c", "systemctl restart ssh || systemctl restart sshd"]));
    // Nobody is let in before everything is there: whoever comes earlier is refused, and comes again.
    then.push(json!(["install", "-d", "-m", "0700", "-o", USER, "-g", USER, format!("/home/{USER}/.ssh")]));
    then.push(json!([
        "install",
        "-m",
        "0600",
        "-o",
        USER,
        "-g",
        USER,
        "/etc/ssh/gantry_authorized_keys",
        format!("/home/{USER}/.ssh/authorized_keys"),
    ]));
    let file = |path: &str, mode: &str, content: &str| json!({ "path": path, "permissions": mode, "owner": "root:root", "content": content });
    let data = json!({
        "hostname": wanted.name,
        "ssh_deletekeys": true,
        "ssh_keys": { "ed25519_private": first.private, "ed25519_public": first.public },
        "disable_root": true,
        "ssh_pwauth": false,
        // Being in the group of Docker is as good as being root, and so nothing is given that was not there.
        "users": [{ "name": USER, "shell": "/bin/bash", "lock_passwd": true, "sudo": ["ALL=(ALL) NOPASSWD:ALL"] }],
        "package_update": true,
        "packages": ["docker.io", "unattended-upgrades", "openssh-server", "sudo", "ca-certificates"],
        "write_files": [
            file("/etc/ssh/sshd_config.d/00-gantry.conf", "0644", SSHD),
            file("/etc/apt/apt.conf.d/20auto-upgrades", "0644", UPGRADES),
            file("/usr/local/sbin/gantry-host-key", "0700", HOST_KEY),
            file("/etc/ssh/gantry_authorized_keys", "0600", &wanted.who_gets_in()),
        ],
        "runcmd": then,
    });
    let data = format!("#cloud-config\n{data}\n");
    if data.len() > LARGEST {
        let said =
            format!("what the machine is told when it begins has {} bytes, and {LARGEST} are possible", data.len());
        return Err(Refusal { because: Because::Name, said });
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use russh::keys::PublicKey;

    use super::*;
    use crate::clouds::Options;

    #[test]
    fn the_first_host_key_is_the_same_for_the_same_server_and_another_for_another() {
        let first = FirstKey::of(&[7; 32], "srv_1").unwrap();
        assert_eq!(first, FirstKey::of(&[7; 32], "srv_1").unwrap());
        assert_ne!(first, FirstKey::of(&[7; 32], "srv_2").unwrap());
        assert_ne!(first, FirstKey::of(&[8; 32], "srv_1").unwrap());
        assert!(FirstKey::of(&[7; 31], "srv_1").is_err());
        let private = PrivateKey::from_openssh(&first.private).unwrap();
        assert_eq!(*private.public_key(), PublicKey::from_openssh(&first.public).unwrap());
        assert!(first.public.starts_with("ssh-ed25519 ") && !format!("{first:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_machine_gets_a_host_key_of_its_own_however_often_it_is_told() {
        use crate::terraform::process::find;
        if find("ssh-keygen").is_none() {
            println!("this test needs ssh-keygen in PATH, and is left out without");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("script"), HOST_KEY).unwrap();
        std::fs::write(at("systemctl"), "#!/bin/sh\necho \"$@\" >>\"$GANTRY_SSH_DIRECTORY/told\"\n").unwrap();
        std::fs::set_permissions(at("systemctl"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let first = FirstKey::of(&[7; 32], "srv_1").unwrap();
        std::fs::write(at("ssh_host_ed25519_key"), &first.private).unwrap();
        let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
        let run = |verb: &str| {
            #[expect(clippy::disallowed_methods, reason = "a test, of a script that ends by itself")]
            let mut command = std::process::Command::new("sh");
            let command = command.arg(at("script")).arg(verb).env("PATH", &path);
            let said = command.env("GANTRY_SSH_DIRECTORY", directory.path()).output().unwrap();
            (said.status.success(), String::from_utf8(said.stdout).unwrap())
        };
        assert!(!run("take").0, "there is nothing to take yet");
        let (_, prepared) = run("prepare");
        assert!(prepared.starts_with("ssh-ed25519 ") && !prepared.contains(&first.public));
        assert_eq!(run("prepare").1, prepared);
        assert_eq!(std::fs::read_to_string(at("ssh_host_ed25519_key")).unwrap(), first.private);
        assert!(run("take").0 && run("take").0);
        assert_eq!(run("prepare").1, prepared);
        let used = PrivateKey::read_openssh_file(at("ssh_host_ed25519_key")).unwrap();
        assert_eq!(*used.public_key(), PublicKey::from_openssh(prepared.trim()).unwrap());
        assert_eq!(std::fs::read_to_string(at("told")).unwrap(), "restart ssh\nrestart ssh\n");
    }

    #[test]
    fn people_get_in_beside_the_platform_and_as_many_as_may_be_fit() {
        let labels = BTreeMap::new();
        let people: Vec<String> =
            (0..20).map(|number| format!("ssh-rsa {} ada-{number:02}", "A".repeat(395))).collect();
        assert!(people.iter().map(String::len).sum::<usize>() > 8 * 1024 - 200);
        let wanted = Blueprint {
            run: "",
            label: "srv_1",
            name: &"n".repeat(63),
            region: "nbg1",
            size: "cx23",
            image: "debian-12",
            authorized_key: "ssh-ed25519 AAAA",
            labels: &labels,
            options: Options { authorized_keys: people.clone(), ..Options::default() },
        };
        let first = FirstKey::of(&[7; 32], "srv_1").unwrap();
        let data =
            user_data(&wanted, &first, Some("/dev/disk/by-id/scsi-0DO_Volume_srv-01h455vb4pex5vsknk084sn02q")).unwrap();
        let read: serde_json::Value = serde_json::from_str(data.strip_prefix("#cloud-config\n").unwrap()).unwrap();
        let expected = format!("ssh-ed25519 AAAA\n{}\n", people.join("\n"));
        assert_eq!(read["write_files"][3]["content"].as_str(), Some(expected.as_str()));
    }

    proptest! {
        #[test]
        fn whatever_a_customer_writes_stays_what_it_is(name in ".{0,60}", key in ".{0,200}") {
            let labels = BTreeMap::new();
            let wanted = Blueprint {
                run: "", label: "srv_1", name: &name, region: "nbg1", size: "cx23", image: "debian-12",
                authorized_key: &key, labels: &labels, options: Options::default(),
            };
            let first = FirstKey::of(&[7; 32], "srv_1").unwrap();
            let data = user_data(&wanted, &first, Some("/dev/sdf")).unwrap();
            let body = data.strip_prefix("#cloud-config\n").unwrap();
            let read: serde_json::Value = serde_json::from_str(body).unwrap();
            prop_assert_eq!(read["hostname"].as_str(), Some(name.as_str()));
            prop_assert_eq!(read["users"].as_array().map(Vec::len), Some(1));
            let expected = format!("{}\n", key.trim());
            prop_assert_eq!(read["write_files"][3]["content"].as_str(), Some(expected.as_str()));
            prop_assert_eq!(read.as_object().map(serde_json::Map::len), Some(10));
        }
    }
}
