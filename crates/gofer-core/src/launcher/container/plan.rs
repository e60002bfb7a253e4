//! The definition of an extension's container.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, PortBinding, RestartPolicy,
    RestartPolicyNameEnum,
};

use super::engine::CanLimit;
use super::image::ImageName;
use super::route::Route;
use crate::launcher::{LaunchSpec, owner};
use crate::limits::ContainerLimits;
use gofer_net::auth::sha256;

/// The port that every extension listens on in its container.
const PORT: &str = "8082/tcp";

/// The address that it listens on: all addresses of its container.
const HOST: &str = "0.0.0.0:8082";

/// Label: the digest of the key that the container was launched with.
pub(super) const LAUNCH: &str = "gofer-sdk.start";

/// Label: the process of the core that created it.
pub(super) const OWNER: &str = "gofer-sdk.owner";

/// Label: the extension's name, for people.
pub(super) const EXTENSION: &str = "gofer-sdk.extension";

/// Capabilities that are dropped from those that engines give to programs that run as root
/// (programs of other users have none). What is left is enough to give up root.
const DROPPED: [&str; 5] = ["AUDIT_WRITE", "MKNOD", "NET_RAW", "SETFCAP", "SYS_CHROOT"];

/// The size of the log that the engine keeps. The core has read it by then.
const LOG_SIZE: &str = "1m";

/// What /tmp holds, in bytes. It is in memory and counts as the container's.
pub(super) const TMP_SIZE: u64 = 64 << 20;

/// How many characters of the extension's name are in the container's name.
const NAME_CHARS: usize = 40;

/// A container to be created.
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) extension: String,
    pub(super) limits: ContainerLimits,
    pub(super) body: ContainerCreateBody,
}

impl Plan {
    pub(super) fn new(
        image: &ImageName,
        spec: &LaunchSpec,
        route: Route,
        can_limit: CanLimit,
    ) -> Self {
        let limits = spec.limits;
        let digest = sha256(spec.key.as_bytes());
        let variables = spec.environment(HOST, &route.gofer_host);
        let mut labels = HashMap::from([
            (LAUNCH.to_owned(), launch_label(&digest)),
            (EXTENSION.to_owned(), spec.name.clone()),
        ]);
        if let Some(owner) = owner::this() {
            labels.insert(OWNER.to_owned(), owner);
        }
        let loopback =
            PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(String::new()) };
        let host_config = HostConfig {
            port_bindings: Some(HashMap::from([(PORT.to_owned(), Some(vec![loopback]))])),
            // The core restarts it, with another key.
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            memory: can_limit.memory.then_some(limits.memory),
            // With what is swapped out: no more than the memory.
            memory_swap: (can_limit.memory && can_limit.swap).then_some(limits.memory),
            pids_limit: can_limit.processes.then_some(limits.processes),
            readonly_rootfs: Some(!limits.writable_root),
            tmpfs: (!limits.writable_root).then(tmp),
            cap_drop: Some(DROPPED.map(str::to_owned).into()),
            extra_hosts: Some(route.extra_hosts).filter(|hosts| !hosts.is_empty()),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(HashMap::from([("max-size".to_owned(), LOG_SIZE.to_owned())])),
            }),
            ..Default::default()
        };
        let body = ContainerCreateBody {
            image: Some(image.to_string()),
            env: Some(variables.into_iter().map(|(key, value)| format!("{key}={value}")).collect()),
            exposed_ports: Some(vec![PORT.to_owned()]),
            labels: Some(labels),
            // If someone else stops it. The core stops it by Shutdown.
            stop_timeout: i64::try_from(spec.timeouts.stop.as_secs().max(1)).ok(),
            host_config: Some(host_config),
            ..Default::default()
        };
        let extension = spec.name.clone();
        Self { name: container_name(&extension, &digest), extension, limits, body }
    }
}

/// A /tmp that can be written to, but not executed from.
fn tmp() -> HashMap<String, String> {
    let options = format!("rw,noexec,nosuid,nodev,size={TMP_SIZE},mode=1777");
    HashMap::from([("/tmp".to_owned(), options)])
}

/// The loopback port that the engine has chosen, from an inspected container.
pub(super) fn published(ports: &bollard::models::PortMap) -> Option<u16> {
    let bindings = ports.get(PORT)?.as_ref()?;
    bindings.iter().find_map(|binding| binding.host_port.as_ref()?.parse().ok())
}

pub(super) fn launch_label(digest: &[u8; 32]) -> String {
    hex::encode(digest)
}

/// A readable, valid and unique name.
fn container_name(extension: &str, digest: &[u8; 32]) -> String {
    let readable: String = extension
        .chars()
        .map(|it| if it.is_ascii_alphanumeric() { it } else { '-' })
        .take(NAME_CHARS)
        .collect();
    let launch = launch_label(digest);
    format!("gofer-{readable}-{}", &launch[..12])
}
