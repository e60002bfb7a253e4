//! What a container is made of.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, PortBinding, RestartPolicy,
    RestartPolicyNameEnum,
};

use super::image::ImageName;
use super::owner;
use super::route::Route;
use crate::launcher::Start;
use gofer_net::auth::sha256;

/// The port that every extension listens on in its container.
const PORT: &str = "8082/tcp";

/// Where it listens: on all addresses of its container.
const HOST: &str = "0.0.0.0:8082";

/// Whose a container is: the digest of the key that it was started with.
pub(super) const START: &str = "gofer-sdk.start";

/// The process of the core that made it.
pub(super) const OWNER: &str = "gofer-sdk.owner";

/// The name of the extension, for people.
pub(super) const EXTENSION: &str = "gofer-sdk.extension";

/// What engines do without, of what they allow to programs that run as root; to
/// others they allow none of it. It leaves what a program needs to give up root.
const DROPPED: [&str; 5] = ["AUDIT_WRITE", "MKNOD", "NET_RAW", "SETFCAP", "SYS_CHROOT"];

/// What the engine keeps of the log; the core has read it by then.
const LOG_SIZE: &str = "1m";

/// Seconds that others who stop the container give it. The core asks by Shutdown.
const STOP_SECONDS: i64 = 10;

/// Characters of an extension's name in its container's.
const NAME_CHARS: usize = 40;

/// A container that is to be made.
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) extension: String,
    pub(super) body: ContainerCreateBody,
}

impl Plan {
    pub(super) fn new(image: &ImageName, start: &Start, route: Route) -> Self {
        let digest = sha256(start.key.as_bytes());
        let variables = start.environment(HOST, &route.gofer_host);
        let mut labels = HashMap::from([
            (START.to_owned(), start_label(&digest)),
            (EXTENSION.to_owned(), start.name.clone()),
        ]);
        if let Some(owner) = owner::this() {
            labels.insert(OWNER.to_owned(), owner);
        }
        let loopback =
            PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(String::new()) };
        let host_config = HostConfig {
            port_bindings: Some(HashMap::from([(PORT.to_owned(), Some(vec![loopback]))])),
            // The core starts it again, with another key.
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
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
            stop_timeout: Some(STOP_SECONDS),
            host_config: Some(host_config),
            ..Default::default()
        };
        Self { name: name(&start.name, &digest), extension: start.name.clone(), body }
    }
}

/// The port of loopback that the engine has chosen, of an inspected container's.
pub(super) fn published(ports: &bollard::models::PortMap) -> Option<u16> {
    let bindings = ports.get(PORT)?.as_ref()?;
    bindings.iter().find_map(|binding| binding.host_port.as_ref()?.parse().ok())
}

pub(super) fn start_label(digest: &[u8; 32]) -> String {
    use std::fmt::Write as _;
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Readable, allowed, and nobody else's.
fn name(extension: &str, digest: &[u8; 32]) -> String {
    let readable: String = extension
        .chars()
        .map(|it| if it.is_ascii_alphanumeric() { it } else { '-' })
        .take(NAME_CHARS)
        .collect();
    let start = start_label(digest);
    format!("gofer-{readable}-{}", &start[..12])
}
