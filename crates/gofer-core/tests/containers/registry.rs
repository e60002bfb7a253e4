//! A registry with one image: just enough for an engine to pull it. It requires a user and a
//! password, and holds back the last layer until it is released.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

pub(crate) const USER: &str = "reader";
pub(crate) const PASSWORD: &str = "open-sesame";

/// The user and password in a request, in lower case.
const AUTHORIZATION: &str = "authorization: basic cmvhzgvyom9wzw4tc2vzyw1l";

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    gate: Arc<Semaphore>,
    _serving: AbortOnDropHandle<()>,
}

struct Content {
    by_path: HashMap<String, (&'static str, Vec<u8>)>,
    held_back: String,
    gate: Arc<Semaphore>,
}

fn digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Registry {
    /// Serves an image `extension:1` of these layers, each a `tar` archive.
    pub(crate) async fn serve(layers: Vec<Vec<u8>>) -> Self {
        let diffs: Vec<_> = layers.iter().map(|layer| digest(layer)).collect();
        let config = serde_json::json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {
                "User": "65532:65532",
                "ExposedPorts": { "8082/tcp": {} },
                "Entrypoint": ["/extension"],
            },
            "rootfs": { "type": "layers", "diff_ids": diffs },
        })
        .to_string()
        .into_bytes();
        let describe = |media: &str, bytes: &[u8]| serde_json::json!({ "mediaType": media, "size": bytes.len(), "digest": digest(bytes) });
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": describe(CONFIG, &config),
            "layers": layers.iter().map(|layer| describe(LAYER, layer)).collect::<Vec<_>>(),
        })
        .to_string()
        .into_bytes();
        let held_back = format!("/v2/extension/blobs/{}", digest(layers.last().unwrap()));
        let blobs = layers.into_iter().chain([config]);
        let mut by_path: HashMap<_, _> = blobs
            .map(|blob| {
                let path = format!("/v2/extension/blobs/{}", digest(&blob));
                (path, ("application/octet-stream", blob))
            })
            .collect();
        let by_digest = format!("/v2/extension/manifests/{}", digest(&manifest));
        by_path.insert(by_digest, (MANIFEST, manifest.clone()));
        by_path.insert("/v2/extension/manifests/1".to_owned(), (MANIFEST, manifest));
        by_path.insert("/v2/".to_owned(), ("application/json", b"{}".to_vec()));
        let gate = Arc::new(Semaphore::new(0));
        let content = Arc::new(Content { by_path, held_back, gate: Arc::clone(&gate) });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let content = Arc::clone(&content);
                tokio::spawn(async move { answer(stream, &content).await });
            }
        });
        Self { address, gate, _serving: AbortOnDropHandle::new(serving) }
    }

    /// Releases the last layer.
    pub(crate) fn release(&self) {
        self.gate.add_permits(1000);
    }
}

/// Answers one request for each connection. Engines try TLS first and fall back to plain HTTP.
async fn answer(stream: TcpStream, content: &Content) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let before = head.len();
        stream.read_until(b'\n', &mut head).await?;
        if head.len() == before || head[before..].starts_with(b"\r\n") {
            break;
        }
        // A TLS handshake.
        if head[0] == 22 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut answer = Vec::new();
    let (status, media, body): (_, _, &[u8]) = if !head.to_lowercase().contains(AUTHORIZATION) {
        (
            "401 Unauthorized",
            "application/json",
            br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
        )
    } else if let Some((media, body)) = content.by_path.get(path) {
        ("200 OK", media, body)
    } else {
        (
            "404 Not Found",
            "application/json",
            br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
        )
    };
    write!(
        answer,
        "HTTP/1.1 {status}\r\nContent-Type: {media}\r\nContent-Length: {}\r\n\
         Docker-Content-Digest: {}\r\nDocker-Distribution-Api-Version: registry/2.0\r\n\
         WWW-Authenticate: Basic realm=\"tests\"\r\nConnection: close\r\n\r\n",
        body.len(),
        digest(body),
    )?;
    let stream = stream.get_mut();
    stream.write_all(&answer).await?;
    if method != "HEAD" {
        // Podman reports a layer once it has begun.
        let (first, rest) = body.split_at(body.len() / 2);
        stream.write_all(first).await?;
        if path == content.held_back {
            // Never closed.
            let _ = content.gate.acquire().await;
        }
        stream.write_all(rest).await?;
    }
    stream.shutdown().await
}
