//! A machine that does what its user data says, as far as that concerns who gets in: an OpenSSH server with a system of its
//! own, in a sandbox of bubblewrap.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::process::{Child, Command};

const SSHD: &str = "\
ListenAddress 127.0.0.1
HostKey /etc/ssh/ssh_host_ed25519_key
PidFile /run/sshd.pid
AuthorizedKeysFile /home/deploy/.ssh/authorized_keys
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PrintMotd no
";

/// `deploy` may do everything there, as on a machine of a cloud.
const PASSWD: &str = "\
root:x:0:0::/root:/bin/sh
deploy:x:0:0::/home/deploy:/bin/sh
sshd:x:100:65534::/run/sshd:/usr/sbin/nologin
";

/// Programs that a machine of a cloud has, and what is asked of them.
const PROGRAMS: &[(&str, &str)] = &[
    ("bin/sudo", "shift; exec \"$@\""),
    ("bin/systemctl", "kill -HUP \"$(cat /run/sshd.pid)\""),
    ("bin/docker", "echo 24.0.7"),
];

/// Runs until it is dropped.
pub(crate) struct Machine {
    pub port: u16,
    directory: PathBuf,
    first: String,
    _docker: UnixListener,
    _process: Child,
}

/// Whether there can be machines here, and why not.
pub(crate) fn possible() -> Result<(), &'static str> {
    use gantry_providers::terraform::process::find;
    if !is_root() {
        return Err("only root can start a machine that lets others in");
    }
    if find("bwrap").is_none() { Err("bubblewrap is not installed") } else { Ok(()) }
}

/// Whether we are root.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0)
}

impl Machine {
    /// Starts a machine with this user data.
    #[expect(clippy::disallowed_methods, reason = "a machine of the story's own")]
    pub fn start(directory: &Path, user_data: &str) -> Self {
        let data: Value = serde_json::from_str(user_data.strip_prefix("#cloud-config\n").unwrap()).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let write = |name: &str, contents: &str, mode: u32| {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, contents).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        fs::create_dir_all(directory.join("run/sshd")).unwrap();
        write("etc/passwd", PASSWD, 0o644);
        write("etc/group", "root:x:0:\nnogroup:x:65534:\n", 0o644);
        write("etc/os-release", &fs::read_to_string("/etc/os-release").unwrap(), 0o644);
        write("etc/ssh/sshd_config", SSHD, 0o644);
        let first = text(&data["ssh_keys"]["ed25519_public"]);
        write("etc/ssh/ssh_host_ed25519_key", &text(&data["ssh_keys"]["ed25519_private"]), 0o600);
        write("etc/ssh/ssh_host_ed25519_key.pub", &format!("{first}\n"), 0o644);
        for (name, script) in PROGRAMS {
            write(&format!("local/{name}"), &format!("#!/bin/sh\n{script}\n"), 0o755);
        }
        let written = data["write_files"].as_array().unwrap();
        let file = |path: &str| text(&written.iter().find(|it| it["path"] == path).unwrap()["content"]);
        write("local/sbin/gantry-host-key", &file("/usr/local/sbin/gantry-host-key"), 0o700);
        write("home/deploy/.ssh/authorized_keys", &file("/etc/ssh/gantry_authorized_keys"), 0o600);
        let docker = UnixListener::bind(directory.join("run/docker.sock")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();

        let mut process = Command::new("bwrap");
        process.args(["--die-with-parent", "--unshare-pid", "--ro-bind", "/usr", "/usr"]);
        for (own, there) in [("local", "/usr/local"), ("etc", "/etc"), ("run", "/run"), ("home", "/home")] {
            process.arg("--bind").arg(directory.join(own)).arg(there);
        }
        process.args([
            "--symlink",
            "usr/bin",
            "/bin",
            "--symlink",
            "usr/sbin",
            "/sbin",
            "--symlink",
            "usr/lib",
            "/lib",
        ]);
        process.args(["--symlink", "usr/lib64", "/lib64", "--dir", "/var", "--symlink", "/run", "/var/run"]);
        process.args(["--dir", "/root", "--tmpfs", "/tmp", "--proc", "/proc", "--dev", "/dev"]);
        process.args(["/usr/sbin/sshd", "-D", "-e", "-p", &port.to_string()]).env_clear();
        process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let process = process.spawn().unwrap();
        Self { port, directory: directory.to_owned(), first, _docker: docker, _process: process }
    }

    /// The one it was made with, and the one it uses.
    pub fn host_keys(&self) -> (String, String) {
        let used = fs::read_to_string(self.directory.join("etc/ssh/ssh_host_ed25519_key.pub")).unwrap();
        let plain = |key: &str| key.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        (plain(&self.first), plain(&used))
    }
}
