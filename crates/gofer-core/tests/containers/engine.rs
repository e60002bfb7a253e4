//! Inspects the container engine directly, and builds images.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bollard::Docker;
use bollard::models::ContainerSummary;
use bollard::query_parameters::{
    BuildImageOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptionsBuilder,
};
use bytes::Bytes;
use tokio::sync::Mutex;
use tonic::codegen::tokio_stream::StreamExt as _;

use crate::within;

/// The label of all containers that a core creates.
pub(crate) const EXTENSION: &str = "gofer-sdk.extension";

/// The recipe in the README.
const RECIPE: &str = include_str!("../../../../examples/Dockerfile");

/// The line of the recipe that copies the result of its first stage.
const COPY_BUILT: &str = "COPY --from=build /source/image/ /\n";

/// Returns the engine. If none answers, reports to the uncaptured standard error that the test is
/// skipped.
pub(crate) async fn engine() -> Option<Docker> {
    let found = async {
        let docker = Docker::connect_with_defaults()?.negotiate_version().await?;
        docker.info().await?;
        Ok::<_, bollard::errors::Error>(docker)
    };
    match within(found).await {
        Ok(docker) => Some(docker),
        Err(error) => {
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            let line = format!("skipped: {test}: no container engine answers ({error})\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
            None
        }
    }
}

/// The extensions that Gofer provides.
const PROVIDED: [&str; 4] = ["interval", "cron", "github", "watch"];

/// Builds the examples as the recipe does, static and without the demo, but without optimizations.
/// Built once, in a target directory of their own because of its flags.
pub(crate) fn static_program(package: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let this = std::env::current_exe().unwrap();
        // target/debug/deps/containers-…
        let directory = this.ancestors().nth(3).unwrap().join("static");
        let target = host();
        let status = Command::new(env!("CARGO"))
            .args(["build", "--locked", "--no-default-features"])
            .args(PROVIDED.iter().flat_map(|package| ["--package", package]))
            .args(["--target", &target, "--target-dir"])
            .arg(&directory)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .status()
            .unwrap();
        assert!(status.success(), "the provided extensions cannot be built");
        directory.join(target).join("debug")
    });
    built.join(package)
}

/// Builds `greedy.rs`, once.
fn static_greedy() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/containers/greedy.rs");
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        // Another run of the tests may be using it.
        let own = directory.join(format!("greedy-{}", std::process::id()));
        let built = directory.join("greedy");
        let status = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()))
            .args(["--edition=2024", "-Ctarget-feature=+crt-static", "--target", &host(), "-o"])
            .args([&own, &source])
            .status()
            .unwrap();
        assert!(status.success(), "{} cannot be built", source.display());
        std::fs::rename(&own, &built).unwrap();
        built
    })
}

/// The host platform.
fn host() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let output = Command::new(rustc).arg("-vV").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

/// The recipe's last stage, with files from the build context instead of the first stage.
fn last_stage() -> String {
    let at = RECIPE.find("FROM scratch").expect("the recipe ends with a stage from scratch");
    let stage = &RECIPE[at..];
    assert!(stage.contains(COPY_BUILT), "the recipe does not copy what was built: {stage}");
    stage.replace(COPY_BUILT, "COPY image/ /\n")
}

/// Makes a `tar` archive.
pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        archive.append_data(&mut header, path, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

/// An image that is removed when this is dropped.
pub(crate) struct Image {
    docker: Docker,
    pub(crate) name: String,
}

impl Image {
    /// The interval extension, built by the recipe: shared by all tests that use it at the same
    /// time.
    pub(crate) async fn interval(docker: &Docker) -> Arc<Self> {
        static SHARED: Mutex<Weak<Image>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(image) = shared.upgrade() {
            return image;
        }
        let image = Arc::new(Self::of(docker, "interval", "").await);
        *shared = Arc::downgrade(&image);
        image
    }

    /// A provided extension, built by the recipe with these further lines.
    pub(crate) async fn of(docker: &Docker, package: &str, further: &str) -> Self {
        let mut recipe = last_stage();
        let _ = writeln!(recipe, "{further}");
        let program = std::fs::read(static_program(package)).unwrap();
        let context = archive(&[
            ("Dockerfile", recipe.as_bytes()),
            ("image/extension", &program),
            ("image/etc/ssl/certs/ca-certificates.crt", AUTHORITY.as_bytes()),
        ]);
        Self::build(docker, context).await
    }

    /// A program that asks for something that a container may not have.
    pub(crate) async fn greedy(docker: &Docker, wanted: &str) -> Self {
        let recipe = format!(
            "FROM scratch\nCOPY greedy /greedy\nEXPOSE 8082\n\
             ENTRYPOINT [\"/greedy\", \"{wanted}\"]\n"
        );
        let program = std::fs::read(static_greedy()).unwrap();
        let files = [("Dockerfile", recipe.as_bytes()), ("greedy", &*program)];
        Self::build(docker, archive(&files)).await
    }

    async fn build(docker: &Docker, context: Vec<u8>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("gofer-sdk-test/interval:{}-{count}", std::process::id());
        let options = BuildImageOptionsBuilder::default()
            .t(&name)
            // Another test may be removing the cached layers.
            .nocache(true)
            .rm(true)
            .forcerm(true)
            .q(true)
            .build();
        let body = bollard::body_full(Bytes::from(context));
        let mut reports = docker.build_image(options, None, Some(body));
        within(async {
            while let Some(report) = reports.next().await {
                report.expect("the image is built");
            }
        })
        .await;
        Self { docker: docker.clone(), name }
    }

    /// An image that the engine is to pull.
    pub(crate) fn named(docker: &Docker, name: String) -> Self {
        Self { docker: docker.clone(), name }
    }
}

/// Stands in for the build machine's certificate authorities.
const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";

impl Drop for Image {
    fn drop(&mut self) {
        let (docker, name) = (self.docker.clone(), self.name.clone());
        block_on(async move {
            let options = RemoveImageOptionsBuilder::default().force(true).build();
            let _ = docker.remove_image(&name, Some(options), None).await;
        });
    }
}

/// Removes the containers of an extension when dropped, in case a test fails.
pub(crate) struct Cleared(pub(crate) Docker, pub(crate) String);

impl Drop for Cleared {
    fn drop(&mut self) {
        let (docker, extension) = (self.0.clone(), self.1.clone());
        block_on(async move {
            for container in containers(&docker, &extension).await {
                let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
                let _ = docker.remove_container(&id(&container), Some(options)).await;
            }
        });
    }
}

/// Blocks on a future in a drop, on a runtime of its own.
fn block_on(last: impl Future<Output = ()> + Send + 'static) {
    let done = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(within(last));
    });
    let _ = done.join();
}

/// The containers of an extension, running or not.
pub(crate) async fn containers(docker: &Docker, extension: &str) -> Vec<ContainerSummary> {
    let label = format!("{EXTENSION}={extension}");
    let filters = HashMap::from([("label".to_owned(), vec![label])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    within(docker.list_containers(Some(options))).await.unwrap()
}

pub(crate) fn id(container: &ContainerSummary) -> String {
    container.id.clone().unwrap()
}

/// The only container of an extension.
pub(crate) async fn container(docker: &Docker, extension: &str) -> String {
    let found = containers(docker, extension).await;
    assert_eq!(found.len(), 1, "{found:?}");
    id(&found[0])
}
