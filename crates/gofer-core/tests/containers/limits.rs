//! What a container may use is what it was installed with, and it does not get more.

use bollard::models::{ContainerInspectResponse, HostConfig};
use gofer_core::{Core, InstallOptions, NO_SETTINGS, seconds};
use gofer_sdk::ErrorKind;

use super::*;

const MIB: u64 = 1 << 20;

async fn inspect(docker: &bollard::Docker, name: &str) -> ContainerInspectResponse {
    let made = container(docker, name).await;
    within(docker.inspect_container(&made, None)).await.unwrap()
}

/// Memory with and without swap, processes, whether the root is read-only, and the options of /tmp.
fn limits(host: &HostConfig) -> (Option<i64>, Option<i64>, Option<i64>, Option<bool>, String) {
    let tmp = host.tmpfs.as_ref().and_then(|all| all.get("/tmp")).cloned().unwrap_or_default();
    // Podman says more than it was asked for.
    let tmp = tmp.trim_end_matches(",rprivate,tmpcopyup").to_owned();
    (host.memory, host.memory_swap, host.pids_limit, host.readonly_rootfs, tmp)
}

const MIB_256: Option<i64> = Some(256 << 20);
const MIB_512: Option<i64> = Some(512 << 20);

#[tokio::test]
async fn a_container_has_the_limits_that_it_was_installed_with_or_else_the_defaults() {
    let Some(docker) = engine().await else { return };
    let info = within(docker.info()).await.unwrap();
    let swap = |memory| if info.swap_limit == Some(false) { Some(0) } else { memory };
    let image = Image::interval(&docker).await;
    let name = unique("limited");
    let _cleared = Cleared(docker.clone(), name.clone());
    let core = Core::on_loopback().await.unwrap();
    let extension = install(&core, &name, &image.name).await;
    within(extension.subscribe("default/nightly", "l", ONE_SECOND)).await.unwrap();
    further_runs(&core, "default/nightly", 1).await;
    let made = inspect(&docker, &name).await;
    let tmp = "rw,noexec,nosuid,nodev,size=67108864,mode=1777".to_owned();
    let expected = (MIB_512, swap(MIB_512), Some(512), Some(true), tmp.clone());
    assert_eq!(limits(&made.host_config.unwrap()), expected);
    assert_eq!(made.config.unwrap().stop_timeout, Some(10));

    let options = InstallOptions::new().memory(256 * MIB).processes(100);
    within(extension.update_options(options.stop_timeout(seconds(20)))).await.unwrap();
    further_runs(&core, "default/nightly", 1).await;
    let made = inspect(&docker, &name).await;
    let expected = (MIB_256, swap(MIB_256), Some(100), Some(true), tmp);
    assert_eq!(limits(&made.host_config.unwrap()), expected);
    assert_eq!(made.config.unwrap().stop_timeout, Some(20));

    // Also when it is launched anew, and with what an update does not name.
    within(extension.update_options(InstallOptions::new().writable_root(true))).await.unwrap();
    within(extension.restart()).await.unwrap();
    further_runs(&core, "default/nightly", 1).await;
    let made = inspect(&docker, &name).await;
    let expected = (MIB_256, swap(MIB_256), Some(100), Some(false), String::new());
    assert_eq!(limits(&made.host_config.unwrap()), expected);
    within(core.stop()).await;
}

/// Installs a program that asks for something, and returns why it has ended. The core and its other
/// extensions go on.
async fn end_of_greedy(test: &str, wanted: &str, options: InstallOptions) -> Option<String> {
    let docker = engine().await?;
    let image = Image::greedy(&docker, wanted).await;
    let interval = Image::interval(&docker).await;
    let [name, other] = ["greedy", "beside"].map(|it| unique(&format!("{test}-{it}")));
    let _cleared = [&name, &other].map(|name| Cleared(docker.clone(), name.clone()));
    let core = Core::on_loopback().await.unwrap();
    let beside = install(&core, &other, &interval.name).await;
    within(beside.subscribe("default/nightly", "l", ONE_SECOND)).await.unwrap();
    let installed = core.install_image_with(&name, &image.name, NO_SETTINGS, options);
    let refused = within(installed).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::FailedPrecondition, "{refused}");
    assert_eq!(containers(&docker, &name).await, []);
    further_runs(&core, "default/nightly", 1).await;
    let status = beside.status().unwrap();
    assert_eq!((status.state, status.restarts), (ExtensionState::Running, 0), "{status:?}");
    within(core.stop()).await;
    Some(refused.to_string())
}

fn assert_contains(reason: &str, parts: &[&str]) {
    for part in parts {
        assert!(reason.contains(part), "no `{part}` in: {reason}");
    }
}

#[tokio::test]
async fn a_container_that_needs_more_memory_than_it_may_use_ends_and_says_so() {
    let options = InstallOptions::new().memory(32 * MIB);
    let Some(reason) = end_of_greedy("memory", "memory", options).await else { return };
    assert_contains(&reason, &["more memory than the 32MiB", "`--memory`"]);
}

#[tokio::test]
async fn a_container_that_forks_more_than_it_may_ends_and_says_so() {
    let options = InstallOptions::new().processes(20);
    let Some(reason) = end_of_greedy("forks", "processes", options).await else { return };
    assert_contains(&reason, &["exit code 8", "at most 20 processes", "`--processes`"]);
}

#[tokio::test]
async fn a_container_writes_to_tmp_and_nowhere_else() {
    let Some(reason) = end_of_greedy("read-only", "files", InstallOptions::new()).await else {
        return;
    };
    assert_contains(&reason, &["exit code 8", "has written to /tmp", "`--writable-root`"]);
    assert_eq!(reason.matches("has written").count(), 1, "{reason}");
    let Some(reason) = end_of_greedy("full", "tmp", InstallOptions::new()).await else { return };
    assert_contains(&reason, &["exit code 8", "its /tmp holds 64MiB"]);
}

#[tokio::test]
async fn a_container_with_a_writable_root_writes_where_it_likes() {
    let options = InstallOptions::new().writable_root(true);
    let Some(reason) = end_of_greedy("writable", "files", options).await else { return };
    assert_contains(&reason, &["exit code 7", "has written to /tmp / it has written to /"]);
    assert!(!reason.contains("writable"), "{reason}");
}
